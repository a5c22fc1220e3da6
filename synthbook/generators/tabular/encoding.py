"""A table as numbers that a network can learn: mode-specific normalization (Xu et al., arXiv:1907.00503, section 4.2).

A number becomes the mode of a Gaussian mixture that it belongs to, one-hot, and its place in that mode:

    alpha = (x - mu_k) / (4 sigma_k)

so that a column with two peaks does not become a bump in a corner of [-1, 1]. A value that one row in twenty has, such
as capital-gain = 0, is a mode for itself; the paper leaves that to the mixture, and zeros come back as small numbers. A
category is one-hot. A missing value is one more state of its column.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Column
from synthbook.core.types import Array


def as_numbers(column: Column, values: pd.Series[Any]) -> Array:
    """Values (N,) as numbers, NaN where missing: categories by their place in the schema, dates in microseconds."""
    if column.categories:
        codes = np.asarray(pd.Categorical(values, categories=list(column.categories)).codes, dtype=float)
        return np.where(codes < 0, np.nan, codes)
    if column.kind == "datetime":
        stamps = values.astype("datetime64[us]")
        return np.where(stamps.isna(), np.nan, stamps.astype("int64").to_numpy(dtype=float))
    return values.to_numpy(dtype=float, na_value=np.nan)


def from_numbers(column: Column, numbers: Array) -> pd.Series[Any]:
    """Numbers (N,) as values of the column: whole where they must be, within the schema's bounds, NaN as missing."""
    absent = np.isnan(numbers)
    filled = np.where(absent, 0.0, numbers)
    if column.categories:
        codes = np.where(absent, -1, np.clip(np.rint(filled), 0, len(column.categories) - 1)).astype(np.int64)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=column.dtype))
    if column.kind == "datetime":
        stamps: Any = pd.Series(np.rint(filled).astype(np.int64)).astype("datetime64[us]")
        bounded_stamps: pd.Series[Any] = stamps.clip(column.lower, column.upper).mask(absent)
        return bounded_stamps
    bounded = np.clip(np.rint(filled) if column.integer else filled, column.lower, column.upper)  # type: ignore[arg-type]
    return pd.Series(bounded).mask(absent).astype(column.dtype)


# ── The distribution of one column ──
# Q(u) is a line through knots (level, value). A value that many rows share, such as capital-gain = 0, or a category,
# has an interval of levels for itself, on which Q is flat; the others are joined by straight lines. Missing values take
# the lowest levels. So a uniform u gives values with the right shares, and every value has levels to be drawn from.


MIN_ATOM_SHARE = 0.0005  # share of the rows from which on a number is a value for itself
_KNOTS = 1_000  # at most, beside those of spikes
EDGE = 1e-9  # levels stay this far from 0 and 1


