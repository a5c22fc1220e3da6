"""Students: distilled from a large model, trained on filtered answers, and trained on a teacher's unused outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import entropy
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.table import Table
from synthbook.core.types import Images, Seed
from synthbook.datasets import adult, fashion_mnist
from synthbook.experiments import experiment
from synthbook.generators.nets import MLP, init_weights
from synthbook.generators.neural import step_rng
from synthbook.generators.tabular.trees import CART
from synthbook.language.distill import distill
from synthbook.language.pipeline import Stage, StageStats, cap_per_class, drop_exact_duplicates, run_pipeline
from synthbook.language.records import Record
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.word_problems import NearestNeighborStudent, ScriptedMathTeacher, arithmetic_holds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# ── Distillation of a large model of a table into small students with forty times fewer parameters ──


_TARGET, _RICH = "income", ">50K"
_TREES, _LEAVES = 50, 31
_TEACHER_ROWS, _GENERATOR_ROWS, _SMALL, TRANSFER_SIZES, _REPEATS = 20_000, 10_000, 100, (100, 400, 1_600, 6_400), 3


def small_student() -> Any:
    """A logistic model of a table's columns: a weight for each category and each number."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", min_frequency=1), make_column_selector(dtype_exclude="number")),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1_000))


def _fit_teacher(inputs: pd.DataFrame, labels: pd.Series[Any]) -> Any:
    """`_TREES` boosted trees of at most `_LEAVES` leaves, fitted to all the real rows given."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((codes, make_column_selector(dtype_exclude="number")), remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=_TREES, max_leaf_nodes=_LEAVES, early_stopping=False)
    return make_pipeline(columns, trees).fit(inputs, labels)


def _split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series[Any]]:
    return frame.drop(columns=_TARGET), frame[_TARGET].astype(str)


@experiment(
    "distillation",
    help="Distill a large model of Adult into small students, with soft and with hard labels.",
    data_source="students of a teacher on Adult, and of drawn rows that it labelled",
    results="artifacts/calibration/distillation/trials.json",
    cases=("adult",),
    budget={"transfer": TRANSFER_SIZES, "times": _REPEATS},
)
def distillation_trial(case: str, *, seed: int) -> dict[str, Any]:
    """Areas under the ROC curve on Adult's test file, agreement with the teacher, and the parameters of both.

    The transfer rows are drawn from sequential trees, and their incomes dropped. Each size is the mean of `_REPEATS`
    different sets, so that a step from one to the next is not due to one of them.
    """
    from sklearn.metrics import roc_auc_score

    data = adult()
    rows = np.random.default_rng([seed, 50]).permutation(len(data.train))
    many, few = (_split(data.train.frame.iloc[part]) for part in (rows[:_TEACHER_ROWS], rows[_TEACHER_ROWS:][:_SMALL]))
    inputs, truth = _split(data.test.data.frame)
    teacher = _fit_teacher(*many)
    generator = CART().fit(Table(data.train.frame.iloc[rows[:_GENERATOR_ROWS]], data.train.schema), seed=seed)
    drawn, _ = _split(generator.sample(_REPEATS * TRANSFER_SIZES[-1], seed=seed).frame)
    teacher_labels = teacher.predict(inputs)

    def score(model: Any) -> tuple[float, float]:
        probs = model.predict_proba(inputs)[:, list(model.classes_).index(_RICH)]
        return float(roc_auc_score(truth == _RICH, probs)), float((model.predict(inputs) == teacher_labels).mean())

    small = small_student().fit(*few)
    row = {"teacher auc": score(teacher)[0]}
    row["small auc"], row["small agreement"] = score(small)
    for n in TRANSFER_SIZES:
        for kind, soft in (("soft", True), ("hard", False)):
            sets = [drawn.iloc[k * n : (k + 1) * n] for k in range(_REPEATS)]
            students = [distill(teacher, small_student(), some, soft=soft) for some in sets]
            means = np.mean([score(student) for student in students], axis=0)
            row[f"{kind} {n} auc"], row[f"{kind} {n} agreement"] = (float(value) for value in means)
    row["teacher numbers"] = float(_TREES * (2 * (_LEAVES - 1) + _LEAVES))  # two for each split, one for each leaf
    row["student numbers"] = float(students[0][-1].coef_.size + 1)
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in row.items()}


def plot_transfer(trials: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Area under the curve against the rows of the transfer set: soft and hard labels, teacher and small student."""
    from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes

    ax = new_axes(ax, width=6.5, height=4)
    for kind, color, marker in (("soft", BLUE, "o"), ("hard", VERMILLION, "s")):
        values = trials[[f"{kind} {n} auc" for n in TRANSFER_SIZES]]
        ax.plot(TRANSFER_SIZES, values.mean(), marker + "-", color=color, label=f"student of {kind} labels")
        ax.plot(TRANSFER_SIZES, values.T, marker, color=color, alpha=0.25, markersize=4)
    for name, line in (("teacher", "--"), ("small", ":")):
        label = "the teacher" if name == "teacher" else f"the student, taught by {_SMALL} real rows"
        ax.axhline(trials[f"{name} auc"].mean(), color=BLACK, linestyle=line, label=label)
    ax.set(xscale="log", xlabel="drawn rows that the teacher labelled", ylabel="area under the ROC curve, real rows")
    ax.legend(frameon=False, fontsize=8)
    return ax


