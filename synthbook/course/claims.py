"""The ledger of claims, and the check that a notebook runs for each of them.

`claims.toml` lists what the chapter states and what must be measured to show it. A notebook calls `claim(...)` once
for each part; the runner collects the rows; the board lists which claims are shown and hold.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import ClaimFailed, DataError, InvalidArgument
from synthbook.core.storage import strict_json
from synthbook.course import notebook as nb
from synthbook.course.project import Project

CLAIMS_LOG_ENV_VAR = "SYNTHBOOK_CLAIMS_LOG"  # a file that the runner names; each check appends one JSON line to it

VERDICTS = ("holds", "if", "too simple", "misattributed", "beyond the chapter")
TIERS = ("exact", "null", "model")
COMPARISONS = ("close", "at least", "at most")


@dataclass(frozen=True)
class Part:
    """One measurement that a claim needs.

    `comparison` is "close" (|measured - expected| <= tolerance), "at least" or "at most" (expected is the bound).
    `max_tolerance` is the widest tolerance that a notebook may ask for, relative to |expected|, or absolute where
    `max_tolerance_is_absolute`.
    `tier` is set where a part's tier differs from its row's, as for a trained network beside exact parts.
    """

    id: str
    description: str
    comparison: str
    max_tolerance: float
    max_tolerance_is_absolute: bool = False
    tier: str | None = None


@dataclass(frozen=True)
class Claim:
    """One row of the ledger."""

    id: str
    section: str
    title: str
    statement: str
    verdict: str
    tier: str
    oracle: str
    reference: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ClaimResult:
    """One part as a notebook measured it; for arrays, the element that came nearest to failing."""

    id: str
    part: str
    measured: float
    expected: float
    tolerance: float
    elements: int
    holds: bool
    at: str = ""


@cache
def load_claims() -> dict[str, Claim]:
    """All claims by id, in the chapter's order."""
    rows = tomllib.loads(files("synthbook.course").joinpath("claims.toml").read_text(encoding="utf-8"))["claim"]
    claims = [Claim(**(row | {"parts": tuple(Part(**part) for part in row["parts"])})) for row in rows]
    return {claim.id: claim for claim in claims}


def find_part(id: str, part: str) -> tuple[Claim, Part]:
    """The ledger's row and part, or an error that lists what there is."""
    rows = load_claims()
    if id not in rows:
        raise InvalidArgument("id", id, f"an id of claims.toml, from {next(iter(rows))} to {list(rows)[-1]}")
    parts = {spec.id: spec for spec in rows[id].parts}
    if part not in parts:
        raise InvalidArgument("part", part, f"a part that claims.toml declares for {id}: {', '.join(parts)}")
    return rows[id], parts[part]


def claim(
    id: str,
    *,
    part: str,
    measured: ArrayLike,
    expected: ArrayLike,
    tolerance: ArrayLike = 0.0,
    at: ArrayLike | None = None,
) -> None:
    """Check one part of a claim, print one stable line, and raise `ClaimFailed` when it does not hold.

    `measured`, `expected` and `tolerance` are numbers or arrays of one shape; an array holds when every element does.
    A tolerance wider than the ledger's cap is refused, so that a check cannot be made to pass by loosening it.
    `at` says where the elements of an array were measured (generations, sizes); the line names the worst one's.
    """
    row, spec = find_part(id, part)
    result = check(spec, id, measured, expected, tolerance, at)
    if path := os.environ.get(CLAIMS_LOG_ENV_VAR):
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(strict_json(asdict(result)) + "\n")
    line = format_result(row, spec, result)
    if not result.holds:
        raw = f"{result.measured!r}, {spec.comparison} {result.expected!r}, tolerance {result.tolerance:.6g}"
        raise ClaimFailed(f"{line}\n  {id} ({part}): {raw}")
    print(line)


