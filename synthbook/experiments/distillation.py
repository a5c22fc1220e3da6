"""Distill a large model of a table into small students: what fits into forty times fewer numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synthbook.core.table import Table
from synthbook.datasets import adult
from synthbook.experiments import experiment
from synthbook.generators.tabular.trees import CART
from synthbook.language.distill import distill

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TARGET, _RICH = "income", ">50K"
_TREES, _LEAVES = 50, 31
_TEACHER_ROWS, _GENERATOR_ROWS, _SMALL, TRANSFER, _REPEATS = 20_000, 10_000, 100, (100, 400, 1_600, 6_400), 3
_CASES = ("adult",)
TRIALS = "artifacts/calibration/distillation/trials.json"


def small_student() -> Any:
    """A logistic model of a table's columns: a weight for each category and each number."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_column_selector(dtype_include="number")
    others = make_column_selector(dtype_exclude="number")
    columns = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore", min_frequency=1), others)
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1_000))


def _fit_teacher(inputs: pd.DataFrame, labels: pd.Series[Any]) -> Any:
    """`TREES` boosted trees of at most `LEAVES` leaves, on all real rows that there are."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((codes, make_column_selector(dtype_exclude="number")), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False)
    return make_pipeline(columns, trees).fit(inputs, labels)


def parameter_counts(student: Any) -> tuple[int, int]:
    """Numbers in the teacher, at most (two for each split, one for each leaf), and in a student."""
    return _TREES * (2 * (_LEAVES - 1) + _LEAVES), student[-1].coef_.size + 1


def _compress(*, seed: int) -> dict[str, float]:
    """Areas under the ROC curve on Adult's test file, agreement with the teacher, and the numbers in both.

    The transfer rows are drawn from sequential trees, and their incomes dropped. Each size is the mean of `REPEATS`
    different sets, so that a step from one to the next is no accident of one of them.
    """
    from sklearn.metrics import roc_auc_score

    data = adult()
    rows = np.random.default_rng([seed, 50]).permutation(len(data.train))
    many, few = (_split(data.train.frame.iloc[part]) for part in (rows[:_TEACHER_ROWS], rows[_TEACHER_ROWS:][:_SMALL]))
    inputs, truth = _split(data.test.data.frame)
    teacher = _fit_teacher(*many)
    generator = CART().fit(Table(data.train.frame.iloc[rows[:_GENERATOR_ROWS]], data.train.schema), seed=seed)
    drawn, _ = _split(generator.sample(_REPEATS * TRANSFER[-1], seed=seed).frame)
    says = teacher.predict(inputs)

    def scored(model: Any) -> tuple[float, float]:
        odds = model.predict_proba(inputs)[:, list(model.classes_).index(_RICH)]
        return float(roc_auc_score(truth == _RICH, odds)), float((model.predict(inputs) == says).mean())

    small = small_student().fit(*few)
    found = {"teacher auc": scored(teacher)[0]}
    found["small auc"], found["small agreement"] = scored(small)
    for n in TRANSFER:
        for kind, soft in (("soft", True), ("hard", False)):
            sets = [drawn.iloc[k * n : (k + 1) * n] for k in range(_REPEATS)]
            students = [distill(teacher, small_student(), some, soft=soft) for some in sets]
            both = np.mean([scored(student) for student in students], axis=0)
            found[f"{kind} {n} auc"], found[f"{kind} {n} agreement"] = (float(value) for value in both)
    numbers = zip(("teacher numbers", "student numbers"), parameter_counts(students[0]), strict=True)
    return found | {name: float(count) for name, count in numbers}


def _split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series[Any]]:
    return frame.drop(columns=_TARGET), frame[_TARGET].astype(str)


@experiment(
    "distillation",
    help="Distill a large model of Adult into small students, with soft and with hard labels.",
    data_source="students of a teacher on Adult, and of drawn rows that it labelled",
    cases=_CASES,
    budget={"transfer": TRANSFER, "times": _REPEATS},
)
def trial(case: str, *, seed: int) -> dict[str, Any]:
    """One teacher and its students: a flat row."""
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in _compress(seed=seed).items()}


def plot_transfer(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Area under the curve against the rows of the transfer set: soft and hard labels, teacher and small student."""
    from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes

    ax = new_axes(ax, width=6.5, height=4)
    for kind, colour, marker in (("soft", BLUE, "o"), ("hard", VERMILLION, "s")):
        values = trials[[f"{kind} {n} auc" for n in TRANSFER]]
        ax.plot(TRANSFER, values.mean(), marker + "-", color=colour, label=f"student of {kind} labels")
        ax.plot(TRANSFER, values.T, marker, color=colour, alpha=0.25, markersize=4)
    for name, line in (("teacher", "--"), ("small", ":")):
        label = "the teacher" if name == "teacher" else f"the student, taught by {_SMALL} real rows"
        ax.axhline(trials[f"{name} auc"].mean(), color=BLACK, linestyle=line, label=label)
    ax.set(xscale="log", xlabel="drawn rows that the teacher labelled", ylabel="area under the ROC curve, real rows")
    ax.legend(frameon=False, fontsize=8)
    return ax
