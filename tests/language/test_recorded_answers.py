"""The answers that come with the book are found again, whatever classes and attributes are called."""

from __future__ import annotations

import pytest

from synthbook.core.storage import sha256, strict_json
from synthbook.experiments import recording
from synthbook.language.client import Client
from synthbook.language.grounded_qa import LabeledMessage, QAPair
from synthbook.language.messages import ChatRequest, Message, SamplingParams
from synthbook.language.self_instruct import InputFirst, OutputFirst

SCHEMAS = {
    LabeledMessage: "2ab6b1179f58b66c",
    QAPair: "09601a96990484d4",
    InputFirst: "7dab1aeea51a1ce4",
    OutputFirst: "128dc12f02e5fd67",
}


@pytest.mark.parametrize("form", SCHEMAS, ids=lambda form: str(form.__name__))
def test_a_schema_that_is_hashed_into_recorded_keys_does_not_change(form) -> None:  # type: ignore[no-untyped-def]
    assert sha256(strict_json(form.model_json_schema()).encode())[:16] == SCHEMAS[form]


def test_the_key_of_a_request_is_a_hash_of_plain_json() -> None:
    sampling = SamplingParams(0.5, 0.9, 16, ("\n",), {"type": "string"}, 3)
    request = ChatRequest((Message("system", "Be brief."), Message("user", "Hello")), sampling, 7)
    assert request.cache_key("m") == "d2819a4d4333a2f62b8ec004ed4bba1245a2783ae78ccfaa2b7c71b5bd1e3f3f"


@pytest.mark.slow
def test_every_recorded_answer_is_asked_for_by_an_experiment_and_none_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, requested = recording.replay(), set()
    original = cache.get

    def get(request: ChatRequest):  # type: ignore[no-untyped-def]
        requested.add(request.cache_key(cache.model))
        return original(request)

    monkeypatch.setattr(cache, "get", get)
    for experiment in recording.RECORDED.values():
        experiment(Client(None, cache=cache).chat)
    assert requested == cache._answers.keys() and len(requested) == 4_682
