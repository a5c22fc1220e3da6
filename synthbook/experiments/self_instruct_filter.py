"""Self-instruct with a scripted author: a grammar that can say 26,880 different things, and likes some of them better.

With a finite author all is known: the filter lets in less and less as the pool fills, and without it a pool of the same
size is full of repetitions. These are near ones, by the filter's own measure: hardly a sentence comes twice to the
letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from synthbook.experiments import experiment
from synthbook.language.filters.dedup import rouge_l
from synthbook.language.messages import ChatModel, ChatRequest, scripted_model
from synthbook.language.self_instruct import ROUGE_THRESHOLD, Task, TaskPool, grow_pool

VERBS = (
    *("Count the", "Describe the", "Sort all", "Find odd", "Round all", "Summarise the", "Check the"),
    *("Explain the", "Compare both", "Pick ten", "Label the", "Mask the"),
)
THINGS = (
    *("rows", "dates", "prices", "towns", "names", "weights", "answers", "readings", "colours", "codes", "routes"),
    *("species", "notes", "scores", "orders", "ages", "rooms", "words", "units", "seats"),
)
ENDS = (
    *("of a short list", "in last year's table", "that a customer sent", "before they are shared", "with gaps in them"),
    *("and say how sure you are", "by hand, step by step", "for somebody new", "without naming anybody", "twice over"),
    *("from two old surveys", "as a chemist would", "under a time limit", "in at most ten words"),
)
REASONS = (
    *("to save time", "for a new colleague", "after a power cut", "on a small budget", "to please an auditor"),
    *("with paper and pencil", "in front of a class", "as a first step"),
)
WRITTEN = tuple(
    Task(f"seed_{k}", text)
    for k, text in enumerate(
        (
            "Translate a heading into French.",
            "Give an example of a biased survey.",
            "Name the unit of a quantity.",
            "Correct one spelling mistake.",
            "Tell whether both texts agree.",
            "Invent a question for a quiz.",
            "Compute what half of it is.",
            "Write a polite refusal.",
        )
    )
)
_ROUNDS, _PROPOSALS_PER_ROUND, BINS = 150, 8, 6
_CASES = ("grammar",)
TRIALS = "artifacts/calibration/self-instruct/trials.json"


def grammar_model(*, skew: float = 0.5) -> ChatModel:
    """A model that puts a sentence together from parts; the k-th part of each kind has the weight 1 / k^skew."""

    def answer(request: ChatRequest) -> str:
        rng = np.random.default_rng(request.seed)
        return (
            " ".join(str(rng.choice(parts, p=_weights(len(parts), skew))) for parts in (VERBS, THINGS, ENDS, REASONS))
            + "."
        )

    return scripted_model(answer)


def _weights(n: int, skew: float) -> np.ndarray[Any, Any]:
    weights = 1 / np.arange(1, n + 1) ** skew
    return weights / weights.sum()  # type: ignore[no-any-return]


def grow_pools(*, seed: int) -> tuple[TaskPool, TaskPool]:
    """A pool grown with the filter, and one without it, of the same size: the tasks after that are left out."""
    some = {"rounds": _ROUNDS, "proposals_per_round": _PROPOSALS_PER_ROUND, "seed": seed}
    filtered = grow_pool(grammar_model(), WRITTEN, **some)
    size = len(filtered.tasks)
    unfiltered = grow_pool(grammar_model(), WRITTEN, **some, rouge_threshold=np.inf, size=size)
    del unfiltered.tasks[size:]
    return filtered, unfiltered


def max_pairwise_rouge(tasks: Sequence[Task]) -> float:
    """The largest ROUGE-L between two instructions, over all pairs."""
    texts = [task.instruction for task in tasks]
    return max(rouge_l(a, b) for i, a in enumerate(texts) for b in texts[:i])


def acceptance_rate(pool: TaskPool, bins: int = BINS) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean size of the pool and share of proposals that were accepted, while the pool grew by each of `bins` parts."""
    sizes = np.array([one.pool for one in pool.rounds])
    part = np.minimum((sizes - sizes[0]) * bins // (sizes[-1] - sizes[0] + 1), bins - 1)
    accepted, proposed = (np.array([getattr(one, name) for one in pool.rounds]) for name in ("accepted", "proposed"))
    there = np.unique(part)
    shares = [accepted[part == k].sum() / proposed[part == k].sum() for k in there]
    return np.array([sizes[part == k].mean() for k in there]), np.array(shares)


def near_duplicate_rate(tasks: Sequence[Task]) -> float:
    """The share of instructions that say an earlier one again, to the letter or nearly: ROUGE-L of at least 0.7."""
    texts = [task.instruction for task in tasks]
    return float(
        np.mean([any(rouge_l(text, other) >= ROUGE_THRESHOLD for other in texts[:i]) for i, text in enumerate(texts)])
    )


@experiment(
    "self-instruct",
    help="Grow pools of tasks with a scripted author, with and without the similarity filter.",
    data_source="a scripted author's tasks",
    cases=_CASES,
    budget={"rounds": _ROUNDS, "side by side": _PROPOSALS_PER_ROUND},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """One run: a flat row."""
    filtered, unfiltered = grow_pools(seed=seed)
    sizes, shares = acceptance_rate(filtered)
    return {
        "case": case,
        "seed": seed,
        "pool": len(filtered.tasks),
        "pairwise": round(max_pairwise_rouge(filtered.tasks), 4),
        "acceptance": round(float(spearmanr(sizes, shares).statistic), 4),
        "duplicates": round(near_duplicate_rate(unfiltered.tasks), 4),
        "copies": len(unfiltered.tasks) - len({task.instruction for task in unfiltered.tasks}),
    }
