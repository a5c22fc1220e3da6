"""The comparison of outputs: exact where meaning is, one unit of a printed decimal number where arithmetic is."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthbook.course.comparison import differences, picture_difference, text_differences, thumbnail

TABLE = """            auc    f1  n
fresh      0.92  0.69  9
handful    0.73  0.40  8
verdict: holds
code ed48946 of 2026-11-23, version 1.10"""


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def display(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.44", "0.43"),
        ("9.99", "10.0"),  # of three digits each
        ("-0.5", "-0.6"),
        ("0.00", "-0.00"),
        ("0.5", "0.501"),  # 0.500 as %g prints it
        ("2.5e-07", "2.6e-07"),
        ("5e-07", "6e-07"),
        ("1,234.5", "1,234.6"),
        ("0.63 measured, 0.61 expected", "0.64 measured, 0.60 expected"),
        ("50.0%", "50.1%"),
        ("<td>0.44</td>", "<td>0.45</td>"),
        ("(0.44)", "(0.45)"),
        ("the network's 0.44 is the judge's", "the network's 0.45 is the judge's"),
    ],
)
def test_one_unit_of_the_last_digit_passes(old, new):
    assert text_differences(old, new) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.44", "0.42"),
        ("0.44", "0.46"),
        ("9.98", "10.0"),
        ("0.44", "0.4"),
        ("0.25", "-0.25"),
        ("0.1", "-0.1"),
        ("2.5e-07", "2.5e-06"),
        ("2.5e-07", "2.7e-07"),
        ("25 modes", "24 modes"),  # a whole number
        ("1.0", "1"),
        ("0.44 nat", "0.44 bit"),
        ("holds", "fails"),
        ("✓ loss: 0.44", "✗ loss: 0.44"),
        ("nan", "0.44"),
        ("1,234.5", "1,235.5"),
        ("", "0.44"),
        ("0.44", "0.440"),  # another form
        ("0.5", "5e-01"),
        ("1,234.5", "1234.5"),
    ],
)
def test_anything_else_is_a_difference(old, new):
    assert len(text_differences(old, new)) == 1
    assert len(text_differences(new, old)) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("C7.2-1", "C7.3-1"),
        ("v0.5", "v0.6"),
        ("1.2.3", "1.2.4"),
        ("version 1.2", "version 1.3"),
        ("Python 3.11", "Python 3.12"),
        ("section 7.2", "section 7.3"),
        ("2026-11-27", "2026-11-28"),
        ("12:30:01.5", "12:30:01.6"),
        ("arXiv:2305.17493", "arXiv:2305.17494"),
        ("48e94615", "49e94615"),
        ("run_0.5.png", "run_0.6.png"),
        ("0.5.png", "0.6.png"),
        ("f(0.5)", "f(0.6)"),
        ("f(n, 0.5)", "f(n, 0.6)"),
        ("tensor([0.5, 0.6])", "tensor([0.5, 0.7])"),
        ("lr=0.5", "lr=0.6"),
        ("`x = 0.5`", "`x = 0.6`"),
        ('{"p": "0.5"}', '{"p": "0.6"}'),
        ("data/0.5/rows", "data/0.6/rows"),
        ("0.5s", "0.6s"),
    ],
)
def test_digits_in_identifiers_dates_hashes_and_code_are_words(old, new):
    assert len(text_differences(old, new)) == 1


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("fresh", "fresch"),
        ("0.69", "0.71"),
        ("  9\n", "  8\n"),
        ("holds", "fails"),
        ("ed48946", "ed48947"),
        ("23", "24"),
    ],
)
def test_a_table_with_one_thing_changed_is_found(word, other):
    assert len(text_differences(TABLE, TABLE.replace(word, other, 1))) == 1


def test_swapped_rows_and_columns_missing_lines_and_blanks_are_found():
    head, first, second, *rest = TABLE.split("\n")
    assert text_differences(TABLE, "\n".join([head, second, first, *rest]))
    assert text_differences(TABLE, "\n".join([head.replace("auc    f1", "f1    auc"), first, second, *rest]))
    assert text_differences(TABLE, "\n".join([head, first, *rest]))
    assert text_differences(TABLE, TABLE + "\n0.5")
    assert text_differences(TABLE, TABLE.replace("0.92  0.69", "0.92 0.69"))
    assert text_differences(TABLE, TABLE.replace("0.92", "0.93")) == []
    assert text_differences(TABLE, TABLE.replace("0.92  0.69", "0.93 0.69"))
    wider = TABLE.replace("fresh      0.92", "fresh     10.00").replace("handful    0.73", "handful   0.73")
    assert text_differences(TABLE.replace(" 0.92", " 9.99"), wider) == []  # a number grew, and the blanks with it


def test_the_message_shows_both_lines():
    (line,) = text_differences("a\nloss 0.44\nb", "a\nloss 0.48\nb")
    assert line == "\n    committed: loss 0.44\n    now:       loss 0.48"


@given(st.integers(-99_999, 99_999), st.integers(-3, 3), st.integers(1, 4))
def test_units_are_counted_exactly(value, units, decimals):
    old, new = (f"loss {k / 10**decimals:.{decimals}f} nat" for k in (value, value + units))
    assert (text_differences(old, new) == []) == (abs(units) <= 1)


def test_outputs_are_counted_and_keep_their_kind_and_order():
    old = [stream("0.44\n"), display(**{"text/plain": "x"})]
    assert differences(old, [stream("0.45\n"), display(**{"text/plain": "x"})]) == []
    assert differences(old, old[::-1])
    assert differences(old, old[:1])
    assert differences(old, [*old, stream("more\n")])
    assert differences([], old[:1])
    assert differences(old[1:], [display(**{"text/plain": "x", "text/html": "x"})])
    assert differences([stream("1", "stderr"), old[0]], [old[0], stream("2", "stderr")]) == []


def figure(ratio=1.0, color="C0", size=(4, 3), blank=False, shift=0.0):
    fig, ax = plt.subplots(figsize=size)
    if not blank:
        x = np.linspace(0, 1, 200)
        ax.plot(x, ratio * x**2 + shift, color=color)
    ax.set(xlabel="steps", ylabel="loss", xlim=(0, 1), ylim=(0, 1))
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    plt.close(fig)
    return picture.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [{"blank": True}, {"ratio": 0.8}, {"shift": 0.05}, {"size": (4, 3.1)}, {"color": "white"}, {"color": "C3"}],
    ids=["no curve", "another slope", "shifted", "another size", "invisible", "another color"],
)
def test_an_empty_or_wrong_figure_is_found(changed):
    assert picture_difference(figure(), figure(**changed))


def test_a_figure_off_by_rounding_passes():
    assert picture_difference(figure(), figure(ratio=1 + 1e-4, shift=1e-4)) is None
    old, new = (base64.b64encode(figure(shift=shift)).decode() for shift in (0, 0.3))
    assert differences([display(**{"image/png": old})], [display(**{"image/png": old})]) == []
    assert "picture" in differences([display(**{"image/png": old})], [display(**{"image/png": new})])[0]


def cloud(seed, blank=()):
    """Three panels of points, as a trained network draws them."""
    fig, axes = plt.subplots(1, 3, figsize=(6, 2))
    for number, ax in enumerate(axes):
        x, y = np.random.default_rng([7, number]).normal(size=(2, 300))
        moved = np.random.default_rng([seed, number]).normal(scale=0.02, size=(2, 300))
        if number not in blank:
            ax.plot(x + moved[0], y + moved[1], "o", markersize=4)
        ax.set(title=f"network {number}", xlim=(-3, 3), ylim=(-3, 3))
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    plt.close(fig)
    return picture.getvalue()


def test_what_a_trained_network_draws_may_differ_in_a_part_and_in_nothing_else():
    old, new = cloud(seed=1), cloud(seed=2)
    assert picture_difference(old, new)
    assert picture_difference(old, new, 0.3) is None
    for blank in ((0, 1), (0, 1, 2)):
        assert picture_difference(old, cloud(seed=2, blank=blank), 0.3)
    outputs = [[display(**{"image/png": base64.b64encode(data).decode()}), stream("0.5\n")] for data in (old, new)]
    assert differences(*outputs) and not differences(*outputs, may_differ=0.3)
    outputs[1][1] = stream("0.7\n")
    assert differences(*outputs, may_differ=0.3)  # numbers are compared as ever


def test_thumbnails_are_means_of_blocks_with_the_edges_in():
    gray = np.arange(9 * 17, dtype=float).reshape(9, 17)
    small = thumbnail(gray)
    assert small.shape == (2, 3)
    assert small[0, 0] == gray[:8, :8].mean() and small[1, 2] == gray[8, 16]
