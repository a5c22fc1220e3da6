"""Secrets: a copier tells those of its members, a rule of the population tells everybody's, which is no leak."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.storage import strict_json
from synthbook.core.table import Column, Schema, Table
from synthbook.privacy.attacks import attribute as module
from synthbook.privacy.attacks.attribute import AttributeInference, attribute_inference
from tests.mutation import mutant

VALUES = ("a", "b", "c", "d")
COLUMNS = (
    Column("x", "numeric", lower=-20, upper=20),
    Column("y", "numeric", lower=-20, upper=20, missing=True),
    Column("secret", "categorical", categories=VALUES, missing=True),
)
SCHEMA = Schema(COLUMNS, "public")


def people(seed: int, n: int = 200, known: float = 0.0) -> Table:
    """Persons with two numbers and a secret, which follows from the sign of x and y with probability `known`."""
    rng = np.random.default_rng([seed, 21])
    x, y = rng.normal(size=(2, n))
    rule = 2 * (x > 0) + (y > 0)
    secret = np.where(rng.random(n) < known, rule, rng.integers(4, size=n))
    return Table(pd.DataFrame({"x": x, "y": y, "secret": np.array(VALUES)[secret]}), SCHEMA)


def copied(table: Table, seed: int, noise: float = 0.01) -> Table:
    """A generator that moves its rows a little and leaves their secrets as they are."""
    rng, frame = np.random.default_rng([seed, 22]), table.frame
    return Table(frame.assign(x=frame["x"] + noise * rng.normal(size=len(frame))), table.schema)


# ── what leaks and what does not ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", [0.0, 0.6])
def test_a_generator_that_copies_secrets_leaks_what_is_not_common_knowledge(known: float) -> None:
    members, others = people(1, known=known), people(2, known=known)
    found = attribute_inference(copied(members, 0), members, others, "secret")
    chance = known + (1 - known) / 4
    assert found.member_accuracy > 0.95 and found.leaks
    assert found.nonmember_accuracy < chance + 4 * np.sqrt(0.25 / 200)
    assert found.interval[0] > 0.1 and found.advantage == found.member_accuracy - found.nonmember_accuracy


@pytest.mark.parametrize("seed", range(5))
def test_a_rule_of_the_population_is_no_leak_although_guesses_are_far_above_chance(seed: int) -> None:
    members, others, made = (people(10 * seed + k, known=0.9) for k in (1, 2, 3))
    found = attribute_inference(made, members, others, "secret")
    assert min(found.member_accuracy, found.nonmember_accuracy) > 0.6 > 0.25
    assert abs(found.advantage) <= 4 * found.se and not found.leaks


def judged(by: ModuleType) -> tuple[bool, bool]:
    """Whether the copier is found, and whether the population's rule is left in peace."""
    members, others, made = (people(k, known=0.8) for k in (1, 2, 3))
    copier = by.attribute_inference(copied(members, 0), members, others, "secret")
    rule = by.attribute_inference(made, members, others, "secret")
    return copier.leaks and 0 < copier.advantage < 0.5, not rule.leaks and abs(rule.advantage) < 0.2


def test_both_are_told_apart() -> None:
    assert judged(module) == (True, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "return self.member_accuracy - self.nonmember_accuracy",
            "return self.member_accuracy - 0.25",
        ),  # above chance, not above others
        (
            "return self.member_accuracy - self.nonmember_accuracy",
            "return self.nonmember_accuracy - self.member_accuracy",
        ),
        ('encode(tables["synthetic"].drop_column(secret))', 'encode(tables["nonmembers"].drop_column(secret))'),
        ('as_numbers(column, tables["synthetic"][secret])', 'as_numbers(column, tables["synthetic"][secret])[::-1]'),
        ("self.advantage > Z_BAND * self.se", "self.member_accuracy > 1 / 4 + Z_BAND * self.se"),
    ],
)
def test_broken_judgements_are_found(old: str, new: str) -> None:
    assert judged(mutant(module, old, new)) != (True, True)


# ── the interval ─────────────────────────────────────────────────────────────────────────────────────────────────────


def coverage(by: ModuleType, p: float, q: float, n: int, runs: int = 2_000) -> float:
    """How often the interval holds p - q, when p and q are the probabilities of right guesses of n each."""
    rng, held = np.random.default_rng([n, 23]), 0
    for _ in range(runs):
        a, b = rng.random(n) < p, rng.random(n) < q
        se = np.sqrt(by._variance(a.astype(float)) + by._variance(b.astype(float)))
        low, high = by.AttributeInference("secret", float(a.mean()), float(b.mean()), float(se)).interval
        held += low <= p - q <= high
    return held / runs


@pytest.mark.slow
@pytest.mark.parametrize(("p", "q", "n"), [(0.5, 0.5, 50), (0.9, 0.6, 100), (0.98, 0.97, 60), (0.02, 0.02, 100)])
def test_the_interval_holds_the_advantage_nineteen_times_in_twenty(p: float, q: float, n: int) -> None:
    error = np.sqrt(0.95 * 0.05 / 2_000)
    found = coverage(module, p, q, n)
    assert found >= 0.94 - 3 * error
    assert found <= 0.99 + 3 * error or min(p, 1 - p) < 0.05  # Laplace's rule is cautious near certainty


