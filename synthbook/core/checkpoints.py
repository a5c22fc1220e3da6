"""A saved model is a folder: `model.json` (configuration and provenance) and `model.safetensors` (weights).

`model.json` holds the SHA-256 of both files, so a checkpoint that was truncated, altered or assembled from two models
is refused before it is used. Neither file can hold code: unlike a pickle, a stranger's checkpoint is safe to open.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import synthbook
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import Provenance, atomic_write, sha256

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn, optim


CONFIG_NAME, WEIGHTS_NAME = "model.json", "model.safetensors"
_FORMAT, VERSION = "synthbook checkpoint", 1


def save(
    folder: Path,
    tensors: Mapping[str, torch.Tensor | NDArray[Any]],
    config: Mapping[str, Any],
    *,
    model_type: str,
    provenance: Provenance,
) -> Path:
    """Write a checkpoint and return its folder; the same content gives the same bytes.

    `model_type` names the class that can load it, such as "fashion-cnn"; `config` is plain JSON (tuples come back as
    lists). Each file is written beside its target and renamed, `model.json` last: a crash between the two leaves a
    folder that `load` refuses. Raises `InvalidArgument` when the tensors or the config cannot be stored.
    """
    raw = _packed(tensors)
    card = {
        "format": _FORMAT,
        "version": VERSION,
        "synthbook": synthbook.__version__,
        "model": model_type,
        "config": dict(config),
        "sha256": sha256(raw),
        "bytes": len(raw),
        "provenance": provenance.to_dict(),
    }
    card["sha256_of_card"] = _own_hash(card)
    text = json.dumps(card, indent=1, sort_keys=True) + "\n"
    atomic_write(Path(folder) / WEIGHTS_NAME, raw)
    atomic_write(Path(folder) / CONFIG_NAME, text)
    return Path(folder)


def load(folder: Path, *, model_type: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the config of a checkpoint, after verifying both SHA-256 checksums.

    With `model_type`, a checkpoint of another type is refused. Raises `DataError`, which names the file, both hashes
    where they differ, and what to do.
    """
    card, path = _card(Path(folder)), Path(folder) / WEIGHTS_NAME
    if model_type is not None and card["model"] != model_type:
        raise DataError(
            f"{Path(folder) / CONFIG_NAME} is a checkpoint of {card['model']!r}, not of {model_type!r}: name its folder"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. {_remedy(card)}") from None
    if (actual := sha256(raw)) != card["sha256"]:
        size = f"{len(raw):,} bytes, expected {card['bytes']:,}"
        raise _altered(path, size, card["sha256"], actual, _remedy(card))
    return _unpacked(path, raw), dict(card["config"])


def read_model_provenance(folder: Path) -> Provenance:
    """The provenance in a checkpoint's `model.json`; raises `DataError` as `load` does."""
    return Provenance(**_card(Path(folder))["provenance"])


def read_model_type(folder: Path) -> str:
    """The model type in a checkpoint's `model.json`; raises `DataError` as `load` does."""
    return str(_card(Path(folder))["model"])


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no {CONFIG_NAME}: a checkpoint is a folder with {CONFIG_NAME} and {WEIGHTS_NAME}"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it or train the model again") from None
    if not isinstance(card, dict) or card.get("format") != _FORMAT:
        raise DataError(f"{path} is not a {_FORMAT}: another program wrote it, and nothing here can read it")
    if card.get("version") != VERSION:
        raise DataError(
            f"{path} has format version {card.get('version')}, this package reads {VERSION}: update synthbook"
        )
    expected = card.pop("sha256_of_card", None)
    if (actual := _own_hash(card)) != expected:
        raise _altered(path, "its content without the hash", expected, actual, "restore it or train the model again")
    return card


def _altered(path: Path, what: str, expected: object, actual: str, remedy: str) -> DataError:
    return DataError(
        f"{path} changed after it was written ({what}).\nexpected SHA-256: {expected}\nfound: {actual}\n{remedy}"
    )


def _remedy(card: dict[str, Any]) -> str:
    return f"restore the file, or make the checkpoint again: {card['provenance']['command']}"


