"""Attribute inference: does a release reveal a secret of its members that it does not reveal of everyone else?

An attacker who knows all columns of a person but one guesses that the nearest synthetic row has the same value. Such
guesses also succeed on people who are not in the data: that smokers are ill more often is no leak. The measure is how
much more accurate the guesses are for members than for non-members (the non-member baseline; Giomi et al. 2023,
arXiv:2211.10459).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
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
    """Accuracy of guesses of a secret column for members and for non-members; `se`, of their difference."""

    secret: str
    member_accuracy: float
    nonmember_accuracy: float
    se: float

    @property
    def advantage(self) -> float:
        """By how much membership raises the accuracy."""
        return self.member_accuracy - self.nonmember_accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the advantage."""
        half_width = float(norm.ppf(0.975)) * self.se
        return self.advantage - half_width, self.advantage + half_width

    @property
    def leaks(self) -> bool:
        """Whether the advantage exceeds what chance explains, at 3.3 standard errors."""
        return self.advantage > Z_BAND * self.se

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"advantage": self.advantage, "interval": self.interval, "leaks": self.leaks}

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.secret}: accuracy {self.member_accuracy:.1%} on members and {self.nonmember_accuracy:.1%} on "
            f"non-members, advantage {self.advantage:+.1%} ({low:+.1%} to {high:+.1%})"
        )


def attribute_inference(synthetic: Table, members: Table, nonmembers: Table, secret: str) -> AttributeInference:
    """Infer a categorical column of members and of non-members from synthetic rows.

    Where the schema names an entity, each entity counts once, with its share of correctly guessed rows. Rows without
    the secret are left out. Raises `SchemaError` for another kind of column, `InvalidArgument` where no rows are left.
    """
    column = check_target(synthetic.schema, secret)
    tables = {"synthetic": _with_value(synthetic, secret), "members": _with_value(members, secret)}
    tables["nonmembers"] = _with_value(nonmembers, secret)
    encode = fit_table_encoder(tables["nonmembers"].drop_column(secret))  # a scale that no member affects
    rows = encode(tables["synthetic"].drop_column(secret))
    values = as_numbers(column, tables["synthetic"][secret])
    correct = {}
    for name in ("members", "nonmembers"):
        table = tables[name]
        guesses = values[nearest_index(encode(table.drop_column(secret)), rows)]
        units = unit_codes(table)  # rows of the same unit are not independent
        correct[name] = np.bincount(units, guesses == as_numbers(column, table[secret])) / np.bincount(units)
    a, b = (float(correct[name].mean()) for name in ("members", "nonmembers"))
    se = math.sqrt(_variance(correct["members"]) + _variance(correct["nonmembers"]))
    return AttributeInference(secret, a, b, se)


def _with_value(table: Table, secret: str) -> Table:
    frame = table.frame[table[secret].notna()]
    if len(frame) < 2:
        raise InvalidArgument("secret", secret, "a column that at least two rows of every table have")
    return Table(frame, table.schema)


def _variance(shares: Array) -> float:
    """Upper bound on the variance of a mean of shares; by Laplace's rule of succession, above 0 even if all are 0."""
    n = len(shares)
    p = (shares.sum() + 1) / (n + 2)
    return float(p * (1 - p) / n)
