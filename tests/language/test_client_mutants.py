"""Broken clients and caches fail the tests of whole ones."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from synthbook.language import cache as replay
from synthbook.language import client as client_module
from synthbook.language import client as exchange
from tests.language import asking, test_cache, test_client
from tests.language.rude import (
    Rude,
)
from tests.mutation import mutant


@pytest.fixture
def checks(server: Rude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    proxy = test_client.test_this_machine_is_reached_round_every_proxy_and_others_through_it
    another = test_cache.TOLD.replace("0123456789abcdef", "fedcba9876543210")
    return {
        "cut": lambda: test_cache.test_a_line_that_was_being_written_is_cut_off(tmp_path),
        "hostile": lambda: test_cache.test_an_answer_stays_within_its_record_whatever_it_says(tmp_path),
        "damaged": lambda: test_cache.test_a_damaged_line_is_named_and_left(another, False, tmp_path),
        "mixed": lambda: test_cache.test_answers_of_another_model_are_not_mixed(tmp_path),
        "thesis": lambda: test_cache.test_a_file_of_something_else_is_never_cut(b"my thesis", tmp_path),
        "first": lambda: test_cache.test_the_first_answer_that_is_kept_is_the_answer(server, tmp_path),
        "out": lambda: test_client.test_answers_keep_the_order_and_no_more_are_out_than_allowed(3, server),
        "ahead": lambda: test_client.test_questions_without_end_are_read_a_bounded_way_ahead(server),
        "stops": lambda: test_client.test_who_stops_listening_gives_up_what_is_out_and_what_is_queued(server, tmp_path),
        "waits": lambda: test_client.test_waiting_doubles_and_is_as_long_as_the_server_wants(server),
        "empty": lambda: test_client.test_an_empty_answer_is_asked_for_again_with_another_seed(server),
        "kept": lambda: test_client.test_what_was_paid_is_counted(server, tmp_path),
        "late": lambda: test_client.test_a_try_ends_in_its_time_however_the_answer_is_drawn_out("drips a head", server),
        "proxy": lambda: proxy(server, monkeypatch),
        "halves": lambda: test_cache.test_a_live_answer_holds_whole_characters_alone(server, tmp_path),
        "sent": lambda: test_client.test_what_is_sent(server),
        "theirs": lambda: test_client.test_what_openais_variables_name_is_for_another_server(server, monkeypatch),
    }


IN_REPLAY = [
    ('            if not raw.endswith(b"\\n"):\n                return\n', "", "cut"),
    ("                truncate_partial_line(self.path)", "                pass", "cut"),
    ("strict_json(document).translate(SEPARATORS)", "strict_json(document)", "hostile"),
    ('text.encode(errors="backslashreplace").decode()', "text", "hostile"),
    (" if name in prompts:", ":", "damaged"),
    ('elif line["model"] == self.model:', "elif True:", "mixed"),
    ("if not FIRST.startswith(", "if not print and (", "thesis"),
    ("return self._answers[key]\n            text", "return answer\n            text", "first"),
]
IN_CLIENT = [
    ("async with gate:", "if gate:", "out"),
    ("len(waiting) >= AHEAD * self.concurrency", "False", "ahead"),
    ("future.cancel()", "pass", "stops"),
    ("self.retry.initial_backoff * 2 ** (k - 1)", "self.retry.initial_backoff", "waits"),
    ("max(drawn, least)", "drawn", "waits"),
    ("self._count(failed.empty)", "pass", "empty"),
    ("seed = request.seed if not empty else", "seed = request.seed if True else", "empty"),
    ("self.cache.put(request, answer)", "answer", "kept"),
]
IN_EXCHANGE = [
    ("asyncio.timeout(seconds)", "asyncio.timeout(2.1)", "late"),
    ("trust_env=not endpoint.loopback", "trust_env=True", "proxy"),
    ("trust_env=not endpoint.loopback", "trust_env=False", "proxy"),
    ('SURROGATES.sub("\\ufffd", endpoint.without_key(part))', "endpoint.without_key(part)", "halves"),
    ("if drawn.schema is not None:", "if False:", "sent"),
    ('"seed": seed,', "", "sent"),
    ("set(request.headers) - HEADERS:", "():", "theirs"),
    ('request.headers["authorization"] = f"Bearer {endpoint.api_key}"', "pass", "theirs"),
]


MUTANTS = [(replay, *row) for row in IN_REPLAY]
MUTANTS += [(client_module, *row) for row in IN_CLIENT] + [(exchange, *row) for row in IN_EXCHANGE]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new", "check"), MUTANTS)
def test_broken_ones_are_found_out(
    module: ModuleType,
    old: str,
    new: str,
    check: str,
    checks: dict[str, Callable[[], None]],
    server: Rude,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(mutant(module, old, new), module, monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        checks[check]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "same", "names"),
    [
        (replay, "class CacheMiss", ("cut", "hostile", "damaged", "mixed", "thesis")),
        (client_module, "class Usage", ("out", "ahead", "waits", "kept")),
        (exchange, "class TransientError", ("late", "halves")),
    ],
)
def test_whole_ones_are_not(
    module: ModuleType,
    same: str,
    names: tuple[str, ...],
    checks: dict[str, Callable[[], None]],
    server: Rude,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(mutant(module, same, same), module, monkeypatch)
    for name in names:
        for path in tmp_path.iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        server.bodies.clear()
        server.most_out = 0
        checks[name]()


def use(broken: ModuleType, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what these test files import from the module by the mutant's."""
    for file in (asking, test_client, test_cache, sys.modules.get("tests.language.test_client_key")):
        for name, value in list(vars(file).items()) if file is not None else ():
            if getattr(value, "__module__", None) == module.__name__ and hasattr(broken, name):
                monkeypatch.setattr(file, name, getattr(broken, name))
