"""A judge instead of an oracle: scores by a rubric, and a scripted judge with noise, bias and heavy tails.

    score = quality + s e + beta L          L: a trait that should not count, such as length; all standard normal
    the best of k by score:  E[quality] = m_k / sqrt(1 + s^2 + beta^2),  E[L] = beta m_k / sqrt(1 + s^2 + beta^2)

m_k is the expected largest of k standard normal numbers. With heavy-tailed errors (Student's t, 2 degrees of freedom)
the best of many is the luckiest of many: quality falls in k (Goodhart's law).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.language.messages import ChatRequest, ChatResponse, Message, SamplingParams

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Rubric:
    """What is marked, each from 1 to `levels`, and how much it weighs."""

    weights: Mapping[str, float]
    levels: int = 5

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights.values()) <= 0 or self.levels < 2:
            raise InvalidArgument("weights", dict(self.weights), "positive weights, and at least 2 levels")

    def score(self, marks: Mapping[str, int]) -> float:
        """The weighted mean of marks as a share in [0, 1]. Raises `InvalidArgument` for marks of something else.

        >>> Rubric({"correct": 3, "clear": 1}).score({"correct": 5, "clear": 1})
        0.75
        """
        whole = all(type(mark) is int and 1 <= mark <= self.levels for mark in marks.values())
        if marks.keys() != self.weights.keys() or not whole:
            raise InvalidArgument("marks", dict(marks), f"{', '.join(self.weights)}, each from 1 to {self.levels}")
        total = sum(self.weights[name] * (mark - 1) / (self.levels - 1) for name, mark in marks.items())
        return total / sum(self.weights.values())


@dataclass(frozen=True)
class ScriptedJudge:
    """Scores with errors of scale `noise_std`, `bias` for a trait, and Student's t errors where `df` is given."""

    noise_std: float = 0.0
    bias: float = 0.0
    df: float | None = None

    def __post_init__(self) -> None:
        if self.noise_std < 0 or (self.df is not None and self.df <= 0):
            raise InvalidArgument(
                "noise_std, df", (self.noise_std, self.df), "no negative noise, positive degrees of freedom"
            )

    def score(self, quality: Numbers, trait: Numbers, rng: np.random.Generator) -> Numbers:
        """Scores of things of these qualities and traits, all of one shape."""
        shape = quality.shape
        error = rng.standard_normal(shape) if self.df is None else rng.standard_t(self.df, shape)
        return quality + self.noise_std * error + self.bias * trait

    def best_of(self, k: int, *, n: int, seed: int) -> tuple[Numbers, Numbers]:
        """Quality and trait (n,) of what the judge likes best among k, n times."""
        if k < 1 or n < 1:
            raise InvalidArgument("k, n", (k, n), "at least 1")
        rng = np.random.default_rng(seed)
        quality, trait = rng.standard_normal((2, n, k))
        best = self.score(quality, trait, rng).argmax(axis=1)[:, None]
        return np.take_along_axis(quality, best, 1)[:, 0], np.take_along_axis(trait, best, 1)[:, 0]

    def expected(self, k: int) -> tuple[float, float]:
        """E[quality] and E[trait] of the best of k; for normal errors only."""
        if self.df is not None:
            raise InvalidArgument("df", self.df, "None: with heavy tails there is no such formula")
        share = expected_max_normal(k) / np.sqrt(1 + self.noise_std**2 + self.bias**2)
        return float(share), float(self.bias * share)


def expected_max_normal(k: int) -> float:
    """m_k, the expected largest of k standard normal numbers: the integral of x k phi(x) Phi(x)^(k-1).

    >>> round(expected_max_normal(4), 4)
    1.0294
    """
    from scipy.integrate import quad
    from scipy.stats import norm

    if k < 1:
        raise InvalidArgument("k", k, "at least 1")
    value, _ = quad(lambda x: x * k * norm.pdf(x) * norm.cdf(x) ** (k - 1), -12, 12, epsabs=1e-10)
    return float(value)


# ── a real model as a judge ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Pair:
    """A prompt, and two answers, the chosen and the rejected one."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PairwiseScore:
    """How often a judge picks the chosen answer, the one in first position, and the same one in both orders."""

    n: int
    accuracy: float
    first_position_rate: float
    consistency: float


def pairwise_requests(pairs: Iterable[Pair]) -> Iterator[ChatRequest]:
    """Two requests for each pair, which answer is better: the chosen one in first, then in second position."""
    sampling = SamplingParams(temperature=0.0, max_tokens=8, schema={"type": "string", "enum": ["A", "B"]})
    for pair in pairs:
        for a, b in ((pair.chosen, pair.rejected), (pair.rejected, pair.chosen)):
            text = f"Question: {pair.prompt}\nAnswer A: {a}\nAnswer B: {b}\nWhich answer is better, A or B?"
            yield ChatRequest((Message("user", text),), sampling)


def score_pairs(answers: Sequence[ChatResponse]) -> PairwiseScore:
    """Score a judge by its answers to `pairwise_requests`; an answer that is neither A nor B chooses neither."""
    choices = [answer.text.strip().strip('"') for answer in answers]
    if not choices or len(choices) % 2:
        raise InvalidArgument("answers", len(choices), "two for each pair, at least one pair")
    pairs = list(zip(choices[::2], choices[1::2], strict=True))
    accuracy = np.mean([[one == "A", two == "B"] for one, two in pairs])
    first = np.mean([[one == "A", two == "A"] for one, two in pairs])
    same = np.mean([{one, two} == {"A", "B"} for one, two in pairs])
    return PairwiseScore(len(pairs), float(accuracy), float(first), float(same))
