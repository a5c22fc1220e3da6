"""What the package computes stays as it is, bit for bit, while names and places change."""

from __future__ import annotations

import platform

import pytest

from tests.conftest import require
from tests.goldens.__main__ import computed, read
from tests.goldens.recorder import digest, numbers

WITHOUT_FLOATS = ("ledger/", "verify_command/", "generate_command/", "book_commands/")


@pytest.mark.slow
def test_what_is_computed_is_what_it_was() -> None:
    require(platform.machine() in ("x86_64", "AMD64"), "the goldens are those of x86-64 processors")
    expected, actual = read(), computed()
    assert expected.keys() == actual.keys()
    differing = [name for name in expected if actual[name] not in expected[name]]
    if any(name.startswith("arithmetic/") for name in differing):  # a processor that no setting makes compute alike
        differing = [name for name in differing if name.startswith(WITHOUT_FLOATS)]
    assert not differing, f"{len(differing)} of {len(expected)} differ: {differing}"


def test_a_changed_value_changes_its_hash_and_a_changed_key_leaves_the_numbers() -> None:
    one, other = {"auc": 0.5, "lines": [1, {"low": 2}], "seconds": 3.0}, {"auc": 0.5, "lines": [1, {"low": 2.5}]}
    assert digest(one) != digest(other) and digest(one) == digest(one | {"seconds": 4.0})
    renamed = {"roc_auc": 0.5, "results": [1, {"lower": 2}]}
    assert sorted(numbers(renamed)) == sorted(numbers(one)) != sorted(numbers(other))
