"""A pytest plugin on top of nbval: outputs are compared by meaning, and slow files are handed out first.

nbval goes on running the cells; `synthbook.course.comparison` says what differs. The root conftest loads this plugin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbCell

from synthbook.core.errors import DataError
from synthbook.course import notebook as nb
from synthbook.course.comparison import Output, differences

_ADVICE = """
A printed decimal number may differ by one unit of its last digit; words, whole numbers, order and shapes may not.
If you meant this change:   synthbook course run --only {name} --update --force
If only this machine did:   print fewer digits, or a verdict (CONTRIBUTING.md, "Add or change a notebook")"""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let nbval's cells compare by meaning."""
    if isinstance(item, IPyNbCell):
        item.compare_outputs = partial(_compare, item)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under xdist, put the slowest files first, so that no process is left alone with one at the end.

    Notebooks come first, as long as the runner measured them to be, then files by their number of slow tests.
    """
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: (-_minutes(item.path), -slow[item.path]))


@cache
def _minutes(path: Path) -> float:
    """What the runner measured of a notebook; nothing is known of other files."""
    try:
        return float(nb.run_metadata(nb.read(path)).get("minutes", 0)) if path.suffix == ".ipynb" else 0.0
    except DataError:
        return 0.0


def _compare(cell: Any, executed: Sequence[Output], committed: Sequence[Output]) -> bool:
    """What nbval asks of a cell: whether the outputs agree; what differs goes where it reports from."""
    old, new = ([_sanitized(cell, output) for output in outputs] for outputs in (committed, executed))
    faults = differences(old, new, may_differ=cell.cell.metadata.get(nb.KEY, {}).get("may_differ", 0.0))
    cell.comparison_traceback = [*faults, _ADVICE.format(name=cell.path.stem)] if faults else []
    return not faults


def _sanitized(cell: Any, output: Output) -> dict[str, Any]:
    """The output with durations and addresses replaced, as the file given by --nbval-sanitize-with says."""
    clean = dict(output)
    if "text" in clean:
        clean["text"] = cell.sanitize(clean["text"])
    if "data" in clean:
        clean["data"] = {kind: cell.sanitize(data) for kind, data in clean["data"].items()}
    return clean
