"""docs/ten_minutes.md: its code and its commands run, in order, and print what stands below them.

`python -m tests.course.test_ten_minutes` writes what they print into the page.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from synthbook.course.comparison import text_differences

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ten_minutes.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
END = "-- end of block"
# Python's blocks share a process; a last expression is shown, as in a notebook
RUN = f"""
import ast, subprocess, sys
scope = {{}}
for kind, text in BLOCKS:
    if kind == "console":
        sys.stdout.flush()
        subprocess.run(["bash", "-ec", text], stderr=subprocess.STDOUT, check=True)
    else:
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "block", "exec"), scope)
        value = eval(compile(ast.Expression(last.value), "block", "eval"), scope) if last else None
        if value is not None:
            print(repr(value))
    print({END!r}, flush=True)
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Kind, code and expected output of each block that runs; a console's commands start with "$ "."""
    found = []
    for kind, code, output in BLOCK.findall(page):
        lines = [line.removeprefix("$ ") for line in code.splitlines(keepends=True)]
        found.append((kind, "".join(lines) if kind == "console" else code, output))
    return found


def executed(page: str, folder: Path) -> list[str]:
    """What each block of the page prints."""
    pairs = [(kind, code) for kind, code, _ in blocks(page)]
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "SYNTHBOOK_DATA": str(ROOT / "data"), "PYTHONPATH": str(ROOT)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"BLOCKS = {pairs!r}\n{RUN}"],
        cwd=folder,
        env=os.environ | settings | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout.split(f"{END}\n")[:-1]


def updated(page: str, printed: list[str]) -> str:
    """The page with what its blocks print."""
    outputs = iter(printed)

    def fill(block: re.Match[str]) -> str:
        output = next(outputs)
        text = f"\n\n```text\n{output.rstrip()}\n```" if output.strip() else ""
        return f"```{block[1]}\n{block[2]}```{text}"

    return BLOCK.sub(fill, page)


@pytest.mark.slow
def test_every_block_runs_and_prints_what_the_page_shows(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    parts, printed = blocks(page), executed(page, tmp_path)
    assert len(printed) == len(parts) > 10 and sum(bool(output) for _, _, output in parts) > 8
    for (_, code, output), actual in zip(parts, printed, strict=True):
        assert not (differ := text_differences(output.rstrip(), actual.rstrip())), f"{code}\n" + "\n".join(differ)


def test_a_changed_output_would_be_noticed():
    page = "Text.\n\n```python\n1 + 1\n```\n\n```text\n3\n```\n\n```console\n$ echo two\n```\n"
    assert [output for _, _, output in blocks(page)] == ["3\n", ""]
    with tempfile.TemporaryDirectory() as folder:
        printed = executed(page, Path(folder))
    assert printed == ["2\n", "two\n"] and text_differences("3", printed[0].rstrip())
    assert blocks(updated(page, printed))[0][2] == "2\n" and updated(page, printed).endswith("```text\ntwo\n```\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(updated(text, executed(text, Path(scratch))), encoding="utf-8")
