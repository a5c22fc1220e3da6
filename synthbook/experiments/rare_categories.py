"""What is rare in a table, and what a conditional GAN needs to keep it: a toy table whose truth is known, and Shuttle.

The toy has a number with two bumps, a category that one row in a hundred has, and a label that depends on both. Of
Shuttle's seven states three are rarer than one row in a thousand, two of them rarer than one in four thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Column, Schema, Table
from synthbook.core.types import Seed
from synthbook.datasets import shuttle
from synthbook.experiments import experiment
from synthbook.generators.tabular.ctgan import CTGAN

_BUMP, _WIDTH, _VALLEY, _RARE = (
    2.0,
    0.4,
    0.8,
    0.01,
)  # places and width of the bumps, half width of the valley, rare share
TOY_ROWS = 10_000
_SHUTTLE_ROWS = 580_000  # ten times the real table
CLASSES = ("Fpv.Close", "Bpv.Close", "Bpv.Open")  # of Shuttle, each 0.1 % of the rows or less
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "both": {},
    "no sampling by category": {"by_sampling": False},
    "no condition": {"condition": False},
    "min-max": {"modes": 0},
}
_TOY: Mapping[str, Any] = {"hidden": 64, "latent_dim": 16, "batch_size": 200, "steps": 1_000, "rarest": True}
_PLACES: Mapping[str, tuple[str, ...]] = {"toy": tuple(SETTINGS), "shuttle": ("both", "no sampling by category")}
CASES = tuple(f"{place}: {how}" for place, settings in _PLACES.items() for how in settings)
TRIALS = "artifacts/calibration/rare/trials.json"


def toy(n: int, *, seed: Seed) -> Table:
    """`n` rows (number, kind, label): bumps at -2 and 2, kinds A, B and rare C, P(label = yes) from both."""
    rng = np.random.default_rng(seed)
    side, kind = rng.integers(2, size=n), rng.choice(3, size=n, p=[0.69, 0.3, _RARE])
    number = (2 * side - 1) * _BUMP + _WIDTH * rng.standard_normal(n)
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


def toy_model(how: str, *, seed: int) -> CTGAN:
    """A small conditional GAN of the toy, with both devices or without one."""
    return CTGAN(**_TOY, **SETTINGS[how]).fit(toy(TOY_ROWS, seed=1_000 + seed), seed=seed)


def score_toy(drawn: Table) -> dict[str, float]:
    """Share of the smaller bump, rows in the valley over the truth, the rare kind's share over the truth."""
    x = drawn["number"].to_numpy()
    true_valley = (np.abs(toy(1_000_000, seed=0)["number"].to_numpy()) < _VALLEY).mean()
    return {
        "smaller bump": float(min((x < -_VALLEY).mean(), (x > _VALLEY).mean())),
        "valley": float((np.abs(x) < _VALLEY).mean() / true_valley),
        "rare": float((drawn["kind"] == "C").mean() / _RARE),
    }


def _class_share_ratios(drawn: Table, real: Table) -> dict[str, float]:
    """The share of each of Shuttle's rare classes, over its share in the rows learned from."""
    return {name: float((drawn["Class"] == name).mean() / (real["Class"] == name).mean()) for name in CLASSES}


@experiment(
    "rare",
    help="Train conditional GANs with and without their devices for rare categories.",
    data_source="models of section 3, trained anew for each row",
    cases=CASES,
    budget={"toy": _TOY},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """A case of `synthbook dev experiment rare`: "toy: min-max" or "shuttle: both"."""
    place, _, how = case.partition(": ")
    if how not in _PLACES.get(place, ()):
        raise InvalidArgument("case", case, f"one of {', '.join(CASES)}")
    torch.set_num_threads(1)
    if place == "toy":
        found = score_toy(toy_model(how, seed=seed).sample(TOY_ROWS, seed=seed))
    else:
        real = shuttle().train
        model = CTGAN(steps=600, hidden=128, **SETTINGS[how]).fit(real, seed=seed)
        found = _class_share_ratios(model.sample(_SHUTTLE_ROWS, seed=seed), real)
    return {"case": case, "seed": seed, **{name: round(number, 4) for name, number in found.items()}}
