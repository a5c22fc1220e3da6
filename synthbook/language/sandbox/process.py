"""One confined process: started, given a task, read as a stranger is read, and ended, whatever it does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.language.sandbox.worker import decode, encode

CHILD = Path(__file__).with_name("worker.py")
START = 30.0  # seconds that a child may take to say that it is ready
LOOK = 0.05  # seconds between two looks at a child's memory


@dataclass(frozen=True)
class Limits:
    """Of one task: `seconds` on the clock, memory in MiB of address space, KiB of answer."""

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
    """A call that gave no value: `reason` (error, memory, denied, timeout, output_limit), words of the code's own."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """For each call a value or `CallFailure`; the level of isolation, seconds on the clock, peak memory where known."""

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
        reason, line = self._line(START, 1_000)
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
            if not wait([self.pipe], min(left, LOOK)):
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
