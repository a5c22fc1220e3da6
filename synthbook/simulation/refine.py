"""A second look: the cube cut out, enlarged, and its corners found again, finer than the whole picture allows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from synthbook.simulation.corner_net import CornerNet, soft_argmax
from synthbook.simulation.localize import Batch, Renders, counted_from_nearest

Array = NDArray[np.float64]
SIZE = 64  # pixels of a cut, each way
AROUND = 1.6  # side of the cut over the larger side of the box around the corners
SHIFT, SCALE, TURN = 0.12, 0.18, 0.15  # how far cuts are off in training: shares of the side, and radians
LOOKS = 3  # cuts, each made from the corners found in the one before; chosen on the stand-in domain


def frames(corners: torch.Tensor) -> torch.Tensor:
    """For corners (N, 8, 2) px the matrices (N, 2, 3) that take a cut's pixels, from -1 to 1, to the picture's."""
    low, high = corners.amin(1), corners.amax(1)
    half = AROUND * (high - low).amax(1) / 2  # (N,)
    matrix = torch.zeros(len(corners), 2, 3, dtype=corners.dtype)
    matrix[:, 0, 0] = matrix[:, 1, 1] = half
    matrix[:, :, 2] = (low + high) / 2
    return matrix


def cut(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Views (N, 1, 64, 64) of grey pictures (N, H, W): pixel v of the view shows the picture at M (v, 1)."""
    at = (torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2) / (SIZE / 2)
    grid = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(SIZE, SIZE)], dim=-1)  # (64, 64, 3)
    places = torch.einsum("nij,hwj->nhwi", matrix.float(), grid)
    size = torch.tensor([images.shape[2], images.shape[1]])
    # grid_sample counts from the outer edges of the picture: pixel u lies at (2 u + 1) / W - 1
    return F.grid_sample(
        images.float()[:, None], (2 * places + 1) / size - 1, align_corners=False, padding_mode="border"
    )


def into(matrix: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Pixels of the picture (N, 8, 2) in the view."""
    inside: torch.Tensor = torch.linalg.solve(matrix[:, :, :2], (corners - matrix[:, None, :, 2]).mT).mT
    return inside * (SIZE / 2) + (SIZE - 1) / 2


def out_of(matrix: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Pixels of the view (N, 8, 2) in the picture."""
    inside = (corners - (SIZE - 1) / 2) / (SIZE / 2)
    return torch.einsum("nij,nkj->nki", matrix[:, :, :2], inside) + matrix[:, None, :, 2]


def crops(renders: Renders) -> Batch:
    """Views cut out around the cube, each a little off, too large or small, and turned, as a first look would be."""
    images, corners = torch.from_numpy(renders.images), counted_from_nearest(renders)

    def batch(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        truth = corners[rows]
        matrix = frames(truth)
        half = matrix[:, 0, 0].clone()
        shift = torch.from_numpy(rng.uniform(-SHIFT, SHIFT, (len(rows), 2))).float()
        scale = half * torch.from_numpy(np.exp(rng.uniform(-SCALE, SCALE, len(rows)))).float()
        angle = torch.from_numpy(rng.uniform(-TURN, TURN, len(rows))).float()
        matrix[:, 0, 0] = matrix[:, 1, 1] = scale * angle.cos()
        matrix[:, 1, 0], matrix[:, 0, 1] = scale * angle.sin(), -scale * angle.sin()
        matrix[:, :, 2] += 2 * shift * half[:, None]
        return cut(images[rows], matrix), into(matrix, truth)

    return batch


@torch.no_grad()
def refined(net: CornerNet, images: NDArray[np.uint8], corners: Array, *, looks: int = LOOKS) -> Array:
    """Corners (N, 8, 2) px found again in cuts around a first answer, in grey pictures (N, H, W)."""
    net.eval()
    found, pictures = torch.tensor(corners, dtype=torch.float32), torch.tensor(images)
    for _ in range(looks):
        matrix = frames(found)
        views = [net(x) for x in torch.split(cut(pictures, matrix), 64)]
        found = out_of(matrix, torch.cat([soft_argmax(maps, net.stride) for maps in views]))
    return found.double().numpy()
