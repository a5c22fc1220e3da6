"""Models by name: a folder with a checkpoint, or one that comes with the book."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.datasets import data_folder
from synthbook.generators import pretrained
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.neural import Generator
from synthbook.generators.pretrained import Recipe, TextModel
from synthbook.generators.tabular.families import is_table_model
from synthbook.generators.text.ngram import NGram
from synthbook.generators.text.transformer import Transformer
from synthbook.generators.vae import VAE

T = TypeVar("T")

FAMILIES: Mapping[str, type[Generator]] = {family.family: family for family in (VAE, GAN, Diffusion)}
TEXT_FAMILIES: Mapping[str, type[TextModel]] = {family.family: family for family in (NGram, Transformer)}
RECIPES: Mapping[str, Recipe] = {**pretrained.RECIPES, **pretrained.TEXT_RECIPES}
SHIPPED = "artifacts/models"


def load(model: str | Path, *, device: str | None = None) -> Generator:
    """The model of images or points in a folder with `model.json`, else the shipped one of that name.

    Raises `InvalidArgument` for what is neither, `DataError` for a checkpoint that is damaged or of another kind.
    """
    folder = folder_of(model)
    return _family(folder, FAMILIES, "pictures").load(folder, device=device)


def load_text(model: str | Path) -> TextModel:
    """The model of text in a folder with `model.json`, else the shipped one of that name; raises as `load` does."""
    folder = folder_of(model)
    return _family(folder, TEXT_FAMILIES, "text").load(folder)


def draws(folder: Path) -> str:
    """What the model in a folder draws: rows, images or characters. Raises `DataError` where it draws nothing."""
    kind = checkpoints.read_model_type(folder)
    if is_table_model(folder):
        return "rows"
    if kind in TEXT_FAMILIES:
        return "characters"
    _family(folder, FAMILIES, "samples")
    return "images"


def folder_of(model: str | Path) -> Path:
    """The folder of a model, or of the shipped one of that name. Raises `InvalidArgument` for what is neither."""
    folder, shipped = Path(model), data_folder() / SHIPPED
    if (folder / checkpoints.CONFIG_NAME).exists():
        return folder
    names = sorted(path.parent.name for path in shipped.glob(f"*/{checkpoints.CONFIG_NAME}"))
    if str(model) not in names:
        raise InvalidArgument(
            "model", str(model), f"a folder with {checkpoints.CONFIG_NAME}, or one of {', '.join(names)}"
        )
    return shipped / model


def _family(folder: Path, families: Mapping[str, type[T]], what: str) -> type[T]:
    kind = checkpoints.read_model_type(folder)
    if kind not in families:
        raise DataError(f"{folder} holds a {kind!r}, which draws no {what}: name a model of {', '.join(families)}")
    return families[kind]
