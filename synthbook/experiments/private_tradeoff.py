"""What a budget buys on all rows of Adult: generators with and without privacy, scored by what their rows teach.

Every trial fits to the 32,561 training rows with delta = 1e-5 and draws as many; a classifier that saw those alone is
judged on the real test file. The settings of the private generators were chosen on these data, which nobody has paid
for: with one's own table that choice is a look like any other.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, new_axes
from synthbook.core.table import Table
from synthbook.datasets import adult
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import marginal_distances
from synthbook.evaluation.novelty import novelty
from synthbook.experiments import experiment
from synthbook.experiments.boosted_adult import taught
from synthbook.experiments.table_choice import COUNTRY
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.copula import Copula
from synthbook.generators.tabular.tvae import TVAE
from synthbook.privacy.generators.dp_tvae import DpTvae
from synthbook.privacy.generators.mst import IndependentMarginals, Mst

EPSILONS, _DELTA = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf), 1e-5
MARGINS, TREE, TARGET, NETWORK = "margins alone", "tree", "tree with income", "DP-TVAE"
_METHODS: Mapping[str, Callable[[float], TableGenerator]] = {
    MARGINS: lambda epsilon: IndependentMarginals(epsilon=epsilon, delta=_DELTA),
    TREE: lambda epsilon: Mst(epsilon=epsilon, delta=_DELTA),
    TARGET: lambda epsilon: Mst(epsilon=epsilon, delta=_DELTA, target="income"),
    NETWORK: lambda epsilon: DpTvae(epsilon=epsilon, delta=_DELTA),
}
PLAIN: Mapping[str, Callable[[], TableGenerator]] = {"copula": Copula, "TVAE": TVAE}
CASES = (*(f"{name}, epsilon {epsilon:g}" for name in _METHODS for epsilon in EPSILONS), *PLAIN)
_JUDGED = 5_000  # rows whose nearness is judged
TRIALS = "artifacts/calibration/private/trials.json"


def model_of(case: str) -> TableGenerator:
    """A case's generator, not fitted."""
    if case not in CASES:
        raise InvalidArgument("case", case, f"one of {', '.join(CASES)}")
    if case in PLAIN:
        return PLAIN[case]()
    name, epsilon = case.split(", epsilon ")
    return _METHODS[name](float(epsilon))


@experiment(
    "private",
    help="Fit generators of Adult at six privacy budgets and without privacy: utility.",
    data_source="generators of Adult with differential privacy and without",
    cases=CASES,
    budget={"delta": _DELTA},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """See `score`; and the seconds of the fit."""
    torch.set_num_threads(1)
    model, data, began = model_of(case), adult(), time.perf_counter()
    model.fit(data.train, seed=seed)
    seconds = time.perf_counter() - began
    drawn = model.sample(len(data.train), seed=seed)
    return {"case": case, "seed": seed, "fit seconds": round(seconds, 2)} | score(drawn, seed=seed)


def score(drawn: Table, *, seed: int) -> dict[str, float]:
    """AUC and F1 on the real test file, taught by drawn rows and by real ones; the mean distance of a column; rows
    from the country that one training row has; the share nearer to training rows than to others, and its band's end.
    """
    data = adult()
    few, encode = Table(drawn.frame.iloc[:_JUDGED], drawn.schema), fit_table_encoder(data.train)
    near = novelty(encode(few), train=encode(data.train), holdout=encode(data.test.data), seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # categories that were never drawn
        moved = marginal_distances(drawn, real=data.train)["distance"].clip(upper=10).mean()
    told = taught(drawn, seed=seed)
    found: dict[str, Any] = {
        "auc": told["auc"],
        "f1": told["f1"],
        "real auc": told["real auc"],
        "marginals": moved,
        "her country": (drawn["native-country"] == COUNTRY).sum(),
        "share": near.dcr_share,
        "share high": near.high,
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def plot_tradeoff(trials: pd.DataFrame, ax: Axes | None = None, *, measure: str = "auc") -> Axes:
    """Means of a measure over the seeds against the budget, with 95 % intervals; plain generators and real rows beside.

    `trials` is the calibration's table. No budget at all, epsilon infinite, stands at the right end.
    """
    ax = new_axes(ax, width=8.0, height=4.8)
    places = np.arange(len(EPSILONS))
    for k, (name, marker) in enumerate(zip(_METHODS, "vosD", strict=True)):
        mean, reach = np.array([interval(trials, f"{name}, epsilon {epsilon:g}", measure) for epsilon in EPSILONS]).T
        ax.errorbar(places + 0.06 * (k - 1.5), mean, yerr=reach, marker=marker, capsize=3, label=name)
    for name, style in zip(PLAIN, (":", "--"), strict=True):
        ax.axhline(interval(trials, name, measure)[0], color="0.5", linestyle=style, label=f"{name}, without privacy")
    ax.axhline(trials[f"real {measure}"].mean(), color=BLACK, linewidth=1, label="real rows")
    ax.set_xticks(places, [f"{epsilon:g}" if math.isfinite(epsilon) else "none" for epsilon in EPSILONS])
    ax.set(xlabel="privacy budget ε (δ = 1e-5)", ylabel="AUC on real people", ylim=(0.42, 0.97))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return ax


def interval(trials: pd.DataFrame, case: str, measure: str) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % interval, by Student's t."""
    values = trials.loc[trials["case"] == case, measure].to_numpy(dtype=float)
    n = len(values)
    return float(values.mean()), float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
