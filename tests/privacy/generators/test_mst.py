"""Tables by counting: projections and entropies against optimizers, trees against Chow and Liu, noise against rho."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, permutations
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.metrics import mutual_info_score

from synthbook.core.table import Column, Schema, Table
from synthbook.privacy.generators import mst
from synthbook.privacy.generators.mst import IndependentMarginals, Mst, MstConfig, MstNoise
from synthbook.privacy.mechanisms import gaussian_delta, zcdp_epsilon, zcdp_rho
from tests.mutation import mutant

DELTA = 1e-6


def coded(codes: dict[str, np.ndarray], sizes: dict[str, int]) -> Table:
    """A table of categories a, b, c, ... from numbers."""
    columns = tuple(Column(name, "categorical", categories=tuple("abcdefgh"[: sizes[name]])) for name in codes)
    frame = pd.DataFrame({name: np.array(list("abcdefgh"))[values] for name, values in codes.items()})
    return Table(frame, Schema(columns, "public"))


def shared(table: Table, *names: str) -> np.ndarray:
    """The shares of combinations of these columns' values."""
    sizes = [len(table.schema[name].categories) for name in names]
    codes = [table[name].cat.codes.to_numpy(dtype=int) for name in names]
    flat = np.ravel_multi_index(codes, sizes)
    return np.bincount(flat, minlength=math.prod(sizes)).reshape(sizes) / len(table)


# ── what is done with noisy counts ───────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-50, 500), min_size=1, max_size=30), st.floats(1, 1_000))
def test_the_projection_satisfies_its_optimality_condition(counts: list[float], total: float) -> None:
    """Optimality: a cell is max(count - t, 0), with the one t that gives the total; here t is found by bisection."""
    c = np.array(counts)
    t = brentq(lambda t: np.maximum(c - t, 0).sum() - total, c.min() - total - 1, c.max(), xtol=1e-12, rtol=1e-14)
    np.testing.assert_allclose(mst.project_to_simplex(c, total), np.maximum(c - t, 0) / total, atol=1e-8)
    np.testing.assert_allclose(mst.project_to_simplex(c[:, None], total)[:, 0], mst.project_to_simplex(c, total))


def test_no_other_table_of_probabilities_is_nearer() -> None:
    rng = np.random.default_rng(0)
    counts = rng.normal(20, 30, (3, 4))
    found = mst.project_to_simplex(counts, 100.0)
    best = minimize(
        lambda x: ((x - counts.ravel()) ** 2).sum(),
        np.full(12, 100 / 12),
        bounds=[(0, None)] * 12,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 100},
        tol=1e-12,
    )
    np.testing.assert_allclose(found.ravel() * 100, best.x, atol=1e-3)
    cut = np.maximum(counts, 0)  # what one would do first: noise in empty cells adds up to rows
    cut = cut / cut.sum() * 100
    assert ((cut - counts) ** 2).sum() > ((100 * found - counts) ** 2).sum() + 1
    assert mst.project_to_simplex(-np.ones(4)) == pytest.approx(0.25)  # nothing was left of the counts


