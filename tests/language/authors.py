"""Models that write tasks, and what is true of every pool, for the tests of self-instruct."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from synthbook.language.messages import ChatModel, ChatRequest, ChatResponse, scripted_model
from synthbook.language.self_instruct import (
    Task,
    TaskPool,
    seed_tasks,
)

SEEDS = seed_tasks()


def max_rouge(a: str, b: str) -> float:
    """ROUGE-L by the table of the textbook, for what the package finds with bits."""
    one, two = (re.findall(r"\w+", text.lower()) for text in (a, b))
    row = [0] * (len(two) + 1)
    for word in one:
        above, row = row, [0]
        for j, other in enumerate(two):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
    return 2 * row[-1] / (len(one) + len(two))


def highest(tasks: Iterable[Task]) -> float:
    return max(max_rouge(a.instruction, b.instruction) for a, b in itertools.combinations(tasks, 2))


def watched(model: ChatModel) -> tuple[ChatModel, list[ChatRequest]]:
    heard: list[ChatRequest] = []

    def request(requests: Iterable[ChatRequest]) -> Iterator[ChatResponse]:
        some = list(requests)
        heard.extend(some)
        return model(some)

    return request, heard


def shown(request: ChatRequest) -> list[str]:
    return [turn.content for turn in request.messages if turn.role == "assistant"]


def in_turn(*texts: str) -> ChatModel:
    left = itertools.cycle(texts)
    return scripted_model(lambda request: next(left))


def bold(n: int) -> str:
    """An instruction that shares no word with any other."""
    return " ".join(f"{word}{n}" for word in ("Sing", "of", "ships", "and", "kings"))


def sums_up(pool: TaskPool) -> None:
    """Whatever was proposed is in the pool, or among the drops with a reason; all accounts agree."""
    reasons = sum((one.reasons for one in pool.rounds), Counter[str]())
    proposed = sum(one.proposed for one in pool.rounds)
    assert reasons.total() == proposed == len(pool.generated) + len(pool.dropped)
    assert reasons["accepted"] == len(pool.generated) == sum(one.accepted for one in pool.rounds)
    assert reasons - Counter(accepted=len(pool.generated)) == Counter(reason for _, reason in pool.dropped)
    match_schema, difference = pool.ledger
    assert (
        match_schema.n_in == proposed
        and match_schema.n_out == difference.n_in
        and difference.n_out == len(pool.generated)
    )
    assert match_schema.reasons + difference.reasons == Counter(reason for _, reason in pool.dropped)
    assert match_schema.n_in - match_schema.n_out == match_schema.reasons.total()
    for k, one in enumerate(pool.rounds):
        assert one.pool == len(pool.written) + sum(o.accepted for o in pool.rounds[:k])
        assert len(one.max_rouge) == one.ledger[1].n_in


COPYING = scripted_model(lambda request: f"{shown(request)[-1].rstrip('.')} now.")
ECHO = in_turn("Compare both lists of people and say who is missing.")
OLD = in_turn(*(bold(k) for k in (0, 1, 2, 0, 1, 2)))


def generated(*instructions: str) -> TaskPool:
    return TaskPool([*SEEDS, *(Task(f"g{k}", text, origin="round 0") for k, text in enumerate(instructions))])
