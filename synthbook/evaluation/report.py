"""The evaluation report: is a synthetic table real, varied, useful and new?

Each metric is compared with its value for fresh real rows of the same size. A verdict needs that reference and the
novelty metrics, because a copy of the training table passes all others (claim C6.1-4).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from synthbook.core import html
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.core.storage import Provenance, strict_json, write_with_provenance
from synthbook.core.table import Holdout, Schema, Table, check_holdout, refuse_holdout, split_units
from synthbook.core.types import Seed
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import (
    Dependence,
    FeatureSubset,
    check_tables,
    dependence,
    fidelity_metrics,
    marginal_distances,
    observed_categories,
    plot_dependence,
    plot_marginal_distances,
    reference_bands,
    subsample_rows,
)
from synthbook.evaluation.inference import Z_BAND
from synthbook.evaluation.novelty import NoveltyResult, novelty
from synthbook.evaluation.two_sample import classifier_two_sample_test
from synthbook.evaluation.utility import TRTR_SIZE_MATCHED, check_target, utility

_QUESTIONS = ("real", "varied", "useful", "new")
_ANSWERS = {True: "yes", False: "no", None: "not evaluated"}
HIGHER_IS_BETTER = {"precision", "density", "recall", "coverage"}
_DIVERSITY = {"recall", "coverage", "categories lost"}
_MAX_ROWS = 4_000
_MAX_NOVELTY_ROWS = 20_000
_MIN_ROWS = 60  # with fewer rows the bands are too wide to show anything
_MAX_LISTED = 10  # categories in a note
MAX_BANDS = 4.0  # of the figure's axis
_HEAD = ["question", "metric", "value", "fresh real rows", "from", "to", "verdict"]
_PROVENANCE = Provenance("an evaluation of synthetic rows", "synthbook.evaluation.report.evaluate")
_NOT_PRIVACY = "Novelty is not a privacy verdict: a release can pass it and leak."


class ReportError(SynthbookError):
    """Raised when a verdict lacks the metrics it needs."""


@dataclass(frozen=True)
class MetricResult:
    """A metric, its reference value for fresh real rows with a 99.9 % band, and the verdict."""

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
        """Value, reference and band as text: three decimals, none from a hundred on."""
        return [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3f}" for v in (self.value, self.reference, self.low, self.high)]


def fidelity_results(
    real: FeatureSubset, synthetic: FeatureSubset, fresh: FeatureSubset, rng: np.random.Generator
) -> list[MetricResult]:
    """Compare fidelity and diversity metrics with those of fresh real rows."""
    metrics, bands = fidelity_metrics(synthetic, real=real), reference_bands(real, fresh, rng)
    results = []
    for name, value in metrics.items():
        band, sign = bands[name], 1 if name in HIGHER_IS_BETTER else -1
        passed = sign * (value - (band.low if sign > 0 else band.high)) >= 0  # False for NaN
        closer = sign * (value - (band.high if sign > 0 else band.low)) > 0
        verdict = "closer than fresh rows" if closer else "as real rows" if passed else "worse than real rows"
        question = "varied" if name in _DIVERSITY else "real"
        results.append(MetricResult(question, name, value, band.mean, band.low, band.high, verdict, passed))
    test = classifier_two_sample_test(synthetic.features, real=real.features, seed=int(rng.integers(2**31)))
    accuracy = (test.accuracy, 0.5, test.low, test.high, test.verdict, not test.distinguishable)
    return [*results, MetricResult("real", "classifier accuracy", *accuracy)]


def utility_results(scores: pd.DataFrame) -> list[MetricResult]:
    """Compare TSTR with TRTR scores of the model that is best when trained on real rows; `scores` from `utility`."""
    real_auc = scores[scores["protocol"] == "TRTR"].set_index("model")["auc"]
    if real_auc.isna().all():
        raise InvalidArgument("target", "a column with one category in the held-out rows", "one that varies there")
    protocol = TRTR_SIZE_MATCHED if TRTR_SIZE_MATCHED in set(scores["protocol"]) else "TRTR"
    best = scores[scores["model"] == real_auc.idxmax()].set_index("protocol")
    tstr: Any = best.loc["TSTR"]
    trtr: Any = best.loc[protocol]
    results = []
    for metric, sign in (("auc", 1), ("f1", 1), ("brier", -1)):
        value, reference = float(tstr[metric]), float(trtr[metric])
        # the 95 % bootstrap interval, widened to the 99.9 % of all other bands
        margin = float(trtr[f"{metric}_high"] - trtr[f"{metric}_low"]) / 2 * Z_BAND / 1.96
        passed = bool(sign * (value - reference) >= -margin)  # False for NaN
        verdict = "as training on real rows" if passed else "worse than training on real rows"
        name, low, high = f"TSTR {metric}, {trtr['model']}", reference - margin, reference + margin
        results.append(MetricResult("useful", name, value, reference, low, high, verdict, passed))
    return results


def novelty_results(result: NoveltyResult) -> list[MetricResult]:
    """Compare novelty metrics with their null distribution, in which nothing was memorized."""
    max_auc, null, max_copies = result.membership_auc_high, result.null_copies, result.max_copies
    rows = (
        ("share nearer to training", result.dcr_share, 0.5, result.low, result.high),
        ("exact copies", float(result.n_copies), null, max(2 * null - max_copies, 0.0), max_copies),
        ("membership AUC", result.membership_auc, 0.5, 1 - max_auc, max_auc),
    )
    results = []
    for metric, value, reference, low, high in rows:
        verdict = "copies its training rows" if value > high else "as new rows"
        results.append(MetricResult("new", metric, value, reference, low, high, verdict, value <= high))
    return results


# ── The report ──


@dataclass(frozen=True, repr=False)
class Report:
    """All metrics of an evaluation; `results` in the order of the four questions. Jupyter shows table and figure."""

    results: tuple[MetricResult, ...]
    marginals: pd.DataFrame
    dependence: Dependence
    utility: pd.DataFrame | None
    novelty: NoveltyResult
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each metric."""
        return pd.DataFrame([asdict(result) for result in self.results])

    @property
    def answers(self) -> dict[str, bool | None]:
        """Whether all metrics of each question pass; None if it was not evaluated."""
        passed = {q: [result.passed for result in self.results if result.question == q] for q in _QUESTIONS}
        return {q: all(values) if values else None for q, values in passed.items()}

    @property
    def verdict(self) -> str:
        """The conclusion in one sentence. Raises `ReportError` without novelty or a reference for each metric."""
        if self.answers["new"] is None:
            raise ReportError("no verdict without novelty: a copy of the training table passes all other metrics")
        unreferenced = [result.metric for result in self.results if not math.isfinite(result.reference)]
        if unreferenced:
            raise ReportError(f"no verdict without a real-data reference: {', '.join(unreferenced)}")
        failed = [q for q, passed in self.answers.items() if passed is False]
        if not failed:
            evaluated = [q for q, passed in self.answers.items() if passed is not None]
            return f"{', '.join(evaluated)}: as fresh real rows are. {_NOT_PRIVACY}"
        first = {q: next(x for x in self.results if x.question == q and not x.passed) for q in failed}
        return "; ".join(f"not {q} ({x.metric}: {x.verdict})" for q, x in first.items()) + f". {_NOT_PRIVACY}"

    def __repr__(self) -> str:
        answers = ", ".join(f"{question}: {_ANSWERS[passed]}" for question, passed in self.answers.items())
        return f"Report({answers}; {len(self.results)} metrics)"

    def __str__(self) -> str:
        rows = [(x.question, x.metric, *x.formatted, x.verdict) for x in self.results]
        return "\n".join([pd.DataFrame(rows, columns=_HEAD).to_string(index=False), "", *self.notes, self.verdict])

    def _repr_html_(self) -> str:
        alt, figure = _metrics_figure(self)
        return "\n".join([f"<p><strong>{escape(self.verdict)}</strong></p>", _html_table(self), html.img(figure, alt)])

    def figures(self) -> dict[str, Figure]:
        """Three figures by their text alternative: metrics, distances of columns, associations of pairs."""
        first, second, error = self.dependence.worst
        farthest = self.marginals.sort_values("distance").iloc[-1]["column"]
        columns = f"Distance of each column from the real one; the farthest is {farthest}."
        pairs = f"Error of association of each pair of columns; the largest, {error:.2f}, is of {first} with {second}."
        return dict(
            [
                _metrics_figure(self),
                (columns, _figure(plot_marginal_distances(self.marginals))),
                (pairs, _figure(plot_dependence(self.dependence))),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "verdict": self.verdict,
            "answers": self.answers,
            "results": [asdict(result) for result in self.results],
            "marginals": self.marginals.to_dict("records"),
            "dependence": {"mean_error": self.dependence.mean_error, "worst": list(self.dependence.worst)},
            "utility": None if self.utility is None else self.utility.to_dict("records"),
            "novelty": asdict(self.novelty),
            "notes": list(self.notes),
        }

    def to_json(self, path: Path, provenance: Provenance = _PROVENANCE) -> Path:
        """Write strict JSON and its sidecar."""
        return write_with_provenance(Path(path), strict_json(self.to_dict(), indent=1) + "\n", provenance)

    def to_html(self, path: Path, provenance: Provenance = _PROVENANCE) -> Path:
        """Write one self-contained page, and its sidecar."""
        return write_with_provenance(Path(path), _render_html(self), provenance)


def evaluate(
    synthetic: Table | pd.DataFrame,
    *,
    train: Table | pd.DataFrame,
    holdout: Holdout[Any],
    target: str | None = None,
    schema: Schema | None = None,
    seed: Seed = 0,
    max_rows: int = _MAX_ROWS,
    callback: Callable[[str], None] = lambda step: None,
) -> Report:
    """Evaluate a synthetic table against the real rows its generator was fitted to and held-out real rows.

    Half of the holdout stands in for a perfect generator, which gives each metric its reference; the other half is the
    test set of utility; all of it is used for novelty. `target`, a categorical or ordinal column, is what utility
    predicts; if omitted, utility is not evaluated. Data frames become tables by `schema`, by default that of a table
    among the arguments, else a schema drafted from all rows. Metrics use at most `max_rows` random rows of each table.
    `callback(step)` reports progress; warnings become notes. Raises `HoldoutError`, `InvalidArgument`, `SchemaError`.
    """
    refuse_holdout([train, synthetic], "the rows that a holdout is compared with")
    check_holdout(holdout)
    tables = _as_tables({"train": train, "holdout": holdout.data, "synthetic": synthetic}, schema)
    check_tables(**{name: tables[name] for name in ("train", "synthetic", "holdout")})
    for name, minimum in (("train", _MIN_ROWS), ("synthetic", _MIN_ROWS), ("holdout", 2 * _MIN_ROWS)):
        if len(tables[name]) < minimum:
            raise InvalidArgument(name, f"a table with {len(tables[name])} rows", f"at least {minimum} rows")
    if not isinstance(max_rows, int | np.integer) or max_rows < _MIN_ROWS:
        raise InvalidArgument("max_rows", max_rows, f"an integer of at least {_MIN_ROWS}")
    if target is not None:
        check_target(tables["train"].schema, target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = _evaluate(**tables, target=target, seed=seed, max_rows=max_rows, callback=callback)
    notes = dict.fromkeys(f"Warning: {w.message}." for w in caught if issubclass(w.category, UserWarning))
    return replace(report, notes=(*report.notes, *notes))


def _evaluate(
    *,
    synthetic: Table,
    train: Table,
    holdout: Table,
    target: str | None,
    seed: Seed,
    max_rows: int,
    callback: Callable[[str], None],
) -> Report:
    rng, encode = np.random.default_rng(seed), fit_table_encoder(train)
    first, second = split_units(holdout, rng)
    m = min(len(synthetic), len(first), max_rows)
    sizes = ((train, max_rows), (synthetic, m), (first, m))
    real, generated, fresh = (subsample_rows(table, encode, n, rng) for table, n in sizes)
    callback("real and varied: against fresh real rows")
    results, scores = fidelity_results(real, generated, fresh, rng), None
    if target is not None:
        models = {
            "logistic regression": LogisticRegression(max_iter=500),
            "gradient boosting": HistGradientBoostingClassifier(max_iter=100, early_stopping=False),
        }
        callback("useful: training on synthetic rows, testing on held-out ones")
        utility_seed, test = int(rng.integers(2**31)), Holdout(second)
        scores = utility(synthetic, train=train, holdout=test, target=target, seed=utility_seed, models=models)
        results += utility_results(scores)
    callback("new: nearest training and held-out rows")
    # all training rows, not a subset: a copy is found only next to its original
    pools = [subsample_rows(table, encode, _MAX_NOVELTY_ROWS, rng).features for table in (train, holdout)]
    new = novelty(generated.features, train=pools[0], holdout=pools[1], seed=int(rng.integers(2**31)))
    results = sorted([*results, *novelty_results(new)], key=lambda result: _QUESTIONS.index(result.question))
    distances = marginal_distances(generated.table, real=real.table)
    pairs = dependence(generated.table, real=real.table)
    notes = tuple(_notes(synthetic, train, [real, generated, fresh], new))
    return Report(tuple(results), distances, pairs, scores, new, notes)


def _notes(synthetic: Table, train: Table, subsets: list[FeatureSubset], new: NoveltyResult) -> Iterator[str]:
    counts = [f"{len(rows):,} {name}" for rows, name in zip(subsets, ("real", "synthetic", "fresh real"), strict=True)]
    yield f"Rows compared: {', '.join(counts)}; novelty against {new.n_train:,} training and as many held-out rows."
    if new.n_copies:
        chance = f"{new.null_copies:,.0f} would by chance, were nothing memorized"
        yield f"Exact copies: {new.n_copies:,} of {new.n_synthetic:,} synthetic rows repeat a training row; {chance}."
    missing = observed_categories(train) - observed_categories(synthetic)
    if missing:
        rarest = sorted(missing, key=lambda pair: (int((train[pair[0]] == pair[1]).sum()), pair))
        listed = ", ".join(f"{column} = {value}" for column, value in rarest[:_MAX_LISTED])
        yield f"Categories of the real table that the synthetic one lacks, rarest first ({len(missing)}): {listed}."
    if train.schema.origin == "inferred":
        yield 'The schema is marked "inferred": nobody has reviewed its bounds and categories.'


def _as_tables(named: dict[str, Any], schema: Schema | None) -> dict[str, Table]:
    """Tables of the arguments; frames take `schema`, else that of the first table, else one drafted from all rows."""
    for name, rows in named.items():
        if not isinstance(rows, Table | pd.DataFrame):
            raise InvalidArgument(name, type(rows).__name__, "a Table or a DataFrame")
    schema = schema or next((rows.schema for rows in named.values() if isinstance(rows, Table)), None)
    if schema is None:
        from synthbook.core.schema_draft import draft_schema

        schema = draft_schema(pd.concat(named.values(), ignore_index=True)).schema
    return {name: rows if isinstance(rows, Table) else Table(rows, schema) for name, rows in named.items()}


# ── Figure and page; names of columns and categories come from data: everything is escaped ──


def plot_metrics(results: tuple[MetricResult, ...], ax: Axes | None = None) -> Axes:
    """Draw each metric's distance from its reference in widths of its band, which is the gray strip.

    A distance beyond the axis is drawn at its edge, with an arrow and the number of bands.
    """
    ax = new_axes(ax, width=7.5, height=1.2 + 0.32 * len(results))
    ax.axvspan(-1, 1, color="0.9", linewidth=0)
    ax.axvline(0, color=BLACK, linewidth=1)
    for y, result in enumerate(results):
        distance = result.value - result.reference
        width = result.high - result.reference if distance > 0 else result.reference - result.low
        bands = distance / max(width, 1e-12)
        x = float(np.clip(bands, -MAX_BANDS, MAX_BANDS))
        color, marker = (BLUE, "o") if result.passed else (VERMILLION, "X")
        ax.plot(x, y, marker, color=color, markersize=8, clip_on=False)
        if abs(bands) > MAX_BANDS:
            number = f"{abs(bands):.0f}" if abs(bands) < 1000 else "> 999"
            text, side, at = (f"{number} →", "right", x - 0.2) if bands > 0 else (f"← {number}", "left", x + 0.2)
            ax.text(at, y, text, ha=side, va="center")
    ax.set_yticks(range(len(results)), [f"{result.question}: {result.metric}" for result in results])
    xlabel = "distance from fresh real rows (bands)"
    ax.set(xlim=(-MAX_BANDS, MAX_BANDS), ylim=(len(results) - 0.5, -0.5), xlabel=xlabel)
    ax.set_title("Crosses are worse than what fresh real rows score")
    return ax


def _render_html(report: Report) -> str:
    """The report as one self-contained HTML page."""
    answers = [[escape(question), _ANSWERS[passed]] for question, passed in report.answers.items()]
    body = [
        "<h1>Is it real, varied, useful, new?</h1>",
        f"<p><strong>{escape(report.verdict)}</strong></p>",
        html.table(["question", "as fresh real rows"], answers),
        _html_table(report),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        *(html.img(figure, alt) for alt, figure in report.figures().items()),
    ]
    return html.page("Evaluation of a synthetic table", body)


def _html_table(report: Report) -> str:
    rows = []
    for x in report.results:
        verdict = escape(x.verdict) if x.passed else f'<span class="fails">✗ {escape(x.verdict)}</span>'
        rows.append([escape(x.question), escape(x.metric), *x.formatted, verdict])
    return html.table(_HEAD, rows)


def _metrics_figure(report: Report) -> tuple[str, Figure]:
    failed = ", ".join(result.metric for result in report.results if not result.passed) or "none"
    return f"Every metric against fresh real rows; worse: {failed}.", _figure(plot_metrics(report.results))


def _figure(ax: Axes) -> Figure:
    assert isinstance(ax.figure, Figure)
    return ax.figure
