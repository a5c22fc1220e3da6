"""Small networks that the families share; a class to generate is one more input, a one-hot vector."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Vectors (N, inputs), and labels where there are `classes`, to vectors (N, outputs): `layers` hidden layers."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int = 128, layers: int = 2, classes: int = 0):
        super().__init__()
        sizes = [inputs + classes, *[hidden] * layers]
        self.classes = classes
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, outputs) for x (N, ...), flattened, and labels (N,)."""
        x = _concat_label(x.flatten(1), labels, self.classes)
        for layer in self.hidden:
            x = F.silu(layer(x))
        result: Tensor = self.out(x)
        return result


class ConvEncoder(nn.Module):
    """Images (N, channels, size, size) to vectors (N, outputs), halved twice; labels join the last layers."""

    def __init__(self, channels: int, size: int, outputs: int, *, width: int = 32, classes: int = 0):
        super().__init__()
        self.classes = classes
        self.conv_1 = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.conv_2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.hidden = nn.Linear(2 * width * (size // 4) ** 2 + classes, 4 * width)
        self.out = nn.Linear(4 * width, outputs)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, outputs) for images x and labels (N,)."""
        x = F.leaky_relu(self.conv_1(x), 0.2)
        x = F.leaky_relu(self.conv_2(x), 0.2)
        result: Tensor = self.out(F.leaky_relu(self.hidden(_concat_label(x.flatten(1), labels, self.classes)), 0.2))
        return result


class ConvDecoder(nn.Module):
    """Vectors (N, inputs) to images (N, channels, size, size) in [-1, 1], doubled twice on the way."""

    def __init__(self, inputs: int, channels: int, size: int, *, width: int = 32, classes: int = 0):
        super().__init__()
        self.classes, self.shape = classes, (2 * width, size // 4, size // 4)
        self.hidden = nn.Linear(inputs + classes, 4 * width)
        self.first = nn.Linear(4 * width, math.prod(self.shape))
        # a transposed convolution whose kernel is a multiple of its stride leaves no chequered pattern of its own
        self.conv_1 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.conv_2 = nn.ConvTranspose2d(width, width // 4, 4, stride=2, padding=1)  # full size is where work is dear
        self.out = nn.Conv2d(width // 4, channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images for vectors z (N, inputs) and labels (N,)."""
        x = F.leaky_relu(self.hidden(_concat_label(z, labels, self.classes)), 0.2)
        x = F.leaky_relu(self.first(x), 0.2).view(-1, *self.shape)
        x = F.leaky_relu(self.conv_1(x), 0.2)
        return self.out(F.leaky_relu(self.conv_2(x), 0.2)).tanh()  # type: ignore[no-any-return]


class SpectralNorm(nn.Module):
    """A layer whose weight is divided by its largest singular value, so that it stretches nothing: Miyato et al. 2018.

    Each forward pass in training takes one step of power iteration, which keeps up with the weight as it moves. A
    convolution's weight counts as the matrix (out, in * height * width), as in arXiv:1802.05957.
    """

    u: Tensor  # (rows,), the left singular vector so far
    v: Tensor  # (columns,)

    def __init__(self, layer: nn.Linear | nn.Conv2d):
        super().__init__()
        self.layer = layer
        rows, columns = layer.weight.flatten(1).shape
        self.register_buffer("u", torch.ones(rows) / math.sqrt(rows))
        self.register_buffer("v", torch.ones(columns) / math.sqrt(columns))

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of x with its weight divided by sigma."""
        matrix = self.layer.weight.flatten(1)
        if self.training:
            self.u, self.v = power_iteration(matrix.detach(), self.u, 1)
        sigma = self.u @ matrix @ self.v  # the gradient flows through the weight only
        weight = self.layer.weight / sigma
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, self.layer.bias)
        return F.conv2d(x, weight, self.layer.bias, self.layer.stride, self.layer.padding)


def power_iteration(matrix: Tensor, u: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """The left and right singular vectors of the largest singular value, after so many rounds from `u`."""
    for _ in range(rounds):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return u, v


def add_spectral_norm(net: nn.Module) -> nn.Module:
    """The net with every linear and convolution layer wrapped in `SpectralNorm`, in place."""
    for name, child in list(net.named_children()):
        if isinstance(child, nn.Linear | nn.Conv2d):
            setattr(net, name, SpectralNorm(child))
        elif isinstance(net, nn.ModuleList):
            net[int(name)] = SpectralNorm(child)  # type: ignore[arg-type]
        else:
            add_spectral_norm(child)
    return net


def _concat_label(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """x (N, C, ...) with `classes` more channels, of which that of its label is 1; x itself where there are none.

    `labels` (N,) are numbers, or (N, classes) such channels already.
    """
    if not classes or labels is None:
        return x
    hot = (F.one_hot(labels, classes) if labels.ndim == 1 else labels).to(x.dtype)  # (N, classes)
    hot = hot.view(*hot.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, hot], dim=1)


@torch.no_grad()
def init_weights(net: nn.Module, rng: torch.Generator) -> nn.Module:
    """Weights of variance 2 / fan-in (He et al. 2015), biases 0, drawn from `rng`; `zero_init` layers begin at 0."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            fan_in = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):  # (in, out, h, w): each output sees a share 1 / stride^2 of it
                fan_in = module.in_channels * module.weight[0, 0].numel() // module.stride[0] ** 2
            std = 1.0 if isinstance(module, nn.Embedding) else math.sqrt(2 / fan_in)
            module.weight.normal_(std=std, generator=rng)
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                bias.zero_()
    for module in net.modules():
        for name in getattr(module, "zero_init", ()):  # layers that add nothing until they have learned something
            getattr(module, name).weight.zero_()
    return net


# ── U-Net ──
# Patches make it four times cheaper than working on pixels. Two scales, residual blocks conditioned on the step and the
# class, and attention at the coarse scale, so that distant pixels can interact.


class _ResBlock(nn.Module):
    """A residual block of two convolutions; the conditions (N, D) scale and shift the features between them."""

    zero_init = ("conv_2",)

    def __init__(self, a: int, b: int, conditions: int):
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, a), nn.GroupNorm(8, b)
        self.conv_1, self.conv_2 = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        self.conditions = nn.Linear(conditions, 2 * b)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """(N, b, H, W) for x (N, a, H, W)."""
        scale, shift = self.conditions(conditions)[..., None, None].chunk(2, dim=1)
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))
        return h + self.skip(x)  # type: ignore[no-any-return]


