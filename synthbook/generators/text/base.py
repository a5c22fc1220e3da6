"""The common part of generators of text: characters as codes, and the text after a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Seed, Texts, seed_sequence
from synthbook.generators.base import Generator, Progress

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
    """The characters, in the order of their codes; `UNKNOWN` is the last."""

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> CharTokenizer:
        """All characters of these texts."""
        return cls("".join(sorted({c for text in texts for c in text} | {BOS} - {UNK})) + UNK)

    def __len__(self) -> int:
        return len(self.characters)

    def codes(self, text: str) -> Codes:
        """A number (len(text),) for each character."""
        number = {c: k for k, c in enumerate(self.characters)}
        return np.array([number.get(c, len(self) - 1) for c in text], dtype=np.int64)

    def text(self, codes: Iterable[int]) -> str:
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


STRETCH = 500  # characters that `write` samples together


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
            for first, child in zip(range(0, n, STRETCH), seed_sequence(seed).spawn(-(-n // STRETCH)), strict=True):
                text = self.sample(
                    min(STRETCH, n - first), seed=child, prompt=text, **options
                )  # longer than any context
                yield text
                callback(min(first + STRETCH, n), n)

        return write_with_provenance(path, pieces(), provenance)

    def _data_summary(self) -> str:
        return f"text with {len(self.tokenizer_)} different characters"
