"""A small process that outlives the runner by a moment: it kills the kernels the runner left behind.

Run as a file with a folder as its argument. Standard input carries `+PGID` for each process group that starts and
`-PGID` for each that ended. When the runner dies, however it dies, the pipe closes; what is left is killed and the
folder removed. Kernels watch for their parent too, but a kernel that is busy in compiled code never looks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def watch(folder: str) -> None:
    """Read the lines until the pipe closes, then clear up."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1])
