"""A task of yours, read from a task.toml: what is asked, in which form answers come, and what is kept of them.

Everything that can be wrong with it is found while it is read, before a model is asked anything. The i-th question
depends on the seed and on i alone.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import sha256, sha256_file, strict_json
from synthbook.language.messages import SURROGATES, ChatRequest, Message, SamplingParams, break_special_tokens
from synthbook.language.records import read_jsonl
from synthbook.language.task.fields import Keys, ResponseSchema, read_form, shown
from synthbook.language.task.template import NAME, Template, as_text

SUFFIXES = (".jsonl", ".csv")


@dataclass(frozen=True)
class Seed:
    """A row and the line that it ends on."""

    to_json_line: int
    columns: Mapping[str, Any]


def read_seeds(path: Path) -> tuple[Seed, ...]:
    """The rows of a JSONL file, or of a CSV file in UTF-8 with commas and a header; a CSV file holds text only.

    Raises `DataError`, which names the line.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else read_jsonl(path)
    found = tuple(Seed(line, columns) for line, columns in rows)
    if not found:
        raise DataError(f"{path} holds no example")
    return found


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): write it as CSV in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two columns have the same name")
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {reader.line_num}: {len(names)} values are expected, as in the header")
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def need(path: Path, seeds: Iterable[Seed], columns: Iterable[str], why: str) -> None:
    """Raise `DataError` where a row has no such column, or nothing that can stand in a prompt."""
    wanted = list(columns)
    for seed in seeds:
        for name in wanted:
            where = f"{path}, line {seed.to_json_line}"
            if name not in seed.columns:
                has = ", ".join(map(repr, seed.columns)) or "none"
                raise DataError(f"{where}: no column {name!r}, which {why}; its columns are {has}")
            said = as_text(seed.columns[name])
            if said is None or SURROGATES.search(said):
                given = repr(seed.columns[name])[:60]
                raise DataError(f"{where}: {name} = {given}; text, a number, true or false is expected")


def typed(seed: Seed, form: ResponseSchema) -> dict[str, Any]:
    """The fields of an answer in a row; where all is text, as in CSV, numbers and truth values are read."""
    return {field.name: _read(seed.columns[field.name], field.type) for field in form.fields}


def _read(value: Any, kind: str) -> Any:
    """What is not written as its type is left as it is, for the check of the form to find."""
    if not isinstance(value, str):
        return value
    if kind == "integer" and re.fullmatch(r"-?\d{1,16}", value, re.ASCII):
        return int(value)
    if kind == "number" and re.fullmatch(r"-?\d{1,16}(\.\d+)?([eE][+-]?\d{1,3})?", value, re.ASCII):
        return float(value)
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


# ── The task ──


Row = Mapping[str, str]
FIELDS = "fields"  # the place in a prompt where the form is described
TEXT = "text"  # the column of plain answers