def _own_hash(card: Mapping[str, Any]) -> str:
    try:
        return sha256(json.dumps(card, sort_keys=True, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidArgument("config", card.get("config"), f"finite JSON values with text keys ({error})") from None


def _packed(tensors: Mapping[str, torch.Tensor | NDArray[Any]]) -> bytes:
    import torch
    from safetensors.torch import save as pack

    if not tensors:
        raise InvalidArgument("tensors", tensors, "at least one tensor: a model without numbers is not a model")
    try:
        # clones, because tied or sliced weights share memory, which the format refuses
        plain = {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}
        return bytes(pack(plain))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgument("tensors", list(tensors), f"named arrays of numbers ({error})") from None


def _unpacked(path: Path, raw: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as unpack

    try:
        return unpack(raw)
    except SafetensorError as error:
        raise DataError(f"{path} is not in the safetensors format ({error}): make the checkpoint again") from None


# ── Training state, for exact resumption ──


_STATE = "training state"


@dataclass(frozen=True)
class CheckpointConfig:
    """The folder of a run's training checkpoints, how often one is written, and whether to resume from it."""

    folder: Path
    every_n_steps: int = 500
    resume: bool = False


@dataclass(frozen=True, eq=False)
class TrainState:
    """What training changes: modules and their optimizers, by name."""

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, optim.Optimizer]


def restore_train_state(
    state: TrainState, checkpoint: CheckpointConfig, config: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Restore the newest complete checkpoint; return its step and extra state, or (0, {}) where there is none.

    `config` describes the run, as plain JSON. Raises `InvalidArgument` when the folder holds a run and
    `checkpoint.resume` is not set, or the checkpoint of a run with another config; `DataError` when none can be read.
    """
    paths = sorted(Path(checkpoint.folder).glob("step-*"), reverse=True)
    if paths and not checkpoint.resume:
        raise InvalidArgument(
            "folder", str(checkpoint.folder), "an empty folder, or resume to go on with the run that is there"
        )
    for path in paths:
        try:
            tensors, stored = load(path, model_type=_STATE)
        except DataError:
            continue  # it was being written when the run was killed: the one before is complete
        if (other := stored["config"]) != json.loads(json.dumps(config)):
            differing = sorted(key for key in other.keys() | config.keys() if other.get(key) != config.get(key))
            raise InvalidArgument("resume", str(path), f"the run that was begun: this one differs in {differing}")
        _load_state_dicts(state, tensors, stored["groups"])
        return int(stored["step"]), dict(stored["extra_state"])
    if paths:
        raise DataError(f"{paths[0]} and what is beside it cannot be read: remove {checkpoint.folder} and begin again")
    return 0, {}


def save_train_state(
    state: TrainState, folder: Path, config: Mapping[str, Any], step: int, extra_state: Mapping[str, Any]
) -> None:
    """Write a checkpoint of the state after `step` steps; older ones are deleted only after it is complete."""
    tensors = {
        f"{name}/{key}": value for name, module in state.modules.items() for key, value in module.state_dict().items()
    }
    groups = {}
    for name, optimizer in state.optimizers.items():
        state_dict = optimizer.state_dict()
        groups[name] = state_dict["param_groups"]
        for i, buffers in state_dict["state"].items():
            tensors |= {f"{name}.optimizer/{i}/{key}": value for key, value in buffers.items()}
    older = list(Path(folder).glob("step-*"))
    stored = {"config": config, "step": step, "extra_state": dict(extra_state), "groups": groups}
    provenance = Provenance(f"a run of {config.get('model', 'training')} on its way", "--resume goes on from here")
    save(Path(folder) / f"step-{step:08d}", tensors, stored, model_type=_STATE, provenance=provenance)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)


def _load_state_dicts(state: TrainState, tensors: Mapping[str, Tensor], groups: Mapping[str, Any]) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    for name, module in state.modules.items():
        module.load_state_dict(under(f"{name}/"))
    for name, optimizer in state.optimizers.items():
        buffers: dict[int, dict[str, Tensor]] = {}
        for key, value in under(f"{name}.optimizer/").items():
            i, buffer = key.split("/")
            buffers.setdefault(int(i), {})[buffer] = value
        optimizer.load_state_dict({"state": buffers, "param_groups": groups[name]})
