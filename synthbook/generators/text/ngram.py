"""What follows the last n - 1 characters? Count. The oldest language model (Shannon 1948), with three ways to smooth.

A context that was seen rarely says little, so it is mixed with the one that is a character shorter:

    add-one      p(c | h) = (count(hc) + 1) / (count(h) + V)                                        Laplace
    witten-bell  p(c | h) = (count(hc) + T(h) p(c | h')) / (count(h) + T(h))                        Witten and Bell 1991
    kneser-ney   p(c | h) = max(count(hc) - D, 0) / count(h) + D T(h) / count(h) p(c | h')          Kneser and Ney 1995

h' is h without its first character, T(h) the number of different characters after h, and below the longest context
Kneser and Ney count in how many different contexts a character was seen, not how often.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance, sha256, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Callback, Seed, Texts, seed_sequence
from synthbook.generators.base import Generator, Progress, Tensors, check_positive_int

Codes = NDArray[np.int64]
UNK, BOS = "\ufffd", "\n"  # what stands for other characters, and what comes before a text


def check_texts(texts: Texts | Iterable[str], for_what: str) -> list[str]:
    """The texts to learn from; a string is one. Raises `HoldoutError`, and `InvalidArgument` without a character."""
    refuse_holdout(texts, for_what)
    parts = list(texts.texts if isinstance(texts, Texts) else [texts] if isinstance(texts, str) else texts)
    if not any(parts):
        raise InvalidArgument("texts", parts[:1], "at least one character")
    return parts


@dataclass(frozen=True)
class CharTokenizer:
    """The characters, in the order of their codes; `UNK` is the last."""

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> CharTokenizer:
        """All characters of these texts."""
        return cls("".join(sorted({c for text in texts for c in text} | {BOS} - {UNK})) + UNK)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Codes:
        """A number (len(text),) for each character."""
        number = {c: k for k, c in enumerate(self.characters)}
        return np.array([number.get(c, len(self) - 1) for c in text], dtype=np.int64)

    def decode(self, codes: Iterable[int]) -> str:
        """The characters of codes."""
        return "".join(self.characters[k] for k in codes)


def unigram_entropy(text: str) -> float:
    """Bits per character if nothing were known of a text but how often each character is: -sum p log2 p.

    >>> unigram_entropy("abab")
    1.0
    """
    if not text:
        raise InvalidArgument("text", text, "at least one character")
    _, counts = np.unique(list(text), return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


_STRETCH = 500  # characters that `write` samples together


class TextGenerator(Generator):
    """The common part of generators of text; after `fit` or `load`: `tokenizer_`."""

    data_kind, suffix, unit = "text", ".txt", "characters"
    tokenizer_: CharTokenizer

    @abstractmethod
    def sample(self, n: int, *, seed: Seed, prompt: str = "") -> str:
        """`n` characters that follow `prompt`."""

    @abstractmethod
    def bits_per_character(self, text: str) -> float:
        """Mean of -log2 p over the characters of a text."""

    def _write(
        self,
        path: Path,
        n: int,
        provenance: Provenance,
        callback: Progress,
        *,
        seed: Seed,
        prompt: str = "",
        **options: Any,
    ) -> Path:
        def pieces() -> Iterator[str]:
            yield prompt
            text = prompt
            for first, child in zip(range(0, n, _STRETCH), seed_sequence(seed).spawn(-(-n // _STRETCH)), strict=True):
                text = self.sample(
                    min(_STRETCH, n - first), seed=child, prompt=text, **options
                )  # longer than any context
                yield text
                callback(min(first + _STRETCH, n), n)

        return write_with_provenance(path, pieces(), provenance)

    def _data_summary(self) -> str:
        return f"text with {len(self.tokenizer_)} different characters"


# ── The n-gram model ──


SMOOTHINGS = ("add-one", "witten-bell", "kneser-ney")
DISCOUNT = 0.75  # D


@dataclass(frozen=True, eq=False)
class _NGramCounts:
    """k-grams as numbers in base V (m,), sorted, and their counts; their contexts (c,), with counts and types."""

    grams: Codes
    counts: Codes
    contexts: Codes
    context_counts: Codes
    n_types: Codes  # different characters after the context

    @classmethod
    def of(cls, grams: Codes, counts: Codes, base: int) -> _NGramCounts:
        """From different k-grams, sorted, and their counts."""
        contexts, first = np.unique(grams // base, return_index=True)
        ends = np.append(first[1:], len(grams))
        return cls(grams, counts, contexts, np.add.reduceat(counts, first), ends - first)


@dataclass(frozen=True)
class NGramConfig:
    """The order `n` of the model, from 1 to 8, and its `smoothing`: "add-one", "witten-bell" or "kneser-ney"."""

    n: int = 5
    smoothing: str = "kneser-ney"

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or not 1 <= self.n <= 8:
            raise InvalidArgument("n", self.n, "a whole number from 1 to 8")
        if self.smoothing not in SMOOTHINGS:
            raise InvalidArgument("smoothing", self.smoothing, f"one of {', '.join(SMOOTHINGS)}")


class NGram(TextGenerator):
    """A model of characters given the `n` - 1 before. After `fit`: `tokenizer_`, `counts_` for k = 1, ..., n."""

    family, config_class = "text-ngram", NGramConfig

    def __init__(self, n: int = 5, *, smoothing: str = "kneser-ney"):
        super().__init__(n=n, smoothing=smoothing)
        self.n, self.smoothing = n, smoothing

    def fit(
        self,
        data: Texts | Iterable[str],
        *,
        seed: Seed = 0,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
    ) -> Self:
        """Count. `seed` is ignored, as is what concerns training in steps; they exist for API consistency.

        Raises `HoldoutError`, and `InvalidArgument` for texts without a character.
        """
        parts = check_texts(data, "fitting an n-gram model")
        self._describe_fit(seed, None, sha256("\n".join(parts).encode()))
        self.tokenizer_ = CharTokenizer.of(parts)
        v, codes = len(self.tokenizer_), [self._padded(part) for part in parts]
        self.counts_: list[_NGramCounts] = []
        for k in range(self.n, 0, -1):
            if k < self.n and self.smoothing == "kneser-ney":
                grams, counts = np.unique(self.counts_[0].grams % v**k, return_counts=True)  # in how many contexts
            else:
                every = np.concatenate([self._grams(part, k) for part in codes])
                grams, counts = np.unique(every, return_counts=True)
            self.counts_.insert(0, _NGramCounts.of(grams, counts, v))
        return self

    def bits_per_character(self, text: str) -> float:
        """Mean of -log2 p over the characters of a text."""
        if not text:
            raise InvalidArgument("text", text, "at least one character")
        codes = self._padded(text)
        contexts = self._grams(codes, self.n) // len(self.tokenizer_)
        return float(-np.log2(self.probability(contexts, codes[self.n - 1 :])).mean())

    def probability(self, contexts: Codes, characters: Codes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """p(character | context) (N,) for contexts (N,), n - 1 characters each as a number in base V."""
        self._check_fitted()
        v = len(self.tokenizer_)
        p = np.full(len(characters), 1 / v)
        for k, counts in enumerate(self.counts_, start=1):
            context = contexts % v ** (k - 1)
            seen = _looked_up(counts.grams, counts.counts, context * v + characters)
            total = _looked_up(counts.contexts, counts.context_counts, context)
            n_types = _looked_up(counts.contexts, counts.n_types, context)
            if self.smoothing == "add-one":
                p = (seen + 1) / (total + v)  # of the longest context, in the end
            elif self.smoothing == "witten-bell":
                p = np.where(total > 0, (seen + n_types * p) / np.maximum(total + n_types, 1), p)
            else:
                known = np.maximum(total, 1)
                interpolated = np.maximum(seen - DISCOUNT, 0) / known + DISCOUNT * n_types / known * p
                p = np.where(total > 0, interpolated, p)
        return p

    def sample(self, n: int, *, seed: Seed, prompt: str = "") -> str:
        """`n` characters that follow `prompt`, one after the other."""
        check_positive_int("n", n)
        self._check_fitted()
        rng, v = np.random.default_rng(seed), len(self.tokenizer_)
        drawn, every = list(self._padded(prompt)[-(self.n - 1) :] if self.n > 1 else []), np.arange(v)
        before = len(drawn)
        for _ in range(n):
            context = 0
            for code in drawn[len(drawn) - self.n + 1 :] if self.n > 1 else []:
                context = context * v + int(code)
            p = self.probability(np.full(v, context), every)
            p[-1] = 0  # what stands for characters that were never seen is not written
            drawn.append(int(rng.choice(v, p=p / p.sum())))
        return self.tokenizer_.decode(drawn[before:])

    def _serialize(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"{k}/{name}": value for k, part in enumerate(self.counts_) for name, value in vars(part).items()}
        return tensors, {"alphabet": self.tokenizer_.characters}

    def _restore(self, tensors: Tensors, card: Mapping[str, Any], source: Path) -> None:
        self.tokenizer_ = CharTokenizer(card["alphabet"])
        names = list(_NGramCounts.__dataclass_fields__)
        self.counts_ = [_NGramCounts(*(tensors[f"{k}/{name}"].numpy() for name in names)) for k in range(self.n)]

    def _padded(self, text: str) -> Codes:
        return self.tokenizer_.encode(BOS * (self.n - 1) + text)

    def _grams(self, codes: Codes, k: int) -> Codes:
        """The k-gram (N,) that ends at each character of a padded text."""
        v, last = len(self.tokenizer_), len(codes) - self.n + 1
        gram = np.zeros(last, dtype=np.int64)
        for i in range(self.n - k, self.n):
            gram = gram * v + codes[i : i + last]
        return gram


def _looked_up(keys: Codes, values: Codes, wanted: Codes) -> Codes:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
