"""Two convolutional networks that locate a cube's corners, coarse to fine: the data, the loss, training, checkpoints.

Each network predicts a heatmap per corner; the mean position under it (soft-argmax) is differentiable and has subpixel
accuracy. The coarse network sees the whole image at half its size, the fine one crops around the current estimate.
"""

from __future__ import annotations

import io
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core import checkpoints
from synthbook.core.checkpoints import CheckpointConfig, TrainState, restore_train_state, save_train_state
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.jobs import MANIFEST
from synthbook.core.storage import Provenance, file_lock, sha256_file, write_with_provenance
from synthbook.core.table import refuse_holdout
from synthbook.core.types import Array
from synthbook.datasets import data_folder
from synthbook.simulation.export import read_rows
from synthbook.simulation.pose import IMAGE_SIZE, SYMMETRIES
from synthbook.simulation.scene import CUBE_CORNERS, SceneParams

# Rows of images and a generator for augmentation to views (N, 1, H, W) and their corners (N, 8, 2) px
_BatchFn = Callable[[NDArray[np.int64], np.random.Generator], tuple[Tensor, Tensor]]


# ── The network and its loss ──
# Quarter turns about the vertical map a cube of unknown texture to itself: a prediction that is right for one of the
# four is right.


FLIP_INDEX = torch.tensor([0, 3, 2, 1, 4, 7, 6, 5])  # a mirror reverses the order in which corners are counted
_DISTANCE_WEIGHT = 0.2  # of the distance in pixels beside the heatmap's log-likelihood


