"""One command at a time may build in a checkout."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from synthbook.core.lock import locked
from synthbook.course.project import Project


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Refuse to work beside another run of the same checkout, and sweep up after one that was killed."""
    project.copies.mkdir(parents=True, exist_ok=True)
    with locked(project.build / ".lock", f"another run is going on in {project.root}"):
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
