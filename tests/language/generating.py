"""A task, its model, and its files, for the tests of `synthbook generate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from synthbook.language.messages import ChatRequest, scripted_model
from synthbook.language.records import read_jsonl
from synthbook.language.task import runner as engine
from synthbook.language.task.config import TaskConfig
from synthbook.language.task.runner import GenerationResult
from tests.language.rude import Handler, completion
from tests.language.test_task import SEEDS, WHOLE, written

FILTERS = """[filters]
min_length = 8
max_length = 39
near_duplicates = 0.6
copies_of_seeds = 0.5
label = "tone"
balance = "tone"
"""
TASK = WHOLE + FILTERS + "[model]\nprices = {input = 2, output = 4}\n"
WORDS = ("tall", "red", "old", "soft", "loud", "quick", "warm", "dear", "odd", "plain")
SECRET = "sk-never-to-be-written"


def says(seed: int) -> str:
    """What the model answers: mostly of the form, at times a copy, cut off, too short, or no JSON."""
    rng = np.random.default_rng(seed)
    kind, text = rng.random(), " ".join(rng.choice(WORDS, 6, replace=False))
    if kind < 0.1:
        return "Certainly! Here is your review."
    if kind < 0.2:
        text = str(SEEDS[int(rng.integers(6))]["text"])
    elif kind < 0.3:
        text = "no"
    return json.dumps({"text": text, "stars": int(rng.integers(1, 7 if kind < 0.35 else 6))})


def answers(handler: Handler, body: dict[str, Any]) -> None:
    handler.reply(completion(says(body["seed"])))


def command(folder: Path, *more: str, n: int = 12) -> list[str]:
    return ["generate", str(folder / "task.toml"), "-n", str(n), "--out", str(folder / "data.jsonl"), *more]


def reported(folder: Path, *more: str, n: int = 12) -> list[str]:
    return command(folder, "--report", str(folder / "report.html"), *more, n=n)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_jsonl(path)]


def new(tmp_path: Path, name: str, toml: str = TASK) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    written(folder, toml)
    return folder


def result(
    some: TaskConfig,
    n: int,
    answer: Callable[[ChatRequest], str] | None = None,
    module: ModuleType = engine,
    **how: Any,
) -> GenerationResult:
    return module.generate(some, scripted_model(answer or (lambda request: says(request.seed))), n, **how)  # type: ignore[no-any-return]
