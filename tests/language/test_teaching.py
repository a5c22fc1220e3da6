"""Word problems, edits and noise: a teacher errs as it says, a student learns what it is told, edits do as named."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from synthbook.core.errors import InvalidArgument
from synthbook.datasets import fashion_mnist, sms_spam
from synthbook.experiments import read_results, students
from synthbook.experiments.students import (
    FILTERED_SETS,
    evaluate_students,
    filtered_sets,
    new_classifier,
    noise_trial,
    step_rng,
    train_teacher,
)
from synthbook.language import augment
from synthbook.language.augment import LABEL_CHANGING, LABEL_PRESERVING, oracle, reflection_augmentation, statement
from synthbook.language.filters.verdicts import changed_label_cue, label_disagrees
from synthbook.language.pipeline import run_pipeline
from synthbook.language.records import Record
from synthbook.language.sandbox.pool import Limits, Sandbox
from synthbook.language.word_problems import (
    HIGHEST,
    OPERATIONS,
    NearestNeighborStudent,
    ScriptedMathTeacher,
    arithmetic_holds,
    computed,
)
from tests.mutation import mutant


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Limits(5.0), jobs=2, allow_weak=True) as sandbox:  # sums, written here
        yield sandbox


# ── problems ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_teacher_slips_and_misreads_as_often_as_it_was_told() -> None:
    made = list(
        ScriptedMathTeacher(
            arithmetic_error_rate=0.2, misread_rate=0.1, hard_error_rate=0.5, duplicate_rate=0.0
        ).records(6_000, seed=0)
    )
    for kind, error_rate in (("more", 0.2), ("each", 0.5)):
        some = [record.provenance for record in made if record.label == kind]
        for name, share in (("arithmetic_error", error_rate), ("misread", 0.1)):
            found = np.mean([told[name] for told in some])
            assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(some)), (kind, name)
    repeated = list(ScriptedMathTeacher(duplicate_rate=0.5).records(2_000, seed=1))
    fresh = len({(record.prompt, record.response) for record in repeated})
    assert 650 < fresh < 1_050  # a thousand drawn, some of them by chance alike
    assert [r.to_json_line() for r in ScriptedMathTeacher().records(20, seed=2)] == [
        r.to_json_line() for r in ScriptedMathTeacher().records(20, seed=2)
    ]
    with pytest.raises(InvalidArgument):
        ScriptedMathTeacher(arithmetic_error_rate=1.0)


@pytest.mark.slow
def test_running_finds_slips_and_no_misreading(box: Sandbox) -> None:
    made = list(ScriptedMathTeacher(misread_rate=0.2, duplicate_rate=0.0).records(300, seed=3))
    flow, ledger = run_pipeline(made, {"runs": arithmetic_holds(box)})
    kept = {record.id for record in flow}
    assert all((record.id in kept) is not record.provenance["arithmetic_error"] for record in made)
    assert any(record.provenance["misread"] and record.id in kept for record in made)
    assert ledger[0].reasons == {"does not compute": 300 - len(kept)}
    odd = [Record("a", "p", "2 + 2 = four", "more"), Record("b", "p", "open('x') = 1", "more"), Record("c", "p", "4")]
    flow, _ = run_pipeline(odd, {"runs": arithmetic_holds(box)})
    assert list(flow) == []


def test_a_student_of_all_right_answers_is_right_and_of_slips_wrong() -> None:
    def whole(off: int) -> list[Record]:
        return [
            Record("x", sayings[0].format(a=a, b=b), f"{a} {o} {b} = {computed(a, o, b) + off}", kind)
            for kind, (o, sayings) in OPERATIONS.items()
            for a in range(HIGHEST)
            for b in range(HIGHEST)
        ]

    assert set(NearestNeighborStudent.fit(whole(0)).accuracy().values()) == {1.0}
    assert NearestNeighborStudent.fit(whole(1)).accuracy()["all"] == 0.0
    assert NearestNeighborStudent.fit(whole(0) + whole(1)).accuracy()["all"] == 1.0  # of equals, the lower
    assert NearestNeighborStudent.fit([r for r in whole(0) if r.label == "more"]).accuracy()["each"] < 0.3
    with pytest.raises(InvalidArgument, match="at least one answer"):
        NearestNeighborStudent.fit([Record("a", "p", "no idea")])


@pytest.mark.slow
def test_a_trial_of_teaching_measures_its_sets(box: Sandbox) -> None:
    made, ledger = filtered_sets(list(ScriptedMathTeacher().records(150, seed=0)), box)
    assert [entry.n_out for entry in ledger] == [len(made[entry.stage]) for entry in ledger] and len(ledger) == 3
    assert tuple(made) == FILTERED_SETS
    assert len(made["raw"]) > len(made["filtered"]) > len(made["deduplicated"]) >= len(made["balanced"])
    assert not any(record.provenance["arithmetic_error"] for record in made["filtered"])
    keys = [record.content_hash for record in made["deduplicated"]]
    assert len(set(keys)) == len(keys)
    counts = [sum(record.label == kind for record in made["balanced"]) for kind in OPERATIONS]
    assert len(set(counts)) == 1 and all(record.provenance["correct"] for record in made["clean"])
    found = evaluate_students(made, seed=0)
    assert found["rows"] == min(map(len, made.values())) and found["balanced: bits"] == pytest.approx(
        np.log2(3), abs=1e-3
    )
    assert found["clean: right"] == 1 > found["raw: right"]


# ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_oracle_knows_weights() -> None:
    assert oracle("The parcel weighs 640 grams. It is heavier than 300 grams.")
    assert not oracle("The parcel weighs 640 grams. It is not heavier than 300 grams.")
    assert oracle("It is not heavier than 1 kilograms. The package has a weight of 640 grams.")
    with pytest.raises(ValueError, match="no statement"):
        oracle("The parcel is blue.")


@pytest.mark.slow
def test_preserving_edits_preserve_and_breaking_ones_are_noticed() -> None:
    rng = np.random.default_rng(0)
    said = [statement(rng) for _ in range(1_000)]
    assert 0.4 < np.mean([oracle(text) for text in said]) < 0.6
    for name, edit in LABEL_PRESERVING.items():
        edited = [edit(text, rng) for text in said]
        assert [oracle(text) for text in edited] == [oracle(text) for text in said], name
        assert any(a != b for a, b in zip(said, edited, strict=True))
        assert [changed_label_cue(a, b) for a, b in zip(said, edited, strict=True)] == [None] * 1_000, name
    touched = {"negation dropped": "negation", "digits turned": "number", "unit changed": "unit"}
    for name, edit in LABEL_CHANGING.items():
        edited = [edit(text, rng) for text in said]
        changed = [(a, b) for a, b in zip(said, edited, strict=True) if a != b]
        told = [changed_label_cue(a, b) for a, b in changed]
        assert set(told) <= {touched[name], None} and len(changed) > 200
        assert np.mean([word is not None for word in told]) > 0.95  # it misses 6 and 9 that change places
        assert np.mean([oracle(a) != oracle(b) for a, b in changed]) > 0.05
    broken = mutant(
        augment, 'return re.sub(r"\\w+", lambda m: SYNONYMS.get(m[0], m[0]), text)', 'return text.replace("not ", "")'
    )
    edited = [broken.synonyms(text, rng) for text in said]
    assert [oracle(text) for text in edited] != [oracle(text) for text in said]


@pytest.mark.slow
def test_a_true_symmetry_helps_and_a_false_one_hurts() -> None:
    for true in (True, False):
        errors = reflection_augmentation(true, draws=12)
        gain = errors["plain"] - errors["augmented"]
        assert stats.ttest_1samp(gain, 0, alternative="greater" if true else "less").pvalue < 1e-3


def test_a_reader_doubts_labels_of_real_messages() -> None:
    data = sms_spam()
    train, test = data.train, data.test.data
    reader = make_pipeline(TfidfVectorizer(), LogisticRegression(C=30, max_iter=1_000)).fit(train.texts, train.labels)
    doubted = label_disagrees(test.texts, test.labels, reader)
    assert doubted.mean() < 0.05
    wrong = ["spam" if label == "ham" else "ham" for label in test.labels]
    assert (label_disagrees(test.texts, wrong, reader) == ~doubted).all()
    with pytest.raises(InvalidArgument):
        label_disagrees(["a"], [], reader)


# ── noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_spare_outputs_are_in_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "TEACHER_STEPS", 3)
    torch.set_num_threads(1)
    first = new_classifier(step_rng(0, 0))
    before = {name: value.clone() for name, value in first.state_dict().items()}
    after = train_teacher(first, fashion_mnist().train, seed=0).state_dict()
    last = list(before)[-2:]  # weights and bias of the last layer
    assert all(torch.equal(before[name][10:], after[name][10:]) for name in last)
    assert not torch.equal(before[last[0]][:10], after[last[0]][:10])


@pytest.mark.slow
def test_a_trial_of_noise_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "TEACHER_STEPS", 3)
    monkeypatch.setattr(students, "STUDENT_STEPS", 3)
    one, two = (noise_trial("same beginning", seed=1) for _ in range(2))
    other = noise_trial("another beginning", seed=1)
    assert one == two and other["teacher"] == one["teacher"] and other["before"] != one["before"]


def test_the_thresholds_of_the_claims_hold_in_all_five_seeds() -> None:
    """C4.2-4 and C4.3-5: what notebooks 04d and 04b show live for one seed."""
    told = read_results("noise").set_index(["case", "seed"])["student"]
    assert all(told["same beginning", seed] >= 0.6 and told["another beginning", seed] <= 0.3 for seed in range(5))
    trials = read_results("student-filtering")
    gain = trials["filtered: at equal rows"] - trials["raw: at equal rows"]
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(5)
