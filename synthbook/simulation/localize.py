"""Learn from rendered pictures where a cube is, and find it in any picture: corners, pose, errors in centimetres."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from synthbook.core.errors import InvalidArgument
from synthbook.core.resume import Keep, Parts, begin, write
from synthbook.core.schema import refuse_holdout
from synthbook.simulation.corner_net import MIRROR, TURNS, CornerNet, corner_loss, from_nearest, soft_argmax
from synthbook.simulation.pnp import Pose, solve_pnp
from synthbook.simulation.randomize import CUBE
from synthbook.simulation.scene import SceneParams
from synthbook.simulation.shapes import CORNERS
from synthbook.simulation.writers import read_rows

Array = NDArray[np.float64]
LEAST = 60  # pixels: with less of it in sight nobody could find the cube
BATCH = 64
MEMORY = 0.998  # of the averaged weights, per step
SETTLING = 0.1  # share of the steps in which corners are counted from the nearest; then any quarter turn will do


@dataclass(frozen=True, eq=False)
class Renders:
    """Pictures (N, H, W) uint8 with the cube's corners in pixels (N, 8, 2) and in the camera's frame (N, 8, 3) m."""

    images: NDArray[np.uint8]
    corners: Array
    points: Array
    K: Array  # (N, 3, 3)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice | NDArray[np.int64]) -> Renders:
        """Some of them."""
        return Renders(self.images[rows], self.corners[rows], self.points[rows], self.K[rows])


def read_renders(folder: Path, n: int | None = None) -> Renders:
    """The pictures of a finished run in which the cube stands upright and enough of it is seen; at most `n`."""
    images, corners, points, lenses = [], [], [], []
    for row in read_rows(folder):
        params = SceneParams.from_json(row["theta"])
        target = next(found for found in json.loads(row["labels"]) if found["category"] == "target")
        if params.situation == "tilted" or target["area"] < LEAST or not all(target["corners"]):
            continue
        with Image.open(io.BytesIO(row["image"])) as picture:
            images.append(np.asarray(picture.convert("L")))
        corners.append(target["corners"])
        points.append(params.camera.see(params.bodies[1].place(CORNERS)))
        lenses.append(params.camera.K)
        if len(images) == n:
            break
    if not images:
        raise InvalidArgument("folder", str(folder), "a run with pictures in which the cube is seen")
    return Renders(np.stack(images), np.array(corners), np.array(points), np.array(lenses))


Batch = Callable[[NDArray[np.int64], np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


def train_corner_net(
    renders: Renders,
    batch: Batch,
    *,
    seed: int,
    epochs: int,
    width: int = 24,
    stride: int = 4,
    learning_rate: float = 3e-3,
    bfloat16: bool = False,
    observe: Callable[[int, int, float], None] | None = None,
    after_epoch: Callable[[list[float], CornerNet], None] | None = None,
    keep: Keep | None = None,
) -> CornerNet:
    """A net trained on these pictures, with averaged weights; budgets are epochs, never seconds.

    `batch(rows, rng)` makes views (N, 1, H, W) of the pictures and their corners (N, 8, 2): see `whole_pictures` and
    `refine.crops`. AdamW, learning rate up over a tenth of the steps and down along a cosine, mirrored views half of
    the time. `observe(step, steps, loss)` after every step; `after_epoch(losses, averaged net)` after every epoch, with
    the mean loss of each so far, and on resuming. With `keep` a run that was killed goes on after its last whole
    multiple of `keep.every` epochs. `bfloat16` pays for wide nets where the CPU has it. The same seed, threads and
    machine give the same weights, resumed or not. Raises `HoldoutError`: nothing is trained on photographs.
    """
    refuse_holdout(renders, "training the localizer")
    if len(renders) < BATCH:
        raise InvalidArgument("renders", f"{len(renders)} pictures", f"at least {BATCH}, one batch")
    if epochs < 1:
        raise InvalidArgument("epochs", epochs, "a whole number of at least 1")
    rng = np.random.default_rng(seed)
    net = _initialised(CornerNet(width, stride), torch.Generator().manual_seed(int(rng.integers(2**62))))
    averaged = CornerNet(width, stride)
    averaged.load_state_dict(net.state_dict())
    per_epoch = len(renders) // BATCH
    steps = epochs * per_epoch
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, max(steps, 20), pct_start=0.1)
    parts, losses, recent = Parts({"net": net, "averaged": averaged}, {"net": optimiser}), [], []
    settings = {"width": width, "stride": stride, "learning_rate": learning_rate, "bfloat16": bfloat16}
    pictures = {"pictures": len(renders), "crc32": zlib.crc32(np.ascontiguousarray(renders.images).data)}
    described = {"model": "a corner net", "seed": seed, "epochs": epochs} | settings | pictures
    done, kept = (0, {}) if keep is None else begin(parts, keep, described)
    if done:
        losses, rng.bit_generator.state = kept["losses"], kept["rng"]
        schedule.load_state_dict(kept["schedule"])
        if after_epoch is not None:
            after_epoch(losses, averaged)
    for step in range(done, steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(renders))
        x, y = _mirrored(*batch(order[step % per_epoch * BATCH :][:BATCH], rng), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            maps = net(x.contiguous(memory_format=torch.channels_last))
        loss = corner_loss(maps, y, stride, turns=step > SETTLING * steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _average(averaged, net, min(MEMORY, (1 + step) / (10 + step)))
        recent.append(float(loss.detach()))
        if observe is not None:
            observe(step + 1, steps, recent[-1])
        if (step + 1) % per_epoch == 0:
            losses, recent = [*losses, float(np.mean(recent))], []
            if after_epoch is not None:
                after_epoch(losses, averaged)
            if keep is not None and len(losses) % keep.every == 0:
                more = {"losses": losses, "rng": rng.bit_generator.state, "schedule": schedule.state_dict()}
                write(parts, keep.folder, described, step + 1, more)
    return averaged.eval()


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16, which doubles the speed; where it is emulated, it is far slower."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def whole_pictures(renders: Renders) -> Batch:
    """Views that are the pictures as they are, corners counted from the nearest."""
    images = torch.from_numpy(renders.images)
    corners = counted_from_nearest(renders)
    return lambda rows, _: (images[rows].float()[:, None], corners[rows])


def counted_from_nearest(renders: Renders) -> torch.Tensor:
    """The corners (N, 8, 2) of all pictures, turned so that the first is the lower one nearest to the camera."""
    return from_nearest(torch.from_numpy(renders.corners).float(), torch.from_numpy(renders.points[..., 2]))


def _initialised(net: CornerNet, rng: torch.Generator) -> CornerNet:
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):  # He: variance 2 / fan-in
            torch.nn.init.normal_(module.weight, std=float(np.sqrt(2 / module.weight[0].numel())), generator=rng)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    torch.nn.init.normal_(net.maps.weight, std=0.01, generator=rng)
    return net.to(memory_format=torch.channels_last)


def _mirrored(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the pictures (N, 1, H, W) and their corners (N, 8, 2), seen in a mirror."""
    flip = torch.from_numpy(rng.random(len(x)) < 0.5)
    other = y[:, MIRROR].clone()
    other[..., 0] = x.shape[-1] - 1 - other[..., 0]
    return torch.where(flip[:, None, None, None], x.flip(-1), x), torch.where(flip[:, None, None], other, y)


