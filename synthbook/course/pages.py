"""The site's sources: the pages of docs/, copies of the notebooks with notes in the margin, and the claims board."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from synthbook.course import notebook as nb
from synthbook.course.bench_page import bench_page
from synthbook.course.board import Board, committed
from synthbook.course.folding import fold
from synthbook.course.ledger_page import SECTIONS, ledger_page
from synthbook.course.project import Project

PATH = ("00", "07a", "06", "01", "02", "03", "04", "05", "07", "08")  # the order of reading; numbers are the chapter's
ABOUT = ("chapter", "claims", "benchmarks", "generate", "privacy", "classroom", "about")


def assemble(root: Path, source: Path) -> None:
    """Fill the empty folder `source` with everything Sphinx reads; the checkout at `root` is left as it is."""
    project = Project(root)
    shutil.copytree(root / "docs", source, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    (source / "notebooks").mkdir()
    books = {path.stem: nb.read(path) for path in project.sources()}
    titles = {stem: title(books[stem], stem) for stem in in_order(books)}
    board = committed(project)
    for stem, book in books.items():
        (source / "notebooks" / f"{stem}.ipynb").write_text(nb.dumps(fold(with_margin_notes(book))), encoding="utf-8")
    (source / "claims.md").write_text(ledger_page(board), encoding="utf-8")
    (source / "benchmarks.md").write_text(bench_page(root / "bench" / "results"), encoding="utf-8")
    _fill(source / "index.md", {"<!-- reading path -->": reading_path(titles), "<!-- contents -->": contents(titles)})
    _fill(source / "chapter.md", {f"<!-- tests of {n} -->": tests_of(n, titles, board) for n in SECTIONS if n != "0"})
    order = [*(f"notebooks/{stem}" for stem in titles), "index", *ABOUT]
    _fill(source / "scorer.js", {"[/* all pages in the order of reading */]": json.dumps(order)})


def restore_downloads(root: Path, html: Path) -> None:
    """Let the site's download buttons give the notebooks as they are committed: no notes, nothing folded."""
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


def in_order(stems: Iterable[str]) -> list[str]:
    """The notebooks in the order of reading; those that the path does not name come last."""
    steps = {
        stem: next((step for step, prefix in enumerate(PATH) if stem.startswith(prefix)), len(PATH)) for stem in stems
    }
    return sorted(steps, key=lambda stem: (steps[stem], stem))


def reading_path(titles: dict[str, str]) -> str:
    """A numbered list of the notebooks there are, in the order of reading; the list has numbers of its own."""
    words = {stem: re.sub(r"^\d+[a-z]?\. ", "", heading) for stem, heading in titles.items()}
    return "\n".join(f"1. {_link(stem, words[stem])} ({stem.split('_')[0]})" for stem in in_order(titles))


def contents(stems: Iterable[str]) -> str:
    """The tables of contents, in the order of reading, which Previous and Next follow; then the pages about the book.

    A section of the chapter that is read in two parts stands there twice, the second time as "continued".
    """
    trees, captions = [], set[str]()
    for section, part in groupby(in_order(stems), key=_section):
        caption = SECTIONS.get(section, "Further notebooks")
        caption += ", continued" if caption in captions else ""
        captions.add(caption)
        trees.append(_toctree(caption, (f"notebooks/{stem}" for stem in part)))
    return "\n\n".join([*trees, _toctree("About the book", ABOUT)])


def tests_of(section: str, titles: dict[str, str], board: Board) -> str:
    """Which notebooks test a section of the chapter, and how many of its claims are shown."""
    rows = [row for row in board.rows if row["section"].split(".")[0] == section]
    shown = sum(row["holds"] is not None for row in rows)
    links = [_link(stem, heading) for stem, heading in titles.items() if _section(stem) == section]
    where = f"Tested in {'; '.join(links)}" if links else "Its notebook is still to come"
    return f"*{where}: {len(rows)} claim{'s' * (len(rows) != 1)} on [the board](claims.md), {shown} shown so far.*"


def _fill(page: Path, texts: dict[str, str]) -> None:
    words = page.read_text(encoding="utf-8")
    for marker, text in texts.items():
        words = words.replace(marker, text)
    page.write_text(words, encoding="utf-8")


def _link(stem: str, words: str) -> str:
    return f"[{words}](notebooks/{stem}.ipynb)"


def _toctree(caption: str, entries: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def _step(stem: str) -> int:
    return next((step for step, prefix in enumerate(PATH) if stem.startswith(prefix)), len(PATH))


def _section(stem: str) -> str:
    """The chapter's section that a notebook belongs to, "" where there is none."""
    number = re.match(r"\d\d", stem)
    section = str(int(number[0])) if number else ""
    return section if section in SECTIONS else ""
