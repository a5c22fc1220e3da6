"""Is it useful? Train a model on synthetic rows, test it on real rows that no generator has seen (TSTR).

A score alone says little, so others stand beside it: trained on real rows (TRTR), the same on no more real rows than
there are synthetic ones, and trained on real rows but tested on synthetic ones (TRTS). All of them are blind to
copying: a generator that repeats its training table has the utility of the real rows (claim C6.1-4).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.table import Column, Holdout, Schema, Table, refuse_holdout, unit_codes
from synthbook.core.types import Array, Seed
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import check_tables
from synthbook.evaluation.inference import Z_BAND

# ── How well a classifier's probabilities fit the labels of test rows, and how far chance moves that ──
# All scores take a weight for each row, so that a bootstrap replicate is nothing but a row of weights: how often each
# test row was drawn.


METRICS = ("auc", "f1", "brier", "accuracy")
Codes = NDArray[np.int64]


def bootstrap_weights(labels: Codes, replicates: int, *, seed: Seed, units: Codes | None = None) -> Array:
    """(1 + replicates, n): a row of ones, then how often each row is drawn when each class is drawn anew by itself.

    `units` (n,) number the entity of each row: entities are drawn then, with all their rows, whatever their classes.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + replicates, len(labels)))
    if units is not None:
        total = int(units.max()) + 1
        weights[1:] = rng.multinomial(total, np.full(total, 1 / total), size=replicates)[:, units]
        return weights
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        drawn = rng.integers(len(rows), size=(replicates, len(rows)))
        shifted = drawn + np.arange(replicates)[:, None] * len(rows)
        weights[1:, rows] = np.bincount(shifted.ravel(), minlength=shifted.size).reshape(shifted.shape)
    return weights


def weighted_metrics(labels: Codes, probabilities: Array, weights: Array) -> dict[str, Array]:
    """Each of `METRICS`, (replicates,), of class codes (n,), probabilities (n, classes) and weights (replicates, n).

    Two classes: AUC and F1 of the second one. More: means over the classes that occur among the labels, each against
    the rest (AUC) or by itself (F1). Brier: mean squared error of the probabilities, summed over classes and halved,
    which for two classes is (p - y)^2. AUC is NaN where a single class occurs.
    """
    classes = probabilities.shape[1]
    judged = [1] if classes == 2 else list(np.unique(labels))
    predicted = probabilities.argmax(axis=1)
    total = weights.sum(axis=1)
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1) / 2
    return {
        "auc": np.mean([_auc(labels == c, probabilities[:, c], weights) for c in judged], axis=0),
        "f1": np.mean([_f1(labels == c, predicted == c, weights) for c in judged], axis=0),
        "brier": weights @ squared / total,
        "accuracy": weights @ (predicted == labels) / total,
    }


