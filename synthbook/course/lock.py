"""One command at a time may build in a checkout."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from synthbook.core.errors import SynthbookError
from synthbook.course.project import Project


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Refuse to work beside another run of the same checkout, and sweep up after one that was killed."""
    try:
        import fcntl
    except ImportError:
        raise SynthbookError("running the book takes Linux or macOS: on Windows use WSL") from None
    project.copies.mkdir(parents=True, exist_ok=True)
    with (project.build / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SynthbookError(f"another run is going on in {project.root}: wait until it has ended") from None
        _sweep(project)
        yield


def _sweep(project: Project) -> None:
    """Remove what was written beside its target and never renamed; an export's folder is swept when it is written."""
    for pattern in ("build/.*.tmp", "build/notebooks/.*.tmp", "notebooks/.*.ipynb.*.tmp"):
        for left in project.root.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
