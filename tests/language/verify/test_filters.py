"""Votes, judges and Bayes' theorem against their closed forms; forms of answers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import BaseModel

from synthbook.core.errors import InvalidArgument
from synthbook.language.coding_problems import sample_answers
from synthbook.language.filters import judge, voting
from synthbook.language.filters import voting as scoring
from synthbook.language.filters.judge import Rubric, ScriptedJudge, expected_max_normal
from synthbook.language.filters.verdicts import validate_json
from synthbook.language.filters.voting import (
    consensus,
    majority_accuracy,
    majority_vote,
    majority_votes,
    precision_and_yield,
    score_filter,
    unanimity,
)
from tests.mutation import mutant

N = 20_000


def near(found: float, expected: float, se: float) -> bool:
    return abs(found - expected) <= 4 * se


# ── votes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_known_points() -> None:
    table = {(0.6, 5): 0.6826, (0.6, 15): 0.7869, (0.6, 41): 0.9035, (0.7, 5): 0.8369, (0.7, 15): 0.9500}
    table |= {(0.7, 41): 0.9964, (0.4, 5): 0.3174, (0.4, 15): 0.2131, (0.4, 41): 0.0965}
    assert {key: round(majority_accuracy(*key), 4) for key in table} == table
    broken = mutant(voting, "range(k // 2 + 1, k + 1)", "range(k // 2, k + 1)")
    assert round(broken.majority_accuracy(0.6, 5), 4) != 0.6826


@pytest.mark.parametrize(("base_rate", "k"), [(0.6, 5), (0.7, 15), (0.4, 15)])
def test_votes_of_two_kinds_follow_the_binomial(base_rate: float, k: int) -> None:
    truth, given = sample_answers(N, k, p=base_rate, answers=2, seed=0)
    right = np.mean([majority_vote(row.tolist())[0] == t for row, t in zip(given, truth, strict=True)])
    assert (majority_votes(given, 2) == truth).mean() == right
    expected = majority_accuracy(base_rate, k)
    assert near(float(right), expected, np.sqrt(expected * (1 - expected) / N))


def test_unanimity_follows_its_formula() -> None:
    truth, given = sample_answers(N, 3, p=0.6, answers=10, seed=1)
    kept = [(consensus(row.tolist()), t) for row, t in zip(given, truth, strict=True)]
    kept = [(answer, t) for answer, t in kept if answer is not None]
    precision, share = unanimity(0.6, 3, 10)
    assert near(len(kept) / N, share, np.sqrt(share * (1 - share) / N))
    right = np.mean([answer == t for answer, t in kept])
    assert near(float(right), precision, np.sqrt(precision * (1 - precision) / len(kept)))


def test_shared_errors_are_a_ceiling() -> None:
    """C4.3-2: at k = 41 within 0.01 of 1 - rho, where independent errors would be gone."""
    truth, given = sample_answers(N, 41, p=0.7, answers=10, shared_error_rate=0.2, seed=2)
    right = np.mean([majority_vote(row.tolist())[0] == t for row, t in zip(given, truth, strict=True)])
    assert abs(right - 0.8) < 0.01


def test_majority_takes_the_earliest_of_equals() -> None:
    assert majority_vote(["b", "a", "b", "a"]) == ("b", 0.5) and consensus(["a", "a", "b"]) is None
    assert consensus(["a", "a", "b"], threshold=0.6) == "a"
    for bad in ({"threshold": 0.5}, {"threshold": 1.1}):
        with pytest.raises(InvalidArgument):
            consensus(["a"], **bad)
    with pytest.raises(InvalidArgument):
        majority_vote([])
    with pytest.raises(InvalidArgument):
        majority_accuracy(0.5, 4)


# ── judges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_expected_largest() -> None:
    """Against the exact values for few (David and Nagaraja, Order Statistics)."""
    exact = {1: 0.0, 2: 1 / np.sqrt(np.pi), 3: 1.5 / np.sqrt(np.pi)}
    assert all(expected_max_normal(k) == pytest.approx(value, abs=1e-8) for k, value in exact.items())
    points = {(4, 0.5): 0.921, (16, 1.0): 1.249, (64, 2.0): 1.048}
    assert {key: round(ScriptedJudge(noise_std=key[1]).expected(key[0])[0], 3) for key in points} == points


@pytest.mark.parametrize(("k", "noise_std", "bias"), [(4, 0.5, 0.0), (16, 1.0, 0.0), (16, 1.0, 1.0), (64, 0.5, 0.5)])
def test_the_best_of_many_by_a_judge_that_errs_and_has_a_taste(k: int, noise_std: float, bias: float) -> None:
    one = ScriptedJudge(noise_std=noise_std, bias=bias)
    quality, trait = one.best_of(k, n=4_000, seed=0)
    better, more = one.expected(k)
    assert near(float(quality.mean()), better, quality.std() / np.sqrt(4_000))
    assert near(float(trait.mean()), more, trait.std() / np.sqrt(4_000))
    broken = mutant(judge, "+ self.bias * trait", "").ScriptedJudge(noise_std=noise_std, bias=bias)
    if bias:
        _, blind = broken.best_of(k, n=4_000, seed=0)
        assert not near(float(blind.mean()), more, blind.std() / np.sqrt(4_000))


@pytest.mark.slow
def test_with_heavy_tails_more_choice_is_worse() -> None:
    wild = ScriptedJudge(noise_std=1.0, df=2.0)
    quality = {k: float(wild.best_of(k, n=3_000, seed=0)[0].mean()) for k in (16, 1024)}
    assert quality[1024] < quality[16] - 0.3
    with pytest.raises(InvalidArgument):
        wild.expected(4)


def test_a_rubric_weighs_marks_and_refuses_others() -> None:
    rubric = Rubric({"correct": 3, "clear": 1})
    assert rubric.score({"correct": 1, "clear": 1}) == 0 and rubric.score({"correct": 5, "clear": 5}) == 1
    for marks in (
        {"correct": 5},
        {"correct": 6, "clear": 1},
        {"correct": 0, "clear": 1},
        {"correct": True, "clear": 1},
    ):
        with pytest.raises(InvalidArgument, match="each from 1 to 5"):
            rubric.score(marks)
    for bad in ({}, {"x": 0.0}):
        with pytest.raises(InvalidArgument):
            Rubric(bad)
    with pytest.raises(InvalidArgument):
        ScriptedJudge(noise_std=-1)


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_precision_and_yield_at_the_known_points() -> None:
    assert [round(x, 4) for x in precision_and_yield(0.3, 0.9, 0.2)] == [0.6585, 0.41]
    assert precision_and_yield(0.3, 1, 0) == (1.0, 0.3) and np.isnan(precision_and_yield(0.3, 0, 0)[0])
    with pytest.raises(InvalidArgument):
        precision_and_yield(1.3, 1, 0)


@pytest.mark.parametrize("error", [0.1, 0.3, 0.5])
def test_a_filter_does_what_its_rates_say(error: float) -> None:
    """Rates measured on one half foretell precision and yield on the other."""
    rng = np.random.default_rng(3)
    right = rng.random(N) >= error
    kept = rng.random(N) < np.where(right, 0.9, 0.2)
    first, second = score_filter(right[::2], kept[::2]), score_filter(right[1::2], kept[1::2])
    precision, share = precision_and_yield(second.base_rate, first.tpr, first.fpr)
    assert near(second.precision, precision, 1.5 * np.sqrt(precision * (1 - precision) / (share * N / 2)))
    assert near(second.yield_rate, share, 1.5 * np.sqrt(share * (1 - share) / (N / 2)))
    assert first.predicted == pytest.approx((first.precision, first.yield_rate))  # an identity on the same answers
    probs = (first.precision / (1 - first.precision)) / (first.base_rate / (1 - first.base_rate))
    assert probs == pytest.approx(first.likelihood_ratio)
    broken = mutant(
        scoring, "yield_rate = base_rate * tpr + (1 - base_rate) * fpr", "yield_rate = base_rate * tpr + fpr"
    )
    assert broken.precision_and_yield(0.3, 0.9, 0.2)[0] != pytest.approx(0.6585, abs=1e-3)


def test_a_filter_needs_a_verdict_for_each() -> None:
    for kept in ([True], []):
        with pytest.raises(InvalidArgument):
            score_filter([True, False], kept)


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Review(BaseModel):
    """A review with stars."""

    text: str
    stars: int


def test_a_schema_knows_the_form_and_not_the_meaning() -> None:
    found, wrong = validate_json('{"text": "awful", "stars": 5}', Review)
    assert found == Review(text="awful", stars=5) and wrong == ""
    for answer, says in (
        ('{"text": "good"}', "stars: Field required"),
        ('{"text": "good", "stars": "5"}', "stars: Input should be a valid integer"),
        ('{"text": "good", "stars": 4.5}', "stars"),
        ("fine, five stars", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
    ):
        found, wrong = validate_json(answer, Review)
        assert (found is None and says in wrong and answer[:60] not in wrong[:-1]) or not answer
