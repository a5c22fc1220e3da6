"""Notebooks as files: read, brought into one stable form, written, and asked what they carry.

A notebook is the plain dictionary of its JSON (nbformat 4), with every multi-line text joined.
"""

from __future__ import annotations

import ast
import base64
import json
import math
import re
from pathlib import Path
from typing import Any

from synthbook.core.errors import DataError
from synthbook.core.files import strict_json
from synthbook.course import shape

Notebook = dict[str, Any]
Cell = dict[str, Any]

KEY = "synthbook"  # the package's own corner of notebook and cell metadata
CARD = re.compile(r"(<!-- measured -->).*?(<!-- /measured -->)", re.DOTALL)

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_FOLDERS = re.compile(r"(?:/[^\s:'\"/]+)+/(?=[^\s:'\"/]+\.py:\d+)")


def read(path: Path) -> Notebook:
    """Read a notebook; `DataError` names the file when it is missing, unreadable, cut off, or none of format 4."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"), parse_constant=str)  # NaN is not JSON
        shape.check(notebook)
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


def is_whole(notebook: Notebook) -> bool:
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


def measured(notebook: Notebook) -> dict[str, Any]:
    """What the runner wrote into the metadata: fingerprint, profile, minutes, peak_mib, claims.

    Empty if it has not; a fact of a wrong type, which someone typed, is left out.
    """
    found = notebook.get("metadata", {}).get(KEY)
    if not isinstance(found, dict):
        return {}
    facts: dict[str, Any] = {key: found[key] for key in ("fingerprint", "profile") if isinstance(found.get(key), str)}
    facts |= {key: found[key] for key in ("minutes", "peak_mib") if _is_number(found.get(key))}
    if isinstance(found.get("claims"), list):
        facts["claims"] = [row for row in found["claims"] if _is_row(row)]
    return facts


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("part"), str)


def normalise(notebook: Notebook) -> Notebook:
    """Bring an executed notebook into its committed form, in place, and return it.

    Drops timing metadata and widget state, joins neighbouring outputs of one stream, gives every cell an id, and
    names kernel and language without their versions.
    """
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"] |= {"kernelspec": dict(_KERNEL), "language_info": dict(_LANGUAGE)}
    taken = {cell.get("id") for cell in notebook["cells"]}
    for number, cell in enumerate(notebook["cells"]):
        if "id" not in cell:
            cell["id"] = next(name for name in _names(number) if name not in taken)
            taken.add(cell["id"])
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _merge_streams(cell.get("outputs", []))
    if notebook["nbformat_minor"] < 5:  # the first version whose cells have ids
        notebook["nbformat_minor"] = 5
    return notebook


def write_card(notebook: Notebook) -> None:
    """Put the measured time and memory between the header card's markers, where the first cell has them."""
    facts, cells = measured(notebook), notebook["cells"]
    if {"minutes", "peak_mib"} <= facts.keys() and cells and cells[0]["cell_type"] == "markdown":
        text = f"{max(facts['minutes'], 0.1):.1f} min, {facts['peak_mib']} MiB"
        cells[0]["source"] = CARD.sub(rf"\g<1>{text}\g<2>", cells[0]["source"])


def refresh(executed: Notebook, source: Notebook) -> Notebook:
    """The source's words and metadata with the outputs of an executed copy whose code is the same."""
    fresh: Notebook = json.loads(json.dumps(source))
    for cell, done in zip(code_cells(fresh), code_cells(executed), strict=True):
        cell["outputs"], cell["execution_count"] = done["outputs"], done["execution_count"]
    fresh["metadata"][KEY] = measured(executed)
    write_card(fresh)
    return normalise(fresh)


def exports(notebook: Notebook) -> dict[str, bytes | None]:
    """Path to PNG bytes, for every code cell whose metadata asks for export; None where it shows no picture."""
    return {
        cell["metadata"][KEY]["export"]: _picture(cell)
        for cell in code_cells(notebook)
        if "export" in cell["metadata"].get(KEY, {})
    }


def _picture(cell: Cell) -> bytes | None:
    for output in cell.get("outputs", []):
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output["data"]["image/png"])
    return None


def _names(number: int) -> list[str]:
    return [f"cell-{number}", *(f"cell-{number}-{k}" for k in range(1, 10_000))]


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
        if output.get("name") == "stderr":
            output["text"] = _stable_stderr(output["text"])
    return merged


def _stable_stderr(text: str) -> str:
    """Warnings without the folders of one machine, progress bars as they ended."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _FOLDERS.sub("", "\n".join(lines))
