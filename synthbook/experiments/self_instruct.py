"""Self-instruct with a scripted author, and the utility of a real model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from synthbook.datasets import sms_spam
from synthbook.experiments import experiment, recording
from synthbook.language import grounded_qa, word_problems
from synthbook.language.client import Client
from synthbook.language.filters.dedup import rouge_l
from synthbook.language.grounded_qa import SeedExamples
from synthbook.language.messages import ChatModel, ChatRequest, scripted_model
from synthbook.language.records import Record
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.self_instruct import ROUGE_THRESHOLD, Task, TaskPool, grow_pool
from synthbook.language.word_problems import WordProblem

# ── Self-instruct with a scripted author: a grammar of 26,880 sentences, some of which are likelier ──
# With a finite author all is known: the filter accepts fewer and fewer proposals as the pool fills, and without it a
# pool of the same size is full of near duplicates, by the filter's own measure. Exact duplicates are rare.


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
_SEED_TASKS = tuple(
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
_ROUNDS, _PROPOSALS_PER_ROUND, N_BINS = 150, 8, 6


def grammar_model(*, skew: float = 0.5) -> ChatModel:
    """A model that puts a sentence together from parts; the k-th part of each kind has the weight 1 / k^skew."""

    def answer(request: ChatRequest) -> str:
        rng, words = np.random.default_rng(request.seed), []
        for parts in (VERBS, THINGS, ENDS, REASONS):
            weights = 1 / np.arange(1, len(parts) + 1) ** skew
            words.append(str(rng.choice(parts, p=weights / weights.sum())))
        return " ".join(words) + "."

    return scripted_model(answer)


def grow_pools(*, seed: int) -> tuple[TaskPool, TaskPool]:
    """A pool grown with the filter, and one without it, of the same size: the tasks after that are left out."""
    settings = {"rounds": _ROUNDS, "proposals_per_round": _PROPOSALS_PER_ROUND, "seed": seed}
    filtered = grow_pool(grammar_model(), _SEED_TASKS, **settings)
    size = len(filtered.tasks)
    unfiltered = grow_pool(grammar_model(), _SEED_TASKS, **settings, rouge_threshold=np.inf, size=size)
    del unfiltered.tasks[size:]
    return filtered, unfiltered


def max_pairwise_rouge(tasks: Sequence[Task]) -> float:
    """The largest ROUGE-L between two instructions, over all pairs."""
    texts = [task.instruction for task in tasks]
    return max(rouge_l(a, b) for i, a in enumerate(texts) for b in texts[:i])


def acceptance_rate(pool: TaskPool, bins: int = N_BINS) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean size of the pool and share of proposals that were accepted, while the pool grew by each of `bins` parts."""
    sizes, accepted, proposed = np.array([(one.pool, one.accepted, one.proposed) for one in pool.rounds]).T
    part = np.minimum((sizes - sizes[0]) * bins // (sizes[-1] - sizes[0] + 1), bins - 1)
    masks = [part == k for k in np.unique(part)]
    shares = [accepted[mask].sum() / proposed[mask].sum() for mask in masks]
    return np.array([sizes[mask].mean() for mask in masks]), np.array(shares)


def near_duplicate_rate(tasks: Sequence[Task]) -> float:
    """The share of instructions with a ROUGE-L of at least 0.7 to an earlier one."""
    texts = [task.instruction for task in tasks]
    near = [any(rouge_l(text, other) >= ROUGE_THRESHOLD for other in texts[:i]) for i, text in enumerate(texts)]
    return float(np.mean(near))


@experiment(
    "self-instruct",
    help="Grow pools of tasks with a scripted author, with and without the similarity filter.",
    data_source="a scripted author's tasks",
    results="artifacts/calibration/self-instruct/trials.json",
    cases=("grammar",),
    budget={"rounds": _ROUNDS, "side by side": _PROPOSALS_PER_ROUND},
)
def self_instruct_trial(case: str, *, seed: int) -> dict[str, Any]:
    """One pool with the filter and one without: size, largest ROUGE-L, trend of acceptance, (near) duplicates."""
    filtered, unfiltered = grow_pools(seed=seed)
    sizes, shares = acceptance_rate(filtered)
    return {
        "case": case,
        "seed": seed,
        "pool": len(filtered.tasks),
        "pairwise": round(max_pairwise_rouge(filtered.tasks), 4),
        "acceptance": round(float(stats.spearmanr(sizes, shares).statistic), 4),
        "duplicates": round(near_duplicate_rate(unfiltered.tasks), 4),
        "copies": len(unfiltered.tasks) - len({task.instruction for task in unfiltered.tasks}),
    }


# ── The utility of a real model's answers: five draws of each experiment, replayed ──
# A classifier is trained on messages and tested on real ones that nothing has seen. A tiny transformer is trained on
# sums and tested on held-out problems. Programs are run.


_STEPS = 600  # of a student


def training_sets(
    seeds: SeedExamples, raw: Sequence[Record], verified: Sequence[Record]
) -> dict[str, tuple[list[str], list[str]]]:
    """Texts and labels to train on: seeds, raw and verified answers, seeds with verified ones, and 3,000 real."""
    train = sms_spam().train
    texts, labels = list(seeds.texts), list(seeds.labels)
    answers, answer_labels = [record.response for record in verified], [record.label for record in verified]
    return {
        "80 real seeds": (texts, labels),
        "raw": ([grounded_qa.parse_message(record).response for record in raw], [record.label for record in raw]),
        "verified": (answers, answer_labels),
        "seeds + verified": (texts + answers, labels + answer_labels),
        f"{len(train):,} real": (list(train.texts), list(train.labels)),
    }


def message_aucs(sets: Mapping[str, tuple[list[str], list[str]]]) -> dict[str, float]:
    """Area under the ROC curve on 1,500 held-out real messages, by the set that a classifier was trained on."""
    from sklearn.metrics import roc_auc_score

    test = sms_spam().test.data
    truth = [label == "spam" for label in test.labels]
    aucs = {}
    for name, (texts, labels) in sets.items():
        fitted = grounded_qa.classifier().fit(texts, labels)
        probs = fitted.predict_proba(list(test.texts))[:, list(fitted.classes_).index("spam")]
        aucs[name] = float(roc_auc_score(truth, probs))
    return aucs


def _student_accuracy(
    raw: Sequence[Record], verified: Sequence[Record], problems: Mapping[str, WordProblem], *, seed: int
) -> dict[str, float]:
    """Accuracy on held-out problems of students of as many raw, verified and correct answers.

    An answer is correct if the expression in it evaluates to the right result.
    """
    from synthbook.language.distill import Student

    rows = np.sort(np.random.default_rng([seed, 45]).choice(len(raw), min(len(verified), len(raw)), replace=False))
    sampled = [raw[i] for i in rows]
    oracle = [Record(r.id, r.prompt, problems[r.id].sum, r.label) for r in sampled]
    test = word_problems.problems(held_out=True)
    accuracy = {}
    for name, records in {"raw": sampled, "verified": verified, "all right": oracle}.items():
        answers = Student.fit(records, seed=seed, steps=_STEPS).predict([problem.text for problem in test])
        correct = [word_problems.expression_correct(text, problem) for text, problem in zip(answers, test, strict=True)]
        accuracy[name] = float(np.mean(correct))
    return accuracy


@experiment(
    "answer-utility",
    help="Measure the utility of SmolLM2's recorded answers for classifiers and students.",
    data_source="the answers of SmolLM2 that come with the book, raw and verified",
    results="artifacts/calibration/worth/trials.json",
    cases=("messages", "sums", "programs"),
    budget={"steps": _STEPS},
)
def answer_utility_trial(case: str, *, seed: int) -> dict[str, Any]:
    """One draw of one experiment, replayed: answers before and after verification, correct ones, and utility."""
    model = Client(None, cache=recording.replay()).chat
    correct: dict[str, int] = {}
    scores: dict[str, float] = {}
    if case == "messages":
        seeds, raw = recording.messages(model, seed)
        verified, _ = recording.verified_messages(seeds, raw)
        scores = message_aucs(training_sets(seeds, raw, verified))
    elif case == "programs":
        raw = recording.programs(model, seed)
        with Sandbox(Limits(2.0), jobs=1) as sandbox:
            verified, _ = recording.visible_programs(raw, sandbox)
            for name, part in {"raw right": raw, "kept right": verified}.items():
                correct[name] = sum(word_problems.pass_hidden_cases(part, sandbox))
    else:
        raw, problems = recording.solve_word_problems(model, seed)
        with Sandbox(Limits(2.0), jobs=1) as sandbox:
            verified, _ = recording.visible_sums(raw, problems, sandbox)
        for name, part in {"raw right": raw, "kept right": verified}.items():
            correct[name] = sum(word_problems.is_correct(record, problems[record.id]) for record in part)
        accuracy = _student_accuracy(raw, verified, problems, seed=seed)
        scores = {f"student of {name}": share for name, share in accuracy.items()}
    counts = {"asked": len(raw), "kept": len(verified)} | correct | {"tokens": recording.tokens(raw)}
    return {"case": case, "seed": seed} | counts | {name: round(value, 4) for name, value in scores.items()}


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of a few draws."""
    half = float(stats.sem(values)) * float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    return float(np.mean(values)) - half, float(np.mean(values)) + half
