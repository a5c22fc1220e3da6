"""DP-SGD: each per-sample gradient is clipped to norm C; Gaussian noise of scale sigma C masks any one of them.

    g_i' = g_i min(1, C / |g_i|)          g = (sum_i g_i' + sigma C N(0, I)) / (q n)      Abadi et al., arXiv:1607.00133

The sum has L2 sensitivity C when a record is added or removed, and 2 C when one is replaced. Three ways to the norms:
per-sample gradients by `torch.func`, the same by hooks, and for linear layers without any per-sample gradient
("ghost clipping"): |g_i|^2 = |a_i|^2 |b_i|^2, with activations a_i and backpropagated gradients b_i (Goodfellow 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from synthbook.core.errors import InvalidArgument

_LossFn = Callable[[Tensor, Tensor], Tensor]  # outputs (B, ...), targets (B, ...) -> losses (B,)
_MAX_PHYSICAL_BATCH_SIZE = 32  # records whose gradients are in memory together
_BATCH_MIXING_LAYERS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class DpSgdConfig:
    """Clipping norm C, noise multiplier sigma, and the expected batch size, by which the noisy sum is divided."""

    max_grad_norm: float
    noise_multiplier: float
    expected_batch_size: float

    def __post_init__(self) -> None:
        if not self.max_grad_norm > 0 or not self.noise_multiplier >= 0 or not self.expected_batch_size > 0:
            values = (self.max_grad_norm, self.noise_multiplier, self.expected_batch_size)
            raise InvalidArgument(
                "max_grad_norm, noise_multiplier, expected_batch_size", values, "above 0, at least 0, above 0"
            )


def check_model(model: nn.Module) -> None:
    """Raise `InvalidArgument` for layers that mix the records of a batch: per-sample gradients do not exist there."""
    for name, layer in model.named_modules():
        if isinstance(layer, _BATCH_MIXING_LAYERS):
            raise InvalidArgument("model", f"{name}: {type(layer).__name__}", "layers that see one record at a time")


def poisson_sample(n: int, sample_rate: float, rng: np.random.Generator) -> Tensor:
    """Indices (B,) of a Poisson sample: each of n records with probability `sample_rate`, independently; B may be 0."""
    if n < 1 or not 0 < sample_rate <= 1:
        raise InvalidArgument("n, sample_rate", (n, sample_rate), "at least 1 record, a rate above 0 and at most 1")
    return torch.from_numpy(np.flatnonzero(rng.random(n) < sample_rate))


# ── Per-sample gradients ──


def per_sample_grads(model: nn.Module, loss: _LossFn, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Per-sample gradients (B, *shape) by parameter name, with `torch.func`; B may be 0."""
    check_model(model)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    if not len(x):
        return {name: value.new_zeros((0, *value.shape)) for name, value in weights.items()}

    def sample_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (x[None],)), y[None])[0]

    gradients: dict[str, Tensor] = vmap(grad(sample_loss), in_dims=(None, 0, 0))(weights, x, y)
    return gradients


def clipped_sum(gradients: dict[str, Tensor], max_grad_norm: float) -> dict[str, Tensor]:
    """Sum per-sample gradients (B, *shape), each clipped to a norm of `max_grad_norm` over all parameters together."""
    squares = sum(g.flatten(1).square().sum(1) for g in gradients.values())
    factors = _clip_factors(torch.sqrt(squares), max_grad_norm)  # type: ignore[arg-type]
    return {name: torch.tensordot(factors, g, dims=1) for name, g in gradients.items()}


def _clip_factors(norms: Tensor, max_grad_norm: float) -> Tensor:
    return (max_grad_norm / norms.clamp(min=1e-12)).clamp(max=1.0)


def per_sample_clipped_sum(
    model: nn.Module, loss: _LossFn, x: Tensor, y: Tensor, max_grad_norm: float
) -> dict[str, Tensor]:
    """Clipped gradient sum for any model, in chunks to bound memory."""
    chunks = zip(torch.split(x, _MAX_PHYSICAL_BATCH_SIZE), torch.split(y, _MAX_PHYSICAL_BATCH_SIZE), strict=True)
    sums = [clipped_sum(per_sample_grads(model, loss, inputs, targets), max_grad_norm) for inputs, targets in chunks]
    return {name: torch.stack([one[name] for one in sums]).sum(0) for name in sums[0]}


