"""Distillation: a student learns a teacher's predictions, not the truth.

    hard labels: argmax_k p_k(x)          soft labels: -sum_k p_k(x) log q_k(x)         Hinton et al., arXiv:1503.02531

The loss with soft labels is that of as many weighted rows as there are classes, so every learner that takes weights can
be taught by probabilities. Inputs may come from anywhere: real rows without labels, a generator, a language model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from synthbook.core.checkpoints import TrainState
from synthbook.core.errors import InvalidArgument
from synthbook.generators.nets import init_weights
from synthbook.generators.neural import cosine_with_warmup, set_lr, step_rng, train
from synthbook.generators.text.transformer import CharTransformer, TransformerConfig
from synthbook.language.records import Record

# ── The student: the tiny transformer of section 3, over words ────────────────────────────────────────────────────────
# Its loss counts the words of the answers alone, as in instruction tuning: a question is read and not learned by heart.
# Then it is asked what nobody was asked before.


SETTINGS = TransformerConfig(d_model=64, n_heads=4, n_layers=2, context_length=40, batch_size=64, learning_rate=2e-3)
_END, _UNKNOWN = "\n", "?"
_LONGEST = 12  # words of an answer
IGNORE_INDEX = -100  # label ignored by cross_entropy


def _tokenize(text: str) -> list[str]:
    """Words, numbers and signs, each a word of its own.

    >>> _tokenize("6 * 8 = 48, maybe")
    ['6', '*', '8', '=', '48', ',', 'maybe']
    """
    return re.findall(r"\w+|[^\w\s]", text)


@dataclass(frozen=True, eq=False)
class Student:
    """A small transformer over words, and its vocabulary."""

    net: CharTransformer
    number: dict[str, int]

    @classmethod
    def fit(cls, records: Iterable[Record], *, seed: int, steps: int = 400) -> Self:
        """Train a network on the answers to these questions. Raises `InvalidArgument` without records."""
        pairs = [(_tokenize(record.prompt), [*_tokenize(record.response)[:_LONGEST], _END]) for record in records]
        if not pairs:
            raise InvalidArgument("records", 0, "at least one question with its answer")
        vocabulary = sorted({word for pair in pairs for part in pair for word in part} | {_END, _UNKNOWN})
        self = cls(CharTransformer(len(vocabulary), SETTINGS), {word: k for k, word in enumerate(vocabulary)})
        init_weights(self.net, step_rng(seed, 0))
        inputs, targets = self._rows(pairs)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=SETTINGS.learning_rate, weight_decay=0.01)

        def step(k: int, rng: torch.Generator) -> dict[str, float]:
            rows = torch.randint(len(inputs), (SETTINGS.batch_size,), generator=rng)
            logits = self.net(inputs[rows]).flatten(0, 1)
            loss = F.cross_entropy(logits, targets[rows].flatten(), ignore_index=IGNORE_INDEX)
            set_lr(optimizer, SETTINGS.learning_rate * cosine_with_warmup(k, steps))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            return {"loss": loss.item()}

        state = TrainState({"net": self.net}, {"net": optimizer})
        train(state, step, steps=steps, seed=seed, run_config={"model": "student", "config": asdict(SETTINGS)})
        return self

    @torch.no_grad()
    def predict(self, questions: Sequence[str]) -> list[str]:
        """The most likely answer to each question, none to an empty one; unknown words share one token."""
        answers: dict[int, list[str]] = {}
        word = {k: name for name, k in self.number.items()}
        rows = [_tokenize(question) for question in questions]
        for length in sorted({len(row) for row in rows} - {0}):
            here = [i for i, row in enumerate(rows) if len(row) == length]
            codes = torch.stack([self._codes(rows[i]) for i in here])
            for _ in range(_LONGEST):
                best = self.net(codes[:, -SETTINGS.context_length :])[:, -1].argmax(dim=1, keepdim=True)
                codes = torch.cat([codes, best], dim=1)
            for i, row in zip(here, codes[:, length:].tolist(), strict=True):
                answers[i] = list(takewhile(lambda name: name != _END, (word[k] for k in row)))
        return [" ".join(answers.get(i, [])) for i in range(len(questions))]

    def _codes(self, some: Sequence[str]) -> Tensor:
        return torch.tensor([self.number.get(word, self.number[_UNKNOWN]) for word in some], dtype=torch.int64)

    def _rows(self, pairs: Sequence[tuple[list[str], list[str]]]) -> tuple[Tensor, Tensor]:
        """Inputs (N, L), and the next word at each position, (N, L): `IGNORE_INDEX` in the question."""
        inputs = torch.full((len(pairs), SETTINGS.context_length), self.number[_END])
        targets = torch.full_like(inputs, IGNORE_INDEX)
        for i, (question, answer) in enumerate(pairs):
            codes, longest = self._codes([*question, *answer]), SETTINGS.context_length + 1
            if len(codes) > longest:
                raise InvalidArgument("records", f"{len(codes)} words", f"at most {longest} in a pair")
            inputs[i, : len(codes) - 1] = codes[:-1]
            targets[i, len(question) - 1 : len(codes) - 1] = codes[len(question) :]
        return inputs, targets


# ── Distillation ──


_Rows = pd.DataFrame | Sequence[str] | NDArray[np.float64]


def distill(teacher: Any, student: Any, inputs: _Rows, *, soft: bool = True) -> Any:
    """Fit the student to the teacher's soft labels (probabilities) or hard labels (most likely class).

    `student` is a scikit-learn classifier that takes weights, or a pipeline that ends with one. Raises
    `InvalidArgument` for a teacher without probabilities, or no inputs.
    """
    if not hasattr(teacher, "predict_proba"):
        raise InvalidArgument("teacher", type(teacher).__name__, "a fitted classifier with predict_proba")
    if not len(inputs):
        raise InvalidArgument("inputs", 0, "at least one input")
    probs = teacher.predict_proba(inputs)  # (n, K)
    if not soft:
        return student.fit(inputs, teacher.classes_[probs.argmax(axis=1)])
    n, classes = probs.shape
    weights = probs.T.ravel()  # of each input as the first class, then of each as the second, ...
    there = weights > 0
    rows, labels = np.tile(np.arange(n), classes)[there], np.repeat(teacher.classes_, n)[there]
    last = f"{student.steps[-1][0]}__" if hasattr(student, "steps") else ""
    return student.fit(_rows(inputs, rows), labels, **{f"{last}sample_weight": weights[there]})


def _rows(inputs: _Rows, rows: NDArray[np.int64]) -> Any:
    if isinstance(inputs, pd.DataFrame):
        return inputs.iloc[rows]
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[i] for i in rows]


# ── the exact case ───────────────────────────────────────────────────────────────────────────────────────────────────


def linear_distillation(
    real: int,
    drawn: int,
    *,
    d: int = 10,
    noise: float = 1.0,
    sampled_labels: bool = True,
    runs: int = 4_000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Excess risks (runs,) of a linear teacher of `real` rows and its student of `drawn` rows, and their difference.

    Inputs are standard normal in d dimensions, y = w x + `noise` e. The teacher labels with its own w, and with noise
    of the same size where `sampled_labels`. The excess risk of an estimate is its squared distance from w. "apart": the
    largest difference between a weight of the student and one of the teacher.
    """
    if min(real, drawn) < d + 2:
        raise InvalidArgument("real, drawn", (real, drawn), f"at least {d + 2} rows each")
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((runs, d, 1))
    teacher = _fitted(rng, w, real, noise)
    student = _fitted(rng, teacher, drawn, noise if sampled_labels else 0.0)
    risks = {name: ((b - w) ** 2).sum(axis=(1, 2)) for name, b in {"teacher": teacher, "student": student}.items()}
    return risks | {"apart": np.abs(student - teacher).max(axis=(1, 2))}