@torch.no_grad()
def _average(averaged: CornerNet, net: CornerNet, keep: float) -> None:
    for old, new in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.mul_(keep).add_(new, alpha=1 - keep)
        else:
            old.copy_(new)


@torch.no_grad()
def find_corners(net: CornerNet, images: NDArray[np.uint8]) -> Array:
    """The corners (N, 8, 2) px that the net sees in grey pictures (N, H, W)."""
    net.eval()
    batches = torch.split(torch.tensor(images, dtype=torch.float32)[:, None], BATCH)
    return np.concatenate([soft_argmax(net(x), net.stride).double().numpy() for x in batches])


def poses(corners: ArrayLike, K: ArrayLike, *, side: float = CUBE) -> list[Pose]:
    """The cube's pose for each set of corners (N, 8, 2) px; K (3, 3), or (N, 3, 3)."""
    found = np.asarray(corners, dtype=float)
    lenses = np.broadcast_to(np.asarray(K, dtype=float), (len(found), 3, 3))
    return [solve_pnp(CORNERS * side, pixels, lens) for pixels, lens in zip(found, lenses, strict=True)]


@dataclass(frozen=True, eq=False)
class Errors:
    """Distances between the cube that was found and the true one: centres (N,) cm, mean over corners (N,) cm and px.

    Corners are compared after the best of the four quarter turns about the vertical.
    """

    centre: Array
    corner: Array
    pixel: Array


def errors(corners: Array, pixels: Array, points: Array, K: ArrayLike, *, side: float = CUBE) -> Errors:
    """How wrong are corners (N, 8, 2) px, given the true pixels and the points (N, 8, 3) m in the camera's frame?"""
    found = np.array([pose(CORNERS * side) for pose in poses(corners, K, side=side)])  # (N, 8, 3)
    centre = np.linalg.norm(found.mean(1) - points.mean(1), axis=-1)
    return Errors(100 * centre, 100 * corner_distance(found, points), corner_distance(corners, pixels))


def corner_distance(found: Array, true: Array) -> Array:
    """Mean distance (N,) of eight corners (N, 8, 2 or 3) from the true ones, after the best quarter turn."""
    return np.asarray(np.linalg.norm(found[:, None] - true[:, TURNS.numpy()], axis=-1).mean(-1).min(-1))
