"""Training of neural generators, and the base class of those of images and points.

    model = Diffusion().fit(images, seed=0)
    model.sample(64, seed=1)

Images are `Images` (N, C, H, W) in [-1, 1] with labels, which a model learns too, so that the classes to draw can be
chosen. Points are arrays (N, d); they are shifted and scaled to mean 0 and a common variance of 1 while a model works.
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from synthbook.core.checkpoints import CheckpointConfig, TrainState, restore_train_state, save_train_state
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.plots import save_image_grid, to_uint8
from synthbook.core.storage import Provenance, sha256, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Callback, Images, Seed, child_seed
from synthbook.generators.base import Generator, Progress, Tensors, check_positive_int
from synthbook.generators.nets import init_weights

# ── One loop that trains them all, and that can be stopped at any step and go on as if nothing had happened ──
# What is random at step k is drawn from the seed and k alone. So a checkpoint needs the weights, the optimizers' memory
# and the number of the step, and a run that was killed and resumed ends with the same bits as one that was not.


EvalCallback = Callable[[int], None]
_HISTORY_ROWS = 100  # of the history


class TrainingDiverged(SynthbookError):
    """A loss became infinite or NaN; earlier checkpoints are kept."""


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
    run_config: Mapping[str, Any],
    checkpoint: CheckpointConfig | None = None,
    callback: Callback | None = None,
    on_eval: EvalCallback | None = None,
) -> list[dict[str, float]]:
    """Call `step(k, rng)` for k = 1, ..., steps; return at most 100 rows, each the means since the row before.

    `step` updates the parts and returns its losses by name. `callback(k, steps, losses)` is called after each step,
    `on_eval(k)` is called after about every tenth of the steps. `run_config` says what is trained, as plain JSON: a
    checkpoint of something else is refused. Raises `TrainingDiverged`, `DataError`, `InvalidArgument`.
    """
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise InvalidArgument("steps", steps, "a whole number of at least 1")
    run_config = {**run_config, "steps": int(steps), "seed": str(seed)}
    done, state = (0, {}) if checkpoint is None else restore_train_state(parts, checkpoint, run_config)
    history: list[dict[str, float]] = list(state.get("history", []))
    every, recent = max(steps // _HISTORY_ROWS, 1), []
    checkpoint_every = 0 if checkpoint is None else -(-checkpoint.every_n_steps // every) * every  # at the end of a row
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
        if checkpoint is not None and (k % checkpoint_every == 0 or k == steps):
            save_train_state(parts, checkpoint.folder, run_config, k, {"history": history})
        if on_eval is not None and k % max(steps // 10, 1) == 0:
            on_eval(k)
    return history


def step_rng(seed: Seed, k: int) -> torch.Generator:
    """The generator of step k: it depends on nothing but the seed and k."""
    return torch.Generator().manual_seed(int(child_seed(seed, k).generate_state(1, np.uint64)[0] >> 1))


def normal(
    shape: tuple[int, ...], rng: torch.Generator, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal numbers, drawn on the CPU, so that every device gets the same ones."""
    return torch.randn(shape, generator=rng, dtype=dtype).to(device)


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate; a group of parameters with "lr_scale" gets so many times as much."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def cosine_with_warmup(step: int, steps: int, *, warmup: float = 0.05) -> float:
    """The learning rate at a step, relative to its peak: up on a line over a share `warmup`, down along a cosine."""
    ramp = max(warmup * steps, 1)
    return min(step / ramp, 0.5 * (1 + math.cos(math.pi * max(step - ramp, 0) / max(steps - ramp, 1))))


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, *, max_norm: float = math.inf) -> None:
    """One step of the optimizer; a gradient longer than `max_norm` is scaled down to that length."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if max_norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
    optimizer.step()


@torch.no_grad()
def ema_update(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Update an exponential moving average of weights, in place: ema <- decay ema + (1 - decay) net."""
    for old, new in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():  # a norm counts its batches in whole numbers
            old.mul_(decay).add_(new, alpha=1 - decay)


