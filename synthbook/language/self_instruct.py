"""Self-instruct: a pool of tasks that grows out of a few written ones, with a model as its author.

    show 6 written and 2 grown tasks  ->  a new one  ->  is its form plain?  ->  is it like another?
    kept: ROUGE-L < 0.7 against every instruction of the pool                  Wang et al., arXiv:2212.10560

The filter buys difference, not truth: of the paper's tasks 46 in 100 had a fault in some field. The tasks that are
shown are turns of a conversation: of a list in one message a small model copies a line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.language.chat import Ask, Message, Model, Sampling
from synthbook.language.instances import records, with_instances
from synthbook.language.pipeline import run
from synthbook.language.proposals import MOST_ALIKE, NEAREST, different, parsed, plain, proposal
from synthbook.language.records import Record
from synthbook.language.task_pool import ACCEPTED, Pool, Round, Task, plot_growth, plot_likeness, seed_tasks

__all__ = ["Pool", "Round", "Task", "grow", "plot_growth", "plot_likeness", "records", "seed_tasks", "with_instances"]

WRITTEN, GROWN = 6, 2  # tasks that a question shows
QUESTION = Message("user", "Write a new task about work with data, in one line.")
STOP = ("\n",)


def grow(
    model: Model,
    written: Sequence[Task],
    *,
    rounds: int,
    side_by_side: int = 8,
    seed: int = 0,
    most: float = MOST_ALIKE,
    size: int | None = None,
) -> Pool:
    """Grow a pool for some rounds of `side_by_side` questions each, or until it has `size` tasks.

    What is like a task of the pool, by ROUGE-L of at least `most`, is dropped; infinity lets everything in. What a
    question shows depends on the seed and on what was answered before, so that a replay asks the same ones.
    """
    if len(written) < WRITTEN or rounds < 1 or side_by_side < 1:
        given = (len(written), rounds, side_by_side)
        raise InvalidArgument("written, rounds, side_by_side", given, f"at least {WRITTEN} tasks, 1 round, 1 question")
    for task in written:
        if parsed(task.instruction) != task.instruction:
            raise InvalidArgument("written", task.instruction, "one line, without the mark of a task or a speaker")
    pool = Pool(list(written))
    for k in range(rounds):
        if size is not None and len(pool.tasks) >= size:
            break
        _round(model, pool, k, side_by_side, seed, most)
    return pool


def _round(model: Model, pool: Pool, k: int, side_by_side: int, seed: int, most: float) -> None:
    """Ask side by side, then go through the answers in order: of two that are alike the first one stays."""
    rng = np.random.default_rng([seed, 48, k])
    asks = [_ask(_shown(pool, rng), seed, k * side_by_side + i) for i in range(side_by_side)]
    proposed = [proposal(f"grown_{k:03d}_{i}", a) for i, a in zip(range(side_by_side), model(asks), strict=True)]
    before, reasons, nearest = len(pool.tasks), Counter[str](), dict[str, float]()

    def told(record: Record, reason: str) -> None:
        reasons[reason] += 1
        if NEAREST in record.verdicts:
            nearest[record.id] = record.verdicts[NEAREST]
        if reason != ACCEPTED:
            pool.dropped.append((record.response, reason))

    known = [task.instruction for task in pool.tasks]
    stages = {"form": plain(), "difference": different(known, most)}
    flow, ledger = run(proposed, stages, dropped=lambda record, stage, reason: told(record, reason))
    for record in flow:
        told(record, ACCEPTED)
        pool.tasks.append(Task(record.id, record.response, origin=f"round {k}"))
    likeness = tuple(nearest[record.id] for record in proposed if record.id in nearest)
    pool.rounds.append(Round(before, side_by_side, reasons, likeness, tuple(ledger)))


def _shown(pool: Pool, rng: np.random.Generator) -> list[str]:
    """Six written tasks and two grown ones, or fewer of these as long as there are no two, in a random order."""
    grown, written = pool.grown, pool.written
    few = min(GROWN, len(grown))
    some = [written[i] for i in rng.choice(len(written), min(WRITTEN + GROWN - few, len(written)), replace=False)]
    some += [grown[i] for i in rng.choice(len(grown), few, replace=False)]
    return [some[i].instruction for i in rng.permutation(len(some))]


def _ask(shown: Sequence[str], seed: int, index: int) -> Ask:
    turns = [turn for text in shown for turn in (QUESTION, Message("assistant", text))]
    return Ask((*turns, QUESTION), Sampling(temperature=1.0, max_tokens=48, stop=STOP, seed=seed), index)
