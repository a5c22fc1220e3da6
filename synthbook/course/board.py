"""The claims board: which rows of the ledger the notebooks show, and whether what they measured holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.course import notebook as nb
from synthbook.course.claims import Claim, Part, check, load_claims
from synthbook.course.project import Project

NUMBERS = ("measured", "expected", "tolerance")

Row = dict[str, Any]
Logged = Mapping[str, list[Row]]  # notebook name -> rows that its checks logged


@dataclass(frozen=True)
class Board:
    """Rows in the ledger's order, and what is wrong with the book as a whole."""

    rows: list[Row]
    errors: list[str]

    @property
    def n_demonstrated(self) -> int:
        """Claims of which every part was measured, or one failed."""
        return sum(row["holds"] is not None for row in self.rows)

    @property
    def n_holding(self) -> int:
        """Claims that are shown and hold."""
        return sum(row["holds"] is True for row in self.rows)

    @property
    def ok(self) -> bool:
        """No shown claim fails, none is shown twice, none is unknown."""
        return self.n_demonstrated == self.n_holding and not self.errors

    def to_dict(self) -> dict[str, Any]:
        """The board for machines."""
        counts = {"shown": self.n_demonstrated, "hold": self.n_holding, "total": len(self.rows)}
        return {"claims": self.rows, **counts, "errors": self.errors}


def committed(project: Project, *, section: str | None = None) -> Board:
    """The board of notebooks/ as it is committed; a notebook that cannot be read is one of its errors."""
    logged, unreadable = {}, []
    for path in project.sources():
        try:
            logged[path.stem] = rows_of(nb.read(path))
        except DataError as error:
            unreadable.append(str(error))
    result = board(logged, section=section)
    return Board(result.rows, [*result.errors, *unreadable])


def rows_of(notebook: nb.Notebook) -> list[Row]:
    """The rows that a notebook's metadata carries."""
    return list(nb.run_metadata(notebook).get("claims", []))


def board(logged: Logged, *, section: str | None = None) -> Board:
    """Judge every logged row anew against the ledger; a flag stored in a notebook is not trusted.

    `section` ("7" or "7.2") keeps the claims of that section. Raises `InvalidArgument` when the ledger has none there.
    """
    by_claim: defaultdict[str, dict[str, list[Row]]] = defaultdict(dict)
    for name, rows in logged.items():
        for row in rows:
            by_claim[row["id"]].setdefault(name, []).append(row)
    claims = [claim for claim in load_claims().values() if _in_section(claim, section)]
    if not claims:
        accepted = sorted({claim.section for claim in load_claims().values()})
        raise InvalidArgument("section", section, f"a section of the ledger: {', '.join(accepted)}")
    return Board([_row(claim, by_claim.get(claim.id, {})) for claim in claims], _errors(by_claim))


def _in_section(claim: Claim, section: str | None) -> bool:
    return section is None or claim.section == section or claim.section.startswith(section + ".")


def _errors(by_claim: Mapping[str, dict[str, list[Row]]]) -> list[str]:
    errors = []
    for id, notebooks in by_claim.items():
        where = ", ".join(notebooks)
        if id not in load_claims():
            errors.append(f"{where} shows {id}, which the ledger does not have: run the notebook again")
            continue
        if len(notebooks) > 1:
            errors.append(f"{id} is shown by {len(notebooks)} notebooks ({where}): keep it in one")
        declared = {part.id for part in load_claims()[id].parts}
        unknown = {row["part"] for rows in notebooks.values() for row in rows} - declared
        errors += [f"{where} shows part {part} of {id}, which the ledger does not declare" for part in sorted(unknown)]
    return errors


def _row(claim: Claim, notebooks: dict[str, list[Row]]) -> Row:
    parts = [_part(claim, part, notebooks) for part in claim.parts]
    return {
        "id": claim.id,
        "section": claim.section,
        "title": claim.title,
        "statement": claim.statement,
        "verdict": claim.verdict,
        "tier": claim.tier,
        "notebook": ", ".join(notebooks) or None,
        "parts": parts,
        "holds": _verdict([part["holds"] for part in parts]),
    }


def _verdict(parts: list[bool | None]) -> bool | None:
    if False in parts:
        return False
    return True if parts and None not in parts else None


def _part(claim: Claim, part: Part, notebooks: dict[str, list[Row]]) -> Row:
    """One declared part; of several measurements the first that fails counts, else the last."""
    found = [row for rows in notebooks.values() for row in rows if row["part"] == part.id]
    judged = [(numbers, _holds(claim, part, numbers)) for numbers in map(_numbers, found)]
    numbers, holds = next((pair for pair in judged if not pair[1]), judged[-1] if judged else (None, None))
    return {"id": part.id, "description": part.description, **(numbers or dict.fromkeys(NUMBERS)), "holds": holds}


def _numbers(row: Row) -> dict[str, float]:
    """What was logged; NaN, which never holds, where a row carries no number."""
    found = {}
    for key in NUMBERS:
        try:
            found[key] = float(row[key])
        except (KeyError, TypeError, ValueError, OverflowError):
            found[key] = math.nan
    return found


def _holds(claim: Claim, part: Part, numbers: Mapping[str, float]) -> bool:
    try:
        return check(part, claim.id, **numbers).holds
    except InvalidArgument:  # a tolerance beyond the ledger's cap, or no number
        return False
