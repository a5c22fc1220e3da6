"""Every exact and null claim of section 6 holds for the code, and each of its parts fails for a broken copy of it."""

from types import SimpleNamespace

import pytest

from synthbook.course.claims import load_claims
from synthbook.evaluation import frechet, inference, novelty, prdc, two_sample, utility
from tests.evaluation.acceptance import ACCEPTANCE, MODULES
from tests.mutation import mutant


@pytest.mark.slow
@pytest.mark.parametrize("id", ACCEPTANCE)
def test_claim_holds(id):
    failed = [shown for shown in ACCEPTANCE[id](SimpleNamespace(**MODULES)) if not shown.holds]
    assert not failed


MUTANTS = [
    # claim, the parts that must fail, which module is broken, what it says, what the broken copy says
    ("C6.1-1", "closed_form bias", frechet, "shift @ shift + np.trace(s1)", "np.trace(s1)"),
    ("C6.1-1", "closed_form identical bias extrapolation blind", frechet, "2 * singular_values.sum()", "singular_values.sum()"),
    ("C6.1-1", "closed_form identical symmetric bias", frechet, "@ vectors.T)", ")"),
    ("C6.1-1", "closed_form", frechet, "np.linalg.svd(_root(s1) @ _root(s2), compute_uv=False)", "np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).real"),
    ("C6.1-1", "closed_form bias extrapolation", frechet, "np.sqrt(np.where(values > rounding, values, 0))", "np.where(values > rounding, values, 0)"),
    ("C6.1-1", "closed_form", frechet, "ddof=1", "ddof=0"),
    ("C6.1-1", "bias", frechet, "np.divide(products, 2 * sums", "np.divide(products, sums"),
    ("C6.1-1", "bias", frechet, " + np.trace(terms)", ""),
    ("C6.1-1", "bias", frechet, "(1 / n + 1 / m) * (", "(1 / n) * ("),
    ("C6.1-1", "bias", frechet, "(1 / n + 1 / m) * (", "(2 / (n + m)) * ("),
    ("C6.1-1", "extrapolation", frechet, "np.polyfit(1 / f,", "np.polyfit(f,"),
    ("C6.1-1", "extrapolation", frechet, "_, at_infinity = np", "at_infinity, _ = np"),
    ("C6.1-1", "closed_form symmetric bias blind", frechet, "np.trace(s1) + np.trace(s2)", "2 * np.trace(s1)"),
    ("C6.1-2", "density coverage precision libraries", prdc, "squared[:, k]", "squared[:, k - 1]"),
    ("C6.1-2", "coverage libraries", prdc, "real=real, synthetic=synthetic", "real=synthetic, synthetic=real"),
    ("C6.1-2", "libraries", prdc, "_Balls(y, k, cells).contain(x)", "balls.contain(x)"),
    ("C6.1-2", "density coverage precision libraries", prdc, "balls = _Balls(x, k, cells)", "balls = _Balls(x, k, cells); balls.radius2 = np.resize(_Balls(y, k, cells).radius2, len(x))"),
    ("C6.1-2", "density libraries", prdc, "hits / (k * len(y))", "hits / len(y)"),
    ("C6.1-2", "libraries", prdc, "precise / len(y)", "precise / len(x)"),
    ("C6.1-2", "libraries", prdc, "(1 - TIE / 2)", "(1 + TIE / 2)"),
    ("C6.1-2", "density coverage precision libraries", prdc, "(1 - TIE / 2)", "0.99"),
    ("C6.1-2", "coverage libraries", prdc, "float(covered.mean())", "recalled / len(x)"),
    ("C6.1-2", "coverage", prdc, "np.prod((n - j) / (n + m - j))", "np.prod((n - j) / (n + m))"),
    ("C6.1-3", "coverage", prdc, "(1 - TIE / 2)", "(1 + TIE / 2)"),
    ("C6.1-3", "coverage", prdc, "squared[:, k]", "squared[:, k - 1]"),
    ("C6.1-3", "precision coverage recall", prdc, "real=real, synthetic=synthetic", "real=synthetic, synthetic=real"),
    ("C6.1-3", "recall", prdc, "_Balls(y, k, cells).contain(x)", "balls.contain(x)"),
    ("C6.1-3", "coverage", prdc, "(n - copies - j) / (n - j)", "(n - copies) / n"),
    ("C6.1-5", "precision_falls", prdc, "precise / len(y)", "recalled / len(x)"),
    ("C6.1-5", "precision_falls", prdc, "precise / len(y)", "1.0"),  # no price at all
    ("C6.1-5", "recall_rises", prdc, "recall=recalled / len(x)", "recall=float(covered.mean())"),  # coverage is no recall
    ("C6.1-5", "recall_rises", prdc, "_Balls(y, k, cells).contain(x)", "balls.contain(x)"),
    ("C6.1-5", "best_width", frechet, "- 2 * singular_values.sum()", ""),
    ("C6.1-3 utility", "utility", utility, '("TSTR", synthetic, test)', '("TSTR", train, test)'),
    ("C6.1-3 utility", "utility", utility, '("TSTR", synthetic, test)', '("TSTR", test, test)'),
    ("C6.1-3 utility", "utility", utility, '("TSTR", synthetic, test)', '("TSTR", synthetic, synthetic)'),
    ("C6.1-3 utility", "utility", utility, "encode = fit_table_encoder(train)", "encode = fit_table_encoder(test)"),
    ("C6.1-4", "utility", utility, '("TRTR", train, test)', '("TRTR", test, test)'),
    ("C6.1-4", "utility", utility, '("TSTR", synthetic, test)', '("TSTR", sample_rows(synthetic, len(synthetic) - 1, np.random.default_rng(1)), test)'),
    ("C6.1-4", "truth_novelty", novelty, "(nearest @ in_train > 0) + 1.0 - (nearest @ in_holdout > 0)", "2.0 * ~(nearest @ in_holdout > 0)"),  # ties count as holdout
    ("C6.1-4", "copy_novelty", novelty, "np.repeat([True, False], n)", "np.repeat([False, True], n)"),
    ("C6.1-4", "copy_novelty", novelty, "train=train, holdout=holdout", "train=holdout, holdout=train"),
    ("C6.1-4", "truth_distance", frechet, "shift @ shift + np.trace(s1)", "np.trace(s1)"),
    ("C6.1-4", "copy_distance truth_distance", frechet, "2 * singular_values.sum()", "singular_values.sum()"),
    ("C6.1-4", "scores", prdc, "(1 - TIE / 2)", "(1 + TIE / 2)"),
    ("C6.1-5 nulls", "pmse", two_sample, "independent = c * (1 - c) * (k - 1) / n", "independent = c * (1 - c) ** 2 * (k - 1) / n"),
    ("C6.1-5 nulls", "pmse", two_sample, "fitted = c * (1 - c) ** 2 * (k - 1) / n", "fitted = c * (1 - c) * (k - 1) / n"),
    ("C6.1-5 nulls", "pmse", two_sample, "value / independent, value / fitted", "value / fitted, value / independent"),
    ("C6.1-5 nulls", "pmse", two_sample, "k = design.shape[1] + 1", "k = design.shape[1]"),
    ("C6.1-5 pmse", "pmse", two_sample, "((scores - c) ** 2)", "(abs(scores - c))"),
    ("C6.1-5 nulls", "two_sample", two_sample, "model.predict(np.concatenate([x[half:], y[half:]]))", "model.predict(np.concatenate([x[:half], y[:half]]))"),
    ("C6.2-1", "synthetic", inference, "/ (n_real - d_fit)\n    student", "/ n_real\n    student"),  # maximum likelihood
    ("C6.2-1", "synthetic real limit", inference, "n - np.arange(d)", "n - 1 - np.arange(d)"),
    ("C6.2-1", "synthetic limit", inference, "student = generator + _error_of_fit(fitted_noise, n_synthetic", "student = generator + _error_of_fit(fitted_noise, n_real"),
    ("C6.2-1", "synthetic limit never_below misspecified", inference, "student = generator + ", "student = "),
    ("C6.2-1", "synthetic misspecified", inference, "np.full(replicates, -omitted_coef)", "np.zeros(replicates)"),
    ("C6.2-1", "synthetic", inference, "variance = noise_variance + omitted_coef**2", "variance = noise_variance"),
    ("C6.2-1", "real", inference, "return noise_variance * d / (n_real - d - 1)", "return noise_variance * d / n_real"),
    ("C6.2-2", "leak flagged synthetic_test", utility, '("TSTR", synthetic, test)', '("TSTR", test, test)'),  # the test rows leak
    ("C6.2-2", "leak impossible flagged synthetic_test", utility, '("TSTR", synthetic, test)', '("TSTR", train, test)'),
    ("C6.2-2", "leak flagged synthetic_test", utility, '("TSTR", synthetic, test)', '("TSTR", synthetic, synthetic)'),
    ("C6.2-2", "flagged", utility, "score > bayes_accuracy + Z_BAND * se", "score > 1"),
    ("C6.2-2", "flagged", utility, "score > bayes_accuracy + Z_BAND * se", "score > 0.5"),
    ("C6.2-3", "corrected", inference, "corrected_half = half * np.sqrt(1 + n_synthetic / n_real)", "corrected_half = half"),
    ("C6.2-3", "corrected", inference, "np.sqrt(1 + n_synthetic / n_real)", "(1 + n_synthetic / n_real)"),
    ("C6.2-3", "naive corrected", inference, "_mean_and_variance(fitted_mean, fitted_variance", "_mean_and_variance(0.0, fitted_variance"),
    ("C6.2-3", "naive", inference, "z / np.sqrt(1 + r)", "z / (1 + r)"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("id", "parts", "module", "old", "new"), MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)]
)
def test_mutant_fails(id, parts, module, old, new):
    modules = MODULES | {module.__name__.rsplit(".", 1)[1]: mutant(module, old, new)}
    failed = {shown.part for shown in ACCEPTANCE[id](SimpleNamespace(**modules)) if not shown.holds}
    assert set(parts.split()) <= failed


def test_every_part_is_checked_and_has_a_mutant():
    rows = {id: {part.id for part in row.parts} for id, row in load_claims().items() if id.startswith("C6.")}
    broken = {id: {part for m in MUTANTS if m[0].split()[0] == id for part in m[1].split()} for id in rows}
    assert broken == rows