class _SelfAttention(nn.Module):
    """Self-attention between all positions of (N, C, H, W), with a residual connection."""

    zero_init = ("out",)

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

    zero_init = ("out",)

    def __init__(self, channels: int, *, width: int = 48, classes: int = 0, patch: int = 2):
        super().__init__()
        w, conditions = width, 4 * width
        self.patch = patch
        self.time = nn.Sequential(nn.Linear(w, conditions), nn.SiLU(), nn.Linear(conditions, conditions))
        self.label = nn.Embedding(classes, conditions) if classes else None
        self.stem = nn.Conv2d(channels * patch**2, w, 3, padding=1)
        self.fine_1, self.fine_2 = _ResBlock(w, w, conditions), _ResBlock(w, w, conditions)
        self.down = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.coarse_1, self.attend, self.coarse_2 = (
            _ResBlock(2 * w, 2 * w, conditions),
            _SelfAttention(2 * w),
            _ResBlock(2 * w, 2 * w, conditions),
        )
        self.up = nn.Conv2d(2 * w, w, 1)
        self.fine_3, self.fine_4 = _ResBlock(2 * w, w, conditions), _ResBlock(w, w, conditions)
        self.norm, self.out = nn.GroupNorm(8, w), nn.Conv2d(w, channels * patch**2, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's prediction for x (N, C, H, W) at steps t (N,)."""
        c = self.time(_timestep_embedding(t, self.stem.out_channels))
        if self.label is not None and labels is not None:
            c = c + self.label(labels)
        c = F.silu(c)
        x = self.stem(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        fine = self.fine_2(self.fine_1(x, c), c)
        coarse = self.coarse_2(self.attend(self.coarse_1(self.down(fine), c)), c)
        back = F.interpolate(self.up(coarse), size=fine.shape[2:])
        x = self.fine_4(self.fine_3(torch.cat([fine, back], dim=1), c), c)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), self.patch)


class TimeMLP(nn.Module):
    """The same for vectors (N, d): residual hidden layers, conditioned on the step and the class."""

    zero_init = ("out",)

    def __init__(self, d: int, *, hidden: int = 128, layers: int = 3, classes: int = 0):
        super().__init__()
        self.time = nn.Linear(32, hidden)
        self.label = nn.Embedding(classes, hidden) if classes else None
        self.first, self.out = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, ...) for x (N, ...) at steps t (N,)."""
        c = self.time(_timestep_embedding(t, 32))
        if self.label is not None and labels is not None:
            c = c + self.label(labels)
        h = self.first(x.flatten(1))
        for layer in self.hidden:
            h = h + layer(F.silu(h + c))
        return self.out(F.silu(h)).view_as(x)  # type: ignore[no-any-return]


def _timestep_embedding(t: Tensor, size: int) -> Tensor:
    """Steps (N,) as sines and cosines (N, size) of frequencies from 1 to 1 / 10,000 (arXiv:1706.03762, section 3.5)."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(size // 2, device=t.device) / (size // 2))
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
