"""A task of yours, read from a task.toml: what is asked, in which form answers come, and what is kept of them.

Everything that can be wrong with it is found while it is read, before a model is asked anything. The i-th question
depends on the seed and on i alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.core.files import strict_json
from synthbook.language.chat import Ask, Message, Sampling, unmarked
from synthbook.language.generating.fields import Form
from synthbook.language.generating.seeds import Seed, typed
from synthbook.language.generating.template import Template, as_text

Row = Mapping[str, str]
FIELDS = "fields"  # the place in a prompt where the form is described
TEXT = "text"  # the column of plain answers


@dataclass(frozen=True)
class Filters:
    """What is kept: lengths in characters, similarities in [0, 1], and which name is counted. None: not looked at."""

    min_length: int | None = None
    max_length: int | None = None
    near_duplicates: float | None = None
    copies_of_seeds: float | None = None
    label: str | None = None
    balance: str | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class Chosen:
    """The address and the name of a model, where the task gives them, and prices of a million tokens, in and out."""

    url: str | None = None
    name: str | None = None
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class Examples:
    """Seeds: the file, its rows, how many each prompt shows, how they are asked for, the column of plain answers."""

    path: Path
    sha256: str
    rows: tuple[Seed, ...]
    per_prompt: int
    prompt: Template
    answer: str = TEXT


@dataclass(frozen=True)
class Question:
    """What is asked, the values that fill it, and the lines of the seeds that it shows."""

    ask: Ask
    values: Row
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """A task as it was read. `values` are groups of rows; each question takes one row of each group.

    `subjects`: columns of the seeds that fill the prompt, one row at a time. `files`: SHA-256 by name. `described`:
    all that decides the questions, as plain JSON.
    """

    path: Path
    prompt: Template
    system: Template | None
    values: tuple[tuple[Row, ...], ...]
    form: Form | None
    examples: Examples | None
    subjects: tuple[str, ...]
    sampling: Sampling
    filters: Filters
    chosen: Chosen
    files: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the file, or of its folder where it is called task.toml."""
        return self.path.stem if self.path.stem != "task" else self.path.resolve().parent.name

    def question(self, i: int, *, seed: int) -> Question:
        """The i-th question; every value is used as often as every other of its group."""
        values: dict[str, str] = {}
        for k, group in enumerate(self.values):
            values |= group[_turn(len(group), i, seed, 60, k)]
        subject = None
        if self.examples is not None and self.subjects:
            subject = _turn(len(self.examples.rows), i, seed, 61)
            columns = self.examples.rows[subject].columns
            values |= {name: str(as_text(columns[name])) for name in self.subjects}
        filled = values if self.form is None else {**values, FIELDS: self.form.words}
        turns = [] if self.system is None else [Message("system", self.system.fill(filled))]
        rows = self._drawn(i, seed, subject)
        for row in rows:
            turns += self._shown(row)
        ask = Ask((*turns, Message("user", self.prompt.fill(filled))), replace(self.sampling, seed=seed), i)
        return Question(ask, values, tuple(row.line for row in rows))

    def _drawn(self, i: int, seed: int, subject: int | None) -> list[Seed]:
        """Different rows to show, never the one that the question is about."""
        if self.examples is None or not self.examples.per_prompt:
            return []
        rows = [row for k, row in enumerate(self.examples.rows) if k != subject]
        rng = np.random.default_rng([seed, 62, i])
        return [rows[k] for k in rng.choice(len(rows), self.examples.per_prompt, replace=False)]

    def _shown(self, row: Seed) -> tuple[Message, Message]:
        assert self.examples is not None
        prompt, words = self.examples.prompt, {} if self.form is None else {FIELDS: self.form.words}
        filled = {name: str(as_text(row.columns.get(name))) for name in prompt.names} | words
        return Message("user", prompt.fill(filled)), Message("assistant", unmarked(self.answer_of(row)))

    def answer_of(self, row: Seed) -> str:
        """A seed as the answer that a model should give."""
        assert self.examples is not None
        if self.form is None:
            return str(as_text(row.columns[self.examples.answer]))
        return strict_json(typed(row, self.form))

    def compared(self, row: Seed) -> str:
        """The text of a seed that answers are compared with."""
        answer = self.answer_of(row)
        return answer if self.form is None else self.form.text(self.form.read(answer)[0])

    def categories(self, name: str) -> list[str] | None:
        """All that a field or a placeholder can be; None where that is not known."""
        declared = None if self.form is None else self.form[name]
        if declared is not None:
            if declared.type == "integer" and declared.low is not None and declared.high is not None:
                few = declared.high - declared.low < 1_000
                return [str(k) for k in range(int(declared.low), int(declared.high) + 1)] if few else None
            return ["false", "true"] if declared.type == "boolean" else list(declared.values) or None
        rows = [row[name] for group in self.values for row in group if name in row]
        if not rows and self.examples is not None and name in self.subjects:
            rows = [str(as_text(seed.columns[name])) for seed in self.examples.rows]
        return list(dict.fromkeys(rows)) or None

    def at_most(self, n: int) -> int | None:
        """How many records of each category are kept of n, None where they are not balanced: equal shares by default.

        Raises `InvalidArgument` where n records cannot be had.
        """
        name = self.filters.balance
        if name is None:
            return None
        known = self.categories(name)
        most = self.filters.at_most if known is None or self.filters.at_most else -(-n // len(known))
        assert most is not None  # reading the task saw to that
        if known is not None and most * len(known) < n:
            accepted = f"at most {most * len(known):,}: {most:,} (filters.at_most) of each of {len(known)} ({name})"
            raise InvalidArgument("n", n, accepted)
        return most


def _turn(n: int, i: int, *key: int) -> int:
    """The i-th of an endless sequence whose every n in a row are the numbers below n in a random order."""
    return int(np.random.default_rng([*key, i // n]).permutation(n)[i % n])
