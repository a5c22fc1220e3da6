"""Asking a model everything that section 4 asks, once and live, into the file that the notebooks replay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance, write_with_provenance
from synthbook.datasets import austen, data_folder, read_data, sms_spam
from synthbook.language import augment, grounded_qa, word_problems
from synthbook.language import grounded_qa as few_shot
from synthbook.language.cache import ResponseCache, canonical_lines
from synthbook.language.client import Client, Endpoint
from synthbook.language.filters.judge import Pair, PairwiseScore, pairwise_requests, score_pairs
from synthbook.language.grounded_qa import LabeledMessage, SeedExamples
from synthbook.language.messages import ChatModel
from synthbook.language.pipeline import (
    Stage,
    StageStats,
    cap_per_class,
    drop_exact_duplicates,
    drop_near_duplicates,
    match_schema,
    pass_tests,
    run_pipeline,
)
from synthbook.language.records import Record, read_jsonl
from synthbook.language.sandbox.pool import Sandbox
from synthbook.language.self_instruct import Task, TaskPool, generate_instances, grow_pool, seed_tasks
from synthbook.language.server import SHA256
from synthbook.language.word_problems import WordProblem

# ── Everything that section 4 asks of a real model: messages, sums, programs, judgements, rewordings, dialogues ──
# Each experiment takes a model and the number of a draw, asks the same questions for the same draw, and returns
# records. So all can be asked once, live, and replayed from a file: `synthbook dev record` writes it.


CACHE, LOG = "artifacts/replay/smollm2.jsonl", "artifacts/replay/smollm2.log.json"  # of `synthbook dev record`
_N_SEEDS = 5
_SEEDS_OF_EACH, _MESSAGES_OF_EACH, N_WORD_PROBLEMS, _PROGRAMS_OF_EACH = 40, 100, 500, 12
_MODEL_NAME = "SmolLM2-135M-Instruct"
_SENTENCES = 60  # statements to reword
_JUDGED = 40  # pairs
_DOCUMENTS = 24
_ROUNDS = 15  # of self-instruct


def replay() -> ResponseCache:
    """The answers that come with the book; they are only read."""
    return ResponseCache(data_folder() / CACHE, model=SHA256, read_only=True)


def recorded_usage() -> dict[str, float]:
    """What the answers that come with the book cost: how many they are, the tokens in them, and minutes."""
    answers = [line["tokens"][1] for _, line in read_jsonl(data_folder() / CACHE) if "tokens" in line]
    spent = json.loads(read_data(LOG))["experiments"].values()
    minutes = sum(one["seconds"] for one in spent) / 60
    return {"answers": len(answers), "tokens": sum(answers), "minutes": minutes}


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def messages(model: ChatModel, seed: int) -> tuple[SeedExamples, list[Record]]:
    """Eighty real messages, and what the model writes after them."""
    train = sms_spam().train
    seeds = SeedExamples.sample(train.texts, train.labels, _SEEDS_OF_EACH, seed=seed)
    asked = list(few_shot.few_shot_requests(seeds, _MESSAGES_OF_EACH, seed=seed))
    return seeds, few_shot.few_shot_records(asked, model(request for request, _ in asked), model_name=_MODEL_NAME)


def verified_messages(seeds: SeedExamples, records: Sequence[Record]) -> tuple[list[Record], list[StageStats]]:
    """Those that have the form, copy neither seeds nor each other, and whose label a classifier of the seeds shares."""
    known = few_shot.classifier().fit(list(seeds.texts), list(seeds.labels))
    flow, ledger = run_pipeline(records, {"form": match_schema(LabeledMessage)})
    stages: dict[str, Stage] = {
        "no copy of a seed": few_shot.drop_seed_copies(seeds),
        "exact duplicates": drop_exact_duplicates(),
        "near duplicates": drop_near_duplicates(),
        "label": few_shot.label_agrees(known),
    }
    flow, more = run_pipeline([few_shot.parse_message(record) for record in flow], stages)
    kept = list(flow)
    fewest = min(sum(record.label == label for record in kept) for label in few_shot.LABEL_DESCRIPTIONS)
    flow, last = run_pipeline(kept, {"balance": cap_per_class(max(fewest, 1))})
    return list(flow), ledger + more + last  # the list is made first: a ledger is whole when its flow was read


# ── sums and programs ────────────────────────────────────────────────────────────────────────────────────────────────


def solve_word_problems(model: ChatModel, seed: int) -> tuple[list[Record], dict[str, WordProblem]]:
    """Answers to word problems, and the problem of each by its record's id."""
    asked = list(word_problems.word_problem_requests(N_WORD_PROBLEMS, seed=seed))
    records = [
        Record(f"{k:04d}", problem.text, answer.text.strip(), problem.kind, _told(answer.completion_tokens))
        for k, (answer, (_, problem)) in enumerate(zip(model(request for request, _ in asked), asked, strict=True))
    ]
    return records, {record.id: problem for record, (_, problem) in zip(records, asked, strict=True)}


def programs(model: ChatModel, seed: int) -> list[Record]:
    """Small functions, as they were written."""
    asked = list(word_problems.function_requests(_PROGRAMS_OF_EACH, seed=seed))
    return [
        Record(f"{k:04d}", request.messages[-1].content, answer.text, name, _told(answer.completion_tokens))
        for k, (answer, (request, name)) in enumerate(zip(model(request for request, _ in asked), asked, strict=True))
    ]


def _told(tokens: int) -> dict[str, Any]:
    return {"model": _MODEL_NAME, "tokens": tokens}


