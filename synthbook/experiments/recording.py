"""Record a live model's answers for section 4 in the file that the notebooks replay."""

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

# ── All requests of section 4 to a real model: messages, sums, programs, judgements, rewordings, dialogues ──
# Each function takes a model and the number of a draw, sends the same requests for the same draw, and returns records.
# So all answers can be recorded once, live, and replayed from a file that `synthbook dev record` writes.


_CACHE, _LOG = "artifacts/replay/smollm2.jsonl", "artifacts/replay/smollm2.log.json"  # of `synthbook dev record`
_N_SEEDS = 5
_SEEDS_OF_EACH, _MESSAGES_OF_EACH, N_WORD_PROBLEMS, _PROGRAMS_OF_EACH = 40, 100, 500, 12
_MODEL_NAME = "SmolLM2-135M-Instruct"
_N_STATEMENTS = 60  # to paraphrase
_N_PAIRS = 40  # to judge
_N_PASSAGES = 24
_ROUNDS = 15  # of self-instruct


def replay() -> ResponseCache:
    """The answers that come with the book, read-only."""
    return ResponseCache(data_folder() / _CACHE, model=SHA256, read_only=True)


def recorded_usage() -> dict[str, float]:
    """The number of answers that come with the book, the tokens in them, and the minutes that they took."""
    n_tokens = [line["tokens"][1] for _, line in read_jsonl(data_folder() / _CACHE) if "tokens" in line]
    minutes = sum(usage["seconds"] for usage in json.loads(read_data(_LOG))["experiments"].values()) / 60
    return {"answers": len(n_tokens), "tokens": sum(n_tokens), "minutes": minutes}


# ── messages ──


def messages(model: ChatModel, seed: int) -> tuple[SeedExamples, list[Record]]:
    """Eighty real messages, and the model's messages after few-shot prompts of them."""
    train = sms_spam().train
    seeds = SeedExamples.sample(train.texts, train.labels, _SEEDS_OF_EACH, seed=seed)
    requests = list(grounded_qa.few_shot_requests(seeds, _MESSAGES_OF_EACH, seed=seed))
    return seeds, grounded_qa.few_shot_records(
        requests, model(request for request, _ in requests), model_name=_MODEL_NAME
    )


def verified_messages(seeds: SeedExamples, records: Sequence[Record]) -> tuple[list[Record], list[StageStats]]:
    """Messages that match the schema, copy no seed or each other, and whose label a classifier of the seeds shares."""
    classifier = grounded_qa.classifier().fit(list(seeds.texts), list(seeds.labels))
    flow, ledger = run_pipeline(records, {"form": match_schema(LabeledMessage)})
    stages: dict[str, Stage] = {
        "no copy of a seed": grounded_qa.drop_seed_copies(seeds),
        "exact duplicates": drop_exact_duplicates(),
        "near duplicates": drop_near_duplicates(),
        "label": grounded_qa.label_agrees(classifier),
    }
    flow, more = run_pipeline([grounded_qa.parse_message(record) for record in flow], stages)
    verified = list(flow)
    smallest = min(sum(record.label == label for record in verified) for label in grounded_qa.LABEL_DESCRIPTIONS)
    flow, last = run_pipeline(verified, {"balance": cap_per_class(max(smallest, 1))})
    return list(flow), ledger + more + last  # the list first: a ledger is complete once its flow has been read


# ── sums and programs ──


def solve_word_problems(model: ChatModel, seed: int) -> tuple[list[Record], dict[str, WordProblem]]:
    """Answers to word problems, and the problem of each by its record's id."""
    requests = list(word_problems.word_problem_requests(N_WORD_PROBLEMS, seed=seed))
    records, problems = [], {}
    for k, (answer, (_, problem)) in enumerate(zip(model(r for r, _ in requests), requests, strict=True)):
        provenance = {"model": _MODEL_NAME, "tokens": answer.completion_tokens}
        records.append(Record(f"{k:04d}", problem.text, answer.text.strip(), problem.kind, provenance))
        problems[f"{k:04d}"] = problem
    return records, problems


def programs(model: ChatModel, seed: int) -> list[Record]:
    """Small functions, as the model wrote them."""
    requests = list(word_problems.function_requests(_PROGRAMS_OF_EACH, seed=seed))
    records = []
    for k, (answer, (request, name)) in enumerate(zip(model(r for r, _ in requests), requests, strict=True)):
        provenance = {"model": _MODEL_NAME, "tokens": answer.completion_tokens}
        records.append(Record(f"{k:04d}", request.messages[-1].content, answer.text, name, provenance))
    return records


def tokens(records: Sequence[Record]) -> int:
    """Generated tokens, those of dropped records included."""
    return sum(int(record.provenance["tokens"]) for record in records)


def visible_sums(
    records: Sequence[Record], problems: Mapping[str, WordProblem], sandbox: Sandbox
) -> tuple[list[Record], list[StageStats]]:
    """Answers that are correct on visible cases."""
    flow, ledger = run_pipeline(records, {"visible cases": word_problems.visible_cases_pass(problems, sandbox)})
    return list(flow), ledger