def _auc(positive: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    """Chance that a positive row scores higher than a negative one, ties counted half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # first row of each group of equal scores
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)  # (replicates, groups)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((up * (below + down / 2)).sum(axis=1) / pairs)


def _f1(actual: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Array) -> Array:
    """2 TP / (2 TP + FP + FN), and 0 where the class neither occurs nor is predicted."""
    hit = weights @ (actual & predicted)
    missed = weights @ (actual ^ predicted)
    return np.asarray(2 * hit / np.maximum(2 * hit + missed, 1e-300))


# ── Train on synthetic, test on real ──


MAX_ROWS = 10_000  # of a table that a model learns from: four default models on Adult then take some 20 s in all
REPLICATES = 200  # bootstrap
TRTR_SIZE_MATCHED = "TRTR at n_s"  # trained on as many real rows as there are synthetic ones


def default_models() -> dict[str, Any]:
    """Four scikit-learn classifiers that see different things; a new, unfitted one of each."""
    return {
        "logistic regression": LogisticRegression(max_iter=500),
        "random forest": RandomForestClassifier(n_estimators=100, min_samples_leaf=2),
        "gradient boosting": HistGradientBoostingClassifier(early_stopping=False),
        "1-NN": KNeighborsClassifier(n_neighbors=1),
    }


def utility(
    train: Table,
    synthetic: Table,
    test: Holdout[Table],
    *,
    target: str,
    seed: Seed,
    models: Mapping[str, Any] | None = None,
    max_rows: int = MAX_ROWS,
    bayes_accuracy: float | None = None,
) -> pd.DataFrame:
    """Scores of models trained on real and on synthetic rows, one row for each protocol and model.

    Protocols: TRTR, TSTR and TRTS, and where there are fewer synthetic than real rows "TRTR at n_s". Columns: protocol,
    model, n_train, n_test, then auc, f1, brier and accuracy, each with `_low` and `_high`, a 95 % bootstrap interval
    over the test rows, drawn class by class (it ignores training-set variability). For a target of more than two
    classes see `weighted_metrics`; with two, the second one that the schema names is the positive one. Numbers are
    standardised on the rows a model learns from. Tables of more than `max_rows` rows are cut at random to learn from;
    synthetic ones to test on as well. With `bayes_accuracy`, the accuracy that nobody can beat on real rows, the column
    `exceeds_bayes` tells which scores do: see `exceeds_bayes_accuracy`. Rows without a label are left out, with a
    warning; so is a warning given for classes that a model never saw, which it gives probability 0.

    Raises `HoldoutError` unless only `test` is a `Holdout`, `InvalidArgument`, `SchemaError`.
    """
    for table in (train, synthetic):
        refuse_holdout(table, "training the models that measure utility")
    if not isinstance(test, Holdout):
        raise InvalidArgument("test", type(test).__name__, "a Holdout: real rows that no generator has learned from")
    check_tables(train=train, synthetic=synthetic, test=test.data)
    column = check_target(train.schema, target)
    if models is not None and not models:
        raise InvalidArgument("models", models, "at least one classifier by name, or None for four of them")
    if not isinstance(max_rows, int | np.integer) or max_rows < 2:
        raise InvalidArgument("max_rows", max_rows, "a whole number of at least 2")
    if bayes_accuracy is not None and not 0 < bayes_accuracy <= 1:
        raise InvalidArgument("bayes_accuracy", bayes_accuracy, "a share above 0, of at most 1")
    root = np.random.SeedSequence(seed) if isinstance(seed, int | np.integer) else seed
    seeds = [np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, i)) for i in range(4)]
    real = _cut(_labelled(train, column, "train"), max_rows, seeds[0])
    made = _cut(_labelled(synthetic, column, "synthetic"), max_rows, seeds[0])
    kept = _labelled(test.data, column, "test")
    trials = [("TRTR", real, kept), ("TSTR", made, kept), ("TRTS", real, made)]
    if len(made) < len(real):
        trials.append((TRTR_SIZE_MATCHED, _cut(real, len(made), seeds[1]), kept))
    rows = []
    for protocol, learned, judged in trials:
        _warn_of_unseen(protocol, learned, judged, column)
        for row in _trial(learned, judged, column, default_models() if models is None else models, seeds[2:]):
            rows.append({"protocol": protocol} | row)
    result = pd.DataFrame(rows)
    if bayes_accuracy is not None:
        se = np.sqrt(bayes_accuracy * (1 - bayes_accuracy) / result["n_test"])
        result["exceeds_bayes"] = [
            exceeds_bayes_accuracy(score, error, bayes_accuracy)
            for score, error in zip(result["accuracy"], se, strict=True)
        ]
    return result


def exceeds_bayes_accuracy(score: float, se: float, best: float) -> bool:
    """Whether a score lies further above the best possible one than chance explains: the test rows have leaked.

    `se` is the standard error of a score on the test rows. Raises `InvalidArgument`.

    >>> exceeds_bayes_accuracy(0.97, 0.01, best=0.8), exceeds_bayes_accuracy(0.82, 0.01, best=0.8)
    (True, False)
    """
    for name, value in (("score", score), ("best", best)):
        if not (np.isfinite(value) and 0 <= value <= 1):
            raise InvalidArgument(name, value, "a share between 0 and 1")
    if not (np.isfinite(se) and se >= 0):
        raise InvalidArgument("se", se, "a finite standard error of at least 0")
    return bool(score > best + Z_BAND * se)


@dataclass(frozen=True)
class _Labelled:
    """Rows without their target, and the target as class codes (n,)."""

    table: Table
    labels: Codes

    def __len__(self) -> int:
        return len(self.labels)


def check_target(schema: Schema, target: str) -> Column:
    """The column to predict, if it is one of categories and others are left to predict it from; else `SchemaError`."""
    column = schema[target]
    if column.kind not in ("categorical", "ordinal"):
        raise SchemaError(f"column {target!r} is {column.kind}: a target is a column of categories")
    if len(column.categories) < 2:
        raise SchemaError(f"column {target!r} has a single category: there is nothing to predict")
    if not any(c.name != target and c.kind not in ("id", "text") for c in schema.columns):
        raise SchemaError(f"no column is left to predict {target!r} from")
    return column


def _labelled(table: Table, column: Column, name: str) -> _Labelled:
    frame = table.frame
    absent = frame[column.name].isna()
    if absent.all():
        raise InvalidArgument(name, f"a table without a single {column.name!r}", "rows with labels")
    if absent.any():
        warnings.warn(f"{name}: {int(absent.sum())} rows without {column.name!r} are left out", stacklevel=3)
    frame = frame[~absent]
    features = Table(frame, table.schema).drop_column(column.name)
    return _Labelled(features, np.asarray(frame[column.name].cat.codes, dtype=np.int64))


def _cut(rows: _Labelled, n: int, seed: np.random.SeedSequence) -> _Labelled:
    if len(rows) <= n:
        return rows
    kept = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False))
    return _Labelled(Table(rows.table.frame.iloc[kept], rows.table.schema), rows.labels[kept])


def _warn_of_unseen(protocol: str, learned: _Labelled, judged: _Labelled, column: Column) -> None:
    unseen = [column.categories[code] for code in np.setdiff1d(judged.labels, learned.labels)]
    if unseen:
        what = f"{column.name} = {', '.join(unseen)}"
        warnings.warn(f"{protocol}: nothing to learn {what} from; it gets probability 0", stacklevel=3)
    if len(np.unique(judged.labels)) == 1:
        warnings.warn(f"{protocol}: all rows to test on have the same {column.name}; AUC is NaN", stacklevel=3)


def _trial(
    learned: _Labelled,
    judged: _Labelled,
    column: Column,
    models: Mapping[str, Any],
    seeds: list[np.random.SeedSequence],
) -> Iterator[dict[str, Any]]:
    encode = fit_table_encoder(learned.table)
    x, y = encode(learned.table), encode(judged.table)
    # rows of one entity are drawn together
    units = None if judged.table.schema.entity is None else unit_codes(judged.table)
    quantile = np.quantile if units is None else np.nanquantile  # a draw of entities may lack a class
    weights = bootstrap_weights(judged.labels, REPLICATES, seed=seeds[0], units=units)
    for name, model in models.items():
        fitted = _fitted(model, x, learned.labels, seeds[1])
        probabilities: Array = np.zeros((len(judged), len(column.categories)))
        probabilities[:, fitted.classes_] = fitted.predict_proba(y)
        row: dict[str, Any] = {"model": name, "n_train": len(learned), "n_test": len(judged)}
        measured = weighted_metrics(judged.labels, probabilities, weights)
        for score in METRICS:
            row[score] = float(measured[score][0])
            row[f"{score}_low"], row[f"{score}_high"] = map(float, quantile(measured[score][1:], (0.025, 0.975)))
        yield row


def _fitted(model: Any, x: Array, labels: Codes, seed: np.random.SeedSequence) -> Any:
    """A fitted copy of the model, or one that always says the same where there is a single class to learn."""
    chosen = DummyClassifier() if len(np.unique(labels)) == 1 else clone(model)
    if "random_state" in chosen.get_params():
        chosen.set_params(random_state=int(seed.generate_state(1)[0]) % 2**31)
    return chosen.fit(x, labels)
