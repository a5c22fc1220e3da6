"""All families on the same rows of Adult: what each keeps, what it copies, what it costs.

A trial draws 5,000 rows at random from the training file, the one person from Holand-Netherlands always among them, and
as many others that no generator sees. Fresh real rows play along: what a perfect generator would score.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Holdout, Table
from synthbook.datasets import adult
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import dependence, marginal_distances
from synthbook.evaluation.novelty import novelty
from synthbook.evaluation.prdc import prdc
from synthbook.evaluation.utility import utility
from synthbook.experiments import experiment
from synthbook.generators import registry
from synthbook.generators.base import Generator

ROWS = 5_000  # to learn from, held out, and scored
MANY = 20_000  # rows among which the one person is looked for
HER = 19_609  # the only row of Adult's training file from Holand-Netherlands
COUNTRY = "Holand-Netherlands"
REAL = "fresh real rows"
FAMILIES = {  # by the case's name in the recorded trials
    "marginals": "marginals",
    "copula": "copula",
    "bootstrap": "bootstrap",
    "cart": "cart",
    "boosted": "boosted",
    "tvae": "tvae",
    "ctgan": "ctgan",
    "diffusion": "tabddpm",
}
STEPS: Mapping[str, int] = {"tvae": 1_000, "ctgan": 600, "diffusion": 2_000}  # a half to a third of each family's own
_RAREST = "ctgan, told the rarest"
CASES = (REAL, *FAMILIES, _RAREST)
TRIALS = "artifacts/calibration/tables/trials.json"


def split_adult(seed: int) -> tuple[Table, Table]:
    """5,000 rows to learn from, with hers, and 5,000 others; their index is the row's number in the training file."""
    train = adult().train
    order = np.random.default_rng(seed).permutation(np.delete(np.arange(len(train)), HER))
    learned, others = np.append(order[: ROWS - 1], HER), order[ROWS - 1 : 2 * ROWS - 1]
    return Table(train.frame.iloc[np.sort(learned)], train.schema), Table(
        train.frame.iloc[np.sort(others)], train.schema
    )


@experiment(
    "tables",
    help="Fit every family of tables to 5,000 rows of Adult: fidelity, utility, novelty, cost.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
    budget=STEPS,
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """Fit a family to one draw of rows and score 5,000 of its rows; see `score`. `her`: rows drawn with her country,
    over as many as there should be; seconds to fit, and to draw 20,000 rows."""
    if case not in CASES:
        raise InvalidArgument("case", case, f"one of {', '.join(CASES)}")
    torch.set_num_threads(1)
    learned, others = split_adult(seed)
    row: dict[str, Any] = {"case": case, "seed": seed}
    if case == REAL:  # as many as are scored of a family, from the rest of the file
        drawn = split_adult(1_000 + seed)[1]
        return row | score(drawn, learned, others, seed=seed)
    began = time.perf_counter()
    model = fitted(case, learned, seed=seed)
    done = time.perf_counter()
    many = model.sample(MANY, seed=seed)
    row |= {"fit seconds": round(done - began, 2), "draw seconds": round(time.perf_counter() - done, 2)}
    row["her"] = float((many["native-country"] == COUNTRY).sum() / (MANY / ROWS))
    return row | score(Table(many.frame.iloc[:ROWS], many.schema), learned, others, seed=seed)


def fitted(case: str, learned: Table, *, seed: int) -> Generator:
    """A case's model of these rows."""
    family, settings = ("ctgan", {"rarest": True}) if case == _RAREST else (case, {})
    return registry.get(FAMILIES[family])(**settings).fit(learned, seed=seed, steps=STEPS.get(family))


def score(drawn: Table, learned: Table, others: Table, *, seed: int) -> dict[str, float]:
    """How rows drawn after `learned` do, beside `others` that were not seen and Adult's real test file.

    `marginals`: mean distance of a column; `dependence`: mean error of a pair; precision and coverage; gradient
    boosting's `auc`, `f1` and `brier` on the real test file, trained on the rows drawn; `share` nearer to training
    rows, with the top of the band for honest rows, `share high`, and exact `copies` beside the most by chance.
    """
    encode = fit_table_encoder(learned)
    x, y, z = encode(drawn), encode(learned), encode(others)
    near, new = prdc(x, real=y), novelty(x, train=y, holdout=z, seed=seed)
    model = {"gradient boosting": HistGradientBoostingClassifier(early_stopping=False)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # categories that were never drawn
        scores = utility(
            drawn, train=learned, holdout=Holdout(adult().test.data), target="income", seed=seed, models=model
        )
        moved, pairs = marginal_distances(drawn, real=learned), dependence(drawn, real=learned)
    useful, best = (scores[scores["protocol"] == name].iloc[0] for name in ("TSTR", "TRTR"))
    found = {
        "marginals": moved["distance"].clip(upper=10).mean(),
        "dependence": pairs.mean_error,
        "precision": near.precision,
        "coverage": near.coverage,
        "auc": useful["auc"],
        "f1": useful["f1"],
        "brier": useful["brier"],
        "real auc": best["auc"],
        "real f1": best["f1"],
        "share": new.dcr_share,
        "share high": new.high,
        "copies": new.n_copies,
        "copies limit": new.max_copies,
    }
    return {name: round(float(value), 4) for name, value in found.items()}
