"""Counting models of text, against a plain recursion over dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from synthbook.core.errors import DataError, HoldoutError, InvalidArgument
from synthbook.core.storage import Provenance
from synthbook.datasets import austen
from synthbook.experiments.text import bits_of_austen, plot_bits
from synthbook.generators.base import NotFittedError
from synthbook.generators.text import ngram
from synthbook.generators.text.ngram import DISCOUNT, SMOOTHINGS, UNK, NGram, unigram_entropy
from synthbook.generators.text.transformer import Transformer
from tests.mutation import mutant

TEXTS = ["abracadabra", "a cab, a bar", "\nbad"]


def plain(texts: list[str], n: int, smoothing: str, v: int):
    """p(c | h) by recursion, from the definitions."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    left: dict[str, set[str]] = defaultdict(set)  # what stands before a gram, among those of at most n characters
    for text in texts:
        padded = "\n" * (n - 1) + text
        for i in range(n - 1, len(padded)):
            for k in range(n):
                counts[padded[i - k : i]][padded[i]] += 1
                if k:
                    left[padded[i - k + 1 : i + 1]].add(padded[i - k])
    after: dict[str, Counter[str]] = defaultdict(Counter)
    for gram, before in left.items():
        after[gram[:-1]][gram[-1]] = len(before)

    def p(c: str, h: str) -> float:
        seen = counts[h] if smoothing != "kneser-ney" or len(h) == n - 1 else after[h]
        if smoothing == "add-one":
            return (seen[c] + 1) / (sum(seen.values()) + v)
        shorter = 1 / v if not h else p(c, h[1:])
        total, different = sum(seen.values()), len(seen)
        if not total:
            return shorter
        if not h:
            shorter = 1 / v
        if smoothing == "witten-bell":
            return (seen[c] + different * shorter) / (total + different)
        return max(seen[c] - DISCOUNT, 0) / total + DISCOUNT * different / total * shorter

    return p


def code_of(model: NGram, context: str) -> int:
    code = 0
    for c in model.tokenizer_.encode(context):
        code = code * len(model.tokenizer_) + int(c)
    return code


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_definitions(smoothing: str, n: int) -> None:
    model = NGram(n, smoothing=smoothing).fit(TEXTS)
    p, every = plain(TEXTS, n, smoothing, len(model.tokenizer_)), np.arange(len(model.tokenizer_))
    contexts = {text[i : i + n - 1] for text in (*TEXTS, "zzzz", "cadbra,") for i in range(len(text) - n + 2)}
    for context in contexts:
        context = context.replace("z", UNK)
        found = model.probability(np.full(len(every), code_of(model, context)), every)
        assert found.sum() == pytest.approx(1)
        np.testing.assert_allclose(found, [p(c, context) for c in model.tokenizer_.characters], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new"),
    [("DISCOUNT * n_types / known * p", "DISCOUNT * p"), ("% v**k, return_counts", "% v**(k - 1), return_counts")],
)
def test_mutants_do_not_sum_to_one_or_forget_contexts(old: str, new: str) -> None:
    broken, whole = mutant(ngram, old, new).NGram(3).fit(TEXTS), NGram(3).fit(TEXTS)
    every = np.arange(len(whole.tokenizer_))
    context = np.full(len(every), code_of(whole, "ab"))
    assert np.abs(broken.probability(context, every) - whole.probability(context, every)).max() > 1e-3


@pytest.mark.slow
def test_longer_contexts_know_more_of_austen() -> None:
    split = austen()
    learned = [text[:150_000] for text in split.train.texts]
    unseen = split.test.data.texts[0][:50_000]
    bits = {n: NGram(n).fit(learned).bits_per_character(unseen) for n in (1, 2, 3, 5)}
    floor = unigram_entropy(unseen)
    assert floor < bits[1] < floor + 0.05  # the unseen text's own shares are the best that one character can do
    assert bits[1] - bits[2] > 0.5 and bits[2] - bits[3] > 0.3 and bits[3] - bits[5] > 0.2
    others = {name: NGram(5, smoothing=name).fit(learned).bits_per_character(unseen) for name in SMOOTHINGS}
    assert others["kneser-ney"] < others["witten-bell"] < others["add-one"]


def test_samples_repeat_themselves_and_follow_the_prompt() -> None:
    model = NGram(4).fit(["the cat sat on the mat. " * 50])
    made = model.sample(300, seed=0)
    assert made == model.sample(300, seed=0) != model.sample(300, seed=1) and len(made) == 300
    assert UNK not in made and "the" in made
    assert model.sample(2, seed=0, prompt="the c") == "at"
    assert len(NGram(1).fit(TEXTS).sample(20, seed=0)) == 20


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(HoldoutError):
        NGram().fit(austen().test)  # type: ignore[arg-type]
    for wrong in (0, 9, 2.5):
        with pytest.raises(InvalidArgument, match="from 1 to 8"):
            NGram(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="add-one, witten-bell, kneser-ney"):
        NGram(smoothing="good")
    for empty in ([], [""], ""):
        with pytest.raises(InvalidArgument, match="at least one character"):
            NGram().fit(empty)
    with pytest.raises(NotFittedError):
        NGram().sample(3, seed=0)
    with pytest.raises(InvalidArgument, match="at least one character"):
        NGram(2).fit(TEXTS).bits_per_character("")


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    model = NGram(4, smoothing="witten-bell").fit(TEXTS, seed=1)
    provenance = Provenance("a test", "pytest")
    kept = NGram.load(model.save(tmp_path / "one", provenance))
    assert kept.bits_per_character("a bad car") == model.bits_per_character("a bad car")
    assert kept.sample(50, seed=2) == model.sample(50, seed=2)
    kept.save(tmp_path / "two", provenance)
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(DataError, match="text-ngram"):
        Transformer.load(tmp_path / "one")
    with pytest.raises(NotFittedError):
        NGram().save(tmp_path / "three", provenance)


def test_the_table_of_austen_is_that_of_its_models() -> None:
    table = bits_of_austen((1, 3), characters=3_000)
    assert set(table["smoothing"]) == set(SMOOTHINGS) and table["n"].tolist() == [1, 3] * 3
    split = austen()
    learned = [novel[:3_000] for novel in split.train.texts]
    held_out = "".join(novel[:500] for novel in split.test.data.texts)
    one = table[(table.smoothing == "kneser-ney") & (table.n == 3)]["bits"].item()
    assert one == NGram(3).fit(learned).bits_per_character(held_out) < table.attrs["unigram"]
    assert table.attrs["unigram"] == unigram_entropy(held_out)
    ax = plot_bits(table)
    assert len(ax.lines) == len(SMOOTHINGS) + 1 and "bits" in ax.get_ylabel()
