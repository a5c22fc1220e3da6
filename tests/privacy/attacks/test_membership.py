"""Who was in it: neighbors by brute force, attacks where the truth is known, exact ratios, and broken copies."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.privacy.attacks import membership as module
from synthbook.privacy.attacks.membership import (
    AttackScores,
    domias,
    knn_distances,
    lira,
    nearest_distance_score,
    nearest_index,
    train_shadow_models,
)
from tests.mutation import mutant

Array = np.ndarray
SE = AttackScores(np.zeros(300), np.zeros(300)).auc_null_se  # of an attack on 300 against 300 that knows nothing


# ── neighbors ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("k", [1, 2, 7])
def test_neighbors_are_those_of_a_loop_over_all_pairs(k: int) -> None:
    rng = np.random.default_rng(k)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    for row, found, place in zip(x, knn_distances(x, y, k), nearest_index(x, y), strict=True):
        by_hand = sorted(float(np.sqrt(((row - other) ** 2).sum())) for other in y)
        assert found == pytest.approx(by_hand[:k])
        assert np.linalg.norm(row - y[place]) == pytest.approx(by_hand[0])
    assert nearest_distance_score(x, y) == pytest.approx(-knn_distances(x, y)[:, 0])
    assert knn_distances(x, y, 25).shape == (40, 25) and knn_distances(y, y)[:, 0].max() == 0


def test_the_density_ratio_is_that_of_two_distances_and_finite_for_copies() -> None:
    rng = np.random.default_rng(0)
    x, made, world = rng.normal(size=(9, 2)), rng.normal(size=(30, 2)), rng.normal(size=(50, 2))
    for k in (1, 5):
        by_hand = [
            np.log(sorted(np.linalg.norm(world - row, axis=1))[k - 1])
            - np.log(sorted(np.linalg.norm(made - row, axis=1))[k - 1])
            for row in x
        ]
        assert domias(x, made, world, k=k) == pytest.approx(by_hand)
    assert np.isfinite(domias(x, x, world)).all() and (domias(x, x, x) == 0).all()


# ── copies with noise on them: claim C5.1-1 ──────────────────────────────────────────────────────────────────────────

# bandwidth: AUC, hits at 1 % false alarms, share nearer to training rows; means of ten runs by other hands
LEDGER = {
    0.02: (1.000, 1.000, 1.000),
    0.1: (0.991, 0.697, 0.981),
    0.2: (0.892, 0.136, 0.856),
    0.3: (0.737, 0.034, 0.727),
    0.5: (0.567, 0.018, 0.596),
    0.8: (0.513, 0.010, 0.535),
    1.5: (0.494, 0.013, 0.510),
}
GAUSSIAN = 0.0  # stands for the bandwidth of a fitted Gaussian
RUNS = 10


def world(seed: int, n: int = 300) -> tuple[Array, Array]:
    """Training rows and held-out ones (n, 4)."""
    train, held = np.random.default_rng([seed, 1]).normal(size=(2, n, 4))
    return train, held


def released(train: Array, h: float, seed: int, n: int = 3_000) -> Array:
    """Rows (n, d) around training rows, or from a Gaussian fitted to them."""
    rng = np.random.default_rng([seed, 2])
    if h == GAUSSIAN:
        return rng.multivariate_normal(train.mean(axis=0), np.cov(train.T), n)
    return np.asarray(train[rng.integers(len(train), size=n)] + h * rng.normal(size=(n, train.shape[1])))


def attacked(by: ModuleType, h: float, runs: int = RUNS) -> Array:
    """AUC, hits at 1 % false alarms and share nearer to training rows (runs, 3) of the distance attack."""
    found = []
    for seed in range(runs):
        train, held = world(seed)
        made = released(train, h, seed)
        attack = AttackScores(by.nearest_distance_score(train, made), by.nearest_distance_score(held, made))
        nearer = float((knn_distances(made, train) < knn_distances(made, held)).mean())
        found.append((attack.auc, attack.tpr_at_fpr(0.01), nearer))
        assert not (knn_distances(made, train) == 0).any()  # no row of the release is a training row
    return np.array(found)


@cache
def measured(h: float) -> Array:
    return attacked(module, h)


@pytest.mark.slow
@pytest.mark.parametrize("h", LEDGER)
def test_noisy_copies_give_their_training_rows_away_as_the_ledger_says(h: float) -> None:
    # two means of ten runs each; where all runs agree, the ledger's last digits are their error
    errors = np.maximum(measured(h).std(axis=0, ddof=1), [0.002, 0.006, 0.003]) * np.sqrt(2 / RUNS)
    assert (np.abs(measured(h).mean(axis=0) - LEDGER[h]) <= 4 * errors).all()


def claimed(by: ModuleType, runs: int = RUNS) -> bool:
    """Claim C5.1-1: the area falls in h, is above 0.95 up to 0.1, and a half for a fitted Gaussian."""
    area = {h: float(attacked(by, h, runs)[:, 0].mean()) for h in (*LEDGER, GAUSSIAN)}
    falling = [area[h] for h in LEDGER]
    return (
        all(a > b - SE / np.sqrt(runs) for a, b in pairwise(falling))
        and min(area[0.02], area[0.1]) > 0.95
        and abs(area[GAUSSIAN] - 0.5) <= 0.05
    )


@pytest.mark.slow
def test_the_area_falls_with_the_noise_and_a_fitted_gaussian_gives_nobody_away() -> None:
    assert claimed(module)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "return -knn_distances(candidates, synthetic)[:, 0]",
            "return knn_distances(candidates, synthetic)[:, 0]",
        ),  # sign flipped
        (
            "return -knn_distances(candidates, synthetic)[:, 0]",
            "return -knn_distances(candidates, synthetic, 300)[:, -1]",
        ),
        (
            "return -knn_distances(candidates, synthetic)[:, 0]",
            "return -knn_distances(candidates, candidates, 2)[:, 1]",
        ),
    ],
)
def test_broken_distances_do_not_show_it(old: str, new: str) -> None:
    assert not claimed(mutant(module, old, new), runs=1)


# ── density: what is common and what was copied ──────────────────────────────────────────────────────────────────────


def uneven(seed: int, n: int) -> Array:
    """Rows (n, 3), half of them in a crowd a thousandth as wide as where the others live."""
    rng = np.random.default_rng(seed)
    crowd = rng.random(n) < 0.5
    return np.where(crowd[:, None], 0.01 * rng.normal(size=(n, 3)), 10 * rng.normal(size=(n, 3)))


def blurred(rows: Array, seed: int) -> Array:
    """Each row twice, moved by some share of how far its neighbors are: as a tree or a network smooths."""
    rng = np.random.default_rng([seed, 8])
    reach = knn_distances(rows, rows, 4)[:, -1:]
    return np.concatenate([rows + 0.15 * reach * rng.normal(size=rows.shape) for _ in range(2)])


def contest(by: ModuleType, seed: int, n: int = 300) -> tuple[AttackScores, AttackScores]:
    """Distance, and density ratio with a reference, on rows whose density varies."""
    train, held, reference = (uneven([seed, k], n) for k in (1, 2, 3))
    made = blurred(train, seed)
    naive = AttackScores(by.nearest_distance_score(train, made), by.nearest_distance_score(held, made))
    return naive, AttackScores(by.domias(train, made, reference), by.domias(held, made, reference))


def sees_more(naive: AttackScores, informed: AttackScores) -> bool:
    return informed.auc > naive.auc + 4 * SE and informed.tpr_at_fpr(0.05) > naive.tpr_at_fpr(0.05) + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_a_ratio_of_densities_sees_more_than_a_distance_where_density_varies(seed: int) -> None:
    naive, informed = contest(module, seed)
    assert sees_more(naive, informed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.asarray(log_reference", "-np.asarray(log_reference"),  # flipped
        ("log_reference - log_synthetic", "-log_synthetic"),  # without the world
        ("np.log(np.maximum(knn_distances(candidates, rows, k), MIN_DISTANCE))", "knn_distances(candidates, rows, k)"),
        ("for rows in (synthetic, reference))", "for rows in (synthetic, candidates))"),
    ],
)
def test_broken_ratios_see_no_more(old: str, new: str) -> None:
    naive, broken = contest(mutant(module, old, new), 0)
    assert not sees_more(naive, broken)


def test_candidates_in_the_reference_make_a_fair_release_look_guilty() -> None:
    train, held, reference, made = (np.random.default_rng([7, k]).normal(size=(300, 3)) for k in range(4))
    fair = AttackScores(*(domias(rows, made, reference) for rows in (train, held)))
    assert abs(fair.auc - 0.5) < 4 * SE
    with_others = AttackScores(*(domias(rows, made, np.concatenate([reference, held])) for rows in (train, held)))
    with_members = AttackScores(*(domias(rows, made, np.concatenate([reference, train])) for rows in (train, held)))
    assert with_others.auc == 1 and with_members.auc == 0  # each row is its own neighbor


# ── shadow models ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("models", "rows"), [(4, 4), (8, 31), (7, 20)])
def test_every_row_is_as_often_in_as_out(models: int, rows: int) -> None:
    pool, given, seeds = np.arange(2.0 * rows).reshape(rows, 2), [], []

    def fit(mine: Array, seed: int) -> Array:
        given.append(mine)
        seeds.append(seed)
        return mine

    found, in_mask = train_shadow_models(fit, pool, lambda x, model: x[:, 0] + len(model), n_models=models, seed=1)
    assert found.shape == in_mask.shape == (models, rows)
    even = models - models % 2
    assert (in_mask[:even].sum(axis=0) == even // 2).all()
    for k, (mine, members) in enumerate(zip(given, in_mask, strict=True)):
        assert (mine == pool[members]).all() and members.sum() in (rows // 2, rows - rows // 2)
        assert (found[k] == pool[:, 0] + len(mine)).all()
    assert len(set(seeds)) == models and len({tuple(m) for m in in_mask}) > 2 - (rows < 5)
    again, other = (train_shadow_models(fit, pool, nearest_distance_score, n_models=models, seed=s)[1] for s in (1, 2))
    assert (again == in_mask).all() and (rows < 5 or (other != in_mask).any())


def known(rng: np.random.Generator, rows: int, pairs: int) -> tuple[Array, ...]:
    """Means (N,) in and out, and statistics (S, N) with exactly these means and deviations 0.7 and 1.9."""
    mean_in, mean_out = rng.normal(2, 3, rows), rng.normal(0, 3, rows)
    sign = np.tile([1.0, -1.0], pairs)[:, None]
    statistics = np.concatenate([mean_in + 0.7 * sign, mean_out + 1.9 * sign])
    in_mask = np.repeat([[True], [False]], 2 * pairs, axis=0) & np.ones(rows, dtype=bool)
    order = rng.permutation(len(statistics))
    return mean_in, mean_out, statistics[order], in_mask[order]


def exact(by: ModuleType) -> bool:
    rng = np.random.default_rng(4)
    mean_in, mean_out, statistics, in_mask = known(rng, 50, 3)
    observed = rng.normal(1, 3, 50)
    ratio = stats.norm(mean_in, 0.7).logpdf(observed) - stats.norm(mean_out, 1.9).logpdf(observed)
    return bool(np.allclose(by.lira(observed, statistics, in_mask), ratio))


def test_the_score_is_the_exact_log_likelihood_ratio_of_known_gaussians() -> None:
    assert exact(module)


def test_with_many_models_the_score_comes_near_the_ratio_of_the_truth() -> None:
    rng, n, models = np.random.default_rng(0), 200, 2_000
    mean_in, mean_out, in_mask = rng.normal(2, 1, n), rng.normal(0, 1, n), rng.random((models, n)) < 0.5
    statistics = np.where(in_mask, mean_in, mean_out) + np.where(in_mask, 0.5, 1.0) * rng.normal(size=(models, n))
    observed = rng.normal(1, 1, n)
    ratio = stats.norm(mean_in, 0.5).logpdf(observed) - stats.norm(mean_out, 1.0).logpdf(observed)
    assert np.abs(lira(observed, statistics, in_mask) - ratio).max() < 1.0
    assert np.corrcoef(lira(observed, statistics, in_mask), ratio)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.asarray(norm.logpdf", "-np.asarray(norm.logpdf"),  # sign flipped
        ("norm.logpdf(observed, mean_in, sd_in) - norm.logpdf", "norm.pdf(observed, mean_in, sd_in) - norm.logpdf"),
        ("for side in (in_mask, ~in_mask)", "for side in (~in_mask, in_mask)"),
        ("np.nanstd(s - m)", "np.nanstd(s)"),  # how hard records are counts as noise
        ("np.nanmean(ins, axis=0), np.nanmean(outs, axis=0)", "np.nanmean(ins), np.nanmean(outs)"),
    ],
)
def test_broken_ratios_of_likelihoods_are_found(old: str, new: str) -> None:
    assert not exact(mutant(module, old, new))


@cache
def trial(seed: int, models: int) -> tuple[Array, ...]:
    """A model that learned half of a pool of uneven rows: who was in it, distances, and those under shadow models."""
    pool = uneven([seed, 4], 400)
    mine = np.random.default_rng([seed, 5]).permutation(400) < 200
    observed = np.log(knn_distances(pool, blurred(pool[mine], seed)))[:, 0]
    found, in_mask = train_shadow_models(
        blurred, pool, lambda x, made: -np.log(knn_distances(x, made))[:, 0], n_models=models, seed=seed + 100
    )
    return mine, -observed, found, in_mask


def judged(by: ModuleType, models: int = 16, seeds: int = 3) -> tuple[float, float]:
    """Mean areas of the distance attack and of LiRA."""
    areas = []
    for seed in range(seeds):
        mine, observed, found, in_mask = trial(seed, models)
        ratio = by.lira(observed, found, in_mask)
        areas.append([AttackScores(s[mine], s[~mine]).auc for s in (observed, ratio)])
    naive, ratio = np.mean(areas, axis=0)
    return float(naive), float(ratio)


def test_shadow_models_beat_the_distance_where_some_records_are_harder_than_others() -> None:
    naive, ratio = judged(module)
    assert ratio > naive + 0.2 and ratio > 0.85


def test_deviations_of_their_own_need_more_models_than_there_are() -> None:
    own = mutant(
        module,
        "(max(float(np.nanstd(s - m)), MIN_DISTANCE) for s, m in ((ins, mean_in), (outs, mean_out)))",
        "(np.maximum(np.nanstd(s - m, axis=0), MIN_DISTANCE) for s, m in ((ins, mean_in), (outs, mean_out)))",
    )
    (_, shared), (_, alone) = judged(module, models=4), judged(own, models=4)
    assert shared > alone + 0.05


def test_a_generator_that_ignores_its_rows_is_safe_from_all_attacks() -> None:
    rng = np.random.default_rng(11)

    def blind(rows: Array, seed: int) -> Array:
        return np.random.default_rng(seed).normal(size=(500, 4))

    pool, reference = rng.normal(size=(600, 4)), rng.normal(size=(300, 4))
    mine, made = rng.permutation(600) < 300, blind(pool, 12)
    found, in_mask = train_shadow_models(blind, pool, nearest_distance_score, n_models=8, seed=13)
    scores = {
        "distance": nearest_distance_score(pool, made),
        "ratio": domias(pool, made, reference),
        "shadows": lira(nearest_distance_score(pool, made), found, in_mask),
    }
    for name, score in scores.items():
        assert abs(AttackScores(score[mine], score[~mine]).auc - 0.5) < 4 * SE, name


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────

ROWS = np.zeros((5, 2))


@pytest.mark.parametrize(
    ("candidates", "rows", "k"),
    [
        (ROWS, np.zeros((5, 3)), 1),
        (np.zeros(5), ROWS, 1),
        (ROWS, np.zeros(5), 1),
        (np.zeros((0, 2)), ROWS, 1),
        (ROWS, np.zeros((0, 2)), 1),
        (ROWS, ROWS, 6),
        (ROWS, ROWS, 0),
        (ROWS, np.full((5, 2), np.nan), 1),
        (np.full((5, 2), np.inf), ROWS, 1),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(candidates: Array, rows: Array, k: int) -> None:
    with pytest.raises(InvalidArgument, match="candidates, rows"):
        knn_distances(candidates, rows, k)


def test_shadow_models_that_make_no_sense_are_refused() -> None:
    for models, pool in ((3, np.zeros((10, 2))), (4, np.zeros((3, 2)))):
        with pytest.raises(InvalidArgument, match="at least 4"):
            train_shadow_models(lambda rows, seed: rows, pool, nearest_distance_score, n_models=models, seed=0)
    statistics, in_mask = np.zeros((4, 3)), np.tile([[True], [False]], (2, 3))
    for observed, told, side in (
        (np.zeros(2), statistics, in_mask),
        (np.zeros(3), statistics[:3], in_mask),
        (np.zeros((3, 1)), statistics, in_mask),
    ):
        with pytest.raises(InvalidArgument, match=r"\(N,\), \(S, N\)"):
            lira(observed, told, side)
    for always in (True, False):
        lonely = in_mask.copy()
        lonely[:, 1] = always
        with pytest.raises(InvalidArgument, match="out of others"):
            lira(np.zeros(3), statistics, lonely)
    hole_score = statistics.copy()
    hole_score[0, 0] = np.nan
    for observed, told in ((np.array([0.0, np.nan, 0.0]), statistics), (np.zeros(3), hole_score)):
        with pytest.raises(InvalidArgument, match="NaN"):
            lira(observed, told, in_mask)
