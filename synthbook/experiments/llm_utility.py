"""What a real model's answers are worth to a student: five draws of each experiment, replayed and measured.

Messages teach a classifier, which is tested on real ones that nothing has seen. Sums teach a tiny transformer, which is
tested on problems that nobody was asked. Programs are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from synthbook.datasets import sms_spam
from synthbook.experiments import experiment, recording
from synthbook.language import grounded_qa, word_problems
from synthbook.language.client import Client
from synthbook.language.grounded_qa import SeedExamples
from synthbook.language.records import Record
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.word_problems import WordProblem

TRIALS = "artifacts/calibration/worth/trials.json"
_CASES = ("messages", "sums", "programs")
_STEPS = 600  # of a student


def training_sets(
    seeds: SeedExamples, raw: Sequence[Record], kept: Sequence[Record]
) -> dict[str, tuple[list[str], list[str]]]:
    """Texts and labels to learn from: seeds, raw and verified answers, seeds with verified ones, and 3,000 real."""
    train = sms_spam().train
    own = list(seeds.texts), list(seeds.labels)
    first = [grounded_qa.parse_message(record).response for record in raw], [record.label for record in raw]
    second = [record.response for record in kept], [record.label for record in kept]
    return {
        "80 real seeds": own,
        "raw": first,
        "verified": second,
        "seeds + verified": (own[0] + second[0], own[1] + second[1]),
        f"{len(train):,} real": (list(train.texts), list(train.labels)),
    }


def scores(sets: Mapping[str, tuple[list[str], list[str]]]) -> dict[str, float]:
    """Area under the ROC curve on 1,500 real messages that nothing has seen, by what a classifier learned from."""
    from sklearn.metrics import roc_auc_score

    test = sms_spam().test.data
    truth = [label == "spam" for label in test.labels]
    found = {}
    for name, (texts, labels) in sets.items():
        fitted = grounded_qa.classifier().fit(texts, labels)
        probs = fitted.predict_proba(list(test.texts))[:, list(fitted.classes_).index("spam")]
        found[name] = float(roc_auc_score(truth, probs))
    return found


def students(
    raw: Sequence[Record],
    kept: Sequence[Record],
    problems: Mapping[str, WordProblem],
    *,
    seed: int,
    steps: int = _STEPS,
) -> dict[str, float]:
    """Share of right sums for problems that nobody was asked, by students of as many raw, verified and right answers.

    A sum counts when what it says to compute comes to the right result: the arithmetic itself is a machine's.
    """
    from synthbook.language.distill import Student

    rows = np.sort(np.random.default_rng([seed, 45]).choice(len(raw), min(len(kept), len(raw)), replace=False))
    same = [raw[i] for i in rows]
    oracle = [Record(r.id, r.prompt, problems[r.id].sum, r.label) for r in same]
    test = word_problems.problems(held_out=True)
    found = {}
    for name, records in {"raw": same, "verified": kept, "all right": oracle}.items():
        said = Student.fit(records, seed=seed, steps=steps).predict([problem.text for problem in test])
        found[name] = float(
            np.mean([word_problems.expression_correct(text, problem) for text, problem in zip(said, test, strict=True)])
        )
    return found


@experiment(
    "answer-utility",
    help="Measure the utility of SmolLM2's recorded answers for classifiers and students.",
    data_source="the answers of SmolLM2 that come with the book, raw and verified",
    cases=_CASES,
    budget={"steps": _STEPS},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """One draw of one experiment, replayed and measured: a flat row."""
    model, row = Client(None, cache=recording.replay()).chat, {"case": case, "seed": seed}
    if case == "messages":
        seeds, written = recording.messages(model, seed)
        some, _ = recording.verified_messages(seeds, written)
        counts = {"asked": len(written), "kept": len(some), "tokens": recording.tokens(written)}
        return row | counts | _rounded(scores(training_sets(seeds, written, some)))
    with Sandbox(Limits(2.0), jobs=1) as sandbox:
        if case == "programs":
            raw = recording.programs(model, seed)
            kept, _ = recording.visible_programs(raw, sandbox)
            is_correct = [list(word_problems.pass_hidden_cases(part, sandbox)) for part in (raw, kept)]
            return row | _yield(raw, kept, *is_correct)
        raw, problems = recording.solve_word_problems(model, seed)
        kept, _ = recording.visible_sums(raw, problems, sandbox)
    is_correct = [[word_problems.is_correct(record, problems[record.id]) for record in part] for part in (raw, kept)]
    taught = students(raw, kept, problems, seed=seed)
    return (
        row | _yield(raw, kept, *is_correct) | _rounded({f"student of {name}": share for name, share in taught.items()})
    )


def _yield(raw: Sequence[Record], kept: Sequence[Record], *is_correct: Sequence[bool]) -> dict[str, Any]:
    counts = {"asked": len(raw), "kept": len(kept), "raw right": sum(is_correct[0]), "kept right": sum(is_correct[1])}
    return counts | {"tokens": recording.tokens(raw)}


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in row.items()}


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of a few draws."""
    half = float(stats.sem(values)) * float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    return float(np.mean(values)) - half, float(np.mean(values)) + half
