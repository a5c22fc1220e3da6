"""Bits per character of n-gram models on held-out parts of Austen's novels."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes

from synthbook.core.plots import BLACK, new_axes
from synthbook.datasets import austen
from synthbook.generators.text.ngram import SMOOTHINGS, NGram, unigram_entropy

_CHARACTERS = 50_000  # of each novel's first part to train on, and of the held-out parts together to test on


def bits_of_austen(orders: Iterable[int] = range(1, 7), *, characters: int = _CHARACTERS) -> pd.DataFrame:
    """`smoothing`, `n` and `bits` per held-out character of n-gram models fitted to the start of each novel.

    The held-out text is the start of each novel's last tenth; the attribute `unigram` of the result is its entropy
    when characters are counted and nothing before them is known.
    """
    train, test = [novel[:characters] for novel in austen().train.texts], held_out_text(characters)
    rows = [
        {
            "smoothing": smoothing,
            "n": n,
            "bits": NGram(n, smoothing=smoothing).fit(train).bits_per_character(test),
        }
        for smoothing in SMOOTHINGS
        for n in orders
    ]
    table = pd.DataFrame(rows)
    table.attrs["unigram"] = unigram_entropy(test)
    return table


def held_out_text(characters: int = _CHARACTERS) -> str:
    """The start of each novel's last tenth, so many characters together."""
    novels = austen().test.data.texts
    return "".join(novel[: characters // len(novels)] for novel in novels)


def plot_bits(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Bits per character against the order, a line for each smoothing, and the entropy of single characters."""
    ax = new_axes(ax)
    for (smoothing, rows), line in zip(table.groupby("smoothing", sort=False), ("o-", "s--", "^:"), strict=False):
        ax.plot(rows["n"], rows["bits"], line, label=str(smoothing))
    ax.axhline(table.attrs["unigram"], color=BLACK, linewidth=0.8, label="entropy of single characters")
    ax.set(xlabel="characters that are looked at together, n", ylabel="bits per held-out character")
    ax.legend(frameon=False)
    return ax