@pytest.mark.slow
def test_an_interval_that_is_too_narrow_is_found() -> None:
    for old, new in (("p * (1 - p) / n", "p * (1 - p) / (2 * n)"), ("norm.ppf(0.975)", "norm.ppf(0.95)")):
        assert coverage(mutant(module, old, new), 0.5, 0.5, 50) < 0.94 - 3 * np.sqrt(0.95 * 0.05 / 2_000)


@pytest.mark.slow
def test_of_whole_runs_the_interval_holds_zero_for_fresh_rows_as_often_as_it_says() -> None:
    runs, held, leaks = 24, 0, 0
    for seed in range(runs):
        made, members, others = (people(1_000 + 3 * seed + k, 80, known=0.5) for k in range(3))
        found = attribute_inference(made, members, others, "secret")
        held += found.interval[0] <= 0 <= found.interval[1]
        leaks += found.leaks
    assert held / runs >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs) and leaks == 0


def test_all_right_or_none_is_not_certain() -> None:
    members, others = people(1), people(2)
    found = attribute_inference(members, members, others, "secret")
    assert found.member_accuracy == 1 and found.se > 0 and np.isfinite(found.interval).all()


# ── entities ─────────────────────────────────────────────────────────────────────────────────────────────────────────

VISITS = Schema((Column("person", "id"), *COLUMNS), "public", entity="person")


def visits(seed: int, n: int = 40, rows: int = 10) -> Table:
    """Persons with many rows each, all near one place and with one secret."""
    rng = np.random.default_rng([seed, 24])
    x, y = (np.repeat(v, rows) + 0.01 * rng.normal(size=n * rows) for v in rng.normal(size=(2, n)))
    secret = np.repeat(np.array(VALUES[:2])[rng.integers(2, size=n)], rows)
    person = [f"{seed}-{k}" for k in np.repeat(np.arange(n), rows)]
    return Table(pd.DataFrame({"person": person, "x": x, "y": y, "secret": secret}), VISITS)


def spread_of_z(by: ModuleType, runs: int = 12) -> float:
    """The deviation of advantage / se over releases of fresh rows: 1 where the error is told rightly."""
    found = [by.attribute_inference(*(visits(3 * seed + k) for k in range(3)), "secret") for seed in range(runs)]
    return float(np.std([one.advantage / one.se for one in found]))


@pytest.mark.slow
def test_rows_of_one_person_are_no_independent_witnesses() -> None:
    assert spread_of_z(module) < 1.4
    assert spread_of_z(mutant(module, "units = unit_codes(table)", "units = np.arange(len(table))")) > 1.8


def test_a_person_counts_once_however_many_rows_she_has() -> None:
    frame = pd.DataFrame(
        {"person": list("aaab"), "x": [0.0, 0, 0, 5], "y": [0.0, 1, 2, 3], "secret": ["a", "a", "a", "b"]}
    )
    known = Table(frame, VISITS)
    wrong = Table(frame.assign(secret=["a", "b", "b", "b"]), VISITS)  # of person a one in three is right
    assert attribute_inference(known, wrong, known, "secret").member_accuracy == pytest.approx((1 / 3 + 1) / 2)


# ── holes, and what is refused ───────────────────────────────────────────────────────────────────────────────────────


def test_rows_without_the_secret_are_left_out_and_other_holes_are_not() -> None:
    members, others = people(1).frame, people(2).frame
    members.loc[::2, "secret"] = None
    others.loc[::3, "y"] = np.nan
    made = members.copy()
    made.loc[1, "secret"] = None
    told, full = Table(members, SCHEMA), Table(members.dropna(subset="secret"), SCHEMA)
    found = attribute_inference(Table(made, SCHEMA), told, Table(others, SCHEMA), "secret")
    kept = Table(made.dropna(subset="secret"), SCHEMA)
    assert found == attribute_inference(kept, full, Table(others, SCHEMA), "secret")
    assert 0.98 < found.member_accuracy < 1  # all but, perhaps, the one whose secret the release does not tell


def test_the_scale_of_the_columns_is_not_taken_from_members() -> None:
    members, others, made = (people(k, known=0.9) for k in (1, 2, 3))
    stretched = Table(members.frame.assign(x=members["x"] * 3), SCHEMA)
    assert (
        attribute_inference(made, stretched, others, "secret").nonmember_accuracy
        == attribute_inference(made, members, others, "secret").nonmember_accuracy
    )


def test_what_is_no_secret_is_refused() -> None:
    members, others = people(1), people(2)
    for name, why in (("x", "must be categorical or ordinal"), ("nobody", "not in the schema")):
        with pytest.raises(SchemaError, match=why):
            attribute_inference(members, members, others, name)
    alone = Schema(COLUMNS[2:], "public")
    bare = Table(members.frame[["secret"]], alone)
    with pytest.raises(SchemaError, match="no column is left"):
        attribute_inference(bare, bare, bare, "secret")
    empty = Table(members.frame.assign(secret=None), SCHEMA)
    for tables in ((empty, members, others), (members, empty, others), (members, others, empty)):
        with pytest.raises(InvalidArgument, match=r"secret = 'secret'.*at least two rows of every table"):
            attribute_inference(*tables, "secret")


def test_it_says_what_it_found() -> None:
    found = AttributeInference("income", 0.9, 0.75, 0.01)
    assert str(found).startswith(
        "income: accuracy 90.0% on members and 75.0% on non-members, advantage +15.0% (+13.0% to"
    )
    told = json.loads(strict_json(found.to_dict()))
    assert told["secret"] == "income" and told["leaks"] is True and told["advantage"] == pytest.approx(0.15)
    assert told["interval"] == list(found.interval)
