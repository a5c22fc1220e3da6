"""Utility: train a model on synthetic rows, test it on held-out real rows (TSTR).

Reference protocols: trained on real rows (TRTR), also on as many as there are synthetic ones, and trained on real rows
but tested on synthetic ones (TRTS). All are blind to copying: a generator that repeats its training table has the
utility of the real rows (claim C6.1-4).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
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
from synthbook.core.table import (
    Codes,
    Column,
    Holdout,
    Schema,
    Table,
    check_holdout,
    refuse_holdout,
    sample_rows,
    unit_codes,
)
from synthbook.core.types import Array, Seed, child_seed
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import check_tables
from synthbook.evaluation.inference import Z_BAND

# ── Metrics of predicted probabilities, with bootstrap intervals ──
# All metrics take row weights: a bootstrap replicate is a row of weights, how often each test row was drawn.


METRICS = ("auc", "f1", "brier", "accuracy")


def bootstrap_weights(labels: Codes, replicates: int, *, seed: Seed, units: Codes | None = None) -> Array:
    """Bootstrap counts of each row, stratified by class, (1 + replicates, n); the first row is all ones.

    With `units` (n,), the index of each row's entity, entities are resampled with all their rows, whatever their class.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + replicates, len(labels)))
    if units is not None:
        total = int(units.max()) + 1
        weights[1:] = rng.multinomial(total, np.full(total, 1 / total), size=replicates)[:, units]
        return weights
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        picks = rng.integers(len(rows), size=(replicates, len(rows)))
        shifted = picks + np.arange(replicates)[:, None] * len(rows)
        weights[1:, rows] = np.bincount(shifted.ravel(), minlength=shifted.size).reshape(shifted.shape)
    return weights


def weighted_metrics(labels: Codes, probabilities: Array, weights: Array) -> dict[str, Array]:
    """Each of `METRICS`, (replicates,), of class codes (n,), probabilities (n, classes) and weights (replicates, n).

    Two classes: AUC and F1 of the second one. More: means over the classes that occur, each against the rest. Brier:
    mean squared error of the probabilities, summed over classes and halved, which for two classes is (p - y)^2. AUC is
    NaN if a single class occurs.
    """
    classes = probabilities.shape[1]
    scored = [1] if classes == 2 else list(np.unique(labels))
    predicted = probabilities.argmax(axis=1)
    total = weights.sum(axis=1)
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1) / 2
    return {
        "auc": np.mean([_auc(labels == c, probabilities[:, c], weights) for c in scored], axis=0),
        "f1": np.mean([_f1(labels == c, predicted == c, weights) for c in scored], axis=0),
        "brier": weights @ squared / total,
        "accuracy": weights @ (predicted == labels) / total,
    }


