"""The family that teaches best, on all rows of Adult: how near comes a classifier that saw drawn rows only?

A generator may draw more rows than it saw. That adds nothing about the world, but the luck of a single draw averages
out, so the classifier is taught by `TIMES` as many.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Holdout, Table
from synthbook.datasets import adult
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.novelty import novelty
from synthbook.evaluation.utility import utility
from synthbook.experiments import experiment
from synthbook.generators.tabular.trees import BoostedTrees

_TIMES, JUDGED = 4, 5_000  # draws over rows; rows whose nearness is judged
_SETTINGS: dict[str, Any] = {}  # the family's own
CASES = ("boosted, all rows",)
TRIALS = "artifacts/calibration/whole/trials.json"


@experiment(
    "boosted-full",
    help="Fit boosted trees to all rows of Adult, and train a classifier on four times as many samples.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
    budget={"times": _TIMES},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """AUC and F1 on the real test file, taught by drawn rows and by real ones; the share nearer to training rows."""
    if case not in CASES:
        raise InvalidArgument("case", case, f"one of {', '.join(CASES)}")
    torch.set_num_threads(1)
    data, began = adult(), time.perf_counter()
    model = BoostedTrees(**_SETTINGS).fit(data.train, seed=seed)
    fitted = time.perf_counter()
    drawn = model.sample(_TIMES * len(data.train), seed=seed)
    seconds = {"fit seconds": fitted - began, "draw seconds": time.perf_counter() - fitted}
    few, encode = Table(drawn.frame.iloc[:JUDGED], drawn.schema), fit_table_encoder(data.train)
    near = novelty(encode(few), train=encode(data.train), holdout=encode(data.test.data), seed=seed)
    found = {
        **taught(drawn, seed=seed),
        "share": near.dcr_share,
        "share low": near.low,
        "share high": near.high,
        "copies": near.n_copies,
        "copies limit": near.max_copies,
        **seconds,
    }
    return {"case": case, "seed": seed} | {name: round(float(value), 4) for name, value in found.items()}


def taught(drawn: Table, *, seed: int) -> dict[str, Any]:
    """`auc` and `f1` on the real test file of a classifier taught by all rows drawn, and `real` ones by real rows."""
    data = adult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # categories that were never drawn
        scores = utility(
            drawn,
            train=data.train,
            holdout=Holdout(data.test.data),
            target="income",
            seed=seed,
            models={"gradient boosting": HistGradientBoostingClassifier(early_stopping=False)},
            max_rows=len(drawn),
        ).set_index("protocol")
    protocols = {"": "TSTR", "real ": "TRTR"}
    return {kind + name: scores.loc[protocols[kind], name] for kind in protocols for name in ("auc", "f1")}