# ── Linear layers: hooks, and ghost clipping ──


@dataclass(frozen=True, eq=False)
class _LayerRecords:
    """For each linear layer, by name: its inputs (B, in), and the loss gradients of its outputs (B, out)."""

    layers: dict[str, nn.Linear]
    activations: dict[str, Tensor]
    backprops: dict[str, Tensor]

    def gradients(
        self, weight: Callable[[Tensor, Tensor], Tensor], bias: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Results by parameter name: `weight(activations, backprops)` and `bias(backprops)` of each layer."""
        results = dict[str, Tensor]()
        for name, layer in self.layers.items():
            prefix = f"{name}." if name else ""
            results[f"{prefix}weight"] = weight(self.activations[name], self.backprops[name])
            if layer.bias is not None:
                results[f"{prefix}bias"] = bias(self.backprops[name])
        return results


def _record_layers(model: nn.Module, loss: _LossFn, x: Tensor, y: Tensor) -> _LayerRecords:
    """Run one forward and one backward pass of a batch (B, features), with hooks on the linear layers.

    Raises `InvalidArgument` for parameters in another kind of layer, and for layers that mix records.
    """
    check_model(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    covered = {id(p) for layer in layers.values() for p in layer.parameters()}
    if others := [name for name, p in model.named_parameters() if id(p) not in covered]:
        raise InvalidArgument("model", ", ".join(others), "parameters of linear layers only")
    activations, outputs = dict[str, Tensor](), dict[str, Tensor]()

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            activations[name], outputs[name] = inputs[0].detach(), output

        return hook

    hooks = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    try:
        losses = loss(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    backprops = torch.autograd.grad(losses.sum(), list(outputs.values()))
    return _LayerRecords(layers, activations, dict(zip(outputs, backprops, strict=True)))


def per_sample_grads_hooks(model: nn.Module, loss: _LossFn, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Per-sample gradients (B, *shape) of linear layers: b_i a_i^T for weights, b_i for biases."""
    records = _record_layers(model, loss, x, y)
    return records.gradients(lambda a, b: b[:, :, None] * a[:, None, :], lambda b: b)


def ghost_clipped_sum(model: nn.Module, loss: _LossFn, x: Tensor, y: Tensor, max_grad_norm: float) -> dict[str, Tensor]:
    """Clipped gradient sum of linear layers without per-sample gradients: the norms first, then one weighted sum."""
    records = _record_layers(model, loss, x, y)
    squares = torch.zeros(len(x))
    for name, layer in records.layers.items():
        a, b = records.activations[name].square().sum(1), records.backprops[name].square().sum(1)
        squares += b * (a + (layer.bias is not None))  # |b_i a_i^T|^2 = |a_i|^2 |b_i|^2
    factors = _clip_factors(squares.sqrt(), max_grad_norm)
    scaled = {name: b * factors[:, None] for name, b in records.backprops.items()}
    return replace(records, backprops=scaled).gradients(lambda a, b: b.T @ a, lambda b: b.sum(0))


# ── A training step ──


def noisy_mean(total: dict[str, Tensor], config: DpSgdConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """Add noise to a clipped sum and divide by the expected batch size, which unlike the actual one is public.

    The noise is NumPy's: PyTorch's generator uses 32 bits of a seed, few enough to try them all.
    """
    return {
        name: (value + config.noise_multiplier * config.max_grad_norm * _normal(value.shape, rng))
        / config.expected_batch_size
        for name, value in total.items()
    }


def _normal(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(np.asarray(rng.standard_normal(tuple(shape), dtype=np.float32)))


def dpsgd_step(
    model: nn.Module,
    total: dict[str, Tensor],
    config: DpSgdConfig,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> None:
    """Update a model by the clipped gradient sum of a Poisson sample; that of an empty one is 0, and noise remains."""
    gradients = noisy_mean(total, config, rng)
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]
    optimizer.step()
