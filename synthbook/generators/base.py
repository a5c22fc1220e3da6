"""The base class of all generators: of tables, images, points and text, private or not.

    model = Copula().fit(adult().train, seed=0)
    rows = model.sample(1_000, seed=1)
    model.write("rows.csv", 1_000, seed=1)
    model.save("model/")
    model = load("model/")                       # synthbook.generators.registry.load: whatever kind it is

A new generator derives from `TableGenerator`, `NeuralGenerator` or `TextGenerator`; `synthbook.testing.check_generator`
checks that it follows the protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from synthbook.core import checkpoints
from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import Provenance
from synthbook.core.types import Callback, Seed

VERSION = 2  # of what generators store in a checkpoint
Tensors = Mapping[str, Any]
Progress = Callable[[int, int], None]  # (done, n)


class NotFittedError(SynthbookError, ValueError):
    """A method that needs a fitted model was called before `fit` or `load`."""


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a generator without settings."""


class Generator(ABC):
    """A model that learns from data and draws synthetic data; settings are keyword arguments of the constructor.

    A subclass sets `family`, its name in checkpoints, and `config_class`, a frozen dataclass of its settings.
    Attributes that end with an underscore exist after `fit` or `load`; `provenance_` says where the model comes from.
    """

    family: ClassVar[str]
    data_kind: ClassVar[str]  # "table", "images" or "text"
    suffix: ClassVar[str]  # of files that `write` writes
    unit: ClassVar[str] = "rows"  # what `n` counts
    config_class: ClassVar[type[Any]] = NoConfig
    private: ClassVar[bool] = False  # whether fitting is differentially private
    provenance_: Provenance

    def __init__(self, **settings: Any):
        self.config: Any = _make_config(self.config_class, settings)

    @abstractmethod
    def fit(
        self,
        data: Any,
        *,
        seed: Seed,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
    ) -> Self:
        """Learn from data and return the model itself; the same seed, machine and number of threads give the same one.

        `steps` overrides the configuration's; `checkpoint` keeps the state of training, for resuming;
        `callback(step, steps, losses)` is called after each step. Raises `HoldoutError` for test data.
        """

    @abstractmethod
    def sample(self, n: int, *, seed: Seed) -> Any:
        """`n` synthetic samples. Raises `NotFittedError`, `InvalidArgument`."""

    @abstractmethod
    def _serialize(self) -> tuple[Tensors, dict[str, Any]]:
        """What sampling needs, as tensors and plain JSON."""

    @abstractmethod
    def _restore(self, tensors: Tensors, card: Mapping[str, Any], source: Path) -> None:
        """Take what `_serialize` returned; `source` is the file to name in errors."""

    @abstractmethod
    def _write(
        self, path: Path, n: int, provenance: Provenance, callback: Progress, *, seed: Seed, **options: Any
    ) -> Path:
        """Sample and write a file with its sidecar."""

    @abstractmethod
    def _data_summary(self) -> str:
        """What the model was fitted to, in a few words; of a private model only what is public."""

    def save(self, folder: str | Path, provenance: Provenance | None = None) -> Path:
        """Write `model.json` and `model.safetensors`; the same model gives the same bytes.

        Without `provenance`, the checkpoint states class, settings, seed of the fit, and, where the model is not
        private, the SHA-256 of the training data.
        """
        self._check_fitted()
        tensors, card = self._serialize()
        config = {"version": VERSION, "config": asdict(self.config)} | card
        described = self._attach_guarantee(provenance or self.provenance_)
        return checkpoints.save(Path(folder), tensors, config, model_type=self.family, provenance=described)

    @classmethod
    def load(cls, folder: str | Path, **settings: Any) -> Self:
        """Read what `save` wrote; `settings` go to the constructor. Raises `DataError` for anything else."""
        tensors, card = checkpoints.load(Path(folder), model_type=cls.family)
        provenance, path = checkpoints.read_model_provenance(Path(folder)), Path(folder) / checkpoints.CONFIG_NAME
        if (version := card.get("version", 1)) != VERSION:
            remedy = f"train the model again ({provenance.command})" if version < VERSION else "update synthbook"
            raise DataError(f"{path} has generator format {version}, this package reads {VERSION}: {remedy}")
        try:
            model = cls(**(_stored_settings(cls.config_class, card) | settings))
            model._restore(tensors, card, path)
        except KeyError as error:
            raise DataError(f"{path} and its tensors do not agree on {error}: train the model again") from error
        model.provenance_ = provenance
        return model

    def write(
        self,
        path: str | Path,
        n: int,
        *,
        seed: Seed,
        provenance: Provenance | None = None,
        callback: Progress = lambda done, n: None,
        **options: Any,
    ) -> Path:
        """Sample `n` and write them to a file with a provenance sidecar; `options` are those of `sample`.

        Tables become CSV in bounded memory, images NPZ with a contact sheet of the first hundred beside it, points NPZ,
        text UTF-8. `callback(done, n)` reports progress.
        """
        self._check_fitted()
        check_positive_int("n", n)
        if Path(path).suffix != self.suffix:
            raise InvalidArgument("path", str(path), f"a file name that ends in {self.suffix}")
        if provenance is None:
            arguments = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
            command = f"{type(self).__name__}.load(folder).write({Path(path).name!r}, {n}, seed={seed!r}{arguments})"
            source, parents = f"samples of {self._constructor()}", self.provenance_.parents
            provenance = Provenance(source, command, parents, self.provenance_.generation, 1.0, _plain(seed))
        return self._write(Path(path), n, self._attach_guarantee(provenance), callback, seed=seed, **options)

    def __repr__(self) -> str:
        fitted = f"fitted to {self._data_summary()}" if self._is_fitted() else "not fitted"
        return f"{self._constructor()}, {fitted}"

    def _repr_html_(self) -> str:
        """A model card."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._card_rows().items()
        )
        return f"<table><caption><b>{escape(type(self).__name__)}</b> ({escape(self.family)})</caption>{rows}</table>"

    def _card_rows(self) -> dict[str, str]:
        """What the model card shows, by name."""
        rows = {"generates": self.data_kind, "differentially private": "yes" if self.private else "no"}
        rows |= {"settings": ", ".join(f"{name}={value!r}" for name, value in asdict(self.config).items()) or "none"}
        if not self._is_fitted():
            return rows | {"state": "not fitted: call fit() or load()"}
        rows["fitted to"] = self._data_summary()
        if hasattr(self, "provenance_"):
            rows |= {"source": self.provenance_.source, "command": self.provenance_.command}
        return rows

    def _constructor(self) -> str:
        """The call that makes this model: its class, and the settings that differ from the defaults."""
        changed = []
        for field in fields(self.config):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if (value := getattr(self.config, field.name)) != default:
                changed.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(changed)})"

    def _is_fitted(self) -> bool:
        return any(name.endswith("_") for name in vars(self))

    def _check_fitted(self) -> None:
        if not self._is_fitted():
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit() or load()")

    def _describe_fit(self, seed: Seed | None, steps: int | None, data_sha256: str) -> None:
        """Set `provenance_`; every `fit` calls this once."""
        arguments = f"data, seed={_plain(seed)}" + (f", steps={steps}" if steps is not None else "")
        parents = {} if self.private else {"training data": data_sha256}
        command = f"{self._constructor()}.fit({arguments})"
        self.provenance_ = Provenance(f"a fit of {self.family}", command, parents, 1, 1.0, _plain(seed))

    def _attach_guarantee(self, provenance: Provenance) -> Provenance:
        """The provenance with the privacy guarantee of a private model."""
        return provenance


def _plain(seed: Seed | None) -> int | None:
    return int(seed) if isinstance(seed, int | np.integer) else None


def check_positive_int(name: str, value: object) -> int:
    """`value` as an integer of at least 1; raises `InvalidArgument` for anything else."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(name, value, "a whole number of at least 1")
    return int(value)


def _stored_settings(config_class: type[Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint. Raises `KeyError` for one that the class does not have by now."""
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(card["config"].keys() - known):
        raise KeyError(", ".join(unknown))
    return dict(card["config"])


def _make_config(config_class: type[Any], settings: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `config_class`. Raises `InvalidArgument` for names that it does not have."""
    known = [field.name for field in fields(config_class)]
    if unknown := sorted(set(settings) - set(known)):
        raise InvalidArgument("settings", unknown, f"some of {', '.join(known)}" if known else "no settings")
    required = [f.name for f in fields(config_class) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in settings]:
        raise InvalidArgument("settings", settings, f"{', '.join(missing)} too")
    return config_class(**settings)