class NeuralModel(Generator):
    """The common part of generators that are networks, whatever their data.

    After `fit` or `load`: `modules_`, the networks; after `fit` also `history_`, at most 100 rows of losses by name.
    """

    device = torch.device("cpu")

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Which optimizer changes which network: Adam for all together, unless a family says otherwise."""
        parameters = [p for module in self.modules_.values() for p in module.parameters()]
        return {"all": torch.optim.Adam(parameters, lr=self.config.learning_rate)}

    @abstractmethod
    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        """One step of training on batches that are drawn when asked for; the losses by name."""

    def _inference_modules(self) -> dict[str, nn.Module]:
        """The networks that sampling needs."""
        return self.modules_

    def _set_modules(self, modules: dict[str, nn.Module], rng: torch.Generator) -> None:
        self.modules_ = {name: init_weights(module, rng).to(self.device) for name, module in modules.items()}

    def _train(
        self,
        x: Tensor,
        labels: Tensor | None,
        data_sha256: str,
        *,
        seed: Seed,
        steps: int | None,
        checkpoint: CheckpointConfig | None,
        callback: Callback | None,
        on_eval: EvalCallback | None = None,
    ) -> None:
        """Train `modules_` on rows x (N, ...) and labels (N,); afterwards they are ready for sampling."""
        total = self.config.steps if steps is None else steps
        self.optimizers_ = self._optimizers()
        self.history_ = train(
            TrainState(self.modules_, self.optimizers_),
            lambda k, rng: self._step(Batches(x, labels, self.config.batch_size, rng), k, total, rng),
            steps=total,
            seed=seed,
            run_config={"model": self.family, "config": asdict(self.config), "data": data_sha256},
            checkpoint=checkpoint,
            callback=callback,
            on_eval=on_eval,
        )
        for module in self.modules_.values():
            module.eval()

    def _module_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        modules = self._inference_modules()
        return {f"{prefix}{n}/{k}": v for n, module in modules.items() for k, v in module.state_dict().items()}

    def _load_modules(self, modules: dict[str, nn.Module], tensors: Tensors, prefix: str = "") -> None:
        """Take networks as they were built, with the weights that `_module_tensors` gave."""
        self._set_modules(modules, step_rng(0, 0))
        for name, module in self._inference_modules().items():
            mine = f"{prefix}{name}/"
            module.load_state_dict({k.removeprefix(mine): v for k, v in tensors.items() if k.startswith(mine)})
            module.eval()


# ── Images and points ──


Data = Images | NDArray[np.float64] | Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a model stores of its data beside its weights: shape of a row, classes and their shares, mean and scale."""

    shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    class_probs: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()  # of points
    scale: float = 1.0

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DataSpec:
        """What `dataclasses.asdict` wrote."""
        known: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
        return cls(**known)

    @property
    def n_classes(self) -> int:
        """The number of classes; 0 for points."""
        return len(self.class_names)

    @property
    def is_image(self) -> bool:
        """Whether a row is an image (C, H, W)."""
        return len(self.shape) == 3

    def draw_labels(self, n: int, wanted: ArrayLike | Tensor | None, rng: np.random.Generator) -> Tensor | None:
        """The classes (n,) of the samples to draw: those wanted, or drawn with the shares of the training data."""
        if not self.n_classes:
            if wanted is not None:
                raise InvalidArgument(
                    "labels", wanted, "nothing: this model was fitted to points, which have no classes"
                )
            return None
        if wanted is None:
            return torch.from_numpy(rng.choice(self.n_classes, size=n, p=self.class_probs))
        labels = torch.as_tensor(wanted)
        good = labels.shape == (n,) and not labels.is_floating_point() and labels.dtype != torch.bool
        if not (good and bool(((labels >= 0) & (labels < self.n_classes)).all())):
            raise InvalidArgument("labels", wanted, f"{n} whole numbers from 0 to {self.n_classes - 1}")
        return labels.long()

    def inverse_transform(self, x: Tensor, labels: Tensor | None) -> Images | NDArray[np.float64]:
        """Samples (n, ...) on the scale of the data."""
        if labels is not None:
            return Images(x.clamp(-1, 1), labels, self.class_names)
        return np.asarray(self.scale * x.double().numpy() + np.array(self.mean))


