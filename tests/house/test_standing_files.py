"""The licence is verbatim, the citation names the version there is, and the vendored script is the one described."""

import json
import re
from pathlib import Path

import pytest
import yaml

import synthbook
from synthbook.core.storage import sha256_file

ROOT = Path(__file__).resolve().parents[2]
APACHE_2_0 = (
    "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # as published, without a copyright line
)


def test_the_licence_is_apache_2_0_word_for_word() -> None:
    assert sha256_file(ROOT / "LICENSE") == APACHE_2_0


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["type"], citation["license"]) == ("synthbook", "software", "Apache-2.0")
    assert citation["authors"] == [{"name": "The synthbook authors"}]
    assert str(citation["version"]) == synthbook.__version__
    assert citation["message"]


def test_mathjax_is_the_file_that_its_note_describes() -> None:
    folder = ROOT / "docs" / "_static" / "mathjax"
    note = (folder / "VERSION.md").read_text(encoding="utf-8")
    described = re.search(r"SHA-256 as changed\s+([0-9a-f]{64})", note)
    assert described
    assert sha256_file(folder / "tex-svg-full.js") == described[1]
    assert sha256_file(folder / "LICENSE") == APACHE_2_0


def test_what_the_manuals_name_is_there() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (exported,) = re.findall(r'"export": "([^"]+)"', contributing)
    assert (ROOT / exported).is_file()
    classroom = " ".join((ROOT / "docs" / "classroom.md").read_text(encoding="utf-8").split())
    for text in (contributing, classroom):
        assert "130" in text and "Ctrl-C" in text


def test_contributors_compare_notebooks_as_make_test_does() -> None:
    options = [
        set(re.findall(r"--nbval[\w-]*(?: tests/notebooks/sanitize\.cfg)?", (ROOT / name).read_text(encoding="utf-8")))
        for name in ("CONTRIBUTING.md", "Makefile")
    ]
    assert options[0] <= options[1]
    assert {"--nbval", "--nbval-current-env"} < options[0]


def pages() -> dict[str, str]:
    """What readers read: notebooks, manuals and the site's pages, by name."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path.name] = "\n".join("".join(cell["source"]) for cell in cells)
    return texts


def missing_modules(text: str) -> list[str]:
    """Modules in backticks (`evaluation/prdc.py`, `synthbook.evaluation.prdc`) that do not exist."""
    files = re.findall(r"`(?:synthbook/)?([\w/]+\.py)`", text)
    lost = [name for name in files if not (ROOT / "synthbook" / name).is_file() and not (ROOT / name).is_file()]
    for name in re.findall(r"`(synthbook(?:\.\w+)+)`", text):
        place = ROOT.joinpath(*name.split("."))
        if not (place.is_dir() or place.with_suffix(".py").is_file() or place.parent.with_suffix(".py").is_file()):
            lost.append(name)
    return lost


@pytest.mark.parametrize("name", sorted(pages()))
def test_every_module_that_a_page_names_exists(name: str) -> None:
    assert missing_modules(pages()[name]) == []


def test_a_module_that_moved_would_be_noticed() -> None:
    assert missing_modules("`language/noise.py`, `core/table.py`, `synthbook.core.tables`, `synthbook.core.table`") == [
        "language/noise.py",
        "synthbook.core.tables",
    ]
