"""The page of comparisons: a table for each result in bench/results, as `make bench` wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthbook.core.provenance import read_provenance

HEAD = """# Benchmarks

How the package compares with others that measure the same thing: same data, same machine, runs that take turns in
processes of their own with one thread for linear algebra, unless a table says otherwise. Imports are not counted.
Memory is what a call adds at its peak. The files lie in `bench/results`, each with a sidecar that names its command;
`make bench` and `make test-machines` measure all of them anew. Times differ from machine to machine, so look at the
ratios."""


def bench_page(folder: Path) -> str:
    """The page's source in MyST Markdown, from the `*.json` results in `folder`, in the order of their names."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".provenance.json")]
    if not paths:
        return f"{HEAD}\n\nNothing has been measured yet.\n"
    return "\n\n".join([HEAD, *(_section(path) for path in paths)]) + "\n"


def _section(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    measured = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    command = read_provenance(path).command
    return "\n\n".join([f"## {result['title']}", _table(result["table"]), result["note"], f"`{command}`: {measured}."])


def _table(table: dict[str, Any]) -> str:
    lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
