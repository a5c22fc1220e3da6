"""A small book in a temporary folder, for the tests of what runs a book."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from synthbook.course.project import Project

CARD = "# A notebook\n\nMachine: <!-- measured -->not yet<!-- /measured -->"


class Book(Project):
    """A project whose notebooks a test writes."""

    def write(self, name: str, *code: str, words: str = CARD, export: str | None = None) -> Path:
        cells = [nbformat.v4.new_code_cell(source, id=f"code-{k}") for k, source in enumerate(code)]
        if export:
            cells[-1].metadata["synthbook"] = {"export": export}
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(words, id="card"), *cells])
        path = self.notebooks / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    def copy(self, name: str) -> dict[str, Any]:
        notebook: dict[str, Any] = nbformat.read(self.copies / f"{name}.ipynb", as_version=4)
        return notebook

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "synthbook.cli", "course", "run", "--no-site", *arguments],
            cwd=self.root,
            text=True,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # a shell's background jobs, such as `make test &`, ignore Ctrl-C and pass that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture
def book(tmp_path: Path) -> Book:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    return Book(tmp_path)


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    """Write a committed notebook that carries the given claim rows."""

    def commit(book: Book, name: str, rows: list[dict[str, Any]]) -> Path:
        path = book.write(name)
        notebook = json.loads(path.read_text())
        notebook["metadata"]["synthbook"] = {"claims": rows}
        path.write_text(json.dumps(notebook))
        return path

    return commit
