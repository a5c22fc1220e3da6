"""A scripted teacher whose errors are known: the ground truth by which filters are scored.

Of a real model nobody knows which answers are wrong; of this one each record says so in its provenance. It errs at a
rate that you set, more often on what is hard, and may repeat itself in other words. Its errors may be its own each
time, or shared: the same wrong answer whenever the same problem is asked, which no vote among its answers can mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument
from synthbook.language.records import Record
from synthbook.language.skills import SKILLS, Skill
from synthbook.language.verify.execute import Case, cases_by

Seed = int | np.random.SeedSequence


@dataclass(frozen=True)
class Teacher:
    """Writes a function for each prompt. `error`: share of wrong ones; `hard`: of hard skills, instead.

    `repeats`: share of records that say an earlier one again, with other names and spaces.
    """

    error: float = 0.3
    hard: float | None = None
    repeats: float = 0.0
    skills: tuple[Skill, ...] = SKILLS

    def __post_init__(self) -> None:
        for name in ("error", "hard", "repeats"):
            if (share := getattr(self, name)) is not None and not 0 <= share <= 1:
                raise InvalidArgument(name, share, "a share from 0 to 1")

    def records(self, n: int, *, seed: Seed) -> Iterator[Record]:
        """n records, each from a seed of its own; `provenance` holds `right`, and `repeats`, the id of another."""
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        return (self._record(k, root) for k in range(n))

    def _record(self, k: int, root: np.random.SeedSequence) -> Record:
        rng = np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k)))
        if rng.random() < self.repeats and k:
            first = self._record(int(rng.integers(k)), root)
            known = {"repeats": first.id, **first.provenance}  # the first of all that say it
            return Record(f"{k:06d}", first.prompt, reworded(first.response, rng), first.label, known)
        skill = self.skills[int(rng.integers(len(self.skills)))]
        error = self.hard if skill.hard and self.hard is not None else self.error
        right = bool(rng.random() >= error)
        code = skill.right if right else skill.wrong[int(rng.integers(len(skill.wrong)))]
        prompt = f"Write a Python function {skill.name} that returns {skill.prompt}."
        return Record(f"{k:06d}", prompt, code, skill.name, {"teacher": "planted", "right": right, "hard": skill.hard})


def reworded(code: str, rng: np.random.Generator) -> str:
    """The same program with a comment, another quote or wider operators: what a reader would call the same."""
    kind = int(rng.integers(3))
    if kind == 0:
        return f"# {rng.choice(['solution', 'answer', 'done'])}\n{code}"
    return f"{code}\n" if kind == 1 else code.replace(" = ", "  =  ").replace("'", '"')


def cases(n: int, *, seed: Seed, skills: tuple[Skill, ...] = SKILLS) -> dict[str, list[Case]]:
    """n cases for each skill, answered by its oracle."""
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    found = {}
    for skill, child in zip(skills, root.spawn(len(skills)), strict=True):
        rng = np.random.default_rng(child)
        found[skill.name] = cases_by(skill.reference, skill.name, (skill.draw(rng) for _ in range(n)))
    return found


def paths(
    problems: int, k: int, *, p: float, answers: int = 10, shared: float = 0.0, seed: Seed
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Truths (problems,) and k answers (problems, k) among `answers` possible ones, right with probability p.

    Of a share `shared` of the problems all paths give the same wrong answer.
    """
    if answers < 2 or not 0 <= p <= 1 or not 0 <= shared <= 1:
        raise InvalidArgument("p, answers, shared", (p, answers, shared), "shares from 0 to 1, at least 2 answers")
    rng = np.random.default_rng(seed)
    truth = rng.integers(answers, size=problems)
    wrong = (truth[:, None] + rng.integers(1, answers, (problems, k))) % answers
    given = np.where(rng.random((problems, k)) < p, truth[:, None], wrong)
    misled = rng.random(problems) < shared
    return truth, np.where(misled[:, None], wrong[:, :1], given)
