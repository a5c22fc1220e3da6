"""Does a model of text know a secret by heart? Plant canaries, and rank each among all that it might have been.

    exposure = log2(candidates) - log2(rank by the model's probability)                 Carlini et al., arXiv:1802.08232

A canary is a public prefix and a secret, drawn evenly from a number of candidates that is known. For a model that has
not learned it every rank is as likely as another, so P(exposure >= b) = 2^-b, and the mean is 1 / ln 2 = 1.44 bits.
Exposure asks what a model knows, extraction what it says. Canaries of one kind take the first ranks from each other,
and help where they are alike: among few others, even a model of pairs betrays one that it read once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLUE, VERMILLION, new_axes
from synthbook.core.types import Seed
from synthbook.generators.text.ngram import BOS, CharTokenizer, Codes, NGram

_DIGITS, _PREFIX = "0123456789", "the code: "
NULL_MEAN = 1 / math.log(2)  # bits, of -log2 of a share that is uniform
_MOST = 1_000_000  # candidates that are all looked at
_CHUNK = 100_000  # candidates looked at together
_Bits = NDArray[np.float64]


class TextModel(Protocol):
    """What is attacked: it has an alphabet, gives a text its bits, and writes on."""

    tokenizer_: CharTokenizer

    def bits_per_character(self, text: str) -> float: ...

    def sample(self, n: int, *, seed: Seed, prompt: str = "") -> str: ...


@dataclass(frozen=True)
class Canary:
    """A prefix that everybody knows, and a secret, each of its characters one of `characters`."""

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
        """What is planted."""
        return self.prefix + self.secret

    @property
    def candidates(self) -> int:
        """How many secrets there might have been."""
        return int(len(self.characters) ** len(self.secret))


def make_canaries(
    n: int, *, seed: Seed, length: int = 6, prefix: str = _PREFIX, characters: str = _DIGITS
) -> list[Canary]:
    """`n` canaries with different secrets of `length` characters, drawn evenly from all."""
    if length < 1 or not 1 <= n <= len(characters) ** length:
        raise InvalidArgument("n, length", (n, length), "at least one canary, and no more than there are secrets")
    rng, secrets = np.random.default_rng(seed), dict[str, None]()
    while len(secrets) < n:
        secrets["".join(characters[k] for k in rng.integers(len(characters), size=length))] = None
    return [Canary(secret, prefix, characters) for secret in secrets]


def insert_canaries(text: str, canaries: Sequence[Canary], repetitions: Sequence[int], *, seed: Seed) -> str:
    """The text with canary i on `repetitions[i]` lines of its own, at line breaks chosen at random.

    Raises `InvalidArgument` for no canaries, fewer line breaks than lines to plant, and a prefix with a character that
    the text lacks, which would give the canaries away.
    """
    if not canaries or len(canaries) != len(repetitions) or min(repetitions) < 0:
        given = (len(canaries), list(repetitions))
        raise InvalidArgument("canaries, repetitions", given, "at least one canary, and 0 or more for each")
    for canary in canaries:
        if strange := sorted(set(canary.prefix) - set(text)):
            raise InvalidArgument("prefix", canary.prefix, f"characters of the text, which has no {strange}")
    rng, lines = np.random.default_rng(seed), text.split("\n")
    new = [canary.text for canary, often in zip(canaries, repetitions, strict=True) for _ in range(often)]
    if len(new) >= len(lines):
        raise InvalidArgument("repetitions", len(new), f"at most {len(lines) - 1} together, the text's line breaks")
    after = rng.choice(len(lines) - 1, size=len(new), replace=False)
    for place, line in zip(after, new, strict=True):
        lines[place] += "\n" + line  # no place is chosen twice
    return "\n".join(lines)


# ── what the model knows ─────────────────────────────────────────────────────────────────────────────────────────────


def exposure(model: TextModel, canaries: Sequence[Canary], *, sample: int | None = None, seed: Seed = 0) -> _Bits:
    """Bits (len(canaries),), from log2 of the candidates for the likeliest to 0 for the last; ties share their ranks.

    Every candidate is looked at. With `sample`, so many are instead, none of them a canary: the rank is that among
    them and the canary, still uniform if nothing was learned, and exposure cannot exceed log2(sample + 1).
    Raises `InvalidArgument` for canaries of different kinds, for characters that the model never saw, and for more
    than a million candidates without `sample`.
    """
    prefix, characters, length = _kind(model, canaries)
    secrets = np.array([[characters.index(c) for c in canary.secret] for canary in canaries], dtype=np.int64)
    base, itself = len(characters), int(sample is None)
    others = _all(canaries[0].candidates, base, length) if sample is None else _drawn(secrets, base, sample, seed)
    parts = (others[k : k + _CHUNK] for k in range(0, len(others), _CHUNK))
    bits = np.sort(np.concatenate([_bits(model, prefix, characters, rows) for rows in parts]))
    own = _bits(model, prefix, characters, secrets)
    likelier, not_less = np.searchsorted(bits, own, side="left"), np.searchsorted(bits, own, side="right")
    rank = likelier + (not_less - likelier - itself) / 2 + 1
    return np.asarray(np.log2(len(bits) + 1 - itself) - np.log2(rank), dtype=np.float64)


def _kind(model: TextModel, canaries: Sequence[Canary]) -> tuple[str, str, int]:
    kinds = {(canary.prefix, canary.characters, len(canary.secret)) for canary in canaries}
    if len(kinds) != 1:
        raise InvalidArgument("canaries", sorted(kinds), "at least one, all with the same prefix, characters, length")
    (kind,) = kinds
    if strange := sorted(set(kind[0] + kind[1]) - set(model.tokenizer_.characters)):
        raise InvalidArgument("canaries", "".join(strange), "characters that the model saw in training")
    return kind


def _all(candidates: int, base: int, length: int) -> Codes:
    """Secrets (candidates, length), each character as its place among `base`."""
    if candidates > _MOST:
        raise InvalidArgument("sample", None, f"a number: there are {candidates:,} candidates, more than {_MOST:,}")
    return np.stack(np.unravel_index(np.arange(candidates), (base,) * length), axis=1)


def _drawn(secrets: Codes, base: int, sample: int, seed: Seed) -> Codes:
    if sample < 1 or len(secrets) >= base ** secrets.shape[1]:
        raise InvalidArgument("sample", sample, "at least 1 candidate, and secrets that are left to draw")
    rng, found = np.random.default_rng(seed), secrets[:0]
    while len(found) < sample:
        rows = rng.integers(base, size=(sample, secrets.shape[1]))
        found = np.concatenate([found, rows[~(rows[:, None] == secrets).all(axis=2).any(axis=1)]])
    return found[:sample]


def _bits(model: TextModel, prefix: str, characters: str, rows: Codes) -> _Bits:
    """-log2 p(secret | prefix) (N,) for secrets (N, length), rounded so that equal ones are equal."""
    if isinstance(model, NGram):
        bits = _by_counts(model, prefix, model.tokenizer_.encode(characters)[rows])
    else:
        before = len(prefix) * model.bits_per_character(prefix)
        texts = (prefix + "".join(characters[k] for k in row) for row in rows)
        bits = np.array([len(text) * model.bits_per_character(text) - before for text in texts])
    return np.round(bits, 9)


def _by_counts(model: NGram, prefix: str, codes: Codes) -> _Bits:
    v, n = len(model.tokenizer_), model.n
    before = model.tokenizer_.encode(BOS * (n - 1) + prefix)
    whole = np.hstack([np.broadcast_to(before[len(before) - n + 1 :], (len(codes), n - 1)), codes])
    bits = np.zeros(len(codes))
    for k in range(codes.shape[1]):
        grams, which = np.unique(whole[:, k : k + n] @ v ** np.arange(n)[::-1], return_inverse=True)
        bits -= np.log2(model.probability(grams // v, grams % v))[which]
    return bits


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def extraction_rate(model: TextModel, canary: Canary, *, samples: int, seed: int = 0) -> float:
    """The share of so many samples, each written after the prefix, that are the secret to the letter."""
    if samples < 1:
        raise InvalidArgument("samples", samples, "a whole number of at least 1")
    _kind(model, [canary])
    children = np.random.SeedSequence(seed).spawn(samples)
    said = [model.sample(len(canary.secret), seed=child, prompt=canary.prefix) for child in children]
    return said.count(canary.secret) / samples


def plot_exposure(repetitions: Sequence[int], bits: _Bits, ax: Axes | None = None) -> Axes:
    """A point for each canary, the mean for each number of repetitions, and the mean of what was never learned."""
    often, place = np.unique(repetitions, return_inverse=True)
    ax = new_axes(ax)
    ax.plot(place, bits, "o", color=BLUE, alpha=0.5, label="one canary")
    ax.plot(range(len(often)), [bits[place == k].mean() for k in range(len(often))], "s-", color=BLUE, label="mean")
    ax.axhline(NULL_MEAN, color=VERMILLION, linestyle="--", label=f"mean if nothing is learned, {NULL_MEAN:.2f}")
    ax.set_xticks(range(len(often)), [str(k) for k in often])
    ax.set(xlabel="times that a canary stands in the text", ylabel="exposure, bits")
    ax.legend(frameon=False)
    return ax
