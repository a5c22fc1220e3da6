"""The task file of `synthbook generate`: prompt, values, response fields, seeds, sampling, filters and model.

All errors are found while the file is read, before any request. The i-th request depends on the seed and i alone.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator
from pydantic import Field as Constraints
from pydantic import model_validator as validator

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import sha256, sha256_file, strict_json
from synthbook.language.messages import SURROGATES, ChatRequest, Message, SamplingParams, break_special_tokens
from synthbook.language.records import read_jsonl
from synthbook.language.task.fields import (
    IDENTIFIER,
    Count,
    Field,
    Length,
    Number,
    ResponseSchema,
    Table,
    Template,
    Text,
    Texts,
    accepts,
    as_text,
    check_fields,
    parse_table,
    shown,
)

_Row = Mapping[str, str]
FIELDS = "fields"  # the placeholder in a prompt for a description of the response
TEXT = "text"  # the column of plain answers
_SUFFIXES = (".jsonl", ".csv")


# ── The tables of a task file ──


def _values(table: object) -> tuple[tuple[_Row, ...], ...]:
    """[values] has a list for each name; [[values]] has rows of values that belong together."""
    if isinstance(table, dict):
        for name, column in table.items():
            if not isinstance(column, list) or not column:
                raise InvalidArgument(name, shown(column), "a list with at least one value")
        groups = [(name, [{name: value} for value in column]) for name, column in table.items()]
    elif isinstance(table, list) and table and all(isinstance(row, dict) for row in table):
        if any(one.keys() != other.keys() for one, other in pairwise(table)):
            raise InvalidArgument("", "rows of different keys", "the same keys in every [[values]]")
        groups = [("", table)]
    else:
        raise InvalidArgument("", shown(table), 'lists by name, such as tone = ["glad", "angry"], or rows')
    return tuple(tuple(_row(where, row) for row in rows) for where, rows in groups)


def _row(where: str, row: dict[str, Any]) -> _Row:
    for name, value in row.items():
        if not IDENTIFIER.fullmatch(name) or name == FIELDS:
            raise InvalidArgument(where, shown(name), f"a name of letters, digits and _ other than {FIELDS}")
        if as_text(value) is None:
            raise InvalidArgument(where, shown(value), "text, numbers, true or false")
    return {name: str(as_text(value)) for name, value in row.items()}


class SeedTable(Table):
    """[seeds]: a file of real examples and how they are shown."""

    file: Text = None  # type: ignore[assignment]
    per_prompt: Length = 3
    prompt: Text | None = None
    answer: Text | None = None


class SamplingTable(Table):
    """[sampling]: how responses are sampled."""

    temperature: Number = 1.0
    top_p: Number = 1.0
    max_tokens: Annotated[int, Constraints(strict=True), accepts("a whole number of at least 1")] = 256
    stop: Texts = ()

    @validator(mode="after")
    def _accepted(self) -> Self:
        self.params(None)
        return self

    def params(self, schema: Mapping[str, Any] | None) -> SamplingParams:
        """The parameters of a request whose response has this schema. Raises `InvalidArgument`."""
        return SamplingParams(self.temperature, self.top_p, self.max_tokens, self.stop, schema)


_SIMILARITY = "a similarity above 0 and at most 1"
_Similarity = Annotated[float, Constraints(strict=True, gt=0, le=1), accepts(_SIMILARITY)]


class Filters(Table):
    """[filters]: lengths in characters, similarities in [0, 1], and the name that is balanced; None is off."""

    min_length: Length | None = None
    max_length: Length | None = None
    near_duplicates: _Similarity | None = None
    copies_of_seeds: _Similarity | None = None
    label: Text | None = None
    balance: Text | None = None
    at_most: Count | None = None

    @validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            raise InvalidArgument("max_length", self.max_length, f"at least min_length, {self.min_length}")
        if self.at_most is not None and self.balance is None:
            if self.label is None:
                raise InvalidArgument("at_most", self.at_most, "balance = NAME as well: it limits each of its values")
            self.balance = self.label
        return self


_Price = Annotated[
    float, Constraints(strict=True, ge=0, allow_inf_nan=False), accepts("the price of a million tokens, at least 0")
]


class Prices(Table):
    """[model.prices]: of a million tokens, in and out."""

    input: _Price = None  # type: ignore[assignment]
    output: _Price = None  # type: ignore[assignment]


class ModelConfig(Table):
    """[model]: the address and the name of a model, and its prices."""

    url: Text | None = None
    name: Text | None = None
    price_table: Prices | None = Constraints(None, alias="prices")

    @property
    def prices(self) -> tuple[float, float] | None:
        """Prices of a million tokens, in and out."""
        return None if self.price_table is None else (self.price_table.input, self.price_table.output)


class TaskFile(Table):
    """The whole file."""

    prompt: Text = None  # type: ignore[assignment]
    system: Text | None = None
    values: Annotated[Any, BeforeValidator(_values)] = Constraints(default_factory=dict)  # groups of rows
    fields: Annotated[dict[str, Field], BeforeValidator(check_fields)] | None = None
    seeds: SeedTable | None = None
    sampling: SamplingTable = SamplingTable()
    filters: Filters = Filters()
    model: ModelConfig = Constraints(default_factory=dict, validate_default=True)

    @validator(mode="after")
    def _answer_column(self) -> Self:
        if self.fields is not None and self.seeds is not None and self.seeds.answer is not None:
            accepted = "no such key: the columns of an answer are those of [fields]"
            raise InvalidArgument("seeds.answer", self.seeds.answer, accepted)
        return self


# ── Seeds: real examples ──


@dataclass(frozen=True)
class Seed:
    """A row of the seed file and the line on which it ends."""

    line: int
    columns: Mapping[str, Any]


def _read_seeds(path: Path) -> tuple[Seed, ...]:
    """The rows of a JSONL file, or of a UTF-8 CSV file with commas and a header (all text).

    Raises `DataError`, which names the line.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else read_jsonl(path)
    seeds = tuple(Seed(line, columns) for line, columns in rows)
    if not seeds:
        raise DataError(f"{path} holds no example")
    return seeds


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


