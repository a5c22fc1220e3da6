"""Commands for privacy: audit, compute-epsilon and privacy-ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthbook.cli.common import (
    Force,
    JsonOption,
    Quiet,
    Seed,
    check_inputs,
    check_report,
    echo_json,
    echo_report,
    status,
)
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import echo


def audit(
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC.CSV", help="The rows to release.")],
    train: Annotated[Path, typer.Option(metavar="TRAIN.CSV", help="The rows that the generator was fitted to.")],
    holdout: Annotated[Path, typer.Option(metavar="TEST.CSV", help="Real rows that it never saw.")],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.TOML", help="See synthbook schema draft.")],
    secret: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="To infer; may be repeated. Default: the first five.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Of the guarantee; else 0.01 / (number of people).")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Report, as .html or .json.")] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Attack a synthetic table: does it leak?

    Runs membership and attribute inference attacks, and exits with status 1 if a leak is found. That none is found
    proves nothing. If the file's sidecar claims an epsilon, the attacks test it.

    Examples: `synthbook audit synthetic.csv --train train.csv --holdout test.csv --schema schema.toml`,
    `synthbook audit synthetic.csv --train train.csv --holdout test.csv --schema schema.toml --out audit.html`
    """
    files = {"synthetic": synthetic, "train": train, "holdout": holdout, "schema": schema}
    check_inputs(files)
    check_report(out, force=force)
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, read_provenance, sha256_file, sidecar_path
    from synthbook.core.table import Holdout, Schema
    from synthbook.privacy.attacks.release_audit import audit as run_attacks

    declared = Schema.from_toml(schema)
    guarantee = (read_provenance(synthetic).privacy if sidecar_path(synthetic).exists() else None) or {}
    with status("reading", quiet=quiet) as callback:
        rows, real, test = (load_table(path, declared) for path in (synthetic, train, holdout))
        report = run_attacks(
            rows,
            train=real,
            holdout=Holdout(test),
            secrets=None if secret is None else tuple(secret),
            delta=delta if delta is not None else guarantee.get("delta"),
            claimed_epsilon=guarantee.get("epsilon"),
            seed=seed,
            callback=callback,
        )
        if out is not None:
            command = f"synthbook audit {synthetic.name} --train {train.name} --holdout {holdout.name}"
            command += f" --schema {schema.name} --seed {seed}"
            command += "".join(f" --secret {column}" for column in secret or ())
            parents = {name: sha256_file(path) for name, path in files.items()}
            provenance = Provenance("attacks on synthetic rows", command, parents)
            (report.to_json if out.suffix == ".json" else report.to_html)(out, provenance)
    echo_report(report, out, as_json=as_json)
    raise typer.Exit(1 if report.leaks else 0)


def compute_epsilon(
    sample_rate: Annotated[float, typer.Option(help="Probability that a record is in a batch.")],
    steps: Annotated[int, typer.Option(help="Training steps.")],
    delta: Annotated[float, typer.Option(help="Far below 1 / (number of records).")],
    noise_multiplier: Annotated[float | None, typer.Option(help="Noise over clipping norm.")] = None,
    target_epsilon: Annotated[float | None, typer.Option(help="Find the noise multiplier for this epsilon.")] = None,
    accountant: Annotated[str, typer.Option(help="For --target-epsilon: rdp, prv, pld or pld-replace.")] = "pld",
    as_json: JsonOption = False,
) -> None:
    """Compute the epsilon of a DP-SGD run.

    With each accountant; or the noise multiplier for a target epsilon. Batches must be Poisson samples. The unit is one
    record: where a person has several, it is not the person.

    Examples: `synthbook compute-epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 --delta 1e-5`,
    `synthbook compute-epsilon --target-epsilon 2 --sample-rate 0.01 --steps 1000 --delta 1e-5`
    """
    from synthbook.privacy.accounting import ACCOUNTANTS, SubsampledGaussian, calibrate_noise

    if noise_multiplier is None and target_epsilon is not None:
        SubsampledGaussian(1.0, sample_rate, steps)  # refuses what makes no sense before anything is searched
        noise_multiplier = calibrate_noise(
            target_epsilon, delta, sample_rate=sample_rate, steps=steps, accountant=accountant
        )
    elif noise_multiplier is None or target_epsilon is not None:
        given = (noise_multiplier, target_epsilon)
        raise InvalidArgument("noise-multiplier, target-epsilon", given, "one of both")
    run = SubsampledGaussian(noise_multiplier, sample_rate, steps)
    results = {
        name: {"neighboring_relation": relation, "epsilon": compute(run, delta)}
        for name, (relation, compute) in ACCOUNTANTS.items()
    }
    if as_json:
        settings = {
            "noise_multiplier": run.noise_multiplier,
            "sample_rate": run.sample_rate,
            "steps": run.steps,
            "delta": delta,
        }
        echo_json(settings | {"unit": "one record", "sampling": "Poisson", "accountants": results})
        return
    echo(
        f"noise multiplier {run.noise_multiplier:g}, sample rate {run.sample_rate:g}, {run.steps:,} steps, "
        f"delta {delta:g}, unit: one record"
    )
    for name, result in results.items():
        echo(f"{name:12} epsilon {result['epsilon']:8.3f}   neighboring: {result['neighboring_relation']}")
    echo("epsilon bounds what an attacker can learn in principle; no floating-point protection is claimed.")


def privacy_ledger(
    path: Annotated[Path, typer.Argument(metavar="LEDGER.JSON", help="Shown, or created if it is missing.")],
    epsilon: Annotated[float | None, typer.Option(help="To create one: the total budget.")] = None,
    delta: Annotated[float | None, typer.Option(help="To create one: the total budget.")] = None,
    unit: Annotated[str, typer.Option(help="To create one: the privacy unit.")] = "one record",
    as_json: JsonOption = False,
) -> None:
    """Create a ledger of a privacy budget, or show it.

    Every private fit with --ledger is charged to it, and refused if too little remains.

    Examples: `synthbook privacy-ledger ledger.json --epsilon 2 --delta 1e-6`, `synthbook privacy-ledger ledger.json`
    """
    from synthbook.privacy.ledger import PrivacyLedger

    if path.exists():
        if epsilon is not None or delta is not None:
            raise InvalidArgument("ledger", str(path), "a new file, to create one: a total is never changed")
        ledger = PrivacyLedger.load(path)
    else:
        if epsilon is None or delta is None:
            raise InvalidArgument("epsilon, delta", (epsilon, delta), f"both, to create {path}")
        ledger = PrivacyLedger(epsilon, delta, unit, path=path).create()
    remaining = dict(zip(("epsilon", "delta"), ledger.remaining, strict=True))
    if as_json:
        entries = [{key: getattr(e, key) for key in ("purpose", "epsilon", "delta")} for e in ledger.entries]
        total = {"epsilon": ledger.epsilon, "delta": ledger.delta, "unit": ledger.unit}
        echo_json(total | {"entries": entries, "remaining": remaining})
        return
    echo(f"{path}: epsilon {ledger.epsilon:g}, delta {ledger.delta:g} for {ledger.unit}")
    for entry in ledger.entries:
        echo(f"  {entry.purpose}: epsilon {entry.epsilon:g}, delta {entry.delta:g}")
    echo(f"remaining: epsilon {remaining['epsilon']:g}, delta {remaining['delta']:g}")
