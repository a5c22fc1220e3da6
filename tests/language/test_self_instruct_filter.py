"""The experiment on the filter of self-instruct, and its scripted author."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from synthbook.experiments import read_results
from synthbook.experiments import self_instruct as experiments
from synthbook.experiments.self_instruct import (
    ENDS,
    N_BINS,
    REASONS,
    THINGS,
    VERBS,
    acceptance_rate,
    grammar_model,
    grow_pools,
    max_pairwise_rouge,
    near_duplicate_rate,
    self_instruct_trial,
)
from synthbook.language.messages import ChatRequest, Message
from synthbook.language.self_instruct import (
    ROUGE_THRESHOLD,
    instruction_error,
    parse_instruction,
)
from tests.language.authors import (
    highest,
    max_rouge,
)
from tests.mutation import mutant


def trial_holds(row: Mapping[Any, Any]) -> bool:
    return row["pairwise"] < ROUGE_THRESHOLD and row["acceptance"] <= -0.9 and row["duplicates"] >= 0.3


@pytest.mark.slow
def test_five_seeds_bear_the_claim_and_the_first_is_what_runs_now() -> None:
    trials = read_results("self-instruct")
    assert len(trials) == 5
    assert all(trial_holds(row) for row in trials.to_dict("records"))
    assert self_instruct_trial("grammar", seed=0) == trials.iloc[0].to_dict()


@pytest.mark.slow
def test_the_experiment_compares_pools_of_the_same_size() -> None:
    filtered, unfiltered = grow_pools(seed=7)
    assert len(filtered.tasks) == len(unfiltered.tasks) > 100
    assert highest(filtered.tasks) == max_pairwise_rouge(filtered.tasks) < ROUGE_THRESHOLD
    texts = [task.instruction for task in unfiltered.tasks]
    again = [any(max_rouge(text, other) >= ROUGE_THRESHOLD for other in texts[:i]) for i, text in enumerate(texts)]
    assert near_duplicate_rate(unfiltered.tasks) == np.mean(again) > 0.3
    sizes, shares = acceptance_rate(filtered)
    assert len(sizes) == N_BINS and (np.diff(sizes) > 0).all() and (np.diff(shares) < 0).all()
    assert shares[0] > 0.5 > 0.1 > shares[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return filtered, unfiltered", "return unfiltered, unfiltered"),
        ("rouge_l(text, other) >= ROUGE_THRESHOLD", "text == other"),
        ("return filtered, unfiltered", "return filtered, filtered"),
    ],
)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_trial_can_fail(old: str, new: str) -> None:
    assert not trial_holds(mutant(experiments, old, new).self_instruct_trial("grammar", seed=0))


def test_the_author_can_say_what_it_is_said_to() -> None:
    parts = (VERBS, THINGS, ENDS, REASONS)
    assert np.prod([len(part) for part in parts]) == 26_880 and all(len(set(part)) == len(part) for part in parts)
    requests = [ChatRequest((Message("user", "x"),), index=k) for k in range(400)]
    said, again = ([answer.text for answer in grammar_model()(requests)] for _ in range(2))
    assert said == again
    assert all(instruction_error(parse_instruction(text)) is None for text in said)
    verbs = Counter(next(verb for verb in VERBS if text.startswith(verb)) for text in said)
    weights = 1 / np.sqrt(np.arange(1, 13))
    expected = 400 * weights[0] / weights.sum()
    assert abs(verbs[VERBS[0]] - expected) < 4 * np.sqrt(expected)