def prepare_data(data: Data) -> tuple[Tensor, Tensor | None, DataSpec]:
    """Rows (N, ...) float32 on the model's scale, their labels (N,) or None, and the specification of the data.

    Raises `HoldoutError` for test data, `InvalidArgument` for a wrong shape, values out of range, or a class without an
    image.
    """
    refuse_holdout(data, "fitting a generator")
    if isinstance(data, Images):
        x = _checked_images(data.images)
        counts = _counts(data.labels, len(x), data.class_names)
        return x, data.labels.long(), DataSpec(tuple(x.shape[1:]), data.class_names, tuple((counts / len(x)).tolist()))
    points = np.asarray(data, dtype=np.float64)
    if points.ndim != 2 or min(points.shape) < 1:
        raise InvalidArgument(
            "data", f"array of shape {points.shape}", "points (N, d), or Images of shape (N, C, H, W)"
        )
    if not np.isfinite(points).all():
        raise InvalidArgument("data", "points with NaN or infinities", "finite numbers")
    mean = points.mean(0)
    scale = float(np.sqrt(((points - mean) ** 2).mean())) or 1.0  # one for all axes: directions keep their meaning
    x = torch.from_numpy((points - mean) / scale).float()
    return x, None, DataSpec(x.shape[1:], mean=tuple(mean.tolist()), scale=scale)


def _checked_images(images: Tensor) -> Tensor:
    """The images (N, C, H, W), float32 in [-1, 1], sides that are multiples of 4; raises `InvalidArgument`."""
    shape = tuple(images.shape)
    if len(shape) != 4 or min(shape) < 1:
        raise InvalidArgument("images", f"tensor of shape {shape}", "shape (N, C, H, W): use unsqueeze(1) on grey ones")
    if shape[2] != shape[3] or shape[2] % 4:
        raise InvalidArgument(
            "images", f"{shape[2]} x {shape[3]} pixels", "square ones, with a side that 4 divides: pad them"
        )
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -1 and high <= 1):  # also where either is NaN
        values = "NaN" if np.isnan(low + high) else f"values from {low:.4g} to {high:.4g}"
        raise InvalidArgument("images", f"tensor with {values}", "values in [-1, 1]: pixels / 127.5 - 1")
    return images.float()


def _counts(labels: Tensor, n: int, names: tuple[str, ...]) -> NDArray[np.int64]:
    codes = np.asarray(labels)
    if codes.shape != (n,) or not len(names) or codes.min() < 0 or codes.max() >= len(names):
        raise InvalidArgument(
            "labels", f"array of shape {codes.shape}", f"{n} whole numbers from 0 to {len(names) - 1}"
        )
    counts = np.bincount(codes, minlength=len(names))
    if missing := [name for name, count in zip(names, counts, strict=True) if count == 0]:
        raise InvalidArgument(
            "labels", f"no image of {', '.join(missing)}", "images of every class, or fewer class_names"
        )
    return counts


_SAMPLE_BATCH_SIZE = 500  # samples at a time


@dataclass(frozen=True)
class NeuralConfig:
    """Settings of all families: training steps, rows in a batch, Adam's learning rate."""

    steps: int = 2_000
    batch_size: int = 128
    learning_rate: float = 1e-3


