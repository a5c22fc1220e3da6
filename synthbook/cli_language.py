"""The verb of section 4: `synthbook verify`."""

from __future__ import annotations

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