def _auc(positive: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    """Weighted AUC for all replicates at once: P(positive scores above negative), ties counted half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # first row of each group of equal scores
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)  # (replicates, groups)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((up * (below + down / 2)).sum(axis=1) / pairs)


def _f1(actual: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Array) -> Array:
    """2 TP / (2 TP + FP + FN), and 0 if the class neither occurs nor is predicted."""
    true_positives = weights @ (actual & predicted)
    errors = weights @ (actual ^ predicted)
    return np.asarray(2 * true_positives / np.maximum(2 * true_positives + errors, 1e-300))


# ── Train on synthetic, test on real ──


_MAX_ROWS = 10_000  # of a training table; the four default models on Adult then take about 20 s
_REPLICATES = 200  # bootstrap
TRTR_SIZE_MATCHED = "TRTR at n_s"  # on as many real rows as there are synthetic ones


def default_models() -> dict[str, Any]:
    """Four unfitted scikit-learn classifiers of different families."""
    return {
        "logistic regression": LogisticRegression(max_iter=500),
        "random forest": RandomForestClassifier(n_estimators=100, min_samples_leaf=2),
        "gradient boosting": HistGradientBoostingClassifier(early_stopping=False),
        "1-NN": KNeighborsClassifier(n_neighbors=1),
    }


def utility(
    synthetic: Table,
    *,
    train: Table,
    holdout: Holdout[Table],
    target: str,
    seed: Seed,
    models: Mapping[str, Any] | None = None,
    max_rows: int = _MAX_ROWS,
    bayes_accuracy: float | None = None,
) -> pd.DataFrame:
    """Scores of models trained on real and on synthetic rows, one row for each protocol and model.

    Protocols: TRTR, TSTR and TRTS, and with fewer synthetic than real rows "TRTR at n_s". Columns: protocol, model,
    n_train, n_test, then auc, f1, brier and accuracy, each with `_low` and `_high`, a 95 % bootstrap interval over the
    test rows, stratified by class (it ignores training-set variability). Multi-class scores as in `weighted_metrics`;
    of two classes, the second one of the schema is positive. Numbers are standardized on the training rows of each
    model. Tables of more than `max_rows` rows are subsampled for training, synthetic ones for testing as well. With
    `bayes_accuracy`, the Bayes-optimal accuracy on real rows, the column `exceeds_bayes` flags higher ones, see
    `exceeds_bayes_accuracy`. Rows without a label are dropped, and classes absent from training get probability 0, each
    with a warning.

    Raises `HoldoutError` unless only `holdout` is a `Holdout`, `InvalidArgument`, `SchemaError`.
    """
    for table in (train, synthetic):
        refuse_holdout(table, "training models for utility")
    check_holdout(holdout)
    check_tables(synthetic=synthetic, train=train, holdout=holdout.data)
    column = check_target(train.schema, target)
    if models is not None and not models:
        raise InvalidArgument("models", models, "at least one classifier by name, or None for the default models")
    if not isinstance(max_rows, int | np.integer) or max_rows < 2:
        raise InvalidArgument("max_rows", max_rows, "an integer of at least 2")
    if bayes_accuracy is not None and not 0 < bayes_accuracy <= 1:
        raise InvalidArgument("bayes_accuracy", bayes_accuracy, "a number above 0, at most 1")
    seeds = [child_seed(seed, i) for i in range(4)]
    # the same seed for both, so that a copy of the training table is subsampled alike
    train = sample_rows(_labeled_rows(train, target, "train"), max_rows, np.random.default_rng(seeds[0]))
    synthetic = sample_rows(_labeled_rows(synthetic, target, "synthetic"), max_rows, np.random.default_rng(seeds[0]))
    test = _labeled_rows(holdout.data, target, "holdout")
    protocols = [("TRTR", train, test), ("TSTR", synthetic, test), ("TRTS", train, synthetic)]
    if len(synthetic) < len(train):
        size_matched = sample_rows(train, len(synthetic), np.random.default_rng(seeds[1]))
        protocols.append((TRTR_SIZE_MATCHED, size_matched, test))
    rows = []
    for protocol, train_rows, test_rows in protocols:
        _warn_of_unseen(protocol, train_rows, test_rows, column)
        scores = _score_models(train_rows, test_rows, column, default_models() if models is None else models, seeds[2:])
        rows += [{"protocol": protocol} | row for row in scores]
    result = pd.DataFrame(rows)
    if bayes_accuracy is not None:
        se = np.sqrt(bayes_accuracy * (1 - bayes_accuracy) / result["n_test"])
        result["exceeds_bayes"] = [
            exceeds_bayes_accuracy(score, error, bayes_accuracy)
            for score, error in zip(result["accuracy"], se, strict=True)
        ]
    return result


def exceeds_bayes_accuracy(score: float, se: float, bayes_accuracy: float) -> bool:
    """Whether a score exceeds the Bayes-optimal accuracy by more than chance explains, as it does if test rows leaked.

    `se` is the standard error of the score on the test rows. Raises `InvalidArgument`.

    >>> exceeds_bayes_accuracy(0.97, 0.01, 0.8), exceeds_bayes_accuracy(0.82, 0.01, 0.8)
    (True, False)
    """
    for name, value in (("score", score), ("bayes_accuracy", bayes_accuracy)):
        if not (np.isfinite(value) and 0 <= value <= 1):
            raise InvalidArgument(name, value, "a number between 0 and 1")
    if not (np.isfinite(se) and se >= 0):
        raise InvalidArgument("se", se, "a finite standard error of at least 0")
    return bool(score > bayes_accuracy + Z_BAND * se)


def check_target(schema: Schema, target: str) -> Column:
    """Return the target column; raise `SchemaError` unless it is categorical or ordinal and others can predict it."""
    column = schema[target]
    if column.kind not in ("categorical", "ordinal"):
        raise SchemaError(f"column {target!r} is {column.kind}: the target must be categorical or ordinal")
    if len(column.categories) < 2:
        raise SchemaError(f"column {target!r} has a single category: nothing to predict")
    if not any(c.name != target and c.kind not in ("id", "text") for c in schema.columns):
        raise SchemaError(f"no column is left to predict {target!r} from")
    return column


def _labeled_rows(table: Table, target: str, name: str) -> Table:
    """The rows with a label; warns if others are dropped."""
    missing = table[target].isna()
    if missing.all():
        raise InvalidArgument(name, f"a table without a single {target!r}", "rows with labels")
    if not missing.any():
        return table
    warnings.warn(f"{name}: {int(missing.sum())} rows without {target!r} are dropped", stacklevel=3)
    return Table(table.frame[~missing], table.schema)


def _labels(table: Table, column: Column) -> Codes:
    return np.asarray(table[column.name].cat.codes, dtype=np.int64)


def _warn_of_unseen(protocol: str, train: Table, test: Table, column: Column) -> None:
    labels = _labels(test, column)
    unseen = [column.categories[code] for code in np.setdiff1d(labels, _labels(train, column))]
    if unseen:
        classes = f"{column.name} = {', '.join(unseen)}"
        warnings.warn(f"{protocol}: {classes} is absent from training and gets probability 0", stacklevel=3)
    if len(np.unique(labels)) == 1:
        warnings.warn(f"{protocol}: all test rows have the same {column.name}; AUC is NaN", stacklevel=3)


def _score_models(
    train: Table, test: Table, column: Column, models: Mapping[str, Any], seeds: list[np.random.SeedSequence]
) -> Iterator[dict[str, Any]]:
    train_labels, test_labels = _labels(train, column), _labels(test, column)
    train, test = train.drop_column(column.name), test.drop_column(column.name)
    encode = fit_table_encoder(train)
    x, x_test = encode(train), encode(test)
    # rows of one entity are resampled together
    units = None if test.schema.entity is None else unit_codes(test)
    quantile = np.quantile if units is None else np.nanquantile  # a resample of entities may lack a class
    weights = bootstrap_weights(test_labels, _REPLICATES, seed=seeds[0], units=units)
    for name, model in models.items():
        fitted = _fitted(model, x, train_labels, seeds[1])
        probabilities: Array = np.zeros((len(test), len(column.categories)))
        probabilities[:, fitted.classes_] = fitted.predict_proba(x_test)
        row: dict[str, Any] = {"model": name, "n_train": len(train), "n_test": len(test)}
        for metric, values in weighted_metrics(test_labels, probabilities, weights).items():
            row[metric] = float(values[0])
            row[f"{metric}_low"], row[f"{metric}_high"] = map(float, quantile(values[1:], (0.025, 0.975)))
        yield row


def _fitted(model: Any, x: Array, labels: Codes, seed: np.random.SeedSequence) -> Any:
    """A fitted copy of the model, or a constant classifier if there is a single class."""
    classifier = DummyClassifier() if len(np.unique(labels)) == 1 else clone(model)
    if "random_state" in classifier.get_params():
        classifier.set_params(random_state=int(seed.generate_state(1)[0]) % 2**31)
    return classifier.fit(x, labels)
