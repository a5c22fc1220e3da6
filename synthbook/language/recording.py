"""Asking a model everything that section 4 asks, once and live, into the file that the notebooks replay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synthbook.core.errors import InvalidArgument
from synthbook.core.files import sha256_file
from synthbook.core.provenance import Provenance, write_described
from synthbook.language.client import Client
from synthbook.language.endpoint import Endpoint
from synthbook.language.engine import RECORDED
from synthbook.language.replay import Replay, in_order

LOG = ".log.json"  # beside the cache: what was asked, and what it cost


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
    client, spent, began = Client(endpoint, replay=Replay(out, model=endpoint.pinned)), {}, time.perf_counter()
    for k, (name, run) in enumerate(chosen.items()):
        observe(k, len(chosen))
        before, start = asdict(client.spent), time.perf_counter()
        run(client.ask)
        spent[name] = {key: value - before[key] for key, value in asdict(client.spent).items() if key != "cost"}
        spent[name]["seconds"] = round(time.perf_counter() - start, 1)
    observe(len(chosen), len(chosen))
    command = "synthbook record" + (f" --only {only!r}" if only else "")
    origin = Provenance(f"answers of {endpoint.model}", command, {endpoint.model: endpoint.pinned}, 1, 1.0)
    write_described(out, list(in_order(out)), origin)
    log = {
        "command": command,
        "model": endpoint.model,
        "pinned": endpoint.pinned,
        "sha256": sha256_file(out),
        "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
        "experiments": spent,
    }
    write_described(out.with_name(out.stem + LOG), json.dumps(log, indent=1) + "\n", origin)
    return log