def some_shares(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.dirichlet(np.ones(math.prod(shape))).reshape(shape)


def test_ipf_fits_the_marginals_and_preserves_odds_ratios() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table, rows, columns = some_shares(rng, 4, 3), some_shares(rng, 4), some_shares(rng, 3)
        fitted = mst.ipf(table, rows, columns)
        np.testing.assert_allclose(fitted.sum(axis=1), rows, atol=1e-6)
        np.testing.assert_allclose(fitted.sum(axis=0), columns, atol=1e-12)
        start = (1 - mst.INDEPENDENCE_WEIGHT) * table + mst.INDEPENDENCE_WEIGHT * np.outer(rows, columns)
        odds, kept = (np.log(t[1:, 1:] * t[:1, :1] / (t[1:, :1] * t[:1, 1:])) for t in (start, fitted))
        np.testing.assert_allclose(kept, odds, atol=1e-9)
    none = mst.ipf(np.eye(3) / 3, np.array([0.5, 0.5, 0]), np.array([0.2, 0.3, 0.5]))
    assert (none[2] == 0).all() and np.isfinite(none).all()
    np.testing.assert_allclose(none.sum(axis=0), [0.2, 0.3, 0.5])


def pairs_of(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return p.sum(axis=2), p.sum(axis=1), p.sum(axis=0)


def test_three_way_ipf_fits_all_pairs_without_a_three_way_interaction() -> None:
    rng = np.random.default_rng(1)
    for shape in ((2, 2, 2), (3, 2, 4), (5, 4, 3)):
        asked = pairs_of(0.5 * some_shares(rng, *shape) + 0.5 / math.prod(shape))
        p = mst.ipf_three_way(*asked)
        for wanted, found in zip(asked, pairs_of(p), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        log = np.log(p)
        odds = log[1:, 1:] - log[:1, 1:] - log[1:, :1] + log[:1, :1]  # log odds ratio of a and b, at each c
        assert np.ptp(odds, axis=2).max() < 1e-9


def test_no_table_with_these_pairs_has_a_larger_entropy() -> None:
    """Tables of 2 x 2 x 2 cells with the same pairs lie on a line: p + t (-1)^(a + b + c)."""
    signs = (-1.0) ** np.indices((2, 2, 2)).sum(axis=0)
    for seed in range(10):
        p = 0.7 * some_shares(np.random.default_rng(seed), 2, 2, 2) + 0.3 / 8
        bounds = (-p[signs > 0].min() + 1e-12, p[signs < 0].min() - 1e-12)
        told = minimize_scalar(
            lambda t, p=p: float(((p + t * signs) * np.log(p + t * signs)).sum()),
            bounds=bounds,
            options={"xatol": 1e-9},
        )
        np.testing.assert_allclose(mst.ipf_three_way(*pairs_of(p)), p + told.x * signs, atol=1e-5)


def test_pairs_that_rule_a_combination_out_give_no_rows_of_it() -> None:
    p = some_shares(np.random.default_rng(3), 3, 2, 2)
    p[1, 0] = 0
    found = mst.ipf_three_way(*pairs_of(p / p.sum()))
    assert (found[1, 0] == 0).all() and found.sum() == pytest.approx(1)


def test_rare_bins_are_compressed_and_expanded_again() -> None:
    counts = np.array([50.0, 2.0, -1.0, 40.0, 0.5])
    codes = mst.compress_domain(counts, 3.0)
    assert codes.tolist() == [0, 2, 2, 1, 2]
    assert (
        mst.compress_domain(counts, -5.0).tolist()
        == mst.compress_domain(np.array([9, 1, 9, 9, 9.0]), 3.0).tolist()
        == [*range(5)]
    )
    assert mst.compress_domain(np.zeros(3), 1.0).tolist() == [0, 0, 0]
    expansion = mst.undo_compress(codes, counts)
    np.testing.assert_allclose(expansion.sum(axis=1), 1)
    np.testing.assert_allclose(expansion[2], [0, 0.8, 0, 0, 0.2], atol=1e-8)
    assert expansion[0, 0] == expansion[1, 3] == 1 and (expansion > 0).sum(axis=0).tolist() == [1] * 5


def test_samples_have_the_frequencies_of_the_conditional_tables() -> None:
    rng = np.random.default_rng(0)
    joint = some_shares(rng, 2, 3, 4)
    joint[0, 1] = 0  # a combination that nobody has
    joint /= joint.sum()
    tables = mst.conditional_table(joint)
    np.testing.assert_allclose(tables.sum(axis=1), 1)
    np.testing.assert_allclose(tables[1], joint.sum(axis=(0, 1)))
    np.testing.assert_allclose(tables[4], joint[1, 1] / joint[1, 1].sum())
    for given_ in range(6):
        drawn = mst.sample_conditional(tables, np.full(4_000, given_), rng)
        assert stats.chisquare(np.bincount(drawn, minlength=4), 4_000 * tables[given_]).pvalue > 1e-4
    certain = mst.sample_conditional(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), np.repeat([0, 1], 500), rng)
    assert certain.tolist() == [1] * 500 + [2] * 500


# ── without noise: what a tree knows ─────────────────────────────────────────────────────────────────────────────────

NAMES, TREE = tuple("uvwxyz"), {"v": "u", "w": "u", "x": "v", "y": "w", "z": "w"}


def grown(n: int, seed: int) -> Table:
    """Rows of a known tree: each column is its parent's value in most rows, and any in the rest."""
    rng, codes = np.random.default_rng(seed), {"u": np.random.default_rng([seed, 1]).choice(3, n, p=[0.5, 0.3, 0.2])}
    for k, (name, parent) in enumerate(TREE.items()):
        follows = rng.random(n) < 0.55 + 0.06 * k
        codes[name] = np.where(follows, codes[parent], rng.integers(3, size=n))
    return coded({name: codes[name] for name in NAMES}, dict.fromkeys(NAMES, 3))


def test_the_tree_is_that_of_the_largest_mutual_information() -> None:
    table = grown(2_000, 0)
    model = Mst(epsilon=math.inf, delta=DELTA).fit(table, seed=0)
    found = {frozenset(pair) for pair in model.pairs_}
    assert len(model.pairs_) == 5 and found == {frozenset(pair) for pair in TREE.items()}
    told = np.array([[mutual_info_score(table[a], table[b]) if a < b else 0 for b in NAMES] for a in NAMES])
    oracle = minimum_spanning_tree(-told).tocoo()  # Chow and Liu 1968
    assert found == {frozenset((NAMES[i], NAMES[j])) for i, j in zip(oracle.row, oracle.col, strict=True)}


def far(made: Table, truth: Table, *names: str) -> float:
    """The largest difference of shares, in standard errors of both tables."""
    p, q = shared(truth, *names), shared(made, *names)
    return float((np.abs(p - q) / np.sqrt(np.maximum(p, 1e-3) * (1 / len(truth) + 1 / len(made)))).max())


def test_without_noise_all_two_way_marginals_are_reproduced() -> None:
    table = grown(2_000, 1)
    made = Mst(epsilon=math.inf, delta=DELTA).fit(table, seed=0).sample(20_000, seed=1)
    for pair in combinations(NAMES, 2):
        assert far(made, table, *pair) < 4.5
    alone = IndependentMarginals(epsilon=math.inf, delta=DELTA).fit(table, seed=0).sample(20_000, seed=1)
    assert max(far(alone, table, name) for name in NAMES) < 4.5
    assert all(far(alone, table, *pair) > 10 for pair in TREE.items())
    np.testing.assert_allclose(shared(alone, "u", "v"), np.outer(shared(alone, "u"), shared(alone, "v")), atol=0.01)


def test_with_a_target_its_two_way_marginals_are_reproduced() -> None:
    """A target that half of the columns make together: no tree has all those pairs."""
    rng, n = np.random.default_rng(0), 8_000
    codes = {name: rng.integers(2, size=n) for name in "abcd"}
    codes["b"] = np.where(rng.random(n) < 0.4, codes["a"], codes["b"])
    votes = codes["a"] + codes["b"] + codes["c"] + codes["d"] + rng.normal(0, 0.7, n)
    table = coded({**codes, "t": (votes > 2).astype(int)}, dict.fromkeys("abcdt", 2))
    model = Mst(epsilon=math.inf, delta=DELTA, target="t").fit(table, seed=0)
    assert {("a", "t"), ("b", "t"), ("c", "t"), ("d", "t")} < set(model.pairs_) and len(model.pairs_) == 7
    assert model.order_[0] == 4 and model.parents_[4] == () and all(4 in model.parents_[j] for j in range(4))
    made = model.sample(20_000, seed=1)
    for pair in (*model.pairs_, ("a", "b")):
        assert far(made, table, *pair) < 4.5
    assert far(made, table, "a", "b", "t") < 4.5
    plain = Mst(epsilon=math.inf, delta=DELTA).fit(table, seed=0).sample(20_000, seed=1)
    assert max(far(plain, table, "a", "b", "t"), far(plain, table, "c", "d", "t")) > 4.5


@pytest.mark.parametrize("target", [None, "u"])
@pytest.mark.parametrize("names", ["u", "uv"])
def test_one_or_two_columns_are_enough(names: str, target: str | None) -> None:
    table = grown(600, 2)
    for name in set(NAMES) - set(names):
        table = table.drop_column(name)
    for epsilon in (1.0, math.inf):
        model = Mst(epsilon=epsilon, delta=DELTA, target=target).fit(table, seed=0)
        assert len(model.sample(50, seed=0)) == 50 and len(model.pairs_) == len(names) - 1


# ── the noise ────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=60)
@given(st.floats(0.05, 20), st.integers(1, 12), st.booleans(), st.integers(1, 5))
def test_all_measurements_together_spend_the_budget_and_no_more(
    epsilon: float, d: int, with_target: bool, k: int
) -> None:
    """rho of counts is k^2 / (2 sigma^2), of a choice epsilon^2 / 8; and they add up."""
    others = d - with_target
    choices, target_pairs = max(others - 1, 0), others * with_target
    config = MstConfig(epsilon=epsilon, delta=DELTA, max_rows_per_entity=k)
    noise = MstNoise.allocate(config, one_way=d, two_way=choices + target_pairs, selections=choices)
    rho = d * k**2 / (2 * noise.one_way_sigma**2) + (choices + target_pairs) * k**2 / (2 * noise.two_way_sigma**2)
    rho += choices * noise.selection_epsilon**2 / 8 if choices else 0.0
    allowed = zcdp_rho(epsilon, DELTA)
    assert rho <= allowed * (1 + 1e-9) and zcdp_epsilon(rho, DELTA) <= epsilon * (1 + 1e-9)
    assert rho == pytest.approx(allowed) or choices + target_pairs == 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Any]]]:
    """What `marginals` adds to counts, measured at each look, and the epsilon over sensitivity of each choice."""
    seen: dict[str, list[Any]] = {"noise": [], "choices": []}
    noisy, choice = mst.measure, mst.exponential_mechanism

    def measured(counts: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
        found = noisy(counts, sigma, rng)
        seen["noise"].append(found - counts)
        return found

    def counted(scores: np.ndarray, epsilon: float, rng: np.random.Generator, *, sensitivity: float) -> int:
        seen["choices"].append((epsilon, sensitivity))
        return choice(scores, epsilon, rng, sensitivity=sensitivity)

    monkeypatch.setattr(mst, "measure", measured)
    monkeypatch.setattr(mst, "exponential_mechanism", counted)
    yield seen


FITS, EPSILON = 60, 1.0


def even() -> Table:
    """Eight values, all as frequent, so that no cell is rare."""
    rng = np.random.default_rng(0)
    return coded({name: rng.integers(8, size=2_000) for name in "abc"}, dict.fromkeys("abc", 8))


EVEN = even()


def spent(seen: dict[str, list[Any]], model: Mst, counts: int) -> float:
    """rho per fit: of each look by its noise's standard deviation over all fits, of choices by what they were told."""
    seen["noise"].clear(), seen["choices"].clear()
    for seed in range(FITS):
        model.fit(EVEN, seed=seed)
    k = model.config.max_rows_per_entity
    assert len(seen["noise"]) == counts * FITS
    looks = [np.concatenate([noise.ravel() for noise in seen["noise"][j::counts]]) for j in range(counts)]
    rho = sum(k**2 / (2 * look.std() ** 2) for look in looks)
    assert {sensitivity for _, sensitivity in seen["choices"]} == {k}
    return float(rho + sum(epsilon**2 / 8 for epsilon, _ in seen["choices"]) / FITS)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "counts"), [(None, 3 + 2), ("c", 3 + 1 + 2)])
