"""Deduplication: ROUGE-L between two texts, and MinHash with locality-sensitive hashing among a million.

    Jaccard(A, B) = |A n B| / |A u B|,    P(the least hash of A is that of B) = Jaccard(A, B)     Broder 1997
    b bands of r hashes, and a pair is looked at where one band agrees:  P = 1 - (1 - s^r)^b      Indyk and Motwani 1998
    ROUGE-L = F1 of the longest common subsequence of words                                       Lin 2004

A text is the set of its shingles, `shingle_size` words each, so that order counts a little.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

_Hashes = NDArray[np.uint32]
_CHUNK = 1_000  # texts whose hashes lie in the processor's cache together
_LOOKED_AT = 8  # of the texts that share a band


def tokenize(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def shingles(text: str, shingle_size: int = 3) -> list[bytes]:
    """Runs of `shingle_size` words, or all words where they are fewer."""
    parts = tokenize(text)
    return [" ".join(parts[i : i + shingle_size]).encode() for i in range(max(len(parts) - shingle_size + 1, 1))]


def jaccard(a: Iterable[bytes], b: Iterable[bytes]) -> float:
    """Jaccard similarity |A n B| / |A u B|; 1 for two empty sets."""
    one, two = set(a), set(b)
    return len(one & two) / len(one | two) if one | two else 1.0


def rouge_l(a: str, b: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]; two texts without words are the same.

    >>> rouge_l("the cat sat", "the cat ran")
    0.6666666666666666
    """
    one, two = tokenize(a), tokenize(b)
    if not one or not two:
        return float(one == two)
    return 2 * _common(one, two) / (len(one) + len(two))


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table in one integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & full
    return len(a) - row.bit_count()


# ── MinHash ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class MinHash:
    """Permutations of 32-bit numbers, `num_perm` many: h to a h modulo 2^32 with a odd (Dietzfelbinger et al. 1997)."""

    num_perm: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_perm <= 4_096:
            raise InvalidArgument("num_perm", self.num_perm, "from 1 to 4096 permutations")
        rng = np.random.default_rng(self.seed)
        object.__setattr__(self, "a", rng.integers(0, 2**32, self.num_perm, dtype=np.uint32) | np.uint32(1))

    a: _Hashes = field(init=False, repr=False)

    def signatures(self, texts: Sequence[Sequence[bytes]]) -> _Hashes:
        """Signatures (N, num_perm) of texts given as shingles: the minimum under each permutation."""
        out = np.empty((len(texts), self.num_perm), dtype=np.uint32)
        for first in range(0, len(texts), _CHUNK):
            self._sign(texts[first : first + _CHUNK], out[first : first + _CHUNK])
        return out

    def _sign(self, texts: Sequence[Sequence[bytes]], out: _Hashes) -> None:
        lengths = np.array([len(text) for text in texts])
        if (lengths == 0).any():
            raise InvalidArgument("texts", "a text without a shingle", "at least one for each text")
        crc = zlib.crc32
        hashes = np.fromiter((crc(part) for text in texts for part in text), dtype=np.uint32, count=lengths.sum())
        hashes = _murmur_finalizer(hashes)
        first, permuted = np.cumsum(lengths) - lengths, np.empty_like(hashes)
        for k in range(self.num_perm):
            np.multiply(hashes, self.a[k], out=permuted)  # modulo 2^32
            out[:, k] = np.minimum.reduceat(permuted, first)


