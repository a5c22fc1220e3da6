"""What a student takes over: exact for lines, identities for soft labels, the order of things for a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from synthbook.core.errors import InvalidArgument
from synthbook.experiments import read_results
from synthbook.experiments.students import TRANSFER_SIZES, distillation_trial, plot_transfer, small_student
from synthbook.language import distill
from tests.mutation import mutant

# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_student_of_clean_labels_is_its_teacher() -> None:
    found = distill.linear_distillation(40, 12, sampled_labels=False, runs=500)
    assert found["apart"].max() < 1e-8
    assert np.abs(found["student"] - found["teacher"]).max() < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("real", [30, 80])
@pytest.mark.parametrize("drawn", [25, 100])
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_risks_are_those_of_the_formula(real: int, drawn: int, noise: float) -> None:
    found = distill.linear_distillation(real, drawn, d=6, noise=noise, runs=6_000, seed=real + drawn)
    for name, theory in {
        "teacher": distill.expected_risk(real, d=6, noise=noise),
        "student": distill.expected_risk(real, drawn, d=6, noise=noise),
    }.items():
        assert abs(found[name].mean() - theory) < 4 * stats.sem(found[name]), name


def test_the_formula_is_the_trace_of_an_inverse_wishart_matrix() -> None:
    mean = stats.invwishart(df=40, scale=np.eye(6)).mean()  # E[(X^T X)^-1]
    assert distill.expected_risk(40, d=6, noise=3.0) == pytest.approx(9 * np.trace(mean))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("student = _fitted(rng, teacher, drawn", "student = _fitted(rng, w, drawn"),  # labelled by the truth
        ("noise if sampled_labels else 0.0", "0.0"),  # without the noise of the labels
    ],
)
def test_a_student_of_something_else_does_not_follow_the_formula(old: str, new: str) -> None:
    found = mutant(distill, old, new).linear_distillation(30, 40, runs=4_000)
    theory = distill.expected_risk(30, 40)
    assert abs(found["student"].mean() - theory) > 0.03 * theory


@pytest.mark.slow
def test_a_student_with_the_better_prejudice_outdoes_its_teacher_and_not_the_real_rows() -> None:
    found = pd.DataFrame([distill.inductive_bias_gain(seed=seed) for seed in range(6)])
    assert (found["student"] > found["teacher"] + 0.05).all()
    assert found["student"].mean() < found["logistic"].mean() + 0.005


@pytest.mark.parametrize("rows", [(11, 40), (40, 11)])
def test_too_few_rows_for_a_line_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument, match="at least 12"):
        distill.linear_distillation(*rows)


# ── labels, soft and hard ────────────────────────────────────────────────────────────────────────────────────────────


class Says:
    """A teacher that says what it is told."""

    def __init__(self, probs: np.ndarray) -> None:
        self.probs, self.classes_ = probs, np.array(["a", "b", "c"])

    def predict_proba(self, inputs: object) -> np.ndarray:
        return self.probs


RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4))
ODDS = RNG.dirichlet([1.0, 1.0, 1.0], 200)


def cross_entropy_gradient(student: LogisticRegression, probs: np.ndarray, C: float) -> float:
    """The gradient of sum_i -sum_k p_ik log q_ik + |W|^2 / (2 C), worked out here, at the student's weights."""
    q = student.predict_proba(X)
    slope = (q - probs).T @ X + student.coef_ / C
    return float(max(np.abs(slope).max(), np.abs((q - probs).sum(axis=0)).max()))


def test_soft_labels_minimise_the_cross_entropy_with_the_teacher() -> None:
    student = distill.distill(Says(ODDS), LogisticRegression(C=5.0, tol=1e-8, max_iter=10_000), X)
    assert cross_entropy_gradient(student, ODDS, 5.0) < 1e-3
    hard = distill.distill(Says(ODDS), LogisticRegression(C=5.0, tol=1e-8, max_iter=10_000), X, soft=False)
    assert cross_entropy_gradient(hard, ODDS, 5.0) > 1
    careless = mutant(distill, 'sample_weight": weights[there]', 'sample_weight": None')
    other = careless.distill(Says(ODDS), LogisticRegression(C=5.0, tol=1e-8, max_iter=10_000), X)
    assert cross_entropy_gradient(other, ODDS, 5.0) > 1


def test_labels_without_doubt_are_hard_ones() -> None:
    sure = np.eye(3)[ODDS.argmax(axis=1)]
    soft, hard = (distill.distill(Says(sure), LogisticRegression(), X, soft=soft) for soft in (True, False))
    np.testing.assert_allclose(soft.coef_, hard.coef_, atol=1e-4)


def test_texts_and_tables_are_taught_through_pipelines() -> None:
    texts = ["win a prize", "free prize now", "see you at home", "call me at home"] * 5
    teacher = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, ["spam", "spam", "ham", "ham"] * 5)
    student = distill.distill(teacher, make_pipeline(TfidfVectorizer(), LogisticRegression()), texts[:7])
    assert student.predict(["prize", "home"]).tolist() == ["spam", "ham"]
    frame = pd.DataFrame({"x": X[:, 0], "kind": np.where(X[:, 1] > 0, "u", "v")}, index=np.arange(200)[::-1])
    told = small_student().fit(frame, np.where(X[:, 0] > 0, "yes", "no"))
    learned = distill.distill(told, small_student(), frame.iloc[:150])
    assert (learned.predict(frame) == told.predict(frame)).mean() > 0.95


def test_what_cannot_teach_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="predict_proba"):
        distill.distill(LinearSVC().fit(X, X[:, 0] > 0), LogisticRegression(), X)
    with pytest.raises(InvalidArgument, match="at least one input"):
        distill.distill(DummyClassifier().fit(X, X[:, 0] > 0), LogisticRegression(), [])


# ── Adult ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_five_seeds_bear_the_claim() -> None:
    trials = read_results("distillation")
    assert len(trials) == 5
    most = TRANSFER_SIZES[-1]
    gap = trials["teacher auc"] - trials["small auc"]
    assert ((trials[f"soft {most} auc"] - trials["small auc"]) / gap).min() > 0.5
    agreement = trials[[f"soft {n} agreement" for n in TRANSFER_SIZES]]
    assert (np.diff(agreement, axis=1) > 0).all() and (agreement.iloc[:, 0] > trials["small agreement"]).all()
    assert all((trials[f"soft {n} auc"] >= trials[f"hard {n} auc"]).all() for n in TRANSFER_SIZES)
    assert (trials[f"soft {most} auc"] < trials["teacher auc"]).all()
    assert trials["teacher numbers"].div(trials["student numbers"]).between(10, 50).all()


@pytest.mark.slow
def test_a_seed_gives_its_row_again() -> None:
    kept = read_results("distillation").iloc[0]
    row = distillation_trial("adult", seed=0)
    assert all(abs(row[name] - kept[name]) < 0.01 for name in row if name not in ("case", "seed"))
    ax = plot_transfer(read_results("distillation"))
    assert ax.get_xlabel() and len(ax.get_legend().get_texts()) == 4
