"""DP-SGD by hand: no record moves a step by more than C, and noise of size sigma C hides what it moves.

    g_i' = g_i min(1, C / |g_i|)          g = (sum_i g_i' + sigma C N(0, I)) / (q n)      Abadi et al., arXiv:1607.00133

The sum has L2 sensitivity C when a record is added or removed, and 2 C when one is replaced. Three routes to the norms:
a gradient of each record by `torch.func`, the same by hooks, and for linear layers no gradient of a record at all:
|g_i|^2 = |a_i|^2 |b_i|^2, with a_i what goes into the layer and b_i the gradient of what comes out (Goodfellow 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from synthbook.core.errors import InvalidArgument

LossFn = Callable[[Tensor, Tensor], Tensor]  # outputs (B, ...) and targets (B, ...) to a loss (B,) of each record
MAX_PHYSICAL_BATCH_SIZE = 32  # records: their gradients together stay near the processor
BATCH_MIXING_LAYERS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class DpSgdConfig:
    """Clipping length, noise over clipping length, and the expected size of a batch, by which the sum is divided."""

    clip: float
    noise: float
    batch: float

    def __post_init__(self) -> None:
        if not self.clip > 0 or not self.noise >= 0 or not self.batch > 0:
            given = (self.clip, self.noise, self.batch)
            raise InvalidArgument("clip, noise, batch", given, "a length above 0, noise of at least 0, a size above 0")


def check_model(model: nn.Module) -> None:
    """Raise `InvalidArgument` for layers that mix the records of a batch: nobody's influence is bounded there."""
    for name, layer in model.named_modules():
        if isinstance(layer, BATCH_MIXING_LAYERS):
            raise InvalidArgument("model", f"{name}: {type(layer).__name__}", "layers that see one record at a time")


def poisson_batches(n: int, rate: float, steps: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """The rows of each step: every record with probability `rate`, on its own; a batch may be empty."""
    if n < 1 or not 0 < rate <= 1 or steps < 1:
        raise InvalidArgument(
            "n, rate, steps", (n, rate, steps), "at least 1 record and step, a rate above 0, at most 1"
        )
    return (poisson_sample(n, rate, rng) for _ in range(steps))


def poisson_sample(n: int, rate: float, rng: np.random.Generator) -> Tensor:
    """The rows (B,) of one step; B may be 0."""
    return torch.from_numpy(np.flatnonzero(rng.random(n) < rate))


# ── a gradient for each record ───────────────────────────────────────────────────────────────────────────────────────


def per_sample_grads(model: nn.Module, loss: LossFn, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients (B, *shape) of each record by name, by `torch.func`; B may be 0."""
    check_model(model)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    if not len(x):
        return {name: value.new_zeros((0, *value.shape)) for name, value in weights.items()}

    def of_one(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (x[None],)), y[None])[0]

    found: dict[str, Tensor] = vmap(grad(of_one), in_dims=(None, 0, 0))(weights, x, y)
    return found


def clipped_sum(gradients: dict[str, Tensor], clip: float) -> dict[str, Tensor]:
    """The sum over records of gradients that are no longer than `clip`, all parameters together."""
    factors = _factors(torch.sqrt(sum(g.flatten(1).square().sum(1) for g in gradients.values())), clip)  # type: ignore[arg-type]
    return {name: torch.tensordot(factors, g, dims=1) for name, g in gradients.items()}


def _factors(norms: Tensor, clip: float) -> Tensor:
    return (clip / norms.clamp(min=1e-12)).clamp(max=1.0)


def per_sample_clipped_sum(model: nn.Module, loss: LossFn, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """The clipped sum of any model, a few records at a time: their gradients are as long as the model, each of them."""
    pairs = zip(torch.split(x, MAX_PHYSICAL_BATCH_SIZE), torch.split(y, MAX_PHYSICAL_BATCH_SIZE), strict=True)
    parts = [clipped_sum(per_sample_grads(model, loss, some, targets), clip) for some, targets in pairs]
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}


# ── linear layers: hooks, and the norms alone ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class LayerRecords:
    """What went into each linear layer, (B, in), and the gradient of what came out of it, (B, out), by name."""

    layers: dict[str, nn.Linear]
    inputs: dict[str, Tensor]
    slopes: dict[str, Tensor]


def record_layers(model: nn.Module, loss: LossFn, x: Tensor, y: Tensor) -> LayerRecords:
    """One forward and one backward pass of a whole batch (B, features), with hooks on the linear layers.

    Raises `InvalidArgument` for parameters in another kind of layer, and for layers that mix records.
    """
    check_model(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    own = {id(p) for layer in layers.values() for p in layer.parameters()}
    if strange := [name for name, p in model.named_parameters() if id(p) not in own]:
        raise InvalidArgument("model", ", ".join(strange), "parameters of linear layers only")
    inputs, outputs = dict[str, Tensor](), dict[str, Tensor]()

    def keeps(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), out

        return hook

    hooks = [layer.register_forward_hook(keeps(name)) for name, layer in layers.items()]
    try:
        losses = loss(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(losses.sum(), list(outputs.values()))
    return LayerRecords(layers, inputs, dict(zip(outputs, slopes, strict=True)))


def per_sample_grads_hooks(model: nn.Module, loss: LossFn, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients (B, *shape) of each record: of a linear layer's weights it is b_i a_i^T."""
    taps, found = record_layers(model, loss, x, y), dict[str, Tensor]()
    for name, layer in taps.layers.items():
        prefix = f"{name}." if name else ""
        found[f"{prefix}weight"] = taps.slopes[name][:, :, None] * taps.inputs[name][:, None, :]
        if layer.bias is not None:
            found[f"{prefix}bias"] = taps.slopes[name]
    return found


def ghost_clipped_sum(model: nn.Module, loss: LossFn, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """The clipped sum without any gradient of a record: norms first, then one weighted sum."""
    taps, found = record_layers(model, loss, x, y), dict[str, Tensor]()
    squares = torch.zeros(len(x))
    for name, layer in taps.layers.items():
        a, b = taps.inputs[name].square().sum(1), taps.slopes[name].square().sum(1)
        squares += b * (a + (layer.bias is not None))  # |b_i a_i^T|^2 = |a_i|^2 |b_i|^2
    factors = _factors(squares.sqrt(), clip)
    for name, layer in taps.layers.items():
        scaled, prefix = taps.slopes[name] * factors[:, None], f"{name}." if name else ""
        found[f"{prefix}weight"] = scaled.T @ taps.inputs[name]
        if layer.bias is not None:
            found[f"{prefix}bias"] = scaled.sum(0)
    return found


# ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def noisy_mean(total: dict[str, Tensor], private: DpSgdConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """What is released: the clipped sum with fresh noise, over the expected size of a batch, not the one that came.

    The noise is NumPy's: PyTorch's generator keeps 32 bits of a seed, so few that they can all be tried.
    """
    return {
        name: (value + private.noise * private.clip * _normal(value.shape, rng)) / private.batch
        for name, value in total.items()
    }


def _normal(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(np.asarray(rng.standard_normal(tuple(shape), dtype=np.float32)))


def step(
    model: nn.Module,
    loss: LossFn,
    x: Tensor,
    y: Tensor,
    private: DpSgdConfig,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> None:
    """One private step on a batch that Poisson sampling chose, the empty one included: then it is noise alone."""
    gradients = noisy_mean(per_sample_clipped_sum(model, loss, x, y, private.clip), private, rng)
    for name, value in model.named_parameters():
        value.grad = gradients[name]
    optimizer.step()
