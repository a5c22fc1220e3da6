"""Every exact claim of section 7 holds for the code, and each of its parts fails for a broken copy of it."""

from functools import cache
from types import SimpleNamespace

import pytest

from synthbook.collapse import categories, refit, theory
from synthbook.course.claims import load_claims
from tests.collapse.acceptance import ACCEPTANCE
from tests.mutation import mutant


@cache
def survival_probability(p, n, generations):
    return theory.survival_probability(p, n, generations)


# what is exact takes a second, and is the same beside every broken copy of another module
EXACT = SimpleNamespace(
    **vars(theory) | {"survival_probability": lambda p, *run: survival_probability(tuple(p.tolist()), *run).copy()}
)


@cache
def whole(id):
    return tuple(ACCEPTANCE[id](refit, categories, EXACT))


@pytest.mark.slow
@pytest.mark.parametrize("id", ACCEPTANCE)
def test_claim_holds(id):
    failed = [shown for shown in whole(id) if not shown.holds]
    assert not failed


@pytest.mark.slow
def test_acceptance_covers_every_part():
    for id in ACCEPTANCE:
        assert {shown.part for shown in whole(id)} == {part.id for part in load_claims()[id].parts}


MUTANTS = [
    # claim, the parts that must fail, which module is broken, what it says, what the broken copy says
    ("C7.2-1", "mean_variance half_life_mean", refit, "chisquare(n - 1, replicates) / (n - ddof)", "chisquare(n - 1, replicates) / (n - 1 + ddof)"),
    ("C7.2-1", "mean_variance mean_variance_small mean_log_variance half_life_typical", refit, "chisquare(n - 1, replicates)", "chisquare(n, replicates)"),
    ("C7.2-1", "log_variance_spread", refit, "rng.chisquare(n - 1, replicates)", "np.random.default_rng(0).chisquare(n - 1, replicates)"),
    ("C7.2-1", "mean_variance", refit, "fits.variance[t + 1] = s2 *", "fits.variance[t + 1] = (s2 if t else 1.1) *"),
    ("C7.2-2", "mean_variance mean_log_variance median_variance", refit, "chisquare(n - 1, replicates) / (n - ddof)", "chisquare(n - 1, replicates) / n"),
    ("C7.2-2", "share_collapsed nearly_all_collapse", refit, "s2 * rng.chisquare(n - 1, replicates)", "s2 * (n - 1) * np.ones(replicates)"),
    ("C7.2-2", "mean_log_variance median_variance", theory, "np.log((n - ddof) / 2))", "np.log(n / 2))"),
    ("C7.2-3", "wasserstein_unbiased wasserstein_mle", refit, "fits.mean[t] + np.sqrt", "fits.mean[0] + np.sqrt"),
    ("C7.2-3", "conservation", refit, "np.sqrt(s2 / n) *", "np.sqrt(s2 / (n - 1)) *"),
    ("C7.2-3", "wasserstein_mle_bounded", refit, "np.sqrt(s2 / n) *", "np.sqrt(2 * s2 / n) *"),
    ("C7.2-3", "wasserstein_mle", refit, "shift**2 + spread**2)", "shift**2 + (self.variance - self.variance[0])**2)"),
    ("C7.2-3", "wasserstein_unbiased wasserstein_mle", theory, "+ 1 - 2 * mean_s)", "+ 1 - mean_s)"),
    ("C7.2-3", "wasserstein_unbiased", theory, "t / n if ddof else", "(t - 1) / n if ddof else"),
    ("C7.2-4", "statistical", refit, "chisquare(n - 1, replicates) / (n - ddof)", "chisquare(n - 1, replicates) / (1.01 * (n - ddof))"),
    ("C7.2-4", "sampling_bias", refit, "(temperature if t > 0 else 1.0)  # (replicates,)", "temperature"),
    ("C7.2-4", "sampling_bias", refit, "(temperature if t > 0 else 1.0)  # (replicates,)", "1.0"),
    ("C7.2-4", "kde_fixed_bandwidth", refit, "picked + h *", "picked + 0.5 * h *"),
    ("C7.2-4", "kde_increasing kde_fixed_bandwidth kde_scott_grows", refit, "picked + h *", "picked + 0 * h *"),
    ("C7.2-4", "kde_fixed_bandwidth", refit, "x = picked", "x = x"),
    ("C7.2-4", "kde_scott_grows", refit, "* n**-0.2", "* n**-0.3"),
    ("C7.2-4", "expressivity_fixed", refit, "np.sqrt(moments[t, 1]) * nodes", "moments[t, 1] * 1.001 * nodes"),
    ("C7.2-4", "expressivity_jump", refit, "(p * (x - mean) ** 2)", "(p * x)"),
    ("C7.1-1", "heterogeneity survivors median_tail rare_category", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, shares[0])"),
    ("C7.1-1", "survivors", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n - n // 10, shares[t]) * (n / (n - n // 10))"),
    ("C7.1-1", "heterogeneity survivors", categories, "rng.multinomial(n, shares[t]) / n", "(rng.multinomial(n, shares[t]) / n if t % 2 < 1 else shares[t])"),
    ("C7.1-1", "tail_mass", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, shares[t][:1])"),
    ("C7.1-1", "heterogeneity", categories, "1 - (np.asarray(p, dtype=float) ** 2)", "1 - (np.asarray(p, dtype=float) ** 3)"),
    ("C7.1-1", "survivors", theory, "lost[t] = start[:, 0]\n        start = start @ step", "start = start @ step\n        lost[t] = start[:, 0]"),
    ("C7.1-2", "time_ratio", categories, "rng.multinomial(n, shares[alive]) / n", "rng.multinomial(30, shares[alive]) / 30"),
    ("C7.1-2", "absorbed_at", categories, "rng.multinomial(n, shares[alive]) / n", "(rng.multinomial(n, shares[alive])[:, ::-1]) / n"),
    ("C7.1-2", "all_absorbed", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, (shares[t] + shares[0]) / 2)"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id", "parts", "module", "old", "new"), MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)]
)
def test_mutant_fails(id, parts, module, old, new):
    modules = {"refit": refit, "categories": categories, "theory": EXACT}
    modules[module.__name__.rsplit(".", 1)[1]] = mutant(module, old, new)
    failed = {shown.part for shown in ACCEPTANCE[id](**modules) if not shown.holds}
    assert set(parts.split()) <= failed


def test_every_part_has_a_mutant():
    for id in ACCEPTANCE:
        named = {part for mutated in MUTANTS if mutated[0] == id for part in mutated[1].split()}
        assert named == {part.id for part in load_claims()[id].parts}
