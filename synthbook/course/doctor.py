"""What works on this machine, what does not, and what to do about it.

Every check stands alone: one that crashes is one line of the report. Checks of compiled libraries run in a process of
their own (`python -m synthbook.course.doctor NAME`), because a segmentation fault there must not end the doctor.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from synthbook.core.errors import SynthbookError
from synthbook.datasets import UNLISTED, data_folder, restore_hint, verify_all
from synthbook.language import server

GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK = 2 * GIB, GIB
_LANDLOCK_CREATE_RULESET = 444  # one number on every architecture
_CHILD_SECONDS = 120


@dataclass(frozen=True)
class CheckResult:
    """One line of the report. "fail": a part of the book will not run here; "warn": something is worth doing."""

    name: str
    level: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""


Check = Callable[[Path | None], CheckResult]  # takes the checkout's root, None outside of one


def run_checks(root: Path | None) -> list[CheckResult]:
    """Run all checks, side by side, and report in a fixed order."""
    with ThreadPoolExecutor() as pool:
        return list(
            pool.map(lambda name: _in_child(name, root) if name in SUBPROCESS_CHECKS else run_check(name, root), CHECKS)
        )


def run_check(name: str, root: Path | None) -> CheckResult:
    """One check in this process; whatever it raises becomes its finding."""
    try:
        return CHECKS[name](root)
    except Exception as error:
        return CheckResult(name, "fail", f"{type(error).__name__}: {error}", _REINSTALL)


def _in_child(name: str, root: Path | None) -> CheckResult:
    command = [sys.executable, "-m", "synthbook.course.doctor", name, str(root or "")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False)
        return CheckResult(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return CheckResult(
            name, "fail", f"gave no answer in {_CHILD_SECONDS} s", "try again when the machine is less busy"
        )
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return CheckResult(name, "fail", f"its process ended with exit code {done.returncode}: {last}", _REINSTALL)


_REINSTALL = "install again: make course (or pip install -e '.[course]' -c constraints.txt)"


def check_python(root: Path | None) -> CheckResult:
    """3.11 is right: later Pythons have no PyBullet wheel, earlier ones cannot install the package."""
    version = platform.python_version()
    if version.startswith("3.11."):
        return CheckResult("Python", "ok", version)
    return CheckResult(
        "Python", "warn", version, "PyBullet has no wheels after 3.11: use Python 3.11, or conda's PyBullet"
    )


def check_packages(root: Path | None) -> CheckResult:
    """Installed versions against constraints.txt; requirements that are not installed at all are a failure."""
    missing = _missing_requirements()
    if missing:
        return CheckResult("packages", "fail", f"not installed: {', '.join(missing)}", _REINSTALL)
    if root is None or not (root / "constraints.txt").is_file():
        return CheckResult("packages", "ok", "all there; no constraints.txt here to compare versions with")
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (root / "constraints.txt").read_text(), re.MULTILINE)
    # 2.9.0+cpu is 2.9.0
    drift = [
        f"{name} {have} (pinned {pin})"
        for name, pin in pins
        if (have := _version(name)) and have.split("+")[0] != pin.split("+")[0]
    ]
    if drift:
        hint = "fine if the tests pass; for the tested set: pip install -e '.[course]' -c constraints.txt"
        return CheckResult("packages", "warn", f"{len(drift)} differ from constraints.txt: {', '.join(drift)}", hint)
    return CheckResult("packages", "ok", f"as in constraints.txt ({len(pins)} pins)")


def _missing_requirements() -> list[str]:
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires("synthbook") or []]
    wanted = [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": "course"})]
    return [name for name in wanted if _version(name) is None]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_torch(root: Path | None) -> CheckResult:
    """Torch imports and multiplies."""
    import torch

    good = bool((torch.ones(8, 8) @ torch.ones(8, 8) == 8).all())
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads (notebooks use one each)"
    return CheckResult("torch", "ok" if good else "fail", detail, "" if good else _REINSTALL)


def check_pybullet(root: Path | None) -> CheckResult:
    """The software renderer draws a box, 64 x 64 pixels, without a window."""
    import numpy as np
    import pybullet as p

    client = p.connect(p.DIRECT)
    box = p.createVisualShape(p.GEOM_BOX, halfExtents=[0.5] * 3, rgbaColor=[1, 0, 0, 1], physicsClientId=client)
    p.createMultiBody(baseVisualShapeIndex=box, physicsClientId=client)
    view = p.computeViewMatrix([2, 2, 2], [0, 0, 0], [0, 0, 1])
    lens = p.computeProjectionMatrixFOV(45, 1, 0.1, 10)
    image = p.getCameraImage(64, 64, view, lens, renderer=p.ER_TINY_RENDERER, physicsClientId=client)
    pixels = np.reshape(image[2], (64, 64, 4))[..., :3]
    p.disconnect(client)
    if pixels.min() == pixels.max():
        return CheckResult("PyBullet", "fail", "the software renderer draws an empty picture", _REINSTALL)
    return CheckResult("PyBullet", "ok", "renders 64 x 64 pixels in software")


def check_memory(root: Path | None) -> CheckResult:
    """Memory that can be had now, within the limit of a container if there is one."""
    import psutil

    free = min([psutil.virtual_memory().available, *_container_room()])
    hint = "close other programs, or run one notebook at a time: synthbook course run --jobs 1"
    return _room("memory", free, _LEAST_MEMORY, hint)


def _container_room() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return [] if limit == "max" else [int(limit) - int(used)]
    except (OSError, ValueError):
        return []


def check_disk(root: Path | None) -> CheckResult:
    """Free disk where the checkout lies."""
    hint = "free some: executed notebooks and the site are written there"
    return _room("disk", shutil.disk_usage(root or Path.cwd()).free, _LEAST_DISK, hint)


def _room(name: str, free: int, least: int, hint: str) -> CheckResult:
    detail = f"{free / GIB:.1f} GiB free"
    if free < least:
        return CheckResult(name, "warn", f"{detail}, less than {least // GIB} GiB", hint)
    return CheckResult(name, "ok", detail)


def check_data(root: Path | None) -> CheckResult:
    """Every data file against its hash."""
    try:
        folder = data_folder()
        checks = verify_all(folder)
    except SynthbookError as error:
        return CheckResult("data", "fail", str(error))  # its words say what to do
    wrong = [check for check in checks if not check.ok]
    if wrong:
        detail = f"{len(wrong)} of {len(checks)} files are not as expected: {', '.join(check.file for check in wrong)}"
        steps = [f"remove {c.file}" if c.expected == UNLISTED else restore_hint(folder, c.file) for c in wrong]
        return CheckResult("data", "fail", detail, "\n".join(["synthbook data verify says more", *steps]))
    return CheckResult("data", "ok", f"{len(checks)} files, all as in the manifest")


def check_model(root: Path | None) -> CheckResult:
    """The small language model that section 4 can talk to."""
    path = server.model_file()
    if path is not None:
        return CheckResult("language model", "ok", str(path))
    where = f"into {server.models_folder()}, or the folder that {server.VARIABLE} names"
    hint = f"optional, used by section 4: synthbook models fetch smollm2 brings it {where}"
    return CheckResult("language model", "warn", "not present", hint)


def check_landlock(root: Path | None) -> CheckResult:
    """The kernel feature that section 4 confines model-written code with; for information."""
    if not sys.platform.startswith("linux"):
        return CheckResult(
            "Landlock", "warn", "only Linux has it", "section 4 runs model-written code in a weaker sandbox"
        )
    version = ctypes.CDLL(None, use_errno=True).syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)  # 1 asks for the version
    if version > 0:
        return CheckResult("Landlock", "ok", f"version {version}")
    reason = os.strerror(ctypes.get_errno())
    return CheckResult(
        "Landlock", "warn", f"not available ({reason})", "section 4 needs a Linux kernel from 5.13 for it"
    )


CHECKS: dict[str, Check] = {
    "Python": check_python,
    "packages": check_packages,
    "torch": _check_torch,
    "PyBullet": check_pybullet,
    "memory": check_memory,
    "disk": check_disk,
    "data": check_data,
    "language model": check_model,
    "Landlock": check_landlock,
}
SUBPROCESS_CHECKS = ("torch", "PyBullet")

if __name__ == "__main__":
    print(json.dumps(asdict(run_check(sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None))))
