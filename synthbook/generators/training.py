"""One loop that trains them all, and that can be stopped at any step and go on as if nothing had happened.

What is random at step k is drawn from the seed and k alone. So a checkpoint needs the weights, the optimizers' memory
and the number of the step, and a run that was killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthbook.core.checkpoints import CheckpointConfig, TrainState, restore_train_state, save_train_state
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.types import Callback, Seed, child_seed

EvalCallback = Callable[[int], None]
ROWS = 100  # of the history


class TrainingDiverged(SynthbookError):
    """A loss became infinite or NaN; what was kept before stays."""


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
    parts: TrainState,
    step: Callable[[int, torch.Generator], Mapping[str, float]],
    *,
    steps: int,
    seed: Seed,
    described: Mapping[str, Any],
    checkpoint: CheckpointConfig | None = None,
    callback: Callback | None = None,
    on_eval: EvalCallback | None = None,
) -> list[dict[str, float]]:
    """Call `step(k, rng)` for k = 1, ..., steps; return at most 100 rows, each the means since the row before.

    `step` updates the parts and returns its losses by name. `callback(k, steps, losses)` is told each of them,
    `look(k)` is called after about every tenth of the steps. `described` says what is trained, as plain JSON: a
    checkpoint of something else is refused. Raises `TrainingDiverged`, `DataError`, `InvalidArgument`.
    """
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise InvalidArgument("steps", steps, "a whole number of at least 1")
    described = {**described, "steps": int(steps), "seed": str(seed)}
    done, kept = (0, {}) if checkpoint is None else restore_train_state(parts, checkpoint, described)
    history: list[dict[str, float]] = list(kept.get("history", []))
    every, recent = max(steps // ROWS, 1), []
    kept_every = 0 if checkpoint is None else -(-checkpoint.every_n_steps // every) * every  # at the end of a row
    for k in range(done + 1, steps + 1):
        losses = step(k, step_rng(seed, k))
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{name} is {value} at step {k}: lower the learning rate, or check the data for extreme values"
                )
        recent.append(losses)
        if callback is not None:
            callback(k, steps, losses)
        if k % every == 0 or k == steps:
            history.append({"step": k} | {name: float(np.mean([row[name] for row in recent])) for name in losses})
            recent = []
        if checkpoint is not None and (k % kept_every == 0 or k == steps):
            save_train_state(parts, checkpoint.folder, described, k, {"history": history})
        if on_eval is not None and k % max(steps // 10, 1) == 0:
            on_eval(k)
    return history


def step_rng(seed: Seed, k: int) -> torch.Generator:
    """The generator of step k: it depends on nothing but the seed and k."""
    return torch.Generator().manual_seed(int(child_seed(seed, k).generate_state(1, np.uint64)[0] >> 1))


def normal(shape: tuple[int, ...] | torch.Size, rng: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers, drawn on the CPU, so that every device gets the same ones."""
    return torch.randn(shape, generator=rng).to(device)


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate; a group of parameters with "times" gets so many times as much."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("times", 1.0)


def cosine_with_warmup(step: int, steps: int, *, warm: float = 0.05) -> float:
    """The learning rate at a step, relative to its peak: up on a line over a share `warm`, down along a cosine."""
    ramp = max(warm * steps, 1)
    return min(step / ramp, 0.5 * (1 + math.cos(math.pi * max(step - ramp, 0) / max(steps - ramp, 1))))
