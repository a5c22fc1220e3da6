"""Running code that nobody read: in a child that can do nothing but compute, judged by a parent that it cannot reach.

    parent                                  child
    starts it, some ahead of time  ──────▶  gives up its rights (confine.py), says which level it reached
    sends code and inputs          ──────▶  runs them
    reads at most so many bytes    ◀──────  values as tagged JSON
    kills it, whatever it does              never sees what is expected, nor how it is compared

Each child serves one task and dies, so that no record can spoil the next. What is promised at level "os" is tested by
attacks, as root and as another user; what is not promised stands in `confine`. Code of a model is refused below "os".
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from synthbook.core.errors import SynthbookError
from synthbook.language.sandbox.process import CallFailure, CodeTask, Limits, Outcome, Process

__all__ = ["CallFailure", "CodeTask", "Limits", "Outcome", "Sandbox", "WeakIsolation"]
WAIT = 0.05  # seconds between two looks at whether the pool was closed


class WeakIsolation(SynthbookError):
    """This machine cannot confine a child, so that no code of a model is run here."""


class Sandbox:
    """A pool of confined children; use it as a context manager.

    `jobs` tasks run side by side, `spare` children wait ready (default: as many as jobs). Raises `WeakIsolation` at
    the first task where less than "os" is reached, unless `allow_weak`: for code that you wrote yourself.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        jobs: int | None = None,
        spare: int | None = None,
        allow_weak: bool = False,
    ):
        self.limits = limits or Limits()
        self.jobs = jobs or os.cpu_count() or 1
        self.allow_weak = allow_weak
        self._ready: queue.Queue[Process | OSError] = queue.Queue(spare or self.jobs)
        self._closed = threading.Event()
        # one thread starts all children and outlives them: a child is killed when the thread that started it ends
        self._starter = threading.Thread(target=self._start, daemon=True)

    def __enter__(self) -> Self:
        if os.name != "posix":
            raise SynthbookError("the sandbox needs Linux, or macOS with allow_weak=True")
        self._starter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while self._starter.is_alive() or not self._ready.empty():
            with contextlib.suppress(queue.Empty):
                if isinstance(child := self._ready.get(timeout=WAIT), Process):
                    child.end()

    def run(self, task: CodeTask) -> Outcome:
        """Run one task. Raises `WeakIsolation`, `SynthbookError` where no child can be started."""
        if not self._starter.is_alive():
            raise SynthbookError("a Sandbox is used in a with statement: `with Sandbox() as sandbox:`")
        child = self._ready.get()
        if isinstance(child, OSError):
            raise SynthbookError(f"no child could be started: {child}")
        try:
            if child.level() != "os" and not self.allow_weak:
                raise WeakIsolation(
                    "this machine offers no Landlock or seccomp (Linux 5.13 or later on x86-64 or arm64), so nothing"
                    " would keep a program from your files: allow_weak=True runs code that you trust"
                )
            return child.run(task)
        finally:
            child.end()

    def map(self, tasks: Iterable[CodeTask]) -> Iterator[Outcome]:
        """Outcomes in the order of the tasks, `jobs` at a time; no more tasks are read than are needed."""
        with ThreadPoolExecutor(self.jobs) as threads:
            running: deque[Future[Outcome]] = deque()
            try:
                for task in tasks:
                    running.append(threads.submit(self.run, task))
                    if len(running) > 4 * self.jobs:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for waiting in running:
                    waiting.cancel()

    def _start(self) -> None:
        while not self._closed.is_set():
            try:
                child: Process | OSError = Process(self.limits)
            except OSError as error:
                child = error
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._ready.put(child, timeout=WAIT)
                    break
            else:
                if isinstance(child, Process):
                    child.end()
        while True:  # children die with this thread: it waits until all were taken out
            with contextlib.suppress(queue.Empty):
                if isinstance(child := self._ready.get_nowait(), Process):
                    child.end()
                continue
            break
