"""The comparison of notebooks catches what it is there for: two units, a word, a blank figure, a notebook not run."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from synthbook.course import notebook as nb

ROOT = Path(__file__).parents[2]
SOURCE = "print(f'{2 / 3:.3g}')"
DRAW = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
STDERR = "import sys; sys.stderr.write('process 2'); print('took 1.3 s at 0x7f0011223344, 640x480')"


def cell(text, *, source=SOURCE, outputs=()):
    first = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    return nbformat.v4.new_code_cell(source, outputs=[*first, *outputs], execution_count=1)


def picture(data=b"", text="<Figure size 640x480 with 1 Axes>"):
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(data).decode(), "text/plain": text})


def blank():
    image = io.BytesIO()
    Image.new("L", (547, 413), 255).save(image, "png")
    return image.getvalue()


def sanitised(text, changed):
    """A cell that prints `text`, and was committed with `changed` instead."""
    return cell(changed + "\n", source=f"print({text!r})")


STREAM = nbformat.v4.new_output("stream", name="stderr", text="process 1")
CASES = {  # what a committed cell shows, and whether it passes
    "as it is": (cell("0.667\n"), True),
    "one unit": (cell("0.668\n"), True),
    "two units": (cell("0.669\n"), False),
    "a sign": (cell("-0.667\n"), False),
    "a word": (cell("0.667 nat\n"), False),
    "a whole number": (cell("667\n"), False),
    "a line too many": (cell("0.667\n0.667\n"), False),
    "nothing": (cell(""), False),
    "an output too many": (cell("0.667\n", outputs=[picture()]), False),
    "a blank figure": (cell("", source=DRAW, outputs=[picture(blank())]), False),
    "stderr, durations, addresses": (
        cell("took 2.9 s at 0x7fffffffffff, 640x480\n", source=STDERR, outputs=[STREAM]),
        True,
    ),
    "another size": (cell("took 2.9 s at 0x7fffffffffff, 641x480\n", source=STDERR, outputs=[STREAM]), False),
    "metrics with a slash": (sanitised("0.63/0.47/0.16/0.1", "0.63/0.99/0.99/0.1"), False),
    "a half-life": (sanitised("half-life 34.3 s", "half-life 99.9 s"), False),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What pytest says of a notebook that holds all cases."""
    folder = tmp_path_factory.mktemp("strict")
    cells = [case | {"execution_count": number} for number, (case, _) in enumerate(CASES.values(), start=1)]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.from_dict(case) for case in cells]), folder / "small.ipynb")
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "-v",
        "--color=no",
        ".",
    ]
    sanitize = ["--nbval-sanitize-with", str(ROOT / "tests/notebooks/sanitize.cfg")]
    return subprocess.run([*command, *sanitize], cwd=folder, capture_output=True, text=True, timeout=240).stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_differs_is_found_and_nothing_else(report, case):
    number = list(CASES).index(case)
    (verdict,) = re.findall(rf"::Cell {number} (PASSED|FAILED)", report, re.MULTILINE)
    assert (verdict == "PASSED") is CASES[case][1], report


@pytest.mark.slow
def test_the_message_shows_both_lines_and_what_can_be_done(report):
    assert "committed: 0.669\n    now:       0.667" in report
    assert "the picture is another one" in report
    assert "synthbook course run --only small --update" in report


def test_an_unexecuted_or_failed_notebook_is_found():
    fresh = nbformat.v4.new_code_cell(SOURCE)
    assert not nb.is_fully_executed(nbformat.v4.new_notebook(cells=[fresh]))
    assert nb.is_fully_executed(nbformat.v4.new_notebook(cells=[cell("0.667\n")]))
    out_of_order = cell("0.667\n") | {"execution_count": 2}
    assert not nb.is_fully_executed(nbformat.v4.new_notebook(cells=[out_of_order]))
    failed = cell("")
    failed.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert not nb.is_fully_executed(nbformat.v4.new_notebook(cells=[failed]))
