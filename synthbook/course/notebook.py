"""Notebooks as files: read, brought into one stable form, written, and asked what they carry.

A notebook is the plain dictionary of its JSON (nbformat 4), with every multi-line text joined.
"""

from __future__ import annotations

import ast
import base64
import json
import math
import platform
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import synthbook
from synthbook.core.errors import DataError
from synthbook.core.storage import sha256, sha256_file, strict_json
from synthbook.course.project import Project
from synthbook.datasets import MANIFEST, data_folder, read_manifest

_TEXT = (str, list)
_WORDS = {dict: "an object", list: "a list", str: "text", int: "a whole number", _TEXT: "text or a list of lines"}


def validate(notebook: Any) -> None:
    """Raise `ValueError`, saying which cell lacks what, unless all that the package reads has the type it must have.

    Fills in what format 4 lets a file leave out or old tools left out: metadata, outputs, the minor version.
    """
    _of_type(notebook, dict, "the file")
    if notebook.get("nbformat") != 4:
        raise ValueError(f"nbformat is {notebook.get('nbformat')!r}, not 4")
    notebook.setdefault("metadata", {})
    notebook.setdefault("nbformat_minor", 4)
    _member(notebook, "metadata", dict, "the notebook")
    _member(notebook, "nbformat_minor", int, "the notebook")
    for number, cell in enumerate(_member(notebook, "cells", list, "the notebook"), start=1):
        _check_cell(cell, f"cell {number}")


def _check_cell(cell: Any, place: str) -> None:
    kind = _member(_of_type(cell, dict, place), "cell_type", str, place)
    _lines(_member(cell, "source", _TEXT, place), f"{place}: source")
    cell.setdefault("metadata", {})
    own = _member(cell, "metadata", dict, place).get("synthbook", {})
    if "export" in _of_type(own, dict, f"{place}: metadata.synthbook"):
        _member(own, "export", str, f"{place}: metadata.synthbook")
    if kind == "code":
        cell.setdefault("outputs", [])
        for output in _member(cell, "outputs", list, place):
            _check_output(output, f"{place}: an output")


def _check_output(output: Any, place: str) -> None:
    kind = _member(_of_type(output, dict, place), "output_type", str, place)
    if kind == "stream":
        _member(output, "name", str, place)
        _lines(_member(output, "text", _TEXT, place), f"{place}: text")
    for mime, value in _of_type(output.get("data", {}), dict, f"{place}: data").items():
        if not mime.endswith("json"):
            _lines(_of_type(value, _TEXT, f"{place}: {mime}"), f"{place}: {mime}")


def _member(holder: dict[str, Any], key: str, kind: Any, place: str) -> Any:
    if key not in holder:
        raise ValueError(f"{place} lacks {key}")
    return _of_type(holder[key], kind, f"{place}: {key}")


def _lines(text: Any, place: str) -> None:
    if isinstance(text, list):
        for line in text:
            _of_type(line, str, f"a line of {place}")


