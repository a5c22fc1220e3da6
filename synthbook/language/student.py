"""A student of a language model's answers: the tiny transformer of section 3, over words, taught answers to questions.

Its loss counts the words of the answers alone, as in instruction tuning: a question is read and not learned by heart.
Then it is asked what nobody was asked before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from synthbook.core.checkpoints import TrainState
from synthbook.core.errors import InvalidArgument
from synthbook.generators.nets import init_weights
from synthbook.generators.text.transformer import CharTransformer, TransformerConfig
from synthbook.generators.training import cosine_with_warmup, set_lr, step_rng, train
from synthbook.language.records import Record

SETTINGS = TransformerConfig(d_model=64, n_heads=4, n_layers=2, context_length=40, batch_size=64, learning_rate=2e-3)
END, UNKNOWN = "\n", "?"
LONGEST = 12  # words of an answer
IGNORE_INDEX = -100  # label ignored by cross_entropy


def tokenize(text: str) -> list[str]:
    """Words, numbers and signs, each a word of its own.

    >>> tokenize("6 * 8 = 48, maybe")
    ['6', '*', '8', '=', '48', ',', 'maybe']
    """
    return re.findall(r"\w+|[^\w\s]", text)


@dataclass(frozen=True, eq=False)
class Student:
    """A network and the words that it knows."""

    net: CharTransformer
    number: dict[str, int]

    @classmethod
    def taught(cls, records: Iterable[Record], *, seed: int, steps: int = 400) -> Self:
        """Taught the answers to these questions. Raises `InvalidArgument` where there is nothing to learn."""
        pairs = [(tokenize(record.prompt), [*tokenize(record.response)[:LONGEST], END]) for record in records]
        if not pairs:
            raise InvalidArgument("records", 0, "at least one question with its answer")
        known = sorted({word for pair in pairs for part in pair for word in part} | {END, UNKNOWN})
        self = cls(CharTransformer(len(known), SETTINGS), {word: k for k, word in enumerate(known)})
        init_weights(self.net, step_rng(seed, 0))
        read, told = self._rows(pairs)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=SETTINGS.learning_rate, weight_decay=0.01)

        def step(k: int, rng: torch.Generator) -> dict[str, float]:
            rows = torch.randint(len(read), (SETTINGS.batch_size,), generator=rng)
            loss = F.cross_entropy(self.net(read[rows]).flatten(0, 1), told[rows].flatten(), ignore_index=IGNORE_INDEX)
            set_lr(optimizer, SETTINGS.learning_rate * cosine_with_warmup(k, steps))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            return {"loss": loss.item()}

        parts = TrainState({"net": self.net}, {"net": optimizer})
        train(parts, step, steps=steps, seed=seed, described={"model": "student", "config": asdict(SETTINGS)})
        return self

    @torch.no_grad()
    def answers(self, questions: Sequence[str]) -> list[str]:
        """The most likely answer to each question, none to an empty one; unknown words are one word to it."""
        spoken: dict[int, list[str]] = {}
        word = {k: name for name, k in self.number.items()}
        rows = [tokenize(question) for question in questions]
        for length in sorted({len(row) for row in rows} - {0}):
            here = [i for i, row in enumerate(rows) if len(row) == length]
            codes = torch.stack([self._codes(rows[i]) for i in here])
            for _ in range(LONGEST):
                best = self.net(codes[:, -SETTINGS.context_length :])[:, -1].argmax(dim=1, keepdim=True)
                codes = torch.cat([codes, best], dim=1)
            for i, row in zip(here, codes[:, length:].tolist(), strict=True):
                spoken[i] = list(takewhile(lambda name: name != END, (word[k] for k in row)))
        return [" ".join(spoken.get(i, [])) for i in range(len(questions))]

    def _codes(self, some: Sequence[str]) -> Tensor:
        return torch.tensor([self.number.get(word, self.number[UNKNOWN]) for word in some], dtype=torch.int64)

    def _rows(self, pairs: Sequence[tuple[list[str], list[str]]]) -> tuple[Tensor, Tensor]:
        """What is read, (N, L), and what is to be said after each word, (N, L): `IGNORE_INDEX` in the question."""
        read = torch.full((len(pairs), SETTINGS.context_length), self.number[END])
        told = torch.full_like(read, IGNORE_INDEX)
        for i, (question, answer) in enumerate(pairs):
            whole = self._codes([*question, *answer])
            if len(whole) > SETTINGS.context_length + 1:
                raise InvalidArgument(
                    "records", f"{len(whole)} words", f"at most {SETTINGS.context_length + 1} in a pair"
                )
            read[i, : len(whole) - 1] = whole[:-1]
            told[i, len(question) - 1 : len(whole) - 1] = whole[len(question) :]
        return read, told
