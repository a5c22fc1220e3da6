"""The API reference and the stubs: every name exists, has a docstring, and is on the page."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import synthbook
from synthbook.course.api import api_page, exported

PACKAGE = Path(synthbook.__file__).parent
STUBS = {".".join(p.parent.relative_to(PACKAGE.parent).parts): p for p in PACKAGE.glob("**/__init__.pyi")}


@pytest.mark.parametrize("package", sorted(STUBS))
def test_every_name_of_a_stub_is_given_and_documented(package):
    module = importlib.import_module(package)
    names = exported(STUBS[package])
    assert set(names) <= set(dir(module)) and names
    for name in names:
        value = getattr(module, name)
        if callable(value):
            assert value.__doc__ and value.__doc__.strip()[0].isupper(), f"{package}.{name} needs a docstring"


def test_the_page_has_an_entry_for_every_name():
    page = api_page(PACKAGE)
    for package, stub in STUBS.items():
        section = page.split(f"## `{package}`\n")[1].split("\n## ")[0]
        assert [name for name in exported(stub) if f"```python\n{name}" not in section] == []


def test_signatures_fields_properties_and_values_are_shown(tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text('"""What it is.\n\nMore."""')
    (package / "__init__.pyi").write_text(
        "from . import inner\nfrom .inner import C as C, D as D, f as f, WIDTH as WIDTH"
    )
    (package / "inner.py").write_text(
        '"""Inner things."""\nfrom dataclasses import dataclass\nWIDTH = 3\n'
        'def f(x: int, *, seed: int = 0) -> str:\n    """Say x.\n\n    Raises nothing."""\n'
        '@dataclass\nclass D:\n    """A pair."""\n    a: int\n    b: str = "x"\n'
        'class C:\n    """A counter."""\n    def __init__(self, n: int):\n        pass\n'
        '    @property\n    def now(self) -> int:\n        """The count."""\n'
        '    def _hidden(self):\n        """No."""\n'
    )
    page = api_page(package)
    for text in (
        "## `pack`\n\nWhat it is.\n\n```python\nC(n: int)\n```\n\nA counter.\n\n- `now`: The count.\n\n",
        "```python\nD(a: int, b: str = 'x')\n```\n\nA pair.",
        "```python\nf(x: int, *, seed: int=0) -> str\n```\n\nSay x.\n\nRaises nothing.",
        "```python\nWIDTH = 3\n```",
        "```python\ninner\n```\n\nInner things.",
    ):
        assert text in page, page
    assert "_hidden" not in page and "More." not in page


@pytest.mark.slow
def test_the_front_door_opens_fast_and_loads_nothing_heavy():
    code = (
        "import sys, time; t = time.perf_counter(); import synthbook as sb; s = time.perf_counter() - t;"
        "print({'torch', 'pandas', 'numpy', 'pybullet', 'opacus', 'openai'} & sys.modules.keys(), s < 2)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["set()", "True"]