def _require_columns(path: Path, seeds: Iterable[Seed], columns: Iterable[str], purpose: str) -> None:
    """Raise `DataError` where a row lacks a column, or holds there what cannot appear in a prompt."""
    names = list(columns)
    for seed in seeds:
        for name in names:
            where = f"{path}, line {seed.line}"
            if name not in seed.columns:
                present = ", ".join(map(repr, seed.columns)) or "none"
                raise DataError(f"{where}: no column {name!r}, which {purpose}; its columns are {present}")
            text = as_text(seed.columns[name])
            if text is None or SURROGATES.search(text):
                value = repr(seed.columns[name])[:60]
                raise DataError(f"{where}: {name} = {value}; text, a number, true or false is expected")


def _typed(value: Any, kind: str) -> Any:
    """A CSV cell as its field's type; what does not parse stays text, which the response schema refuses."""
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


@dataclass(frozen=True)
class FewShotConfig:
    """Seeds: the file, its rows, how many each prompt shows, their prompt, and the column of plain answers."""

    path: Path
    sha256: str
    rows: tuple[Seed, ...]
    per_prompt: int
    prompt: Template
    answer: str = TEXT


@dataclass(frozen=True)
class RenderedPrompt:
    """A request, the values that fill it, and the lines of the seeds that it shows."""

    request: ChatRequest
    values: _Row
    shown: tuple[int, ...]


