"""The claims board as a page of the site: what the chapter says, what was measured, and where.

Two verdicts stand beside each other and mean different things: the check's, on our measurement, and the sentence's, on
the chapter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html import escape

from synthbook.course.board import Board, Row
from synthbook.course.claims import VERDICTS, lookup, quantities

SECTIONS = {
    "0": "Before you start",
    "1": "1 Why synthesize data",
    "2": "2 Simulation",
    "3": "3 Generative models",
    "4": "4 Data from language models",
    "5": "5 Privacy",
    "6": "6 Evaluation",
    "7": "7 Model collapse",
    "8": "8 In practice",
}

_CHECKS = {True: "✓ passes", False: "✗ fails", None: "– not yet shown"}
_HEAD = """# The claims board

Every statement of [the chapter](chapter.md) that an experiment can confirm or refute is a row here. Open a row to read
the statement and what was measured. The numbers are those of the committed notebooks; running the book measures them
again and stops where one does not hold. A row about a trained network shows no number while it holds: its digits differ
from machine to machine.

**The check** asks whether what we measured agrees with an independent oracle. Of {total} claims **{passing}** pass,
**{failing}** fail, and **{waiting}** are not yet shown.

**The chapter's sentence** is judged by what the check shows. It *holds* ({holds}); it *holds if* a condition is met
that the chapter leaves out ({if}); it is *too simple* ({too simple}) or *misattributed* ({misattributed}); or the row
goes *beyond the chapter* ({beyond the chapter}). A check that passes on a sentence that is too simple has shown where
the sentence stops being true.
"""


def ledger_page(board: Board) -> str:
    """The board in MyST Markdown: a table for each section, then the claims that no notebook shows yet.

    Each claim is a row with a fold and a target for links.
    """
    blocks = [_head(board.rows)]
    if board.errors:
        blocks.append("\n".join([":::{warning}", *(f"- {_plain(error)}" for error in board.errors), ":::"]))
    shown = [row for row in board.rows if row["holds"] is not None]
    for section, caption in SECTIONS.items():
        rows = [row for row in shown if row["section"].split(".")[0] == section]
        blocks += [f"## {caption}\n\n{_table(rows, _COLUMNS)}"] if rows else []
    waiting = [row for row in board.rows if row["holds"] is None]
    blocks += [f"## Not yet shown\n\n{_table(waiting, _COLUMNS[:2])}"] if waiting else []
    return "\n\n".join(blocks) + "\n"


def _head(rows: list[Row]) -> str:
    checks, sentences = (Counter(row[key] for row in rows) for key in ("holds", "verdict"))
    states = {"passing": checks[True], "failing": checks[False], "waiting": checks[None]}
    return _HEAD.format_map({"total": len(rows), **states, **{verdict: sentences[verdict] for verdict in VERDICTS}})


def _claim(row: Row) -> list[str]:
    """A fold whose summary is the claim in one line, open where the check fails; links lead to what is in it."""
    opened = " open" if row["holds"] is False else ""
    summary = f"<b>{row['id']}</b> {escape(row['title'], quote=False)}"
    parts = "\n    ".join(f"- {_measurement(row['id'], part)}" for part in row["parts"])
    statement = f"({row['id']})=\n    {_plain(row['statement'])}"
    return [f"<details{opened}><summary>{summary}</summary>", statement, parts, "</details>"]


def _measurement(id: str, part: Row) -> str:
    says = f"{_CHECKS[part['holds']][0]} {_plain(part['says'])}"
    claim, spec = lookup(id, part["id"])
    differs_between_machines = (spec.tier or claim.tier) == "model" and part["holds"]
    if part["holds"] is None or differs_between_machines:
        return says
    return f"{says}: {quantities(spec.rule, part['measured'], part['expected'], part['tolerance'])}"


def _sentence(row: Row) -> list[str]:
    return ["holds if …" if row["verdict"] == "if" else row["verdict"]]


def _check(row: Row) -> list[str]:
    return [_CHECKS[row["holds"]]]


def _notebooks(row: Row) -> list[str]:
    stems = row["notebook"].split(", ") if row["notebook"] else []
    return [", ".join(f"[{stem.split('_')[0]}](notebooks/{stem}.ipynb)" for stem in stems) or "–"]


_COLUMNS: list[tuple[str, int, Callable[[Row], list[str]]]] = [  # heading, width in percent, paragraphs of a cell
    ("Claim", 55, _claim),
    ("The chapter's sentence", 21, _sentence),
    ("The check", 14, _check),
    ("Shown in", 10, _notebooks),
]


def _table(rows: list[Row], columns: list[tuple[str, int, Callable[[Row], list[str]]]]) -> str:
    widths = " ".join(str(width) for _, width, _ in columns)
    lines = ["````{list-table}", ":class: ledger", ":header-rows: 1", f":widths: {widths}", ""]
    lines += _bullets([[heading] for heading, _, _ in columns])
    for row in rows:
        lines += _bullets([cell(row) for _, _, cell in columns])
    return "\n".join([*lines, "````"])


def _bullets(cells: list[list[str]]) -> list[str]:
    """One row of a list-table; each cell is a list of paragraphs."""
    lines = []
    for number, paragraphs in enumerate(cells):
        first, *others = paragraphs
        lines.append(("* - " if number == 0 else "  - ") + first)
        lines += [line for paragraph in others for line in ("", f"    {paragraph}")]
    return lines


def _plain(text: str) -> str:
    """Text that Markdown prints as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~])", r"\\\1", " ".join(text.split()))
