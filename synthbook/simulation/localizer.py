"""The two networks that find a cube, how they are trained, and how they are kept: a look at all, then a closer one."""

from __future__ import annotations

import io
import json
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core import checkpoints
from synthbook.core.checkpoints import CheckpointConfig, TrainState, restore_train_state, save_train_state
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.jobs import MANIFEST
from synthbook.core.progress import echo
from synthbook.core.storage import Provenance, file_lock, sha256_file, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Array
from synthbook.datasets import data_folder
from synthbook.simulation.export import read_rows
from synthbook.simulation.pose import Pose, solve_pnp
from synthbook.simulation.randomize import CUBE_SIZE
from synthbook.simulation.scene import CUBE_CORNERS, SceneParams

# ── A small network that points at the eight corners of a cube, and the loss that teaches it ──
# For each corner it draws a map of where the corner may be; the mean position under that map is its answer (soft-
# argmax), which is differentiable and finer than a pixel. Four turns about the vertical leave a cube of unknown texture
# the same, so an answer counts as right if it is right for one of them.


# corners of the cube after 0, 1, 2, 3 quarter turns; the first four lie below, the same four above
SYMMETRIES = torch.tensor([[(i + k) % 4 + 4 * (i // 4) for i in range(8)] for k in range(4)])
FLIP_INDEX = torch.tensor(
    [0, 3, 2, 1, 4, 7, 6, 5]
)  # what a mirror makes of corners that are counted the other way round
FINE = 0.2  # weight of the distance in pixels beside the map's log-likelihood


def _block(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class CornerNet(nn.Module):
    """Grey pictures (N, 1, H, W), any range, to eight maps with one cell for `stride` pixels (2 or 4) each way.

    `width` is the number of channels in the finest maps.
    """

    def __init__(self, width: int = 24, stride: int = 4):
        super().__init__()
        w, self.width, self.stride = width, width, stride
        self.near = nn.Sequential(_block(1, w // 2, stride // 2), _block(w // 2, w, 2), _block(w, w))
        self.far = nn.Sequential(_block(w, 2 * w, 2), _block(2 * w, 2 * w))
        self.farthest = nn.Sequential(_block(2 * w, 4 * w, 2), _block(4 * w, 4 * w), _block(4 * w, 4 * w))
        # on the way back what was seen from far is added to what was seen from near
        self.down_8, self.side_8, self.back_8 = (
            nn.Conv2d(4 * w, 2 * w, 1),
            nn.Conv2d(2 * w, 2 * w, 1),
            _block(2 * w, 2 * w),
        )
        self.down_4, self.side_4, self.back_4 = nn.Conv2d(2 * w, w, 1), nn.Conv2d(w, w, 1), _block(w, w)
        self.maps = nn.Conv2d(w, 8, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Log-probabilities (N, 8, H / stride, W / stride) of where each corner is."""
        mean, sd = pictures.mean((1, 2, 3), keepdim=True), pictures.std((1, 2, 3), keepdim=True)
        a = self.near((pictures - mean) / (sd + 1e-3))
        b = self.far(a)
        c = self.farthest(b)
        b = self.back_8(self.side_8(b) + F.interpolate(self.down_8(c), size=b.shape[2:]))
        a = self.back_4(self.side_4(a) + F.interpolate(self.down_4(b), size=a.shape[2:]))
        scores: Tensor = self.maps(a).float()  # (N, 8, h, w)
        return scores.flatten(2).log_softmax(-1).view(scores.shape)


def soft_argmax(log_maps: Tensor, stride: int) -> Tensor:
    """Mean position (N, 8, 2), in pixels of the picture, under maps of log-probabilities (N, 8, h, w)."""
    p = log_maps.exp()
    # cell k of a map has its centre at pixel stride k + (stride - 1) / 2
    y, x = (torch.arange(size) * stride + (stride - 1) / 2 for size in log_maps.shape[2:])
    return torch.stack([(p.sum(2) * x).sum(-1), (p.sum(3) * y).sum(-1)], dim=-1)


def corner_loss(log_maps: Tensor, corners: Tensor, stride: int, *, symmetric: bool = True) -> Tensor:
    """Mean loss for true corners (N, 8, 2) px: the best of the four quarter turns, or without `turns` the one given.

    Each turn's loss is the negative log-probability of its corners, read between the map's cells, and a little of the
    distance in pixels.
    """
    n, k, h, w = log_maps.shape
    truth = corners[:, SYMMETRIES if symmetric else SYMMETRIES[:1]]  # (N, T, 8, 2)
    # grid_sample wants -1 and 1 at the centres of the outermost cells
    size = torch.tensor([w - 1, h - 1]) * stride
    places = (2 * (truth - (stride - 1) / 2) / size - 1).transpose(1, 2).reshape(n * k, -1, 1, 2)
    read = F.grid_sample(log_maps.reshape(n * k, 1, h, w), places, align_corners=True, padding_mode="border")
    surprise = -read.view(n, k, -1).mean(1)  # (N, T)
    away = soft_argmax(log_maps, stride)[:, None].expand_as(truth)
    distance = F.smooth_l1_loss(away, truth, reduction="none").sum(-1).mean(-1)  # (N, T)
    best = surprise.argmin(1, keepdim=True)
    return (surprise + FINE * distance).gather(1, best).mean()


def canonicalize_corners(corners: Tensor, depth: Tensor) -> Tensor:
    """Corners (N, 8, 2) counted from the lower one that is nearest to the camera; `depth` (N, 8)."""
    first = depth[:, :4].argmin(1)
    order = SYMMETRIES[first]  # (N, 8)
    return corners.gather(1, order[..., None].expand_as(corners))


# ── Training ──


MIN_VISIBLE_PX = 60  # pixels: with less of it in sight nobody could find the cube
BATCH = 64
EMA_DECAY = 0.998  # of the averaged weights, per step
CANONICAL_FRACTION = (
    0.1  # share of the steps in which corners are counted from the nearest; then any quarter turn will do
)


@dataclass(frozen=True, eq=False)
class KeypointDataset:
    """Pictures (N, H, W) uint8 with the cube's corners in pixels (N, 8, 2) and in the camera's frame (N, 8, 3) m."""

    images: NDArray[np.uint8]
    corners: Array
    points: Array
    K: Array  # (N, 3, 3)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice | NDArray[np.int64]) -> KeypointDataset:
        """Some of them."""
        return KeypointDataset(self.images[rows], self.corners[rows], self.points[rows], self.K[rows])


def load_keypoint_dataset(folder: Path, n: int | None = None) -> KeypointDataset:
    """The pictures of a finished run in which the cube stands upright and enough of it is seen; at most `n`."""
    images, corners, points, lenses = [], [], [], []
    for row in read_rows(folder):
        params = SceneParams.from_dict(row["theta"])
        target = next(found for found in json.loads(row["labels"]) if found["category"] == "target")
        if params.situation == "tilted" or target["area"] < MIN_VISIBLE_PX or not all(target["corners"]):
            continue
        with Image.open(io.BytesIO(row["image"])) as picture:
            images.append(np.asarray(picture.convert("L")))
        corners.append(target["corners"])
        points.append(params.camera.to_camera(params.bodies[1].to_world(CUBE_CORNERS)))
        lenses.append(params.camera.K)
        if len(images) == n:
            break
    if not images:
        raise InvalidArgument("folder", str(folder), "a run with pictures in which the cube is seen")
    return KeypointDataset(np.stack(images), np.array(corners), np.array(points), np.array(lenses))


BatchFn = Callable[[NDArray[np.int64], np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


def train_corner_net(
    renders: KeypointDataset,
    batch: BatchFn,
    *,
    seed: int,
    epochs: int,
    width: int = 24,
    stride: int = 4,
    learning_rate: float = 3e-3,
    bfloat16: bool = False,
    callback: Callable[[int, int, float], None] | None = None,
    on_epoch_end: Callable[[list[float], CornerNet], None] | None = None,
    checkpoint: CheckpointConfig | None = None,
) -> CornerNet:
    """Train a `CornerNet` with AdamW, a one-cycle learning rate and an exponential moving average (EMA) of the weights.

    `batch(rows, rng)` returns views (N, 1, H, W) of some images and their corners (N, 8, 2), see `full_image_batches`
    and `crop_batches`; half of the views are mirrored. `callback(step, steps, loss)` runs after every step,
    `on_epoch_end(losses, averaged net)` after every epoch, with the mean loss of each epoch so far, and on resuming.
    With `checkpoint`, the state is saved every `checkpoint.every_n_steps` epochs, and a stopped run can be resumed.
    `bfloat16` is faster where the CPU supports it (`has_bfloat16`). The same seed, number of threads and machine give
    the same weights, resumed or not. Raises `InvalidArgument`, and `HoldoutError` for held-out photographs.
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
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, max(steps, 20), pct_start=0.1)
    parts, losses, recent = TrainState({"net": net, "averaged": averaged}, {"net": optimizer}), [], []
    settings = {"width": width, "stride": stride, "learning_rate": learning_rate, "bfloat16": bfloat16}
    pictures = {"pictures": len(renders), "crc32": zlib.crc32(np.ascontiguousarray(renders.images).data)}
    described = {"model": "a corner net", "seed": seed, "epochs": epochs} | settings | pictures
    done, kept = (0, {}) if checkpoint is None else restore_train_state(parts, checkpoint, described)
    if done:
        losses, rng.bit_generator.state = kept["losses"], kept["rng"]
        schedule.load_state_dict(kept["schedule"])
        if on_epoch_end is not None:
            on_epoch_end(losses, averaged)
    for step in range(done, steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(renders))
        x, y = _mirrored(*batch(order[step % per_epoch * BATCH :][:BATCH], rng), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            maps = net(x.contiguous(memory_format=torch.channels_last))
        loss = corner_loss(maps, y, stride, symmetric=step > CANONICAL_FRACTION * steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        _average(averaged, net, min(EMA_DECAY, (1 + step) / (10 + step)))
        recent.append(float(loss.detach()))
        if callback is not None:
            callback(step + 1, steps, recent[-1])
        if (step + 1) % per_epoch == 0:
            losses, recent = [*losses, float(np.mean(recent))], []
            if on_epoch_end is not None:
                on_epoch_end(losses, averaged)
            if checkpoint is not None and len(losses) % checkpoint.every_n_steps == 0:
                more = {"losses": losses, "rng": rng.bit_generator.state, "schedule": schedule.state_dict()}
                save_train_state(parts, checkpoint.folder, described, step + 1, more)
    return averaged.eval()


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16, which doubles the speed; where it is emulated, it is far slower."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def full_image_batches(renders: KeypointDataset) -> BatchFn:
    """Views that are the pictures as they are, corners counted from the nearest."""
    images = torch.from_numpy(renders.images)
    corners = canonical_corners(renders)
    return lambda rows, _: (images[rows].float()[:, None], corners[rows])


def canonical_corners(renders: KeypointDataset) -> torch.Tensor:
    """The corners (N, 8, 2) of all pictures, turned so that the first is the lower one nearest to the camera."""
    return canonicalize_corners(torch.from_numpy(renders.corners).float(), torch.from_numpy(renders.points[..., 2]))


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
    other = y[:, FLIP_INDEX].clone()
    other[..., 0] = x.shape[-1] - 1 - other[..., 0]
    return torch.where(flip[:, None, None, None], x.flip(-1), x), torch.where(flip[:, None, None], other, y)


@torch.no_grad()
def _average(averaged: CornerNet, net: CornerNet, checkpoint: float) -> None:
    for old, new in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.mul_(checkpoint).add_(new, alpha=1 - checkpoint)
        else:
            old.copy_(new)


@torch.no_grad()
def predict_corners(net: CornerNet, images: NDArray[np.uint8]) -> Array:
    """The corners (N, 8, 2) px that the net sees in grey pictures (N, H, W)."""
    net.eval()
    batches = torch.split(torch.tensor(images, dtype=torch.float32)[:, None], BATCH)
    return np.concatenate([soft_argmax(net(x), net.stride).double().numpy() for x in batches])


def solve_poses(corners: ArrayLike, K: ArrayLike, *, side: float = CUBE_SIZE) -> list[Pose]:
    """The cube's pose for each set of corners (N, 8, 2) px; K (3, 3), or (N, 3, 3)."""
    found = np.asarray(corners, dtype=float)
    lenses = np.broadcast_to(np.asarray(K, dtype=float), (len(found), 3, 3))
    return [solve_pnp(CUBE_CORNERS * side, pixels, lens) for pixels, lens in zip(found, lenses, strict=True)]


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """Distances between the cube that was found and the true one: centres (N,) cm, mean over corners (N,) cm and px.

    Corners are compared after the best of the four quarter turns about the vertical.
    """

    centre: Array
    corner: Array
    pixel: Array


def pose_errors(corners: Array, pixels: Array, points: Array, K: ArrayLike, *, side: float = CUBE_SIZE) -> PoseErrors:
    """How wrong are corners (N, 8, 2) px, given the true pixels and the points (N, 8, 3) m in the camera's frame?"""
    found = np.array([pose(CUBE_CORNERS * side) for pose in solve_poses(corners, K, side=side)])  # (N, 8, 3)
    centre = np.linalg.norm(found.mean(1) - points.mean(1), axis=-1)
    return PoseErrors(100 * centre, 100 * corner_distance(found, points), corner_distance(corners, pixels))


def corner_distance(found: Array, true: Array) -> Array:
    """Mean distance (N,) of eight corners (N, 8, 2 or 3) from the true ones, after the best quarter turn."""
    return np.asarray(np.linalg.norm(found[:, None] - true[:, SYMMETRIES.numpy()], axis=-1).mean(-1).min(-1))


SIZE = 64  # pixels of a cut, each way
AROUND = 1.6  # side of the cut over the larger side of the box around the corners
SHIFT, SCALE, TURN = 0.12, 0.18, 0.15  # how far cuts are off in training: shares of the side, and radians
N_REFINEMENTS = 3  # cuts, each made from the corners found in the one before; chosen on the stand-in domain


def crop_affines(corners: torch.Tensor) -> torch.Tensor:
    """For corners (N, 8, 2) px the matrices (N, 2, 3) that take a cut's pixels, from -1 to 1, to the picture's."""
    low, high = corners.amin(1), corners.amax(1)
    half = AROUND * (high - low).amax(1) / 2  # (N,)
    matrix = torch.zeros(len(corners), 2, 3, dtype=corners.dtype)
    matrix[:, 0, 0] = matrix[:, 1, 1] = half
    matrix[:, :, 2] = (low + high) / 2
    return matrix


def warp_crop(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Views (N, 1, 64, 64) of grey pictures (N, H, W): pixel v of the view shows the picture at M (v, 1)."""
    at = (torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2) / (SIZE / 2)
    grid = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(SIZE, SIZE)], dim=-1)  # (64, 64, 3)
    places = torch.einsum("nij,hwj->nhwi", matrix.float(), grid)
    size = torch.tensor([images.shape[2], images.shape[1]])
    # grid_sample counts from the outer edges of the picture: pixel u lies at (2 u + 1) / W - 1
    return F.grid_sample(
        images.float()[:, None], (2 * places + 1) / size - 1, align_corners=False, padding_mode="border"
    )


def image_to_crop(matrix: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Pixels of the picture (N, 8, 2) in the view."""
    inside: torch.Tensor = torch.linalg.solve(matrix[:, :, :2], (corners - matrix[:, None, :, 2]).mT).mT
    return inside * (SIZE / 2) + (SIZE - 1) / 2


def crop_to_image(matrix: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Pixels of the view (N, 8, 2) in the picture."""
    inside = (corners - (SIZE - 1) / 2) / (SIZE / 2)
    return torch.einsum("nij,nkj->nki", matrix[:, :, :2], inside) + matrix[:, None, :, 2]


def crop_batches(renders: KeypointDataset) -> BatchFn:
    """Views cut out around the cube, each a little off, too large or small, and turned, as a first look would be."""
    images, corners = torch.from_numpy(renders.images), canonical_corners(renders)

    def batch(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        truth = corners[rows]
        matrix = crop_affines(truth)
        half = matrix[:, 0, 0].clone()
        shift = torch.from_numpy(rng.uniform(-SHIFT, SHIFT, (len(rows), 2))).float()
        scale = half * torch.from_numpy(np.exp(rng.uniform(-SCALE, SCALE, len(rows)))).float()
        angle = torch.from_numpy(rng.uniform(-TURN, TURN, len(rows))).float()
        matrix[:, 0, 0] = matrix[:, 1, 1] = scale * angle.cos()
        matrix[:, 1, 0], matrix[:, 0, 1] = scale * angle.sin(), -scale * angle.sin()
        matrix[:, :, 2] += 2 * shift * half[:, None]
        return warp_crop(images[rows], matrix), image_to_crop(matrix, truth)

    return batch


@torch.no_grad()
def refine_corners(net: CornerNet, images: NDArray[np.uint8], corners: Array, *, n_iter: int = N_REFINEMENTS) -> Array:
    """Corners (N, 8, 2) px found again in cuts around a first answer, in grey pictures (N, H, W)."""
    net.eval()
    found, pictures = torch.tensor(corners, dtype=torch.float32), torch.tensor(images)
    for _ in range(n_iter):
        matrix = crop_affines(found)
        views = [net(x) for x in torch.split(warp_crop(pictures, matrix), 64)]
        found = crop_to_image(matrix, torch.cat([soft_argmax(maps, net.stride) for maps in views]))
    return found.double().numpy()


MODEL, PRETRAINED, LOG, STATE = "cube-localizer", "artifacts/localizer", "log.json", "state"
PRETRAINED_NARROW = "artifacts/localizer-narrow"  # the same networks, trained in the narrow simulator
WIDE, HIGH = 320, 240  # pixels of the pictures it is trained on; the first look sees half as many each way


@dataclass(frozen=True)
class LocalizerConfig:
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
        first = predict_corners(self.coarse, half)
        return refine_corners(self.fine, images, (first + 0.5) * 2 - 0.5)

    def save(self, folder: Path, config: LocalizerConfig, provenance: Provenance) -> Path:
        """Write both as one checkpoint."""
        tensors = {
            f"{name}.{key}": value
            for name in ("coarse", "fine")
            for key, value in getattr(self, name).state_dict().items()
        }
        return checkpoints.save(folder, tensors, asdict(config), model_type=MODEL, provenance=provenance)

    @classmethod
    def load(cls, folder: Path) -> Localizer:
        """Read what `save` wrote. Raises `DataError`."""
        tensors, config = checkpoints.load(folder, model_type=MODEL)
        nets = {"coarse": CornerNet(config["coarse_width"], 4), "fine": CornerNet(config["fine_width"], 2)}
        for name, net in nets.items():
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
            net.requires_grad_(False).eval()
        return cls(**nets)


def load_pretrained(folder: str = PRETRAINED) -> Localizer:
    """A shipped localizer; `DataError` with the way to restore it where it is missing or altered."""
    try:
        return Localizer.load(data_folder() / folder)
    except DataError as error:
        raise DataError(f"{error}\nThe shipped localizer: git checkout -- data/{folder}") from None


def halved(x: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 1, H, W) at half the size, each pixel the mean of four."""
    return F.avg_pool2d(x, 2)


def half_size_batches(renders: KeypointDataset) -> BatchFn:
    """Views that are the pictures at half the size."""
    images, corners = torch.from_numpy(renders.images), canonical_corners(renders)
    # pixel u lies at (u + 0.5) / 2 - 0.5 of the smaller one
    return lambda rows, _: (halved(images[rows].float()[:, None]), (corners[rows] + 0.5) / 2 - 0.5)


def resized(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """A grey picture (H, W) as large as the networks know them, and the factor: pixel u lies at (u + 0.5) f - 0.5."""
    high, wide = image.shape
    factor = min(WIDE / wide, HIGH / high)
    size = tuple(max(2 * round(side * factor / 2), 32) for side in (wide, high))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), factor


def train_localizer(
    renders: Path, out: Path, *, seed: int, config: LocalizerConfig, n_jobs: int = 2, resume: bool = False
) -> dict[str, Any]:
    """Train both networks on a finished run of `synthbook render`, write checkpoint and log, and return the log.

    They do not depend on each other and are trained side by side, one thread each. After every epoch `out/state` keeps
    what they need to go on; it is removed once both are done.
    """
    if (out / checkpoints.CONFIG_NAME).exists():
        raise InvalidArgument("out", str(out), "a folder without a checkpoint: nothing is overwritten")
    pictures = load_keypoint_dataset(renders, 1)  # before any work: is it a run, of the right size?
    if pictures.images.shape[1:] != (HIGH, WIDE):
        raise InvalidArgument(
            "renders", f"{pictures.images.shape[2]} x {pictures.images.shape[1]}", f"pictures of {WIDE} x {HIGH}"
        )
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", f"{out} is being written"):
        began = time.perf_counter()
        parts = Parallel(n_jobs=min(n_jobs, 2))(
            delayed(_train)(name, renders, seed, config, CheckpointConfig(out / STATE / name, 1, resume))
            for name in ("coarse", "fine")
        )
        nets = {name: net for name, net, _, _ in parts}
        command = f"synthbook dev train localizer --renders {renders.name} --epochs {config.epochs} --seed {seed}"
        parents = {f"{renders.name}/{MANIFEST}": sha256_file(renders / MANIFEST)}
        provenance = Provenance("rendered scenes", command, parents, generation=2, synthetic_share=1.0, seed=seed)
        Localizer(**nets).save(out, config, provenance)
        log = {
            "command": command,
            "renders": json.loads((renders / MANIFEST).read_text())["plan"],
            "pictures": parts[0][3],
            "seed": seed,
            "recipe": asdict(config),
            "losses": {name: losses for name, _, losses, _ in parts},
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - began) / 60, 1),
            "sha256": sha256_file(out / checkpoints.WEIGHTS_NAME),
        }
        write_with_provenance(out / LOG, json.dumps(log, indent=1) + "\n", provenance)
        shutil.rmtree(out / STATE)
    return log


def _train(
    name: str, folder: Path, seed: int, config: LocalizerConfig, checkpoint: CheckpointConfig
) -> tuple[str, CornerNet, list[float], int]:
    torch.set_num_threads(1)
    renders, losses = load_keypoint_dataset(folder), []  # type: ignore[var-annotated]
    coarse = name == "coarse"

    def told(so_far: list[float], _: CornerNet) -> None:
        losses[:] = [round(loss, 4) for loss in so_far]
        echo(f"{name}: epoch {len(losses)} of {config.epochs}, loss {losses[-1]:.3f}", stderr=True)

    net = train_corner_net(
        renders,
        half_size_batches(renders) if coarse else crop_batches(renders),
        seed=seed,
        epochs=config.epochs,
        width=config.coarse_width if coarse else config.fine_width,
        stride=4 if coarse else 2,
        learning_rate=config.learning_rate,
        bfloat16=has_bfloat16(),
        on_epoch_end=told,
        checkpoint=checkpoint,
    )
    return name, net, losses, len(renders)
