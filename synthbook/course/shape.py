"""The shape a notebook must have, checked once when it is read, so that nothing later trips over an odd one."""

from __future__ import annotations

from typing import Any

_TEXT = (str, list)
_WORDS = {dict: "an object", list: "a list", str: "text", int: "a whole number", _TEXT: "text or a list of lines"}


def check(notebook: Any) -> None:
    """Raise `ValueError`, saying which cell lacks what, unless all that the package reads has the type it must have.

    Fills in what format 4 lets a file leave out or old tools left out: metadata, outputs, the minor version.
    """
    _of_type(notebook, dict, "the file")
    if notebook.get("nbformat") != 4:
        raise ValueError(f"nbformat is {notebook.get('nbformat')!r}, not 4")
    notebook.setdefault("metadata", {})
    notebook.setdefault("nbformat_minor", 4)
    _member(notebook, "metadata", dict, "the notebook")
    _member(notebook, "nbformat_minor", int, "the notebook")
    for number, cell in enumerate(_member(notebook, "cells", list, "the notebook"), start=1):
        _check_cell(cell, f"cell {number}")


def _check_cell(cell: Any, place: str) -> None:
    kind = _member(_of_type(cell, dict, place), "cell_type", str, place)
    _lines(_member(cell, "source", _TEXT, place), f"{place}: source")
    cell.setdefault("metadata", {})
    own = _member(cell, "metadata", dict, place).get("synthbook", {})
    if "export" in _of_type(own, dict, f"{place}: metadata.synthbook"):
        _member(own, "export", str, f"{place}: metadata.synthbook")
    if kind == "code":
        cell.setdefault("outputs", [])
        for output in _member(cell, "outputs", list, place):
            _check_output(output, f"{place}: an output")


def _check_output(output: Any, place: str) -> None:
    kind = _member(_of_type(output, dict, place), "output_type", str, place)
    if kind == "stream":
        _member(output, "name", str, place)
        _lines(_member(output, "text", _TEXT, place), f"{place}: text")
    for mime, value in _of_type(output.get("data", {}), dict, f"{place}: data").items():
        if not mime.endswith("json"):
            _lines(_of_type(value, _TEXT, f"{place}: {mime}"), f"{place}: {mime}")


def _member(holder: dict[str, Any], key: str, kind: Any, place: str) -> Any:
    if key not in holder:
        raise ValueError(f"{place} lacks {key}")
    return _of_type(holder[key], kind, f"{place}: {key}")


def _lines(text: Any, place: str) -> None:
    if isinstance(text, list):
        for line in text:
            _of_type(line, str, f"a line of {place}")


def _of_type(value: Any, kind: Any, place: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{place} is {str(value)[:40]!r}, not {_WORDS[kind]}")
    return value
