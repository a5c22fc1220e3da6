"""What a training run keeps of itself, so that it can be stopped at any moment and go on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.provenance import Provenance

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

STATE = "training state"


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
    optimisers: Mapping[str, optim.Optimizer]


def begin(parts: Parts, keep: Keep, described: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Bring the parts to the newest whole state; the steps that are done, and what was kept with them.

    0 and nothing where there is none. `described` says what is trained, as plain JSON. Raises `InvalidArgument` when
    the folder holds a run and `keep.resume` is not set, or another run than the one described; `DataError` when nothing
    in it can be read.
    """
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
        _put_back(parts, tensors, config["groups"])
        return int(config["step"]), dict(config["kept"])
    if found:
        raise DataError(f"{found[0]} and what is beside it cannot be read: remove {keep.folder} and begin again")
    return 0, {}


def write(parts: Parts, folder: Path, described: Mapping[str, Any], step: int, kept: Mapping[str, Any]) -> None:
    """Keep everything that the next step needs; what was kept before goes only once the new state is whole."""
    tensors = {
        f"{name}/{key}": value for name, module in parts.modules.items() for key, value in module.state_dict().items()
    }
    groups = {}
    for name, optimiser in parts.optimisers.items():
        state = optimiser.state_dict()
        groups[name] = state["param_groups"]
        for i, memory in state["state"].items():
            tensors |= {f"{name}.optimiser/{i}/{key}": value for key, value in memory.items()}
    before = list(Path(folder).glob("step-*"))
    config = {"described": described, "step": step, "kept": dict(kept), "groups": groups}
    origin = Provenance(f"a run of {described.get('model', 'training')} on its way", "--resume goes on from here")
    checkpoints.save(Path(folder) / f"step-{step:08d}", tensors, config, model=STATE, provenance=origin)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)


def _put_back(parts: Parts, tensors: Mapping[str, Tensor], groups: Mapping[str, Any]) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for name, module in parts.modules.items():
        module.load_state_dict(under(f"{name}/"))
    for name, optimiser in parts.optimisers.items():
        memory: dict[int, dict[str, Tensor]] = {}
        for key, value in under(f"{name}.optimiser/").items():
            i, what = key.split("/")
            memory.setdefault(int(i), {})[what] = value
        optimiser.load_state_dict({"state": memory, "param_groups": groups[name]})
