"""Generators of tables compared: all families on Adult, the best one on all of its rows, and rare categories."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.core.types import Seed
from synthbook.datasets import adult, shuttle
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import dependence, marginal_distances
from synthbook.evaluation.novelty import novelty
from synthbook.evaluation.prdc import prdc
from synthbook.evaluation.utility import utility
from synthbook.experiments import experiment
from synthbook.generators import registry
from synthbook.generators.tabular.ctgan import CTGAN
from synthbook.generators.tabular.trees import BoostedTrees

# ── All families on the same rows of Adult: fidelity, copies, cost ──
# A trial draws 5,000 rows at random from the training file, the one person from Holand-Netherlands always among them,
# and as many others that no generator sees. Fresh real rows show what a perfect generator would score.


N_ROWS = 5_000  # to learn from, held out, and scored
N_SAMPLED = 20_000  # rows among which the one person is looked for
RARE_ROW = 19_609  # the only row of Adult's training file from Holand-Netherlands
RARE_COUNTRY = "Holand-Netherlands"
FRESH_ROWS = "fresh real rows"
TABLE_FAMILIES = {  # by the case's name in the recorded trials
    "marginals": "marginals",
    "copula": "copula",
    "bootstrap": "bootstrap",
    "cart": "cart",
    "boosted": "boosted",
    "tvae": "tvae",
    "ctgan": "ctgan",
    "diffusion": "tabddpm",
}
# a half to a third of each family's own
FAMILY_STEPS: Mapping[str, int] = {"tvae": 1_000, "ctgan": 600, "diffusion": 2_000}
_RAREST = "ctgan, told the rarest"


def split_adult(seed: int) -> tuple[Table, Table]:
    """5,000 rows to learn from, with hers, and 5,000 others; their index is the row's number in the training file."""
    train = adult().train
    order = np.random.default_rng(seed).permutation(np.delete(np.arange(len(train)), RARE_ROW))
    halves = np.append(order[: N_ROWS - 1], RARE_ROW), order[N_ROWS - 1 : 2 * N_ROWS - 1]
    learned, others = (Table(train.frame.iloc[np.sort(rows)], train.schema) for rows in halves)
    return learned, others


@experiment(
    "tables",
    help="Fit every family of tables to 5,000 rows of Adult: fidelity, utility, novelty, cost.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/tables/trials.json",
    cases=(FRESH_ROWS, *TABLE_FAMILIES, _RAREST),
    budget=FAMILY_STEPS,
)
def tables_trial(case: str, *, seed: int) -> dict[str, Any]:
    """Fit a family to one draw of rows and score 5,000 of its rows; see `score_rows`.

    `her`: rows drawn with the rare country, over as many as there should be. `fit seconds`, and `draw seconds` for
    20,000 rows.
    """
    torch.set_num_threads(1)
    learned, others = split_adult(seed)
    row: dict[str, Any] = {"case": case, "seed": seed}
    if case == FRESH_ROWS:  # as many as are scored of a family, from the rest of the file
        drawn = split_adult(1_000 + seed)[1]
        return row | score_rows(drawn, learned, others, seed=seed)
    began = time.perf_counter()
    family, settings = ("ctgan", {"rarest": True}) if case == _RAREST else (case, {})
    model = registry.get(TABLE_FAMILIES[family])(**settings).fit(learned, seed=seed, steps=FAMILY_STEPS.get(family))
    done = time.perf_counter()
    many = model.sample(N_SAMPLED, seed=seed)
    row |= {"fit seconds": round(done - began, 2), "draw seconds": round(time.perf_counter() - done, 2)}
    row["her"] = float((many["native-country"] == RARE_COUNTRY).sum() / (N_SAMPLED / N_ROWS))
    return row | score_rows(Table(many.frame.iloc[:N_ROWS], many.schema), learned, others, seed=seed)


