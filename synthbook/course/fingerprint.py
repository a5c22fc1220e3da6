"""What an executed notebook depends on, as one hash: equal hashes mean that running it again can be skipped.

The hash covers the code cells, the synthbook modules they import (directly or through one another), the ledger of
claims, the pinned versions, the data manifest and the sizes of the files it lists, the profile, and Python's minor
version. Words do not count.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import synthbook
from synthbook.core.errors import DataError
from synthbook.core.files import sha256_file
from synthbook.core.manifest import MANIFEST, data_folder, read_manifest
from synthbook.course.notebook import Notebook, code_cells
from synthbook.course.project import Project

PACKAGE = Path(synthbook.__file__).parent

_MAGIC = re.compile(r"^(\s*)(?:[%!]|[\w, ]+=\s*[%!]).*$", re.MULTILINE)


def fingerprint(notebook: Notebook, project: Project, *, profile: str, package: Path = PACKAGE) -> str:
    """SHA-256, as 64 hexadecimal digits, over everything that decides the notebook's outputs."""
    sources = [cell["source"] for cell in code_cells(notebook)]
    files = [package / "course" / "claims.toml", project.root / "constraints.txt"]
    digest = hashlib.sha256()
    for part in (profile, platform.python_version().rpartition(".")[0], *sources, *_data()):
        _add(digest, part)
    for file in files:
        _add(digest, f"{file.name} {_hash_of(file)}")
    for file in modules_of(sources, package):
        _add(digest, f"{file.relative_to(package).as_posix()} {_hash_of(file)}")
    return digest.hexdigest()


def modules_of(sources: list[str], package: Path = PACKAGE) -> list[Path]:
    """The package's files that the sources import, sorted: modules, their packages' __init__, and what those import."""
    waiting = {name for source in sources for name in _imports(source, parent="", root=package.name)}
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        for module, file in _files_of(name, package):
            if module not in found:
                found[module] = file
                waiting |= _imports_of_file(file, module, package.name, file.stat().st_mtime_ns)
    return sorted(found.values())


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


def _add(digest: hashlib._Hash, part: str) -> None:
    digest.update(f"{len(part.encode())} {part}\n".encode())  # lengths keep neighbours from running together


def _hash_of(file: Path) -> str:
    return sha256_file(file) if file.is_file() else "absent"


def _files_of(name: str, package: Path) -> Iterator[tuple[str, Path]]:
    """A dotted name's file and the __init__ files of all packages above it; a name inside a module has no file."""
    steps = name.split(".")
    for depth in range(1, len(steps) + 1):
        place = package.parent.joinpath(*steps[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield ".".join(steps[:depth]), file


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
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, parent)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name == root or name.startswith(root + "."))


def _absolute(node: ast.ImportFrom, parent: str) -> str:
    if node.level == 0:
        return node.module or ""
    steps = parent.split(".")
    above = steps[: len(steps) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
