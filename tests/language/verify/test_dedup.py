"""MinHash against exact Jaccard similarities, bands against their formula, ROUGE-L against the textbook's table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthbook.core.errors import InvalidArgument
from synthbook.language.filters import dedup
from synthbook.language.filters.dedup import (
    MinHash,
    NearDuplicateIndex,
    estimate_jaccard,
    jaccard,
    lsh_detection_probability,
    rouge_l,
    shingles,
    tokenize,
)
from tests.mutation import mutant


def pair(s: float, rng: np.random.Generator, n: int = 100) -> tuple[list[bytes], list[bytes]]:
    """Two sets of n shingles with a Jaccard similarity as near to s as can be."""
    shared = round(2 * n * s / (1 + s))
    ids = [f"shingle {i}".encode() for i in rng.choice(10**6, 2 * n, replace=False)]
    return ids[:n], ids[:shared] + ids[n : 2 * n - shared]


def longest(a: list[str], b: list[str]) -> int:
    """The longest common subsequence by the table."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


@pytest.mark.slow
@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
@settings(max_examples=200, deadline=None)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    found = rouge_l(" ".join(a), " ".join(b))
    if not a or not b:
        assert found == float(a == b)
    else:
        recall, precision = longest(a, b) / len(a), longest(a, b) / len(b)
        f1 = 2 * recall * precision / (recall + precision) if recall else 0.0
        assert found == pytest.approx(f1)


@pytest.mark.slow
@pytest.mark.parametrize("s", [0.2, 0.5, 0.8])
def test_equal_hashes_are_as_frequent_as_jaccard_says(s: float) -> None:
    rng, errors = np.random.default_rng(0), []
    for seed in range(300):
        a, b = pair(s, rng)
        one, two = MinHash(128, seed).signatures([a, b])
        true = jaccard(a, b)
        errors.append((float(estimate_jaccard(one, two)) - true) / np.sqrt(true * (1 - true) / 128))
    assert abs(np.mean(errors)) < 4 / np.sqrt(300) and 0.85 < np.std(errors) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("s", [0.3, 0.5, 0.7])
def test_bands_find_what_their_formula_says(s: float) -> None:
    rng, n, bands, rows = np.random.default_rng(1), 1_500, 20, 5
    pairs = [pair(s, rng) for _ in range(n)]
    true = jaccard(*pairs[0])
    signed = MinHash(bands * rows, 3).signatures([text for both in pairs for text in both])
    agree = (signed[::2] == signed[1::2]).reshape(n, bands, rows).all(axis=2).any(axis=1)
    p = lsh_detection_probability(true, bands, rows)
    assert abs(agree.mean() - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_the_formula_at_the_known_points() -> None:
    assert [round(lsh_detection_probability(s, bands=20, rows=5), 4) for s in (0.7, 0.5, 0.3)] == [
        0.9748,
        0.4701,
        0.0475,
    ]


def test_order_of_words_and_of_shingles() -> None:
    one, two = MinHash(64).signatures([[b"a", b"b", b"c"], [b"c", b"a", b"a", b"b"]])
    assert (one == two).all()  # sets
    assert shingles("One two, THREE four") == [b"one two three", b"two three four"]
    assert (
        shingles("one") == [b"one"] and tokenize("it's 2 p.m.") == ["it", "s", "2", "p", "m"] and shingles("") == [b""]
    )


@pytest.mark.parametrize(
    "change", [("self.a[k]", "self.a[0]"), ("hashes = _murmur_finalizer(hashes)", "hashes = hashes % np.uint32(64)")]
)
def test_hashes_that_are_too_alike_are_found_out(change: tuple[str, str]) -> None:
    broken, rng, errors = mutant(dedup, *change), np.random.default_rng(0), []
    for seed in range(100):
        a, b = pair(0.5, rng)
        one, two = broken.MinHash(128, seed).signatures([a, b])
        errors.append((float((one == two).mean()) - jaccard(a, b)) / np.sqrt(0.25 / 128))
    assert abs(np.mean(errors)) > 4 / 10 or np.std(errors) > 1.15


# ── a memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def texts(n: int, rng: np.random.Generator, length: int = 60) -> list[list[str]]:
    return [[f"w{i}" for i in rng.integers(0, 3_000, length)] for _ in range(n)]


def test_near_copies_go_and_distinct_texts_stay() -> None:
    """C4.3-4: at least 99 % of copies with s >= 0.8 are found, at most 1 % of distinct texts are taken for copies."""
    rng = np.random.default_rng(0)
    originals = texts(1_000, rng)
    copies = [list(text) for text in originals]
    for copy in copies:
        copy[int(rng.integers(2, 58))] += "x"  # three shingles of 58
    memory = NearDuplicateIndex(threshold=0.7)
    first = memory.add([" ".join(text) for text in originals])
    assert sum(number is not None for number in first) <= 10
    found = memory.add([" ".join(copy) for copy in copies])
    assert sum(number == k for k, number in enumerate(found)) >= 990
    assert memory.n_unique <= 1_010 and memory.seen == 2_000


def test_the_same_whether_texts_come_together_or_one_by_one() -> None:
    rng = np.random.default_rng(2)
    some = [" ".join(text) for text in texts(60, rng, 20)]
    some += [text.replace("w1", "w2") for text in some] + some[:10]
    at_once = NearDuplicateIndex().add(some)
    memory = NearDuplicateIndex()
    assert [memory.add([text])[0] for text in some] == at_once
    assert at_once[-10:] == list(range(10)) and at_once[:60] == [None] * 60


def test_bad_settings_are_refused() -> None:
    for settings_ in ({"threshold": 0}, {"threshold": 1.1}, {"bands": 0}, {"rows": 0}, {"shingle_size": 0}):
        with pytest.raises(InvalidArgument):
            NearDuplicateIndex(**settings_)
    with pytest.raises(InvalidArgument, match="at least one for each"):
        MinHash(8).signatures([[b"a"], []])
    with pytest.raises(InvalidArgument):
        MinHash(0)
