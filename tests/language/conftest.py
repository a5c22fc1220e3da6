"""A server that answers as each test wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.language.rude import Rude, serving


@pytest.fixture
def server() -> Iterator[Rude]:
    with serving() as running:
        yield running
