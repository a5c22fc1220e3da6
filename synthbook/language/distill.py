"""Distillation: a student learns what a teacher says of inputs, not what is true of them.

    hard labels: argmax_k p_k(x)          soft labels: -sum_k p_k(x) log q_k(x)         Hinton et al., arXiv:1503.02531

The loss with soft labels is that of as many weighted rows as there are classes, so every learner that takes weights can
be taught by probabilities. Inputs may come from anywhere: real rows without labels, a generator, a language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table
from synthbook.datasets import adult
from synthbook.generators.tabular.trees import Cart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = pd.DataFrame | Sequence[str] | NDArray[np.float64]
TARGET, RICH = "income", ">50K"
TREES, LEAVES = 50, 31
TEACHER_ROWS, GENERATOR_ROWS, SMALL, TRANSFER, TIMES = 20_000, 10_000, 100, (100, 400, 1_600, 6_400), 3
CASES = ("adult",)
TRIALS = "artifacts/calibration/distillation/trials.json"  # of `synthbook calibrate distillation`


def distill(teacher: Any, student: Any, inputs: Rows, *, soft: bool = True) -> Any:
    """The student, fitted to what the teacher says of the inputs: its probabilities, or its most likely class.

    `student` is a scikit-learn classifier that takes weights, or a pipeline that ends with one. Raises
    `InvalidArgument` for a teacher without probabilities, or no inputs.
    """
    if not hasattr(teacher, "predict_proba"):
        raise InvalidArgument("teacher", type(teacher).__name__, "a fitted classifier with predict_proba")
    if not len(inputs):
        raise InvalidArgument("inputs", 0, "at least one input")
    odds = teacher.predict_proba(inputs)  # (n, K)
    if not soft:
        return student.fit(inputs, teacher.classes_[odds.argmax(axis=1)])
    n, classes = odds.shape
    weights = odds.T.ravel()  # of each input as the first class, then of each as the second, ...
    there = weights > 0
    rows, labels = np.tile(np.arange(n), classes)[there], np.repeat(teacher.classes_, n)[there]
    last = f"{student.steps[-1][0]}__" if hasattr(student, "steps") else ""
    return student.fit(_rows(inputs, rows), labels, **{f"{last}sample_weight": weights[there]})


def _rows(inputs: Rows, rows: NDArray[np.int64]) -> Any:
    if isinstance(inputs, pd.DataFrame):
        return inputs.iloc[rows]
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[i] for i in rows]


# ── the exact case ───────────────────────────────────────────────────────────────────────────────────────────────────


def linear(
    real: int, drawn: int, *, d: int = 10, noise: float = 1.0, sampled: bool = True, runs: int = 4_000, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Excess risks (runs,) of a linear teacher of `real` rows and its student of `drawn` rows, and their difference.

    Inputs are standard normal in d dimensions, y = w x + `noise` e. The teacher labels with its own w, and with noise
    of the same size where `sampled`. The excess risk of an estimate is its squared distance from w. "apart": the
    largest difference between a weight of the student and one of the teacher.
    """
    if min(real, drawn) < d + 2:
        raise InvalidArgument("real, drawn", (real, drawn), f"at least {d + 2} rows each")
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((runs, d, 1))
    teacher = _fitted(rng, w, real, noise)
    student = _fitted(rng, teacher, drawn, noise if sampled else 0.0)
    risks = {name: ((b - w) ** 2).sum(axis=(1, 2)) for name, b in {"teacher": teacher, "student": student}.items()}
    return risks | {"apart": np.abs(student - teacher).max(axis=(1, 2))}


def _fitted(rng: np.random.Generator, w: NDArray[np.float64], n: int, noise: float) -> NDArray[np.float64]:
    """Least squares (runs, d, 1) on n fresh rows labelled by w."""
    x = rng.standard_normal((len(w), n, w.shape[1]))
    y = x @ w + noise * rng.standard_normal((len(w), n, 1))
    return np.linalg.solve(x.transpose(0, 2, 1) @ x, x.transpose(0, 2, 1) @ y).astype(np.float64)


def expected_risk(real: int, drawn: int | None = None, *, d: int = 10, noise: float = 1.0) -> float:
    """E[excess risk] of the teacher, or of its student where `drawn` is given and labels are sampled.

        sigma^2 d / (n_r - d - 1)  +  sigma^2 d / (n_s - d - 1)        the mean of an inverse Wishart matrix

    >>> expected_risk(51), expected_risk(51, 51)
    (0.25, 0.5)
    """
    own = noise**2 * d / (real - d - 1)
    return own if drawn is None else own + noise**2 * d / (drawn - d - 1)