def tokens(records: Sequence[Record]) -> int:
    """Tokens that were written, drops included."""
    return sum(int(record.provenance["tokens"]) for record in records)


def visible_sums(
    records: Sequence[Record], problems: Mapping[str, WordProblem], sandbox: Sandbox
) -> tuple[list[Record], list[StageStats]]:
    """Sums that are right on visible cases."""
    flow, ledger = run_pipeline(records, {"visible cases": word_problems.visible_cases_pass(problems, sandbox)})
    return list(flow), ledger


def visible_programs(records: Sequence[Record], sandbox: Sandbox) -> tuple[list[Record], list[StageStats]]:
    """Programs that are right on visible cases."""
    flow, ledger = run_pipeline(
        records, {"visible cases": pass_tests(word_problems.function_cases(hidden=False), sandbox)}
    )
    return list(flow), ledger


# ── judging, rewording, talking ──────────────────────────────────────────────────────────────────────────────────────


def judge_pairs(model: ChatModel, seed: int = 0) -> dict[str, PairwiseScore]:
    """What the model prefers: right sums to wrong ones; long ones to short ones, both right ("better": the long)."""
    rng, pool = np.random.default_rng([seed, 46]), word_problems.problems(held_out=True)
    chosen = [pool[i] for i in rng.choice(len(pool), _JUDGED, replace=False)]
    is_correct = [
        Pair(p.text, p.sum, f"{p.a} {p.operator} {p.b} = {p.answer + int(rng.integers(1, 5))}") for p in chosen
    ]
    longer = [Pair(p.text, f"Let us see. We compute {p.sum}. The answer is {p.answer}.", p.sum) for p in chosen]
    return {
        name: score_pairs(list(model(pairwise_requests(some))))
        for name, some in {"right": is_correct, "longer": longer}.items()
    }


def paraphrase(model: ChatModel, seed: int = 0) -> list[tuple[str, str, bool | None]]:
    """Statements, the model's rewordings of them, and whether they are as true as before."""
    rng = np.random.default_rng([seed, 47])
    texts = [augment.statement(rng) for _ in range(_SENTENCES)]
    answers = list(model(augment.paraphrase_requests(texts, seed=seed)))
    return [
        (text, a.text.strip(), augment.label_preserved(text, a.text)) for text, a in zip(texts, answers, strict=True)
    ]


def dialogues(model: ChatModel, seed: int = 0) -> list[Record]:
    """Two turns about each of some passages of Jane Austen's."""
    novels = austen().train
    return grounded_qa.dialogues(
        model, grounded_qa.passages(novels.texts, novels.labels, _DOCUMENTS, seed=seed), seed=seed
    )


def instructions(model: ChatModel, seed: int = 0) -> tuple[TaskPool, list[tuple[Task, str | None]]]:
    """A pool of tasks that the model grew, and its tasks with an instance each and what is wrong with it."""
    pool = grow_pool(model, seed_tasks(), rounds=_ROUNDS, seed=seed)
    return pool, list(generate_instances(model, pool, seed=seed))


RECORDED: Mapping[str, Callable[[ChatModel], Any]] = {  # by name, for `synthbook dev record`
    **{
        f"{name} {seed}": partial(asked, seed=seed)
        for name, asked in {"messages": messages, "sums": solve_word_problems, "programs": programs}.items()
        for seed in range(_N_SEEDS)
    },
    "judged": judge_pairs,
    "reworded": paraphrase,
    "dialogues": dialogues,
    "instructions": instructions,
}


# ── Recording ──


_COMMAND = "synthbook dev record"


def record(
    endpoint: Endpoint,
    out: Path,
    *,
    resume: bool = False,
    only: str | None = None,
    callback: Callable[[int, int], None] = lambda done, n: None,
) -> dict[str, Any]:
    """Ask the questions of every experiment, or of `only` one; write cache and log, and return the log.

    A run that was stopped goes on with `resume`, and asks nothing twice. Raises `InvalidArgument`, `ModelError`.
    """
    chosen = {name: run_pipeline for name, run_pipeline in RECORDED.items() if only is None or name.startswith(only)}
    if not chosen:
        raise InvalidArgument("only", only, f"the beginning of one of {', '.join(RECORDED)}")
    if out.exists() and not resume:
        raise InvalidArgument("out", str(out), "a new file, or --resume to go on with it")
    client, path = Client(endpoint, cache=ResponseCache(out, model=endpoint.fingerprint)), _log_of(out)
    log: dict[str, Any] = {"model": endpoint.model, "pinned": endpoint.fingerprint, "experiments": {}}
    if resume and path.exists():
        log["experiments"] = json.loads(path.read_text())["experiments"]
    provenance = Provenance(f"answers of {endpoint.model}", _COMMAND, {endpoint.model: endpoint.fingerprint}, 1, 1.0)
    for k, (name, experiment) in enumerate(chosen.items()):
        callback(k, len(chosen))
        before, start = asdict(client.usage), time.perf_counter()
        experiment(client.chat)
        spent = {key: value - before[key] for key, value in asdict(client.usage).items() if key != "cost"}
        if spent["requests"]:  # else all was there, and what it cost is known
            log["experiments"][name] = spent | {"seconds": round(time.perf_counter() - start, 1)}
            write_with_provenance(path, json.dumps(log, indent=1) + "\n", provenance)
    callback(len(chosen), len(chosen))
    write_with_provenance(out, list(canonical_lines(out)), provenance)
    return log


def _log_of(cache: Path) -> Path:
    """The log beside a cache: what was asked for each experiment, and what it cost."""
    return cache.with_suffix(".log.json")
