"""Two-sample tests: a classifier that separates real from synthetic rows, and the propensity score error (pMSE).

A classifier is judged on rows that it has not seen, where a perfect generator leaves it at chance. pMSE is judged on
the rows it was fitted to, where even a perfect generator does not score 0, so it is compared with a null value. There
are two: fresh rows of the true distribution are independent of the real ones; rows of a model fitted to these real rows
share their errors and score half as much. Snoke et al., JRSS A 181:663 (2018); the first null derived here.
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

_ROWS_PER_PARAMETER = 20  # with fewer, the null values of pMSE are too small by more than 5 %
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class C2STResult:
    """Accuracy on `n_test` held-out rows, with the 99.9 % band [low, high] of a perfect generator.

    Accuracy above the band makes the samples `distinguishable`. Below it, synthetic rows repeat real ones: the
    classifier learned a row with one label and met its copy with the other.
    """

    accuracy: float
    low: float
    high: float
    n_test: int
    distinguishable: bool

    @property
    def verdict(self) -> str:
        """The position of the accuracy relative to its band."""
        if self.accuracy < self.low:
            return "below chance (typical of copied rows)"
        return "distinguishable" if self.distinguishable else "indistinguishable"

    def __str__(self) -> str:
        band = f"{self.low:.3f} to {self.high:.3f} by chance"
        return f"accuracy {self.accuracy:.3f} on {self.n_test} rows, {band}: {self.verdict}"


def classifier_two_sample_test(
    synthetic: ArrayLike, *, real: ArrayLike, seed: Seed, classifier: object = None
) -> C2STResult:
    """Classifier two-sample test (C2ST) of synthetic rows (M, d) against real rows (N, d); chance is 0.5.

    Both are cut to the same size, half for training and half for testing. `classifier` is any scikit-learn classifier,
    by default gradient-boosted trees. Needs 20 rows of each. Lopez-Paz and Oquab, arXiv:1610.06545. Raises
    `InvalidArgument`.
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
    # 0.5 +- z 0.5 / sqrt(n_test)
    margin = Z_BAND * 0.5 / np.sqrt(2 * half)
    return C2STResult(accuracy, 0.5 - margin, 0.5 + margin, 2 * half, accuracy > 0.5 + margin)


@dataclass(frozen=True)
class PMSE:
    """Propensity score error, with its mean for fresh rows and for a well-fitted generator.

    `k` logistic parameters, with the intercept; `n` rows of both samples, `synthetic_fraction` of them synthetic. The
    ratios have mean 1 under their null; chance exceeds `ratio_high` once in 1,000 times.
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
        """Upper end of a ratio under its null: a chi-square quantile with k - 1 degrees of freedom, over k - 1."""
        return float(chi2.isf(2 * norm.sf(Z_BAND), self.k - 1) / (self.k - 1)) if self.k > 1 else 1.0

    def __str__(self) -> str:
        return (
            f"pMSE {self.value:.3g}, {self.ratio_independent:.2f} times that of fresh real rows and "
            f"{self.ratio_fitted:.2f} times that of a model fitted to the same rows (at most {self.ratio_high:.2f})"
        )


def pmse(synthetic: ArrayLike, *, real: ArrayLike) -> PMSE:
    """Mean squared distance of propensity scores from the synthetic fraction c; synthetic (M, d), real (N, d).

    It compares column means only; add products as columns to see dependence. The logistic regression has an intercept,
    one parameter for each independent column, and no penalty. With n rows in total the nulls are c(1-c)(k-1)/n against
    fresh rows, (k-1)/(4n) for equal halves, and c(1-c)^2 (k-1)/n for a generator fitted to the same rows, (k-1)/(8n).
    Needs more than 2k rows; warns below 20k. Raises `InvalidArgument`.
    """
    x, y = check_arrays(2, real=real, synthetic=synthetic)
    n, c = len(x) + len(y), len(y) / (len(x) + len(y))
    design = _orthonormal(np.concatenate([x, y]))  # (n, k - 1), orthogonal to the intercept
    k = design.shape[1] + 1
    if n <= 2 * k:
        raise InvalidArgument("real, synthetic", f"{n} rows for {k} parameters", f"more than {2 * k} rows")
    if n < _ROWS_PER_PARAMETER * k:
        minimum = _ROWS_PER_PARAMETER * k
        warnings.warn(f"pMSE of {n} rows with {k} parameters: below {minimum} rows its nulls are too low", stacklevel=2)
    scores = _logistic_scores(design, np.repeat([0.0, 1.0], [len(x), len(y)]))
    value = float(((scores - c) ** 2).mean())
    independent = c * (1 - c) * (k - 1) / n
    fitted = c * (1 - c) ** 2 * (k - 1) / n
    ratio_independent, ratio_fitted = (value / independent, value / fitted) if k > 1 else (1.0, 1.0)
    return PMSE(value, independent, fitted, ratio_independent, ratio_fitted, k, n, c)


def _orthonormal(x: Array) -> Array:
    """Columns that span the centered columns of x (n, d), as (n, rank) with unit second moment."""
    centered = x - x.mean(axis=0)
    extent = np.abs(centered).max(axis=0)
    varying = extent > 1e-12 * np.maximum(np.abs(x).max(axis=0), 1e-300)
    centered = centered[:, varying] / extent[varying]  # in two steps, for squares of tiny numbers are 0
    centered = centered / centered.std(axis=0)
    if centered.shape[1] == 0:
        return np.asarray(centered)
    eigenvalues, vectors = np.linalg.eigh(centered.T @ centered / len(x))
    large = eigenvalues > 1e-10 * eigenvalues[-1]
    return np.asarray(centered @ (vectors[:, large] / np.sqrt(eigenvalues[large])))


def _logistic_scores(design: Array, label: Array) -> Array:
    """Fitted probabilities (n,) of an unpenalized logistic regression with intercept, by Newton's method.

    For separable labels no maximum exists; the steps then stop near scores 0 and 1.
    """
    x = np.column_stack([np.ones(len(design)), design])
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(label.mean() / (1 - label.mean()))
    for _ in range(_NEWTON_STEPS):
        p = expit(x @ beta)
        gradient = x.T @ (label - p)
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        weight = np.maximum(p * (1 - p), 1e-10)
        step = np.linalg.solve((x.T * weight) @ x, gradient)
        beta = beta + step / max(1.0, np.abs(x @ step).max() / 5)  # limits the change of log-odds to 5
    return np.asarray(expit(x @ beta))
