"""One call for all four questions: is a synthetic table real, varied, useful and new?

Each measure stands beside what fresh real rows score at the same sizes. There is no verdict without that reference
and without novelty, because a copy of the training table passes everything else (claim C6.1-4).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.storage import Provenance, strict_json, write_with_provenance
from synthbook.core.table import Holdout, Schema, Table, refuse_holdout, split_units
from synthbook.core.types import Seed
from synthbook.evaluation import fidelity as reference
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import Dependence, check_tables, dependence, marginal_distances
from synthbook.evaluation.inference import Z_BAND
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.evaluation.two_sample import classifier_two_sample_test
from synthbook.evaluation.utility import TRTR_SIZE_MATCHED, check_target, utility

HIGHER_IS_BETTER = {"precision", "density", "recall", "coverage"}
VARIED = {"recall", "coverage", "categories lost"}


@dataclass(frozen=True)
class MetricResult:
    """One measure: its value, what fresh real rows score, the band around that, and what follows."""

    question: str
    metric: str
    value: float
    reference: float
    low: float
    high: float
    verdict: str
    passed: bool

    @property
    def formatted(self) -> list[str]:
        """Value, reference and band as text: three decimals, counts of a hundred and more without."""
        return [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3f}" for v in (self.value, self.reference, self.low, self.high)]


def fidelity(
    real: reference.FeatureSubset,
    synthetic: reference.FeatureSubset,
    fresh: reference.FeatureSubset,
    rng: np.random.Generator,
) -> list[MetricResult]:
    """Is it real, is it varied? Against what the fresh rows score."""
    found, expected = reference.fidelity_metrics(real, synthetic), reference.reference_bands(real, fresh, rng)
    lines = []
    for name, value in found.items():
        band, sign = expected[name], 1 if name in HIGHER_IS_BETTER else -1
        good = sign * (value - (band.low if sign > 0 else band.high)) >= 0  # not where it is NaN
        closer = sign * (value - (band.high if sign > 0 else band.low)) > 0
        verdict = "closer than fresh rows" if closer else "as real rows" if good else "worse than real rows"
        question = "varied" if name in VARIED else "real"
        lines.append(MetricResult(question, name, value, band.mean, band.low, band.high, verdict, good))
    test = classifier_two_sample_test(real.features, synthetic.features, seed=int(rng.integers(2**31)))
    verdict = "told apart" if test.distinguishable else "below chance, as copied rows make it"
    verdict = "not told apart" if test.low <= test.accuracy <= test.high else verdict
    return [
        *lines,
        MetricResult(
            "real", "classifier accuracy", test.accuracy, 0.5, test.low, test.high, verdict, not test.distinguishable
        ),
    ]


def utility_results(scores: pd.DataFrame) -> list[MetricResult]:
    """Is it useful? Of what `utility` measured, the model that is best when it learns from real rows."""
    best = _best_on_real(scores)
    protocol = TRTR_SIZE_MATCHED if TRTR_SIZE_MATCHED in set(scores["protocol"]) else "TRTR"
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
        lines.append(
            MetricResult("useful", name, value, expected, expected - reach, expected + reach, verdict, bool(good))
        )
    return lines


def _best_on_real(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the model that is best when trained and tested on real rows."""
    reached = scores[scores["protocol"] == "TRTR"].set_index("model")["auc"]
    if reached.isna().all():
        raise InvalidArgument("target", "a column with one category in the held-out rows", "one that varies there")
    return scores[scores["model"] == reached.idxmax()]


def novelty_results(found: NoveltyResult) -> list[MetricResult]:
    """Is it new? Against what rows score that nothing has learned from.

    Exact copies are held against what chance gives to the training side when so many rows repeat a real one.
    """
    rows = (
        ("share nearer to training", found.dcr_share, 0.5, found.low, found.high),
        (
            "exact copies",
            float(found.n_copies),
            found.null_copies,
            max(2 * found.null_copies - found.max_copies, 0.0),
            found.max_copies,
        ),
        ("membership AUC", found.membership_auc, 0.5, 1 - found.membership_auc_high, found.membership_auc_high),
    )
    lines = []
    for metric, value, expected, low, high in rows:
        verdict = "copies its training rows" if value > high else "as new rows"
        lines.append(MetricResult("new", metric, value, expected, low, high, verdict, value <= high))
    return lines


# ── The report ──


