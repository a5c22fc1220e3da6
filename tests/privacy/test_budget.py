"""A ledger that grants what is left and no more, survives its process, and cannot be rewritten by another total."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.privacy import ledger as module
from synthbook.privacy.ledger import Budget, Exhausted
from tests.mutation import mutant


def test_it_grants_what_is_left_and_refuses_the_rest() -> None:
    budget = Budget(1.0, 1e-5, "one person")
    budget.spend("bounds", 0.1).spend("training", 0.6, 9e-6, accountant="pld", noise=1.3)
    assert budget.left == pytest.approx((0.3, 1e-6))
    with pytest.raises(Exhausted, match=r"scores asks for epsilon 0\.4.*0\.3 and 1e-06 left"):
        budget.spend("scores", 0.4)
    with pytest.raises(Exhausted):
        budget.spend("scores", 0.1, 2e-6)
    assert len(budget.spends) == 2 and budget.spend("scores", 0.3).left[0] == pytest.approx(0)
    with pytest.raises(Exhausted):
        budget.spend("one more", 0.01)


def test_a_tenth_ten_times_is_one() -> None:
    budget = Budget(1.0, 1e-5, "one record")
    for k in range(10):
        budget.spend(f"look {k}", 0.1, 1e-6)
    with pytest.raises(Exhausted):
        budget.spend("the eleventh", 0.001)


@given(st.lists(st.floats(0.01, 2.0), max_size=30))
def test_never_more_than_there_is(prices: list[float]) -> None:
    budget = Budget(3.0, 1e-5, "one record")
    for price in prices:
        try:
            budget.spend("look", price)
        except Exhausted:
            assert price > budget.left[0]
    assert sum(one.epsilon for one in budget.spends) <= 3.0 + 1e-9


def test_a_process_that_ended_has_paid(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Budget(2.0, 1e-5, "one person", path).spend("tuning", 1.5, 1e-6, runs=3)
    again = Budget(2.0, 1e-5, "one person", path)
    assert again.spends[0].about == {"runs": 3} and again.left[0] == pytest.approx(0.5)
    with pytest.raises(Exhausted):
        again.spend("training", 1.0)
    assert json.loads(path.read_text())["composition"] == "basic"
    with pytest.raises(InvalidArgument, match="was begun with"):
        Budget(20.0, 1e-5, "one person", path)
    forgetful = mutant(module, "self._read(self.path)", "pass")
    assert forgetful.Budget(2.0, 1e-5, "one person", path).left[0] == 2.0


def test_what_cannot_be_written_is_not_granted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    budget = Budget(2.0, 1e-5, "one person", path)
    path.mkdir()
    with pytest.raises(OSError):
        budget.spend("training", 1.0)
    assert budget.spends == [] and budget.left[0] == 2.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"spends": [{}]}', '{"spends": 3}'])
def test_what_is_no_ledger_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(DataError, match="no ledger"):
        Budget(1.0, 1e-5, "one person", path)
    gift = {"purpose": "gift", "epsilon": -1.0, "delta": 0.0, "about": {}}
    path.write_text(json.dumps({"epsilon": 1.0, "delta": 1e-5, "unit": "one person", "spends": [gift]}))
    with pytest.raises(DataError, match="changed by hand"):
        Budget(1.0, 1e-5, "one person", path)


@pytest.mark.parametrize("price", [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (0.1, 1.0), (0.1, -1e-9)])
def test_prices_that_are_none_are_refused(price: tuple[float, float]) -> None:
    with pytest.raises(InvalidArgument):
        Budget(1.0, 1e-5, "one person").spend("look", *price)
    with pytest.raises(InvalidArgument):
        Budget(0.0, 1e-5, "one person")
