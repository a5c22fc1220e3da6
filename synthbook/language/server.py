"""A language model on this machine: llama.cpp's server in a process of its own, on an address that only we can reach.

It listens on loopback, on a free port, with a random key, and ends when its user ends, however that comes about: the
child reads a pipe that closes with us. The key goes through that pipe, so that no list of processes shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.files import sha256_file
from synthbook.language import local_model
from synthbook.language.endpoint import Endpoint

STARTING = 120.0  # seconds
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
    seconds: float = STARTING,
) -> Iterator[Endpoint]:
    """A server for `slots` questions side by side, each with `context` tokens; it is stopped at the end.

    `model` is a GGUF file, by default the one that `synthbook models fetch smollm2` brings. Raises `ServerError`, with
    what can be done about it, `InvalidArgument` for a file that does not exist.
    """
    if slots < 1 or context < 64 or (threads is not None and threads < 1):
        given = (slots, context, threads)
        raise InvalidArgument("slots, context, threads", given, "at least 1 slot, 64 tokens and 1 thread")
    path = model or local_model.model_file()
    if path is None:
        raise ServerError(f"{local_model.FILE} is not in {local_model.models_folder()}: synthbook models fetch smollm2")
    if not _is_gguf(Path(path)):
        raise InvalidArgument("model", str(path), "a GGUF file that exists")
    if find_spec("xllamacpp") is None:
        raise ServerError("xllamacpp is not installed: pip install 'synthbook[llm]', or name a server that runs")
    pinned = sha256_file(path)  # half a second; an answer of another file is another answer
    key = secrets.token_urlsafe(24)
    settings = {"model": str(path), "key": key, "slots": slots, "context": context, "threads": threads or _threads()}
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


def _threads() -> int:
    """Half of the cores: its threads wait for one another, and with all cores they wait for whatever else runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


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
        found = address.get(timeout=seconds)
    except queue.Empty:
        raise ServerError(f"the local server was not ready after {seconds:g} s: is the machine busy?") from None
    if found:
        return found
    code = child.wait()
    readers[-1].join()
    last = next((words.strip() for words in reversed(errors) if words.strip()), f"exit code {code}")
    why = "Is the file whole, and is there memory for it?"
    raise ServerError(f"the local server did not start with {settings['model']} ({last}). {why}")


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
