"""Two samples, one question: could they have come from the same source?

A classifier learns to tell real rows from synthetic ones; on rows it has not seen, a perfect generator leaves it
guessing. The propensity score error (pMSE) asks the same of a logistic regression on the rows it was fitted to, where
even a perfect generator does not score 0: the score has to be held against its null value, and there are two. Fresh
rows of the true distribution are independent of the real ones. Rows of a model fitted to these very real rows share
their errors and lie half as far away. Snoke et al., JRSS A 181:663 (2018); the first null derived here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import chi2, norm
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier

from synthbook.core.errors import InvalidArgument
from synthbook.core.types import Array, Seed, check_arrays
from synthbook.evaluation.inference import Z_BAND

ROWS_PER_PARAMETER = 20  # below, the null values of pMSE are too small by more than about a twentieth
NEWTON_STEPS = 50


@dataclass(frozen=True)
class C2STResult:
    """Accuracy on `n_test` rows that the classifier has not seen, and the band [low, high] of a perfect generator.

    `told_apart`: the accuracy lies above the band. Below it the classifier was misled, which takes synthetic rows
    that repeat real ones: it learned a row under one name and met its copy under the other.
    """

    accuracy: float
    low: float
    high: float
    n_test: int
    distinguishable: bool

    def __str__(self) -> str:
        verdict = "told apart" if self.distinguishable else "not told apart"
        verdict = "below chance, as copied rows make it" if self.accuracy < self.low else verdict
        band = f"{self.low:.3f} to {self.high:.3f} by chance"
        return f"accuracy {self.accuracy:.3f} on {self.n_test} rows, {band}: {verdict}"


def classifier_two_sample_test(
    real: ArrayLike, synthetic: ArrayLike, *, seed: Seed, classifier: object = None
) -> C2STResult:
    """Can a classifier tell real rows (N, d) from synthetic ones (M, d)? Chance is 0.5.

    Both are cut to the same size, half of each is learned from and the other half judged. `classifier` is any
    scikit-learn classifier; gradient-boosted trees by default, which see dependence as well as marginals. Needs 20
    rows of each. Raises `InvalidArgument`.
    """
    x, y = check_arrays(20, real=real, synthetic=synthetic)
    rng = np.random.default_rng(seed)
    half = min(len(x), len(y)) // 2
    x, y = (part[rng.permutation(len(part))[: 2 * half]] for part in (x, y))
    model = HistGradientBoostingClassifier(early_stopping=False) if classifier is None else clone(classifier)
    if "random_state" in model.get_params():
        model.set_params(random_state=int(rng.integers(2**31)))
    labels = np.repeat([0, 1], half)
    model.fit(np.concatenate([x[:half], y[:half]]), labels)
    accuracy = float((model.predict(np.concatenate([x[half:], y[half:]])) == labels).mean())
    # 0.5 +- z 0.5 / sqrt(n_test): halves are equal, so a classifier that always says "real" has 0.5 as well
    margin = Z_BAND * 0.5 / np.sqrt(2 * half)
    return C2STResult(accuracy, 0.5 - margin, 0.5 + margin, 2 * half, accuracy > 0.5 + margin)


@dataclass(frozen=True)
class PMSE:
    """Propensity score error, and what it is on average for fresh rows and for a well-fitted generator.

    `k` logistic parameters, the intercept among them; `n` rows of both samples together; `share` of them synthetic.
    The ratios are 1 on average under their null; `ratio_high` is what chance exceeds once in 1,000 times.
    """

    value: float
    null_independent: float
    null_fitted: float
    ratio_independent: float
    ratio_fitted: float
    k: int
    n: int
    synthetic_fraction: float

    @property
    def ratio_high(self) -> float:
        """Upper end of a ratio under its null: a quantile of chi-square with k - 1 degrees of freedom, over k - 1."""
        return float(chi2.isf(2 * norm.sf(Z_BAND), self.k - 1) / (self.k - 1)) if self.k > 1 else 1.0

    def __str__(self) -> str:
        return (
            f"pMSE {self.value:.3g}, {self.ratio_independent:.2f} times that of fresh real rows and "
            f"{self.ratio_fitted:.2f} times that of a model fitted to the same rows (at most {self.ratio_high:.2f})"
        )


def pmse(real: ArrayLike, synthetic: ArrayLike) -> PMSE:
    """Mean squared distance of propensity scores from the synthetic share c, for real (N, d) and synthetic (M, d).

    It compares column means and nothing else: columns shuffled apart score 0. Give products as columns to see more.
    The logistic regression has an intercept and one parameter for each independent column, and no penalty. With n
    rows in all the nulls are c(1-c)(k-1)/n against fresh rows, (k-1)/(4n) for equal halves, and c(1-c)^2 (k-1)/n for
    a generator fitted to the same rows, (k-1)/(8n). Needs more than 2k rows; warns below 20k. Raises
    `InvalidArgument`.
    """
    x, y = check_arrays(2, real=real, synthetic=synthetic)
    n, c = len(x) + len(y), len(y) / (len(x) + len(y))
    design = _orthonormal(np.concatenate([x, y]))  # (n, k - 1), orthogonal to the intercept
    k = design.shape[1] + 1
    if n <= 2 * k:
        raise InvalidArgument("real, synthetic", f"{n} rows for {k} parameters", f"more than {2 * k} rows")
    if n < ROWS_PER_PARAMETER * k:
        enough = ROWS_PER_PARAMETER * k
        warnings.warn(f"pMSE of {n} rows with {k} parameters: below {enough} rows its nulls are too low", stacklevel=2)
    scores = _logistic_scores(design, np.repeat([0.0, 1.0], [len(x), len(y)]))
    value = float(((scores - c) ** 2).mean())
    independent = c * (1 - c) * (k - 1) / n
    fitted = c * (1 - c) ** 2 * (k - 1) / n
    ratio_independent, ratio_fitted = (value / independent, value / fitted) if k > 1 else (1.0, 1.0)
    return PMSE(value, independent, fitted, ratio_independent, ratio_fitted, k, n, c)


def _orthonormal(x: Array) -> Array:
    """Columns that span those of x (n, d) without their means, as (n, rank) with unit second moment."""
    centred = x - x.mean(axis=0)
    spread = np.abs(centred).max(axis=0)
    varying = spread > 1e-12 * np.maximum(np.abs(x).max(axis=0), 1e-300)
    centred = centred[:, varying] / spread[varying]  # in two steps, for squares of tiny numbers are 0
    centred = centred / centred.std(axis=0)
    if centred.shape[1] == 0:
        return np.asarray(centred)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = eigenvalues > 1e-10 * eigenvalues[-1]
    return np.asarray(centred @ (vectors[:, kept] / np.sqrt(eigenvalues[kept])))


def _logistic_scores(design: Array, label: Array) -> Array:
    """Fitted probabilities (n,) of an unpenalised logistic regression with intercept, by Newton's method.

    Where a hyperplane separates the labels there is no largest likelihood; the steps then stop near scores 0 and 1.
    """
    x = np.column_stack([np.ones(len(design)), design])
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(label.mean() / (1 - label.mean()))
    for _ in range(NEWTON_STEPS):
        p = expit(x @ beta)
        gradient = x.T @ (label - p)
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        weight = np.maximum(p * (1 - p), 1e-10)
        step = np.linalg.solve((x.T * weight) @ x, gradient)
        beta = beta + step / max(1.0, np.abs(x @ step).max() / 5)  # a step moves no log-odds by more than 5
    return np.asarray(expit(x @ beta))