def check(
    spec: Part,
    id: str,
    measured: ArrayLike,
    expected: ArrayLike,
    tolerance: ArrayLike,
    at: ArrayLike | None = None,
) -> ClaimResult:
    """Compare without printing or raising; every element must lie inside its own tolerance."""
    m, e, tol = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (measured, expected, tolerance)))
    m, e, tol = m.ravel(), e.ravel(), tol.ravel()
    if m.size == 0:
        raise InvalidArgument("measured", measured, "at least one number: an empty check holds whatever happened")
    if not (np.isfinite(tol).all() and np.isfinite(e).all() and (tol >= 0).all()):
        raise InvalidArgument("tolerance", tolerance, "finite expectations with finite tolerances of at least 0")
    max_tolerance = (
        np.full_like(e, spec.max_tolerance) if spec.max_tolerance_is_absolute else spec.max_tolerance * np.abs(e)
    )
    if (tol > max_tolerance * (1 + 1e-12)).any():
        worst = int(np.argmax(tol - max_tolerance))
        raise InvalidArgument(
            "tolerance",
            float(tol[worst]),
            f"at most {max_tolerance[worst]:.4g}, the widest tolerance of {id} ({spec.id}); use more replicates",
        )
    excess = {"close": np.abs(m - e), "at least": e - m, "at most": m - e}[spec.comparison] - tol  # > 0 where it fails
    excess = np.where(np.isfinite(m), excess, np.inf)
    finite = np.abs(excess[np.isfinite(excess)])
    scale = np.where(tol > 0, tol, np.where(e != 0, np.abs(e), finite.max(initial=0.0) or 1.0))
    relative = excess / scale
    # in thousandths, or the last bits of exact values would choose; what fails comes first
    worst = int(np.argmax(np.where(excess > 0, 1e9 + relative, np.round(np.clip(relative, -1e6, 1e6), 3))))
    return ClaimResult(
        id=id,
        part=spec.id,
        measured=float(m[worst]),
        expected=float(e[worst]),
        tolerance=float(tol[worst]),
        elements=int(m.size),
        holds=bool((excess <= 0).all()),
        at="" if at is None else str(np.broadcast_to(np.asarray(at), excess.shape)[worst]),
    )


def format_result(row: Claim, spec: Part, result: ClaimResult) -> str:
    """The line a reader sees. A model part prints its verdict only: its digits differ from machine to machine."""
    mark = "✓" if result.holds else "✗"
    if (spec.tier or row.tier) == "model" and result.holds:
        return f"{mark} {spec.description}"
    where = f", at {result.at}" if result.at else ""
    worst_of = f" (worst of {result.elements}{where})" if result.elements > 1 else ""
    numbers = quantities(spec.comparison, result.measured, result.expected, result.tolerance)
    return f"{mark} {spec.description}: {numbers}{worst_of}"


def quantities(comparison: str, measured: float, expected: float, tolerance: float) -> str:
    """What was measured and expected, with digits down to a tenth of the tolerance and four at most.

    A residual far below the last digit prints as 0; without a tolerance three digits of the larger number stand.

    >>> quantities("close", 0.612345, 0.6065, 0.0123)
    '0.612 measured, 0.607 expected, tolerance 0.012'
    >>> quantities("close", 3.55e-15, 0.0, 1e-9), quantities("at most", 0.00562, 0.0, 0.008)
    ('0 measured, 0 expected, exact to 1e-09', '0.0056 measured, at most 0 expected, tolerance 0.008')
    >>> quantities("at least", 25.0, 25.0, 0.0), quantities("at least", 1.0, 0.99, 0.0)
    ('25 measured, at least 25 expected', '1.00 measured, at least 0.99 expected')
    """
    scale = max((abs(value) for value in (measured, expected) if math.isfinite(value)), default=0.0)
    if tolerance == 0 and all(math.isfinite(value) and value == int(value) for value in (measured, expected)):
        last = 0
    else:
        leading = _magnitude(scale or 1.0)
        last = max(leading - 3, _magnitude(tolerance) - 1 if tolerance > 0 else leading - 2)
    bound = f"{comparison} {expected:.4g}"
    if comparison == "close":
        bound = _format_significant(expected, last) if expected else "0"
    allowed = "exact to" if tolerance <= 1e-6 * (scale if scale > tolerance else 1.0) else "tolerance"
    slack = f", {allowed} {tolerance:.2g}" if tolerance > 0 else ""
    return f"{_format_significant(measured, last)} measured, {bound} expected{slack}"


