"""The audit of a release: which releases leak, what is proved and how often wrongly, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synthbook.core import table as units_module
from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.table import (
    Column,
    Holdout,
    Schema,
    Table,
    equalize_rows_per_unit,
    max_score_per_unit,
    n_units,
    sample_units,
    split_units,
    unit_codes,
)
from synthbook.privacy.attacks import release_audit as module
from synthbook.privacy.attacks.membership import AttackScores
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit, one_run_lower_bound
from synthbook.privacy.audit import one_run_epsilon
from tests.mutation import mutant
from tests.privacy.attacks.releases import COLUMNS, SCHEMA, VISITS, bootstrap, copied, frame, fresh, real, visits


def attack(synthetic: Any, train: Any, holdout: Any, **options: Any) -> ReleaseAudit:
    return audit(synthetic, train=train, holdout=holdout, **options)


# ── who is found ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_copies_leak_and_prove_an_epsilon() -> None:
    found = copied()
    assert found.leaks and found.epsilon_lower_bound > 0.5 and found.copies == 300
    assert found.epsilon_lower_bound == max(one.epsilon_lower_bound for one in found.attacks)
    near = found.attacks[0]
    assert (
        near.name == "nearest synthetic row"
        and near.leaks
        and near.attack.auc > near.auc_null_upper
        and near.tpr_at_1pct_fpr > 0.5
    )
    assert {one.secret for one in found.attribute_inferences} == {"group", "label"}
    assert "1.000 (" in str(found.distances)


def test_a_broken_promise_is_said_first_and_a_kept_one_is_not() -> None:
    found = copied()
    assert found.verdict == f"claim refuted: epsilon is at least {found.epsilon_lower_bound:.2f}, and 0.5 was claimed"
    for claimed_epsilon in (None, 50.0, float("inf")):
        verdict = ReleaseAudit(**(vars(found) | {"claimed_epsilon": claimed_epsilon})).verdict
        assert verdict.startswith("it leaks (nearest synthetic row, DOMIAS (k-NN)")
        assert verdict.endswith(f"epsilon is at least {found.epsilon_lower_bound:.2f}")
    assert fresh().verdict.startswith("these attacks found nothing, which proves nothing")


def test_a_broken_promise_counts_as_a_leak_though_no_attack_is_certain() -> None:
    found = audit(real(3), train=real(1), holdout=Holdout(real(2, 240)), secrets=(), claimed_epsilon=0.5)
    assert not found.leaks and not found.exceeds_claim
    proved_more = replace(found, attacks=(replace(found.attacks[0], epsilon_lower_bound=0.7),))
    assert proved_more.exceeds_claim and proved_more.leaks and proved_more.verdict.startswith("claim refuted")


@pytest.mark.slow
def test_fresh_rows_are_accused_no_more_often_than_the_level_says() -> None:
    runs = 20
    found = [
        audit(
            real([k, 1], 80), train=real([k, 2], 80), holdout=Holdout(real([k, 3], 160)), secrets=(), delta=1e-6, seed=k
        )
        for k in range(runs)
    ]
    accused = sum(one.leaks for one in found)
    assert accused / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    for place in range(3):
        areas = np.array([one.attacks[place].attack.auc for one in found])
        se = found[0].attacks[place].attack.auc_null_se
        assert abs(areas.mean() - 0.5) < 4 * se / np.sqrt(runs)
    assert all(one.copies == 0 for one in found)


def judged(by: ModuleType) -> bool:
    """Whether copies are found by both attacks that can, and fresh rows by none."""
    train, held = real(1), Holdout(real(2, 240))
    copies = by.audit(train, train=train, holdout=held, secrets=("label",), delta=1e-6)
    near, ratio, holes = copies.attacks
    found = (
        near.leaks and ratio.leaks and not holes.leaks and min(near.epsilon_lower_bound, ratio.epsilon_lower_bound) > 1
    )
    if not (found and copies.leaks and copies.attribute_inferences[0].leaks):
        return False
    return not by.audit(real(3), train=train, holdout=held, secrets=("label",), delta=1e-6).leaks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "nonmembers, reference = split_units(holdout.data, rng)",
            "nonmembers = reference = holdout.data",
        ),  # scored with itself
        ("domias(rows, z_synthetic, z_ref)", "domias(rows, z_synthetic, z_members)"),  # scored with the members
        ("max_score_per_unit(members, score(z_members))", "max_score_per_unit(nonmembers, score(z_nonmembers))"),
        ("max_score_per_unit(members, score(z_members))", "-max_score_per_unit(members, score(z_members))"),
        (
            "attribute_inference(compared, members, nonmembers, secret)",
            "attribute_inference(compared, nonmembers, members, secret)",
        ),
        ("self.attack.auc > self.auc_null_upper or self.significant", "self.attack.auc > 0.45"),
        ("(*self.attacks, *self.attribute_inferences)", "self.attribute_inferences"),
        ("order[-half:]].sum()", "order[:half]].sum()"),
    ],
)
def test_broken_audits_are_found(old: str, new: str) -> None:
    broken = mutant(module, old, new)
    if new == "self.attribute_inferences":  # attacks that do not count are missed where no secret is guessed
        assert not broken.audit(real(1), train=real(1), holdout=Holdout(real(2, 240)), secrets=()).leaks
    else:
        assert not judged(broken)


def test_the_audit_finds_copies_and_leaves_fresh_rows_alone() -> None:
    assert judged(module)


def test_the_same_seed_gives_the_same_audit() -> None:
    again = audit(bootstrap(real(1, 300)), train=real(1, 300), holdout=Holdout(real(2, 600)), claimed_epsilon=0.5)
    assert again.to_dict() == copied().to_dict()


def test_the_limits_are_shared_out_among_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def told(attack: AttackScores, delta: float, confidence: float, rng: np.random.Generator) -> float:
        asked.append(confidence)
        return 0.0

    monkeypatch.setattr(module, "one_run_lower_bound", told)
    audit(real(3), train=real(1), holdout=Holdout(real(2, 240)), secrets=())
    assert sum(1 - confidence for confidence in asked[::2]) == pytest.approx(0.05)
    assert sum(1 - confidence for confidence in asked[1::2]) == pytest.approx(0.001) and len(asked) == 6


def test_copies_are_counted_over_all_training_rows_though_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    train = real(1, 400)
    again = pd.concat([frame(5, 100), train.frame.iloc[250:300], train.frame.iloc[250:300]])
    found = audit(Table(again, SCHEMA), train=train, holdout=Holdout(real(2, 120)), secrets=())
    assert found.copies == 100
    whole = audit(train, train=train, holdout=Holdout(real(2, 120)), secrets=())
    assert whole.copies == 400 and whole.distances.dcr == (0.0, 0.0)  # not to the few members that were drawn
    monkeypatch.setattr(module, "MAX_UNITS", 60)
    assert audit(Table(again, SCHEMA), train=train, holdout=Holdout(real(2, 160)), secrets=()).copies == 100


def test_a_column_is_guessed_only_where_others_are_left_to_guess_it_from() -> None:
    alone, numbers = Schema(COLUMNS[3:], "public"), Schema(COLUMNS[:1], "public")
    for schema in (alone, numbers):
        made, train, held = (Table(frame(k)[schema.names], schema) for k in (1, 2, 3))
        found = audit(made, train=train, holdout=Holdout(held))
        assert found.attribute_inferences == () and not found.leaks
        assert "nothing" in found.verdict and isinstance(str(found), str)
        with pytest.raises(InvalidArgument, match="some of no columns"):
            audit(made, train=train, holdout=Holdout(held), secrets=(schema.names[0],))


# ── what is proved ───────────────────────────────────────────────────────────────────────────────────────────────────


def randomized_response(rng: np.random.Generator, n: int) -> AttackScores:
    """Membership, told truly with probability e / (1 + e)."""
    true = 1 / (1 + np.exp(-1))
    return AttackScores((rng.random(n) < true).astype(float), (rng.random(n) >= true).astype(float))


def laplace(rng: np.random.Generator, n: int) -> AttackScores:
    """Membership with Laplace noise of scale 1."""
    return AttackScores(1 + rng.laplace(size=n), rng.laplace(size=n))


def too_often(by: ModuleType, mechanism: Callable[[np.random.Generator, int], AttackScores], runs: int = 200) -> bool:
    rng = np.random.default_rng(31)
    found = np.array([by.one_run_lower_bound(mechanism(rng, 300), 0.0, 0.95, rng) for _ in range(runs)])
    assert found.max() > 0.3  # or it could hardly fail
    return bool((found > 1).mean() > 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs))


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", [randomized_response, laplace])
def test_what_is_proved_of_epsilon_one_exceeds_it_as_seldom_as_it_says(mechanism: Any) -> None:
    assert not too_often(module, mechanism)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n_correct=n_correct, confidence", "n_correct=min(n_correct + half // 4, 2 * half), confidence"),
        ("confidence=confidence", "confidence=0.5"),
        (
            "n_guesses=n_guesses, n_correct=n_correct",
            "n_guesses=2 * n_guesses, n_correct=2 * n_correct",
        ),  # each guess counted twice
        ("is_member = np.arange(len(scores)) < len(attack.members)", "is_member = scores > np.median(scores)"),
    ],
)
def test_proofs_that_claim_too_much_are_found(old: str, new: str) -> None:
    assert too_often(mutant(module, old, new), laplace, runs=60)


def test_an_attack_that_is_always_right_proves_what_a_perfect_run_can() -> None:
    rng = np.random.default_rng(0)
    perfect = AttackScores(np.ones(500), np.zeros(500))
    best = one_run_epsilon(0.0, n_canaries=1_000, n_guesses=200, n_correct=200)
    assert one_run_lower_bound(perfect, 0.0, 0.95, rng) == pytest.approx(best) and best > 3
    assert one_run_lower_bound(AttackScores(perfect.nonmembers, perfect.members), 0.0, 0.95, rng) == 0
    assert (
        one_run_lower_bound(AttackScores(np.ones(2), np.zeros(2)), 0.0, 0.95, rng) == 0
    )  # two right guesses may be luck


def of_ties(by: ModuleType) -> float:
    rng = np.random.default_rng(0)
    return max(by.one_run_lower_bound(AttackScores(np.zeros(200), np.zeros(200)), 0.0, 0.95, rng) for _ in range(10))


def test_scores_that_are_all_equal_prove_nothing() -> None:
    assert of_ties(module) < 0.2
    by_place = mutant(module, "rng.permutation(len(scores))  #", "np.arange(len(scores))[::-1]  #")
    assert of_ties(by_place) > 2  # members come last: the order of the rows gives them away


# ── units ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_halves_and_draws_keep_persons_whole() -> None:
    table, rng = visits(1, 31), np.random.default_rng(0)
    one, two = split_units(table, rng)
    assert not set(one["person"]) & set(two["person"]) and len(one) + len(two) == len(table)
    assert (n_units(one), n_units(two)) == (15, 16)
    drawn = sample_units(table, 7, rng)
    assert n_units(drawn) == 7 and len(drawn) == 21 and (drawn["person"].value_counts() == 3).all()
    assert sample_units(table, 31, rng) is table
    assert len({frozenset(split_units(table, rng)[0]["person"]) for _ in range(5)}) == 5
    torn = mutant(
        units_module, "rng.permutation(codes.max() + 1)[codes] <", "rng.permutation(len(codes)) * 31 / len(codes) <"
    )
    assert set.intersection(*(set(half["person"]) for half in torn.split_units(table, rng)))


def test_the_max_score_per_unit_row_speaks_for_its_person() -> None:
    people = ["a", "b", "a", "c", "b"]
    table = Table(frame(0, 5).assign(person=people), VISITS)
    assert unit_codes(table).tolist() == [0, 1, 0, 2, 1]
    assert max_score_per_unit(table, np.array([1.0, 5.0, 3.0, -2.0, 4.0])).tolist() == [3.0, 5.0, -2.0]
    assert max_score_per_unit(real(0, 3), np.array([1.0, 0.0, 2.0])).tolist() == [1.0, 0.0, 2.0]


@pytest.mark.slow
def test_persons_with_more_rows_are_not_taken_for_members() -> None:
    """The highest of six scores is higher than a single one: rows of persons are made as many on both sides."""
    for seed in range(3):
        many, few = visits(10 + seed, 100, rows=6), visits(20 + seed, 160, rows=1)
        found = audit(visits(30 + seed, 100), train=many, holdout=Holdout(few), secrets=(), seed=seed)
        assert not found.leaks and all(one.attack.auc < one.auc_null_upper for one in found.attacks)
    rng, sizes = np.random.default_rng(0), (6, 2, 1)
    tables = [visits(seed, 40, rows=k) for seed, k in enumerate(sizes)]
    for given, k in ((tables[:2], 2), (tables, 1)):
        for table in equalize_rows_per_unit(given, rng):
            assert n_units(table) == 40 and (table["person"].value_counts() == k).all()
    uneven = pd.concat([tables[0].frame, tables[2].frame.assign(person=[f"x{i}" for i in range(40)]).iloc[:10]])
    (kept,) = equalize_rows_per_unit([Table(uneven, VISITS)], rng)
    assert n_units(kept) == 40 and (kept["person"].value_counts() == 6).all()  # ten have fewer than the median


def test_a_row_that_does_not_say_whose_it_is_is_refused() -> None:
    schema = Schema((Column("person", "id", missing=True), *COLUMNS), "public", entity="person")
    lost = visits(1).frame
    lost.loc[lost.index[:4], "person"] = None
    with pytest.raises(SchemaError, match="4 rows do not say whose they are"):
        n_units(Table(lost, schema))
    with pytest.raises(SchemaError, match="4 rows do not say whose"):
        audit(
            Table(visits(3).frame, schema), train=Table(lost, schema), holdout=Holdout(Table(visits(2).frame, schema))
        )


def test_an_audit_by_persons_scores_persons() -> None:
    train, held = visits(1, 100), Holdout(visits(2, 130))
    found = audit(visits(3, 100), train=train, holdout=held, secrets=("label",))
    assert not found.leaks and "65 members and as many non-members of 100; the unit is person" in found.notes[0]
    for one in found.attacks:
        assert len(one.attack.members) == len(one.attack.nonmembers) == 65
    # one row of each person is enough to give all of them away
    first = train.frame.drop_duplicates("person")
    leaky = audit(Table(first, VISITS), train=train, holdout=held, secrets=(), delta=1e-6)
    assert leaky.leaks and leaky.epsilon_lower_bound > 1.5 and leaky.attacks[0].attack.auc == 1


def test_rows_of_one_person_on_both_sides_are_refused() -> None:
    train, held = visits(1), visits(2).frame
    held.loc[held.index[:5], "person"] = train["person"].iloc[:5].to_numpy()
    both = len(set(held["person"]) & set(train["person"]))
    with pytest.raises(InvalidArgument, match=f"holdout = '{both} person that train has, too'"):
        audit(visits(3), train=train, holdout=Holdout(Table(held, VISITS)))


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_refused_before_any_attack() -> None:
    train, held, made = real(1), Holdout(real(2)), real(3)
    silent: list[str] = []
    for tables in ((held, train, held), (made, held, held)):
        with pytest.raises(HoldoutError, match="kept for testing"):
            attack(*tables, callback=silent.append)  # type: ignore[arg-type]
    few = real(1, 59)
    for tables, options, why in (
        ((made, train, real(2)), {}, "holdout = 'Table'.*a Holdout"),
        ((few, train, held), {}, "synthetic = '59 rows'.*at least 60"),
        ((made, few, held), {}, "train = '59 rows'.*at least 60"),
        ((made, train, Holdout(few)), {}, "holdout = '59 rows'.*at least 60"),
        ((made.frame, train, held), {}, "synthetic = 'DataFrame'.*a Table"),
        ((made, train, held), {"secrets": ("nobody",)}, "secret = 'nobody'.*some of group, label"),
        ((made, train, held), {"secrets": ("label", "x", "y")}, "secret = 'x, y'.*some of group, label"),
        ((made, train, held), {"delta": 0.01}, r"delta = 0\.01.*far below 1 / 120"),
        ((made, train, held), {"delta": -0.1}, r"delta = -0\.1"),
        ((made, train, held), {"delta": float("nan")}, "delta = nan"),
        ((visits(3, 59), visits(1, 59), Holdout(visits(2))), {}, "train = '59 different person'"),
        ((visits(3, 80), visits(1), Holdout(visits(2, 59))), {}, "holdout = '59 different person'"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            attack(*tables, **options, callback=silent.append)  # type: ignore[arg-type]
    other = Table(made.frame.drop(columns="x"), Schema(COLUMNS[1:], "public"))
    with pytest.raises(SchemaError, match=r"synthetic has the columns .*train has"):
        audit(other, train=train, holdout=held, callback=silent.append)
    assert silent == []
