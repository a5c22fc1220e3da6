"""What all tests share: the rule for things that a machine may lack."""

import os

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)  # an example may wait for others' work
settings.load_profile("busy machine")


def require(condition: object, reason: str) -> None:
    """Skip the test when the machine lacks something; under SYNTHBOOK_REQUIRE=all, as in CI, fail instead."""
    if condition:
        return
    if os.environ.get("SYNTHBOOK_REQUIRE") == "all":
        pytest.fail(f"{reason} (SYNTHBOOK_REQUIRE=all: nothing may be skipped)", pytrace=False)
    pytest.skip(reason)
