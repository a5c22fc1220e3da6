"""The most memory that a process and its children held at one moment."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import psutil

MIB = 2**20


class MemoryWatch:
    """Samples the resident memory of process trees, one thread for all of them.

    A tree's peak is the largest sum over its processes at one sample. Where the system keeps a high-water mark of each
    process (Linux), a peak between two samples counts as well.
    """

    def __init__(self, interval: float = 0.05):
        self.interval = interval
        self._peaks: dict[int, int] = {}  # root process id -> bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def add(self, pid: int) -> None:
        """Begin to watch a process and whatever it starts."""
        self._peaks[pid] = 0
        self._sample(pid)

    def remove(self, pid: int) -> int:
        """Stop watching; the peak in whole MiB. Call it while the process still lives, or its last moments are lost."""
        self._sample(pid)
        return round(self._peaks.pop(pid) / MIB)

    def close(self) -> None:
        """End the sampling thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self.interval
        while not self._stop.wait(pause):
            start = time.perf_counter()
            for pid in list(self._peaks):
                self._sample(pid)
            pause = max(self.interval, 20 * (time.perf_counter() - start))  # at most 5 % of one core

    def _sample(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
            held = [(_resident(process), _high_water(process.pid)) for process in tree]
            peak = max(sum(now for now, _ in held), max(high for _, high in held))
            if pid in self._peaks:
                self._peaks[pid] = max(self._peaks[pid], peak)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _high_water(pid: int) -> int:
    """The process's own peak in bytes; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0