def _format_significant(value: float, last: int) -> str:
    """A number down to the digit of 10**last, without an exponent where people would not write one.

    >>> _format_significant(0.12163, -3), _format_significant(-17.96, -1), _format_significant(32561.0, 1)
    ('0.122', '-18.0', '32561')
    >>> _format_significant(2.5e-7, -9), _format_significant(2e-17, -9)
    ('2.50e-07', '0')
    """
    if not math.isfinite(value):
        return str(value)
    if last < -6 or abs(value) >= 1e6:
        return "0" if abs(value) < 10.0**last / 2 else f"{value:.{max(0, _magnitude(value) - last)}e}"
    text = f"{value:.{max(0, -last)}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _magnitude(value: float) -> int:
    return int(f"{value:.3e}".partition("e")[2])  # of the number as printed: 0.99999 is 1.000


# ── The board ──


_NUMBERS = ("measured", "expected", "tolerance")

Row = dict[str, Any]
_Logged = Mapping[str, list[Row]]  # notebook name -> rows that its checks logged


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


def committed(
    project: Project, *, section: str | None = None, executed: Mapping[Path, nb.Notebook] | None = None
) -> Board:
    """The board of notebooks/ as it is committed, but of `executed` where that holds a notebook, by its source's path.

    A notebook that cannot be read is one of the board's errors.
    """
    logged, unreadable, executed = {}, [], executed or {}
    for path in project.sources():
        try:
            notebook = executed[path] if path in executed else nb.read(path)
            logged[path.stem] = nb.run_metadata(notebook).get("claims", [])
        except DataError as error:
            unreadable.append(str(error))
    result = board(logged, section=section)
    return Board(result.rows, [*result.errors, *unreadable])


def board(logged: _Logged, *, section: str | None = None) -> Board:
    """Judge every logged row anew against the ledger; a flag stored in a notebook is not trusted.

    `section` ("7" or "7.2") keeps the claims of that section. Raises `InvalidArgument` when the ledger has none there.
    """
    by_claim: defaultdict[str, dict[str, list[Row]]] = defaultdict(dict)
    for name, rows in logged.items():
        for row in rows:
            by_claim[row["id"]].setdefault(name, []).append(row)
    ledger = load_claims().values()
    claims = [claim for claim in ledger if section is None or f"{claim.section}.".startswith(f"{section}.")]
    if not claims:
        accepted = sorted({claim.section for claim in ledger})
        raise InvalidArgument("section", section, f"a section of the ledger: {', '.join(accepted)}")
    return Board([_row(claim, by_claim.get(claim.id, {})) for claim in claims], _errors(by_claim))


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
    holds = {part["holds"] for part in parts}
    facts = {key: getattr(claim, key) for key in ("id", "section", "title", "statement", "verdict", "tier")}
    return facts | {
        "notebook": ", ".join(notebooks) or None,
        "parts": parts,
        "holds": False if False in holds else None if None in holds or not holds else True,
    }


def _part(claim: Claim, part: Part, notebooks: dict[str, list[Row]]) -> Row:
    """One declared part; of several measurements the first that fails counts, else the last."""
    measurement: Row = dict.fromkeys((*_NUMBERS, "holds"))
    for row in (row for rows in notebooks.values() for row in rows if row["part"] == part.id):
        try:
            measurement = {key: _number(row.get(key)) for key in _NUMBERS}
            measurement["holds"] = check(part, claim.id, **measurement).holds
        except InvalidArgument:  # a tolerance beyond the ledger's cap, or no number
            measurement["holds"] = False
        if not measurement["holds"]:
            break
    return {"id": part.id, "description": part.description, **measurement}


def _number(value: Any) -> float:
    """What was logged; NaN, which never holds, where that is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
