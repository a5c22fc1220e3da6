"""Which model a task is put to: the one that it names, or the environment, else the small one on this machine."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from synthbook.core.errors import InvalidArgument
from synthbook.language.endpoint import KEY, MODEL, URL, Endpoint
from synthbook.language.generating.task import Task


def chosen(task: Task) -> Endpoint | None:
    """The model at an address, None for the one on this machine.

    Raises `InvalidArgument` where task and environment name different ones: the key is for one of them only.
    """
    file = task.path.name
    url, name = _one(file, "url", task.chosen.url, URL), _one(file, "name", task.chosen.name, MODEL)
    if not url:
        if task.chosen.name is not None:
            raise InvalidArgument(f"{file}: model.name", name, f"an address as well: model.url or {URL}")
        return None
    if not name:
        raise InvalidArgument(
            f"{file}: model.name", None, f"the name by which {url} knows its model, here or in {MODEL}"
        )
    try:
        return Endpoint(
            url, name, os.environ.get(KEY, ""), remedy=f"look at [model] in {file}, {URL}, {MODEL} and {KEY}"
        )
    except InvalidArgument as error:
        if task.chosen.url is None or error.argument != URL:
            raise
        raise InvalidArgument(f"{file}: model.url", error.value, error.accepted) from None


def _one(file: str, key: str, written: str | None, variable: str) -> str:
    found = os.environ.get(variable, "").strip()
    if written is not None and found and written.strip() != found:
        accepted = f"the same as in {variable}, or take one of them out"
        raise InvalidArgument(f"{file}: model.{key}", written if key == "name" else "another address", accepted)
    return found or (written or "").strip()


def opened(endpoint: Endpoint | None) -> AbstractContextManager[Endpoint]:
    """The model, started where it is on this machine, and stopped at the end."""
    from synthbook.language.server import local_server

    return local_server() if endpoint is None else nullcontext(endpoint)