def score_rows(drawn: Table, learned: Table, others: Table, *, seed: int) -> dict[str, float]:
    """Scores of rows drawn from a model of `learned`; `others` and Adult's real test file were not seen.

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
        distances, pairs = marginal_distances(drawn, real=learned), dependence(drawn, real=learned)
    synthetic, real = (scores[scores["protocol"] == name].iloc[0] for name in ("TSTR", "TRTR"))
    row = {
        "marginals": distances["distance"].clip(upper=10).mean(),
        "dependence": pairs.mean_error,
        "precision": near.precision,
        "coverage": near.coverage,
        "auc": synthetic["auc"],
        "f1": synthetic["f1"],
        "brier": synthetic["brier"],
        "real auc": real["auc"],
        "real f1": real["f1"],
        "share": new.dcr_share,
        "share high": new.high,
        "copies": new.n_copies,
        "copies limit": new.max_copies,
    }
    return {name: round(float(value), 4) for name, value in row.items()}


# ── The family of the highest utility, on all rows of Adult: a classifier trained on drawn rows alone ──
# A generator may draw more rows than it saw. That adds nothing about the world, but the chance of a single draw
# averages out, so the classifier is trained on `_TIMES` as many.


_TIMES, _N_NOVELTY = 4, 5_000  # draws over rows; rows whose distances are measured


@experiment(
    "boosted-full",
    help="Fit boosted trees to all rows of Adult, and train a classifier on four times as many samples.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/whole/trials.json",
    cases=("boosted, all rows",),
    budget={"times": _TIMES},
)
def boosted_full_trial(case: str, *, seed: int) -> dict[str, Any]:
    """See `utility_and_novelty`; and the seconds to fit and to draw."""
    torch.set_num_threads(1)
    train, began = adult().train, time.perf_counter()
    model = BoostedTrees().fit(train, seed=seed)
    fitted = time.perf_counter()
    drawn = model.sample(_TIMES * len(train), seed=seed)
    seconds = {"fit seconds": fitted - began, "draw seconds": time.perf_counter() - fitted}
    row = utility_and_novelty(drawn, seed=seed) | seconds
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in row.items()}


def utility_and_novelty(drawn: Table, *, seed: int) -> dict[str, float]:
    """Scores of rows drawn from a model of all training rows of Adult.

    `auc` and `f1` on the real test file of a classifier trained on all rows drawn, and `real auc` and `real f1` of one
    trained on real rows; the `share` nearer to training rows than to test rows with its band, `share low` and `share
    high`; exact `copies` beside the most by chance, `copies limit`.
    """
    data = adult()
    few, encode = Table(drawn.frame.iloc[:_N_NOVELTY], drawn.schema), fit_table_encoder(data.train)
    new = novelty(encode(few), train=encode(data.train), holdout=encode(data.test.data), seed=seed)
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
    row: dict[str, Any] = {
        kind + name: scores.loc[protocols[kind], name] for kind in protocols for name in ("auc", "f1")
    }
    row |= {"share": new.dcr_share, "share low": new.low, "share high": new.high}
    row |= {"copies": new.n_copies, "copies limit": new.max_copies}
    return {name: float(value) for name, value in row.items()}


# ── Rare categories, and what a conditional GAN needs to keep them: a toy table of a known distribution, and Shuttle ──
# The toy has a number with two modes, a category that one row in a hundred has, and a label that depends on both. Of
# Shuttle's seven states three are rarer than one row in a thousand, two of them rarer than one in four thousand.


# mean and width of the modes, half width of the valley, rare share
_MEAN, _WIDTH, _VALLEY, _RARE = 2.0, 0.4, 0.8, 0.01
TOY_ROWS = 10_000
_SHUTTLE_ROWS = 580_000  # ten times the real table
RARE_CLASSES = ("Fpv.Close", "Bpv.Close", "Bpv.Open")  # of Shuttle, each 0.1 % of the rows or less
CTGAN_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "both": {},
    "no sampling by category": {"log_frequency": False},
    "no condition": {"conditional": False},
    "min-max": {"max_modes": 0},
}
_TOY: Mapping[str, Any] = {"hidden": 64, "latent_dim": 16, "batch_size": 200, "steps": 1_000, "rarest": True}


def toy_table(n: int, *, seed: Seed) -> Table:
    """`n` rows (number, kind, label): modes at -2 and 2, kinds A, B and rare C, P(label = yes) from both."""
    rng = np.random.default_rng(seed)
    side, kind = rng.integers(2, size=n), rng.choice(3, size=n, p=[0.69, 0.3, _RARE])
    number = (2 * side - 1) * _MEAN + _WIDTH * rng.standard_normal(n)
    yes = rng.random(n) < np.where(kind == 2, 0.9, 0.2 + 0.4 * side)
    schema = Schema(
        (
            Column("number", "numeric", lower=-5.0, upper=5.0),
            Column("kind", "categorical", categories=("A", "B", "C")),
            Column("label", "categorical", categories=("no", "yes")),
        ),
        "public",
    )
    frame = pd.DataFrame(
        {"number": number.clip(-5, 5), "kind": np.array(list("ABC"))[kind], "label": np.where(yes, "yes", "no")}
    )
    return Table(schema.cast(frame), schema)


def toy_model(variant: str, *, seed: int) -> CTGAN:
    """A small conditional GAN of the toy, with both devices or without one."""
    return CTGAN(**_TOY, **CTGAN_VARIANTS[variant]).fit(toy_table(TOY_ROWS, seed=1_000 + seed), seed=seed)


def score_toy(drawn: Table) -> dict[str, float]:
    """Share of the smaller mode, rows in the valley over the truth, the rare kind's share over the truth."""
    x = drawn["number"].to_numpy()
    true_valley = (np.abs(toy_table(1_000_000, seed=0)["number"].to_numpy()) < _VALLEY).mean()
    return {
        "smaller bump": float(min((x < -_VALLEY).mean(), (x > _VALLEY).mean())),
        "valley": float((np.abs(x) < _VALLEY).mean() / true_valley),
        "rare": float((drawn["kind"] == "C").mean() / _RARE),
    }


@experiment(
    "rare",
    help="Train conditional GANs with and without their devices for rare categories.",
    data_source="models of section 3, trained anew for each row",
    results="artifacts/calibration/rare/trials.json",
    cases=(*(f"toy: {variant}" for variant in CTGAN_VARIANTS), "shuttle: both", "shuttle: no sampling by category"),
    budget={"toy": _TOY},
)
def rare_trial(case: str, *, seed: int) -> dict[str, Any]:
    """A variant's `score_toy`, or the share of each of Shuttle's rare classes over its share in the real rows."""
    table, variant = case.split(": ")
    torch.set_num_threads(1)
    if table == "toy":
        row = score_toy(toy_model(variant, seed=seed).sample(TOY_ROWS, seed=seed))
    else:
        real = shuttle().train
        model = CTGAN(steps=600, hidden=128, **CTGAN_VARIANTS[variant]).fit(real, seed=seed)
        drawn, true = (rows["Class"] for rows in (model.sample(_SHUTTLE_ROWS, seed=seed), real))
        row = {name: float((drawn == name).mean() / (true == name).mean()) for name in RARE_CLASSES}
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in row.items()}