def visible_programs(records: Sequence[Record], sandbox: Sandbox) -> tuple[list[Record], list[StageStats]]:
    """Programs that pass the visible cases."""
    stage = pass_tests(word_problems.function_cases(hidden=False), sandbox)
    flow, ledger = run_pipeline(records, {"visible cases": stage})
    return list(flow), ledger


# ── judgements, rewordings, dialogues, instructions ──


def judge_pairs(model: ChatModel, seed: int = 0) -> dict[str, PairwiseScore]:
    """The model's preference for right sums over wrong ones, and for long ones over short ones, both right."""
    rng, pool = np.random.default_rng([seed, 46]), word_problems.problems(held_out=True)
    sampled = [pool[i] for i in rng.choice(len(pool), _N_PAIRS, replace=False)]
    pairs = {
        "right": [
            Pair(p.text, p.sum, f"{p.a} {p.operator} {p.b} = {p.answer + int(rng.integers(1, 5))}") for p in sampled
        ],
        "longer": [Pair(p.text, f"Let us see. We compute {p.sum}. The answer is {p.answer}.", p.sum) for p in sampled],
    }
    return {name: score_pairs(list(model(pairwise_requests(several)))) for name, several in pairs.items()}


def paraphrase(model: ChatModel, seed: int = 0) -> list[tuple[str, str, bool | None]]:
    """Statements, the model's paraphrases of them, and whether these preserve the label."""
    rng = np.random.default_rng([seed, 47])
    texts = [augment.statement(rng) for _ in range(_N_STATEMENTS)]
    answers = [answer.text for answer in model(augment.paraphrase_requests(texts, seed=seed))]
    return [(text, a.strip(), augment.label_preserved(text, a)) for text, a in zip(texts, answers, strict=True)]


def dialogues(model: ChatModel, seed: int = 0) -> list[Record]:
    """Two turns about each of a few passages of Jane Austen's."""
    novels = austen().train
    passages = grounded_qa.passages(novels.texts, novels.labels, _N_PASSAGES, seed=seed)
    return grounded_qa.dialogues(model, passages, seed=seed)


def instructions(model: ChatModel, seed: int = 0) -> tuple[TaskPool, list[tuple[Task, str | None]]]:
    """A pool of tasks that the model grew, and its tasks with an instance each and the fault of it, if any."""
    pool = grow_pool(model, seed_tasks(), rounds=_ROUNDS, seed=seed)
    return pool, list(generate_instances(model, pool, seed=seed))


RECORDED: Mapping[str, Callable[[ChatModel], Any]] = {  # by name, for `synthbook dev record`
    **{
        f"{name} {seed}": partial(function, seed=seed)
        for name, function in {"messages": messages, "sums": solve_word_problems, "programs": programs}.items()
        for seed in range(_N_SEEDS)
    },
    "judged": judge_pairs,
    "reworded": paraphrase,
    "dialogues": dialogues,
    "instructions": instructions,
}


# ── Recording ──


def record(
    endpoint: Endpoint,
    out: Path,
    *,
    resume: bool = False,
    only: str | None = None,
    callback: Callable[[int, int], None] = lambda done, n: None,
) -> dict[str, Any]:
    """Send the requests of every experiment, or of those whose name starts with `only`; write cache and log beside it.

    `resume` continues a run that was stopped and repeats no request. Returns the log. Raises `InvalidArgument`,
    `ModelError`.
    """
    chosen = {name: function for name, function in RECORDED.items() if only is None or name.startswith(only)}
    if not chosen:
        raise InvalidArgument("only", only, f"the beginning of one of {', '.join(RECORDED)}")
    if out.exists() and not resume:
        raise InvalidArgument("out", str(out), "a new file, or --resume to go on with it")
    client, path = Client(endpoint, cache=ResponseCache(out, model=endpoint.fingerprint)), out.with_suffix(".log.json")
    log: dict[str, Any] = {"model": endpoint.model, "pinned": endpoint.fingerprint, "experiments": {}}
    if resume and path.exists():
        log["experiments"] = json.loads(path.read_text())["experiments"]
    parents = {endpoint.model: endpoint.fingerprint}
    provenance = Provenance(f"answers of {endpoint.model}", "synthbook dev record", parents, 1, 1.0)
    for k, (name, function) in enumerate(chosen.items()):
        callback(k, len(chosen))
        before, start = asdict(client.usage), time.perf_counter()
        function(client.chat)
        usage = {key: value - before[key] for key, value in asdict(client.usage).items() if key != "cost"}
        if usage["requests"]:  # else all answers were in the cache, and their cost in the log
            log["experiments"][name] = usage | {"seconds": round(time.perf_counter() - start, 1)}
            write_with_provenance(path, json.dumps(log, indent=1) + "\n", provenance)
    callback(len(chosen), len(chosen))
    write_with_provenance(out, list(canonical_lines(out)), provenance)
    return log
