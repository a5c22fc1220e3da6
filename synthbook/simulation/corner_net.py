"""A small network that points at the eight corners of a cube, and the loss that teaches it.

For each corner it draws a map of where the corner may be; the mean position under that map is its answer (soft-argmax),
which is differentiable and finer than a pixel. Four turns about the vertical leave a cube of unknown texture the same,
so an answer counts as right if it is right for one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# corners of the cube after 0, 1, 2, 3 quarter turns; the first four lie below, the same four above
TURNS = torch.tensor([[(i + k) % 4 + 4 * (i // 4) for i in range(8)] for k in range(4)])
MIRROR = torch.tensor([0, 3, 2, 1, 4, 7, 6, 5])  # what a mirror makes of corners that are counted the other way round
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


def corner_loss(log_maps: Tensor, corners: Tensor, stride: int, *, turns: bool = True) -> Tensor:
    """Mean loss for true corners (N, 8, 2) px: the best of the four quarter turns, or without `turns` the one given.

    Each turn's loss is the negative log-probability of its corners, read between the map's cells, and a little of the
    distance in pixels.
    """
    n, k, h, w = log_maps.shape
    truth = corners[:, TURNS if turns else TURNS[:1]]  # (N, T, 8, 2)
    # grid_sample wants -1 and 1 at the centres of the outermost cells
    size = torch.tensor([w - 1, h - 1]) * stride
    places = (2 * (truth - (stride - 1) / 2) / size - 1).transpose(1, 2).reshape(n * k, -1, 1, 2)
    read = F.grid_sample(log_maps.reshape(n * k, 1, h, w), places, align_corners=True, padding_mode="border")
    surprise = -read.view(n, k, -1).mean(1)  # (N, T)
    away = soft_argmax(log_maps, stride)[:, None].expand_as(truth)
    distance = F.smooth_l1_loss(away, truth, reduction="none").sum(-1).mean(-1)  # (N, T)
    best = surprise.argmin(1, keepdim=True)
    return (surprise + FINE * distance).gather(1, best).mean()


def from_nearest(corners: Tensor, depth: Tensor) -> Tensor:
    """Corners (N, 8, 2) counted from the lower one that is nearest to the camera; `depth` (N, 8)."""
    first = depth[:, :4].argmin(1)
    order = TURNS[first]  # (N, 8)
    return corners.gather(1, order[..., None].expand_as(corners))
