"""The part of section 6's acceptance checks that asks: is it useful, is it new, can it be told apart?"""

from __future__ import annotations

from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.course.claims import ClaimResult
from tests.collapse.acceptance import part, se

NEAREST = {"1-NN": KNeighborsClassifier(1)}
PHI = NormalDist()


def labelled(x: np.ndarray, y: np.ndarray) -> Table:
    """Numbers (N, d) and a label "no" or "yes" for each row."""
    columns = [Column(f"x{i}", "numeric", lower=-100, upper=100) for i in range(x.shape[1])]
    frame = pd.DataFrame(x, columns=[column.name for column in columns]).assign(y=np.where(y, "yes", "no"))
    return Table(frame, Schema((*columns, Column("y", "categorical", categories=("no", "yes"))), "public"))


def noisy(n: int, rng: np.random.Generator, best: float = 0.8) -> Table:
    """The sign of x0 is the label, and one label in five is wrong: nobody can be right more often than 0.8."""
    x = rng.uniform(-1, 1, (n, 2))
    return labelled(x, (x[:, 0] > 0) ^ (rng.random(n) > best))


def copies(table: Table, n: int, rng: np.random.Generator) -> Table:
    return Table(table.frame.sample(n, replace=True, random_state=int(rng.integers(2**31))), table.schema)


def by_hand(learned: Table, judged: Table, model: object) -> float:
    """Accuracy of a student on columns standardised by its own rows, with scikit-learn alone."""
    x, y = (t.frame.drop(columns="y").to_numpy() for t in (learned, judged))
    z = [(part - x.mean(axis=0)) / x.std(axis=0) for part in (x, y)]
    return model.fit(z[0], learned["y"].astype(str)).score(z[1], judged["y"].astype(str))


def c6_1_3_utility(code: SimpleNamespace) -> list[ClaimResult]:
    rng = np.random.default_rng(1)
    train, test = noisy(1000, rng), noisy(500, rng)
    models = NEAREST | {"naive Bayes": GaussianNB()}
    measured, expected = [], []
    for m in (5, 20, 100):
        handful = Table(train.frame.iloc[:m], train.schema)
        release = Table(pd.concat([handful.frame] * 10), train.schema)
        result = code.utility.utility(release, train=train, holdout=Holdout(test), target="y", seed=0, models=models)
        measured += list(result.query("protocol == 'TSTR'").set_index("model").accuracy[list(models)])
        expected += [by_hand(handful, test, model) for model in models.values()]
    return [part("C6.1-3", "utility", measured, expected, 1e-12)]


def c6_1_4(code: SimpleNamespace) -> list[ClaimResult]:
    rng = np.random.default_rng(2)
    n, d = 2000, 16
    train, holdout = rng.standard_normal((2, n, d))
    fresh = rng.standard_normal((5, n, d))
    truth = 2 / n * d * (d + 5) / 4  # (1/N + 1/M) d (d + 5) / 4
    copied = code.prdc.prdc(train, real=train)
    sizes = [1, 2, 8, 8]  # a table full of ties: 128 different rows
    tied = [np.column_stack([rng.integers(k, size=1000) for k in sizes]).astype(float) for _ in range(3)]
    shares = [code.novelty.novelty(x, train=train, holdout=holdout, seed=0).dcr_share for x in fresh[:2]]
    shares.append(code.novelty.novelty(tied[0], train=tied[1], holdout=tied[2], seed=0).dcr_share)
    real, judged = noisy(300, rng), noisy(500, rng)
    models = NEAREST | {"logistic": LogisticRegression()}
    twice = code.utility.utility(real, train=real, holdout=Holdout(judged), target="y", seed=0, models=models)
    score = {p: twice[twice.protocol == p][["auc", "f1", "brier", "accuracy"]].to_numpy() for p in ("TSTR", "TRTR")}
    d2 = code.frechet.frechet_distance
    return [
        part("C6.1-4", "scores", [copied.precision, copied.recall, copied.density, copied.coverage], 1, 1e-12),
        part("C6.1-4", "utility", score["TSTR"], score["TRTR"], 1e-12),
        part("C6.1-4", "utility", score["TRTR"][0, 3], by_hand(real, judged, KNeighborsClassifier(1)), 1e-12),
        part("C6.1-4", "copy_distance", d2(train, train), 0, 1e-8),
        part("C6.1-4", "truth_distance", np.mean([d2(train, x) for x in fresh]), truth, 0.1 * truth),
        part("C6.1-4", "copy_novelty", code.novelty.novelty(train, train=train, holdout=holdout, seed=0).dcr_share, 1),
        part("C6.1-4", "truth_novelty", shares, 0.5, 0.05),
    ]


N, D = 600, 20
PMSE = np.array([D / (4 * 2 * N), D / (8 * 2 * N)])  # (k-1)/(4N) and (k-1)/(8N), N rows in all


def c6_1_5_nulls(code: SimpleNamespace) -> list[ClaimResult]:
    rng = np.random.default_rng(3)
    real, generated = rng.standard_normal((2, N, D))
    one = code.two_sample.pmse(generated, real=real)
    claimed = [[one.null_independent, one.null_fitted], one.value / np.array([one.ratio_independent, one.ratio_fitted])]
    pairs = rng.standard_normal((8, 2, 1200, 4))
    nearest = KNeighborsClassifier(1)
    accuracy = [
        code.two_sample.classifier_two_sample_test(y, real=x, seed=1, classifier=nearest).accuracy for x, y in pairs
    ]
    return [
        part("C6.1-5", "pmse", claimed, PMSE, 1e-12),
        part("C6.1-5", "two_sample", accuracy, 0.5, 3.3 * 0.5 / np.sqrt(1200)),
    ]


