"""How the shipped models are made: a recipe, one command, a log that says what was run, and looks on the way."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthbook.core import checkpoints
from synthbook.core.errors import InvalidArgument
from synthbook.core.files import sha256_file
from synthbook.core.lock import locked
from synthbook.core.manifest import data_folder, read_manifest
from synthbook.core.provenance import Provenance, write_described
from synthbook.core.resume import Keep
from synthbook.models.training import Observer

LOG, STATE, LOOKS = "log.json", "state", "looks"


@dataclass(frozen=True)
class Recipe:
    """A family with its settings, what it learns from, and how many steps the full and the quick profile take.

    `data()` is the real train part, made of the data `files` and named `source`. `look(model, stem, origin)` draws from
    a model that is being trained and writes what it drew to `stem` with a suffix of its own.
    """

    family: type[Any]
    settings: Mapping[str, Any]
    full: int
    quick: int
    data: Callable[[], Any]
    source: str
    files: tuple[str, ...]
    look: Callable[[Any, Path, Provenance], Path]


def make(
    name: str,
    recipe: Recipe,
    out: Path,
    *,
    profile: str = "full",
    seed: int = 0,
    resume: bool = False,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Train the model `name` of a recipe; write checkpoint and log into `out`, and return the log.

    What a run needs to go on is kept in `out/state` until it is done; looks at its samples go into `out/looks`.
    """
    steps = {"full": recipe.full, "quick": recipe.quick}[profile]
    if (out / LOG).exists():  # written last
        raise InvalidArgument("out", str(out), "a folder without a finished model: nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", f"{out} is being written"):
        began, model, data = time.perf_counter(), recipe.family(**recipe.settings), recipe.data()
        command = f"synthbook train {name} --profile {profile} --seed {seed}"
        listed = read_manifest(data_folder())
        parents = {file: str(listed[file]["sha256"]) for file in recipe.files}
        origin = Provenance(recipe.source, command, parents, 1, 1.0, seed)
        model.fit(
            data,
            seed=seed,
            steps=steps,
            keep=Keep(out / STATE, every=500, resume=resume),
            observe=observe,
            look=lambda step: recipe.look(model, out / LOOKS / f"step-{step:06d}", origin),
        )
        model.save(out, origin)
        tensors, _ = checkpoints.load(out)
        log = {
            "command": command,
            "profile": profile,
            "seed": seed,
            "steps": steps,
            "settings": dict(recipe.settings),
            "parameters": sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
            "threads": torch.get_num_threads(),
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
            "sha256": sha256_file(out / checkpoints.TENSORS),
            "history": [{key: round(value, 4) for key, value in row.items()} for row in model.history_],
        }
        write_described(out / LOG, json.dumps(log, indent=1) + "\n", origin)
        shutil.rmtree(out / STATE)
    return log
