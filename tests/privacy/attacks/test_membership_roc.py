"""The curve of an attack: against scikit-learn, against what privacy allows, and against broken copies."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from synthbook.core.errors import InvalidArgument
from synthbook.privacy.attacks import membership as module
from synthbook.privacy.attacks.membership import FPR_GRID, AttackScores, dp_accuracy_bound, dp_tpr_bound, plot_roc
from synthbook.privacy.mechanisms import gaussian_epsilon
from tests.mutation import mutant

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)  # few values, so many ties


def sides(attack: AttackScores) -> tuple[np.ndarray, np.ndarray]:
    """Who is a member, and the scores, as scikit-learn takes them."""
    truth = np.repeat([1, 0], [len(attack.members), len(attack.nonmembers)])
    return truth, np.concatenate([attack.members, attack.nonmembers])


def agrees(attack: AttackScores) -> bool:
    """Whether area and curve are those of scikit-learn."""
    fpr, tpr, _ = roc_curve(*sides(attack), drop_intermediate=False)
    ours = attack.roc_curve()
    same = ours[0].shape == fpr.shape and np.allclose(ours, (fpr, tpr), atol=1e-12)
    return bool(same and abs(attack.auc - roc_auc_score(*sides(attack))) < 1e-12)


# ── area and curve ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@settings(deadline=None)
@given(SCORES, SCORES)
def test_area_and_curve_are_those_of_scikit_learn_with_ties(members: list[float], others: list[float]) -> None:
    attack = AttackScores(np.array(members), np.array(others))
    assert agrees(attack)
    fpr, tpr = attack.roc_curve()
    assert fpr[0] == tpr[0] == 0 and fpr[-1] == tpr[-1] == 1
    assert attack.auc == pytest.approx(np.trapezoid(tpr, fpr))


def test_area_and_curve_are_those_of_scikit_learn_without_ties() -> None:
    rng = np.random.default_rng(0)
    assert agrees(AttackScores(rng.normal(0.4, 1, 300), rng.standard_normal(171)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ranks[:m].sum()", "ranks[m:].sum()"),  # of the others
        ("m * (m + 1) / 2) / (m * n)", "m * (m - 1) / 2) / (m * n)"),
        ("rankdata(np", "np.argsort(np"),
        ("self.nonmembers]))\n        return float", "self.nonmembers]), 'max')\n        return float"),
        ("for s in (self.nonmembers, self.members)]", "for s in (self.members, self.nonmembers)]"),
        ("np.searchsorted(np.sort(s), thresholds)", "np.searchsorted(np.sort(s), thresholds, 'right')"),
        ("np.concatenate([[0.0], rate])", "rate"),
    ],
)
def test_broken_areas_and_curves_are_found(old: str, new: str) -> None:
    broken = mutant(module, old, new)
    rng = np.random.default_rng(1)
    tied = rng.integers(0, 4, 30).astype(float), rng.integers(0, 3, 40).astype(float)
    assert agrees(AttackScores(*tied)) and not agrees(broken.AttackScores(*tied))


# ── hits at few false alarms ─────────────────────────────────────────────────────────────────────────────────────────

HAND_MADE = [
    # members, others, false alarms allowed, hits
    ([5.0, 3.0, 1.0, 0.0], [4.0, 2.0, 0.5, 0.1], 0.0, 0.25),
    ([5.0, 3.0, 1.0, 0.0], [4.0, 2.0, 0.5, 0.1], 0.24, 0.25),
    ([5.0, 3.0, 1.0, 0.0], [4.0, 2.0, 0.5, 0.1], 0.25, 0.5),
    ([5.0, 3.0, 1.0, 0.0], [4.0, 2.0, 0.5, 0.1], 0.5, 0.75),
    ([5.0, 3.0, 1.0, 0.0], [4.0, 2.0, 0.5, 0.1], 1.0, 1.0),
    ([1.0, 1.0], [1.0, 1.0, 1.0, 0.0], 0.25, 0.0),  # all that tie are in or out together
    ([1.0, 1.0], [1.0, 1.0, 1.0, 0.0], 0.75, 1.0),
    ([2.0], [1.0] * 10, 0.29 / 2.9, 1.0),  # a tenth of ten is one, whatever rounding says
]


def by_trying(attack: AttackScores, fpr: float) -> float:
    """The most hits of any threshold with no more false alarms."""
    allowed = [t for t in [*attack.members, *attack.nonmembers] if (attack.nonmembers >= t).mean() <= fpr + 1e-9]
    return max((float((attack.members >= t).mean()) for t in allowed), default=0.0)


@pytest.mark.parametrize(("members", "nonmembers", "fpr", "hits"), HAND_MADE)
def test_hits_at_few_false_alarms(members: list[float], nonmembers: list[float], fpr: float, hits: float) -> None:
    attack = AttackScores(np.array(members), np.array(nonmembers))
    assert attack.tpr_at_fpr(fpr) == hits == by_trying(attack, fpr)


@settings(deadline=None)
@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.1, 1 / 3, 0.5, 0.9, 1.0]))
def test_no_threshold_finds_more_members(members: list[float], others: list[float], fpr: float) -> None:
    attack = AttackScores(np.array(members), np.array(others))
    assert attack.tpr_at_fpr(fpr) == by_trying(attack, fpr)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.members > threshold", "self.members >= threshold"),
        ("np.sort(self.nonmembers)[::-1][allowed]", "np.sort(self.nonmembers)[allowed]"),
        ("fpr * len(self.nonmembers) + 1e-9", "fpr * len(self.members) + 1e-9"),
        ("np.sort(self.nonmembers)[::-1][allowed]", "np.sort(self.members)[::-1][allowed]"),
    ],
)
def test_broken_hits_are_found(old: str, new: str) -> None:
    broken = mutant(module, old, new)
    given = [(np.array(m), np.array(o), fpr, hits) for m, o, fpr, hits in HAND_MADE[:-1]]
    assert any(broken.AttackScores(m, o).tpr_at_fpr(fpr) != hits for m, o, fpr, hits in given)


# ── chance ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(30, 30), (200, 25), (5, 400)])
def test_the_standard_error_is_that_of_attacks_that_know_nothing(m: int, n: int) -> None:
    rng = np.random.default_rng([m, n])
    areas = np.array([AttackScores(*np.split(rng.standard_normal(m + n), [m])).auc for _ in range(2_000)])
    error = 1 / np.sqrt(2 * 2_000)  # of a standard deviation, relative
    assert areas.mean() == pytest.approx(0.5, abs=4 * areas.std() / np.sqrt(2_000))
    assert AttackScores(np.zeros(m), np.zeros(n)).auc_null_se == pytest.approx(areas.std(), rel=4 * error)
    broken = mutant(module, "(m + n + 1) / (12 * m * n)", "1 / (12 * m * n)")
    assert broken.AttackScores(np.zeros(m), np.zeros(n)).auc_null_se < 0.5 * areas.std()


def test_scores_that_are_all_alike_are_a_guess() -> None:
    attack = AttackScores(np.zeros(7), np.zeros(9))
    assert attack.auc == 0.5 and attack.tpr_at_fpr(0.5) == 0
    assert [rate.tolist() for rate in attack.roc_curve()] == [[0.0, 1.0], [0.0, 1.0]]


# ── what privacy allows ──────────────────────────────────────────────────────────────────────────────────────────────


def bound_by_inequalities(fpr: float, epsilon: float, delta: float) -> float:
    """The largest TPR for which P(S) <= e^epsilon Q(S) + delta holds of alarms and of silence, both ways, by search."""
    tpr = np.linspace(0, 1, 100_001)
    grow = np.exp(epsilon)
    ok = (tpr <= grow * fpr + delta) & (1 - fpr <= grow * (1 - tpr) + delta)
    return float(tpr[ok].max())


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.5, 0.0), (1.0, 1e-5), (1.0, 0.1), (4.0, 1e-3)])
def test_the_bound_is_what_the_definition_allows(epsilon: float, delta: float) -> None:
    f = np.linspace(0, 1, 41)
    allowed = [bound_by_inequalities(x, epsilon, delta) for x in f]
    assert dp_tpr_bound(f, epsilon, delta) == pytest.approx(allowed, abs=2e-5)


@pytest.mark.parametrize(
    ("epsilon", "accuracy"), [(0.5, 0.6225), (1, 0.7311), (2, 0.8808), (4, 0.9820), (8, 0.9997), (np.inf, 1.0)]
)
def test_the_best_accuracy_is_the_published_one_and_the_best_on_the_bound(epsilon: float, accuracy: float) -> None:
    assert dp_accuracy_bound(epsilon) == pytest.approx(accuracy, abs=5e-5)
    for delta in (0.0, 0.05):
        f = np.linspace(0, 1, 20_001)
        if np.isfinite(epsilon):
            on_the_bound = ((1 - f + dp_tpr_bound(f, epsilon, delta)) / 2).max()
            assert dp_accuracy_bound(epsilon, delta) == pytest.approx(on_the_bound, abs=1e-4)


def randomized_response(epsilon: float, n: int, seed: int) -> AttackScores:
    """Who is a member, told truly with probability e^epsilon / (1 + e^epsilon)."""
    rng, true = np.random.default_rng(seed), 1 / (1 + np.exp(-epsilon))
    return AttackScores((rng.random(n) < true).astype(float), (rng.random(n) >= true).astype(float))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_randomized_response_reaches_the_bound_and_does_not_pass_it(epsilon: float) -> None:
    n = 40_000
    fpr, tpr = randomized_response(epsilon, n, 3).roc_curve()
    corner = dp_tpr_bound(fpr[1], epsilon, 0.0)
    assert tpr[1] == pytest.approx(float(corner), abs=4 * np.sqrt((1 + np.exp(2 * epsilon)) / (4 * n)))
    assert (1 + tpr[1] - fpr[1]) / 2 == pytest.approx(dp_accuracy_bound(epsilon), abs=4 / np.sqrt(8 * n))
    assert tpr[1] > dp_tpr_bound(fpr[1], epsilon / 2, 0.0) + 0.02  # which half the promise would break


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 4.0])
def test_the_curve_of_a_gaussian_mechanism_touches_its_own_bound_from_below(sigma: float) -> None:
    from scipy.stats import norm

    delta = 1e-3
    epsilon = gaussian_epsilon(sigma, delta)
    curve = norm.cdf(norm.ppf(FPR_GRID) + 1 / sigma)  # the best attack there is
    gap = dp_tpr_bound(FPR_GRID, epsilon, delta) - curve
    assert gap.min() > -1e-9 and gap.min() < 2e-3
    assert (dp_tpr_bound(FPR_GRID, 0.8 * epsilon, delta) < curve).any()
    rng = np.random.default_rng(5)
    n = 4_000
    fpr, tpr = AttackScores(rng.normal(1 / sigma, 1, n), rng.standard_normal(n)).roc_curve()
    # both rates are off by half a standard error of 4, or 4 / sqrt(4 n) each, at most
    assert (tpr <= dp_tpr_bound(np.minimum(fpr + 2 / np.sqrt(n), 1), epsilon, delta) + 2 / np.sqrt(n)).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.exp(epsilon) * f + delta, 1", "np.exp(epsilon) * f, 1"),
        ("(1 - delta - f)", "(1 + delta - f)"),
        ("np.minimum(np.exp(epsilon)", "np.maximum(np.exp(epsilon)"),
        ("np.exp(epsilon) * f", "epsilon * f"),
    ],
)
def test_broken_bounds_are_found(old: str, new: str) -> None:
    broken, f = mutant(module, old, new), np.linspace(0, 1, 21)
    allowed = [bound_by_inequalities(x, 1.0, 0.1) for x in f]
    assert np.abs(broken.dp_tpr_bound(f, 1.0, 0.1) - allowed).max() > 1e-3


# ── the figure, and what is refused ──────────────────────────────────────────────────────────────────────────────────


def test_the_figure_is_drawn_on_the_axis_given_with_its_labels() -> None:
    rng = np.random.default_rng(0)
    attack = AttackScores(rng.normal(1, 1, 50), rng.standard_normal(50))
    figure, ax = plt.subplots()
    assert (
        plot_roc({"distance": attack, "blind": AttackScores(np.zeros(5), np.zeros(5))}, ax, dp_bound=(1.0, 1e-5)) is ax
    )
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:3] == ["distance", "blind", "guessing"]
    assert "false positive" in ax.get_xlabel() and "true positive" in ax.get_ylabel()
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert any("ε = 1" in said for said in [*names, *(text.get_text() for text in ax.texts)])
    drawn = ax.get_lines()[0].get_xydata()
    assert np.allclose(drawn[:, 1], np.maximum(attack.roc_curve()[1], 1e-4))
    bound = ax.get_lines()[-1].get_xydata()
    assert np.allclose(bound[:, 1], dp_tpr_bound(bound[:, 0], 1.0, 1e-5))
    plt.close(figure)
    own = plot_roc({"distance": attack})
    assert not own.texts and len(own.get_lines()) == len(own.get_legend().get_texts()) == 2
    plt.close(own.figure)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [np.zeros(0), np.zeros((3, 1)), np.array([1.0, np.nan]), np.array(1.0)], ids=["none", "2d", "NaN", "one"]
)
@pytest.mark.parametrize("side", ["members", "nonmembers"])
def test_scores_that_are_none_are_refused(wrong: np.ndarray, side: str) -> None:
    scores: dict[str, np.ndarray] = {"members": np.zeros(4), "nonmembers": np.zeros(4)} | {side: wrong}
    with pytest.raises(InvalidArgument, match=rf"{side} = .*at least one score, none of them NaN"):
        AttackScores(**scores)


@pytest.mark.parametrize("fpr", [-0.1, 1.1, float("nan")])
def test_a_share_of_false_alarms_that_is_none_is_refused(fpr: float) -> None:
    with pytest.raises(InvalidArgument, match="a rate between 0 and 1"):
        AttackScores(np.zeros(3), np.zeros(3)).tpr_at_fpr(fpr)


def test_lists_and_whole_numbers_are_scores_too() -> None:
    make: Callable[..., AttackScores] = AttackScores
    assert make([3, 1], [2, 0]).auc == 0.75
