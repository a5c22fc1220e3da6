"""As many records as are wanted, and for every other answer the stage and the reason of its drop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.language.filters.dedup import NearDuplicateIndex, jaccard, shingles
from synthbook.language.messages import ChatResponse, scripted_model
from synthbook.language.task import runner as engine
from synthbook.language.task.config import TaskConfig
from tests.language.generating import (
    TASK,
    result,
    says,
)
from tests.language.test_task import FIELDS, FILE, PROMPT, TONES, WHOLE, read
from tests.mutation import mutant


def test_as_many_are_kept_as_were_wanted_and_all_others_have_a_reason(tmp_path: Path) -> None:
    some, told = read(tmp_path, TASK), list[tuple[int, int]]()
    found = result(some, 40, callback=lambda kept, n: told.append((kept, n)))
    assert len(found.kept) == 40 and not found.stop_reason and told == [(k, 40) for k in range(41)]
    assert len(found.answers) == len(found.passed) == len(found.kept) + len(found.dropped)
    assert found.ledger[0].n_in == len(found.answers) and sum(found.passed) - 40 < 8  # little is asked in vain
    for before, after in zip(found.ledger, found.ledger[1:], strict=False):
        assert before.n_out == after.n_in and before.n_in == before.n_out + sum(before.reasons.values())
    assert sum(found.passed) == found.ledger[-1].n_in and {d.stage for d in found.dropped} >= {
        "form",
        "length",
        "balance",
    }
    ids = [record.id for record in found.kept]
    assert ids == sorted(ids) and not set(ids) & {drop.record.id for drop in found.dropped}
    assert Counter(record.label for record in found.kept) == {"glad": 20, "angry": 20}
    assert found.tokens == (0, 0) and found.cost((1, 1)) == 0


def test_what_is_kept_does_not_depend_on_how_many_are_wanted(tmp_path: Path) -> None:
    some = read(tmp_path, TASK.replace('balance = "tone"', ""))
    few, many = result(some, 10), result(some, 60)
    assert [record.content_hash for record in few.kept] == [record.content_hash for record in many.kept[:10]]
    assert [record.content_hash for record in result(some, 10, seed=1).kept] != [
        record.content_hash for record in few.kept
    ]


def answered(texts: list[str], some: TaskConfig, module: ModuleType = engine) -> list[tuple[str, str]]:
    """The stage at which each of these answers is dropped, and why; "" where it is kept. A last good one ends it."""
    told = [*texts, json.dumps({"text": "the last one is well and good", "stars": 1})]
    model = scripted_model(lambda request: told[min(request.index, len(texts))])
    found = module.generate(some, model, len(told), max_requests=len(told))
    drops = {int(drop.record.id): (drop.stage, drop.reason) for drop in found.dropped}
    return [drops.get(k, ("", "")) for k in range(len(texts))]


GOOD = json.dumps({"text": "a quick red fox and an old one", "stars": 3})
DROPPED = {
    GOOD: "",
    "no JSON": "form",
    " \n": "form",
    json.dumps({"text": "five and a half of six", "stars": 5.5}): "form",
    json.dumps({"text": "one more than was asked for", "stars": 5, "why": "so"}): "form",
    json.dumps({"text": "x" * 41, "stars": 5}): "form",
    json.dumps({"text": "short", "stars": 5}): "length",
    json.dumps({"text": "y" * 40, "stars": 5}): "length",
    json.dumps({"text": "So, A REAL TEXT 3", "stars": 5}): "no copy of a seed",
    json.dumps({"text": "a quick red fox and an old one!", "stars": 4}): "near duplicates",
    json.dumps({"text": "another that nobody said before", "stars": 4}): "",
}
UNBALANCED = TASK.replace('balance = "tone"', "")


def test_each_filter_drops_what_it_is_for(tmp_path: Path) -> None:
    found = answered(list(DROPPED), read(tmp_path, UNBALANCED))
    assert [stage for stage, _ in found] == list(DROPPED.values())
    assert found[2] == ("form", "empty") and found[4][1] == "a key that was not asked for"
    one = PROMPT + '[values]\ntone = ["glad"]\n' + FIELDS + FILE
    assert answered([GOOD, GOOD], read(tmp_path, one))[1] == ("exact duplicates", "exact duplicate")
    assert answered([GOOD, GOOD], read(tmp_path, one + "[filters]\nat_most = 1\nlabel = 'stars'"))[1][0] != ""
    assert answered([GOOD, GOOD, GOOD], read(tmp_path, WHOLE + "[filters]\nbalance = 'stars'\nat_most = 3"))[2][0] != ""


BROKEN = [
    ("if form is not None and not error:", "if False:"),
    ("if filters.min_length is not None or filters.max_length is not None:", "if False:"),
    ("length > high else None", "length > high + 1 else None"),
    ("if filters.copies_of_seeds is not None and task.examples is not None:", "if False:"),
    ("threshold=filters.copies_of_seeds", "threshold=1.0"),
    ("if filters.near_duplicates is not None:", "if False:"),
]


@pytest.mark.parametrize(("old", "new"), BROKEN, ids=[old for old, _ in BROKEN])
def test_an_engine_that_forgets_a_filter_is_caught(old: str, new: str, tmp_path: Path) -> None:
    found = answered(list(DROPPED), read(tmp_path, UNBALANCED), mutant(engine, old, new))
    assert [stage for stage, _ in found] != list(DROPPED.values())


def share_found(memory: NearDuplicateIndex, similar: float) -> float:
    """Of pairs of texts of this Jaccard similarity, those that are told."""
    rng, found = np.random.default_rng(0), list[bool]()
    for k in range(60):
        tokenize = [f"w{k}-{i}" for i in rng.permutation(202)]
        shared = round(400 * similar / (1 + similar))  # of 200 runs of three words in either text
        other = [*tokenize[: shared + 2], *(f"v{k}-{i}" for i in range(200 - shared))]
        assert jaccard(shingles(" ".join(tokenize)), shingles(" ".join(other))) == pytest.approx(similar, abs=0.01)
        found.append(memory.add([" ".join(tokenize), " ".join(other)])[1] is not None)
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 0.8])
def test_near_copies_are_found_whatever_similarity_is_asked_for(threshold: float) -> None:
    assert share_found(engine.near_duplicate_index(threshold), threshold + 0.15) >= 0.9
    assert share_found(engine.near_duplicate_index(threshold), threshold - 0.15) <= 0.1
    assert threshold > 0.3 or share_found(NearDuplicateIndex(threshold=threshold), threshold + 0.15) < 0.5


def test_records_are_balanced_and_what_cannot_be_had_is_refused_at_once(tmp_path: Path) -> None:
    some = read(tmp_path, WHOLE + '[filters]\nbalance = "stars"\nat_most = 4\n')
    found = result(some, 20)
    assert Counter(r.provenance["fields"]["stars"] for r in found.kept) == dict.fromkeys(range(1, 6), 4)
    with pytest.raises(
        InvalidArgument, match=r"n = 21 is not accepted: give at most 20: 4 \(filters.at_most\) of each"
    ):
        result(some, 21)
    unequal = mutant(engine, "(limit := task.at_most(result.n)) is not None", "(limit := None) is not None")
    stars = Counter(r.provenance["fields"]["stars"] for r in result(some, 20, module=unequal).kept)
    assert len(set(stars.values())) > 1


def test_a_yield_without_hope_ends_soon_and_a_low_one_does_not(tmp_path: Path) -> None:
    some = read(tmp_path, WHOLE)
    never = result(some, 100, lambda request: "no JSON")
    assert len(never.answers) == 64 and "of the last 64 answers 0 passed" in never.stop_reason and not never.kept
    seldom = result(some, 30, lambda request: says(request.seed) if request.index % 8 == 0 else "no JSON")
    assert len(seldom.kept) == 30 and not seldom.stop_reason
    dries_up = result(some, 100, lambda request: says(request.seed) if request.index < 60 else "no JSON")
    assert 40 < len(dries_up.kept) < 60 and len(dries_up.answers) < 400 and dries_up.stop_reason
    few = result(some, 30, lambda request: says(request.seed) if request.index % 8 == 0 else "no JSON", max_requests=50)
    assert len(few.answers) == 50 and "limit of 50 requests" in few.stop_reason
    for bad in ({"n": 0}, {"n": 9, "max_requests": 8}):
        with pytest.raises(InvalidArgument):
            result(some, **bad)  # type: ignore[arg-type]


def test_an_answer_that_was_cut_off_or_held_back_is_dropped(tmp_path: Path) -> None:
    some, told = read(tmp_path, PROMPT + TONES), iter(["length", "content_filter", "stop", "eos_token", "stop"])
    texts = ["half a", "nothing", " text 2\n", "text 3", " \n"]
    model = lambda requests: (ChatResponse(texts[request.index], next(told)) for request in requests)  # noqa: E731
    found = engine.generate(some, model, 3, max_requests=5)
    assert [drop.reason for drop in found.dropped] == ["cut off (max_tokens)", "held back by the server", "empty"]
    assert [record.response for record in found.kept] == ["text 2", "text 3"]