def test_noise_is_calibrated_to_the_budget(
    target: str | None, counts: int, watched: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, allowed = Mst(epsilon=EPSILON, delta=DELTA, target=target), zcdp_rho(EPSILON, DELTA)
    assert spent(watched, model, counts) == pytest.approx(allowed, rel=0.06)
    halved = mutant(mst, "sigma * rng.standard_normal", "0.5 * sigma * rng.standard_normal")
    monkeypatch.setattr(mst, "measure", lambda *given, measured=mst.measure: replaced(halved, watched, *given))
    assert spent(watched, model, counts) > 2 * allowed


def replaced(module: ModuleType, seen: dict[str, list[Any]], counts: Any, sigma: float, rng: Any) -> Any:
    found = module.measure(counts, sigma, rng)
    seen["noise"].append(found - counts)
    return found


@pytest.mark.slow
def test_independent_marginals_spend_the_exact_gaussian_budget(watched: dict[str, list[Any]]) -> None:
    """One Gaussian mechanism: whoever comes moves each of the three tables by one, sqrt(3) in all."""
    model = IndependentMarginals(epsilon=EPSILON, delta=DELTA)
    for seed in range(FITS):
        model.fit(EVEN, seed=seed)
    sigma = float(np.concatenate([noise.ravel() for noise in watched["noise"]]).std())
    assert gaussian_delta(EPSILON, 1.03 * sigma, sensitivity=math.sqrt(3)) <= DELTA
    assert gaussian_delta(EPSILON, 0.97 * sigma, sensitivity=math.sqrt(3)) > DELTA
    assert gaussian_delta(EPSILON, 0.5 * sigma, sensitivity=math.sqrt(3)) > 100 * DELTA  # halved noise
    assert model.guarantee_.noise_multiplier * model.guarantee_.clip == pytest.approx(sigma, rel=0.03)
    assert model.guarantee_.clip == pytest.approx(math.sqrt(3))


def test_noise_is_fresh_in_every_measurement_and_every_fit(watched: dict[str, list[Any]]) -> None:
    for seed in range(2):
        Mst(epsilon=EPSILON, delta=DELTA).fit(EVEN, seed=seed)
    flat = [noise.ravel()[:8] for noise in watched["noise"]]
    assert all(np.abs(a / np.linalg.norm(a) - b / np.linalg.norm(b)).max() > 0.05 for a, b in permutations(flat, 2))
    released = Mst(epsilon=EPSILON, delta=DELTA, release=True)
    one, two = (released.fit(EVEN, seed=None).conditionals_[0].copy() for _ in range(2))
    assert not np.array_equal(one, two)


def test_selection_scores_have_the_stated_sensitivity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the exponential mechanism counts on: scores with the same noisy singles, with some rows and without."""
    rng = np.random.default_rng(0)
    codes, single = [rng.integers(4, size=200) for _ in range(3)], [some_shares(rng, 4) for _ in range(3)]

    def scores(module: ModuleType, rows: Any) -> np.ndarray:
        seen: list[np.ndarray] = []
        monkeypatch.setattr(module, "exponential_mechanism", lambda found, *_, **__: (seen.append(found), 0)[1])
        model = module.Mst(epsilon=1.0, delta=DELTA)
        model._select_tree([0, 1, 2], [c[rows] for c in codes], single, 200.0, MstNoise(1.0, 1.0, 1.0), rng)
        return np.concatenate(seen)

    def moved(module: ModuleType, gone: int) -> float:
        everyone = scores(module, slice(None))
        apart = (np.delete(np.arange(200), rng.choice(200, gone, replace=False)) for _ in range(20))
        return float(max(np.abs(scores(module, rows) - everyone).max() for rows in apart))

    assert moved(mst, 1) == pytest.approx(1) and moved(mst, 3) <= 3 + 1e-9
    squared = mutant(mst, "np.abs(counts - total", "np.square(counts - total")
    assert moved(squared, 1) > 2


def test_extreme_budgets_still_give_rows() -> None:
    table = grown(600, 3)
    for epsilon in (0.001, 50.0):
        made = Mst(epsilon=epsilon, delta=DELTA, target="z").fit(table, seed=0).sample(300, seed=1)
        assert len(made) == 300
    close = Mst(epsilon=50.0, delta=DELTA).fit(table, seed=0).sample(5_000, seed=1)
    assert max(np.abs(shared(close, *pair) - shared(table, *pair)).max() for pair in TREE.items()) < 0.06
