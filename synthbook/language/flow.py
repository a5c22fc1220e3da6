"""What was dropped where, drawn: the stream of records narrows at each stage, and what leaves it is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from synthbook.core.plots import BLUE, VERMILLION, new_axis
from synthbook.language.pipeline import Entry

NAMED = 3  # reasons at each stage; the rest together
GAP = 0.04  # of the height, between the stream and what leaves it


def plot_flow(ledger: Sequence[Entry], ax: Axes | None = None) -> Axes:
    """Stages from left to right; heights are records, what leaves is hatched and goes down."""
    ax = new_axis(ax, width=2.0 + 1.7 * len(ledger), height=4.2)
    total = max(ledger[0].came, 1)
    t = np.linspace(0, 1, 30)
    bend = t * t * (3 - 2 * t)
    for x, entry in enumerate(ledger):
        came, stayed = entry.came / total, entry.stayed / total
        top = 1 + 0 * t
        ax.fill_between(x + t, top - stayed, top, color=BLUE, linewidth=0)
        lost, level = _named(entry), 1 - stayed
        for _, count in lost:
            share = count / total
            down = level - GAP * bend - 0.25 * bend
            ax.fill_between(x + 0.55 * t, down - share, down, facecolor=VERMILLION, hatch="//", edgecolor="white", lw=0)
            level -= share
        if lost:
            words = "\n".join(f"{reason} {count:,}" for reason, count in lost)
            ax.text(x + 0.58, 1 - came - GAP - 0.25, words, fontsize=8, va="bottom", ha="left")
        ax.text(x + 0.02, 1.03, f"{entry.stage}\n{entry.came:,} came", fontsize=9, va="bottom")
    ax.text(len(ledger) + 0.02, 1.03, f"kept\n{ledger[-1].stayed:,}", fontsize=9, va="bottom")
    ax.set(xlim=(0, len(ledger) + 0.4), ylim=(-0.35, 1.2), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(False)
    return ax


def _named(entry: Entry) -> list[tuple[str, int]]:
    common = entry.reasons.most_common()
    if len(common) <= NAMED:
        return common
    return [*common[: NAMED - 1], ("other reasons", sum(count for _, count in common[NAMED - 1 :]))]
