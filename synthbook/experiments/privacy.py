"""The trade-off between privacy and utility, and the leaks of overfitted networks."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats
from sklearn.neural_network import MLPClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, new_axes
from synthbook.core.table import Table
from synthbook.core.types import Array
from synthbook.datasets import adult
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import marginal_distances
from synthbook.experiments import experiment
from synthbook.experiments.tables import RARE_COUNTRY, utility_and_novelty
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.copula import Copula
from synthbook.generators.tabular.tvae import TVAE
from synthbook.privacy.attacks.membership import AttackScores, knn_distances, lira, train_shadow_models
from synthbook.privacy.generators.dp_tvae import DpTvae
from synthbook.privacy.generators.mst import IndependentMarginals, Mst

# ── Utility against the privacy budget, on all rows of Adult ──
# Every trial fits to the 32,561 training rows with delta = 1e-5 and draws as many; a classifier trained on those alone
# is tested on the real test file. The settings of the private generators were chosen on these data without a charge to
# the budget: with your own table, that choice is a query like any other.


EPSILONS, _DELTA = (0.5, 1.0, 2.0, 4.0, 8.0, math.inf), 1e-5
INDEPENDENT, MST, MST_TARGET, DP_TVAE = "margins alone", "tree", "tree with income", "DP-TVAE"
_METHODS: Mapping[str, Callable[[float], TableGenerator]] = {
    INDEPENDENT: lambda epsilon: IndependentMarginals(epsilon=epsilon, delta=_DELTA),
    MST: lambda epsilon: Mst(epsilon=epsilon, delta=_DELTA),
    MST_TARGET: lambda epsilon: Mst(epsilon=epsilon, delta=_DELTA, target="income"),
    DP_TVAE: lambda epsilon: DpTvae(epsilon=epsilon, delta=_DELTA),
}
NON_PRIVATE: Mapping[str, Callable[[], TableGenerator]] = {"copula": Copula, "TVAE": TVAE}
_PRIVATE_CASES = (*(f"{name}, epsilon {epsilon:g}" for name in _METHODS for epsilon in EPSILONS), *NON_PRIVATE)


def build_generator(case: str) -> TableGenerator:
    """A case's generator, not fitted."""
    if case not in _PRIVATE_CASES:
        raise InvalidArgument("case", case, f"one of {', '.join(_PRIVATE_CASES)}")
    if case in NON_PRIVATE:
        return NON_PRIVATE[case]()
    name, epsilon = case.split(", epsilon ")
    return _METHODS[name](float(epsilon))


@experiment(
    "private",
    help="Fit generators of Adult at six privacy budgets and without privacy: utility.",
    data_source="generators of Adult with differential privacy and without",
    results="artifacts/calibration/private/trials.json",
    cases=_PRIVATE_CASES,
    budget={"delta": _DELTA},
)
def private_trial(case: str, *, seed: int) -> dict[str, Any]:
    """See `score_adult`; and the seconds of the fit."""
    torch.set_num_threads(1)
    model, train, began = build_generator(case), adult().train, time.perf_counter()
    model.fit(train, seed=seed)
    seconds = time.perf_counter() - began
    drawn = model.sample(len(train), seed=seed)
    return {"case": case, "seed": seed, "fit seconds": round(seconds, 2)} | score_adult(drawn, seed=seed)


def score_adult(drawn: Table, *, seed: int) -> dict[str, float]:
    """Utility and novelty (see `utility_and_novelty`), the mean distance of a column, and rows of the rare country."""
    scores = utility_and_novelty(drawn, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # categories that were never drawn
        distances = marginal_distances(drawn, real=adult().train)["distance"]
    row: dict[str, Any] = {name: scores[name] for name in ("auc", "f1", "real auc")}
    row |= {
        "marginals": distances.clip(upper=10).mean(),
        "her country": (drawn["native-country"] == RARE_COUNTRY).sum(),
    }
    row |= {name: scores[name] for name in ("share", "share high")}
    return {name: round(float(value), 4) for name, value in row.items()}


def plot_tradeoff(trials: pd.DataFrame, ax: Axes | None = None, *, measure: str = "auc") -> Axes:
    """Plot the means of a measure over the seeds against epsilon, with 95 % intervals.

    `trials` are the results of the experiment "private"; those without privacy and real rows are drawn as lines. No
    budget, epsilon infinite, stands at the right end.
    """
    ax = new_axes(ax, width=8.0, height=4.8)
    places = np.arange(len(EPSILONS))
    for k, (name, marker) in enumerate(zip(_METHODS, "vosD", strict=True)):
        cases = [f"{name}, epsilon {epsilon:g}" for epsilon in EPSILONS]
        mean, half = np.array([mean_interval(trials, case, measure) for case in cases]).T
        ax.errorbar(places + 0.06 * (k - 1.5), mean, yerr=half, marker=marker, capsize=3, label=name)
    for name, style in zip(NON_PRIVATE, (":", "--"), strict=True):
        mean, _ = mean_interval(trials, name, measure)
        ax.axhline(mean, color="0.5", linestyle=style, label=f"{name}, without privacy")
    ax.axhline(trials[f"real {measure}"].mean(), color=BLACK, linewidth=1, label="real rows")
    ax.set_xticks(places, [f"{epsilon:g}" if math.isfinite(epsilon) else "none" for epsilon in EPSILONS])
    ax.set(xlabel="privacy budget ε (δ = 1e-5)", ylabel="AUC on real people", ylim=(0.42, 0.97))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return ax


def mean_interval(trials: pd.DataFrame, case: str, measure: str) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % interval, by Student's t."""
    values = trials.loc[trials["case"] == case, measure].to_numpy(dtype=float)
    n = len(values)
    return float(values.mean()), float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))


