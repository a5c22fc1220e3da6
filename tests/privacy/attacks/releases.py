"""Small tables to release and to audit: two numbers, a group and a label, of one row a person or several."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from synthbook.core.storage import Provenance
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit

COLUMNS = (
    Column("x", "numeric", lower=-50, upper=50),
    Column("y", "numeric", lower=-50, upper=50, missing=True),
    Column("group", "categorical", categories=("a", "b", "rare")),
    Column("label", "categorical", categories=("no", "yes")),
)
SCHEMA = Schema(COLUMNS, "public")
VISITS = Schema((Column("person", "id"), *COLUMNS), "public", entity="person")
ORIGIN = Provenance("a test", "pytest")


def frame(seed: int | list[int], n: int = 120) -> pd.DataFrame:
    """Two numbers that go together, holes in one, a group that moves both, a label that follows."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "rare"], n, p=[0.6, 0.38, 0.02])
    x = rng.standard_normal(n) + 2 * (group == "b")
    y = np.where(rng.random(n) < 0.1, np.nan, x + 0.5 * rng.standard_normal(n))
    label = np.where(x + 0.7 * rng.standard_normal(n) > 1, "yes", "no")
    return pd.DataFrame({"x": x, "y": y, "group": group, "label": label})


def real(seed: int | list[int], n: int = 120) -> Table:
    return Table(frame(seed, n), SCHEMA)


def bootstrap(table: Table, seed: int = 0) -> Table:
    rows = np.random.default_rng(seed).integers(len(table), size=len(table))
    return Table(table.frame.iloc[rows].reset_index(drop=True), table.schema)


@cache
def copied() -> ReleaseAudit:
    return audit(bootstrap(real(1, 300)), train=real(1, 300), holdout=Holdout(real(2, 600)), claimed_epsilon=0.5)


@cache
def fresh() -> ReleaseAudit:
    return audit(real(3), train=real(1), holdout=Holdout(real(2, 240)), claimed_epsilon=0.5)


def visits(seed: int, n: int = 120, rows: int = 3, name: str = "") -> Table:
    """Persons with several rows each, near one place, and mixed."""
    rng, one = np.random.default_rng(seed), frame(seed, n)
    many = one.loc[np.repeat(np.arange(n), rows)].reset_index(drop=True)
    many["x"] += 0.1 * rng.standard_normal(len(many))
    many["person"] = [f"{name or seed}-{k}" for k in np.repeat(np.arange(n), rows)]
    return Table(many.iloc[rng.permutation(len(many))], VISITS)
