"""Generators by name: our own, those of installed packages, and those of one's own file; and models from disk.

    available()                      # name, kind of data, private or not
    get("ctgan")                     # the class; also get("rows.py:Rows") for one's own file
    load("model/"), load("fashion-ddpm")

Our own are listed as paths and imported when they are asked for. A package adds its own under the entry-point group
`synthbook.generators`, by a name and "module:Class".
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError, format_error
from synthbook.datasets import data_folder
from synthbook.generators.base import Generator

_GROUP = "synthbook.generators"
PRETRAINED_DIR = "artifacts/models"


@dataclass(frozen=True)
class GeneratorInfo:
    """A generator's short name, its `family` in checkpoints, where its class is, what it generates; private or not."""

    name: str
    family: str
    path: str  # "module:Class"
    data_kind: str  # "table", "images" or "text"
    private: bool = False


def _tables(module: str, **classes: str) -> list[GeneratorInfo]:
    path = f"synthbook.generators.tabular.{module}"
    return [GeneratorInfo(name, f"table-{name}", f"{path}:{cls}", "table") for name, cls in classes.items()]


def _private(module: str, data_kind: str, classes: dict[str, str]) -> list[GeneratorInfo]:
    path = f"synthbook.privacy.generators.{module}"
    return [GeneratorInfo(name, name, f"{path}:{cls}", data_kind, True) for name, cls in classes.items()]


OWN: tuple[GeneratorInfo, ...] = (
    *_tables("copula", marginals="Marginals", copula="Copula", bootstrap="SmoothedBootstrap"),
    *_tables("trees", cart="CART", boosted="BoostedTrees"),
    *_tables("tvae", tvae="TVAE"),
    *_tables("ctgan", ctgan="CTGAN"),
    GeneratorInfo("tabddpm", "table-diffusion", "synthbook.generators.tabular.diffusion:TabDDPM", "table"),
    *_private("mst", "table", {"private-margins": "IndependentMarginals", "mst": "Mst"}),
    *_private("dp_tvae", "table", {"dp-tvae": "DpTvae"}),
    GeneratorInfo("vae", "vae", "synthbook.generators.vae:VAE", "images"),
    GeneratorInfo("gan", "gan", "synthbook.generators.gan:GAN", "images"),
    GeneratorInfo("ddpm", "diffusion", "synthbook.generators.diffusion:Diffusion", "images"),
    *_private("dp_vae", "images", {"dp-vae": "DpVae"}),
    GeneratorInfo("ngram", "text-ngram", "synthbook.generators.text.ngram:NGram", "text"),
    GeneratorInfo("transformer", "text-transformer", "synthbook.generators.text.transformer:Transformer", "text"),
)


def available(data_kind: str | None = None, *, private: bool | None = None) -> list[GeneratorInfo]:
    """All generators, or those of one kind of data, private or not; those of other packages last."""
    rows = [*OWN, *_installed()]
    return [
        row
        for row in rows
        if (data_kind is None or row.data_kind == data_kind) and (private is None or row.private == private)
    ]


def get(name: str) -> type[Generator]:
    """The class of a generator: by short name, by family, or as "FILE.py:CLASS".

    Raises `InvalidArgument` for a name that is unknown, `SynthbookError` for a file that cannot be imported.
    """
    for row in OWN:
        if name == row.name:
            return _imported(row.path)
    file, _, class_name = name.rpartition(":")
    if file.endswith(".py"):
        return _checked(name, getattr(_module_of(Path(file)), class_name, None))
    for row in available():
        if name in (row.name, row.family):
            return _imported(row.path)
    names = ", ".join(row.name for row in available())
    raise InvalidArgument("generator", name, f"one of {names}, or FILE.py:CLASS for your own")


def load(model: str | Path, *, generator: str | None = None, **settings: Any) -> Generator:
    """The model in a folder with `model.json`, else the pretrained one of that name, whatever kind it is.

    `generator` names the class of a model that neither this package nor an installed one knows, as "FILE.py:CLASS";
    `settings`, such as `device`, go to the constructor. Raises `InvalidArgument` for what is neither folder nor name,
    `DataError` for a checkpoint that is damaged or holds no generator.
    """
    return read_class(model, generator=generator).load(resolve_model(model), **settings)


def read_class(model: str | Path, *, generator: str | None = None) -> type[Generator]:
    """The class of the model that `load` would load; raises as `load` does."""
    folder = resolve_model(model)
    if generator is not None:
        return get(generator)
    family = checkpoints.read_model_type(folder)
    for row in available():
        if row.family == family:
            return _imported(row.path)
    raise DataError(
        f"{folder} holds a {family!r}, which is no generator that is installed: if its class is your own, name it as"
        " FILE.py:CLASS"
    )


def resolve_model(model: str | Path) -> Path:
    """The folder of a model, or of the pretrained one of that name. Raises `InvalidArgument` for what is neither."""
    folder, pretrained = Path(model), data_folder() / PRETRAINED_DIR
    if (folder / checkpoints.CONFIG_NAME).exists():
        return folder
    names = sorted(path.parent.name for path in pretrained.glob(f"*/{checkpoints.CONFIG_NAME}"))
    if str(model) not in names:
        raise InvalidArgument(
            "model", str(model), f"a folder with {checkpoints.CONFIG_NAME}, or one of {', '.join(names)}"
        )
    return pretrained / model


def _installed() -> list[GeneratorInfo]:
    """What other packages registered. One that cannot be imported is named in the error."""
    rows = []
    for point in metadata.entry_points(group=_GROUP):
        cls = _imported(point.value)
        rows.append(GeneratorInfo(point.name, cls.family, point.value, cls.data_kind, cls.private))
    return rows


def _imported(path: str) -> type[Generator]:
    module, _, name = path.partition(":")
    try:
        return _checked(path, getattr(import_module(module), name, None))
    except ImportError as error:
        raise SynthbookError(f"the generator {path} cannot be imported: {error}") from error


def _module_of(path: Path) -> Any:
    """The module in a file, executed anew; it has a name of its own, so that its dataclasses and pickles work."""
    if not path.is_file():
        raise InvalidArgument("generator", str(path), "the path of a Python file that exists")
    name = f"synthbook_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SynthbookError(f"{path} cannot be imported: {format_error(error)}") from error
    return module


def _checked(name: str, candidate: object) -> type[Generator]:
    if not (inspect.isclass(candidate) and issubclass(candidate, Generator)):
        raise InvalidArgument("generator", name, "a class that derives from synthbook.generators.base.Generator")
    if missing := sorted(getattr(candidate, "__abstractmethods__", ())):
        raise InvalidArgument("generator", name, f"a class that defines {', '.join(missing)} too")
    if not hasattr(candidate, "family"):
        raise InvalidArgument("generator", name, 'a class with family = "...", its name in checkpoints')
    return candidate