@dataclass(frozen=True)
class TaskConfig:
    """A task as read. `values` are groups of rows; each request takes one row of each group.

    `subjects`: columns of the seeds that fill the prompt, one row at a time. `files`: SHA-256 by name. `described`:
    all that decides the requests, as plain JSON.
    """

    path: Path
    prompt: Template
    system: Template | None
    values: tuple[tuple[_Row, ...], ...]
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
        """The name of the file, or of its folder where it is called task.toml."""
        return self.path.stem if self.path.stem != "task" else self.path.resolve().parent.name

    @property
    def placeholders(self) -> list[str]:
        """Names that lists of values fill."""
        return [name for group in self.values for name in group[0]]

    def question(self, i: int, *, seed: int) -> RenderedPrompt:
        """The i-th request; every value is used as often as every other of its group."""
        values: dict[str, str] = {}
        for k, group in enumerate(self.values):
            values |= group[_balanced_choice(len(group), i, seed, 60, k)]
        subject = None
        if self.examples is not None and self.subjects:
            subject = _balanced_choice(len(self.examples.rows), i, seed, 61)
            columns = self.examples.rows[subject].columns
            values |= {name: str(as_text(columns[name])) for name in self.subjects}
        filled = values if self.form is None else {**values, FIELDS: self.form.words}
        turns = [] if self.system is None else [Message("system", self.system.fill(filled))]
        rows = self._few_shot_rows(i, seed, subject)
        for row in rows:
            turns += self._shown(row)
        messages = (*turns, Message("user", self.prompt.fill(filled)))
        request = ChatRequest(messages, replace(self.sampling, seed=seed), i)
        return RenderedPrompt(request, values, tuple(row.line for row in rows))

    def _few_shot_rows(self, i: int, seed: int, subject: int | None) -> list[Seed]:
        """Different rows to show, never the one that the request is about."""
        if self.examples is None or not self.examples.per_prompt:
            return []
        rows = [row for k, row in enumerate(self.examples.rows) if k != subject]
        rng = np.random.default_rng([seed, 62, i])
        return [rows[k] for k in rng.choice(len(rows), self.examples.per_prompt, replace=False)]

    def _shown(self, row: Seed) -> tuple[Message, Message]:
        assert self.examples is not None
        prompt, description = self.examples.prompt, {} if self.form is None else {FIELDS: self.form.words}
        filled = {name: str(as_text(row.columns.get(name))) for name in prompt.names} | description
        return Message("user", prompt.fill(filled)), Message("assistant", break_special_tokens(self.answer_of(row)))

    def answer_of(self, row: Seed) -> str:
        """A seed as the response that a model should give."""
        assert self.examples is not None
        if self.form is None:
            return str(as_text(row.columns[self.examples.answer]))
        return strict_json({name: _typed(row.columns[name], one.type) for name, one in self.form.fields.items()})

    def compared(self, row: Seed) -> str:
        """The text of a seed that responses are compared with."""
        answer = self.answer_of(row)
        return answer if self.form is None else self.form.text(self.form.read(answer)[0])

    def categories(self, name: str) -> list[str] | None:
        """All values of a field or placeholder; None where they are not known."""
        declared = None if self.form is None else self.form.fields.get(name)
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
        """Records kept of each category among n, None where they are not balanced; equal shares by default.

        Raises `InvalidArgument` where n records cannot be had.
        """
        name = self.filters.balance
        if name is None:
            return None
        known = self.categories(name)
        limit = self.filters.at_most if known is None or self.filters.at_most else -(-n // len(known))
        assert limit is not None  # checked when the task was read
        if known is not None and limit * len(known) < n:
            accepted = f"at most {limit * len(known):,}: {limit:,} (filters.at_most) of each of {len(known)} ({name})"
            raise InvalidArgument("n", n, accepted)
        return limit


def _balanced_choice(n: int, i: int, *key: int) -> int:
    """Item i of an endless sequence in which every n in a row are a random permutation of 0, ..., n - 1."""
    return int(np.random.default_rng([*key, i // n]).permutation(n)[i % n])


# ── Reading ──


def load_task(path: Path) -> TaskConfig:
    """The task in a file, with its seeds.

    Raises `InvalidArgument`, which lists the keys that are wrong, and `DataError` for seeds.
    """
    try:
        content = path.read_bytes()
        document = tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError) as error:  # of the file, of UTF-8, of TOML
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidArgument("task", str(path), f"the path of a file in TOML ({reason})") from None
    tables = parse_table(path.name, TaskFile, document)
    prompt, system = (None if text is None else Template.of(text) for text in (tables.prompt, tables.system))
    assert prompt is not None
    form = None if tables.fields is None else ResponseSchema(tables.fields)
    examples = None if tables.seeds is None else _few_shot(path, tables.seeds, prompt)
    task = TaskConfig(
        path,
        prompt,
        system,
        tables.values,
        form,
        examples,
        (),
        tables.sampling.params(None if form is None else form.schema),
        tables.filters,
        tables.model,
        {path.name: sha256(content)} | ({} if examples is None else {examples.path.name: examples.sha256}),
        _described(document, examples),
    )
    task = replace(task, subjects=_subjects(task))
    _check_seeds(task)
    _check_names(task)
    return task


def _few_shot(path: Path, table: SeedTable, prompt: Template) -> FewShotConfig:
    seeds = path.parent / table.file
    if seeds.suffix not in _SUFFIXES or not seeds.is_file():
        accepted = f"the path of a file, from the folder of {path.name}, that ends in {' or '.join(_SUFFIXES)}"
        raise InvalidArgument(f"{path.name}: seeds.file", table.file, accepted)
    own = prompt if table.prompt is None else Template.of(table.prompt)
    return FewShotConfig(seeds, sha256_file(seeds), _read_seeds(seeds), table.per_prompt, own, table.answer or TEXT)


def _described(document: dict[str, Any], examples: FewShotConfig | None) -> dict[str, Any]:
    described = {key: document[key] for key in TaskFile.model_fields if key in document}
    described = {key: table for key, table in described.items() if key not in ("filters", "model")}
    if examples is not None:  # the name of the file may change, its content may not
        seeds = {key: value for key, value in described["seeds"].items() if key != "file"}
        described["seeds"] = seeds | {"sha256": examples.sha256}
    return described


def _subjects(task: TaskConfig) -> tuple[str, ...]:
    """Placeholders that only the seeds can fill. Raises `InvalidArgument` for one that nothing fills."""
    columns = [] if task.examples is None else list(task.examples.rows[0].columns)
    own = [] if task.form is None else [FIELDS]
    subjects: dict[str, None] = {}
    for key, template in {"prompt": task.prompt, "system": task.system}.items():
        for name in () if template is None else template.names:
            if name in task.placeholders or name in own:
                continue
            if name not in columns:
                known = dict.fromkeys([*task.placeholders, *columns, *own])
                can = ", ".join(f"{{{one}}}" for one in known) or "no place so far"
                accepted = f"{can}, or a list for it in [values]; {{{{{name}}}}}, where the text {{{name}}} is meant"
                raise InvalidArgument(f"{task.path.name}: {key}", f"{{{name}}}", accepted)
            subjects[name] = None
    return tuple(subjects)


def _check_seeds(task: TaskConfig) -> None:
    """Every seed has the columns that are used, and is a valid response.

    Raises `InvalidArgument` for too few rows, `DataError`, which names the line, for an unsuitable one.
    """
    examples, form = task.examples, task.form
    if examples is None:
        return
    path, rows = examples.path, examples.rows
    _require_columns(path, rows, task.subjects, "the prompt asks for")
    others = len(rows) - (1 if task.subjects else 0)  # the prompt is about one
    if others < examples.per_prompt:
        accepted = f"at most {others}: {path.name} has {len(rows)} rows"
        raise InvalidArgument(f"{task.path.name}: seeds.per_prompt", examples.per_prompt, accepted)
    if examples.per_prompt:
        names = [name for name in examples.prompt.names if name != FIELDS or form is None]
        purpose = "a turn of its own asks for (seeds.prompt may be one that does without)"
        _require_columns(path, rows, names, purpose)
    if examples.per_prompt or task.filters.copies_of_seeds is not None:
        _require_columns(path, rows, [examples.answer] if form is None else form.fields, "an answer has")
        for row in [] if form is None else rows:
            if form is not None and (error := form.read(task.answer_of(row))[1]):
                raise DataError(f"{path}, line {row.line}: no answer of the form that [fields] asks for ({error})")


def _check_names(task: TaskConfig) -> None:
    """Filters name fields or placeholders, seeds to compare with exist, and every list of values is used.

    Raises `InvalidArgument`.
    """
    filters, fields = task.filters, {} if task.form is None else task.form.fields
    known = list(dict.fromkeys([*task.placeholders, *task.subjects, *fields]))
    for key in ("label", "balance"):
        if getattr(filters, key) not in (None, *known):
            raise _wrong(task, key, f"a field or a placeholder: {', '.join(known) or 'there is none'}")
    declared = fields.get(filters.balance or "")
    if declared is not None and declared.type in ("text", "number"):
        raise _wrong(task, "balance", "a name with few values, neither text nor numbers with fractions")
    if filters.balance is not None and filters.at_most is None and task.categories(filters.balance) is None:
        raise _wrong(task, "balance", "at_most as well, because it is not known what it can be")
    if filters.copies_of_seeds is not None and task.examples is None:
        raise _wrong(task, "copies_of_seeds", "[seeds] as well")
    if "label" in fields and filters.label not in (None, "label"):
        raise _wrong(task, "label", "'label', because [fields] has a field of that name")
    used = {*task.prompt.names, *(task.system.names if task.system else ()), filters.label, filters.balance}
    if unused := [name for name in task.placeholders if name not in used]:
        where = f"{task.path.name}: values.{unused[0]}"
        raise InvalidArgument(where, "a list without a place", f"{{{unused[0]}}} in the prompt, or take the list out")


def _wrong(task: TaskConfig, key: str, accepted: str) -> InvalidArgument:
    return InvalidArgument(f"{task.path.name}: filters.{key}", getattr(task.filters, key), accepted)
