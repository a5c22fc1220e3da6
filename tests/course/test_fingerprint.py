"""What changes a fingerprint and what must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synthbook.course import notebook as nb
from synthbook.course.notebook import PACKAGE, fingerprint, modules_of
from synthbook.course.project import Project
from synthbook.datasets import write_manifest
from tests.course.conftest import Book

FILES = {
    "__init__.py": "",
    "lonely.py": "x = 1",
    "course/__init__.py": "from pack.course.claims import claim",
    "course/claims.py": "from ..core import files",
    "course/claims.toml": "",
    "core/__init__.py": "",
    "core/files.py": "def f():\n    from . import deep",
    "core/deep.py": "import numpy",
    "core/other.py": "",
    "wing/__init__.py": "from .inner import thing",
    "wing/inner.py": "thing = 1",
    "lazy/__init__.py": "",
    "lazy/__init__.pyi": "from . import room\nfrom .deep.inside import Thing as Thing\nfrom .room import other",
    "lazy/room.py": "",
    "lazy/deep/__init__.py": "",
    "lazy/deep/inside.py": "",
    "table.py": "PATHS = {'a': 'pack.lonely:x', 'b': 'numpy.random:normal', 'c': 'pack: a word'}",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names(source: str, package: Path) -> set[str]:
    return {path.relative_to(package).as_posix() for path in modules_of([source], package)}


COURSE = {"__init__.py", "course/__init__.py", "course/claims.py", "core/__init__.py", "core/files.py", "core/deep.py"}

LAZY = {"__init__.py", "lazy/__init__.py", "lazy/deep/__init__.py", "lazy/deep/inside.py"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy, packing", set()),
        ("import pack", {"__init__.py"}),
        ("from pack import lonely as it", {"__init__.py", "lonely.py"}),
        ("from pack.course import claim", COURSE),
        ("import pack.course.claims as c", COURSE),
        ("from pack.core import other", {"__init__.py", "core/__init__.py", "core/other.py"}),
        ("%matplotlib inline\n!ls\nfrom pack.wing import *", {"__init__.py", "wing/__init__.py", "wing/inner.py"}),
        ("%%time\nx = !ls\nif x:\n    %cd ..\n    import pack.lonely", {"__init__.py", "lonely.py"}),
        ("%%bash\nif true; then python -m pack.lonely; fi", {"__init__.py", "lonely.py"}),
        ("await f()\nimport pack.lonely", {"__init__.py", "lonely.py"}),
        ("from pack.lazy import Thing", LAZY),
        ("import pack as p\np.lazy.Thing.of(3).x", LAZY),
        ("import pack.lazy\npack.lazy.Thing", LAZY),
        ("from pack import lazy\nlazy.room", {"__init__.py", "lazy/__init__.py", "lazy/room.py"}),
        ("from pack.lazy import other", {"__init__.py", "lazy/__init__.py", "lazy/room.py"}),
        ("import pack as p\np.lazy", {"__init__.py", "lazy/__init__.py"}),
        ("from pack import table", {"__init__.py", "table.py", "lonely.py"}),
    ],
)
def test_modules_are_found_through_one_another(source: str, expected: set[str], package: Path) -> None:
    assert names(source, package) == expected


@pytest.mark.slow
def test_the_scan_agrees_with_what_python_loads() -> None:
    """Oracle: the import system. Whatever an import of ours really loads must be in the scan."""
    source = "from synthbook.course import claim, predict\nimport synthbook.core.storage"
    show = "\nimport sys\nfor m in list(sys.modules.values()):\n    print(getattr(m, '__file__', None) or '')"
    out = subprocess.run([sys.executable, "-c", source + show], capture_output=True, text=True, check=True).stdout
    loaded = {Path(line) for line in out.splitlines() if Path(line).is_relative_to(PACKAGE) and line.endswith(".py")}
    assert loaded and loaded <= set(modules_of([source]))


@pytest.fixture
def parts(book: Book, package: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[nb.Notebook, Book, Path]:
    data = book.root / "data"
    data.mkdir()
    (data / "a.csv").write_text("1")
    write_manifest(data)
    monkeypatch.setenv("SYNTHBOOK_DATA", str(data))
    return nb.read(book.write("01", "from pack.core import files", "x = 1")), book, package


def test_what_changes_it(parts: tuple[nb.Notebook, Book, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, book, package = parts

    def now(profile: str = "quick") -> str:
        return fingerprint(notebook, book, profile=profile, package=package)

    seen = {now(), now("full")}
    for path in ("pack/core/deep.py", "pack/core/files.py", "pack/__init__.py", "pack/course/claims.toml"):
        (book.root / path).write_text("# changed")
        seen.add(now())
    for path in ("constraints.txt", "data/a.csv"):
        (book.root / path).write_text("changed")
        seen.add(now())
    write_manifest(book.root / "data")
    seen.add(now())
    (book.root / "data" / "a.csv").unlink()
    seen.add(now())
    monkeypatch.setenv("SYNTHBOOK_DATA", str(book.root))  # no data there at all
    seen.add(now())
    notebook["cells"][2]["source"] = "x = 2"
    seen.add(now())
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    seen.add(now())
    assert len(seen) == 13 and all(len(value) == 64 for value in seen)


def test_what_does_not_change_it(parts: tuple[nb.Notebook, Book, Path]) -> None:
    notebook, book, package = parts
    before = fingerprint(notebook, book, profile="quick", package=package)
    (package / "lonely.py").write_text("x = 2")
    (package / "core" / "other.py").write_text("x = 2")
    (book.root / "data" / "b.csv").write_text("not listed")
    notebook["cells"][0]["source"] = "# Other words"
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    notebook["cells"][1]["metadata"] = {"tags": ["x"]}
    notebook["metadata"]["synthbook"] = {"fingerprint": "abc"}
    notebook = json.loads(json.dumps(notebook))
    assert fingerprint(notebook, Project(book.root), profile="quick", package=package) == before


def test_code_that_moves_between_cells_changes_it(parts: tuple[nb.Notebook, Book, Path]) -> None:
    _, book, package = parts
    one, two = nb.read(book.write("a", "ab", "c")), nb.read(book.write("b", "a", "bc"))
    assert fingerprint(one, book, profile="quick", package=package) != fingerprint(
        two, book, profile="quick", package=package
    )
