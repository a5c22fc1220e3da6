"""Characters as numbers; those that a model never saw share the last one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.payloads import Texts
from synthbook.core.schema import refuse_holdout

Codes = NDArray[np.int64]
UNKNOWN, BEFORE = "\ufffd", "\n"  # what stands for other characters, and what comes before a text


def parts_of(texts: Texts | Iterable[str], for_what: str) -> list[str]:
    """The texts to learn from; a string is one. Raises `HoldoutError`, and `InvalidArgument` without a character."""
    refuse_holdout(texts, for_what)
    parts = list(texts.texts if isinstance(texts, Texts) else [texts] if isinstance(texts, str) else texts)
    if not any(parts):
        raise InvalidArgument("texts", parts[:1], "at least one character")
    return parts


@dataclass(frozen=True)
class Alphabet:
    """The characters, in the order of their codes; `UNKNOWN` is the last."""

    characters: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> Alphabet:
        """All characters of these texts."""
        return cls("".join(sorted({c for text in texts for c in text} | {BEFORE} - {UNKNOWN})) + UNKNOWN)

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
