"""The ledger of claims, and the check that a notebook runs for each of them.

`claims.toml` lists what the chapter states and what must be measured to show it. A notebook calls `claim(...)` once
for each part; the runner collects the rows; the board lists which claims are shown and hold.
"""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import ClaimFailed, InvalidArgument
from synthbook.core.files import strict_json

LOG_VARIABLE = "SYNTHBOOK_CLAIMS_LOG"  # a file that the runner names; each check appends one JSON line to it

VERDICTS = ("holds", "if", "too simple", "misattributed", "beyond the chapter")
TIERS = ("exact", "null", "model")
RULES = ("near", "at least", "at most")


@dataclass(frozen=True)
class Part:
    """One measurement that a claim needs.

    `rule` is "near" (|measured - expected| <= tolerance), "at least" or "at most" (expected is the bound).
    `cap` is the widest tolerance the ledger accepts, relative to |expected|, or absolute where `cap_is_absolute`.
    `tier` is set where a part's tier differs from its row's, as for a trained network beside exact parts.
    """

    id: str
    says: str
    rule: str
    cap: float
    cap_is_absolute: bool = False
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
class Shown:
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
def ledger() -> dict[str, Claim]:
    """All claims by id, in the chapter's order."""
    rows = tomllib.loads(files("synthbook.course").joinpath("claims.toml").read_text(encoding="utf-8"))["claim"]
    claims = [Claim(**(row | {"parts": tuple(Part(**part) for part in row["parts"])})) for row in rows]
    return {claim.id: claim for claim in claims}


def lookup(id: str, part: str) -> tuple[Claim, Part]:
    """The ledger's row and part, or an error that lists what there is."""
    if id not in ledger():
        raise InvalidArgument("id", id, f"an id of claims.toml, from {next(iter(ledger()))} to {list(ledger())[-1]}")
    parts = {p.id: p for p in ledger()[id].parts}
    if part not in parts:
        raise InvalidArgument("part", part, f"a part that claims.toml declares for {id}: {', '.join(parts)}")
    return ledger()[id], parts[part]


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
    row, spec = lookup(id, part)
    shown = check(spec, id, measured, expected, tolerance, at)
    _log(shown)
    line = sentence(row, spec, shown)
    if not shown.holds:
        raise ClaimFailed(f"{line}\n  {id} ({part}): tolerance {shown.tolerance:.6g}, rule {spec.rule!r}")
    print(line)


def check(
    spec: Part,
    id: str,
    measured: ArrayLike,
    expected: ArrayLike,
    tolerance: ArrayLike,
    at: ArrayLike | None = None,
) -> Shown:
    """Compare without printing or raising; every element must lie inside its own tolerance."""
    m, e, tol = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (measured, expected, tolerance)))
    m, e, tol = m.ravel(), e.ravel(), tol.ravel()
    if m.size == 0:
        raise InvalidArgument("measured", measured, "at least one number: an empty check holds whatever happened")
    if not (np.isfinite(tol).all() and np.isfinite(e).all() and (tol >= 0).all()):
        raise InvalidArgument("tolerance", tolerance, "finite expectations with finite tolerances of at least 0")
    cap = np.full_like(e, spec.cap) if spec.cap_is_absolute else spec.cap * np.abs(e)
    if (tol > cap * (1 + 1e-12)).any():
        worst = int(np.argmax(tol - cap))
        raise InvalidArgument(
            "tolerance",
            float(tol[worst]),
            f"at most {cap[worst]:.4g}, the cap of {id} ({spec.id}); use more replicates",
        )
    excess = {"near": np.abs(m - e), "at least": e - m, "at most": m - e}[spec.rule] - tol  # > 0 where it fails
    excess = np.where(np.isfinite(m), excess, np.inf)
    worst = int(np.argmax(excess / np.maximum(np.where(tol > 0, tol, np.abs(e)), 1e-300)))
    return Shown(
        id=id,
        part=spec.id,
        measured=float(m[worst]),
        expected=float(e[worst]),
        tolerance=float(tol[worst]),
        elements=int(m.size),
        holds=bool((excess <= 0).all()),
        at="" if at is None else str(np.broadcast_to(np.asarray(at), excess.shape)[worst]),
    )


def sentence(row: Claim, spec: Part, shown: Shown) -> str:
    """The line a reader sees. A model part prints its verdict only: its digits differ from machine to machine."""
    mark = "✓" if shown.holds else "✗"
    if (spec.tier or row.tier) == "model" and shown.holds:
        return f"{mark} {spec.says}"
    where = f", at {shown.at}" if shown.at else ""
    worst_of = f" (worst of {shown.elements}{where})" if shown.elements > 1 else ""
    bound = "" if spec.rule == "near" else f"{spec.rule} "
    expected = f"{bound}{digits(shown.expected, 4)} expected"
    return f"{mark} {spec.says}: {digits(shown.measured, 3)} measured, {expected}{worst_of}"


def digits(value: float, significant: int) -> str:
    """A number with so many significant digits, without an exponent where people would not write one.

    >>> digits(0.12163, 4), digits(18.0, 3), digits(32561.0, 3), digits(2.5e-7, 3)
    ('0.1216', '18', '32561', '2.5e-07')
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    rounded = abs(float(f"{value:.{significant}g}"))  # 999.7 counts as 1000
    return f"{value:.0f}" if 10**significant <= rounded < 1e6 else f"{value:.{significant}g}"


def _log(shown: Shown) -> None:
    path = os.environ.get(LOG_VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(strict_json(asdict(shown)) + "\n")
