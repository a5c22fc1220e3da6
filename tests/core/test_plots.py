"""Figures."""

from __future__ import annotations

from synthbook.core.plots import plot_images
from synthbook.datasets import digits


def test_a_sheet_shows_all_images_with_white_edges() -> None:
    ax = plot_images(digits().train.images[:13], n_cols=5)
    (sheet,) = ax.images
    assert sheet.get_array().shape == (3 * 10, 5 * 10)  # 8 pixels and a white edge, the last two tiles empty
