"""Does the release tell a secret of the people in it that it does not tell of everyone else?

An attacker who knows all of a person but one column looks for the released row that is most like her, and guesses its
value. Whoever learns from data learns such things of people who are not in it, too: that smokers are ill more often is
no leak. What counts is how much better the guesses are for members than for others (the non-member baseline; Giomi et
al. 2023, arXiv:2211.10459).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table, unit_codes
from synthbook.core.types import Array
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.inference import Z_BAND
from synthbook.evaluation.utility import check_target
from synthbook.generators.tabular.encoding import as_numbers
from synthbook.privacy.attacks.membership import nearest_index


@dataclass(frozen=True)
class AttributeInference:
    """Right guesses of a secret column: the share among members and among others, and the difference with its error."""

    secret: str
    members: float
    others: float
    se: float

    @property
    def advantage(self) -> float:
        """What membership adds to the share of right guesses."""
        return self.members - self.others

    @property
    def interval(self) -> tuple[float, float]:
        """Of the advantage, at 95 %."""
        reach = float(norm.ppf(0.975)) * self.se
        return self.advantage - reach, self.advantage + reach

    @property
    def leaks(self) -> bool:
        """Whether the advantage is more than chance explains, at 3.3 standard errors."""
        return self.advantage > Z_BAND * self.se

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"advantage": self.advantage, "interval": self.interval, "leaks": self.leaks}

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.secret}: right for {self.members:.1%} of members and {self.others:.1%} of others, "
            f"advantage {self.advantage:+.1%} ({low:+.1%} to {high:+.1%})"
        )


def attribute_inference(released: Table, members: Table, others: Table, secret: str) -> AttributeInference:
    """Guess a column of categories of members and of others from the release.

    Where the schema names an entity, each counts once, with the share of its rows that are guessed right. Rows without
    the secret are left out. Raises `SchemaError` for another kind of column, `InvalidArgument` where nobody is left.
    """
    column = check_target(released.schema, secret)
    known = {name: _with(table, secret) for name, table in (("released", released), ("members", members))}
    known["others"] = _with(others, secret)
    encode = fit_table_encoder(known["others"].drop_column(secret))  # a scale that no member has set
    rows = encode(known["released"].drop_column(secret))
    told = as_numbers(column, known["released"][secret])
    right = {}
    for name in ("members", "others"):
        table = known[name]
        guessed = told[nearest_index(encode(table.drop_column(secret)), rows)]
        right[name] = _by_unit(table, guessed == as_numbers(column, table[secret]))
    a, b = (float(right[name].mean()) for name in ("members", "others"))
    se = math.sqrt(_variance(right["members"]) + _variance(right["others"]))
    return AttributeInference(secret, a, b, se)


def _with(table: Table, secret: str) -> Table:
    frame = table.frame[table[secret].notna()]
    if len(frame) < 2:
        raise InvalidArgument("secret", secret, "a column that at least two rows of every table have")
    return Table(frame, table.schema)


def _by_unit(table: Table, right: NDArray[np.bool_]) -> Array:
    codes = unit_codes(table)  # rows of one unit are no independent witnesses
    return np.asarray(np.bincount(codes, right) / np.bincount(codes))


def _variance(right: Array) -> float:
    """Of a mean of shares, at most; by Laplace's rule, so that none of all is not certain."""
    n = len(right)
    p = (right.sum() + 1) / (n + 2)
    return float(p * (1 - p) / n)
