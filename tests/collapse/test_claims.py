"""Every exact claim of section 7 holds for the code, and fails for a broken copy of it."""

import pytest

from synthbook.collapse import categories, refit
from synthbook.core.errors import SynthbookError
from tests.collapse.acceptance import ACCEPTANCE
from tests.mutation import mutant


@pytest.mark.parametrize("id", ACCEPTANCE)
def test_claim_holds(id):
    failed = [shown for shown in ACCEPTANCE[id](refit, categories) if not shown.holds]
    assert not failed


STANDARD = "rng.standard_normal(replicates)"
MUTANTS = [
    # claim, which module is broken, what it says, what the broken copy says
    ("C7.2-1", refit, "chisquare(n - 1, replicates) / (n - ddof)", "chisquare(n - 1, replicates) / (n - 1 + ddof)"),
    ("C7.2-1", refit, "chisquare(n - 1, replicates)", "chisquare(n, replicates)"),
    ("C7.2-1", refit, "rng.chisquare(n - 1, replicates)", "np.random.default_rng(0).chisquare(n - 1, replicates)"),
    ("C7.2-1", refit, "fits.variance[t + 1] = s2 *", "fits.variance[t + 1] = (s2 if t else 1.1) *"),
    ("C7.2-2", refit, "chisquare(n - 1, replicates) / (n - ddof)", "chisquare(n - 1, replicates) / n"),
    ("C7.2-2", refit, "s2 * rng.chisquare(n - 1, replicates) / (n - ddof)", "s2 if t < 1 else fits.variance[t - 1] * "
     "rng.chisquare(n - 1, replicates) / (n - ddof)"),
    ("C7.2-3", refit, "np.sqrt(s2 / n) *", "np.sqrt(s2 / (n - 1)) *"),
    ("C7.2-3", refit, "fits.mean[t] + np.sqrt", "fits.mean[0] + np.sqrt"),
    ("C7.2-3", refit, "shift**2 + spread**2)", "shift**2 + (self.variance - self.variance[0])**2)"),
    ("C7.2-4", refit, "(tau if t > 0 else 1.0)  # (replicates,)", "tau"),
    ("C7.2-4", refit, "(tau if t > 0 else 1.0)  # (replicates,)", "1.0"),
    ("C7.2-4", refit, "picked + h *", "picked + 0.5 * h *"),
    ("C7.2-4", refit, "x = picked", "x = x"),
    ("C7.2-4", refit, "* n**-0.2", "* n**-0.3"),
    ("C7.2-4", refit, "np.sqrt(moments[t, 1]) * nodes", "moments[t, 1] * 1.001 * nodes"),
    ("C7.2-4", refit, "(p * (x - mean) ** 2)", "(p * x)"),
    ("C7.1-1", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, shares[0])"),
    ("C7.1-1", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n - n // 10, shares[t]) * (n / (n - n // 10))"),
    ("C7.1-1", categories, "rng.multinomial(n, shares[t]) / n", "(rng.multinomial(n, shares[t]) / n if t % 2 < 1 else shares[t])"),
    ("C7.1-1", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, shares[t][:1])"),
    ("C7.1-1", categories, "1 - (np.asarray(p, dtype=float) ** 2)", "1 - (np.asarray(p, dtype=float) ** 3)"),
    ("C7.1-2", categories, "rng.multinomial(n, shares[alive])", "rng.multinomial(30, shares[alive])"),
    ("C7.1-2", categories, "rng.multinomial(n, shares[alive]) / n", "(rng.multinomial(n, shares[alive])[:, ::-1]) / n"),
    ("C7.1-2", categories, "rng.multinomial(n, shares[t])", "rng.multinomial(n, (shares[t] + shares[0]) / 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("id", "module", "old", "new"), MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)])
def test_mutant_fails(id, module, old, new):
    broken = mutant(module, old, new)
    modules = {"refit": refit, "categories": categories} | {module.__name__.rsplit(".", 1)[1]: broken}
    try:
        shown = ACCEPTANCE[id](**modules)
    except SynthbookError:
        return  # it broke so badly that it refused to run
    assert not all(part.holds for part in shown)


def test_every_claim_has_a_mutant():
    assert {m[0] for m in MUTANTS} == set(ACCEPTANCE)
