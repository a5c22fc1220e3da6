"""The verb that makes data of your own with a language model: `synthbook generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.lock import Busy
from synthbook.core.progress import counter, put

if TYPE_CHECKING:
    from synthbook.language.client import Spent
    from synthbook.language.generating.files import Files
    from synthbook.language.generating.run import Made
    from synthbook.language.generating.task import Task

SHOWN = 2  # prompts of --dry-run


def generate(
    task: Annotated[
        Path, typer.Argument(metavar="TASK.TOML", help="What is asked; docs/generate.md tells of its keys.")
    ],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many records to keep.")] = 100,
    out: Annotated[
        Path | None, typer.Option(metavar="DATA.JSONL", help="Where they go; answers, drops and a ledger go beside.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="A page about the run.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which questions are asked, and how answers are drawn.")] = 0,
    most_asks: Annotated[
        int | None, typer.Option(min=1, help="Questions that may be asked at most (default: 20 for each record).")
    ] = None,
    side_by_side: Annotated[int, typer.Option(min=1, max=1000, help="Questions that are out at the same time.")] = 8,
    timeout: Annotated[
        float, typer.Option(help="Seconds that one answer may take; it is asked for five times.")
    ] = 120.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first questions as they would be sent, and ask nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run, which may want more records or other filters by now.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what a run left, and ask everything again.")] = False,
    as_json: Json = False,
) -> None:
    """Let a language model write data for a task of your own, and keep what its filters let through.

    The model is the one that the task names, or SYNTHBOOK_LLM_URL and SYNTHBOOK_LLM_MODEL, else SmolLM2 on this
    machine. A key is read from SYNTHBOOK_LLM_KEY alone. Ends with 1 where fewer than n were kept; they are written.

    Examples: `synthbook generate docs/examples/reviews/task.toml --dry-run`,
    `synthbook generate task.toml -n 1000 --out data.jsonl --report report.html`, and with `--resume` after Ctrl-C
    """
    from synthbook.language.client import Patience
    from synthbook.language.generating.choose_model import chosen
    from synthbook.language.generating.files import Files
    from synthbook.language.generating.run import allowed
    from synthbook.language.generating.task_file import read_task

    wanted = read_task(task)
    allowed(n, most_asks)
    wanted.at_most(n)
    endpoint = chosen(wanted)
    if dry_run:
        _show(wanted, seed, as_json)
        return
    if out is None:
        raise InvalidArgument("out", None, "a path that ends in .jsonl, or --dry-run")
    files, how = Files(out, report), {"resume": resume, "force": force}
    files.check(wanted, seed=seed, **how)
    asking = {"side_by_side": side_by_side, "patience": Patience(seconds=timeout)}
    made, spent, model = _made(wanted, files, endpoint, n=n, seed=seed, most=most_asks, **how, **asking)
    _tell(wanted, files, made, spent, model, as_json)
    raise typer.Exit(1 if made.why else 0)


def _made(task: Task, files: Files, endpoint: Any, **how: Any) -> tuple[Made, Spent, str]:
    """Run it; where it is stopped or fails, say how it goes on."""
    from synthbook.language.generating.choose_model import opened
    from synthbook.language.generating.files import make

    try:
        with opened(endpoint) as model, counter("generating", "records") as observe:
            return *make(task, model, files, observe=observe, **how), model.model
    except BaseException as error:
        if files.ledger.exists() and not isinstance(error, InvalidArgument | DataError | Busy):
            put(f"answers so far are kept ({files.answers}): the same command with --resume goes on", stderr=True)
        raise


def _tell(task: Task, files: Files, made: Made, spent: Spent, model: str, as_json: bool) -> None:
    from dataclasses import asdict

    from synthbook.language.generating.files import summary

    if as_json:
        told = {"data": str(files.data), "model": model} | summary(task, made)
        put_json(told | ({} if files.report is None else {"report": str(files.report)}) | {"this time": asdict(spent)})
        return
    (paid, given), prices = made.tokens, task.chosen.prices
    said = f"{files.data}: {len(made.kept):,} of {made.n:,} kept; {model} was asked {len(made.answers):,} times,"
    said += f" {made.share:.1%} passed; {paid:,} + {given:,} tokens"
    said += "" if prices is None else f", cost {made.cost(prices):,.4f}"
    put(said + (f"; {spent.replayed:,} answers were there before" if spent.replayed else ""))
    if made.why:
        drops = max(made.ledger, key=lambda entry: entry.came - entry.stayed)
        put(
            f"fewer than {made.n:,}: {made.why}. Most fell at the stage {drops.stage!r}; {files.dropped} has all",
            stderr=True,
        )


def _show(task: Task, seed: int, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from synthbook.language.generating.template import visible

    asks = [task.question(i, seed=seed).ask for i in range(SHOWN)]
    if as_json:
        prompts = [[asdict(message) for message in ask.messages] for ask in asks]
        put_json({"prompts": prompts, "sampling": asdict(asks[0].sampling)})
        return
    for i, ask in enumerate(asks):
        put(f"── question {i} " + "─" * 40)
        for message in ask.messages:
            put(f"{message.role}: {visible(message.content)}")
    drawn = asks[0].sampling
    put(f"── temperature {drawn.temperature:g}, top_p {drawn.top_p:g}, at most {drawn.max_tokens:,} tokens " + "─" * 12)
    if drawn.schema is not None:
        put("answers have this form:")
        put(visible(json.dumps(drawn.schema, indent=1, ensure_ascii=False)))
