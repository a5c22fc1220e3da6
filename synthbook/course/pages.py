"""The site's sources: the pages of docs/, copies of the notebooks with notes in the margin, and the claims board."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from synthbook.course import notebook as nb
from synthbook.course.bench_page import bench_page
from synthbook.course.board import committed
from synthbook.course.ledger_page import SECTIONS, ledger_page
from synthbook.course.project import Project

PATH = ("00", "07a", "06", "01", "02", "03", "04", "05", "07", "08")  # the order of reading; numbers are the chapter's
MARKERS = ("<!-- reading path -->", "<!-- contents -->")  # index.md has both


def assemble(root: Path, source: Path) -> None:
    """Fill the empty folder `source` with everything Sphinx reads; the checkout at `root` is left as it is."""
    project = Project(root)
    shutil.copytree(root / "docs", source, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    (source / "notebooks").mkdir()
    books: dict[str, nb.Notebook] = {}
    for path in project.sources():
        books[path.stem] = nb.read(path)
        annotated = with_margin_notes(nb.read(path))
        (source / "notebooks" / path.name).write_text(nb.dumps(annotated), encoding="utf-8")
    (source / "claims.md").write_text(ledger_page(committed(project)), encoding="utf-8")
    (source / "benchmarks.md").write_text(bench_page(root / "bench" / "results"), encoding="utf-8")
    index = (source / "index.md").read_text(encoding="utf-8")
    for marker, text in zip(MARKERS, (reading_path(books), contents(list(books))), strict=True):
        index = index.replace(marker, text)
    (source / "index.md").write_text(index, encoding="utf-8")


def restore_downloads(root: Path, html: Path) -> None:
    """Let the site's download buttons give the notebooks as they are committed, without the notes in the margin."""
    for path in Project(root).sources():
        shutil.copyfile(path, html / "_sources" / "notebooks" / path.name)


def with_margin_notes(notebook: nb.Notebook) -> nb.Notebook:
    """Put a note with a link to the ledger before every cell that checks a claim, in place; return the notebook."""
    cells: list[nb.Cell] = []
    for number, cell in enumerate(notebook["cells"]):
        ids = nb.claim_ids(cell)
        if ids:
            links = ", ".join(f"{{ref}}`{id} <{id}>`" for id in ids)
            note = f"```{{margin}}\nChecks claim {links}\n```"
            cells.append({"cell_type": "markdown", "id": f"claims-{number}", "metadata": {}, "source": note})
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def title(notebook: nb.Notebook, stem: str) -> str:
    """A notebook's first heading of level 1, or its file name."""
    words = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+?)\s*#*$", words, re.MULTILINE)
    return heading[1] if heading else stem


def reading_path(books: dict[str, nb.Notebook]) -> str:
    """A numbered list of the notebooks there are, in the order of reading."""
    order = sorted(books, key=lambda stem: (_step(stem), stem))
    return "\n".join(f"1. {_link(stem, title(books[stem], stem))}" for stem in order)


def _link(stem: str, heading: str) -> str:
    words = re.sub(r"^\d+[a-z]?\. ", "", heading)  # the list has numbers of its own
    return f"[{words}](notebooks/{stem}.ipynb) ({stem.split('_')[0]})"


def contents(stems: list[str]) -> str:
    """The table of contents: the notebooks under the chapter's sections, then the pages about the book."""
    trees = []
    for section, caption in SECTIONS.items():
        here = [f"notebooks/{stem}" for stem in sorted(stems) if _section(stem) == section]
        trees += [_toctree(caption, here)] if here else []
    others = [f"notebooks/{stem}" for stem in sorted(stems) if _section(stem) not in SECTIONS]
    trees += [_toctree("Further notebooks", others)] if others else []
    about = ["generate", "privacy", "claims", "benchmarks", "classroom", "about"]
    return "\n\n".join([*trees, _toctree("About the book", about)])


def _toctree(caption: str, entries: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def _section(stem: str) -> str:
    number = re.match(r"\d\d", stem)
    return str(int(number[0])) if number else ""


def _step(stem: str) -> int:
    return next((step for step, prefix in enumerate(PATH) if stem.startswith(prefix)), len(PATH))
