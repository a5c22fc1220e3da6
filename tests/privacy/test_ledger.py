"""A ledger that grants what is left and no more, survives its process, and cannot be rewritten by another total."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.privacy import ledger as module
from synthbook.privacy.ledger import BudgetExceeded, PrivacyLedger
from tests.mutation import mutant


def test_it_grants_what_remains_and_refuses_the_rest() -> None:
    budget = PrivacyLedger(1.0, 1e-5, "one person")
    budget.spend("bounds", 0.1).spend("training", 0.6, 9e-6, accountant="pld", noise=1.3)
    assert budget.remaining == pytest.approx((0.3, 1e-6))
    with pytest.raises(BudgetExceeded, match=r"scores needs epsilon 0\.4.*0\.3 and 1e-06 remain"):
        budget.spend("scores", 0.4)
    with pytest.raises(BudgetExceeded):
        budget.spend("scores", 0.1, 2e-6)
    assert len(budget.entries) == 2 and budget.spend("scores", 0.3).remaining[0] == pytest.approx(0)
    with pytest.raises(BudgetExceeded):
        budget.spend("one more", 0.01)


def test_a_tenth_ten_times_is_one() -> None:
    budget = PrivacyLedger(1.0, 1e-5, "one record")
    for k in range(10):
        budget.spend(f"look {k}", 0.1, 1e-6)
    with pytest.raises(BudgetExceeded):
        budget.spend("the eleventh", 0.001)


@given(st.lists(st.floats(0.01, 2.0), max_size=30))
def test_the_total_is_never_exceeded(prices: list[float]) -> None:
    budget = PrivacyLedger(3.0, 1e-5, "one record")
    for price in prices:
        try:
            budget.spend("look", price)
        except BudgetExceeded:
            assert price > budget.remaining[0]
    assert sum(one.epsilon for one in budget.entries) <= 3.0 + 1e-9


def test_entries_survive_their_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    PrivacyLedger(2.0, 1e-5, "one person", path).spend("tuning", 1.5, 1e-6, runs=3)
    again = PrivacyLedger(2.0, 1e-5, "one person", path)
    assert again.entries[0].details == {"runs": 3} and again.remaining[0] == pytest.approx(0.5)
    with pytest.raises(BudgetExceeded):
        again.spend("training", 1.0)
    assert json.loads(path.read_text())["composition"] == "basic"
    with pytest.raises(InvalidArgument, match="those of the ledger"):
        PrivacyLedger(20.0, 1e-5, "one person", path)
    forgetful = mutant(module, "self._read(self.path)", "pass")
    assert forgetful.PrivacyLedger(2.0, 1e-5, "one person", path).remaining[0] == 2.0


def test_an_entry_that_cannot_be_written_is_not_granted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    budget = PrivacyLedger(2.0, 1e-5, "one person", path)
    path.mkdir()
    with pytest.raises(OSError):
        budget.spend("training", 1.0)
    assert budget.entries == [] and budget.remaining[0] == 2.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entries": [{}]}', '{"entries": 3}'])
def test_files_that_are_no_ledger_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(DataError, match="no ledger"):
        PrivacyLedger(1.0, 1e-5, "one person", path)
    gift = {"purpose": "gift", "epsilon": -1.0, "delta": 0.0, "details": {}}
    path.write_text(json.dumps({"epsilon": 1.0, "delta": 1e-5, "unit": "one person", "entries": [gift]}))
    with pytest.raises(DataError, match="edited by hand"):
        PrivacyLedger(1.0, 1e-5, "one person", path)


@pytest.mark.parametrize("price", [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (0.1, 1.0), (0.1, -1e-9)])
def test_invalid_entries_are_refused(price: tuple[float, float]) -> None:
    with pytest.raises(InvalidArgument):
        PrivacyLedger(1.0, 1e-5, "one person").spend("look", *price)
    with pytest.raises(InvalidArgument):
        PrivacyLedger(0.0, 1e-5, "one person")
