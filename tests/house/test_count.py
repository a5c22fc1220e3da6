"""The figures of the house count what they say, on a package of three modules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.house import count

FILES = {
    "__init__.py": "",
    "a/one.py": """
from synthbook.a import two

LIMIT = 1

def area(side):
    return _square(side) + two.base

def _square(found):
    return found * found
""",
    "a/two.py": """
LIMIT = 2
base = 0

class Keep:
    def follow(self, observe):
        from synthbook.b import three
        said = three.top(observe)
        return said
""",
    "b/three.py": """
from synthbook.a import one
LIMIT = 1

def top(value):
    if value:
        value = one.area(value)
    else:
        value = 0
    return value
""",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "synthbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "notebooks").mkdir()
    cells = [
        {"cell_type": "code", "source": ["import numpy\n", "from synthbook.a import one\n", "import synthbook as sb"]}
    ]
    (tmp_path / "notebooks" / "00.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def test_every_figure_of_a_small_house(root: Path) -> None:
    result = count.figures(root)
    assert (result["modules"], result["longest module"]) == (4, (10, "synthbook.b.three"))
    assert result["public names"] == 5 and result["bound in several modules"] == 1
    assert result["bound twice in one wing"] == ["a: LIMIT"]  # three.py binds it in another wing
    assert result["short helpers used once"] == ["synthbook.a.one._square", "synthbook.a.one.area"]  # top has six lines
    assert result["circles"] == [["synthbook.a.one", "synthbook.a.two", "synthbook.b.three"]]
    assert result["import lines of a notebook, at most"] == 2 and result["heavy packages imported"] == []
    assert result["dialect in public names"] == {"Keep": 1, "follow": 1, "observe": 1}
    assert result["dialect in local names"] == {"found": 1, "said": 1}