def _fitted(rng: np.random.Generator, w: NDArray[np.float64], n: int, noise: float) -> NDArray[np.float64]:
    """Least squares (runs, d, 1) on n fresh rows labelled by w."""
    x = rng.standard_normal((len(w), n, w.shape[1]))
    y = x @ w + noise * rng.standard_normal((len(w), n, 1))
    return np.linalg.solve(x.transpose(0, 2, 1) @ x, x.transpose(0, 2, 1) @ y).astype(np.float64)


def expected_risk(real: int, drawn: int | None = None, *, d: int = 10, noise: float = 1.0) -> float:
    """E[excess risk] of the teacher, or of its student where `drawn` is given and labels are sampled.

        sigma^2 d / (n_r - d - 1)  +  sigma^2 d / (n_s - d - 1)        the mean of an inverse Wishart matrix

    >>> expected_risk(51), expected_risk(51, 51)
    (0.25, 0.5)
    """
    own = noise**2 * d / (real - d - 1)
    return own if drawn is None else own + noise**2 * d / (drawn - d - 1)


def inductive_bias_gain(*, real: int = 400, drawn: int = 4_000, d: int = 10, seed: int = 0) -> dict[str, float]:
    """Accuracies of a nearest-neighbour teacher, a logistic student of it, and a logistic model of the real rows.

    The truth is logistic: the student has the better inductive bias, so it surpasses its noisy teacher.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng([seed, 49])
    w = rng.standard_normal(d)
    w *= 2 / np.linalg.norm(w)

    def world(n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x = rng.standard_normal((n, d))
        return x, rng.random(n) < 1 / (1 + np.exp(-x @ w))

    (x, y), (fresh, _), (test, truth) = world(real), world(drawn), world(20_000)
    teacher = KNeighborsClassifier(1).fit(x, y)
    student = distill(teacher, LogisticRegression(), fresh, soft=False)
    models = {"teacher": teacher, "student": student, "logistic": LogisticRegression().fit(x, y)}
    return {name: float((model.predict(test) == truth).mean()) for name, model in models.items()}
