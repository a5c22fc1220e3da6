"""Does a task hold together? Every name in it must stand for something, and every seed must be what it is used as."""

from __future__ import annotations

from collections.abc import Mapping

from synthbook.core.errors import DataError, InvalidArgument
from synthbook.language.generating.fields import Form
from synthbook.language.generating.seeds import need
from synthbook.language.generating.task import FIELDS, Examples, Row, Task
from synthbook.language.generating.template import Template


def filled_by_seeds(
    file: str,
    templates: Mapping[str, Template | None],
    values: tuple[tuple[Row, ...], ...],
    form: Form | None,
    examples: Examples | None,
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


def check_seeds(task: Task) -> None:
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
                raise DataError(f"{path}, line {row.line}: no answer of the form that [fields] asks for ({wrong})")


def check_names(task: Task) -> None:
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


def _wrong(task: Task, key: str, accepted: str) -> InvalidArgument:
    return InvalidArgument(f"{task.path.name}: filters.{key}", getattr(task.filters, key), accepted)
