"""Where a file came from: a JSON sidecar beside every file the package writes.

`table.csv` is described by `table.csv.provenance.json`. The sidecar holds the file's own SHA-256, so a file that was
changed after it was described is found out when the sidecar is read.

Four kinds of file carry their origin inside, so that it cannot be lost on the way, and have no sidecar: an executed
notebook (its metadata, under "synthbook"), a checkpoint (`model.json`, for itself and its `model.safetensors`), a
drafted `schema.toml` (its first lines), and `data/manifest.json`, which is itself the list of what each file should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import synthbook
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.files import atomic_write, sha256_file


@dataclass(frozen=True)
class Provenance:
    """What a reader must know before trusting a file.

    `generation` counts the models between this file and reality: 0 is real data, 1 a model's output, 2 the output of
    a model trained on generation 1. `synthetic_share` is the share of rows, in [0, 1], that no one observed.
    `parents` maps the name of each input to its SHA-256. `privacy` is what a differentially private source promises.
    """

    source: str
    command: str
    parents: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    synthetic_share: float = 0.0
    seed: int | None = None
    licence: str | None = None
    privacy: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.generation < 0:
            raise InvalidArgument("generation", self.generation, "0 for real data or the number of models in between")
        if not 0 <= self.synthetic_share <= 1:
            raise InvalidArgument("synthetic_share", self.synthetic_share, "a share between 0 and 1")

    def as_json(self) -> dict[str, Any]:
        """As plain data; a promise of privacy stands there only where one is made."""
        found = asdict(self)
        if self.privacy is None:
            del found["privacy"]
        return found


def sidecar_path(path: Path) -> Path:
    """The sidecar's path: the file's own name with `.provenance.json` appended."""
    path = Path(path)
    return path.with_name(path.name + ".provenance.json")


def write_described(path: Path, content: str | bytes | Iterable[str], provenance: Provenance) -> Path:
    """Write a file and its sidecar; the file first, so that a sidecar never describes something that is not there."""
    path = atomic_write(path, content)
    described = {"file": path.name, "sha256": sha256_file(path), "synthbook": synthbook.__version__}
    atomic_write(sidecar_path(path), json.dumps(described | provenance.as_json(), indent=1, sort_keys=True) + "\n")
    return path


def read_provenance(path: Path) -> Provenance:
    """Read a file's sidecar and check that the file is still the one it describes.

    Raises `DataError` when the sidecar is missing or unreadable, or when the file's bytes have changed since.
    """
    path, sidecar = Path(path), sidecar_path(path)
    try:
        described = json.loads(sidecar.read_text())
        expected = described.pop("sha256")
        described.pop("file"), described.pop("synthbook")
        provenance = Provenance(**described)
    except FileNotFoundError:
        raise DataError(f"{path} has no sidecar {sidecar.name}: nothing is known of its origin") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{sidecar} is not a sidecar of this package ({error}): write the file again") from None
    try:
        found = sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}, which {sidecar.name} describes, cannot be read: {error}") from None
    if found != expected:
        raise DataError(f"{path} changed after it was described: its SHA-256 is {found}, the sidecar says {expected}")
    return provenance