def _murmur_finalizer(h: _Hashes) -> _Hashes:
    """A one-to-one scrambling of 32-bit numbers (the end of MurmurHash3): CRCs of similar words are similar."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ h >> np.uint32(shift)) * np.uint32(factor)
    return h ^ h >> np.uint32(16)


def estimate_jaccard(a: _Hashes, b: _Hashes) -> float | NDArray[np.float64]:
    """The Jaccard similarity that signatures (..., n) suggest; its standard error is sqrt(s (1 - s) / n)."""
    return (a == b).mean(axis=-1)  # type: ignore[no-any-return]


def lsh_detection_probability(s: float, bands: int, rows: int) -> float:
    """P(two texts of similarity s share a band) = 1 - (1 - s^rows)^bands.

    >>> round(lsh_detection_probability(0.5, bands=20, rows=5), 4)
    0.4701
    """
    return float(1 - (1 - s**rows) ** bands)


class NearDuplicateIndex:
    """An LSH index that finds near duplicates among the texts added so far.

    Candidates share at least one LSH band of `rows` hashes, among `bands`; a near duplicate is one whose signature
    agrees in at least `threshold`. Memory is about 750 bytes for each text that is kept, at times twice that.
    """

    def __init__(self, *, threshold: float = 0.7, bands: int = 20, rows: int = 5, shingle_size: int = 3, seed: int = 0):
        if not 0 < threshold <= 1:
            raise InvalidArgument("threshold", threshold, "a similarity above 0 and at most 1")
        if min(bands, rows, shingle_size) < 1:
            raise InvalidArgument(
                "bands, rows, shingle_size", (bands, rows, shingle_size), "whole numbers of at least 1"
            )
        self.threshold, self.bands, self.rows, self.shingle_size = threshold, bands, rows, shingle_size
        self.hash = MinHash(bands * rows, seed)
        self.seen, self.n_unique = 0, 0
        self._signatures = np.empty((_CHUNK, self.hash.num_perm), dtype=np.uint32)  # with room for more
        self._numbers = np.empty(_CHUNK, dtype=np.int64)  # of the texts that are kept, in the order of arrival
        # keys (bands, m), sorted, and whose they are: from large to small, so that most are sorted seldom
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def add(self, texts: Sequence[str]) -> list[int | None]:
        """Add texts; for each the index of an earlier text that it nearly duplicates, else None."""
        signed = self.hash.signatures([shingles(text, self.shingle_size) for text in texts])
        keys = self._banded(signed)
        known = self._known(keys)
        here: list[dict[int, int]] = [{} for _ in range(self.bands)]
        repeated: list[int | None] = []
        unique: list[int] = []  # rows of `signed`
        for i in range(len(texts)):
            among = {mine[key] for mine, key in zip(here, keys[i].tolist(), strict=True) if key in mine}
            pairs = [(self._signatures[row], int(self._numbers[row])) for row in known.get(i, set())]
            pairs += [(signed[k], self.seen + k) for k in among]
            near = [(float(estimate_jaccard(signed[i], other)), number) for other, number in pairs]
            alike, number = max(near, default=(0.0, -1), key=lambda pair: (pair[0], -pair[1]))
            repeated.append(number if alike >= self.threshold else None)
            if alike < self.threshold:
                unique.append(i)
                for mine, key in zip(here, keys[i].tolist(), strict=True):
                    mine.setdefault(key, i)
        self._keep(signed[unique], keys[unique], self.seen + np.array(unique, dtype=np.int64))
        self.seen += len(texts)
        return repeated

    def _banded(self, signed: _Hashes) -> NDArray[np.uint64]:
        """A key (N, bands) of each band's hashes."""
        keys = np.zeros((len(signed), self.bands), dtype=np.uint64)
        parts = signed.reshape(len(signed), self.bands, self.rows).astype(np.uint64)
        for row in range(self.rows):
            keys = (keys ^ parts[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
        return keys

    def _known(self, keys: NDArray[np.uint64]) -> dict[int, set[int]]:
        """Rows of earlier texts that share a band, for the texts that have such."""
        candidates: dict[int, set[int]] = {}
        for stored, owners in self._runs:
            for band in range(self.bands):
                low = np.searchsorted(stored[band], keys[:, band], "left")
                high = np.searchsorted(stored[band], keys[:, band], "right")
                for i in np.flatnonzero(low < high):
                    rows = owners[band, low[i] : min(high[i], low[i] + _LOOKED_AT)]
                    candidates.setdefault(int(i), set()).update(rows.tolist())
        return candidates

    def _keep(self, signed: _Hashes, keys: NDArray[np.uint64], numbers: NDArray[np.int64]) -> None:
        rows = np.arange(self.n_unique, self.n_unique + len(signed))
        if not len(rows):
            return
        self.n_unique += len(rows)
        while self.n_unique > len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
            self._numbers = np.concatenate([self._numbers, np.empty_like(self._numbers)])
        self._signatures[rows], self._numbers[rows] = signed, numbers
        self._runs.append(_sorted(keys.T, np.tile(rows, (self.bands, 1))))
        while len(self._runs) > 1 and self._runs[-1][0].shape[1] >= self._runs[-2][0].shape[1]:
            (one, whose), (two, others) = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted(np.concatenate([two, one], axis=1), np.concatenate([others, whose], axis=1)))


def _sorted(keys: NDArray[np.uint64], owners: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    order = np.argsort(keys, axis=1, kind="stable")
    return np.take_along_axis(keys, order, 1), np.take_along_axis(owners, order, 1)