@dataclass(frozen=True)
class Filters:
    """What is kept: lengths in characters, similarities in [0, 1], and which name is counted. None: not looked at."""

    min_length: int | None = None
    max_length: int | None = None
    near_duplicates: float | None = None
    copies_of_seeds: float | None = None
    label: str | None = None
    balance: str | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The address and the name of a model, where the task gives them, and prices of a million tokens, in and out."""

    url: str | None = None
    name: str | None = None
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class FewShotConfig:
    """Seeds: the file, its rows, how many each prompt shows, how they are asked for, the column of plain answers."""

    path: Path
    sha256: str
    rows: tuple[Seed, ...]
    per_prompt: int
    prompt: Template
    answer: str = TEXT


@dataclass(frozen=True)
class RenderedPrompt:
    """What is asked, the values that fill it, and the lines of the seeds that it shows."""

    request: ChatRequest
    values: Row
    shown: tuple[int, ...]


@dataclass(frozen=True)
class TaskConfig:
    """A task as it was read. `values` are groups of rows; each question takes one row of each group.

    `subjects`: columns of the seeds that fill the prompt, one row at a time. `files`: SHA-256 by name. `described`:
    all that decides the questions, as plain JSON.
    """

    path: Path
    prompt: Template
    system: Template | None
    values: tuple[tuple[Row, ...], ...]
    form: ResponseSchema | None
    examples: FewShotConfig | None
    subjects: tuple[str, ...]
    sampling: SamplingParams
    filters: Filters
    model: ModelConfig
    files: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the file, or of its folder where it is called task.toml."""
        return self.path.stem if self.path.stem != "task" else self.path.resolve().parent.name

    def question(self, i: int, *, seed: int) -> RenderedPrompt:
        """The i-th question; every value is used as often as every other of its group."""
        values: dict[str, str] = {}
        for k, group in enumerate(self.values):
            values |= group[_turn(len(group), i, seed, 60, k)]
        subject = None
        if self.examples is not None and self.subjects:
            subject = _turn(len(self.examples.rows), i, seed, 61)
            columns = self.examples.rows[subject].columns
            values |= {name: str(as_text(columns[name])) for name in self.subjects}
        filled = values if self.form is None else {**values, FIELDS: self.form.words}
        turns = [] if self.system is None else [Message("system", self.system.fill(filled))]
        rows = self._drawn(i, seed, subject)
        for row in rows:
            turns += self._shown(row)
        request = ChatRequest((*turns, Message("user", self.prompt.fill(filled))), replace(self.sampling, seed=seed), i)
        return RenderedPrompt(request, values, tuple(row.to_json_line for row in rows))

    def _drawn(self, i: int, seed: int, subject: int | None) -> list[Seed]:
        """Different rows to show, never the one that the question is about."""
        if self.examples is None or not self.examples.per_prompt:
            return []
        rows = [row for k, row in enumerate(self.examples.rows) if k != subject]
        rng = np.random.default_rng([seed, 62, i])
        return [rows[k] for k in rng.choice(len(rows), self.examples.per_prompt, replace=False)]

    def _shown(self, row: Seed) -> tuple[Message, Message]:
        assert self.examples is not None
        prompt, words = self.examples.prompt, {} if self.form is None else {FIELDS: self.form.words}
        filled = {name: str(as_text(row.columns.get(name))) for name in prompt.names} | words
        return Message("user", prompt.fill(filled)), Message("assistant", break_special_tokens(self.answer_of(row)))

    def answer_of(self, row: Seed) -> str:
        """A seed as the answer that a model should give."""
        assert self.examples is not None
        if self.form is None:
            return str(as_text(row.columns[self.examples.answer]))
        return strict_json(typed(row, self.form))

    def compared(self, row: Seed) -> str:
        """The text of a seed that answers are compared with."""
        answer = self.answer_of(row)
        return answer if self.form is None else self.form.text(self.form.read(answer)[0])

    def categories(self, name: str) -> list[str] | None:
        """All that a field or a placeholder can be; None where that is not known."""
        declared = None if self.form is None else self.form[name]
        if declared is not None:
            if declared.type == "integer" and declared.low is not None and declared.high is not None:
                few = declared.high - declared.low < 1_000
                return [str(k) for k in range(int(declared.low), int(declared.high) + 1)] if few else None
            return ["false", "true"] if declared.type == "boolean" else list(declared.values) or None
        rows = [row[name] for group in self.values for row in group if name in row]
        if not rows and self.examples is not None and name in self.subjects:
            rows = [str(as_text(seed.columns[name])) for seed in self.examples.rows]
        return list(dict.fromkeys(rows)) or None

    def at_most(self, n: int) -> int | None:
        """How many records of each category are kept of n, None where they are not balanced: equal shares by default.

        Raises `InvalidArgument` where n records cannot be had.
        """
        name = self.filters.balance
        if name is None:
            return None
        known = self.categories(name)
        most = self.filters.at_most if known is None or self.filters.at_most else -(-n // len(known))
        assert most is not None  # reading the task saw to that
        if known is not None and most * len(known) < n:
            accepted = f"at most {most * len(known):,}: {most:,} (filters.at_most) of each of {len(known)} ({name})"
            raise InvalidArgument("n", n, accepted)
        return most


def _turn(n: int, i: int, *key: int) -> int:
    """The i-th of an endless sequence whose every n in a row are the numbers below n in a random order."""
    return int(np.random.default_rng([*key, i // n]).permutation(n)[i % n])


# ── Checks across keys ──


def filled_by_seeds(
    file: str,
    templates: Mapping[str, Template | None],
    values: tuple[tuple[Row, ...], ...],
    form: ResponseSchema | None,
    examples: FewShotConfig | None,
) -> tuple[str, ...]:
    """Names in the prompts that only the seeds can fill. Raises `InvalidArgument` for one that nothing fills."""
    given = [name for group in values for name in group[0]]
    columns = [] if examples is None else list(examples.rows[0].columns)
    own = [] if form is None else [FIELDS]
    found: dict[str, None] = {}
    for key, template in templates.items():
        for name in () if template is None else template.names:
            if name in given or name in own:
                continue
            if name not in columns:
                can = ", ".join(f"{{{one}}}" for one in dict.fromkeys([*given, *columns, *own])) or "no place so far"
                accepted = f"{can}, or a list for it in [values]; {{{{{name}}}}}, where the text {{{name}}} is meant"
                raise InvalidArgument(f"{file}: {key}", f"{{{name}}}", accepted)
            found[name] = None
    return tuple(found)


def check_seeds(task: TaskConfig) -> None:
    """Every row has what is made of it, and is an answer of the form that is asked for.

    Raises `InvalidArgument` for too few rows, `DataError`, which names the line, for one that does not do.
    """
    examples, form = task.examples, task.form
    if examples is None:
        return
    path, rows = examples.path, examples.rows
    need(path, rows, task.subjects, "the prompt asks for")
    others = len(rows) - (1 if task.subjects else 0)  # the prompt is about one
    if others < examples.per_prompt:
        accepted = f"at most {others}: {path.name} has {len(rows)} rows"
        raise InvalidArgument(f"{task.path.name}: seeds.per_prompt", examples.per_prompt, accepted)
    if examples.per_prompt:
        asked = [name for name in examples.prompt.names if name != FIELDS or form is None]
        need(path, rows, asked, "a turn of its own asks for (seeds.prompt may be one that does without)")
    if examples.per_prompt or task.filters.copies_of_seeds is not None:
        need(path, rows, [examples.answer] if form is None else [one.name for one in form.fields], "an answer has")
        for row in [] if form is None else rows:
            if form is not None and (wrong := form.read(task.answer_of(row))[1]):
                raise DataError(
                    f"{path}, line {row.to_json_line}: no answer of the form that [fields] asks for ({wrong})"
                )


def check_names(task: TaskConfig) -> None:
    """Filters name fields or placeholders, seeds are there to be compared with, and every value is used.

    Raises `InvalidArgument`.
    """
    filters, form = task.filters, task.form
    given = [name for group in task.values for name in group[0]]
    known = list(dict.fromkeys([*given, *task.subjects, *([] if form is None else [one.name for one in form.fields])]))
    for key in ("label", "balance"):
        if getattr(filters, key) not in (None, *known):
            raise _wrong(task, key, f"a field or a placeholder: {', '.join(known) or 'there is none'}")
    declared = None if form is None or filters.balance is None else form[filters.balance]
    if declared is not None and declared.type in ("text", "number"):
        raise _wrong(task, "balance", "a name with few values, neither text nor numbers with fractions")
    if filters.balance is not None and filters.at_most is None and task.categories(filters.balance) is None:
        raise _wrong(task, "balance", "at_most as well, because it is not known what it can be")
    if filters.copies_of_seeds is not None and task.examples is None:
        raise _wrong(task, "copies_of_seeds", "[seeds] as well")
    if form is not None and form["label"] is not None and filters.label not in (None, "label"):
        raise _wrong(task, "label", "'label', because [fields] has a field of that name")
    used = {*task.prompt.names, *(task.system.names if task.system else ()), filters.label, filters.balance}
    if idle := [name for name in given if name not in used]:
        where = f"{task.path.name}: values.{idle[0]}"
        raise InvalidArgument(where, "a list without a place", f"{{{idle[0]}}} in the prompt, or take the list out")


def _wrong(task: TaskConfig, key: str, accepted: str) -> InvalidArgument:
    return InvalidArgument(f"{task.path.name}: filters.{key}", getattr(task.filters, key), accepted)


# ── Reading a task file ──


_TOP = ("prompt", "system", "values", FIELDS, "seeds", "sampling", "filters", "model")


def load_task(path: Path) -> TaskConfig:
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
    task = TaskConfig(
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


def _described(document: dict[str, Any], examples: FewShotConfig | None) -> dict[str, Any]:
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


def _examples(path: Path, found: object, prompt: Template, form: ResponseSchema | None) -> FewShotConfig:
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
    return FewShotConfig(seeds, sha256_file(seeds), read_seeds(seeds), per_prompt, own, keys.text("answer", TEXT))


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sampling(file: str, found: object, form: ResponseSchema | None) -> SamplingParams:
    keys = Keys(file, "sampling", found, ("temperature", "top_p", "max_tokens", "stop"))
    temperature, top_p, most = keys.number("temperature", 1.0), keys.number("top_p", 1.0), keys.whole("max_tokens", 256)
    assert temperature is not None and top_p is not None and most is not None
    try:
        return SamplingParams(temperature, top_p, most, keys.texts("stop"), None if form is None else form.schema)
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


def _chosen(file: str, found: object) -> ModelConfig:
    keys = Keys(file, "model", found, ("url", "name", "prices"))
    url, name = (keys.text(key) if key in keys.table else None for key in ("url", "name"))
    if "prices" not in keys.table:
        return ModelConfig(url, name)
    prices = Keys(file, "model.prices", keys.table["prices"], ("input", "output"))
    both = [prices.number(key, accepted="the price of a million tokens") for key in ("input", "output")]
    for key, price in zip(("input", "output"), both, strict=True):
        if price is None or price < 0:
            raise prices.fail(key, "the price of a million tokens, at least 0")
    return ModelConfig(url, name, (float(both[0] or 0), float(both[1] or 0)))
