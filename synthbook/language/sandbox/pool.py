"""Run untrusted code in a child process that can only compute; its parent, which it cannot reach, judges the values.

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
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.language.sandbox.worker import decode, encode

CHILD = Path(__file__).with_name("worker.py")
_START = 30.0  # seconds that a child may take to say that it is ready
_LOOK = 0.05  # seconds between two looks at a child's memory


@dataclass(frozen=True)
class Limits:
    """Limits of one task: `timeout` in seconds, MiB of address space, KiB of answer."""

    timeout: float = 1.0
    memory_mib: int = 256
    output_kib: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 3_600:
            raise InvalidArgument("timeout", self.timeout, "more than 0 and at most 3600")
        if self.memory_mib < 64 or self.output_kib < 1:
            raise InvalidArgument("limits", (self.memory_mib, self.output_kib), "at least 64 MiB and 1 KiB")


@dataclass(frozen=True)
class CodeTask:
    """Code, the function in it that is called, and the arguments of each call.

    Without a function the code is one expression, which is evaluated; with the name "" it runs as a module does.
    """

    code: str
    function: str | None = None
    calls: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class CallFailure:
    """A call without a value: `reason` (error, memory, denied, timeout, output_limit), and the code's own message."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """A value or `CallFailure` for each call; the level of isolation, wall-clock seconds, peak memory where known."""

    values: tuple[Any, ...]
    isolation: str
    seconds: float
    peak_mib: float | None


class Process:
    """One confined process, its folder and its pipe."""

    def __init__(self, limits: Limits):
        self.limits, self.peak, self.buffer = limits, 0.0, b""
        self.folder = tempfile.mkdtemp(prefix="synthbook-sandbox-")
        self.pipe, write = os.pipe()
        try:
            # as -I, but for the seed of hashes: without it the order of a set, and so a verdict, would change
            command = [os.path.realpath(sys.executable), "-P", "-s", "-S", "-B", str(CHILD)]
            self.process = subprocess.Popen(
                [*command, str(limits.timeout), str(limits.memory_mib), str(write)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                pass_fds=(write,),
                start_new_session=True,
            )
        except OSError:
            os.close(self.pipe)
            remove(self.folder)
            raise
        finally:
            os.close(write)

    def level(self) -> str:
        """The isolation that it reached, said before it was given anything to run."""
        reason, line = self._line(_START, 1_000)
        if reason:
            raise SynthbookError(f"a child of the sandbox did not start ({reason})")
        self.isolation = str(json.loads(line)["isolation"])
        return self.isolation

    def run(self, task: CodeTask) -> Outcome:
        """Send a task, and read the answer as what a stranger sent. Raises `InvalidArgument` for other arguments."""
        try:
            calls = [[encode(argument) for argument in arguments] for arguments in task.calls]
        except TypeError as error:
            raise InvalidArgument("calls", str(error), "None, bool, int, float, str, list, tuple, set, dict") from None
        sent = json.dumps({"code": task.code, "function": task.function, "calls": calls}).encode()
        began, expected = time.perf_counter(), len(calls) if task.function else 1
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.write(sent)
            self.process.stdin.close()
        reason, line = self._line(self.limits.timeout, self.limits.output_kib << 10)
        seconds = time.perf_counter() - began
        self._look()
        values = [CallFailure(reason)] * expected if reason else _received(line, expected)
        return Outcome(tuple(values), self.isolation, seconds, self.peak or None)

    def end(self) -> None:
        """Kill it and all of its group, and remove its folder."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        os.close(self.pipe)
        remove(self.folder)

    def _line(self, seconds: float, most: int) -> tuple[str, bytes]:
        """A reason why not, and the next line: at most so many bytes, within so many seconds."""
        deadline = time.perf_counter() + seconds
        while b"\n" not in self.buffer:
            left = deadline - time.perf_counter()
            if left <= 0:
                return "timeout", b""
            if not wait([self.pipe], min(left, _LOOK)):
                self._look()
                continue
            if not (more := os.read(self.pipe, 1 << 16)):
                return "memory" if self.peak > 0.8 * self.limits.memory_mib else "error", b""
            self.buffer += more
            if len(self.buffer) > most and b"\n" not in self.buffer[:most]:
                return "output_limit", b""
        line, _, self.buffer = self.buffer.partition(b"\n")
        return "", line

    def _look(self) -> None:
        """Its peak memory so far; the kernel's own figure for a child that ended would count its parent's."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii", errors="replace")
            self.peak = max(self.peak, int(status.split("VmHWM:")[1].split()[0]) / 1024)


def _received(line: bytes, expected: int) -> Sequence[Any]:
    """The values of an answer; whatever is not one is a failure of the code that sent it."""
    try:
        sent = json.loads(line, parse_constant=_refused)
        if not isinstance(sent, list) or not sent or not all(isinstance(one, dict) for one in sent):
            raise ValueError("no list of outcomes")
        if len(sent) == 1 and "failed" in sent[0]:
            sent *= expected
        if len(sent) != expected:
            raise ValueError(f"{len(sent)} outcomes for {expected} calls")
        return [_one(outcome) for outcome in sent]
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        return [CallFailure("error", f"an answer that cannot be read: {type(error).__name__}")] * expected


def _one(outcome: dict[str, Any]) -> Any:
    if "failed" not in outcome:
        return decode(outcome["value"])
    reason, words = outcome["failed"]
    if reason not in ("error", "memory", "denied"):
        raise ValueError("no such reason")
    return CallFailure(reason, "".join(c if c.isprintable() else " " for c in str(words)[:200]))


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def remove(folder: str | Path) -> None:
    """Remove a folder, also where what is in it took its own rights away; links are not followed."""
    Path(folder).chmod(0o700)
    for parent, folders, _ in os.walk(folder):
        for inner in (Path(parent, name) for name in folders):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder)


# ── A pool of processes ──


__all__ = ["CallFailure", "CodeTask", "Limits", "Outcome", "Sandbox", "WeakIsolation"]
_WAIT = 0.05  # seconds between two looks at whether the pool was closed


class WeakIsolation(SynthbookError):
    """This machine cannot confine a child, so no model's code runs here."""


class Sandbox:
    """A pool of confined children; use it as a context manager.

    `jobs` tasks run in parallel, `spare` children wait ready (default: as many as jobs). Raises `WeakIsolation` at
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
                if isinstance(child := self._ready.get(timeout=_WAIT), Process):
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
        """Outcomes in the order of the tasks, `jobs` at a time; tasks are read lazily."""
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
                    self._ready.put(child, timeout=_WAIT)
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
