"""Figures of section 7."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from synthbook.core.plots import BLACK, BLUE, GREEN, ORANGE, VERMILLION, new_axes


def plot_generations(
    samples: Sequence[ArrayLike], labels: Sequence[str], *, bins: ArrayLike, xlabel: str, ax: Axes | None = None
) -> Axes:
    """Draw histograms of several generations (1-d samples) below each other on the same bins, the first at the top.

    Each histogram is scaled to its own peak, so that widths and locations can be compared.
    """
    ax = new_axes(ax, width=7, height=0.75 * len(samples) + 1)
    edges = np.asarray(bins, dtype=float)
    for row, sample in enumerate(samples):
        heights, _ = np.histogram(np.asarray(sample, dtype=float), edges)
        base = len(samples) - 1 - row
        ax.stairs(base + 0.85 * heights / max(heights.max(), 1), edges, baseline=base, fill=True, color=BLUE, alpha=0.8)
        ax.axhline(base, color=BLACK, linewidth=0.6)
    ax.set_yticks(np.arange(len(samples)) + 0.3, list(labels)[::-1])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.set(xlabel=xlabel, xlim=(edges[0], edges[-1]), ylim=(0, len(samples)))
    return ax


def plot_fan(
    values: ArrayLike, *, runs: int = 12, expected_mean: ArrayLike | None = None, ax: Axes | None = None
) -> Axes:
    """Draw trajectories (generations + 1, replicates): single runs, the central 80 %, the median and the mean.

    `expected_mean` (generations + 1,) is drawn as dots over the simulated mean.
    """
    ax = new_axes(ax)
    v = np.asarray(values, dtype=float)
    t = np.arange(len(v))
    ax.plot(t, v[:, 0], color="0.6", linewidth=0.6, linestyle="-", alpha=0.6, label="single runs")
    ax.plot(t, v[:, 1:runs], color="0.6", linewidth=0.6, linestyle="-", alpha=0.6)
    low, median, high = np.quantile(v, (0.1, 0.5, 0.9), axis=1)
    ax.fill_between(t, low, high, color=BLUE, alpha=0.15, linewidth=0, label="middle 80 % of runs")
    ax.plot(t, median, color=BLUE, linestyle="--", label="median run")
    ax.plot(t, v.mean(axis=1), color=VERMILLION, linestyle="-", label="mean of all runs")
    if expected_mean is not None:
        stride = max(len(t) // 20, 1)
        ax.plot(
            t[::stride], np.asarray(expected_mean)[::stride], "o", color=BLACK, markersize=4, label="mean, in theory"
        )
    ax.set(xlabel="generation t", xlim=(0, t[-1]))
    ax.legend(framealpha=0.9, edgecolor="none")
    return ax


def plot_log_variance_drift(
    variances: dict[str, ArrayLike], drifts: dict[str, float], *, ax: Axes | None = None
) -> Axes:
    """Draw the mean log variance by generation for each estimator, with its theoretical drift as a black line."""
    ax = new_axes(ax)
    styles = zip((BLUE, VERMILLION, GREEN), "os^", strict=True)
    for (name, values), (color, marker) in zip(variances.items(), styles, strict=False):
        v = np.asarray(values, dtype=float)
        t = np.arange(len(v))
        stride = max(len(t) // 20, 1)
        ax.plot(t, drifts[name] * t, color=BLACK, linestyle="-", linewidth=1)
        ax.plot(t[::stride], np.log(v).mean(axis=1)[::stride], marker, color=color, markersize=5, label=name)
    ax.plot([], [], color=BLACK, linewidth=1, linestyle="-", label="drift, in theory")
    ax.set(xlabel="generation t", ylabel="mean of ln(variance / real variance)")
    ax.legend(frameon=False)
    return ax


def plot_survivors(
    alive: ArrayLike, *, expected: ArrayLike | None = None, label: str = "types", ax: Axes | None = None
) -> Axes:
    """Draw the number of surviving types on log axes, with generation 0 as a dotted line.

    `alive` is (generations + 1, replicates), `expected` (generations + 1,); `label` names the types.
    """
    ax = new_axes(ax)
    counts = np.asarray(alive, dtype=float)
    t = np.arange(1, len(counts))
    ax.axhline(counts[0].mean(), color=BLACK, linestyle=":", linewidth=1, label=f"{label} in the real text")
    ax.plot(t, counts[1:], color=ORANGE, linestyle="-", linewidth=0.8, alpha=0.5)
    ax.plot(t, counts[1:].mean(axis=1), color=VERMILLION, linestyle="-", label="mean of the runs")
    if expected is not None:
        shown = np.unique(np.geomspace(1, len(t), 15).astype(int))
        ax.plot(shown, np.asarray(expected)[shown], "o", color=BLACK, markersize=5, label="in theory")
    ax.set(xscale="log", yscale="log", xlabel="generation t", ylabel=f"{label} left")
    ax.legend(frameon=False)
    return ax
