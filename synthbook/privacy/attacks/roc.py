"""ROC curves of membership attacks: the whole curve, because an average hides the few members found with certainty.

(epsilon, delta)-private:  TPR <= min(e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR))     Kairouz et al.,
Gaussian, mu:              TPR <= Phi(Phi^-1(FPR) + mu)                                            arXiv:1311.0776
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from synthbook.core.errors import InvalidArgument
from synthbook.core.plots import BLACK, VERMILLION, new_axes
from synthbook.privacy.audit import Scores

FPR_GRID = np.geomspace(1e-5, 1, 400)  # where bounds are drawn


@dataclass(frozen=True, eq=False)
class AttackScores:
    """An attack's scores of members (M,) and of non-members (N,); a higher score says "member"."""

    members: Scores
    nonmembers: Scores

    def __post_init__(self) -> None:
        for name in ("members", "nonmembers"):
            scores = np.asarray(getattr(self, name), dtype=float)
            if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
                raise InvalidArgument(name, f"array of shape {scores.shape}", "at least one score, none of them NaN")
            object.__setattr__(self, name, scores)

    @property
    def auc(self) -> float:
        """The probability that a member scores above a non-member, ties counted half."""
        m, n = len(self.members), len(self.nonmembers)
        ranks = rankdata(np.concatenate([self.members, self.nonmembers]))
        return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))

    @property
    def auc_null_se(self) -> float:
        """The standard error of the AUC of uninformative scores, that of the Mann-Whitney statistic."""
        m, n = len(self.members), len(self.nonmembers)
        return float(np.sqrt((m + n + 1) / (12 * m * n)))

    def tpr_at_fpr(self, fpr: float) -> float:
        """The true positive rate at the lowest threshold whose false positive rate is at most `fpr`."""
        if not 0 <= fpr <= 1:
            raise InvalidArgument("fpr", fpr, "a rate between 0 and 1")
        allowed = int(np.floor(fpr * len(self.nonmembers) + 1e-9))
        threshold = np.sort(self.nonmembers)[::-1][allowed] if allowed < len(self.nonmembers) else -np.inf
        return float((self.members > threshold).mean())

    def roc_curve(self) -> tuple[Scores, Scores]:
        """False and true positive rates (K,) at every threshold, from none to all."""
        thresholds = np.unique(np.concatenate([self.members, self.nonmembers]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), thresholds) / len(s) for s in (self.nonmembers, self.members)]
        fpr, tpr = (np.concatenate([[0.0], rate]) for rate in rates)
        return fpr, tpr


def dp_tpr_bound(fpr: ArrayLike, epsilon: float, delta: float) -> Scores:
    """Upper bound (K,) on the TPR of any attack on an (epsilon, delta)-private mechanism at the given FPRs.

    >>> dp_tpr_bound([0.0, 0.5, 1.0], 1.0, 0.0).round(4).tolist()
    [0.0, 0.8161, 1.0]
    """
    f, epsilon = np.asarray(fpr, dtype=float), min(epsilon, 700.0)  # e^700 is near the largest float
    bound = np.minimum(np.exp(epsilon) * f + delta, 1 - np.exp(-epsilon) * (1 - delta - f))
    return np.asarray(np.clip(bound, 0.0, 1.0))


def dp_accuracy_bound(epsilon: float, delta: float = 0.0) -> float:
    """Upper bound on the balanced accuracy of any attack: (e^epsilon + delta) / (1 + e^epsilon).

    >>> [round(dp_accuracy_bound(epsilon), 4) for epsilon in (0.5, 1, 2, 4, 8)]
    [0.6225, 0.7311, 0.8808, 0.982, 0.9997]
    """
    return float((1 + delta * np.exp(-epsilon)) / (1 + np.exp(-epsilon)))


def plot_roc(
    attacks: dict[str, AttackScores],
    ax: Axes | None = None,
    *,
    dp_bound: tuple[float, float] | None = None,
    min_rate: float = 1e-3,
) -> Axes:
    """Plot ROC curves, both axes logarithmic from `min_rate`; `dp_bound`, an (epsilon, delta), adds an upper bound."""
    ax = new_axes(ax, width=6.0, height=4.8)
    for name, attack in attacks.items():
        fpr, tpr = attack.roc_curve()
        ax.step(np.maximum(fpr, min_rate / 10), np.maximum(tpr, min_rate / 10), where="post", label=name)
    ax.plot(FPR_GRID, FPR_GRID, color=BLACK, linewidth=1, linestyle=":", label="guessing")
    if dp_bound is not None:
        bound = dp_tpr_bound(FPR_GRID, *dp_bound)
        label = f"upper bound at ε = {dp_bound[0]:g}"
        ax.plot(FPR_GRID, bound, color=VERMILLION, linewidth=4, alpha=0.5, linestyle="-", label=label)
    ax.set(xscale="log", yscale="log", xlim=(min_rate, 1), ylim=(min_rate, 1.05))
    ax.set(xlabel="false positive rate (non-members)", ylabel="true positive rate (members)")
    ax.legend(loc="lower right")
    return ax