QUESTIONS = ("real", "varied", "useful", "new")
MAX_ROWS = 4_000
NOVELTY_ROWS = 20_000
NAMED = 10
LEAST = 60  # rows; with fewer the bands are wider than anything they could show
PROVENANCE = Provenance("an evaluation of synthetic rows", "synthbook.evaluation.report.evaluate")
NOT_PRIVACY = "Novelty is not a privacy verdict: a release can pass it and leak."


class ReportError(SynthbookError):
    """A verdict was asked for without what it rests on."""


@dataclass(frozen=True)
class Report:
    """Everything that was measured; `lines` in the order of the four questions."""

    results: tuple[MetricResult, ...]
    marginal_distances: pd.DataFrame
    dependence: Dependence
    utility: pd.DataFrame | None
    novelty: NoveltyResult
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each measure."""
        return pd.DataFrame([asdict(line) for line in self.results])

    @property
    def answers(self) -> dict[str, bool | None]:
        """Each question: whether every line passes; None where it was not asked."""
        asked = {q: [line.passed for line in self.results if line.question == q] for q in QUESTIONS}
        return {q: all(passes) if passes else None for q, passes in asked.items()}

    @property
    def verdict(self) -> str:
        """One sentence. Raises `ReportError` without the novelty lines or without a reference for every line."""
        if self.answers["new"] is None:
            raise ReportError("no verdict without novelty: a copy of the training table passes all other measures")
        bare = [line.metric for line in self.results if not math.isfinite(line.reference)]
        if bare:
            raise ReportError(f"no verdict without what fresh real rows score: {', '.join(bare)}")
        failed = [q for q, passes in self.answers.items() if passes is False]
        asked = [q for q, passes in self.answers.items() if passes is not None]
        if not failed:
            return f"{', '.join(asked)}: as fresh real rows are. {NOT_PRIVACY}"
        why = {q: next(x for x in self.results if x.question == q and not x.passed) for q in failed}
        return "; ".join(f"not {q} ({line.metric}: {line.verdict})" for q, line in why.items()) + f". {NOT_PRIVACY}"

    def __str__(self) -> str:
        rows = [(line.question, line.metric, *line.formatted, line.verdict) for line in self.results]
        head = ["question", "measure", "value", "fresh real rows", "from", "to", "verdict"]
        shown = pd.DataFrame(rows, columns=head).to_string(index=False)
        return "\n".join([shown, "", *self.notes, self.verdict])

    def figures(self) -> dict[str, Any]:
        """Three matplotlib figures by their text alternative: the four questions, the columns, the pairs."""
        from synthbook.evaluation.report_page import figures

        return figures(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "verdict": self.verdict,
            "answers": self.answers,
            "lines": [asdict(line) for line in self.results],
            "marginals": self.marginal_distances.to_dict("records"),
            "dependence": {"mean_error": self.dependence.mean_error, "worst": list(self.dependence.worst)},
            "utility": None if self.utility is None else self.utility.to_dict("records"),
            "novelty": asdict(self.novelty),
            "notes": list(self.notes),
        }

    def to_json(self, path: Path, provenance: Provenance = PROVENANCE) -> Path:
        """Write strict JSON and its sidecar."""
        return write_with_provenance(Path(path), strict_json(self.to_dict(), indent=1) + "\n", provenance)

    def to_html(self, path: Path, provenance: Provenance = PROVENANCE) -> Path:
        """Write one page that needs no other file and no network, and its sidecar."""
        from synthbook.evaluation.report_page import render_html

        return write_with_provenance(Path(path), render_html(self), provenance)


def evaluate(
    real: Table | pd.DataFrame,
    holdout: Holdout[Any],
    synthetic: Table | pd.DataFrame,
    schema: Schema | None = None,
    *,
    target: str | None = None,
    seed: Seed = 0,
    max_rows: int = MAX_ROWS,
    callback: Callable[[str], None] = lambda step: None,
) -> Report:
    """Measure a synthetic table against the real rows it was made from and real rows that nothing has learned from.

    Half of `holdout` plays a perfect generator, which gives every measure its reference; the other half is the test set
    of utility, and all of it judges novelty. Measures use at most `max_rows` rows of each table, picked at random with
    `seed`. `schema` turns plain frames into tables. `target`, a column of categories, is what utility predicts; without
    it nobody asks whether the table is useful. `callback` is told what is being measured. Warnings become notes. Raises
    `HoldoutError`, `InvalidArgument`, `SchemaError`.
    """
    refuse_holdout([real, synthetic], "the rows that a holdout is compared with")
    if not isinstance(holdout, Holdout):
        raise InvalidArgument(
            "holdout", type(holdout).__name__, "a Holdout: real rows that no generator has learned from"
        )
    learned, kept, made = (_table(x, schema) for x in (real, holdout.data, synthetic))
    check_tables(real=learned, synthetic=made, holdout=kept)
    for name, table, least in (("real", learned, LEAST), ("synthetic", made, LEAST), ("holdout", kept, 2 * LEAST)):
        if len(table) < least:
            raise InvalidArgument(name, f"a table with {len(table)} rows", f"at least {least} rows")
    if not isinstance(max_rows, int | np.integer) or max_rows < LEAST:
        raise InvalidArgument("max_rows", max_rows, f"a whole number of at least {LEAST}")
    if target is not None:
        check_target(learned.schema, target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = _measured(learned, kept, made, target, seed, max_rows, callback)
    said = dict.fromkeys(f"Warning: {w.message}." for w in caught if issubclass(w.category, UserWarning))
    return replace(report, notes=(*report.notes, *said))


def _measured(
    learned: Table,
    kept: Table,
    made: Table,
    target: str | None,
    seed: Seed,
    max_rows: int,
    callback: Callable[[str], None],
) -> Report:
    rng, features = np.random.default_rng(seed), fit_table_encoder(learned)
    first, second = split_units(kept, rng)
    m = min(len(made), len(first), max_rows)
    cut = ((learned, max_rows), (made, m), (first, m))
    real, synthetic, fresh = (reference.subsample_rows(table, features, n, rng) for table, n in cut)
    callback("real and varied: against fresh real rows")
    lines, scores = fidelity(real, synthetic, fresh, rng), None
    if target is not None:
        models = {
            "logistic regression": LogisticRegression(max_iter=500),
            "gradient boosting": HistGradientBoostingClassifier(max_iter=100, early_stopping=False),
        }
        callback("useful: training on synthetic rows, testing on held-out ones")
        draw = int(rng.integers(2**31))
        scores = utility(learned, made, Holdout(second), target=target, seed=draw, models=models)
        lines += utility_results(scores)
    callback("new: nearest training and held-out rows")
    # all training rows, not a cut of them: a copy is found only next to its original
    pool = [reference.subsample_rows(table, features, NOVELTY_ROWS, rng).features for table in (learned, kept)]
    new = novelty(synthetic.features, *pool, seed=int(rng.integers(2**31)))
    ordered = sorted([*lines, *novelty_results(new)], key=lambda line: QUESTIONS.index(line.question))
    moved, pairs = marginal_distances(real.table, synthetic.table), dependence(real.table, synthetic.table)
    return Report(
        tuple(ordered), moved, pairs, scores, new, tuple(_notes(learned, made, [real, synthetic, fresh], new))
    )


def _notes(learned: Table, made: Table, used: list[reference.FeatureSubset], new: NoveltyResult) -> Iterator[str]:
    counts = [f"{len(rows):,} {name}" for rows, name in zip(used, ("real", "synthetic", "fresh real"), strict=True)]
    yield f"Rows compared: {', '.join(counts)}; novelty against {new.n_train:,} training and as many held-out rows."
    if new.n_copies:
        chance = f"{new.null_copies:,.0f} would by chance, were nothing memorised"
        yield f"Exact copies: {new.n_copies:,} of {new.n_synthetic:,} synthetic rows repeat a training row; {chance}."
    omitted_coef = reference.observed_categories(learned) - reference.observed_categories(made)
    if omitted_coef:
        rarest = sorted(omitted_coef, key=lambda pair: (int((learned[pair[0]] == pair[1]).sum()), pair))
        named = ", ".join(f"{column} = {value}" for column, value in rarest[:NAMED])
        yield f"Categories of the real table that the synthetic one lacks, rarest first ({len(omitted_coef)}): {named}."
    if learned.schema.origin == "inferred":
        yield 'The schema is marked "inferred": nobody has reviewed its bounds and categories.'


def _table(rows: Any, schema: Schema | None) -> Table:
    if isinstance(rows, Table):
        return rows
    if isinstance(rows, pd.DataFrame) and schema is not None:
        return Table(rows, schema)
    raise InvalidArgument("real, holdout, synthetic", type(rows).__name__, "a Table, or a DataFrame with its schema")