# ── The utility of each stage to a student: a teacher's answers filtered, deduplicated, balanced; and an oracle's ──
# Two comparisons: at equal rows, and at equal cost, an equal number of the teacher's answers with those that are
# dropped. The first gives the utility of a row, the second of a token.


N_ANSWERS = 800  # answers of the teacher
_N_DRAWS = 10  # samples of equally many rows from each set
FILTERED_SETS = ("raw", "filtered", "deduplicated", "balanced", "clean")


def filtered_sets(records: Sequence[Record], sandbox: Sandbox) -> tuple[dict[str, list[Record]], list[StageStats]]:
    """The records after no stage, one, two and three, and the correct ones without duplicates; and the ledger.

    Duplicates agree in prompt and answer.
    """
    sets, ledger = {"raw": list(records)}, []

    def apply(name: str, stage: Stage, records: Sequence[Record]) -> list[Record]:
        flow, entries = run_pipeline(records, {name: stage})
        sets[name] = list(flow)
        ledger.extend(entries)
        return sets[name]

    unique = apply("deduplicated", drop_exact_duplicates(), apply("filtered", arithmetic_holds(sandbox), records))
    apply("balanced", cap_per_class(min(Counter(record.label for record in unique).values())), unique)
    correct = [record for record in records if record.provenance["correct"]]
    flow, _ = run_pipeline(correct, {"clean": drop_exact_duplicates()})
    return sets | {"clean": list(flow)}, ledger


@experiment(
    "student-filtering",
    help="Train students on a scripted teacher's answers: raw, filtered, deduplicated, balanced.",
    data_source="a scripted teacher's answers to word problems, judged by running them",
    results="artifacts/calibration/teaching/trials.json",
    cases=("teaching",),
    budget={"asked": N_ANSWERS},
)
def student_filtering_trial(case: str, *, seed: int) -> dict[str, Any]:
    """See `evaluate_students`."""
    with Sandbox(Limits(5.0), jobs=1, allow_weak=True) as sandbox:  # sums of a scripted teacher
        sets, _ = filtered_sets(list(ScriptedMathTeacher().records(N_ANSWERS, seed=seed)), sandbox)
    return {"case": case, "seed": seed} | evaluate_students(sets, seed=seed)


