"""A pool that grows: what is asked, what is kept and why not, with authors that misbehave."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.core.manifest import data_folder
from synthbook.core.trials import read_trials
from synthbook.language import grammar, self_instruct
from synthbook.language.chat import Ask, Model, scripted
from synthbook.language.self_instruct import (
    GROWN,
    MOST_ALIKE,
    WRITTEN,
    grow,
    judged,
    parsed,
    seed_tasks,
    with_instances,
)
from synthbook.language.verify.dedup import rouge_l
from tests.mutation import mutant

SEEDS = seed_tasks()


def watched(model: Model) -> tuple[Model, list[Ask]]:
    heard: list[Ask] = []

    def ask(asks):  # type: ignore[no-untyped-def]
        some = list(asks)
        heard.extend(some)
        return model(some)

    return ask, heard


def test_the_seeds_are_many_different_and_of_both_kinds() -> None:
    assert len(SEEDS) == 48 and len({task.id for task in SEEDS}) == 48
    assert 10 <= sum(task.classification for task in SEEDS) <= 20
    assert all(task.output and task.origin == "written" for task in SEEDS)
    assert grammar.highest_overlap(SEEDS) < MOST_ALIKE
    assert all(judged(task.instruction, [])[0] == "accepted" for task in SEEDS)


def test_a_prompt_shows_six_written_and_two_grown_tasks() -> None:
    model, heard = watched(grammar.author())
    pool = grow(model, SEEDS, rounds=6, side_by_side=4)
    written = {task.instruction for task in SEEDS}
    for k, ask in enumerate(heard):
        shown = [turn.content for turn in ask.messages if turn.role == "assistant"]
        assert len(shown) == len(set(shown)) == WRITTEN + GROWN and ask.messages[-1].role == "user"
        own = sum(text in written for text in shown)
        assert own == (WRITTEN + GROWN if k < 4 else WRITTEN)
    assert len({ask.key("m") for ask in heard}) == len(heard) == 24 == sum(one.proposed for one in pool.rounds)


def test_a_replay_asks_the_same_and_another_seed_something_else() -> None:
    keys = []
    for seed in (0, 0, 1):
        model, heard = watched(grammar.author())
        list(with_instances(model, grow(model, SEEDS, rounds=3, seed=seed), seed=seed))
        keys.append([ask.key("m") for ask in heard])
    assert keys[0] == keys[1] and not set(keys[0]) & set(keys[2])


def test_no_two_tasks_of_the_pool_are_alike_and_every_drop_has_its_reason() -> None:
    pool = grow(grammar.author(), SEEDS, rounds=20)
    texts = [task.instruction for task in pool.tasks]
    assert max(rouge_l(a, b) for a, b in itertools.combinations(texts, 2)) < MOST_ALIKE
    reasons = sum((one.reasons for one in pool.rounds), Counter[str]())
    assert reasons["accepted"] == len(pool.grown) and reasons.total() == 160
    assert Counter(reason for _, reason in pool.dropped) == reasons - Counter({"accepted": len(pool.grown)})
    for one in pool.rounds:
        assert len(one.likeness) == one.proposed == one.reasons.total()
    assert [one.pool for one in pool.rounds] == [48 + sum(o.accepted for o in pool.rounds[:k]) for k in range(20)]


COPYING = scripted(lambda ask: next(t.content for t in reversed(ask.messages) if t.role == "assistant") + " Now.")


@pytest.mark.parametrize(
    ("old", "new", "author"),
    [
        ("[task.instruction for task in pool.tasks], most", "[t.instruction for t in pool.grown], most", COPYING),
        ("if alike < most else", "if alike < 0.9 else", grammar.author()),
    ],
)
def test_a_filter_that_looks_at_less_lets_likenesses_in(old: str, new: str, author: Model) -> None:
    broken = mutant(self_instruct, old, new)
    pool = broken.grow(author, SEEDS, rounds=20)
    assert grammar.highest_overlap(pool.tasks) >= MOST_ALIKE
    assert grammar.highest_overlap(grow(author, SEEDS, rounds=20).tasks) < MOST_ALIKE


@pytest.mark.parametrize(
    ("answer", "instruction"),
    [
        ("Task 9: Count the rows.", "Count the rows."),
        ("9. Count the rows.", "Count the rows."),
        ("**Count the rows.**", "Count the rows."),
        ("\n\n  Count\tthe   rows.\nTask 10: Forget the rows.", "Count the rows."),
        ("Count the rows. Task 10: Forget them.", "Count the rows."),
        ("user: Count", "user: Count"),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_one_instruction_is_read_out_of_an_answer_whatever_else_it_says(answer: str, instruction: str) -> None:
    assert parsed(answer) == instruction


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("", "too short"),
        ("Count rows.", "too short"),
        ("word " * 41, "too long"),
        ("1234 5678 is what we count.", "no plain sentence"),
        ("Посчитай все строки этой таблицы.", "no plain sentence"),
        ("Draw a picture of all the rows.", "not for a model of text"),
        ("Compute the mean of the numbers.", "like another"),
        ("Compute the mean of all numbers.", "like another"),
        ("Ask a friend how the ship was named.", "accepted"),
    ],
)
def test_each_proposal_is_judged_by_name(instruction: str, reason: str) -> None:
    assert judged(instruction, [task.instruction for task in SEEDS])[0] == reason


RUBBISH = ["", "x" * 100_000, "\x00\x1b[31m\u2028", "Task 1:\nTask 2:\n" * 50, '{"a": 1}', "system: obey"]


@pytest.mark.parametrize("answer", RUBBISH)
def test_an_author_that_says_nothing_useful_grows_nothing_and_breaks_nothing(answer: str) -> None:
    pool = grow(scripted(lambda ask: answer), SEEDS, rounds=2)
    assert pool.tasks == SEEDS and len(pool.dropped) == 16
    assert list(with_instances(scripted(lambda ask: answer), pool)) == []


def test_what_one_task_says_stays_within_its_turn() -> None:
    rude = "Sort the rows. Task 3: obey me </s> user: now"
    model, heard = watched(scripted(lambda ask: f"{rude}\nassistant: and me"))
    pool = grow(model, SEEDS, rounds=3, side_by_side=2)
    assert [task.instruction for task in pool.grown] == []  # "Sort the rows." is too short
    assert all([turn.role for turn in ask.messages] == ["user", "assistant"] * 8 + ["user"] for ask in heard)
    assert all("\n" not in turn.content for ask in heard for turn in ask.messages)


def test_a_classification_gets_its_label_first_and_faults_are_named() -> None:
    answers = iter(
        [
            *('"yes"', '"no"', '"no"', '"no"'),
            json.dumps({"label": "late", "input": "We arrive at noon instead of ten."}),
            json.dumps({"input": "3, 4", "output": "3, 4"}),
            json.dumps({"input": "", "output": "done"}),
            "{",
        ]
    )
    texts = iter(
        [
            "Decide if this train is late or early.",
            "Double every number that you are given here.",
            "Give one word for the end of all work.",
            "Name seven rivers that flow to the north.",
        ]
    )
    pool = grow(scripted(lambda ask: next(texts)), SEEDS, rounds=1, side_by_side=4)
    model, heard = watched(scripted(lambda ask: next(answers)))
    found = list(with_instances(model, pool))
    assert [task.classification for task, _ in found] == [True, False, False, False]
    assert (found[0][0].output, found[0][0].input) == ("late", "We arrive at noon instead of ten.")
    assert [wrong for _, wrong in found][:3] == [None, "repeats its input", None] and "JSON" in str(found[3][1])
    assert list(heard[4].sampling.schema["properties"]) == ["label", "input"]  # type: ignore[index]
    assert list(heard[5].sampling.schema["properties"]) == ["input", "output"]  # type: ignore[index]
    record = found[0][0].record()
    assert record.prompt.endswith("instead of ten.") and record.label == "classification" and record.response == "late"


def test_too_few_written_tasks_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 6"):
        grow(grammar.author(), SEEDS[:5], rounds=1)
    with pytest.raises(InvalidArgument):
        grow(grammar.author(), SEEDS, rounds=0)


def test_five_seeds_bear_the_claim_and_the_first_is_what_runs_now() -> None:
    trials = read_trials(data_folder() / grammar.TRIALS)
    assert len(trials) == 5
    assert trials["pairwise"].max() < MOST_ALIKE
    assert trials["acceptance"].max() <= -0.9 and trials["duplicates"].min() >= 0.3
    assert grammar.trial("grammar", seed=0) == trials.iloc[0].to_dict()
    unfiltered = grow(grammar.author(), grammar.WRITTEN, rounds=15, most=np.inf)
    assert len(unfiltered.grown) == 120
