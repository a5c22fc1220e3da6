"""One loop that trains them all, and that can be stopped at any step and go on as if nothing had happened.

What is random at step k is drawn from the seed and k alone. So a checkpoint needs the weights, the optimisers' memory
and the number of the step, and a run that was killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.provenance import Provenance

Seed = int | np.random.SeedSequence
Observer = Callable[[int, int, Mapping[str, float]], None]
Look = Callable[[int], None]
ROWS, STATE = 100, "training state"  # rows of the history


class TrainingDiverged(SynthbookError):
    """A loss became infinite or NaN; what was kept before stays."""


@dataclass(frozen=True)
class Keep:
    """Where a run keeps what it needs to go on, and every how many steps."""

    folder: Path
    every: int = 500
    resume: bool = False


@dataclass(frozen=True, eq=False)
class Parts:
    """What training changes: networks and their optimisers, by name."""

    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True, eq=False)
class Batches:
    """Random rows, with replacement, of data (N, ...) and labels (N,)."""

    x: Tensor
    labels: Tensor | None
    size: int
    rng: torch.Generator

    def draw(self) -> tuple[Tensor, Tensor | None]:
        """The next batch (size, ...) and its labels (size,)."""
        rows = torch.randint(len(self.x), (self.size,), generator=self.rng).to(self.x.device)
        return self.x[rows], None if self.labels is None else self.labels[rows]


def train(
    parts: Parts,
    step: Callable[[int, torch.Generator], Mapping[str, float]],
    *,
    steps: int,
    seed: Seed,
    described: Mapping[str, Any],
    keep: Keep | None = None,
    observe: Observer = lambda step, steps, losses: None,
    look: Look | None = None,
) -> list[dict[str, float]]:
    """Call `step(k, rng)` for k = 1, ..., steps; return at most 100 rows, each the means since the row before.

    `step` updates the parts and returns its losses by name. `observe(k, steps, losses)` is told each of them, `look(k)`
    is called after about every tenth of the steps. `described` says what is trained, as plain JSON: a checkpoint of
    something else is refused. Raises `TrainingDiverged`, `DataError`, `InvalidArgument`.
    """
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise InvalidArgument("steps", steps, "a whole number of at least 1")
    described = {**described, "steps": int(steps), "seed": str(seed)}
    done, history = (0, []) if keep is None else _start(parts, keep, described)
    every, recent = max(steps // ROWS, 1), []
    kept_every = 0 if keep is None else -(-keep.every // every) * every  # at the end of a row
    for k in range(done + 1, steps + 1):
        losses = step(k, step_rng(seed, k))
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{name} is {value} at step {k}: lower the learning rate, or check the data for extreme values"
                )
        recent.append(losses)
        observe(k, steps, losses)
        if k % every == 0 or k == steps:
            history.append({"step": k} | {name: float(np.mean([row[name] for row in recent])) for name in losses})
            recent = []
        if keep is not None and (k % kept_every == 0 or k == steps):
            _write(parts, keep.folder, described, k, history)
        if look is not None and k % max(steps // 10, 1) == 0:
            look(k)
    return history


def step_rng(seed: Seed, k: int) -> torch.Generator:
    """The generator of step k: it depends on nothing but the seed and k."""
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    child = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k))
    return torch.Generator().manual_seed(int(child.generate_state(1, np.uint64)[0] >> 1))


def normal(shape: tuple[int, ...] | torch.Size, rng: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers, drawn on the CPU, so that every device gets the same ones."""
    return torch.randn(shape, generator=rng).to(device)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate; a group of parameters with "times" gets so many times as much."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("times", 1.0)


def warm_then_cosine(step: int, steps: int, *, warm: float = 0.05) -> float:
    """The learning rate at a step, relative to its peak: up on a line over a share `warm`, down along a cosine."""
    ramp = max(warm * steps, 1)
    return min(step / ramp, 0.5 * (1 + math.cos(math.pi * max(step - ramp, 0) / max(steps - ramp, 1))))


def _start(parts: Parts, keep: Keep, described: Mapping[str, Any]) -> tuple[int, list[dict[str, float]]]:
    """Bring the parts to the newest whole checkpoint; the steps that are done, and the history."""
    found = sorted(Path(keep.folder).glob("step-*"), reverse=True)
    if found and not keep.resume:
        raise InvalidArgument(
            "folder", str(keep.folder), "an empty folder, or resume to go on with the run that is there"
        )
    for path in found:
        try:
            tensors, config = checkpoints.load(path, model=STATE)
        except DataError:
            continue  # it was being written when the run was killed: the one before is whole
        if (other := config["described"]) != json.loads(json.dumps(described)):
            differing = sorted(key for key in other.keys() | described.keys() if other.get(key) != described.get(key))
            raise InvalidArgument("resume", str(path), f"the run that was begun: this one differs in {differing}")
        _put_back(parts, tensors)
        return int(config["step"]), list(config["history"])
    if found:
        raise DataError(f"{found[0]} and what is beside it cannot be read: remove {keep.folder} and begin again")
    return 0, []


def _write(
    parts: Parts, folder: Path, described: Mapping[str, Any], step: int, history: list[dict[str, float]]
) -> None:
    """Keep everything that the next step needs; what was kept before goes only once the new checkpoint is whole."""
    tensors = {
        f"{name}/{key}": value for name, module in parts.modules.items() for key, value in module.state_dict().items()
    }
    for name, optimiser in parts.optimisers.items():
        for i, memory in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.optimiser/{i}/{key}": value for key, value in memory.items()}
    before = list(Path(folder).glob("step-*"))
    config = {"described": described, "step": step, "history": history}
    origin = Provenance(f"a run of {described.get('model', 'training')} on its way", "--resume goes on from here")
    checkpoints.save(Path(folder) / f"step-{step:08d}", tensors, config, model=STATE, provenance=origin)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)


def _put_back(parts: Parts, tensors: Mapping[str, Tensor]) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for name, module in parts.modules.items():
        module.load_state_dict(under(f"{name}/"))
    for name, optimiser in parts.optimisers.items():
        memory: dict[int, dict[str, Tensor]] = {}
        for key, value in under(f"{name}.optimiser/").items():
            i, what = key.split("/")
            memory.setdefault(int(i), {})[what] = value
        optimiser.load_state_dict({"state": memory, "param_groups": optimiser.state_dict()["param_groups"]})