def better_bias(*, real: int = 400, drawn: int = 4_000, d: int = 10, seed: int = 0) -> dict[str, float]:
    """Accuracies of a nearest-neighbour teacher, a logistic student of it, and a logistic model of the real rows.

    The truth is logistic: the student has the better prejudice, and gets from its teacher's noise more than it knows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng([seed, 49])
    w = rng.standard_normal(d)
    w *= 2 / np.linalg.norm(w)

    def world(n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x = rng.standard_normal((n, d))
        return x, rng.random(n) < 1 / (1 + np.exp(-x @ w))

    (x, y), (fresh, _), (test, truth) = world(real), world(drawn), world(20_000)
    teacher = KNeighborsClassifier(1).fit(x, y)
    student = distill(teacher, LogisticRegression(), fresh, soft=False)
    models = {"teacher": teacher, "student": student, "logistic": LogisticRegression().fit(x, y)}
    return {name: float((model.predict(test) == truth).mean()) for name, model in models.items()}


# ── a table ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def teacher_of(inputs: pd.DataFrame, labels: pd.Series[Any]) -> Any:
    """`TREES` boosted trees of at most `LEAVES` leaves, on all real rows that there are."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((codes, make_column_selector(dtype_exclude="number")), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=LEAVES, early_stopping=False)
    return make_pipeline(columns, trees).fit(inputs, labels)


def sizes(student: Any) -> tuple[int, int]:
    """Numbers in the teacher, at most (two for each split, one for each leaf), and in a student."""
    return TREES * (2 * (LEAVES - 1) + LEAVES), student[-1].coef_.size + 1


def compressed(*, seed: int) -> dict[str, float]:
    """Areas under the ROC curve on Adult's test file, agreement with the teacher, and the numbers in both.

    The transfer rows are drawn from sequential trees, and their incomes dropped. Each size is the mean of `TIMES`
    different sets, so that a step from one to the next is no accident of one of them.
    """
    from sklearn.metrics import roc_auc_score

    data = adult()
    rows = np.random.default_rng([seed, 50]).permutation(len(data.train))
    many, few = (_split(data.train.frame.iloc[part]) for part in (rows[:TEACHER_ROWS], rows[TEACHER_ROWS:][:SMALL]))
    inputs, truth = _split(data.test.data.frame)
    teacher = teacher_of(*many)
    generator = Cart().fit(Table(data.train.frame.iloc[rows[:GENERATOR_ROWS]], data.train.schema), seed=seed)
    drawn, _ = _split(generator.sample(TIMES * TRANSFER[-1], seed=seed).frame)
    says = teacher.predict(inputs)

    def scored(model: Any) -> tuple[float, float]:
        odds = model.predict_proba(inputs)[:, list(model.classes_).index(RICH)]
        return float(roc_auc_score(truth == RICH, odds)), float((model.predict(inputs) == says).mean())

    small = small_student().fit(*few)
    found = {"teacher auc": scored(teacher)[0]}
    found["small auc"], found["small agreement"] = scored(small)
    for n in TRANSFER:
        for kind, soft in (("soft", True), ("hard", False)):
            sets = [drawn.iloc[k * n : (k + 1) * n] for k in range(TIMES)]
            students = [distill(teacher, small_student(), some, soft=soft) for some in sets]
            both = np.mean([scored(student) for student in students], axis=0)
            found[f"{kind} {n} auc"], found[f"{kind} {n} agreement"] = (float(value) for value in both)
    numbers = zip(("teacher numbers", "student numbers"), sizes(students[0]), strict=True)
    return found | {name: float(count) for name, count in numbers}


def _split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series[Any]]:
    return frame.drop(columns=TARGET), frame[TARGET].astype(str)


def trial(case: str, *, seed: int) -> dict[str, Any]:
    """One teacher and its students: a flat row."""
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in compressed(seed=seed).items()}


def plot_transfer(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Area under the curve against the rows of the transfer set: soft and hard labels, teacher and small student."""
    from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axis

    ax = new_axis(ax, width=6.5, height=4)
    for kind, colour, marker in (("soft", BLUE, "o"), ("hard", VERMILLION, "s")):
        values = trials[[f"{kind} {n} auc" for n in TRANSFER]]
        ax.plot(TRANSFER, values.mean(), marker + "-", color=colour, label=f"student of {kind} labels")
        ax.plot(TRANSFER, values.T, marker, color=colour, alpha=0.25, markersize=4)
    for name, line in (("teacher", "--"), ("small", ":")):
        label = "the teacher" if name == "teacher" else f"the student, taught by {SMALL} real rows"
        ax.axhline(trials[f"{name} auc"].mean(), color=BLACK, linestyle=line, label=label)
    ax.set(xscale="log", xlabel="drawn rows that the teacher labelled", ylabel="area under the ROC curve, real rows")
    ax.legend(frameon=False, fontsize=8)
    return ax