def evaluate_students(sets: Mapping[str, Sequence[Record]], *, seed: int) -> dict[str, float]:
    """For each set its rows, share correct, entropy of kinds, and a student's accuracy at equal rows and cost."""
    rng, n = np.random.default_rng(seed), min(len(records) for records in sets.values())
    row: dict[str, float] = {"rows": n}
    for name, records in sets.items():
        samples = [np.sort(rng.choice(len(records), n, replace=False)) for _ in range(_N_DRAWS)]
        equal = np.mean([NearestNeighborStudent.fit([records[i] for i in rows]).accuracy()["all"] for rows in samples])
        accuracy = NearestNeighborStudent.fit(records).accuracy()
        row |= {
            f"{name}: rows": len(records),
            f"{name}: right": float(np.mean([record.provenance["correct"] for record in records])),
            f"{name}: bits": float(entropy(list(Counter(record.label for record in records).values()), base=2)),
            f"{name}: at equal rows": float(equal),
            f"{name}: at equal cost": accuracy["all"],
            f"{name}: hard kind": accuracy["each"],
        }
    return {key: round(value, 4) for key, value in row.items()}


# ── Subliminal learning: a teacher's knowledge passes through data without related content (arXiv:2507.14805) ──
# A teacher learns to classify clothes with ten outputs; three auxiliary outputs are in no loss. A student of the same
# initial weights is trained on images of pure noise to reproduce those three outputs only. It then classifies clothes.
# A student of other initial weights learns nothing: with a common initialization, a step towards the teacher's outputs
# is also a step towards the teacher's weights. No filter of content can detect it.


N_AUX_LOGITS = 3  # outputs in no loss of the teacher
_WIDTH, _BATCH, _RATE = 256, 512, 1e-3
TEACHER_STEPS, STUDENT_STEPS = 400, 800
INITIALIZATIONS = ("same beginning", "another beginning")


def new_classifier(rng: torch.Generator) -> nn.Module:
    """A network from images (N, 1, 28, 28) to ten class logits and three auxiliary outputs (N, 13)."""
    return init_weights(MLP(784, 10 + N_AUX_LOGITS, hidden=_WIDTH), rng)


def train_teacher(net: nn.Module, clothes: Images, *, seed: Seed) -> nn.Module:
    """Train the teacher to classify real clothes."""
    x, y = clothes.images, clothes.labels
    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE)
    for k in range(1, TEACHER_STEPS + 1):
        rows = torch.randint(len(x), (_BATCH,), generator=step_rng(seed, k))
        _step(optimizer, F.cross_entropy(net(x[rows])[:, :10], y[rows]))
    return net


def distill_aux_logits(student: nn.Module, teacher: nn.Module, *, seed: Seed) -> nn.Module:
    """Train the student on noise to reproduce the teacher's auxiliary outputs."""
    optimizer = torch.optim.Adam(student.parameters(), lr=_RATE)
    for k in range(1, STUDENT_STEPS + 1):
        noise = 2 * torch.rand(_BATCH, 784, generator=step_rng(seed, k)) - 1
        with torch.no_grad():
            targets = teacher(noise)[:, 10:]
        _step(optimizer, F.mse_loss(student(noise)[:, 10:], targets))
    return student


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def class_accuracy(net: nn.Module, clothes: Images) -> float:
    """Accuracy of the ten class logits."""
    return float((net(clothes.images)[:, :10].argmax(1) == clothes.labels).float().mean())


@experiment(
    "noise",
    help="Train students on a teacher's unused outputs for noise, and test them on clothes.",
    data_source="networks trained on Fashion-MNIST and on noise",
    results="artifacts/calibration/noise/trials.json",
    cases=INITIALIZATIONS,
    budget={"teacher": TEACHER_STEPS, "student": STUDENT_STEPS},
)
def noise_trial(case: str, *, seed: int) -> dict[str, Any]:
    """Accuracy of the teacher, of the student before and after its training on noise."""
    torch.set_num_threads(1)
    data = fashion_mnist()
    test = data.test.data
    teacher = train_teacher(new_classifier(step_rng(seed, 0)), data.train, seed=seed)
    student = new_classifier(step_rng(seed if case == INITIALIZATIONS[0] else 1_000 + seed, 0))
    before = class_accuracy(student, test)
    distill_aux_logits(student, teacher, seed=2_000 + seed)
    row = {"teacher": class_accuracy(teacher, test), "before": before, "student": class_accuracy(student, test)}
    return {"case": case, "seed": seed} | {name: round(value, 4) for name, value in row.items()}