def _of_type(value: Any, kind: Any, place: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{place} is {str(value)[:40]!r}, not {_WORDS[kind]}")
    return value


# ── Reading and writing ──


Notebook = dict[str, Any]
Cell = dict[str, Any]

KEY = "synthbook"  # the package's own corner of notebook and cell metadata
_MEASURED = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_FOLDERS = re.compile(r"(?:/[^\s:'\"/]+)+/(?=[^\s:'\"/]+\.py:\d+)")


def read(path: Path) -> Notebook:
    """Read a notebook; `DataError` names the file when it is missing, unreadable, cut off, or none of format 4."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"), parse_constant=str)  # NaN is not JSON
        validate(notebook)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not a notebook of format 4 ({error}): mend or restore it") from None
    for cell in notebook["cells"]:
        _join_lines(cell)
    return dict(notebook)


def dumps(notebook: Notebook) -> str:
    """The file's text, laid out as Jupyter lays it out, so that a diff shows what changed and nothing else."""
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = output["text"].splitlines(keepends=True)
            for mime, value in output.get("data", {}).items():
                if isinstance(value, str):
                    output["data"][mime] = value.splitlines(keepends=True)
    return strict_json(notebook, indent=1, sort_keys=True) + "\n"


def code_cells(notebook: Notebook) -> list[Cell]:
    """The code cells that hold code; Jupyter never runs a blank one."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]


def is_fully_executed(notebook: Notebook) -> bool:
    """Whether every code cell was executed, in order from 1, and none ended in an error."""
    cells = code_cells(notebook)
    counts = [cell.get("execution_count") for cell in cells]
    errors = any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))
    return counts == list(range(1, len(cells) + 1)) and not errors


def claim_ids(cell: Cell) -> list[str]:
    """The ids in a code cell's calls of `claim("...")`, in order, each once; none where a cell magic takes the text.

    >>> claim_ids({"cell_type": "code", "source": 'claim("C7.2-1", part="var", measured=1.0, expected=1.0)'})
    ['C7.2-1']
    """
    try:
        tree = ast.parse(cell["source"] if cell["cell_type"] == "code" else "")
    except SyntaxError:
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return list(dict.fromkeys(id for id in map(_claim_id, calls) if id))


def _claim_id(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "id")]
    if name == "claim" and given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str):
        return given[0].value
    return None


def run_metadata(notebook: Notebook) -> dict[str, Any]:
    """What the runner wrote into the metadata: fingerprint, profile, minutes, peak_mib, claims.

    Empty if it has not; a fact of a wrong type, which someone typed, is left out.
    """
    own = notebook.get("metadata", {}).get(KEY)
    if not isinstance(own, dict):
        return {}
    facts: dict[str, Any] = {key: own[key] for key in ("fingerprint", "profile") if isinstance(own.get(key), str)}
    numbers = {key: own.get(key) for key in ("minutes", "peak_mib") if not isinstance(own.get(key), bool)}
    facts |= {key: n for key, n in numbers.items() if isinstance(n, int | float) and math.isfinite(n)}
    if isinstance(own.get("claims"), list):
        rows = [row for row in own["claims"] if isinstance(row, dict)]
        facts["claims"] = [row for row in rows if isinstance(row.get("id"), str) and isinstance(row.get("part"), str)]
    return facts


def normalize(notebook: Notebook) -> Notebook:
    """Bring an executed notebook into its committed form, in place, and return it.

    Drops timing metadata and widget state, joins neighbouring outputs of one stream, gives every cell an id, and
    names kernel and language without their versions.
    """
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"] |= {"kernelspec": dict(_KERNEL), "language_info": dict(_LANGUAGE)}
    taken = {cell.get("id") for cell in notebook["cells"]}
    for number, cell in enumerate(notebook["cells"]):
        if "id" not in cell:
            names = (f"cell-{number}", *(f"cell-{number}-{k}" for k in range(1, 10_000)))
            cell["id"] = next(name for name in names if name not in taken)
            taken.add(cell["id"])
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _merge_streams(cell.get("outputs", []))
    if notebook["nbformat_minor"] < 5:  # the first version whose cells have ids
        notebook["nbformat_minor"] = 5
    return notebook


def update_header(notebook: Notebook) -> None:
    """Put the measured time and memory between the header card's markers, where the first cell has them."""
    facts, cells = run_metadata(notebook), notebook["cells"]
    if {"minutes", "peak_mib"} <= facts.keys() and cells and cells[0]["cell_type"] == "markdown":
        text = f"{max(facts['minutes'], 0.1):.1f} min, {facts['peak_mib']} MiB"
        cells[0]["source"] = _MEASURED.sub(rf"\g<1>{text}\g<2>", cells[0]["source"])


def copy_outputs(executed: Notebook, source: Notebook) -> Notebook:
    """The source's words and metadata with the outputs of an executed copy whose code is the same."""
    fresh: Notebook = json.loads(json.dumps(source))
    for cell, done in zip(code_cells(fresh), code_cells(executed), strict=True):
        cell["outputs"], cell["execution_count"] = done["outputs"], done["execution_count"]
    fresh["metadata"][KEY] = run_metadata(executed)
    update_header(fresh)
    return normalize(fresh)


def exported_figures(notebook: Notebook) -> dict[str, bytes | None]:
    """Path to PNG bytes, for every code cell whose metadata asks for export; None where it shows no picture."""
    figures = {}
    for cell in code_cells(notebook):
        if "export" in cell["metadata"].get(KEY, {}):
            data = [output.get("data", {}) for output in cell.get("outputs", [])]
            png = next((mime["image/png"] for mime in data if "image/png" in mime), None)
            figures[cell["metadata"][KEY]["export"]] = None if png is None else base64.b64decode(png)
    return figures


def _join_lines(cell: Cell) -> None:
    cell["source"] = _joined(cell["source"])
    for output in cell.get("outputs", []):
        if "text" in output:
            output["text"] = _joined(output["text"])
        for mime, value in output.get("data", {}).items():
            if not mime.endswith("json"):
                output["data"][mime] = _joined(value)


def _joined(text: Any) -> Any:
    return "".join(text) if isinstance(text, list) else text


def _merge_streams(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for output in outputs:
        same = merged and output["output_type"] == merged[-1]["output_type"] == "stream"
        if same and output["name"] == merged[-1]["name"]:
            merged[-1]["text"] += output["text"]
        else:
            merged.append(dict(output))
    for output in merged:
        if output.get("name") == "stderr":  # warnings without the folders of one machine, progress bars as they ended
            lines = (line.rstrip("\r").rpartition("\r")[2] for line in output["text"].split("\n"))
            output["text"] = _FOLDERS.sub("", "\n".join(lines))
    return merged


# ── Fingerprints ──
# The hash covers the code cells, the synthbook modules they import (directly or through one another), the ledger of
# claims, the pinned versions, the data manifest and the sizes of the files it lists, the profile, and Python's minor
# version. Words do not count.


PACKAGE = Path(synthbook.__file__).parent

_MAGIC = re.compile(r"^(\s*)(?:[%!]|[\w, ]+=\s*[%!]).*$", re.MULTILINE)


def fingerprint(notebook: Notebook, project: Project, *, profile: str, package: Path = PACKAGE) -> str:
    """SHA-256, as 64 hexadecimal digits, over everything that decides the notebook's outputs."""
    sources = [cell["source"] for cell in code_cells(notebook)]
    parts = [profile, platform.python_version().rpartition(".")[0], *sources, *_data()]
    named = {file.name: file for file in (package / "course" / "claims.toml", project.root / "constraints.txt")}
    named |= {file.relative_to(package).as_posix(): file for file in modules_of(sources, package)}
    parts += [f"{name} {_hash_of(file)}" for name, file in named.items()]
    # lengths keep neighbors from running together
    return sha256("".join(f"{len(part.encode())} {part}\n" for part in parts).encode())


def modules_of(sources: list[str], package: Path = PACKAGE) -> list[Path]:
    """The package's files that the sources import, sorted: modules, their packages' __init__, and what those import."""
    waiting = {name for source in sources for name in _imports(source, parent="", root=package.name)}
    files: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        for module, file in _files_of(name, package):
            if module not in files:
                files[module] = file
                waiting |= _imports_of_file(file, module, package.name, file.stat().st_mtime_ns)
    return sorted(files.values())


def _data() -> Iterator[str]:
    """The manifest's hash, and each data file's size: damage that changes a size is seen without reading the files."""
    try:
        folder = data_folder()
        listed = read_manifest(folder)
    except DataError:
        yield "no data"
        return
    yield _hash_of(folder / MANIFEST)
    for file in listed:
        yield f"{file} {(folder / file).stat().st_size if (folder / file).is_file() else 'absent'}"


def _hash_of(file: Path) -> str:
    return sha256_file(file) if file.is_file() else "absent"


def _files_of(name: str, package: Path) -> Iterator[tuple[str, Path]]:
    """A dotted name's file and the __init__ files of all packages above it; a name inside a module has no file.

    What a package gives lazily comes from the module that its stub, `__init__.pyi`, names.
    """
    steps = name.split(".")
    for depth in range(1, len(steps) + 1):
        place = package.parent.joinpath(*steps[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield ".".join(steps[:depth]), file
        stub = place / "__init__.pyi"
        if depth < len(steps) and stub.is_file():
            lazy = _lazy_names(stub, ".".join(steps[:depth]), stub.stat().st_mtime_ns).get(steps[depth])
            if lazy not in (None, ".".join(steps[: depth + 1])):
                yield from _files_of(".".join([lazy, *steps[depth + 1 :]]), package)


@lru_cache(maxsize=256)
def _lazy_names(stub: Path, package: str, changed: int) -> dict[str, str]:
    """Names that a package gives lazily, each with the dotted module it comes from; a module comes from itself."""
    names: dict[str, str] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            names |= {
                alias.asname or alias.name: module if node.module else f"{module}.{alias.name}" for alias in node.names
            }
    return names


@lru_cache(maxsize=4096)
def _imports_of_file(file: Path, module: str, root: str, changed: int) -> frozenset[str]:
    parent = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return _imports(file.read_text(encoding="utf-8"), parent=parent, root=root)


def _imports(source: str, *, parent: str, root: str) -> frozenset[str]:
    """Dotted names below `root` that a source imports anywhere; `parent` is the package relative imports start from."""
    try:
        tree = compile(
            _MAGIC.sub(r"\1pass", source), "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
    except SyntaxError:  # a cell magic: whatever name of the package it mentions may be an import
        return frozenset(re.findall(rf"\b{root}(?:\.\w+)*", source))
    names: set[str] = set()
    bound: dict[str, str] = {}  # what an import binds, by name: `sb` of `import synthbook as sb`
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            bound |= {alias.asname or root: alias.name if alias.asname else root for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, parent)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
            bound |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = _chain(node)
            names.add(".".join([bound.get(first, ""), *rest]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # a lazy path, as registries hold
            module, colon, _ = node.value.partition(":")
            names |= {module} if colon and re.fullmatch(r"\w+(\.\w+)+", module) else set()
    return frozenset(name for name in names if name == root or name.startswith(root + "."))


def _chain(node: ast.expr) -> list[str]:
    """The names of a dotted expression; [""] for anything else."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def _absolute(node: ast.ImportFrom, parent: str) -> str:
    if node.level == 0:
        return node.module or ""
    steps = parent.split(".")
    above = steps[: len(steps) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
