"""A table as numbers that a network can learn: mode-specific normalisation (Xu et al., arXiv:1907.00503, section 4.2).

A number becomes the mode of a Gaussian mixture that it belongs to, one-hot, and its place in that mode:

    alpha = (x - mu_k) / (4 sigma_k)

so that a column with two peaks does not become a bump in a corner of [-1, 1]. A value that one row in twenty has, such
as capital-gain = 0, is a mode for itself; the paper leaves that to the mixture, and zeros come back as small numbers. A
category is one-hot. A missing value is one more state of its column.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from synthbook.core.columns import Column
from synthbook.core.errors import InvalidArgument
from synthbook.models.tabular.values import Array, as_numbers, from_numbers

ROWS = 5_000  # that the mixture is fitted to
LEAST = 0.005  # weight of a mode
SPIKE = 0.05  # share of the rows from which on a value is a mode for itself
WIDEST = 5_000  # inputs of a network


@dataclass(frozen=True)
class Span:
    """Places [start, start + width) of the encoding: an alpha, or the states of a column, one-hot."""

    column: int
    start: int
    width: int
    is_alpha: bool


@dataclass(frozen=True, eq=False)
class Modes:
    """Means and standard deviations (k,) of a number's modes, and their weights."""

    mean: Array
    sd: Array
    weight: Array

    @classmethod
    def of(cls, x: Array, *, most: int, rng: np.random.Generator) -> Modes:
        """At most `most` modes of numbers (N,) without holes; with 0, the range as one, which is min-max scaling."""
        if not len(x) or x.min() == x.max():
            return cls(np.array([x[0] if len(x) else 0.0]), np.ones(1), np.ones(1))
        if most == 0:
            return cls(np.array([(x.min() + x.max()) / 2]), np.array([(x.max() - x.min()) / 8]), np.ones(1))
        values, counts = np.unique(x, return_counts=True)
        often = counts > max(SPIKE * len(x), 1)
        spikes, shares = values[often], counts[often] / len(x)
        rest = x[~np.isin(x, spikes)]
        narrow = np.full(len(spikes), 1e-6 * (values[-1] - values[0]))
        if len(rest) < 2 or rest.min() == rest.max():
            mean, sd, weight = rest[:1], np.full(len(rest[:1]), narrow.min(initial=1.0)), np.ones(len(rest[:1]))
        else:
            mean, sd, weight = cls._mixture(rest, most, rng)
        weight = weight * (1 - shares.sum())
        return cls(np.append(spikes, mean), np.append(narrow, sd), np.append(shares, weight))

    @staticmethod
    def _mixture(x: Array, most: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        centre, width = x.mean(), x.std()
        mixture = BayesianGaussianMixture(
            n_components=min(most, len(np.unique(x[:ROWS]))),
            weight_concentration_prior=0.001,
            max_iter=100,
            random_state=int(rng.integers(2**31)),
        )
        some = x if len(x) <= ROWS else rng.choice(x, ROWS, replace=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a rough mixture serves as well
            mixture.fit((some[:, None] - centre) / width)
        kept = mixture.weights_ >= LEAST
        sd = np.sqrt(mixture.covariances_[kept, 0, 0]) * width
        weight = mixture.weights_[kept] / mixture.weights_[kept].sum()
        return mixture.means_[kept, 0] * width + centre, sd, weight

    def draw(self, x: Array, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A mode (N,) for each number, with the probability that it came from there."""
        z = (x[:, None] - self.mean) / self.sd
        score = np.log(self.weight / self.sd) - z**2 / 2
        return np.asarray((score + rng.gumbel(size=score.shape)).argmax(axis=1))


@dataclass(frozen=True, eq=False)
class Encoding:
    """How each column is written; `modes` of those that are numbers or dates."""

    columns: tuple[Column, ...]
    modes: Mapping[str, Modes]
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, columns: tuple[Column, ...], frame: pd.DataFrame, *, most: int, rng: np.random.Generator) -> Encoding:
        """Learnt from these rows, with at most `most` modes for a number. Raises `InvalidArgument` if too wide."""
        modes = {}
        for column in columns:
            if not column.categories:
                x = as_numbers(column, frame[column.name])
                modes[column.name] = Modes.of(x[~np.isnan(x)], most=most, rng=rng)
        encoding = cls(columns, modes, _spans(columns, modes))
        if encoding.width > WIDEST:
            raise InvalidArgument(
                "table", f"{encoding.width:,} states", f"at most {WIDEST:,} for a network: name model cart or copula"
            )
        return encoding

    @property
    def width(self) -> int:
        """Numbers for a row."""
        return self.spans[-1].start + self.spans[-1].width

    def encode(self, frame: pd.DataFrame, rng: np.random.Generator) -> Array:
        """Rows as numbers (N, width); `rng` draws modes where several are likely."""
        x: Array = np.zeros((len(frame), self.width))
        rows = np.arange(len(frame))
        for span, state in self._pairs():
            column = self.columns[span.column]
            numbers = as_numbers(column, frame[column.name])
            absent = np.isnan(numbers)
            if column.categories:
                x[rows, span.start + np.where(absent, span.width - 1, numbers).astype(np.int64)] = 1
                continue
            modes = self.modes[column.name]
            chosen = modes.draw(np.where(absent, modes.mean[0], numbers), rng)
            x[:, span.start] = np.where(absent, 0, (numbers - modes.mean[chosen]) / (4 * modes.sd[chosen]))
            if state is not None:
                x[rows, state.start + np.where(absent, state.width - 1, chosen)] = 1
        return x

    def decode(self, x: Array) -> pd.DataFrame:
        """Numbers (N, width) as rows; of one-hot states the largest counts."""
        found = {}
        for span, state in self._pairs():
            column = self.columns[span.column]
            part = x[:, span.start : span.start + span.width].astype(float)
            if column.categories:
                number = part.argmax(axis=1).astype(float)
                number[number == len(column.categories)] = np.nan
            else:
                modes, chosen = self.modes[column.name], np.zeros(len(x), dtype=np.int64)
                if state is not None:
                    chosen = x[:, state.start : state.start + state.width].argmax(axis=1)
                absent, chosen = chosen == len(modes.mean), np.minimum(chosen, len(modes.mean) - 1)
                number = np.where(absent, np.nan, modes.mean[chosen] + 4 * modes.sd[chosen] * part[:, 0])
            found[column.name] = from_numbers(column, number)
        return pd.DataFrame(found)

    def _pairs(self) -> list[tuple[Span, Span | None]]:
        """Each column's first span, and for a number the one of its modes."""
        state = {s.column: s for s in self.spans if not s.is_alpha}
        first = {s.column: s for s in reversed(self.spans)}
        return [(first[j], state.get(j) if first[j].is_alpha else None) for j in range(len(self.columns))]

    def as_tensors(self) -> dict[str, Array]:
        """The modes, by column and name."""
        return {
            f"modes/{name}/{key}": value for name, modes in self.modes.items() for key, value in vars(modes).items()
        }

    @classmethod
    def from_tensors(cls, columns: tuple[Column, ...], tensors: Mapping[str, Any]) -> Encoding:
        """What `as_tensors` gave."""
        names = ("mean", "sd", "weight")
        modes = {
            column.name: Modes(*(tensors[f"modes/{column.name}/{name}"].numpy() for name in names))
            for column in columns
            if not column.categories
        }
        return cls(columns, modes, _spans(columns, modes))


def _spans(columns: tuple[Column, ...], modes: Mapping[str, Modes]) -> tuple[Span, ...]:
    spans: list[Span] = []
    at = 0
    for j, column in enumerate(columns):
        if column.categories:
            states = len(column.categories)
        else:
            spans.append(Span(j, at, 1, is_alpha=True))
            at, states = at + 1, len(modes[column.name].mean)
        states += column.missing
        if column.categories or states > 1:
            spans.append(Span(j, at, states, is_alpha=False))
            at += states
    return tuple(spans)
