"""The two networks that find a cube, how they are trained, and how they are kept: a look at all, then a closer one."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.files import sha256_file
from synthbook.core.lock import locked
from synthbook.core.manifest import data_folder
from synthbook.core.progress import put
from synthbook.core.provenance import Provenance, write_described
from synthbook.core.resume import Keep
from synthbook.core.shards import MANIFEST
from synthbook.simulation.corner_net import CornerNet
from synthbook.simulation.localize import (
    Batch,
    Renders,
    counted_from_nearest,
    find_corners,
    has_bfloat16,
    read_renders,
    train_corner_net,
)
from synthbook.simulation.refine import crops, refined

Array = NDArray[np.float64]
MODEL, SHIPPED, LOG, STATE = "cube-localizer", "artifacts/localizer", "log.json", "state"
NARROW = "artifacts/localizer-narrow"  # the same networks, trained in the narrow simulator
WIDE, HIGH = 320, 240  # pixels of the pictures it is trained on; the first look sees half as many each way


@dataclass(frozen=True)
class Recipe:
    """How both networks are trained: passes over the pictures, channels, peak learning rate."""

    epochs: int = 16
    coarse_width: int = 24
    fine_width: int = 24
    learning_rate: float = 4e-3


@dataclass(frozen=True, eq=False)
class Localizer:
    """`coarse` looks at the whole picture at half its size, `fine` at the cube cut out."""

    coarse: CornerNet
    fine: CornerNet

    def __call__(self, images: NDArray[np.uint8]) -> Array:
        """Corners (N, 8, 2) px in grey pictures (N, H, W), about 320 x 240 each."""
        half = halved(torch.tensor(images, dtype=torch.float32)[:, None]).numpy()[:, 0]
        first = find_corners(self.coarse, half)
        return refined(self.fine, images, (first + 0.5) * 2 - 0.5)

    def save(self, folder: Path, recipe: Recipe, origin: Provenance) -> Path:
        """Write both as one checkpoint."""
        tensors = {
            f"{name}.{key}": value
            for name in ("coarse", "fine")
            for key, value in getattr(self, name).state_dict().items()
        }
        return checkpoints.save(folder, tensors, asdict(recipe), model=MODEL, provenance=origin)

    @classmethod
    def load(cls, folder: Path) -> Localizer:
        """Read what `save` wrote. Raises `DataError`."""
        tensors, config = checkpoints.load(folder, model=MODEL)
        nets = {"coarse": CornerNet(config["coarse_width"], 4), "fine": CornerNet(config["fine_width"], 2)}
        for name, net in nets.items():
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
            net.requires_grad_(False).eval()
        return cls(**nets)


def shipped(folder: str = SHIPPED) -> Localizer:
    """A shipped localizer; `DataError` with the way to restore it where it is missing or altered."""
    try:
        return Localizer.load(data_folder() / folder)
    except DataError as error:
        raise DataError(f"{error}\nThe shipped localizer: git checkout -- data/{folder}") from None


def halved(x: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 1, H, W) at half the size, each pixel the mean of four."""
    return F.avg_pool2d(x, 2)


def half_pictures(renders: Renders) -> Batch:
    """Views that are the pictures at half the size."""
    images, corners = torch.from_numpy(renders.images), counted_from_nearest(renders)
    # pixel u lies at (u + 0.5) / 2 - 0.5 of the smaller one
    return lambda rows, _: (halved(images[rows].float()[:, None]), (corners[rows] + 0.5) / 2 - 0.5)


def resized(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """A grey picture (H, W) as large as the networks know them, and the factor: pixel u lies at (u + 0.5) f - 0.5."""
    high, wide = image.shape
    factor = min(WIDE / wide, HIGH / high)
    size = tuple(max(2 * round(side * factor / 2), 32) for side in (wide, high))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), factor


def make(renders: Path, out: Path, *, seed: int, recipe: Recipe, jobs: int = 2, resume: bool = False) -> dict[str, Any]:
    """Train both networks on a finished run of `synthbook render`, write checkpoint and log, and return the log.

    They do not depend on each other and are trained side by side, one thread each. After every epoch `out/state` keeps
    what they need to go on; it is removed once both are done.
    """
    if (out / checkpoints.CARD).exists():
        raise InvalidArgument("out", str(out), "a folder without a checkpoint: nothing is overwritten")
    pictures = read_renders(renders, 1)  # before any work: is it a run, of the right size?
    if pictures.images.shape[1:] != (HIGH, WIDE):
        raise InvalidArgument(
            "renders", f"{pictures.images.shape[2]} x {pictures.images.shape[1]}", f"pictures of {WIDE} x {HIGH}"
        )
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", f"{out} is being written"):
        began = time.perf_counter()
        parts = Parallel(n_jobs=min(jobs, 2))(
            delayed(_train)(name, renders, seed, recipe, Keep(out / STATE / name, 1, resume))
            for name in ("coarse", "fine")
        )
        nets = {name: net for name, net, _, _ in parts}
        command = f"synthbook train localizer --renders {renders.name} --epochs {recipe.epochs} --seed {seed}"
        parents = {f"{renders.name}/{MANIFEST}": sha256_file(renders / MANIFEST)}
        origin = Provenance("rendered scenes", command, parents, generation=2, synthetic_share=1.0, seed=seed)
        Localizer(**nets).save(out, recipe, origin)
        log = {
            "command": command,
            "renders": json.loads((renders / MANIFEST).read_text())["plan"],
            "pictures": parts[0][3],
            "seed": seed,
            "recipe": asdict(recipe),
            "losses": {name: losses for name, _, losses, _ in parts},
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
            "sha256": sha256_file(out / checkpoints.TENSORS),
        }
        write_described(out / LOG, json.dumps(log, indent=1) + "\n", origin)
        shutil.rmtree(out / STATE)
    return log


def _train(name: str, folder: Path, seed: int, recipe: Recipe, keep: Keep) -> tuple[str, CornerNet, list[float], int]:
    torch.set_num_threads(1)
    renders, losses = read_renders(folder), []  # type: ignore[var-annotated]
    coarse = name == "coarse"

    def told(so_far: list[float], _: CornerNet) -> None:
        losses[:] = [round(loss, 4) for loss in so_far]
        put(f"{name}: epoch {len(losses)} of {recipe.epochs}, loss {losses[-1]:.3f}", stderr=True)

    net = train_corner_net(
        renders,
        half_pictures(renders) if coarse else crops(renders),
        seed=seed,
        epochs=recipe.epochs,
        width=recipe.coarse_width if coarse else recipe.fine_width,
        stride=4 if coarse else 2,
        learning_rate=recipe.learning_rate,
        bfloat16=has_bfloat16(),
        after_epoch=told,
        keep=keep,
    )
    return name, net, losses, len(renders)
