"""The comparison of notebooks catches what it is there for: a changed digit, an unexecuted or a failing notebook."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from synthbook.course import notebook as nb

ROOT = Path(__file__).parents[2]
SOURCE = "print(f'{2 / 3:.3g}')"


def compare(folder, *cells):
    path = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "."]
    sanitize = ["--nbval-sanitize-with", str(ROOT / "tests/notebooks/sanitize.cfg")]
    return subprocess.run([*command, *sanitize], cwd=folder, capture_output=True, text=True, timeout=120)


def cell(text, *, name="stdout", source=SOURCE):
    output = nbformat.v4.new_output("stream", name=name, text=text)
    return nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "passes"), [("0.667\n", True), ("0.668\n", False), ("", False)])
def test_a_changed_digit_is_found(tmp_path, text, passes):
    ran = compare(tmp_path, cell(text))
    assert (ran.returncode == 0) is passes, ran.stdout
    assert "1 passed" in ran.stdout or "1 failed" in ran.stdout


@pytest.mark.slow
def test_stderr_is_left_out_and_durations_are_sanitised(tmp_path):
    source = "import sys; sys.stderr.write('process 2'); print('took 1.3 s at 0x7f0011223344, 640x480')"
    committed = cell("took 2.9 s at 0x7fffffffffff, 640x480\n", source=source)
    committed.outputs.append(nbformat.v4.new_output("stream", name="stderr", text="process 1"))
    assert compare(tmp_path, committed).returncode == 0
    committed.outputs[0].text = committed.outputs[0].text.replace("640", "641")
    assert compare(tmp_path, committed).returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("printed", "committed"), [("0.63/0.47/0.16/0.1", "0.63/0.99/0.99/0.1"), ("half-life 34.3 s", "half-life 99.9 s")]
)
def test_metrics_are_never_sanitised(tmp_path, printed, committed):
    assert compare(tmp_path, cell(printed + "\n", source=f"print({printed!r})")).returncode == 0
    assert compare(tmp_path, cell(committed + "\n", source=f"print({printed!r})")).returncode == 1


def test_an_unexecuted_or_failed_notebook_is_found():
    fresh = nbformat.v4.new_code_cell(SOURCE)
    assert not nb.is_whole(nbformat.v4.new_notebook(cells=[fresh]))
    assert nb.is_whole(nbformat.v4.new_notebook(cells=[cell("0.667\n")]))
    out_of_order = cell("0.667\n") | {"execution_count": 2}
    assert not nb.is_whole(nbformat.v4.new_notebook(cells=[out_of_order]))
    failed = cell("")
    failed.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    assert not nb.is_whole(nbformat.v4.new_notebook(cells=[failed]))
