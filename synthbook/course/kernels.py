"""Fresh kernels of the running interpreter, none of which outlives the runner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from synthbook.course import watchdog
from synthbook.course.claims import CLAIMS_LOG_ENV_VAR
from synthbook.datasets import DATA_ENV_VAR, data_folder_from_env

_MIB = 2**20


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
        return round(self._peaks.pop(pid) / _MIB)

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
            resident = highest = 0
            for process in [root, *root.children(recursive=True)]:
                highest = max(highest, _high_water(process.pid))
                with contextlib.suppress(psutil.Error):
                    resident += process.memory_info().rss
            if pid in self._peaks:
                self._peaks[pid] = max(self._peaks[pid], resident, highest)


def _high_water(pid: int) -> int:
    """The process's own peak in bytes; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


# ── Kernels ──


_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_PROFILE_ENV_VAR = "SYNTHBOOK_PROFILE"
_SOCKET_PATH_LIMIT = 80  # the system allows about 104 characters, the sockets' own names need some of them
_START_TIMEOUT = 120  # seconds; a kernel starts in one or two on an idle machine


class CurrentInterpreterSpecManager(KernelSpecManager):
    """Knows one kernel, this interpreter, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The same for every name."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


@dataclass
class Kernel:
    """A running kernel and the client that executes cells in it."""

    client: Any
    manager: Any
    pid: int
    started: float
    output: Path  # what the process itself wrote, outside any cell

    async def run(self, cell: Any, index: int, number: int) -> None:
        """Execute one cell as In[number]; raises nbclient's errors, and `CancelledError` when the runner is stopped."""
        try:
            await self.client.async_execute_cell(cell, index, execution_count=number)
        except DeadKernelError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # nbclient takes a cancelled task for a dead kernel
                raise asyncio.CancelledError from None
            raise

    async def cause_of_death(self) -> str | None:
        """How the process ended, with the last lines it wrote; None while it lives."""
        code = await self.manager.provisioner.poll()
        if code is None:
            return None
        last = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-10:]
        reason = f"it ended with exit code {code}"
        if code < 0:
            hint = ", which often means that memory ran out" if code == -signal.SIGKILL else ""
            reason = f"it was ended by {signal.Signals(-code).name}{hint}"
        return "\n".join([f"the kernel died: {reason}", *last])


class KernelPool:
    """What all kernels of one run share: a temporary folder, the watchdog, the memory watch, `n_jobs` places."""

    def __init__(self, n_jobs: int) -> None:
        self.places = asyncio.Semaphore(n_jobs)
        self.folder = Path(tempfile.mkdtemp(prefix="synthbook-"))
        self.memory = MemoryWatch()
        command = [sys.executable, "-I", "-S", str(watchdog.__file__), str(self.folder)]
        self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True, bufsize=1)

    def tell(self, line: str) -> None:
        """Send one line to the watchdog."""
        assert self._watchdog.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.write(line + "\n")
            self._watchdog.stdin.flush()

    def close(self) -> None:
        """Remove the folder and end the watchdog."""
        self.memory.close()
        assert self._watchdog.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.close()
        self._watchdog.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def kernel(
        self, notebook: Any, *, name: str, cwd: Path, profile: str, timeout: float | None
    ) -> AsyncIterator[Kernel]:
        """A new kernel in the folder `cwd`, killed with its children at the end; `timeout`: seconds for each cell."""
        folder = self.folder / name
        folder.mkdir()
        where: dict[str, str] = {"connection_file": str(folder / "connection.json")}
        if len(str(folder)) <= _SOCKET_PATH_LIMIT:  # sockets in a folder only this user can read
            where |= {"transport": "ipc", "ip": str(folder / "s")}
        manager: Any = AsyncKernelManager(kernel_spec_manager=CurrentInterpreterSpecManager(), **where)
        output, claims_log = folder / "output", folder / "claims"
        started = time.monotonic()
        pid, client, clean = None, None, False
        try:
            with output.open("wb") as file:
                env = _environment(profile, claims_log, folder)
                await manager.start_kernel(cwd=str(cwd), env=env, stdout=file, stderr=file)
            pid = manager.provisioner.process.pid
            self.tell(f"+{pid}")  # a kernel leads a process group of its own
            self.memory.add(pid)
            client = _client(notebook, manager, timeout)
            kernel = Kernel(client, manager, pid, started, output)
            await client.async_start_new_kernel_client()
            yield kernel
            clean = True
        finally:
            if pid is None and manager.has_kernel:  # stopped between its start and the next line
                pid = manager.provisioner.process.pid
            if pid is not None:
                await _stop(manager, client, pid, gently=clean)
                self.tell(f"-{pid}")


def _client(notebook: Any, manager: Any, timeout: float | None) -> Any:
    return NotebookClient(
        notebook,
        km=manager,
        timeout_func=lambda cell: timeout,  # the plain `timeout` takes whole seconds only
        startup_timeout=_START_TIMEOUT,
        iopub_timeout=60,
        raise_on_iopub_timeout=True,  # otherwise outputs of a busy machine are lost without a word
        record_timing=False,
    )


def _environment(profile: str, claims_log: Path, folder: Path) -> dict[str, str]:
    hidden = ("MPLBACKEND", "IPYTHONDIR")  # a user's own settings would change what is committed
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    own = {_PROFILE_ENV_VAR: profile, CLAIMS_LOG_ENV_VAR: str(claims_log), "IPYTHONDIR": str(folder / "ipython")}
    data = data_folder_from_env()  # absolute, since kernels work in another folder
    own |= {DATA_ENV_VAR: str(data)} if data else {}
    return inherited | _ONE_THREAD | own | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}


async def _stop(manager: Any, client: Any, pid: int, *, gently: bool) -> None:
    """End the kernel, `gently` so that its exit handlers run; whatever it started is killed with it."""
    with contextlib.suppress(Exception):
        if client is not None and client.kc is not None:
            client.kc.stop_channels()
        await manager.shutdown_kernel(now=not gently)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
