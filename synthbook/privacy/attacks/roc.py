"""How well scores tell members from others: the whole curve, because a mean hides the few who are found for certain.

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

FINE = np.geomspace(1e-5, 1, 400)  # false alarms at which bounds are drawn


@dataclass(frozen=True, eq=False)
class AttackScores:
    """An attack's scores of members (M,) and of others (N,), higher for those it takes for members."""

    members: Scores
    others: Scores

    def __post_init__(self) -> None:
        for name in ("members", "others"):
            scores = np.asarray(getattr(self, name), dtype=float)
            if scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
                raise InvalidArgument(name, f"array of shape {scores.shape}", "at least one score, none of them NaN")
            object.__setattr__(self, name, scores)

    @property
    def auc(self) -> float:
        """How often a member scores above another, ties counted half."""
        m, n = len(self.members), len(self.others)
        ranks = rankdata(np.concatenate([self.members, self.others]))
        return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))

    @property
    def auc_null_se(self) -> float:
        """The standard error of the AUC where scores tell nothing: of the Mann-Whitney statistic."""
        m, n = len(self.members), len(self.others)
        return float(np.sqrt((m + n + 1) / (12 * m * n)))

    def tpr_at_fpr(self, fpr: float) -> float:
        """Share of members above the lowest threshold that gives others no more than this share of false alarms."""
        if not 0 <= fpr <= 1:
            raise InvalidArgument("fpr", fpr, "a share between 0 and 1")
        allowed = int(np.floor(fpr * len(self.others) + 1e-9))
        threshold = np.sort(self.others)[::-1][allowed] if allowed < len(self.others) else -np.inf
        return float((self.members > threshold).mean())

    def roc_curve(self) -> tuple[Scores, Scores]:
        """False alarms and hits (K,), as shares, at every threshold, from none to all."""
        thresholds = np.unique(np.concatenate([self.members, self.others]))[::-1]
        rates = [1 - np.searchsorted(np.sort(s), thresholds) / len(s) for s in (self.others, self.members)]
        fpr, tpr = (np.concatenate([[0.0], rate]) for rate in rates)
        return fpr, tpr


def dp_tpr_bound(fpr: ArrayLike, epsilon: float, delta: float) -> Scores:
    """The most hits that (epsilon, delta) leaves to any attack at these false alarms (K,).

    >>> private_bound([0.0, 0.5, 1.0], 1.0, 0.0).round(4).tolist()
    [0.0, 0.8161, 1.0]
    """
    f, epsilon = np.asarray(fpr, dtype=float), min(epsilon, 700.0)  # e^700 is the largest power there is
    found = np.minimum(np.exp(epsilon) * f + delta, 1 - np.exp(-epsilon) * (1 - delta - f))
    return np.asarray(np.clip(found, 0.0, 1.0))


def dp_accuracy_bound(epsilon: float, delta: float = 0.0) -> float:
    """The best balanced accuracy of any attack: (e^epsilon + delta) / (1 + e^epsilon).

    >>> [round(most_accurate(epsilon), 4) for epsilon in (0.5, 1, 2, 4, 8)]
    [0.6225, 0.7311, 0.8808, 0.982, 0.9997]
    """
    return float((1 + delta * np.exp(-epsilon)) / (1 + np.exp(-epsilon)))


def plot_roc(
    attacks: dict[str, AttackScores],
    ax: Axes | None = None,
    *,
    bound: tuple[float, float] | None = None,
    least: float = 1e-3,
) -> Axes:
    """Hits against false alarms, both on log scales from `least` up; the bound of an (epsilon, delta) in red."""
    ax = new_axes(ax, width=6.0, height=4.8)
    for name, attack in attacks.items():
        fpr, tpr = attack.roc_curve()
        ax.step(np.maximum(fpr, least / 10), np.maximum(tpr, least / 10), where="post", label=name)
    ax.plot(FINE, FINE, color=BLACK, linewidth=1, linestyle=":", label="guessing")
    if bound is not None:
        said = f"no attack is above, at ε = {bound[0]:g}"
        ax.plot(FINE, dp_tpr_bound(FINE, *bound), color=VERMILLION, linewidth=4, alpha=0.5, linestyle="-", label=said)
    ax.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
    ax.set(xlabel="false alarms (share of others)", ylabel="hits (share of members)")
    ax.legend(loc="lower right")
    return ax