@dataclass(frozen=True, eq=False)
class Marginal:
    """Knots `levels` and `values` (k,), both rising; below `missing` the value is missing.

    For a column of categories without an order, `order` lists their codes as they lie along the levels.
    """

    column: Column
    levels: Array
    values: Array
    missing: float
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, column: Column, rows: pd.Series[Any], order: tuple[int, ...] = ()) -> Marginal:
        """The distribution of these rows; nominal categories lie in `order`, else in the schema's."""
        numbers = as_numbers(column, rows)
        present = numbers[~np.isnan(numbers)]
        missing = 1 - len(present) / len(numbers)
        if order:
            present = np.argsort(order)[present.astype(np.int64)].astype(float)
        if not len(present):
            return cls(column, np.ones(2), np.zeros(2), 1.0, order)
        values, counts = np.unique(present, return_counts=True)
        above = missing + np.cumsum(counts) / len(numbers)
        below = np.append(missing, above[:-1])  # to the last bit: a gap or an overlap would bend the steps of Q
        flat = ((counts > MIN_ATOM_SHARE * len(numbers)) & (counts > 1)) | bool(column.categories)
        plain = np.flatnonzero(~flat)
        if len(plain) > _KNOTS:  # every so many of them, the first and the last included
            plain = plain[np.unique(np.linspace(0, len(plain) - 1, _KNOTS).round().astype(np.int64))]
        knots = np.concatenate([below[flat], above[flat], (below[plain] + above[plain]) / 2])
        heights = np.concatenate([values[flat], values[flat], values[plain]])
        rising = np.lexsort((heights, knots))
        return cls(column, knots[rising], heights[rising], missing, order)

    def quantile(self, u: Array) -> Array:
        """Q(u) (N,) for levels (N,), as numbers; NaN for missing values."""
        values = np.interp(u, self.levels, self.values)
        if self.order:
            values = np.asarray(self.order, dtype=float)[np.rint(values).astype(np.int64)]
        return np.where(u < self.missing, np.nan, values)

    def cdf_interval(self, rows: pd.Series[Any]) -> tuple[Array, Array]:
        """The levels (N,) between which each row's value lies; both are the same for a number without a spike."""
        x = as_numbers(self.column, rows)
        absent = np.isnan(x)
        x = np.where(absent, self.values[0], x)
        if self.order:
            x = np.argsort(self.order)[x.astype(np.int64)].astype(float)
        left, right = (np.searchsorted(self.values, x, side) for side in ("left", "right"))
        last = len(self.values) - 1
        after, before = np.clip(left, 1, last), np.clip(left, 1, last) - 1
        gap = self.values[after] - self.values[before]
        share = np.clip((x - self.values[before]) / np.where(gap > 0, gap, 1), 0, 1)
        between = self.levels[before] + share * (self.levels[after] - self.levels[before])
        known = right > left
        low = np.where(known, self.levels[np.minimum(left, last)], between)
        high = np.where(known, self.levels[right - 1], between)
        return np.where(absent, 0, low), np.where(absent, self.missing, high)

    def distributional_transform(self, rows: pd.Series[Any], rng: np.random.Generator) -> Array:
        """A level (N,) for each row, uniform between those of its value: the distributional transform."""
        low, high = self.cdf_interval(rows)
        return np.clip(low + (high - low) * rng.random(len(low)), EDGE, 1 - EDGE)

    def normal_scores(self, rows: pd.Series[Any]) -> Array:
        """The mean (N,) of a standard normal variable between the levels of each row's value."""
        low, high = self.cdf_interval(rows)
        z_low, z_high = ndtri(np.clip(low, EDGE, 1)), ndtri(np.clip(high, 0, 1 - EDGE))
        wide = high - low > 1e-6
        # E[z | a < z < b] = (phi(a) - phi(b)) / (Phi(b) - Phi(a))
        mean = (_density(z_low) - _density(z_high)) / np.where(wide, high - low, 1)
        return np.asarray(np.where(wide, mean, ndtri(np.clip((low + high) / 2, EDGE, 1 - EDGE))))


