"""One way to talk to a language model: on this machine, on a cluster, or a hosted one; only the address changes.

Questions go out side by side and answers come back in their order. What fails for a moment is asked again, after twice
as long each time; what fails for good ends in an error that says why. Each answer is kept in a `Replay` as it comes.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from threading import Lock

from synthbook.core.errors import InvalidArgument
from synthbook.core.files import sha256
from synthbook.language.chat import Answer, Ask
from synthbook.language.endpoint import URL, Endpoint, ModelError
from synthbook.language.exchange import Passing, answered, connect, start
from synthbook.language.replay import NotRecorded, Replay

LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
AHEAD = 4  # questions that are read for each one that is out, so that a slow answer holds nobody up


@dataclass(frozen=True)
class Patience:
    """Seconds for one try, tries for one answer, and seconds before the second try, doubled for each further one."""

    seconds: float = 120.0
    tries: int = 5
    wait: float = 0.5

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.tries < 1 or not 0 <= self.wait < inf:
            given = (self.seconds, self.tries, self.wait)
            raise InvalidArgument("patience", given, "more than 0 seconds, at least 1 try, a wait of at least 0")


@dataclass
class Spent:
    """What a client's answers cost: tokens and money of live ones, the latter in the currency of the prices.

    Empty answers that were asked for again have cost tokens, too.
    """

    asked: int = 0
    replayed: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Client:
    """Asks the model at `endpoint`, and keeps its answers in `replay`. `prices`: of a million tokens, in and out.

    Without an endpoint it answers from the cache alone, and raises `NotRecorded` for what is not there. Each question
    must find its answer in `patience`. `sleep` stands in for waiting, in tests.
    """

    def __init__(
        self,
        endpoint: Endpoint | None,
        *,
        replay: Replay | None = None,
        concurrency: int = 8,
        patience: Patience | None = None,
        prices: tuple[float, float] = (0.0, 0.0),
        sleep: Callable[[float], None] | None = None,
    ):
        if not 1 <= concurrency <= 1_000:
            raise InvalidArgument("concurrency", concurrency, "from 1 to 1000 questions side by side")
        if endpoint is None and replay is None:
            raise InvalidArgument("endpoint", None, f"an endpoint ({URL}, or `local_server()`), or a cache to replay")
        if replay is not None and endpoint is not None and replay.model != endpoint.pinned:
            raise InvalidArgument("replay", replay.model, f"a cache of the model that is asked, {endpoint.pinned}")
        self.endpoint, self.replay, self.concurrency = endpoint, replay, concurrency
        self.patience, self.prices, self.spent = patience or Patience(), prices, Spent()
        self._sleep, self._lock = sleep, Lock()
        self._connection = None if endpoint is None else connect(endpoint)

    def ask(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """An answer for each question, in their order; questions are read some way ahead of the answers.

        Raises `ModelError`, `NotRecorded`, and `SynthbookError` where the cache cannot be written. Where it ends early,
        questions that are out are given up.
        """
        waiting: deque[Future[Answer]] = deque()
        gate = asyncio.Semaphore(self.concurrency)
        try:
            for ask in asks:
                waiting.append(self._begun(ask, gate))
                while waiting and (waiting[0].done() or len(waiting) >= AHEAD * self.concurrency):
                    yield waiting[0].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0].result()
                waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    def _begun(self, ask: Ask, gate: asyncio.Semaphore) -> Future[Answer]:
        """The answer to come: from the cache, else live, and then kept."""
        known: Future[Answer] = Future()
        if self.replay is not None and (kept := self.replay.get(ask)) is not None:
            self._count(replayed=1)
            known.set_result(kept)
        elif self.endpoint is None:
            name = self.replay.path.name if self.replay is not None else "the cache"
            words = f"{name} has no such answer, and there is no model: synthbook models fetch smollm2 gets one"
            known.set_exception(NotRecorded(words))
        else:
            return start(self._live(self.endpoint, ask, gate))
        return known

    async def _live(self, endpoint: Endpoint, ask: Ask, gate: asyncio.Semaphore) -> Answer:
        async with gate:
            answer = await self._tried(endpoint, ask)
        self._count(asked=1)
        return answer if self.replay is None else self.replay.put(ask, answer)

    async def _tried(self, endpoint: Endpoint, ask: Ask) -> Answer:
        """An answer, in a few tries. After an empty one another seed is tried; if all are empty, that is the answer."""
        assert self._connection is not None
        empty, failed = 0, Passing("")
        for k in range(self.patience.tries):
            if k:
                self._count(retried=1)
                if failed.empty is None:
                    await self._wait(self.patience.wait * 2 ** (k - 1), failed.wait)
            seed = ask.seed if not empty else int(sha256(f"{ask.seed} {empty}".encode())[:8], 16) & 0x7FFFFFFF
            try:
                answer = await answered(self._connection, endpoint, ask, seed=seed, seconds=self.patience.seconds)
            except Passing as error:
                failed = error
            else:
                self._count(answer)
                return answer
            if failed.empty is not None:
                self._count(failed.empty)
                empty += 1
        if failed.empty is not None:
            return failed.empty
        kept = "" if self.replay is None else ". What was answered before is kept"
        raise ModelError(
            f"{endpoint.model} at {endpoint.url} gave no answer in {self.patience.tries} tries, at last because of"
            f" this: {failed}. To mend it, {endpoint.remedy}{kept}"
        )

    async def _wait(self, doubled: float, least: float) -> None:
        drawn = doubled * random.uniform(0.5, 1)  # so that not all come back at once
        seconds = min(max(drawn, least), LONGEST_WAIT)
        if self._sleep is None:
            await asyncio.sleep(seconds)
        else:
            self._sleep(seconds)

    def _count(self, answer: Answer | None = None, *, asked: int = 0, replayed: int = 0, retried: int = 0) -> None:
        with self._lock:
            self.spent.asked += asked
            self.spent.replayed += replayed
            self.spent.retried += retried
            if answer is not None:
                paid, given = answer.prompt_tokens, answer.completion_tokens
                self.spent.prompt_tokens += paid
                self.spent.completion_tokens += given
                self.spent.cost += (paid * self.prices[0] + given * self.prices[1]) / 1e6
