"""A measure beside what fresh real rows score, and what follows from the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from synthbook.core.errors import InvalidArgument
from synthbook.evaluation import reference
from synthbook.evaluation.intervals import Z_BAND
from synthbook.evaluation.novelty import Novelty
from synthbook.evaluation.two_sample import classifier_test
from synthbook.evaluation.utility import SMALLER

HIGHER_IS_BETTER = {"precision", "density", "recall", "coverage"}
VARIED = {"recall", "coverage", "categories lost"}


@dataclass(frozen=True)
class Line:
    """One measure: its value, what fresh real rows score, the band around that, and what follows."""

    question: str
    metric: str
    value: float
    reference: float
    low: float
    high: float
    verdict: str
    passes: bool

    @property
    def shown(self) -> list[str]:
        """Value, reference and band as text: three decimals, counts of a hundred and more without."""
        return [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3f}" for v in (self.value, self.reference, self.low, self.high)]


def fidelity(
    real: reference.Rows, synthetic: reference.Rows, fresh: reference.Rows, rng: np.random.Generator
) -> list[Line]:
    """Is it real, is it varied? Against what the fresh rows score."""
    found, expected = reference.measures(real, synthetic), reference.bands(real, fresh, rng)
    lines = []
    for name, value in found.items():
        band, sign = expected[name], 1 if name in HIGHER_IS_BETTER else -1
        good = sign * (value - (band.low if sign > 0 else band.high)) >= 0  # not where it is NaN
        closer = sign * (value - (band.high if sign > 0 else band.low)) > 0
        verdict = "closer than fresh rows" if closer else "as real rows" if good else "worse than real rows"
        question = "varied" if name in VARIED else "real"
        lines.append(Line(question, name, value, band.mean, band.low, band.high, verdict, good))
    test = classifier_test(real.features, synthetic.features, seed=int(rng.integers(2**31)))
    verdict = "told apart" if test.told_apart else "below chance, as copied rows make it"
    verdict = "not told apart" if test.low <= test.accuracy <= test.high else verdict
    return [
        *lines,
        Line("real", "classifier accuracy", test.accuracy, 0.5, test.low, test.high, verdict, not test.told_apart),
    ]


def usefulness(scores: pd.DataFrame) -> list[Line]:
    """Is it useful? Of what `utility` measured, the model that is best when it learns from real rows."""
    best = _best_on_real(scores)
    protocol = SMALLER if SMALLER in set(scores["protocol"]) else "TRTR"
    on_synthetic, on_real = (
        {str(key): value for key, value in best[best["protocol"] == name].iloc[0].items()}
        for name in ("TSTR", protocol)
    )
    lines = []
    for metric, sign in (("auc", 1), ("f1", 1), ("brier", -1)):
        value, expected = on_synthetic[metric], on_real[metric]
        # the bootstrap interval holds 95 %; widened to the 99.9 % of all other bands
        reach = (on_real[f"{metric}_high"] - on_real[f"{metric}_low"]) / 2 * Z_BAND / 1.96
        good = sign * (value - expected) >= -reach  # not where it is NaN
        verdict = "as training on real rows" if good else "worse than training on real rows"
        name = f"TSTR {metric}, {on_real['model']}"
        lines.append(Line("useful", name, value, expected, expected - reach, expected + reach, verdict, bool(good)))
    return lines


def _best_on_real(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the model that is best when trained and tested on real rows."""
    reached = scores[scores["protocol"] == "TRTR"].set_index("model")["auc"]
    if reached.isna().all():
        raise InvalidArgument("target", "a column with one category in the held-out rows", "one that varies there")
    return scores[scores["model"] == reached.idxmax()]


def newness(found: Novelty) -> list[Line]:
    """Is it new? Against what rows score that nothing has learned from.

    Exact copies are held against what chance gives to the training side when so many rows repeat a real one.
    """
    rows = (
        ("share nearer to training", found.share, 0.5, found.low, found.high),
        (
            "exact copies",
            float(found.copies),
            found.copies_by_chance,
            max(2 * found.copies_by_chance - found.copies_limit, 0.0),
            found.copies_limit,
        ),
        ("membership AUC", found.membership_auc, 0.5, 1 - found.auc_high, found.auc_high),
    )
    lines = []
    for metric, value, expected, low, high in rows:
        verdict = "copies its training rows" if value > high else "as new rows"
        lines.append(Line("new", metric, value, expected, low, high, verdict, value <= high))
    return lines