# ── Membership inference against networks of growing capacity ──
# Networks predict the occupation of people in Adult, one of 14, from all other columns; 1,000 rows are members and
# 1,000 are not. Attack: a member's loss is lower (Yeom et al., arXiv:1709.01604; Shokri et al., arXiv:1610.05820). For
# the most regularized network, shadow models estimate for each row how its loss falls once it is a member: this
# identifies people whom the average hides, outliers above all.


N_MEMBERS, _TARGET = 1_000, "occupation"  # members, and as many non-members
_N_SHADOWS = 16
_OUTLIERS = 0.2  # share of the rows that lie farthest from their nearest neighbor


@dataclass(frozen=True)
class _NetConfig:
    """Units of the hidden layer, passes over the rows, and weight decay."""

    hidden: int
    epochs: int
    weight_decay: float


NETS: Mapping[str, _NetConfig] = {
    "held back": _NetConfig(8, 30, 1.0),
    "small": _NetConfig(16, 40, 0.1),
    "middling": _NetConfig(32, 60, 1e-2),
    "large": _NetConfig(64, 80, 1e-4),
    "by heart": _NetConfig(256, 120, 1e-4),
}


def sample_members(seed: int) -> tuple[Array, NDArray[np.bool_]]:
    """Rows of features with the occupation's code last (2,000, d + 1), and which of them are members (2,000,)."""
    train = adult().train
    complete = np.flatnonzero(train[_TARGET].notna().to_numpy())
    rows = np.random.default_rng(seed).permutation(complete)[: 2 * N_MEMBERS]
    sampled = Table(train.frame.iloc[rows], train.schema)
    x = fit_table_encoder(train.drop_column(_TARGET))(sampled.drop_column(_TARGET))
    return np.column_stack([x, sampled[_TARGET].cat.codes]), np.arange(2 * N_MEMBERS) < N_MEMBERS


def train_net(config: _NetConfig, rows: Array, seed: int) -> MLPClassifier:
    """A network trained on rows of features and code (N, d + 1)."""
    net = MLPClassifier(
        (config.hidden,),
        alpha=config.weight_decay,
        max_iter=config.epochs,
        n_iter_no_change=config.epochs,
        batch_size=50,
        learning_rate_init=3e-3,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is meant to stop early
        return net.fit(rows[:, :-1], rows[:, -1].astype(int))


def logit_confidence(rows: Array, net: MLPClassifier) -> Array:
    """log(p / (1 - p)) of each row's own occupation (N,): nearly normal, as `lira` requires."""
    probs, classes = net.predict_proba(rows[:, :-1]), net.classes_
    index = np.searchsorted(classes, rows[:, -1]).clip(max=len(classes) - 1)
    p = np.where(classes[index] == rows[:, -1], probs[np.arange(len(rows)), index], 0.0)
    return np.asarray(np.log(p + 1e-9) - np.log(1 - p + 1e-9))


@experiment(
    "overfitting",
    help="Train networks of growing size on Adult, and attack their membership by loss.",
    data_source="networks trained on rows of Adult, and attacks on them",
    results="artifacts/calibration/overfitting/trials.json",
    cases=tuple(NETS),
    budget={"rows": N_MEMBERS, "shadows": _N_SHADOWS},
)
def overfitting_trial(case: str, *, seed: int) -> dict[str, Any]:
    """`gap` of accuracy between members and non-members, and the `auc` of the attack by loss.

    Of the network "held back" also the shadow models' AUC: on all rows (`shadow auc`), on outliers (`apart`), and on
    `typical` ones.
    """
    config, (rows, member) = NETS[case], sample_members(seed)
    net = train_net(config, rows[member], seed)
    correct, scores = net.predict(rows[:, :-1]) == rows[:, -1], logit_confidence(rows, net)
    row = {
        "gap": correct[member].mean() - correct[~member].mean(),
        "accuracy": correct[~member].mean(),
        "auc": AttackScores(scores[member], scores[~member]).auc,
    }
    if case == "held back":
        statistics, in_mask = train_shadow_models(
            lambda members, k: train_net(config, members, k), rows, logit_confidence, n_models=_N_SHADOWS, seed=seed + 1
        )
        ratio = lira(scores, statistics, in_mask)
        distances = knn_distances(rows[:, :-1], rows[:, :-1], 2)[:, 1]
        outlier = distances > np.quantile(distances, 1 - _OUTLIERS)
        for name, mask in (("shadow auc", outlier | ~outlier), ("apart", outlier), ("typical", ~outlier)):
            row[name] = AttackScores(ratio[member & mask], ratio[~member & mask]).auc
    return {"case": case, "seed": seed} | {name: round(float(value), 4) for name, value in row.items()}
