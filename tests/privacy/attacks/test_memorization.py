"""What a model of text knows by heart: ranks by brute force, the null by simulation, canaries in Austen, mutants."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.datasets import austen
from synthbook.generators.text.ngram import CharTokenizer, NGram
from synthbook.generators.text.transformer import Transformer
from synthbook.privacy.attacks import memorization
from synthbook.privacy.attacks.memorization import (
    NULL_MEAN,
    Canary,
    exposure,
    extraction_rate,
    insert_canaries,
    make_canaries,
    plot_exposure,
)
from tests.mutation import mutant

TIMES, EACH = (0, 1, 2, 4, 8, 16), 20
REPETITIONS = np.repeat(TIMES, EACH)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def corpus() -> str:
    return austen().train.texts[0][:200_000]


@cache
def trained(n: int, each: int = EACH, seed: int = 0) -> tuple[NGram, tuple[Canary, ...]]:
    """An n-gram model of Austen with `each` canaries for each number of repetitions."""
    canaries = make_canaries(len(TIMES) * each, seed=seed)
    return NGram(n).fit(insert_canaries(corpus(), canaries, np.repeat(TIMES, each), seed=seed)), tuple(canaries)


@cache
def known(n: int) -> np.ndarray:
    """Exposure (len(REPETITIONS),) of each canary in `trained(n)`."""
    return exposure(*trained(n))


def in_null(bits: np.ndarray) -> bool:
    """Mean 1 / ln 2, which is also the deviation, and P(>= b) = 2^-b, all within four standard errors."""
    n = len(bits)
    tails = [abs((bits >= b).mean() - 2.0**-b) < 4 * math.sqrt(2.0**-b * (1 - 2.0**-b) / n) for b in (1, 2, 3)]
    return abs(bits.mean() - NULL_MEAN) < 4 * NULL_MEAN / math.sqrt(n) and all(tails)


class Dice:
    """A model that has learned nothing: each text costs what a die says, and `spread` 0 makes them all alike."""

    tokenizer_ = CharTokenizer.of(["the code: 0123456789"])

    def __init__(self, seed: int = 0, spread: float = 1.0):
        self.rng, self.spread, self.said = np.random.default_rng(seed), spread, dict[str, float]()

    def bits_per_character(self, text: str) -> float:
        return self.said.setdefault(text, 10 + self.spread * float(self.rng.random()) / len(text))

    def sample(self, n: int, *, seed: object, prompt: str = "") -> str:
        return "7" * n


# ── planting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_canaries_are_different_and_stand_in_the_text_as_often_as_they_should() -> None:
    canaries = make_canaries(12, seed=3)
    assert len({c.secret for c in canaries}) == 12 and all(len(c.secret) == 6 for c in canaries)
    assert canaries == make_canaries(12, seed=3) != make_canaries(12, seed=4)
    times = [0, 1, 2, 4, 8, 16] * 2
    text = insert_canaries(corpus(), canaries, times, seed=0)
    assert [text.split("\n").count(c.text) for c in canaries] == times
    without = [line for line in text.split("\n") if not line.startswith(canaries[0].prefix)]
    assert "\n".join(without) == corpus()
    places = [k for k, line in enumerate(text.split("\n")) if line.startswith(canaries[0].prefix)]
    assert stats.kstest(np.array(places) / text.count("\n"), "uniform").pvalue > 1e-3
    assert len(make_canaries(10, seed=0, length=1)) == 10


# ── the rank ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 5])
def test_exposure_is_the_rank_among_all_candidates_by_brute_force(n: int) -> None:
    canaries = make_canaries(8, seed=1, length=3)
    model = NGram(n).fit(insert_canaries(corpus()[:20_000], canaries, [1, 1, 2, 2, 4, 4, 8, 8], seed=1))
    prefix = canaries[0].prefix
    cost = {}
    for secret in map("".join, product("0123456789", repeat=3)):
        text = prefix + secret
        cost[secret] = len(text) * model.bits_per_character(text)
    for canary, bits in zip(canaries, exposure(model, canaries), strict=True):
        own = cost[canary.secret]
        likelier = sum(c < own - 1e-7 for c in cost.values())
        tied = sum(abs(c - own) <= 1e-7 for c in cost.values()) - 1
        assert bits == pytest.approx(math.log2(1_000 / (likelier + tied / 2 + 1)))


@pytest.mark.slow
def test_a_transformer_is_ranked_by_its_bits_as_any_model_is() -> None:
    canaries = make_canaries(3, seed=0, length=2)
    text = insert_canaries("0123456789\n" + corpus()[:5_000], canaries, [30, 1, 0], seed=0)
    model = Transformer(steps=60, batch_size=16, context_length=32, d_model=32, n_heads=2, n_layers=1).fit(text, seed=0)
    costs = np.array([model.bits_per_character(canaries[0].prefix + f"{k:02}") for k in range(100)])
    ranks = stats.rankdata(costs.round(9))[[int(c.secret) for c in canaries]]
    assert exposure(model, canaries) == pytest.approx(np.log2(100 / ranks))
    assert exposure(model, canaries)[0] >= math.log2(50)


@pytest.mark.slow
def test_a_sample_of_candidates_gives_nearly_the_exposure_of_all_up_to_its_limit() -> None:
    exact, sampled = known(3), exposure(*trained(3), sample=9_999)
    assert sampled.max() <= math.log2(10_000)
    below = exact < 7  # the rank among 9,999 is then known to some 11 per cent, 0.16 bits, or better
    assert below.sum() > 60 and np.abs(sampled - exact)[below].max() < 0.7


# ── the null ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def null_of(module: ModuleType, sample: int | None) -> np.ndarray:
    """Exposures (400,) in 100 models that are dice."""
    canaries = module.make_canaries(4, seed=9, length=3 if sample is None else 6)
    return np.concatenate([module.exposure(Dice(k), canaries, sample=sample, seed=k) for k in range(100)])


@pytest.mark.slow
def test_what_was_never_learned_has_a_uniform_rank() -> None:
    uniform = np.log2(1_000_000) - np.log2(np.arange(1, 1_000_001))
    assert uniform.mean() == pytest.approx(NULL_MEAN, abs=1e-4)
    assert [(uniform >= b).mean() for b in (1, 2, 5)] == pytest.approx([0.5, 0.25, 2.0**-5], abs=1e-6)
    assert in_null(null_of(memorization, 199)) and in_null(null_of(memorization, None))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5])
def test_canaries_that_were_not_planted_are_in_the_null(n: int) -> None:
    model = NGram(n).fit(corpus())
    canaries = make_canaries(300, seed=5, characters=LETTERS)  # too many candidates to look at each
    assert in_null(exposure(model, canaries, sample=9_999))
    assert in_null(known(n)[:EACH])  # others were


def test_ties_are_split() -> None:
    canaries = [Canary("12"), Canary("99")]
    assert exposure(Dice(spread=0.0), canaries) == pytest.approx([math.log2(100 / 50.5)] * 2)
    assert exposure(Dice(spread=0.0), canaries, sample=9) == pytest.approx([math.log2(10 / 5.5)] * 2)


# ── Austen with canaries ─────────────────────────────────────────────────────────────────────────────────────────────


def spearman(bits: np.ndarray) -> float:
    return float(stats.spearmanr(REPETITIONS[EACH:], bits[EACH:])[0])


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 5, pytest.param(6, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_exposure_rises_with_repetitions(n: int) -> None:
    assert spearman(known(n)) >= 0.9


def test_a_model_that_looks_at_two_characters_does_not_know_what_it_read_once_and_one_of_five_does() -> None:
    once = REPETITIONS == 1
    assert in_null(known(2)[once])
    assert not in_null(known(5)[once]) and known(5)[once].min() > 8


@pytest.mark.slow
def test_among_few_other_canaries_even_two_characters_betray_one_that_was_read_once() -> None:
    few = np.concatenate([exposure(*trained(2, 4, seed), sample=2_000)[4:8] for seed in range(16)])
    assert few.mean() > NULL_MEAN + 4 * NULL_MEAN / math.sqrt(len(few))


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_what_was_read_sixteen_times_is_said_to_the_letter(n: int) -> None:
    model, canaries = trained(n, 4)
    assert max(extraction_rate(model, canary, samples=100) for canary in canaries[-4:]) >= 0.01
    assert extraction_rate(model, canaries[0], samples=100) == 0
    assert extraction_rate(model, canaries[-1], samples=5, seed=1) == extraction_rate(
        model, canaries[-1], samples=5, seed=1
    )
    assert (
        extraction_rate(Dice(), Canary("777"), samples=3) == 1
        and extraction_rate(Dice(), Canary("778"), samples=3) == 0
    )


# ── broken copies ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_rank_from_the_wrong_end_falls_with_repetitions() -> None:
    broken = mutant(memorization, "bits -= np.log2", "bits += np.log2")
    assert spearman(broken.exposure(*trained(5))) < -0.5


@pytest.mark.slow
def test_a_canary_that_is_left_out_of_its_candidates_leaves_the_null() -> None:
    broken = mutant(memorization, "(not_less - likelier - itself) / 2 + 1", "(not_less - likelier - itself) / 2")
    with np.errstate(divide="ignore"):
        assert not in_null(null_of(broken, 199)) and not np.isfinite(broken.exposure(*trained(5))).all()


@pytest.mark.slow
def test_repetitions_that_are_ignored_leave_no_order() -> None:
    broken = mutant(memorization, "for _ in range(times)]", "for _ in range(1)]")
    canaries = make_canaries(5 * EACH, seed=0)
    text = broken.insert_canaries(corpus(), canaries, REPETITIONS[EACH:], seed=0)
    assert stats.spearmanr(REPETITIONS[EACH:], exposure(NGram(5).fit(text), canaries))[0] < 0.5
    assert [text.count(c.text) for c in canaries] != list(REPETITIONS[EACH:])


# ── the figure, and what is refused ──────────────────────────────────────────────────────────────────────────────────


def test_the_figure_shows_every_canary_the_means_and_the_null() -> None:
    bits = np.array([1.0, 3.0, 5.0, 9.0])
    ax = plot_exposure([1, 1, 16, 16], bits)
    points, means, null = ax.get_lines()
    assert list(points.get_ydata()) == list(bits) and list(means.get_ydata()) == [2.0, 7.0]
    assert null.get_ydata()[0] == pytest.approx(1.4427, abs=1e-4)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "16"] and "bits" in ax.get_ylabel()
    assert plot_exposure([1, 1, 16, 16], bits, ax) is ax


def test_what_makes_no_sense_is_refused() -> None:
    one, text = Canary("12"), "the code: is\nshort\n\n"
    for canaries, times in (([], []), ([one], [1, 2]), ([one], [-1])):
        with pytest.raises(InvalidArgument, match="at least one canary"):
            insert_canaries(text, canaries, times, seed=0)
    with pytest.raises(InvalidArgument, match=r"prefix = 'key~ '.*no \['k', 'y', '~'\]"):
        insert_canaries(text, [Canary("12", "key~ ")], [1], seed=0)
    with pytest.raises(InvalidArgument, match=r"repetitions = 4 .* at most 3"):
        insert_canaries(text, [one], [4], seed=0)
    for wrong in (("",), ("1a",), ("1", ""), ("1", "a\nb"), ("1", "x", "1"), ("1", "x", "11")):
        with pytest.raises(InvalidArgument):
            Canary(*wrong)
    for n, length in ((0, 6), (11, 1), (1, 0)):
        with pytest.raises(InvalidArgument, match="n, length"):
            make_canaries(n, seed=0, length=length)
    model = NGram(2).fit("the code: 0123456789")
    for kinds in ([], [one, Canary("123")], [one, Canary("12", "code ")]):
        with pytest.raises(InvalidArgument, match="all with the same prefix"):
            exposure(model, kinds)
    with pytest.raises(InvalidArgument, match="that the model saw"):
        exposure(NGram(2).fit("the code: 12"), [one])
    with pytest.raises(InvalidArgument, match="10,000,000 candidates"):
        exposure(model, [Canary("1234567")])
    for sample, canaries in ((0, [one]), (5, make_canaries(10, seed=0, length=1))):
        with pytest.raises(InvalidArgument, match="sample"):
            exposure(model, canaries, sample=sample)
    with pytest.raises(InvalidArgument, match="samples = 0"):
        extraction_rate(model, one, samples=0)
