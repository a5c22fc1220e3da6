"""What is each stage worth to a student? One teacher, filtered, deduplicated, balanced, and what an oracle would keep.

Two comparisons: as many rows for everybody, and as many answers asked of the teacher, drops included. The first says
what a row is worth, the second what a token is worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import entropy

from synthbook.experiments import experiment
from synthbook.language.pipeline import Stage, StageStats, cap_per_class, drop_exact_duplicates, run_pipeline
from synthbook.language.records import Record
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.word_problems import NearestNeighborStudent, ScriptedMathTeacher, arithmetic_holds

N_ANSWERS = 800  # answers of the teacher
DRAWS = 10  # of as many rows for everybody
SETS = ("raw", "filtered", "deduplicated", "balanced", "clean")
_CASES = ("teaching",)
TRIALS = "artifacts/calibration/teaching/trials.json"


def filtered_sets(records: Sequence[Record], sandbox: Sandbox) -> tuple[dict[str, list[Record]], list[StageStats]]:
    """The records after no stage, one, two and three, and those that are right, all of them once; and the ledger.

    Copies are of prompt and answer.
    """
    found, ledger = {"raw": list(records)}, []

    def apply(name: str, stage: Stage, some: Sequence[Record]) -> list[Record]:
        flow, entries = run_pipeline(some, {name: stage})
        found[name] = list(flow)
        ledger.extend(entries)
        return found[name]

    different = apply("deduplicated", drop_exact_duplicates(), apply("filtered", arithmetic_holds(sandbox), records))
    fewest = min(Counter(record.label for record in different).values())
    apply("balanced", cap_per_class(fewest), different)
    is_correct = [record for record in records if record.provenance["correct"]]
    flow, _ = run_pipeline(is_correct, {"clean": drop_exact_duplicates()})
    return found | {"clean": list(flow)}, ledger


@experiment(
    "student-filtering",
    help="Train students on a scripted teacher's answers: raw, filtered, deduplicated, balanced.",
    data_source="a scripted teacher's answers to word problems, judged by running them",
    cases=_CASES,
    budget={"asked": N_ANSWERS},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """One teacher, five sets, ten students: a flat row of measurements."""
    with Sandbox(Limits(5.0), jobs=1, allow_weak=True) as sandbox:  # sums of a scripted teacher
        made, _ = filtered_sets(list(ScriptedMathTeacher().records(N_ANSWERS, seed=seed)), sandbox)
    return {"case": case, "seed": seed} | evaluate_students(made, seed=seed)


def evaluate_students(made: Mapping[str, Sequence[Record]], *, seed: int) -> dict[str, float]:
    """For each set its rows, share of right ones, entropy of kinds, and a student's accuracy at equal rows and cost."""
    rng, least = np.random.default_rng(seed), min(len(records) for records in made.values())
    found: dict[str, float] = {"rows": least}
    for name, records in made.items():
        picks = [np.sort(rng.choice(len(records), least, replace=False)) for _ in range(DRAWS)]
        equal = np.mean([NearestNeighborStudent.fit([records[i] for i in pick]).accuracy()["all"] for pick in picks])
        whole = NearestNeighborStudent.fit(records).accuracy()
        found |= {
            f"{name}: rows": len(records),
            f"{name}: right": float(np.mean([record.provenance["correct"] for record in records])),
            f"{name}: bits": float(entropy(list(Counter(record.label for record in records).values()), base=2)),
            f"{name}: at equal rows": float(equal),
            f"{name}: at equal cost": whole["all"],
            f"{name}: hard kind": whole["each"],
        }
    return {key: round(value, 4) for key, value in found.items()}
