"""The claims board as a page of the site: what the chapter says, what was measured, and where."""

from __future__ import annotations

import re

from synthbook.course.board import Board, Row
from synthbook.course.claims import digits, lookup

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

_MARKS = {True: "✓ shown and holds", False: "✗ shown and fails", None: "– not yet shown"}
_COLUMNS = ("Claim", "What it says, and the verdict", "Measured", "Shown in")
_HEAD = """# The claims board

Every statement of the chapter that an experiment can confirm or refute is a row here. The numbers are those of the
committed notebooks; running the book measures them again and stops where one does not hold. A row about a trained
network shows no number while it holds: its digits differ from machine to machine.

{summary}

The verdict is on the chapter's sentence. It *holds*; it holds *if* a condition is met that the chapter leaves out; it
is *too simple*; it is *misattributed*; or the row goes *beyond the chapter*.
"""


def ledger_page(board: Board) -> str:
    """The board in MyST Markdown: a table for each section, a row for each claim, each id a target for links."""
    counts = [(mark, sum(row["holds"] is state for row in board.rows)) for state, mark in _MARKS.items()]
    summary = f"Of {len(board.rows)} claims: " + ", ".join(f"**{number}** {mark}" for mark, number in counts) + "."
    blocks = [_HEAD.format(summary=summary)]
    if board.errors:
        blocks.append("\n".join([":::{warning}", *(f"- {_plain(error)}" for error in board.errors), ":::"]))
    for section, caption in SECTIONS.items():
        rows = [row for row in board.rows if row["section"].split(".")[0] == section]
        blocks += [f"## {caption}\n\n{_table(rows)}"] if rows else []
    return "\n\n".join(blocks) + "\n"


def _table(rows: list[Row]) -> str:
    lines = ["````{list-table}", ":class: ledger", ":header-rows: 1", ":widths: 13 41 36 10", ""]
    lines += _bullets([[column] for column in _COLUMNS])
    for row in rows:
        lines += _bullets([_name(row), _statement(row), _parts(row), _notebooks(row)])
    return "\n".join([*lines, "````"])


def _name(row: Row) -> list[str]:
    return [f"({row['id']})=", f"**{row['id']}**", _MARKS[row["holds"]]]


def _statement(row: Row) -> list[str]:
    return [f"**{_plain(row['title'])}**", _plain(row["statement"]), f"Verdict: *{row['verdict']}*."]


def _parts(row: Row) -> list[str]:
    return [_measurement(row["id"], part) for part in row["parts"]]


def _measurement(id: str, part: Row) -> str:
    says = f"{_MARKS[part['holds']][0]} {_plain(part['says'])}"
    claim, spec = lookup(id, part["id"])
    differs_between_machines = (spec.tier or claim.tier) == "model" and part["holds"]
    if part["holds"] is None or differs_between_machines:
        return says
    expected = "expected" if spec.rule == "near" else f"expected {spec.rule}"
    return f"{says}: **{digits(part['measured'], 3)}** measured, {expected} {digits(part['expected'], 4)}"


def _notebooks(row: Row) -> list[str]:
    stems = row["notebook"].split(", ") if row["notebook"] else []
    return [f"[{stem.split('_')[0]}](notebooks/{stem}.ipynb)" for stem in stems] or ["–"]


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
