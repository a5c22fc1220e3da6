"""Asking a model everything that section 4 asks, once and live, into the file that the notebooks replay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthbook.core.errors import InvalidArgument
from synthbook.core.provenance import Provenance, write_described
from synthbook.language.client import Client
from synthbook.language.endpoint import Endpoint
from synthbook.language.engine import RECORDED
from synthbook.language.replay import Replay, in_order

COMMAND = "synthbook record"


def record(
    endpoint: Endpoint,
    out: Path,
    *,
    resume: bool = False,
    only: str | None = None,
    observe: Callable[[int, int], None] = lambda done, n: None,
) -> dict[str, Any]:
    """Ask the questions of every experiment, or of `only` one; write cache and log, and return the log.

    A run that was stopped goes on with `resume`, and asks nothing twice. Raises `InvalidArgument`, `ModelError`.
    """
    chosen = {name: run for name, run in RECORDED.items() if only is None or name.startswith(only)}
    if not chosen:
        raise InvalidArgument("only", only, f"the beginning of one of {', '.join(RECORDED)}")
    if out.exists() and not resume:
        raise InvalidArgument("out", str(out), "a new file, or --resume to go on with it")
    client, path = Client(endpoint, replay=Replay(out, model=endpoint.pinned)), log_of(out)
    log: dict[str, Any] = {"model": endpoint.model, "pinned": endpoint.pinned, "experiments": {}}
    if resume and path.exists():
        log["experiments"] = json.loads(path.read_text())["experiments"]
    origin = Provenance(f"answers of {endpoint.model}", COMMAND, {endpoint.model: endpoint.pinned}, 1, 1.0)
    for k, (name, run) in enumerate(chosen.items()):
        observe(k, len(chosen))
        before, start = asdict(client.spent), time.perf_counter()
        run(client.ask)
        spent = {key: value - before[key] for key, value in asdict(client.spent).items() if key != "cost"}
        if spent["asked"]:  # else all was there, and what it cost is known
            log["experiments"][name] = spent | {"seconds": round(time.perf_counter() - start, 1)}
            write_described(path, json.dumps(log, indent=1) + "\n", origin)
    observe(len(chosen), len(chosen))
    write_described(out, list(in_order(out)), origin)
    return log


def log_of(cache: Path) -> Path:
    """The log beside a cache: what was asked for each experiment, and what it cost."""
    return cache.with_suffix(".log.json")
