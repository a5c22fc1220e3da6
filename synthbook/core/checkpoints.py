"""A trained model on disk: a folder with `model.json`, what it is, and `model.safetensors`, its numbers.

`model.json` holds the SHA-256 of the other file and of itself, so a checkpoint that was cut short, changed or put
together from two models is refused before anything computes with it. It is also the provenance sidecar of both. Neither
file can hold code: unlike a pickle, a checkpoint from a stranger is safe to open.
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
if TYPE_CHECKING:
    from torch import Tensor, nn, optim


CARD, TENSORS = "model.json", "model.safetensors"
FORMAT, VERSION = "synthbook checkpoint", 1


def save(
    folder: Path,
    tensors: Mapping[str, torch.Tensor | NDArray[Any]],
    config: Mapping[str, Any],
    *,
    model: str,
    provenance: Provenance,
) -> Path:
    """Write a checkpoint and return its folder; the same content gives the same bytes.

    `model` names what can read it back, such as "fashion-cnn"; `config` is plain JSON (tuples come back as lists). Each
    file is written beside its target and renamed, the card last: a crash between the two leaves a folder that `load`
    refuses. Raises `InvalidArgument` when the tensors or the config cannot be stored.
    """
    raw = _packed(tensors)
    card = {
        "format": FORMAT,
        "version": VERSION,
        "synthbook": synthbook.__version__,
        "model": model,
        "config": dict(config),
        "sha256": sha256(raw),
        "bytes": len(raw),
        "provenance": provenance.to_dict(),
    }
    card["sha256_of_card"] = _own_hash(card)
    text = json.dumps(card, indent=1, sort_keys=True) + "\n"
    atomic_write(Path(folder) / TENSORS, raw)
    atomic_write(Path(folder) / CARD, text)
    return Path(folder)


def load(folder: Path, *, model: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the config of a checkpoint, once both files were held against their hashes.

    `model` is the name that the caller can build; another one is refused. Raises `DataError`, which names the file,
    both hashes where they differ, and what to do.
    """
    card, path = _card(Path(folder)), Path(folder) / TENSORS
    if model is not None and card["model"] != model:
        raise DataError(
            f"{Path(folder) / CARD} is a checkpoint of {card['model']!r}, not of {model!r}: name its folder"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. {_remedy(card)}") from None
    if (found := sha256(raw)) != card["sha256"]:
        size = f"{len(raw):,} bytes, expected {card['bytes']:,}"
        raise _altered(path, size, card["sha256"], found, _remedy(card))
    return _unpacked(path, raw), dict(card["config"])


def read_provenance(folder: Path) -> Provenance:
    """Where a checkpoint came from, as its card says; `DataError` as in `load`."""
    return Provenance(**_card(Path(folder))["provenance"])


def read_model_type(folder: Path) -> str:
    """What kind of model a checkpoint holds, as its card says; `DataError` as in `load`."""
    return str(_card(Path(folder))["model"])


def _card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {CARD}: a checkpoint is a folder with {CARD} and {TENSORS}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it or train the model again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DataError(f"{path} is not a {FORMAT}: another program wrote it, and nothing here can read it")
    if card.get("version") != VERSION:
        raise DataError(
            f"{path} has format version {card.get('version')}, this package reads {VERSION}: update synthbook"
        )
    expected = card.pop("sha256_of_card", None)
    if (found := _own_hash(card)) != expected:
        raise _altered(path, "its content without the hash", expected, found, "restore it or train the model again")
    return card


def _altered(path: Path, what: str, expected: object, found: str, remedy: str) -> DataError:
    return DataError(
        f"{path} changed after it was written ({what}).\nexpected SHA-256: {expected}\nfound: {found}\n{remedy}"
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


STATE = "training state"


@dataclass(frozen=True)
class CheckpointConfig:
    """Where a run keeps what it needs to go on, and every how many steps."""

    folder: Path
    every_n_steps: int = 500
    resume: bool = False


@dataclass(frozen=True, eq=False)
class TrainState:
    """What training changes: networks and their optimisers, by name."""

    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, optim.Optimizer]


def begin(parts: TrainState, checkpoint: CheckpointConfig, described: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Bring the parts to the newest whole state; the steps that are done, and what was kept with them.

    0 and nothing where there is none. `described` says what is trained, as plain JSON. Raises `InvalidArgument` when
    the folder holds a run and `checkpoint.resume` is not set, or another run than the one described; `DataError` when
    nothing in it can be read.
    """
    found = sorted(Path(checkpoint.folder).glob("step-*"), reverse=True)
    if found and not checkpoint.resume:
        raise InvalidArgument(
            "folder", str(checkpoint.folder), "an empty folder, or resume to go on with the run that is there"
        )
    for path in found:
        try:
            tensors, config = load(path, model=STATE)
        except DataError:
            continue  # it was being written when the run was killed: the one before is whole
        if (other := config["described"]) != json.loads(json.dumps(described)):
            differing = sorted(key for key in other.keys() | described.keys() if other.get(key) != described.get(key))
            raise InvalidArgument("resume", str(path), f"the run that was begun: this one differs in {differing}")
        _put_back(parts, tensors, config["groups"])
        return int(config["step"]), dict(config["kept"])
    if found:
        raise DataError(f"{found[0]} and what is beside it cannot be read: remove {checkpoint.folder} and begin again")
    return 0, {}


def write(parts: TrainState, folder: Path, described: Mapping[str, Any], step: int, kept: Mapping[str, Any]) -> None:
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
    provenance = Provenance(f"a run of {described.get('model', 'training')} on its way", "--resume goes on from here")
    save(Path(folder) / f"step-{step:08d}", tensors, config, model=STATE, provenance=provenance)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)


def _put_back(parts: TrainState, tensors: Mapping[str, Tensor], groups: Mapping[str, Any]) -> None:
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