def c6_1_5_pmse(code: SimpleNamespace) -> list[ClaimResult]:
    rng = np.random.default_rng(3)
    values = np.empty((2, 800))
    for i in range(800):
        real, *noise = rng.standard_normal((3, N, D))
        fitted = real.mean(axis=0) + real.std(axis=0) * noise[1]  # from a Gaussian with these rows' mean and variances
        values[:, i] = [code.two_sample.pmse(generated, real=real).value for generated in (noise[0], fitted)]
    return [part("C6.1-5", "pmse", values.mean(axis=1), PMSE, 4 * se(values))]


def c6_2_1(code: SimpleNamespace) -> list[ClaimResult]:
    simulate, closed = code.inference.simulate_tstr_regression, code.inference.expected_excess_risk
    runs = 60_000
    small = simulate(40, 60, 5, runs, seed=4)
    by_rows = [simulate(40, n, 5, runs, seed=5 + i) for i, n in enumerate((10, 40, 200, 1000))]
    endless = simulate(40, 10**9, 5, runs, seed=9)
    wrong = simulate(40, 10**9, 5, runs, seed=10, omitted_coef=0.5)
    noisier = simulate(30, 30, 3, runs, seed=11, noise_variance=4.0)
    truth = [5 / 34 + 5 / 54, 4 * 3 / 26 * 2]  # sigma^2 d/(n_r - d - 1) + sigma^2 d/(n_s - d - 1)
    synthetic = [small.synthetic.mean(), noisier.synthetic.mean()]
    left = 0.25 + 1.25 * 4 / 35  # lost^2 + (sigma^2 + lost^2)(d - 1)/(n_r - d)
    return [
        part("C6.2-1", "synthetic", synthetic, truth, 0.03 * np.array(truth)),
        part("C6.2-1", "synthetic", [closed(40, 60, 5), closed(30, 30, 3, noise_variance=4.0)], truth, 1e-9),
        part(
            "C6.2-1", "synthetic", [wrong.synthetic.mean(), closed(40, np.inf, 5, omitted_coef=0.5)], left, 0.03 * left
        ),
        part("C6.2-1", "real", [small.real.mean(), closed(40, None, 5)], 5 / 34, 0.03 * 5 / 34),
        part("C6.2-1", "limit", endless.synthetic.mean(), 5 / 34, 0.03 * 5 / 34),
        part("C6.2-1", "never_below", [run.gap.mean() for run in by_rows], 0),
        part("C6.2-1", "misspecified", wrong.gap.mean(), 0.1),
    ]


def c6_2_2(code: SimpleNamespace) -> list[ClaimResult]:
    honest, leaky, flagged = [], [], []
    for seed in range(5):
        rng = np.random.default_rng([6, seed])
        train, test = noisy(1000, rng), noisy(1000, rng)
        seen = Table(pd.concat([train.frame, test.frame], ignore_index=True), train.schema)
        for source, result in ((train, honest), (seen, leaky)):
            release = copies(source, 6000, rng)
            rows = code.utility.utility(
                release, train=train, holdout=Holdout(test), target="y", seed=seed, models=NEAREST, bayes_accuracy=0.8
            )
            student = rows.query("protocol == 'TSTR'").iloc[0]
            result.append(student.accuracy)
            flagged.append(student.exceeds_bayes == (source is seen))
    error = np.sqrt(0.8 * 0.2 / 1000)
    return [
        part("C6.2-2", "leak", (np.array(leaky) - honest) / error, 2),
        part("C6.2-2", "impossible", leaky, 0.8),
        part("C6.2-2", "flagged", np.mean(flagged), 1),
        part("C6.2-2", "synthetic_test", mode_dropper(code), 0.1),
    ]


def mode_dropper(code: SimpleNamespace) -> float:
    """Half of the people follow the opposite rule, and the generator leaves that half out."""
    rng = np.random.default_rng(7)

    def people(n: int, second: bool) -> Table:
        mode, x = rng.random(n) < (0.5 if second else 0.0), rng.uniform(-1, 1, (n, 2))
        x[:, 1] = np.where(mode, 5, -5) + x[:, 1]
        return labelled(x, (x[:, 0] > 0) ^ mode)

    real, test, generated, made_test = people(600, True), people(600, True), people(600, False), people(600, False)
    score = []
    for judge in (made_test, test):
        rows = code.utility.utility(generated, train=real, holdout=Holdout(judge), target="y", seed=0, models=NEAREST)
        score.append(rows.query("protocol == 'TSTR'").accuracy.item())
    return score[0] - score[1]


def c6_2_3(code: SimpleNamespace) -> list[ClaimResult]:
    ratios, runs = np.array([1, 10, 100]), 100_000
    truth = np.array([2 * PHI.cdf(PHI.inv_cdf(0.975) / np.sqrt(1 + r)) - 1 for r in ratios])
    result = [code.inference.mean_interval_coverage(1000, 1000 * int(r), runs, seed=int(r)) for r in ratios]
    error = 4 * np.sqrt(truth * (1 - truth) / runs)
    return [
        part("C6.2-3", "naive", [f.naive for f in result], truth, error),
        part("C6.2-3", "naive", code.inference.naive_coverage(ratios), truth, 1e-9),
        part("C6.2-3", "corrected", [f.corrected for f in result], 0.95, 4 * np.sqrt(0.95 * 0.05 / runs)),
    ]


CHECKS = {
    "C6.1-3 utility": c6_1_3_utility,
    "C6.1-4": c6_1_4,
    "C6.1-5 nulls": c6_1_5_nulls,
    "C6.1-5 pmse": c6_1_5_pmse,
    "C6.2-1": c6_2_1,
    "C6.2-2": c6_2_2,
    "C6.2-3": c6_2_3,
}
