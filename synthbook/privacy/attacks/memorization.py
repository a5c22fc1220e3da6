"""Does a language model memorize secrets? Insert canaries, and rank each among all secrets that were possible.

    exposure = log2(candidates) - log2(rank by the model's probability)                 Carlini et al., arXiv:1802.08232

A canary is a public prefix and a secret, drawn uniformly from a known number of candidates. For a model that has not
learned it all ranks are equally likely, so P(exposure >= b) = 2^-b, and the mean is 1 / ln 2 = 1.44 bits. Exposure
measures what a model knows, the extraction rate what it outputs. Canaries of one kind compete for the first ranks, and
help each other where they share characters: among few, even a bigram model exposes a canary that it read once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLUE, VERMILLION, new_axes
from synthbook.core.types import Array, Seed
from synthbook.generators.text.ngram import BOS, CharTokenizer, Codes, NGram

_DIGITS, _PREFIX = "0123456789", "the code: "
NULL_MEAN = 1 / math.log(2)  # bits, of -log2 of a share that is uniform
_MAX_CANDIDATES = 1_000_000  # that are all ranked
_CHUNK = 100_000  # candidates in memory together


class TextModel(Protocol):
    """A model that can be attacked: it has an alphabet, assigns bits to a text, and continues a prompt."""

    tokenizer_: CharTokenizer

    def bits_per_character(self, text: str) -> float: ...

    def sample(self, n: int, *, seed: Seed, prompt: str = "") -> str: ...


@dataclass(frozen=True)
class Canary:
    """A public prefix and a secret, whose characters are among `characters`."""

    secret: str
    prefix: str = _PREFIX
    characters: str = _DIGITS

    def __post_init__(self) -> None:
        if len(set(self.characters)) < max(len(self.characters), 2):
            raise InvalidArgument("characters", self.characters, "two characters or more, each of them once")
        if not self.secret or set(self.secret) - set(self.characters):
            raise InvalidArgument("secret", self.secret, f"at least one of the characters {self.characters!r}")
        if BOS in self.prefix + self.characters or not self.prefix:
            raise InvalidArgument("prefix", self.prefix, "at least one character, all of the canary on one line")

    @property
    def text(self) -> str:
        """The line that is inserted: prefix and secret."""
        return self.prefix + self.secret

    @property
    def candidates(self) -> int:
        """The number of possible secrets."""
        return int(len(self.characters) ** len(self.secret))


def make_canaries(
    n: int, *, seed: Seed, length: int = 6, prefix: str = _PREFIX, characters: str = _DIGITS
) -> list[Canary]:
    """`n` canaries with different secrets of `length` characters, sampled uniformly."""
    if length < 1 or not 1 <= n <= len(characters) ** length:
        raise InvalidArgument("n, length", (n, length), "at least one canary, and no more than there are secrets")
    rng, secrets = np.random.default_rng(seed), dict[str, None]()
    while len(secrets) < n:
        secrets["".join(characters[k] for k in rng.integers(len(characters), size=length))] = None
    return [Canary(secret, prefix, characters) for secret in secrets]


def insert_canaries(text: str, canaries: Sequence[Canary], repetitions: Sequence[int], *, seed: Seed) -> str:
    """Insert canary i into a text on `repetitions[i]` lines of its own, at random line breaks.

    Raises `InvalidArgument` for no canaries, for fewer line breaks than lines to insert, and for a prefix with a
    character that the text lacks, which would mark the canaries.
    """
    if not canaries or len(canaries) != len(repetitions) or min(repetitions) < 0:
        given = (len(canaries), list(repetitions))
        raise InvalidArgument("canaries, repetitions", given, "at least one canary, and 0 or more for each")
    for canary in canaries:
        if unknown := sorted(set(canary.prefix) - set(text)):
            raise InvalidArgument("prefix", canary.prefix, f"characters of the text, which has no {unknown}")
    rng, lines = np.random.default_rng(seed), text.split("\n")
    new = [canary.text for canary, times in zip(canaries, repetitions, strict=True) for _ in range(times)]
    if len(new) >= len(lines):
        raise InvalidArgument("repetitions", len(new), f"at most {len(lines) - 1} together, the text's line breaks")
    after = rng.choice(len(lines) - 1, size=len(new), replace=False)
    for k, line in zip(after, new, strict=True):
        lines[k] += "\n" + line  # no line break is chosen twice
    return "\n".join(lines)


# ── Exposure ──


def exposure(model: TextModel, canaries: Sequence[Canary], *, sample: int | None = None, seed: Seed = 0) -> Array:
    """Exposure (len(canaries),) in bits: log2 of the candidates for the likeliest, 0 for the last; ties share a rank.

    All candidates are ranked. With `sample`, each canary is ranked among as many random candidates that are no
    canaries: its rank is still uniform if nothing was learned, and exposure cannot exceed log2(sample + 1).
    Raises `InvalidArgument` for canaries of different kinds, for characters that the model never saw, and for more
    than a million candidates without `sample`.
    """
    prefix, characters, length = _kind(model, canaries)
    secrets = np.array([[characters.index(c) for c in canary.secret] for canary in canaries], dtype=np.int64)
    base, n, itself = len(characters), canaries[0].candidates, int(sample is None)
    if sample is not None:
        candidates = _sample_candidates(secrets, base, sample, seed)
    elif n > _MAX_CANDIDATES:
        accepted = f"a number: there are {n:,} candidates, more than {_MAX_CANDIDATES:,}"
        raise InvalidArgument("sample", sample, accepted)
    else:
        candidates = np.stack(np.unravel_index(np.arange(n), (base,) * length), axis=1)
    chunks = (candidates[k : k + _CHUNK] for k in range(0, len(candidates), _CHUNK))
    bits = np.sort(np.concatenate([_bits(model, prefix, characters, chunk) for chunk in chunks]))
    own = _bits(model, prefix, characters, secrets)
    likelier, not_less = np.searchsorted(bits, own, side="left"), np.searchsorted(bits, own, side="right")
    rank = likelier + (not_less - likelier - itself) / 2 + 1
    return np.asarray(np.log2(len(bits) + 1 - itself) - np.log2(rank), dtype=np.float64)


def _kind(model: TextModel, canaries: Sequence[Canary]) -> tuple[str, str, int]:
    kinds = {(canary.prefix, canary.characters, len(canary.secret)) for canary in canaries}
    if len(kinds) != 1:
        raise InvalidArgument("canaries", sorted(kinds), "at least one, all with the same prefix, characters, length")
    (kind,) = kinds
    if unknown := sorted(set(kind[0] + kind[1]) - set(model.tokenizer_.characters)):
        raise InvalidArgument("canaries", "".join(unknown), "characters that the model saw in training")
    return kind


def _sample_candidates(secrets: Codes, base: int, sample: int, seed: Seed) -> Codes:
    if sample < 1 or len(secrets) >= base ** secrets.shape[1]:
        raise InvalidArgument("sample", sample, "at least 1 candidate, and secrets that are left to draw")
    rng, candidates = np.random.default_rng(seed), secrets[:0]
    while len(candidates) < sample:
        rows = rng.integers(base, size=(sample, secrets.shape[1]))
        candidates = np.concatenate([candidates, rows[~(rows[:, None] == secrets).all(axis=2).any(axis=1)]])
    return candidates[:sample]


def _bits(model: TextModel, prefix: str, characters: str, rows: Codes) -> Array:
    """-log2 p(secret | prefix) (N,) of secrets (N, length), rounded so that ties are exact."""
    if isinstance(model, NGram):
        bits = _ngram_bits(model, prefix, model.tokenizer_.encode(characters)[rows])
    else:
        before = len(prefix) * model.bits_per_character(prefix)
        texts = (prefix + "".join(characters[k] for k in row) for row in rows)
        bits = np.array([len(text) * model.bits_per_character(text) - before for text in texts])
    return np.round(bits, 9)


def _ngram_bits(model: NGram, prefix: str, codes: Codes) -> Array:
    v, n = len(model.tokenizer_), model.n
    before = model.tokenizer_.encode(BOS * (n - 1) + prefix)
    whole = np.hstack([np.broadcast_to(before[len(before) - n + 1 :], (len(codes), n - 1)), codes])
    bits = np.zeros(len(codes))
    for k in range(codes.shape[1]):
        grams, which = np.unique(whole[:, k : k + n] @ v ** np.arange(n)[::-1], return_inverse=True)
        bits -= np.log2(model.probability(grams // v, grams % v))[which]
    return bits


# ── Extraction ──


def extraction_rate(model: TextModel, canary: Canary, *, samples: int, seed: int = 0) -> float:
    """The share of `samples` continuations of the prefix that are exactly the secret."""
    if samples < 1:
        raise InvalidArgument("samples", samples, "a whole number of at least 1")
    _kind(model, [canary])
    children = np.random.SeedSequence(seed).spawn(samples)
    continuations = [model.sample(len(canary.secret), seed=child, prompt=canary.prefix) for child in children]
    return continuations.count(canary.secret) / samples


def plot_exposure(repetitions: Sequence[int], bits: Array, ax: Axes | None = None) -> Axes:
    """Plot each canary's exposure, the mean for each number of repetitions, and the mean if nothing is learned."""
    times, group = np.unique(repetitions, return_inverse=True)
    ax = new_axes(ax)
    ax.plot(group, bits, "o", color=BLUE, alpha=0.5, label="one canary")
    ax.plot(range(len(times)), [bits[group == k].mean() for k in range(len(times))], "s-", color=BLUE, label="mean")
    ax.axhline(NULL_MEAN, color=VERMILLION, linestyle="--", label=f"mean if nothing is learned, {NULL_MEAN:.2f}")
    ax.set_xticks(range(len(times)), [str(k) for k in times])
    ax.set(xlabel="times that a canary stands in the text", ylabel="exposure, bits")
    ax.legend(frameon=False)
    return ax
