"""How much a network tells of its training rows, from one that hardly learns to one that learns them by heart.

Networks guess the occupation of people in Adult, 14 of them, from all other columns; 1,000 rows are learned and 1,000
are others. Attack: a member's loss is lower (Yeom et al., arXiv:1709.01604; Shokri et al., arXiv:1610.05820). For the
network that is held back most, shadow models ask of each row on its own how its loss falls once it is learned: that
finds people whom the mean over all hides, those apart from the rest above all.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table
from synthbook.core.types import Array
from synthbook.datasets import adult
from synthbook.evaluation.features import fit_table_encoder
from synthbook.experiments import experiment
from synthbook.privacy.attacks.membership import AttackScores, knn_distances, lira, train_shadow_models

ROWS, _SECRET = 1_000, "occupation"  # members, and as many others
_SHADOWS = 16
_APART = 0.2  # share of the rows that lie farthest from their nearest neighbour
TRIALS = "artifacts/calibration/overfitting/trials.json"


@dataclass(frozen=True)
class Net:
    """Units of the hidden layer, passes over the rows, and the price of large weights."""

    hidden: int
    passes: int
    decay: float


NETS: Mapping[str, Net] = {
    "held back": Net(8, 30, 1.0),
    "small": Net(16, 40, 0.1),
    "middling": Net(32, 60, 1e-2),
    "large": Net(64, 80, 1e-4),
    "by heart": Net(256, 120, 1e-4),
}
CASES = tuple(NETS)


def people(seed: int) -> tuple[Array, NDArray[np.bool_]]:
    """Rows of features with the occupation's number last (2,000, d + 1), and which of them are members (2,000,)."""
    train = adult().train
    there = np.flatnonzero(train[_SECRET].notna().to_numpy())
    drawn = np.random.default_rng(seed).permutation(there)[: 2 * ROWS]
    some = Table(train.frame.iloc[drawn], train.schema)
    x = fit_table_encoder(train.drop_column(_SECRET))(some.drop_column(_SECRET))
    return np.column_stack([x, some[_SECRET].cat.codes]), np.arange(2 * ROWS) < ROWS


def learn(net: Net, rows: Array, seed: int) -> MLPClassifier:
    """A network that has learned rows of features and number (N, d + 1)."""
    model = MLPClassifier(
        (net.hidden,),
        alpha=net.decay,
        max_iter=net.passes,
        n_iter_no_change=net.passes,
        batch_size=50,
        learning_rate_init=3e-3,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is meant to stop early
        return model.fit(rows[:, :-1], rows[:, -1].astype(int))


def confidence(rows: Array, model: MLPClassifier) -> Array:
    """log(p / (1 - p)) of each row's own occupation (N,): nearly normal, which `lira` asks for."""
    given, known = model.predict_proba(rows[:, :-1]), model.classes_
    place = np.searchsorted(known, rows[:, -1]).clip(max=len(known) - 1)
    p = np.where(known[place] == rows[:, -1], given[np.arange(len(rows)), place], 0.0)
    return np.asarray(np.log(p + 1e-9) - np.log(1 - p + 1e-9))


@experiment(
    "overfitting",
    help="Train networks of growing size on Adult, and attack their membership by loss.",
    data_source="networks trained on rows of Adult, and attacks on them",
    cases=CASES,
    budget={"rows": ROWS, "shadows": _SHADOWS},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """`gap` of accuracy between members and others, the `auc` of the attack by loss; of the network held back also
    the shadow models' AUC, on all (`shadow auc`), on rows `apart` and on `typical` ones."""
    if case not in NETS:
        raise InvalidArgument("case", case, f"one of {', '.join(NETS)}")
    net, (rows, member) = NETS[case], people(seed)
    model = learn(net, rows[member], seed)
    right, scores = model.predict(rows[:, :-1]) == rows[:, -1], confidence(rows, model)
    found = {
        "gap": right[member].mean() - right[~member].mean(),
        "accuracy": right[~member].mean(),
        "auc": AttackScores(scores[member], scores[~member]).auc,
    }
    if case == CASES[0]:
        statistics, in_mask = train_shadow_models(
            lambda mine, k: learn(net, mine, k), rows, confidence, n_models=_SHADOWS, seed=seed + 1
        )
        ratio = lira(scores, statistics, in_mask)
        away = knn_distances(rows[:, :-1], rows[:, :-1], 2)[:, 1]
        apart = away > np.quantile(away, 1 - _APART)
        for name, those in (("shadow auc", apart | ~apart), ("apart", apart), ("typical", ~apart)):
            found[name] = AttackScores(ratio[member & those], ratio[~member & those]).auc
    return {"case": case, "seed": seed} | {name: round(float(value), 4) for name, value in found.items()}
