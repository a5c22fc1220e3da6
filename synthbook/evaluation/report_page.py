"""The report as three figures and as one page that is read without a network.

Names of columns and categories come from somebody's data: everything is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthbook.core.html import document, image, table
from synthbook.core.plots import BLACK, BLUE, VERMILLION, new_axes
from synthbook.evaluation.fidelity import plot_dependence, plot_marginal_distances

if TYPE_CHECKING:
    from synthbook.evaluation.report import MetricResult, Report

SHOWN = 4.0  # bands to either side; what lies farther out is drawn at the edge, with an arrow and its distance


def plot_metrics(results: tuple[MetricResult, ...], ax: Axes | None = None) -> Axes:
    """Each measure's distance from what fresh real rows score, in widths of its band; the grey strip is chance.

    A mark at the edge with an arrow lies as many bands away as the number beside it says.
    """
    ax = new_axes(ax, width=7.5, height=1.2 + 0.32 * len(results))
    ax.axvspan(-1, 1, color="0.9", linewidth=0)
    ax.axvline(0, color=BLACK, linewidth=1)
    for y, line in enumerate(results):
        away = line.value - line.reference
        reach = line.high - line.reference if away > 0 else line.reference - line.low
        bands = away / max(reach, 1e-12)
        x = float(np.clip(bands, -SHOWN, SHOWN))
        colour, marker = (BLUE, "o") if line.passed else (VERMILLION, "X")
        ax.plot(x, y, marker, color=colour, markersize=8, clip_on=False)
        if abs(bands) > SHOWN:
            far = f"{abs(bands):.0f}" if abs(bands) < 1000 else "> 999"
            text, side, place = (f"{far} →", "right", x - 0.2) if bands > 0 else (f"← {far}", "left", x + 0.2)
            ax.text(place, y, text, ha=side, va="center")
    ax.set_yticks(range(len(results)), [f"{line.question}: {line.metric}" for line in results])
    ax.set(xlim=(-SHOWN, SHOWN), ylim=(len(results) - 0.5, -0.5), xlabel="distance from fresh real rows (bands)")
    ax.set_title("Crosses are worse than what fresh real rows score")
    return ax


def figures(report: Report) -> dict[str, Figure]:
    """The three figures, by the text that stands for them."""
    failed = [line.metric for line in report.results if not line.passed]
    first, second, error = report.dependence.worst
    farthest = report.marginal_distances.sort_values("distance").iloc[-1]["column"]
    drawn = {
        f"Every measure against fresh real rows; worse: {', '.join(failed) or 'none'}.": (plot_metrics(report.results)),
        f"Distance of each column from the real one; the farthest is {farthest}.": plot_marginal_distances(
            report.marginal_distances
        ),
        f"Error of association of each pair of columns; the largest, {error:.2f}, is of {first} with {second}.": (
            plot_dependence(report.dependence)
        ),
    }
    return {alt: _figure(ax) for alt, ax in drawn.items()}


def _figure(ax: Axes) -> Figure:
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


def render_html(report: Report) -> str:
    """The whole report as one HTML page."""
    answers = {True: "yes", False: "no", None: "not asked"}
    questions = [[escape(q), answers[passes]] for q, passes in report.answers.items()]
    rows = [[escape(x.question), escape(x.metric), *x.formatted, _mark(x)] for x in report.results]
    pictures = [image(figure, alt) for alt, figure in figures(report).items()]
    body = [
        "<h1>Is it real, varied, useful, new?</h1>",
        f"<p><strong>{escape(report.verdict)}</strong></p>",
        table(["question", "as fresh real rows"], questions),
        table(["question", "measure", "value", "fresh real rows", "from", "to", "verdict"], rows),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        *pictures,
    ]
    return document("Evaluation of a synthetic table", body)


def _mark(line: MetricResult) -> str:
    return escape(line.verdict) if line.passed else f'<span class="fails">✗ {escape(line.verdict)}</span>'