class CornerNet(nn.Module):
    """Gray images (N, 1, H, W), of any range, to eight heatmaps with one cell per `stride` pixels (2 or 4).

    `width` is the number of channels at the finest resolution.
    """

    def __init__(self, width: int = 24, stride: int = 4):
        super().__init__()
        w, self.width, self.stride = width, width, stride
        self.near = nn.Sequential(_conv_block(1, w // 2, stride // 2), _conv_block(w // 2, w, 2), _conv_block(w, w))
        self.far = nn.Sequential(_conv_block(w, 2 * w, 2), _conv_block(2 * w, 2 * w))
        self.farthest = nn.Sequential(
            _conv_block(2 * w, 4 * w, 2), _conv_block(4 * w, 4 * w), _conv_block(4 * w, 4 * w)
        )
        # a feature pyramid: coarse features are upsampled and added to finer ones
        self.down_8, self.side_8 = nn.Conv2d(4 * w, 2 * w, 1), nn.Conv2d(2 * w, 2 * w, 1)
        self.back_8 = _conv_block(2 * w, 2 * w)
        self.down_4, self.side_4, self.back_4 = nn.Conv2d(2 * w, w, 1), nn.Conv2d(w, w, 1), _conv_block(w, w)
        self.maps = nn.Conv2d(w, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities (N, 8, H / stride, W / stride) of each corner's position."""
        mean, sd = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True)
        a = self.near((images - mean) / (sd + 1e-3))
        b = self.far(a)
        c = self.farthest(b)
        b = self.back_8(self.side_8(b) + F.interpolate(self.down_8(c), size=b.shape[2:]))
        a = self.back_4(self.side_4(a) + F.interpolate(self.down_4(b), size=a.shape[2:]))
        scores: Tensor = self.maps(a).float()  # (N, 8, h, w)
        return scores.flatten(2).log_softmax(-1).view(scores.shape)


def _conv_block(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


def soft_argmax(log_maps: Tensor, stride: int) -> Tensor:
    """Mean position (N, 8, 2), in pixels of the image, under heatmaps of log-probabilities (N, 8, h, w)."""
    p = log_maps.exp()
    # cell k of a heatmap has its center at pixel stride k + (stride - 1) / 2
    y, x = (torch.arange(size) * stride + (stride - 1) / 2 for size in log_maps.shape[2:])
    return torch.stack([(p.sum(2) * x).sum(-1), (p.sum(3) * y).sum(-1)], dim=-1)


def corner_loss(log_maps: Tensor, corners: Tensor, stride: int, *, symmetric: bool = True) -> Tensor:
    """Mean loss for true corners (N, 8, 2) px: the least over the four quarter turns, or without `symmetric` as given.

    The loss of a turn is the mean negative log-probability at its corners, interpolated between cells, plus
    0.2 times the smooth L1 distance in pixels.
    """
    n, k, h, w = log_maps.shape
    truth = corners[:, SYMMETRIES if symmetric else SYMMETRIES[:1]]  # (N, T, 8, 2)
    # grid_sample wants -1 and 1 at the centers of the outermost cells
    size = torch.tensor([w - 1, h - 1]) * stride
    grid = (2 * (truth - (stride - 1) / 2) / size - 1).transpose(1, 2).reshape(n * k, -1, 1, 2)
    log_p = F.grid_sample(log_maps.reshape(n * k, 1, h, w), grid, align_corners=True, padding_mode="border")
    nll = -log_p.view(n, k, -1).mean(1)  # (N, T)
    predicted = soft_argmax(log_maps, stride)[:, None].expand_as(truth)
    distance = F.smooth_l1_loss(predicted, truth, reduction="none").sum(-1).mean(-1)  # (N, T)
    best = nll.argmin(1, keepdim=True)
    return (nll + _DISTANCE_WEIGHT * distance).gather(1, best).mean()


# ── Training data ──


MIN_VISIBLE_PX = 60  # visible pixels of the cube in a training image


@dataclass(frozen=True, eq=False)
class KeypointDataset:
    """Images (N, H, W) uint8 with the cube's corners in pixels (N, 8, 2) and in the camera's frame (N, 8, 3) m."""

    images: NDArray[np.uint8]
    corners: Array
    points: Array
    K: Array  # (N, 3, 3)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"KeypointDataset({len(self):,} images of {self.images.shape[2]} x {self.images.shape[1]} px)"

    def take(self, rows: slice | NDArray[np.int64]) -> KeypointDataset:
        """The images in `rows`."""
        return KeypointDataset(self.images[rows], self.corners[rows], self.points[rows], self.K[rows])

    def canonical_corners(self) -> Tensor:
        """The corners (N, 8, 2) px, counted from the lower one that is nearest to the camera."""
        corners = torch.from_numpy(self.corners).float()
        order = torch.from_numpy(SYMMETRIES)[torch.from_numpy(self.points[:, :4, 2]).argmin(1)]  # (N, 8)
        return corners.gather(1, order[..., None].expand_as(corners))


def load_keypoint_dataset(folder: Path, n: int | None = None) -> KeypointDataset:
    """Read at most `n` images of a finished run in which the cube stands upright and is visible enough."""
    images, corners, points, intrinsics = [], [], [], []
    for row in read_rows(folder):
        params = SceneParams.from_json(row["theta"])
        target = next(label for label in json.loads(row["labels"]) if label["category"] == "target")
        if params.situation == "tilted" or target["area"] < MIN_VISIBLE_PX or not all(target["corners"]):
            continue
        with Image.open(io.BytesIO(row["image"])) as image:
            images.append(np.asarray(image.convert("L")))
        corners.append(target["corners"])
        points.append(params.camera.to_camera(params.bodies[1].to_world(CUBE_CORNERS)))
        intrinsics.append(params.camera.K)
        if len(images) == n:
            break
    if not images:
        raise InvalidArgument("folder", str(folder), "a run with images in which the cube is visible")
    return KeypointDataset(np.stack(images), np.array(corners), np.array(points), np.array(intrinsics))


def full_image_batches(data: KeypointDataset) -> _BatchFn:
    """Views that are the images themselves."""
    images, corners = torch.from_numpy(data.images), data.canonical_corners()
    return lambda rows, _: (images[rows].float()[:, None], corners[rows])


def half_size_batches(data: KeypointDataset) -> _BatchFn:
    """Views that are the images at half their size."""
    images, corners = torch.from_numpy(data.images), data.canonical_corners()
    # pixel u lies at (u + 0.5) / 2 - 0.5 of the smaller one
    return lambda rows, _: (F.avg_pool2d(images[rows].float()[:, None], 2), (corners[rows] + 0.5) / 2 - 0.5)


CROP_PX = 64  # width and height of a crop
_CROP_MARGIN = 1.6  # side of the crop over the larger side of the box around the corners
_MAX_SHIFT, _MAX_LOG_SCALE, _MAX_ANGLE = 0.12, 0.18, 0.15  # random crops in training: share of the side, log, rad


def crop_affines(corners: Tensor) -> Tensor:
    """For corners (N, 8, 2) px the matrices (N, 2, 3) from a crop's coordinates, -1 to 1, to pixels of the image."""
    low, high = corners.amin(1), corners.amax(1)
    half = _CROP_MARGIN * (high - low).amax(1) / 2  # (N,)
    affine = torch.zeros(len(corners), 2, 3, dtype=corners.dtype)
    affine[:, 0, 0] = affine[:, 1, 1] = half
    affine[:, :, 2] = (low + high) / 2
    return affine


def warp_crop(images: Tensor, affine: Tensor) -> Tensor:
    """Crops (N, 1, 64, 64) of gray images (N, H, W): crop coordinate v shows the image at affine (v, 1)."""
    at = (torch.arange(CROP_PX, dtype=torch.float32) - (CROP_PX - 1) / 2) / (CROP_PX / 2)
    grid = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(CROP_PX, CROP_PX)], dim=-1)  # (64, 64, 3)
    pixels = torch.einsum("nij,hwj->nhwi", affine.float(), grid)
    size = torch.tensor([images.shape[2], images.shape[1]])
    # grid_sample counts from the outer edges of the image: pixel u lies at (2 u + 1) / W - 1
    grid = (2 * pixels + 1) / size - 1
    return F.grid_sample(images.float()[:, None], grid, align_corners=False, padding_mode="border")


def image_to_crop(affine: Tensor, corners: Tensor) -> Tensor:
    """Pixels of the image (N, 8, 2) as pixels of the crop."""
    inside: Tensor = torch.linalg.solve(affine[:, :, :2], (corners - affine[:, None, :, 2]).mT).mT
    return inside * (CROP_PX / 2) + (CROP_PX - 1) / 2


def crop_to_image(affine: Tensor, corners: Tensor) -> Tensor:
    """Pixels of the crop (N, 8, 2) as pixels of the image."""
    inside = (corners - (CROP_PX - 1) / 2) / (CROP_PX / 2)
    return torch.einsum("nij,nkj->nki", affine[:, :, :2], inside) + affine[:, None, :, 2]


def crop_batches(data: KeypointDataset) -> _BatchFn:
    """Crops around the cube, randomly shifted, scaled and rotated to imitate errors of the coarse network."""
    images, corners = torch.from_numpy(data.images), data.canonical_corners()

    def batch(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        truth = corners[rows]
        affine = crop_affines(truth)
        half = affine[:, 0, 0].clone()
        shift = torch.from_numpy(rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, (len(rows), 2))).float()
        scale = half * torch.from_numpy(np.exp(rng.uniform(-_MAX_LOG_SCALE, _MAX_LOG_SCALE, len(rows)))).float()
        angle = torch.from_numpy(rng.uniform(-_MAX_ANGLE, _MAX_ANGLE, len(rows))).float()
        affine[:, 0, 0] = affine[:, 1, 1] = scale * angle.cos()
        affine[:, 1, 0], affine[:, 0, 1] = scale * angle.sin(), -scale * angle.sin()
        affine[:, :, 2] += 2 * shift * half[:, None]
        return warp_crop(images[rows], affine), image_to_crop(affine, truth)

    return batch


# ── Training ──


_BATCH = 64
_EMA_DECAY = 0.998  # per step
_CANONICAL_FRACTION = 0.1  # of the steps, the first ones, in which the loss takes canonical corners only


def train_corner_net(
    data: KeypointDataset,
    batch: _BatchFn,
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
    `on_epoch_end(losses, averaged net)` after every epoch, with the mean loss of each epoch so far; both on resuming.
    With `checkpoint`, the state is saved every `checkpoint.every_n_steps` epochs, and a stopped run can be resumed.
    `bfloat16` is faster where the CPU supports it (`has_bfloat16`). The same seed, number of threads and machine give
    the same weights, resumed or not. Raises `InvalidArgument`, and `HoldoutError` for held-out photographs.
    """
    refuse_holdout(data, "training the localizer")
    if len(data) < _BATCH:
        raise InvalidArgument("data", f"{len(data)} images", f"at least {_BATCH}, one batch")
    if epochs < 1:
        raise InvalidArgument("epochs", epochs, "an integer of at least 1")
    rng = np.random.default_rng(seed)
    net = _init_weights(CornerNet(width, stride), torch.Generator().manual_seed(int(rng.integers(2**62))))
    averaged = CornerNet(width, stride)
    averaged.load_state_dict(net.state_dict())
    per_epoch = len(data) // _BATCH
    steps = epochs * per_epoch
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, max(steps, 20), pct_start=0.1)
    state, losses, recent = TrainState({"net": net, "averaged": averaged}, {"net": optimizer}), [], []
    config = {"width": width, "stride": stride, "learning_rate": learning_rate, "bfloat16": bfloat16}
    images = {"pictures": len(data), "crc32": zlib.crc32(np.ascontiguousarray(data.images).data)}
    settings = {"model": "a corner net", "seed": seed, "epochs": epochs} | config | images
    start, restored = (0, {}) if checkpoint is None else restore_train_state(state, checkpoint, settings)
    if start:
        losses, rng.bit_generator.state = restored["losses"], restored["rng"]
        schedule.load_state_dict(restored["schedule"])
        if callback is not None:
            callback(start, steps, losses[-1])
        if on_epoch_end is not None:
            on_epoch_end(losses, averaged)
    for step in range(start, steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(data))
        x, y = _random_flip(*batch(order[step % per_epoch * _BATCH :][:_BATCH], rng), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            maps = net(x.contiguous(memory_format=torch.channels_last))
        loss = corner_loss(maps, y, stride, symmetric=step > _CANONICAL_FRACTION * steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        _ema_update(averaged, net, min(_EMA_DECAY, (1 + step) / (10 + step)))
        recent.append(float(loss.detach()))
        if callback is not None:
            callback(step + 1, steps, recent[-1])
        if (step + 1) % per_epoch == 0:
            losses, recent = [*losses, float(np.mean(recent))], []
            if on_epoch_end is not None:
                on_epoch_end(losses, averaged)
            if checkpoint is not None and len(losses) % checkpoint.every_n_steps == 0:
                more = {"losses": losses, "rng": rng.bit_generator.state, "schedule": schedule.state_dict()}
                save_train_state(state, checkpoint.folder, settings, step + 1, more)
    return averaged.eval()


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16, which doubles the speed; where it is emulated, it is far slower."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def _init_weights(net: CornerNet, rng: torch.Generator) -> CornerNet:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):  # He: variance 2 / fan-in
            nn.init.normal_(module.weight, std=float(np.sqrt(2 / module.weight[0].numel())), generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(net.maps.weight, std=0.01, generator=rng)
    return net.to(memory_format=torch.channels_last)


def _random_flip(x: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the images (N, 1, H, W) and their corners (N, 8, 2)."""
    flip = torch.from_numpy(rng.random(len(x)) < 0.5)
    mirrored = y[:, FLIP_INDEX].clone()
    mirrored[..., 0] = x.shape[-1] - 1 - mirrored[..., 0]
    return torch.where(flip[:, None, None, None], x.flip(-1), x), torch.where(flip[:, None, None], mirrored, y)


@torch.no_grad()
def _ema_update(averaged: CornerNet, net: CornerNet, decay: float) -> None:
    for old, new in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.mul_(decay).add_(new, alpha=1 - decay)
        else:
            old.copy_(new)


# ── Prediction, and the localizer as a checkpoint ──


_N_REFINEMENTS = 3  # crops, each around the corners of the one before; chosen on the proxy target domain
_MODEL, LOG, _STATE = "cube-localizer", "log.json", "state"
PRETRAINED, PRETRAINED_NARROW = "artifacts/localizer", "artifacts/localizer-narrow"  # randomized, and not


@torch.no_grad()
def predict_corners(net: CornerNet, images: NDArray[np.uint8]) -> Array:
    """Predict the corners (N, 8, 2) px in gray images (N, H, W)."""
    net.eval()
    batches = torch.split(torch.tensor(images, dtype=torch.float32)[:, None], _BATCH)
    return np.concatenate([soft_argmax(net(x), net.stride).double().numpy() for x in batches])


@torch.no_grad()
def refine_corners(net: CornerNet, images: NDArray[np.uint8], corners: Array, *, n_iter: int = _N_REFINEMENTS) -> Array:
    """Predict corners (N, 8, 2) px again in crops of gray images (N, H, W) around a first estimate, `n_iter` times."""
    net.eval()
    estimate, full = torch.tensor(corners, dtype=torch.float32), torch.tensor(images)
    for _ in range(n_iter):
        affine = crop_affines(estimate)
        maps = [net(x) for x in torch.split(warp_crop(full, affine), 64)]
        estimate = crop_to_image(affine, torch.cat([soft_argmax(m, net.stride) for m in maps]))
    return estimate.double().numpy()


@dataclass(frozen=True)
class LocalizerConfig:
    """Training settings of both networks: epochs, channels, peak learning rate."""

    epochs: int = 16
    coarse_width: int = 24
    fine_width: int = 24
    learning_rate: float = 4e-3


@dataclass(frozen=True, eq=False)
class Localizer:
    """`coarse` sees the whole image at half its size, `fine` crops around the cube."""

    coarse: CornerNet
    fine: CornerNet

    def __call__(self, images: NDArray[np.uint8]) -> Array:
        """Predict corners (N, 8, 2) px in gray images (N, H, W), about 320 x 240 each."""
        half = F.avg_pool2d(torch.tensor(images, dtype=torch.float32)[:, None], 2).numpy()[:, 0]
        first = predict_corners(self.coarse, half)
        return refine_corners(self.fine, images, (first + 0.5) * 2 - 0.5)

    def __repr__(self) -> str:
        return f"Localizer(coarse of {self.coarse.width} channels, fine of {self.fine.width} channels)"

    def save(self, folder: Path, config: LocalizerConfig, provenance: Provenance) -> Path:
        """Write both networks as one checkpoint."""
        tensors = {
            f"{name}.{key}": value
            for name in ("coarse", "fine")
            for key, value in getattr(self, name).state_dict().items()
        }
        return checkpoints.save(folder, tensors, asdict(config), model_type=_MODEL, provenance=provenance)

    @classmethod
    def load(cls, folder: Path) -> Localizer:
        """Read a checkpoint that `save` wrote. Raises `DataError`."""
        tensors, config = checkpoints.load(folder, model_type=_MODEL)
        nets = {"coarse": CornerNet(config["coarse_width"], 4), "fine": CornerNet(config["fine_width"], 2)}
        for name, net in nets.items():
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
            net.requires_grad_(False).eval()
        return cls(**nets)


def load_pretrained(folder: str = PRETRAINED) -> Localizer:
    """Load a shipped localizer. Raises `DataError` with the command that restores it if it is missing or altered."""
    try:
        return Localizer.load(data_folder() / folder)
    except DataError as error:
        raise DataError(f"{error}\nThe shipped localizer: git checkout -- data/{folder}") from None


def train_localizer(
    renders: Path,
    out: Path,
    *,
    seed: int,
    config: LocalizerConfig,
    n_jobs: int = 2,
    resume: bool = False,
    callback: Callable[[int, int], None] = lambda step, steps: None,
) -> dict[str, Any]:
    """Train both networks on a finished run of `synthbook render`, write checkpoint and log, and return the log.

    The networks are independent and train in parallel with `n_jobs` 2, one thread each. `out/state` holds the training
    state after every epoch until both are done. `callback(step, steps)` counts the training steps of both networks.
    Raises `InvalidArgument` and `DataError`.
    """
    if (out / checkpoints.CONFIG_NAME).exists():
        raise InvalidArgument("out", str(out), "a folder without a checkpoint: nothing is overwritten")
    height, width = load_keypoint_dataset(renders, 1).images.shape[1:]  # fails early if this is not a finished run
    if (width, height) != IMAGE_SIZE:
        raise InvalidArgument("renders", f"{width} x {height}", "images of {} x {}".format(*IMAGE_SIZE))
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(out / ".lock", f"{out} is being written"):
        start = time.perf_counter()
        with _step_counter(out / _STATE, callback):
            results = Parallel(n_jobs=min(n_jobs, 2))(
                delayed(_train)(name, renders, seed, config, CheckpointConfig(out / _STATE / name, 1, resume))
                for name in ("coarse", "fine")
            )
        command = f"synthbook dev train localizer --renders {renders.name} --epochs {config.epochs} --seed {seed}"
        parents = {f"{renders.name}/{MANIFEST}": sha256_file(renders / MANIFEST)}
        provenance = Provenance("rendered scenes", command, parents, generation=2, synthetic_share=1.0, seed=seed)
        Localizer(**{name: net for name, net, _, _ in results}).save(out, config, provenance)
        log = {
            "command": command,
            "renders": json.loads((renders / MANIFEST).read_text())["plan"],
            "pictures": results[0][3],
            "seed": seed,
            "recipe": asdict(config),
            "losses": {name: losses for name, _, losses, _ in results},
            "resumed": resume,
            "minutes since the last start": round((time.perf_counter() - start) / 60, 1),
            "sha256": sha256_file(out / checkpoints.WEIGHTS_NAME),
        }
        write_with_provenance(out / LOG, json.dumps(log, indent=1) + "\n", provenance)
        shutil.rmtree(out / _STATE)
    return log


@contextmanager
def _step_counter(folder: Path, callback: Callable[[int, int], None]) -> Iterator[None]:
    """Call `callback` with the steps that the processes of both networks have written into `folder`."""
    finished, counts = Event(), dict[str, list[int]]()

    def forward() -> None:
        last = False
        while not last:
            last = finished.wait(0.2)
            for path in folder.glob("*.steps"):
                if len(numbers := path.read_text().split()) == 2:  # else it is being written
                    counts[path.name] = [int(number) for number in numbers]
            if counts:
                callback(sum(step for step, _ in counts.values()), 2 * max(steps for _, steps in counts.values()))

    folder.mkdir(parents=True, exist_ok=True)
    thread = Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _train(
    name: str, folder: Path, seed: int, config: LocalizerConfig, checkpoint: CheckpointConfig
) -> tuple[str, CornerNet, list[float], int]:
    torch.set_num_threads(1)
    data, coarse, rounded = load_keypoint_dataset(folder), name == "coarse", list[float]()
    counted = checkpoint.folder.with_suffix(".steps")

    def on_step(step: int, steps: int, _: float) -> None:
        counted.write_text(f"{step} {steps}")

    def on_epoch_end(losses: list[float], _: CornerNet) -> None:
        rounded[:] = [round(loss, 4) for loss in losses]

    net = train_corner_net(
        data,
        half_size_batches(data) if coarse else crop_batches(data),
        seed=seed,
        epochs=config.epochs,
        width=config.coarse_width if coarse else config.fine_width,
        stride=4 if coarse else 2,
        learning_rate=config.learning_rate,
        bfloat16=has_bfloat16(),
        callback=on_step,
        on_epoch_end=on_epoch_end,
        checkpoint=checkpoint,
    )
    return name, net, rounded, len(data)
