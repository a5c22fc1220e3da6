"""The client on a local model beside the least that could do its work: threads that call urllib, on the same server.

Both ask the same questions with the same seeds, eight at a time, in turn; ours also checks, counts and keeps what
comes. Writes bench/results/server.json; with --quick it asks little and writes nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import harness

from synthbook.core.errors import SynthbookError
from synthbook.language import server
from synthbook.language.cache import ResponseCache
from synthbook.language.client import Client, Endpoint, request_body
from synthbook.language.messages import ChatRequest, Message, SamplingParams
from synthbook.language.server import local_server

SLOTS, CONTEXT, TOKENS = 8, 512, 48
ROUNDS, QUESTIONS = 5, 50
OURS, BARE = "synthbook's client", "threads and urllib"
THINGS = ("a lighthouse", "an old violin", "the tide", "a night train", "bread", "a compass", "snow", "a market")


def questions(n: int) -> list[ChatRequest]:
    """Short ones; no two begin alike, so that the server reuses little of what it has read."""
    drawn = SamplingParams(max_tokens=TOKENS)
    texts = [f"{k}. Tell me about {THINGS[k % len(THINGS)]}, in {k + 2} ways." for k in range(n)]
    return [ChatRequest((Message("user", text),), drawn, k) for k, text in enumerate(texts)]


def ours(endpoint: Endpoint, requests: Sequence[ChatRequest]) -> int:
    """Tokens of all answers, asked as the book asks."""
    with tempfile.TemporaryDirectory() as folder:
        client = Client(
            endpoint, cache=ResponseCache(Path(folder) / "a.jsonl", model=endpoint.fingerprint), concurrency=SLOTS
        )
        answers = list(client.chat(requests))
    if len(answers) != len(requests) or client.usage.retries:
        raise SystemExit(f"{client.usage.retries} questions had to be asked again: the server is not well")
    return client.usage.completion_tokens


def bare(endpoint: Endpoint, requests: Sequence[ChatRequest]) -> int:
    """Tokens of all answers, asked by a loop."""
    head = {"Authorization": f"Bearer {endpoint.api_key}", "Content-Type": "application/json"}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def one(request: ChatRequest) -> int:
        body = json.dumps(request_body(request, endpoint.model, request.seed)).encode()
        sent = urllib.request.Request(f"{endpoint.base_url}/chat/completions", body, head)
        with direct.open(sent, timeout=600) as response:
            return int(json.load(response)["usage"]["completion_tokens"])

    with ThreadPoolExecutor(SLOTS) as pool:
        return sum(pool.map(one, requests))


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    rounds, requests = (2, questions(SLOTS)) if quick else (ROUNDS, questions(QUESTIONS))
    subjects: dict[str, Callable[[Endpoint, Sequence[ChatRequest]], int]] = {OURS: ours, BARE: bare}
    speed: dict[str, list[float]] = {name: [] for name in subjects}
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    try:
        with local_server(slots=SLOTS, context=CONTEXT) as endpoint:
            for work in subjects.values():
                work(endpoint, requests[:SLOTS])  # imports and the first reading of the weights
            for k in range(rounds):
                for name in list(subjects)[:: 1 if k % 2 else -1]:
                    began, busy = time.perf_counter(), time.process_time()
                    tokens = subjects[name](endpoint, requests)
                    speed[name].append(tokens / (time.perf_counter() - began))
                    cpu[name].append(1e3 * (time.process_time() - busy) / len(requests))
                    print(f"round {k + 1} of {rounds}: {name}: {speed[name][-1]:.1f} tokens/s", file=sys.stderr)
    except SynthbookError as error:
        raise SystemExit(str(error)) from None
    ratio = median(speed[OURS]) / median(speed[BARE])
    note = (
        f"{len(requests)} questions of at most {TOKENS} tokens, {SLOTS} at a time, to {server.NAME} on this machine's"
        f" cores: the client has {ratio:.2f} of the bare loop's tokens a second, and keeps every answer."
    )
    rows = [["", "tokens a second, median (least–most)", "own CPU, ms an answer"]]
    spreads = {name: harness.spread(values) for name, values in speed.items()}
    for name, values in spreads.items():
        shown = f"{values['median']:.1f} ({values['least']:.1f}–{values['most']:.1f})"
        rows.append([name, shown, f"{median(cpu[name]):.1f}"])
    if quick:
        harness.show(rows, note)
        return
    content = {
        "questions": len(requests),
        "slots": SLOTS,
        "max_tokens": TOKENS,
        "rounds": rounds,
        "model": server.SHA256,
        "tokens_per_second": spreads,
        "cpu_ms_per_answer": {name: harness.spread(values) for name, values in cpu.items()},
        "ratio": ratio,
        "machine": harness.machine("openai", "xllamacpp"),
    }
    harness.save_result("server", "Asking a local model", note, rows, content)


if __name__ == "__main__":
    main()
