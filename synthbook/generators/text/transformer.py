"""A small transformer that predicts the next character: causal self-attention.

    attention(Q, K, V) = softmax(Q K^T / sqrt(d) + mask) V                  Vaswani et al., arXiv:1706.03762, eq. 1

Fewer than a million parameters; it learns from random stretches of text, with the same loop as the other networks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthbook.core.checkpoints import CheckpointConfig
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import sha256
from synthbook.core.types import Callback, Seed, Texts
from synthbook.generators.base import Tensors, check_positive_int
from synthbook.generators.neural import (
    Batches,
    EvalCallback,
    NeuralModel,
    cosine_with_warmup,
    gradient_step,
    set_lr,
    step_rng,
)
from synthbook.generators.text.ngram import BOS, CharTokenizer, TextGenerator, check_texts


@dataclass(frozen=True)
class TransformerConfig:
    """Training steps, sequences in a batch, characters of context, and the size of the network."""

    steps: int = 2_000
    batch_size: int = 32
    context_length: int = 96
    learning_rate: float = 3e-3
    d_model: int = 96
    n_heads: int = 4
    n_layers: int = 3

    def __post_init__(self) -> None:
        if min(asdict(self).values()) <= 0 or self.d_model % self.n_heads:
            raise InvalidArgument("settings", asdict(self), "positive numbers, n_heads that divide d_model")


class _TransformerBlock(nn.Module):
    """Self-attention, then an MLP at each position, each with a residual connection."""

    zero_init = ("proj", "down")

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, places, width) to the same."""
        n, places, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(n, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (N, heads, places, width / heads)
        x = x + self.proj(seen.transpose(1, 2).reshape(n, places, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))  # type: ignore[no-any-return]


class CharTransformer(nn.Module):
    """Characters (N, places) to logits of the next (N, places, V)."""

    zero_init = ("out",)

    def __init__(self, characters: int, config: TransformerConfig):
        super().__init__()
        self.tok_emb = nn.Embedding(characters, config.d_model)
        self.pos_emb = nn.Embedding(config.context_length, config.d_model)
        self.layers = nn.ModuleList(_TransformerBlock(config.d_model, config.n_heads) for _ in range(config.n_layers))
        self.norm, self.out = nn.LayerNorm(config.d_model), nn.Linear(config.d_model, characters)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits after each place."""
        x = self.tok_emb(codes) + self.pos_emb(torch.arange(codes.shape[1]))
        for layer in self.layers:
            x = layer(x)
        result: Tensor = self.out(self.norm(x))
        return result


class Transformer(NeuralModel, TextGenerator):
    """After `fit` or `load`: `tokenizer_`, `modules_`; after `fit` also `history_`, losses in nats."""

    family, config_class = "text-transformer", TransformerConfig

    def fit(
        self,
        data: Texts | Iterable[str],
        *,
        seed: Seed,
        steps: int | None = None,
        checkpoint: CheckpointConfig | None = None,
        callback: Callback | None = None,
        on_eval: EvalCallback | None = None,
    ) -> Self:
        """Learn from texts. The same seed, machine and number of threads give the same weights, resumed or not.

        Raises `HoldoutError`, `InvalidArgument`, `TrainingDiverged`.
        """
        parts = check_texts(data, "training a transformer")
        self.tokenizer_ = CharTokenizer.of(parts)
        codes = torch.from_numpy(self.tokenizer_.encode(BOS.join(["", *parts])))
        if len(codes) <= self.config.context_length:
            raise InvalidArgument("texts", f"{len(codes) - 1} characters", f"at least {self.config.context_length}")
        self._set_modules(self._build(), step_rng(seed, 0))
        data_sha256 = sha256("\n".join(parts).encode())
        self._describe_fit(seed, steps, data_sha256)
        training: dict[str, Any] = {"checkpoint": checkpoint, "callback": callback, "on_eval": on_eval}
        self._train(codes, None, data_sha256, seed=seed, steps=steps, **training)
        return self

    def _build(self) -> dict[str, nn.Module]:
        return {"net": CharTransformer(len(self.tokenizer_), self.config)}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = self.modules_["net"].parameters()
        return {"net": torch.optim.AdamW(parameters, lr=self.config.learning_rate, weight_decay=0.01)}

    def _step(self, batches: Batches, step: int, steps: int, rng: torch.Generator) -> Mapping[str, float]:
        codes, length, optimizer = batches.x, self.config.context_length + 1, self.optimizers_["net"]
        first = torch.randint(len(codes) - length + 1, (self.config.batch_size, 1), generator=rng)
        rows = codes[first + torch.arange(length)]
        loss = F.cross_entropy(self.modules_["net"](rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        set_lr(optimizer, self.config.learning_rate * cosine_with_warmup(step, steps))
        gradient_step(optimizer, loss, max_norm=1.0)
        return {"loss": loss.item()}

    @torch.no_grad()
    def bits_per_character(self, text: str) -> float:
        """Mean of -log2 p over the characters of a text, which see at least half a context but at its start."""
        self._check_fitted()
        if not text:
            raise InvalidArgument("text", text, "at least one character")
        codes, half = torch.from_numpy(self.tokenizer_.encode(BOS + text)), self.config.context_length // 2
        total = 0.0
        for first in range(0, len(codes) - 1, half):
            start = max(first - half, 0)
            window = codes[start : first + half + 1]
            lost = F.cross_entropy(self.modules_["net"](window[None, :-1])[0], window[1:], reduction="none")
            total += float(lost[first - start :].sum())
        return total / math.log(2) / len(text)

    @torch.no_grad()
    def sample(self, n: int, *, seed: Seed, prompt: str = "") -> str:
        """`n` characters that follow `prompt`, one after the other."""
        self._check_fitted()
        check_positive_int("n", n)
        rng, codes = step_rng(seed, 0), torch.from_numpy(self.tokenizer_.encode(BOS + prompt))
        before = len(codes)
        for _ in range(n):
            odds = self.modules_["net"](codes[None, -self.config.context_length :])[0, -1].softmax(dim=0)
            odds[-1] = 0  # what stands for characters that were never seen is not written
            codes = torch.cat([codes, torch.multinomial(odds, 1, generator=rng)])
        return self.tokenizer_.decode(codes[before:].tolist())

    def _serialize(self) -> tuple[Tensors, dict[str, Any]]:
        return self.modules_["net"].state_dict(), {"alphabet": self.tokenizer_.characters}

    def _restore(self, tensors: Tensors, card: Mapping[str, Any], source: Path) -> None:
        self.tokenizer_ = CharTokenizer(card["alphabet"])
        self._load_modules(self._build(), {f"net/{name}": tensor for name, tensor in tensors.items()})