def marginals_state(margins: Sequence[Marginal]) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Margins as arrays, and as plain JSON what is not in them."""
    arrays = {f"margin/{k}/{name}": getattr(m, name) for k, m in enumerate(margins) for name in ("levels", "values")}
    return arrays, [{"missing": margin.missing, "order": list(margin.order)} for margin in margins]


def restore_marginals(columns: Sequence[Column], arrays: Mapping[str, Any], facts: Sequence[Any]) -> list[Marginal]:
    """What `marginals_state` gave."""
    marginals = []
    for k, (column, fact) in enumerate(zip(columns, facts, strict=True)):
        levels, values = (arrays[f"margin/{k}/{name}"].numpy() for name in ("levels", "values"))
        marginals.append(Marginal(column, levels, values, fact["missing"], tuple(fact["order"])))
    return marginals


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


# ── Mode-specific normalization ──


_MIXTURE_ROWS = 5_000  # that the mixture is fitted to
_WEIGHT_THRESHOLD = 0.005  # weight of a mode
_MIN_MODE_SHARE = 0.05  # share of the rows from which on a value is a mode for itself
_MAX_WIDTH = 5_000  # inputs of a network


@dataclass(frozen=True)
class Span:
    """Places [start, start + width) of the encoding: an alpha, or the states of a column, one-hot."""

    column: int
    start: int
    width: int
    is_alpha: bool


@dataclass(frozen=True, eq=False)
class ModeNormalizer:
    """Means and standard deviations (k,) of a number's modes, and their weights."""

    mean: Array
    sd: Array
    weight: Array

    @classmethod
    def fit(cls, x: Array, *, max_modes: int, rng: np.random.Generator) -> ModeNormalizer:
        """At most `max_modes` modes of numbers (N,), none missing; 0 takes the range as one mode: min-max scaling."""
        if not len(x) or x.min() == x.max():
            return cls(np.array([x[0] if len(x) else 0.0]), np.ones(1), np.ones(1))
        if max_modes == 0:
            return cls(np.array([(x.min() + x.max()) / 2]), np.array([(x.max() - x.min()) / 8]), np.ones(1))
        values, counts = np.unique(x, return_counts=True)
        often = counts > max(_MIN_MODE_SHARE * len(x), 1)
        spikes, shares = values[often], counts[often] / len(x)
        rest = x[~np.isin(x, spikes)]
        narrow = np.full(len(spikes), 1e-6 * (values[-1] - values[0]))
        if len(rest) < 2 or rest.min() == rest.max():
            mean, sd, weight = rest[:1], np.full(len(rest[:1]), narrow.min(initial=1.0)), np.ones(len(rest[:1]))
        else:
            mean, sd, weight = cls._mixture(rest, max_modes, rng)
        weight = weight * (1 - shares.sum())
        return cls(np.append(spikes, mean), np.append(narrow, sd), np.append(shares, weight))

    @staticmethod
    def _mixture(x: Array, max_modes: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        center, width = x.mean(), x.std()
        mixture = BayesianGaussianMixture(
            n_components=min(max_modes, len(np.unique(x[:_MIXTURE_ROWS]))),
            weight_concentration_prior=0.001,
            max_iter=100,
            random_state=int(rng.integers(2**31)),
        )
        some = x if len(x) <= _MIXTURE_ROWS else rng.choice(x, _MIXTURE_ROWS, replace=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a rough mixture serves as well
            mixture.fit((some[:, None] - center) / width)
        components = mixture.weights_ >= _WEIGHT_THRESHOLD
        sd = np.sqrt(mixture.covariances_[components, 0, 0]) * width
        weight = mixture.weights_[components] / mixture.weights_[components].sum()
        return mixture.means_[components, 0] * width + center, sd, weight

    def sample_mode(self, x: Array, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A mode (N,) for each number, drawn from its posterior probabilities."""
        z = (x[:, None] - self.mean) / self.sd
        score = np.log(self.weight / self.sd) - z**2 / 2
        return np.asarray((score + rng.gumbel(size=score.shape)).argmax(axis=1))


@dataclass(frozen=True, eq=False)
class DataTransformer:
    """How each column is written; `modes` of those that are numbers or dates."""

    columns: tuple[Column, ...]
    modes: Mapping[str, ModeNormalizer]
    spans: tuple[Span, ...]

    @classmethod
    def fit(
        cls, columns: tuple[Column, ...], frame: pd.DataFrame, *, max_modes: int, rng: np.random.Generator
    ) -> DataTransformer:
        """Fit to these rows, with at most `max_modes` modes per number. Raises `InvalidArgument` if too wide."""
        modes = {}
        for column in columns:
            if not column.categories:
                x = as_numbers(column, frame[column.name])
                modes[column.name] = ModeNormalizer.fit(x[~np.isnan(x)], max_modes=max_modes, rng=rng)
        encoding = cls(columns, modes, _spans(columns, modes))
        if encoding.width > _MAX_WIDTH:
            raise InvalidArgument(
                "table",
                f"{encoding.width:,} states",
                f"at most {_MAX_WIDTH:,} for a network: name model cart or copula",
            )
        return encoding

    @property
    def width(self) -> int:
        """Numbers for a row."""
        return self.spans[-1].start + self.spans[-1].width

    def transform(self, frame: pd.DataFrame, rng: np.random.Generator) -> Array:
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
            chosen = modes.sample_mode(np.where(absent, modes.mean[0], numbers), rng)
            x[:, span.start] = np.where(absent, 0, (numbers - modes.mean[chosen]) / (4 * modes.sd[chosen]))
            if state is not None:
                x[rows, state.start + np.where(absent, state.width - 1, chosen)] = 1
        return x

    def inverse_transform(self, x: Array) -> pd.DataFrame:
        """Numbers (N, width) as rows; of one-hot states the largest counts."""
        columns = {}
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
            columns[column.name] = from_numbers(column, number)
        return pd.DataFrame(columns)

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
    def from_tensors(cls, columns: tuple[Column, ...], tensors: Mapping[str, Any]) -> DataTransformer:
        """What `as_tensors` gave."""
        names = ("mean", "sd", "weight")
        modes = {
            column.name: ModeNormalizer(*(tensors[f"modes/{column.name}/{name}"].numpy() for name in names))
            for column in columns
            if not column.categories
        }
        return cls(columns, modes, _spans(columns, modes))


def _spans(columns: tuple[Column, ...], modes: Mapping[str, ModeNormalizer]) -> tuple[Span, ...]:
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
