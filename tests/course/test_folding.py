"""What the site folds: imports at the top, and code that only draws; everything that a reader should see stays open."""

from __future__ import annotations

from typing import Any

import pytest

from synthbook.course.folding import TAG, fold

POSTER = """
figure, axes = subplots(2, 3, width=9)
for ax, (name, rows) in zip(axes, made.items()):
    sheet = rows[:16].reshape(16, 8, 8)
    ax.imshow(sheet)
    ax.set_ylabel(name)
    ax.spines[:].set_visible(False)
axes[3].legend(frameon=False)
plt.show()
assert len(made) == 3
print("three kinds")
"""
PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AA=="}}


def cell(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source.strip(), "outputs": list(outputs)}


def folded(*cells: dict[str, Any]) -> list[bool]:
    return [TAG in one["metadata"].get("tags", []) for one in fold({"cells": list(cells)})["cells"]]


def test_code_that_only_draws_is_folded_where_it_shows_a_picture() -> None:
    first = cell("x = 1")
    assert folded(first, cell(POSTER, PICTURE), cell(POSTER)) == [False, True, False]


@pytest.mark.parametrize(
    "more",
    [
        'claim("C7.2-1", part="x", measured=1.0, expected=1.0)',
        'guess = predict("how many", guess=3)',
        "model = VAE().fit(real)",
        "def loss(x):\n    return x",
        "class Net:\n    pass",
        'median["randomized"] = train_and_test(full)',
        "model.rate = 0.1",
        "a = b + c\nd = a * b\ne = simulate(d)",  # 6 of 10 statements draw
        "%%time",
    ],
)
def test_code_that_does_more_than_draw_stays_open(more: str) -> None:
    assert folded(cell("x = 1"), cell(f"{more}\n{POSTER}", PICTURE)) == [False, False]


def test_a_few_lines_stay_open_since_folding_them_saves_nothing() -> None:
    five = "ax = new_axes()\nax.plot(x)\nax.set(ylim=(0, 1))\nax.legend()\nplt.show()"
    assert folded(cell("x = 1"), cell(five, PICTURE), cell(f"x = y\n{five}", PICTURE)) == [False, False, True]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("import numpy as np\nfrom a import b\n\ntorch.set_num_threads(1)", True),
        ("import numpy as np\nx = np.zeros(3)", False),
        ("import numpy as np\ndef f(): pass", False),
        ("run()", False),
    ],
)
def test_the_first_cell_is_folded_where_it_only_imports(first: str, expected: bool) -> None:
    assert folded(cell(first), cell("import json")) == [expected, False]


def test_other_tags_are_kept() -> None:
    tagged = cell(POSTER, PICTURE) | {"metadata": {"tags": ["nbval-ignore-output"]}}
    fold({"cells": [cell("x = 1"), tagged]})
    assert tagged["metadata"]["tags"] == ["nbval-ignore-output", TAG]
