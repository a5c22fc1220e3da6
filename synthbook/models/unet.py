"""The network that looks at a noised image and says what the noise is: a U-Net on patches of 2 x 2 pixels.

Patches make it four times cheaper than working on pixels. Two scales, residual blocks that are told the step and the
class, and attention at the coarse scale, so that a sleeve can know of the other one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions with a way around them; the conditions (N, D) scale and shift what is between."""

    silent = ("conv_2",)

    def __init__(self, a: int, b: int, conditions: int):
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, a), nn.GroupNorm(8, b)
        self.conv_1, self.conv_2 = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        self.conditions = nn.Linear(conditions, 2 * b)
        self.around = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """(N, b, H, W) for x (N, a, H, W)."""
        scale, shift = self.conditions(conditions)[..., None, None].chunk(2, dim=1)
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))
        return h + self.around(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Every place (N, C, H, W) looks at every other: self-attention with a way around it."""

    silent = ("out",)

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) for x of the same shape."""
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v)  # (N, heads, H W, C / heads)
        return x + self.out(seen.transpose(-1, -2).reshape(n, c, h, w))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Noised images (N, C, H, W), H and W multiples of 4, steps (N,) and labels (N,) to images of the same shape."""

    silent = ("out",)

    def __init__(self, channels: int, *, width: int = 48, classes: int = 0, patch: int = 2):
        super().__init__()
        w, conditions = width, 4 * width
        self.patch = patch
        self.time = nn.Sequential(nn.Linear(w, conditions), nn.SiLU(), nn.Linear(conditions, conditions))
        self.label = nn.Embedding(classes, conditions) if classes else None
        self.stem = nn.Conv2d(channels * patch**2, w, 3, padding=1)
        self.fine_1, self.fine_2 = Block(w, w, conditions), Block(w, w, conditions)
        self.down = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.coarse_1, self.attend, self.coarse_2 = (
            Block(2 * w, 2 * w, conditions),
            Attention(2 * w),
            Block(2 * w, 2 * w, conditions),
        )
        self.up = nn.Conv2d(2 * w, w, 1)
        self.fine_3, self.fine_4 = Block(2 * w, w, conditions), Block(w, w, conditions)
        self.norm, self.out = nn.GroupNorm(8, w), nn.Conv2d(w, channels * patch**2, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the network says about x (N, C, H, W) at steps t (N,)."""
        c = self.time(time_features(t, self.stem.out_channels))
        if self.label is not None and labels is not None:
            c = c + self.label(labels)
        c = F.silu(c)
        x = self.stem(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        fine = self.fine_2(self.fine_1(x, c), c)
        coarse = self.coarse_2(self.attend(self.coarse_1(self.down(fine), c)), c)
        back = F.interpolate(self.up(coarse), size=fine.shape[2:])
        x = self.fine_4(self.fine_3(torch.cat([fine, back], dim=1), c), c)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), self.patch)


class TimedMlp(nn.Module):
    """The same for vectors (N, d): hidden layers with a way around each, told the step and the class."""

    silent = ("out",)

    def __init__(self, d: int, *, hidden: int = 128, layers: int = 3, classes: int = 0):
        super().__init__()
        self.time = nn.Linear(32, hidden)
        self.label = nn.Embedding(classes, hidden) if classes else None
        self.first, self.out = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, ...) for x (N, ...) at steps t (N,)."""
        c = self.time(time_features(t, 32))
        if self.label is not None and labels is not None:
            c = c + self.label(labels)
        h = self.first(x.flatten(1))
        for layer in self.hidden:
            h = h + layer(F.silu(h + c))
        return self.out(F.silu(h)).view_as(x)  # type: ignore[no-any-return]


def time_features(t: Tensor, size: int) -> Tensor:
    """Steps (N,) as sines and cosines (N, size) of frequencies from 1 to 1 / 10,000 (arXiv:1706.03762, section 3.5)."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(size // 2, device=t.device) / (size // 2))
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