class NeuralGenerator(NeuralModel):
    """The common part of networks that generate images or points.

    After `fit` or `load`: `data_spec_`, what is known of the data, beside the attributes of `NeuralModel`. `device` is
    "cpu", "cuda" or "mps"; by default the fastest there is.
    """

    config_class: ClassVar[type[NeuralConfig]]
    data_kind, suffix = "images", ".npz"

    def __init__(self, *, device: str | None = None, **settings: Any):
        super().__init__(**settings)
        fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        self.device = torch.device(device or fastest)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes of images; none for points."""
        self._check_fitted()
        return self.data_spec_.class_names

    @abstractmethod
    def _build(self, spec: DataSpec) -> dict[str, nn.Module]:
        """The networks for this data."""

    @abstractmethod
    def _draw(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        """Samples (n, ...) on the model's own scale."""

    def fit(
        self,
        data: Data,
        *,
        seed: Seed,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
        on_eval: EvalCallback | None = None,
    ) -> Self:
        """Learn from images or points; `steps` overrides the configuration's.

        The same seed, machine and number of threads give the same weights, also where `checkpoint` resumes a killed
        run. Raises `HoldoutError`, `InvalidArgument`, `TrainingDiverged`, `DataError`.
        """
        x, labels, spec = prepare_data(data)
        if len(x) < self.config.batch_size:
            raise InvalidArgument("data", f"{len(x)} rows", f"at least {self.config.batch_size}, one batch")
        self.data_spec_ = spec
        self._set_modules(self._build(spec), step_rng(seed, 0))
        data_sha256 = sha256(x.cpu().numpy().tobytes())
        self._describe_fit(seed, steps, data_sha256)
        x, labels = x.to(self.device), None if labels is None else labels.to(self.device)
        training: dict[str, Any] = {"checkpoint": checkpoint, "callback": callback, "on_eval": on_eval}
        self._train(x, labels, data_sha256, seed=seed, steps=steps, **training)
        return self

    def sample(self, n: int, *, seed: Seed, labels: ArrayLike | Tensor | None = None) -> Any:
        """`n` samples: `Images` after images, an array (n, d) after points.

        `labels` (n,) are the classes wanted; without them they are drawn with the training data's shares.
        """
        self._check_fitted()
        check_positive_int("n", n)
        wanted = self.data_spec_.draw_labels(n, labels, np.random.default_rng(seed))
        parts = []
        with torch.no_grad(), _eval_mode(self.modules_):
            for k, first in enumerate(range(0, n, _SAMPLE_BATCH_SIZE)):
                some = None if wanted is None else wanted[first : first + _SAMPLE_BATCH_SIZE].to(self.device)
                parts.append(self._draw(min(_SAMPLE_BATCH_SIZE, n - first), some, step_rng(seed, k + 1)).cpu())
        return self.data_spec_.inverse_transform(torch.cat(parts), wanted)

    def _serialize(self) -> tuple[Tensors, dict[str, Any]]:
        return self._module_tensors(), {"data_spec": asdict(self.data_spec_)}

    def _restore(self, tensors: Tensors, card: Mapping[str, Any], source: Path) -> None:
        self.data_spec_ = DataSpec.from_dict(card["data_spec"])
        self._load_modules(self._build(self.data_spec_), tensors)

    def _write(
        self, path: Path, n: int, provenance: Provenance, callback: Progress, *, seed: Seed, **options: Any
    ) -> Path:
        samples = self.sample(n, seed=seed, **options)
        arrays = {"points": samples}
        if isinstance(samples, Images):
            arrays = {"images": to_uint8(samples.images), "labels": samples.labels.numpy()}
            save_image_grid(samples.images[:100], path.with_suffix(".png"), provenance)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        callback(n, n)
        return write_with_provenance(path, buffer.getvalue(), provenance)

    def _data_summary(self) -> str:
        shape = " x ".join(map(str, self.data_spec_.shape))
        if not self.data_spec_.is_image:
            return f"points with {shape} coordinates"
        return f"images of {shape} in {self.data_spec_.n_classes} classes"


@contextmanager
def _eval_mode(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Networks in evaluation mode; restores the previous mode on exit."""
    before = {name: module.training for name, module in modules.items()}
    for module in modules.values():
        module.eval()
    try:
        yield
    finally:
        for name, module in modules.items():
            module.train(before[name])
