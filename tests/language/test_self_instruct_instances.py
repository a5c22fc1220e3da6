"""Instances of tasks: their requests, their errors, and the ledger."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator

import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.experiments.self_instruct import grammar_model
from synthbook.language.messages import ChatRequest, ChatResponse, scripted_model
from synthbook.language.self_instruct import (
    generate_instances,
    instance_records,
)
from tests.language.authors import (
    bold,
    generated,
    shown,
    watched,
)


def test_a_classification_gets_its_label_first() -> None:
    pool = generated("Decide if this train is late or early.", "Name seven rivers that flow to the north.")

    def answer(request: ChatRequest) -> str:
        if request.messages[-1].content.startswith("Does this task"):
            return '"yes"' if "train" in request.messages[-1].content else '"no"'
        match_schema = list(request.sampling.schema["properties"])  # type: ignore[index]
        told = {"label": "late", "input": "Noon instead of ten.", "output": "the Nile"}
        return json.dumps({name: told[name] for name in match_schema})

    model, heard = watched(scripted_model(answer))
    (first, wrong), (second, also) = list(generate_instances(model, pool))
    assert wrong is None and also is None
    assert (first.classification, first.output, first.input) == (True, "late", "Noon instead of ten.")
    assert (second.classification, second.output) == (False, "the Nile")
    forms = [list(request.sampling.schema["properties"]) for request in heard[2:]]  # type: ignore[index]
    assert forms == [["label", "input"], ["input", "output"]]
    for request, match_schema in zip(heard[2:], forms, strict=True):
        assert [list(json.loads(text)) for text in shown(request)] == [
            match_schema
        ] * 3  # the examples have the same order
    assert shown(heard[0]) == ['"no"', '"yes"'] * 3 and heard[0].sampling.temperature == 0
    assert first.record().label == "classification" and first.record().response == "late"
    assert first.record().prompt == "Decide if this train is late or early.\nNoon instead of ten."


def instance(
    text: str, kind: str = "no", *, finish_reason: str = "stop", instruction: str = "Say where it flows."
) -> str | None:
    """What is found wrong with an answer to the question for an instance."""

    def model(requests: Iterable[ChatRequest]) -> Iterator[ChatResponse]:
        for request in requests:
            yield (
                ChatResponse(kind)
                if request.messages[-1].content.startswith("Does this task")
                else ChatResponse(text, finish_reason)
            )

    ((_, wrong),) = generate_instances(model, generated(instruction))
    return wrong


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"input": "the Nile", "output": "north"}, None),
        ({"input": "", "output": "north"}, None),
        ({"input": "the Nile", "output": " "}, "no output"),
        ({"input": "the Nile", "output": " the Nile."}, "repeats its input"),
        ({"input": "the Nile", "output": "Say where it flows!"}, "repeats its instruction"),
        ({"input": "the Nile:", "output": "north"}, "ends with a colon"),
        ({"input": "the Nile", "output": "It flows to:"}, "ends with a colon"),
        ({"input": "the Nile", "output": "north<|im_end|>"}, "contains a role marker"),
        ({"input": "the Nile\nsystem: obey", "output": "north"}, "contains a role marker"),
    ],
)
def test_faults_of_an_instance_are_named(found: dict[str, str], wrong: str | None) -> None:
    assert instance(json.dumps(found)) == wrong


def test_an_instance_of_another_form_or_cut_off_is_none() -> None:
    assert "JSON" in str(instance("{"))
    assert "output" in str(instance('{"input": "a"}')) and "output" in str(instance('{"input": "a", "output": ""}'))
    assert "input" in str(instance('{"label": "a", "input": ""}', "yes"))
    assert instance('{"label": "north", "input": "the Nile"}', "Yes, it does.") is None
    assert "output" in str(instance('{"label": "north", "input": "the Nile"}', "no, never yes"))
    assert instance('{"input": "a", "output": "b"}', finish_reason="length") == "cut off"


def test_of_several_instances_copies_go_and_one_input_with_two_outputs_discredits_all() -> None:
    def found(*pairs: tuple[str, str]) -> list[tuple[str, str | None]]:
        texts = iter([json.dumps({"input": a, "output": b}) for a, b in pairs])
        model = scripted_model(
            lambda request: '"no"' if request.messages[-1].content.startswith("Does") else next(texts)
        )
        return [(task.id, wrong) for task, wrong in generate_instances(model, generated("Say where it flows."), each=3)]

    assert found(("a", "1"), ("b", "2"), ("a", "1")) == [("g0", None), ("g0.1", None), ("g0.2", "exact duplicate")]
    two = "one input, two outputs"
    assert found(("a", "1"), ("a", "2"), ("b", "2")) == [("g0", two), ("g0.1", two), ("g0.2", two)]
    assert found(("a", "1"), ("a", "a"), ("b", "2"))[1] == ("g0.1", "repeats its input")  # which discredits nobody
    assert [wrong for _, wrong in found(("", "1"), ("", "2"), ("", "3"))] == [None] * 3  # without input many are right
    with pytest.raises(InvalidArgument):
        list(generate_instances(grammar_model(), generated(), each=0))


def test_several_instances_are_different_questions_and_one_is_the_first_of_several() -> None:
    keys = []
    for each in (1, 3):
        model, heard = watched(scripted_model(lambda request: "no"))
        list(generate_instances(model, generated("Say where it flows.", "Say who sings it."), each=each))
        keys.append([request.cache_key("m") for request in heard[2:]])
    assert len(set(keys[1])) == 6 and keys[0] == keys[1][::3]


def test_all_grown_tasks_are_in_the_records_or_in_the_ledger() -> None:
    answers = itertools.cycle(['{"input": "a", "output": "b"}', "{", '{"input": "a", "output": "a"}'])
    model = scripted_model(lambda request: "no" if request.messages[-1].content.startswith("Does") else next(answers))
    pool = generated(*(bold(k) for k in range(7)))
    kept, entry = instance_records(generate_instances(model, pool))
    assert [record.id for record in kept] == ["g0", "g3", "g6"]
    assert (entry.n_in, entry.n_out, entry.reasons.total()) == (7, 3, 4) and len(entry.reasons) == 2
    assert {record.provenance["origin"] for record in kept} == {"round 0"}
