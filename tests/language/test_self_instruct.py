"""A pool of tasks that grows: what is asked, and what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from synthbook.experiments.self_instruct import grammar_model
from synthbook.language import self_instruct
from synthbook.language import self_instruct as instances
from synthbook.language import self_instruct as proposals
from synthbook.language.messages import ChatModel, ChatRequest, ChatResponse, scripted_model
from synthbook.language.pipeline import plot_funnel, run_pipeline
from synthbook.language.self_instruct import (
    GROWN,
    ROUGE_THRESHOLD,
    WRITTEN,
    drop_similar,
    generate_instances,
    grow_pool,
    instruction_error,
    parse_instruction,
    plot_growth,
    plot_max_rouge,
    proposal,
)
from tests.language.authors import (
    COPYING,
    ECHO,
    OLD,
    SEEDS,
    bold,
    highest,
    in_turn,
    max_rouge,
    shown,
    sums_up,
    watched,
)
from tests.mutation import mutant

# ── the written tasks ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_written_tasks_are_different_of_both_kinds_and_pass_the_filters_themselves() -> None:
    assert [task.id for task in SEEDS] == [f"seed_{k:02d}" for k in range(1, 49)]
    assert sum(task.classification for task in SEEDS) == 14 and 5 <= sum(not task.input for task in SEEDS) <= 15
    assert highest(SEEDS) < ROUGE_THRESHOLD
    for task in SEEDS:
        assert (
            parse_instruction(task.instruction) == task.instruction and instruction_error(task.instruction) is None
        ), task
        assert task.output and len(task.input + task.output) <= 160 and instances._fault(task) is None, task
        if task.classification:  # the labels are stated, or stand in the input
            said = f"{task.instruction} {task.input}"
            assert all(word in said for word in task.output.split()), task


def test_the_numbers_in_the_written_tasks_are_right() -> None:
    known = {task.id: (task.input, task.output) for task in SEEDS}

    def numbers(name: str) -> list[float]:
        return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", known[name][0])]

    assert float(known["seed_02"][1].split()[0]) == pytest.approx(2.54 * numbers("seed_02")[0])
    assert float(known["seed_04"][1]) == np.mean(numbers("seed_04"))
    assert float(known["seed_24"][1]) == np.median(numbers("seed_24"))
    assert float(known["seed_34"][1]) == np.ptp(numbers("seed_34"))
    assert [float(x) for x in known["seed_31"][1].split(";")] == [round(x) for x in numbers("seed_31")]
    assert [float(x) for x in known["seed_21"][1].split(",")] == [x / 100 for x in numbers("seed_21")]
    assert int(known["seed_40"][1]) == len(known["seed_40"][0].split())
    hours, minutes = numbers("seed_42")
    assert float(known["seed_42"][1]) == 60 * hours + minutes
    assert re.fullmatch(known["seed_01"][1], "2024-03-09") and not re.fullmatch(known["seed_01"][1], "9 March")
    assert re.sub(r"\D", "", known["seed_09"][0]) == known["seed_09"][1]


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_shows_six_written_and_two_grown_tasks() -> None:
    model, heard = watched(grammar_model())
    pool = grow_pool(model, SEEDS, rounds=6, proposals_per_round=4)
    written = {task.instruction for task in SEEDS}
    for k, request in enumerate(heard):
        assert len(set(shown(request))) == WRITTEN + GROWN == 8 and request.messages[-1].role == "user"
        known = {task.instruction for task in pool.tasks[: pool.rounds[k // 4].pool]}
        assert set(shown(request)) <= known  # of rounds before, not of this one
        assert sum(text in written for text in shown(request)) == (8 if k < 4 else 6)
    assert (
        len({request.cache_key("m") for request in heard})
        == len(heard)
        == 24
        == sum(one.proposed for one in pool.rounds)
    )
    assert (
        max(sum(len(turn.content) // 3 + 10 for turn in request.messages) for request in heard) < 700
    )  # tokens, about


def test_as_long_as_one_task_has_grown_seven_written_ones_are_shown() -> None:
    model, heard = watched(in_turn(bold(0)))
    grow_pool(model, SEEDS, rounds=3, proposals_per_round=1)
    written = {task.instruction for task in SEEDS}
    assert [sum(text in written for text in shown(request)) for request in heard] == [8, 7, 7]


@pytest.mark.slow
def test_a_replay_asks_the_same_a_longer_run_begins_with_it_and_another_seed_asks_something_else() -> None:
    def keys(seed: int, rounds: int) -> list[str]:
        model, heard = watched(grammar_model())
        list(generate_instances(model, grow_pool(model, SEEDS, rounds=rounds, seed=seed), seed=seed))
        return [request.cache_key("m") for request in heard]

    assert keys(0, 3) == keys(0, 3) and not set(keys(0, 3)) & set(keys(1, 3))
    assert keys(0, 4)[:24] == keys(0, 3)[:24]


def test_the_questions_of_a_round_go_out_together() -> None:
    sizes: list[int] = []

    def request(requests: Iterable[ChatRequest]) -> Iterator[ChatResponse]:
        some = list(requests)
        sizes.append(len(some))
        return grammar_model()(some)

    grow_pool(request, SEEDS, rounds=3, proposals_per_round=5)
    assert sizes == [5, 5, 5]


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_no_two_tasks_of_the_pool_are_alike_and_every_drop_has_its_reason() -> None:
    pool = grow_pool(grammar_model(), SEEDS, rounds=20)
    assert highest(pool.tasks) < ROUGE_THRESHOLD and len(pool.generated) > 40
    assert pool.written == SEEDS
    sums_up(pool)
    earlier, one = pool.tasks[: pool.rounds[9].pool], pool.rounds[9]
    first = grow_pool(grammar_model(), SEEDS, rounds=10).tasks[len(earlier)]
    assert max(max_rouge(first.instruction, task.instruction) for task in earlier) in one.max_rouge
    assert one.mean_max_rouge == np.mean(one.max_rouge) and one.highest_rouge == max(one.max_rouge)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "old", "new", "grammar_model", "proposals_per_round"),
    [
        (
            self_instruct,
            "for task in pool.tasks]",
            "for task in pool.generated]",
            COPYING,
            8,
        ),  # the written are left out
        (
            self_instruct,
            "for task in pool.tasks]",
            'for task in pool.tasks if task.origin in ("written", f"round {k - 1}")]',  # only the last round
            OLD,
            1,
        ),
        (proposals, "pool.append(record.response)", "pass", ECHO, 8),  # not those of the same round
        (proposals, "None if alike < rouge_threshold", "None if alike <= 0.9", grammar_model(), 8),
        (proposals, "max((rouge_l", "min((rouge_l", grammar_model(), 8),
    ],
)
def test_a_filter_that_looks_at_less_lets_likenesses_in(
    module: object,
    old: str,
    new: str,
    grammar_model: ChatModel,
    proposals_per_round: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = grow_pool(grammar_model, SEEDS, rounds=8, proposals_per_round=proposals_per_round)
    assert highest(pool.tasks) < ROUGE_THRESHOLD
    if module is self_instruct:
        broken = mutant(self_instruct, old, new).grow_pool
    else:
        monkeypatch.setattr(self_instruct, "drop_similar", mutant(proposals, old, new).drop_similar)
        broken = grow_pool
    assert (
        highest(broken(grammar_model, SEEDS, rounds=8, proposals_per_round=proposals_per_round).tasks)
        >= ROUGE_THRESHOLD
    )


def test_without_the_filter_everything_stays_and_at_the_wanted_size_it_ends() -> None:
    pool = grow_pool(ECHO, SEEDS, rounds=4, rouge_threshold=np.inf)
    assert len(pool.generated) == 32 and len({task.instruction for task in pool.generated}) == 1
    sums_up(pool)
    enough = grow_pool(grammar_model(), SEEDS, rounds=50, size=60)
    assert enough.rounds[-1].pool < 60 <= len(enough.tasks)
    assert grow_pool(ECHO, SEEDS, rounds=5, size=48).rounds == []


def test_of_equal_likeness_the_limit_is_dropped() -> None:
    told, _ = run_pipeline(
        [replace(proposal("a", ChatResponse("b")), response="a b c d e f g x y z")], {"d": drop_similar([], 0.7)}
    )
    assert len(list(told)) == 1
    seven = replace(proposal("a", ChatResponse("b")), response="a b c d e f g x y z")
    flow, ledger = run_pipeline([seven], {"d": drop_similar(["a b c d e f g h i j"])})  # 7 of 10 words, so exactly 0.7
    assert list(flow) == [] and ledger[0].reasons == {"ROUGE-L too high": 1}


def test_figures_show_what_was_counted() -> None:
    pool = grow_pool(grammar_model(), SEEDS, rounds=12)
    other = grow_pool(grammar_model(), SEEDS, rounds=3, rouge_threshold=np.inf)
    ax = plot_growth({"filtered": pool, "all": other})
    (first, second) = ax.get_lines()
    assert np.array_equal(first.get_xdata(), np.arange(13) * 8) and list(second.get_ydata()) == [48, 56, 64, 72]
    assert first.get_ydata()[-1] == len(pool.tasks) and first.get_linestyle() != second.get_linestyle()
    ax = plot_max_rouge(pool)
    kept, dropped = ax.get_lines()[:2]
    assert len(kept.get_xdata()) == len(pool.generated) and len(dropped.get_xdata()) == len(pool.dropped)
    assert kept.get_marker() != dropped.get_marker()
    assert len(plot_funnel(pool.ledger).texts) >= 3
    plot_max_rouge(grow_pool(scripted_model(lambda request: ""), SEEDS, rounds=1))  # nothing to draw
    plt.close("all")
