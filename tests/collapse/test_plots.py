"""The figures of section 7 draw what they are given, where they are told to, and say what it is."""

from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from synthbook.collapse import plots
from synthbook.core.plots import BLACK, STYLE

rng = np.random.default_rng(0)
SAMPLES = [rng.normal(0, width, 200) for width in (2.0, 1.0, 0.1)]
BINS = np.linspace(-6, 6, 25)
VALUES = rng.lognormal(size=(51, 30))  # (generations + 1, replicates)
THEORY = np.linspace(1, 0.5, 51)
ALIVE = np.sort(rng.integers(1, 500, size=(51, 4)), axis=0)[::-1]

DRAWN = {
    "generations": lambda **ax: plots.plot_generations(SAMPLES, ["real", "1", "50"], bins=BINS, xlabel="years", **ax),
    "fan": lambda **ax: plots.plot_fan(VALUES, expected_mean=THEORY, **ax),
    "drift": lambda **ax: plots.plot_log_variance_drift({"ml": VALUES}, {"ml": -0.01}, **ax),
    "survivors": lambda **ax: plots.plot_survivors(ALIVE, expected=THEORY, label="words", **ax),
}
LABELS = {
    "generations": ("years", ""),
    "fan": ("generation t", ""),  # the caller says what varies
    "drift": ("generation t", "mean of ln(variance / real variance)"),
    "survivors": ("generation t", "words left"),
}


@pytest.fixture(autouse=True)
def _closed_figures():
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


def line(ax, label):
    """The points of the one line with this label: (2, points)."""
    (result,) = [line for line in ax.lines if line.get_label() == label]
    return np.array(result.get_data())


def has_line(ax, x, y):
    return any(np.array_equal(line.get_data(), (x, y)) for line in ax.lines)


@pytest.mark.parametrize("name", DRAWN)
def test_the_axis_given_is_drawn_on_and_returned(name):
    plt.close("all")  # what other tests left open
    figure, (mine, other) = plt.subplots(1, 2)
    assert DRAWN[name](ax=mine) is mine
    assert plt.get_fignums() == [figure.number] and figure.axes == [mine, other]
    assert mine.has_data() and not other.has_data()


@pytest.mark.parametrize("name", DRAWN)
def test_without_an_axis_a_new_figure_in_the_books_style_is_made(name):
    first, second = DRAWN[name](), DRAWN[name]()
    assert first.figure is not second.figure and first.figure.axes == [first]
    assert not first.spines["top"].get_visible() and first.xaxis.label.get_size() == STYLE["axes.labelsize"]


@pytest.mark.parametrize("name", DRAWN)
def test_the_axes_are_labelled(name):
    ax = DRAWN[name]()
    assert (ax.get_xlabel(), ax.get_ylabel()) == LABELS[name]


@pytest.mark.parametrize("name", DRAWN)
def test_drawing_leaves_the_settings_and_the_data_alone(name):
    settings, before = dict(mpl.rcParams), VALUES.copy()
    DRAWN[name]()
    assert dict(mpl.rcParams) == settings and np.array_equal(VALUES, before)


def test_generations_are_histograms_from_the_first_at_the_top_to_the_last():
    ax = DRAWN["generations"]()
    assert len(ax.patches) == len(SAMPLES)
    for base, (stairs, sample) in zip((2, 1, 0), zip(ax.patches, SAMPLES, strict=True), strict=True):
        counts = [np.sum((low <= sample) & (sample < high)) for low, high in pairwise(BINS)]
        heights, edges, baseline = stairs.get_data()
        assert np.array_equal(edges, BINS) and baseline == base
        assert np.allclose(heights - base, 0.85 * np.array(counts) / max(counts))
    names = dict(zip(ax.get_yticks(), [text.get_text() for text in ax.get_yticklabels()], strict=True))
    assert [names[place] for place in sorted(names, reverse=True)] == ["real", "1", "50"]
    assert ax.get_xlim() == (BINS[0], BINS[-1])


def test_generations_without_a_value_in_the_bins_are_flat():
    ax = plots.plot_generations([np.array([99.0])], ["gone"], bins=BINS, xlabel="years")
    assert np.array_equal(ax.patches[0].get_data().values, np.zeros(24))


def test_a_fan_shows_single_runs_their_middle_their_mean_and_theory():
    ax, t = DRAWN["fan"](), np.arange(51)
    ordered = np.sort(VALUES, axis=1)
    assert np.array_equal(line(ax, "mean of all runs"), [t, VALUES.mean(axis=1)])
    assert np.allclose(line(ax, "median run"), [t, (ordered[:, 14] + ordered[:, 15]) / 2])
    assert np.array_equal(line(ax, "mean, in theory"), [t[::2], THEORY[::2]])
    drawn = [run for run in range(30) if has_line(ax, t, VALUES[:, run])]
    assert drawn == list(range(12))
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for generation in (0, 25, 50):
        ends = corners[corners[:, 0] == generation, 1]
        low, high = (ordered[generation, k] for k in (3, 26))  # the 10 % and 90 % points of 30 lie beside these
        assert ordered[generation, 2] <= ends.min() <= low and high <= ends.max() <= ordered[generation, 27]


def test_a_fan_without_theory_has_no_dots():
    ax = plots.plot_fan(VALUES, runs=3)
    assert "mean, in theory" not in legend(ax)
    assert [run for run in range(30) if has_line(ax, np.arange(51), VALUES[:, run])] == [0, 1, 2]


def test_drift_shows_the_mean_logarithm_and_a_black_line_of_theory():
    both = {"biased": VALUES, "unbiased": 2 * VALUES}
    ax, t = plots.plot_log_variance_drift(both, {"biased": -0.02, "unbiased": -0.01}), np.arange(51)
    for name, values in both.items():
        expected = [np.mean([np.log(v) for v in row]) for row in values[::2]]
        assert np.allclose(line(ax, name), [t[::2], expected])
    for drift in (-0.02, -0.01):
        (theory,) = [line for line in ax.lines if np.array_equal(line.get_data(), (t, drift * t))]
        assert theory.get_color() == BLACK
    assert legend(ax) == ["biased", "unbiased", "drift, in theory"]


def test_survivors_are_drawn_from_generation_1_on_with_the_real_number_as_a_line():
    ax, t = DRAWN["survivors"](), np.arange(1, 51)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert np.array_equal(line(ax, "words in the real text")[1], [ALIVE[0].mean()] * 2)
    assert np.array_equal(line(ax, "mean of the runs"), [t, ALIVE[1:].mean(axis=1)])
    assert all(has_line(ax, t, ALIVE[1:, run]) for run in range(4))
    shown, values = line(ax, "in theory")
    assert shown[0] == 1 and shown[-1] == 50
    assert np.array_equal(values, THEORY[shown.astype(int)])


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
