"""Reading a task.toml: every key is checked, and every name that it uses must stand for something."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from synthbook.core.errors import InvalidArgument
from synthbook.core.files import sha256, sha256_file
from synthbook.language.chat import Sampling
from synthbook.language.generating.checks import check_names, check_seeds, filled_by_seeds
from synthbook.language.generating.fields import Form, read_form
from synthbook.language.generating.keys import Keys, shown
from synthbook.language.generating.seeds import SUFFIXES, read_seeds
from synthbook.language.generating.task import FIELDS, TEXT, Chosen, Examples, Filters, Row, Task
from synthbook.language.generating.template import NAME, Template, as_text

_TOP = ("prompt", "system", "values", FIELDS, "seeds", "sampling", "filters", "model")


def read_task(path: Path) -> Task:
    """The task in a file, with its seeds. Raises `InvalidArgument`, which names the key, and `DataError` for seeds."""
    try:
        content = path.read_bytes()
        document = tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError) as error:  # of the file, of UTF-8, of TOML
        words = getattr(error, "strerror", None) or str(error)
        raise InvalidArgument("task", str(path), f"the path of a file in TOML ({words})") from None
    file = path.name
    top = Keys(file, "", document, _TOP)
    prompt = Template.of(top.text("prompt"))
    system = Template.of(top.text("system")) if "system" in document else None
    form = read_form(file, document[FIELDS]) if FIELDS in document else None
    values = _values(file, document.get("values", {}))
    examples = _examples(path, document["seeds"], prompt, form) if "seeds" in document else None
    filters = _filters(file, document.get("filters", {}))
    subjects = filled_by_seeds(file, {"prompt": prompt, "system": system}, values, form, examples)
    task = Task(
        path,
        prompt,
        system,
        values,
        form,
        examples,
        subjects,
        _sampling(file, document.get("sampling", {}), form),
        filters,
        _chosen(file, document.get("model", {})),
        {file: sha256(content)} | ({} if examples is None else {examples.path.name: examples.sha256}),
        _described(document, examples),
    )
    check_seeds(task)
    check_names(task)
    return task


def _described(document: dict[str, Any], examples: Examples | None) -> dict[str, Any]:
    found = {key: document[key] for key in _TOP if key in document and key not in ("filters", "model")}
    if examples is not None:
        found["seeds"] = {**found["seeds"], "sha256": examples.sha256}
        found["seeds"].pop("file")  # its name may change, its content may not
    return found


# ── values and seeds ─────────────────────────────────────────────────────────────────────────────────────────────────


def _values(file: str, found: object) -> tuple[tuple[Row, ...], ...]:
    """[values] holds a list for each name, [[values]] rows of values that belong together."""
    if isinstance(found, dict):
        lists = [
            (f"{file}: values.{name}", [{name: one} for one in _listed(file, name, some)])
            for name, some in found.items()
        ]
    elif isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        if any(one.keys() != other.keys() for one, other in pairwise(found)):
            raise InvalidArgument(f"{file}: values", "rows of different keys", "the same keys in every [[values]]")
        lists = [(f"{file}: values", found)]
    else:
        raise InvalidArgument(
            f"{file}: values", shown(found), 'lists by name, such as tone = ["glad", "angry"], or rows'
        )
    return tuple(tuple(_row(where, row) for row in rows) for where, rows in lists)


def _listed(file: str, name: str, some: object) -> list[Any]:
    if not isinstance(some, list) or not some:
        raise InvalidArgument(f"{file}: values.{name}", shown(some), "a list with at least one value")
    return some


def _row(where: str, row: dict[str, Any]) -> Row:
    filled = {name: as_text(value) for name, value in row.items()}
    for name, text in filled.items():
        if not NAME.fullmatch(name) or name == FIELDS:
            raise InvalidArgument(f"{where}", shown(name), f"a name of letters, digits and _ other than {FIELDS}")
        if text is None:
            raise InvalidArgument(f"{where}", shown(row[name]), "text, numbers, true or false")
    return {name: str(text) for name, text in filled.items()}


def _examples(path: Path, found: object, prompt: Template, form: Form | None) -> Examples:
    keys = Keys(path.name, "seeds", found, ("file", "per_prompt", "prompt", "answer"))
    seeds = path.parent / keys.text("file")
    if seeds.suffix not in SUFFIXES or not seeds.is_file():
        raise keys.fail(
            "file", f"the path of a file, from the folder of {path.name}, that ends in {' or '.join(SUFFIXES)}"
        )
    if form is not None and "answer" in keys.table:
        raise keys.fail("answer", "no such key: the columns of an answer are those of [fields]")
    per_prompt = keys.whole("per_prompt", 3)
    assert per_prompt is not None
    own = Template.of(keys.text("prompt")) if "prompt" in keys.table else prompt
    return Examples(seeds, sha256_file(seeds), read_seeds(seeds), per_prompt, own, keys.text("answer", TEXT))


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sampling(file: str, found: object, form: Form | None) -> Sampling:
    keys = Keys(file, "sampling", found, ("temperature", "top_p", "max_tokens", "stop"))
    temperature, top_p, most = keys.number("temperature", 1.0), keys.number("top_p", 1.0), keys.whole("max_tokens", 256)
    assert temperature is not None and top_p is not None and most is not None
    try:
        return Sampling(temperature, top_p, most, keys.texts("stop"), None if form is None else form.schema)
    except InvalidArgument as error:
        raise InvalidArgument(f"{file}: sampling: {error.argument}", error.value, error.accepted) from None


def _filters(file: str, found: object) -> Filters:
    keys = Keys(file, "filters", found, tuple(asdict(Filters())))
    least, most = keys.whole("min_length"), keys.whole("max_length")
    if least is not None and most is not None and least > most:
        raise keys.fail("max_length", f"at least min_length, {least}")
    label, balance = (keys.text(key) if key in keys.table else None for key in ("label", "balance"))
    each = keys.whole("at_most", least=1)
    balance = label if balance is None and each is not None else balance
    if each is not None and balance is None:
        raise keys.fail("at_most", "balance = NAME as well: so many are kept of each of its values")
    near, copies = (_similarity(keys, key) for key in ("near_duplicates", "copies_of_seeds"))
    return Filters(least, most, near, copies, label, balance, each)


def _similarity(keys: Keys, key: str) -> float | None:
    accepted = "a similarity above 0 and at most 1"
    found = keys.number(key, accepted=accepted)
    if found is not None and not 0 < found <= 1:
        raise keys.fail(key, accepted)
    return found


def _chosen(file: str, found: object) -> Chosen:
    keys = Keys(file, "model", found, ("url", "name", "prices"))
    url, name = (keys.text(key) if key in keys.table else None for key in ("url", "name"))
    if "prices" not in keys.table:
        return Chosen(url, name)
    prices = Keys(file, "model.prices", keys.table["prices"], ("input", "output"))
    both = [prices.number(key, accepted="the price of a million tokens") for key in ("input", "output")]
    for key, price in zip(("input", "output"), both, strict=True):
        if price is None or price < 0:
            raise prices.fail(key, "the price of a million tokens, at least 0")
    return Chosen(url, name, (float(both[0] or 0), float(both[1] or 0)))
