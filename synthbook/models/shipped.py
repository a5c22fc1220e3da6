"""Models by name: a folder with a checkpoint, or one that comes with the book."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.manifest import data_folder
from synthbook.models.diffusion import Diffusion
from synthbook.models.gan import GAN
from synthbook.models.protocol import Generator
from synthbook.models.vae import VAE

FAMILIES: Mapping[str, type[Generator]] = {family.family: family for family in (VAE, GAN, Diffusion)}
SHIPPED = "artifacts/models"


def load(model: str | Path, *, device: str | None = None) -> Generator:
    """The model in a folder with `model.json`, else the shipped one of that name.

    Raises `InvalidArgument` for what is neither, `DataError` for a checkpoint that is damaged or of another kind.
    """
    folder, shipped = Path(model), data_folder() / SHIPPED
    if not (folder / checkpoints.CARD).exists():
        names = sorted(path.parent.name for path in shipped.glob(f"*/{checkpoints.CARD}"))
        if str(model) not in names:
            raise InvalidArgument(
                "model", str(model), f"a folder with {checkpoints.CARD}, or one of {', '.join(names)}"
            )
        folder = shipped / model
    kind = checkpoints.model_of(folder)
    if kind not in FAMILIES:
        raise DataError(f"{folder} holds a {kind!r}, which draws no samples: name a model of {', '.join(FAMILIES)}")
    return FAMILIES[kind].load(folder, device=device)
