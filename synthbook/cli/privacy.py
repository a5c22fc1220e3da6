"""The verbs of section 5: `synthbook epsilon`, `synthbook fit-private` and `synthbook audit`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from synthbook.cli.common import JsonOption, echo_json
from synthbook.cli.tables import check_files
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, console, echo

SAYS = "epsilon bounds what an attacker can learn in principle; no floating-point protection is claimed."


def epsilon(
    sample_rate: Annotated[float, typer.Option(help="Probability with which a step takes each record.")],
    steps: Annotated[int, typer.Option(help="Steps of training.")],
    delta: Annotated[float, typer.Option(help="Far below 1 / (number of records).")],
    noise_multiplier: Annotated[float | None, typer.Option(help="Noise over clipping length.")] = None,
    target: Annotated[float | None, typer.Option(metavar="EPSILON", help="Find the noise for this budget.")] = None,
    accountant: Annotated[str, typer.Option(help="What calibrates the noise: rdp, prv, pld or pld-replace.")] = "pld",
    as_json: JsonOption = False,
) -> None:
    """Say what a run of DP-SGD spends, by every accountant, or how much noise a budget asks for.

    Batches must be Poisson samples. The unit is one record: where a person has several, it is not the person.

    Examples: `synthbook epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 --delta 1e-5`,
    `synthbook epsilon --target 2 --sample-rate 0.01 --steps 1000 --delta 1e-5`
    """
    from synthbook.privacy.accounting import ACCOUNTANTS, SubsampledGaussian, calibrate_noise

    if (noise_multiplier is None) == (target is None):
        given = (noise_multiplier, target)
        raise InvalidArgument("noise-multiplier, target", given, "one of both")
    if noise_multiplier is None:
        assert target is not None
        SubsampledGaussian(1.0, sample_rate, steps)  # refuses what makes no sense before anything is searched
        noise_multiplier = calibrate_noise(target, delta, sample_rate=sample_rate, steps=steps, accountant=accountant)
    run = SubsampledGaussian(noise_multiplier, sample_rate, steps)
    spent = {name: {"neighbours": pair, "epsilon": spends(run, delta)} for name, (pair, spends) in ACCOUNTANTS.items()}
    if as_json:
        told = {
            "noise_multiplier": run.noise_multiplier,
            "sample_rate": run.sample_rate,
            "steps": run.steps,
            "delta": delta,
        }
        echo_json(told | {"unit": "one record", "sampling": "Poisson", "accountants": spent})
        return
    about = f"noise multiplier {run.noise_multiplier:g}, sample rate {run.sample_rate:g}, {run.steps:,} steps"
    echo(f"{about}, delta {delta:g}, unit: one record")
    for name, found in spent.items():
        echo(f"{name:12} epsilon {found['epsilon']:8.3f}   neighbours: {found['neighbours']}")
    echo(SAYS)


class PrivateModel(StrEnum):
    """The names of `generators.registry`."""

    mst = "mst"
    private_margins = "private-margins"
    dp_tvae = "dp-tvae"


def fit_private(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.TOML", help='Reviewed by you: origin = "public".')],
    epsilon: Annotated[float, typer.Option(help="The budget.")],
    delta: Annotated[float, typer.Option(help="Far below 1 / (number of people).")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes.")],
    model: Annotated[PrivateModel, typer.Option(help="The family.")] = PrivateModel.mst,
    target: Annotated[str | None, typer.Option(help="mst: the column that matters most.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="dp-tvae: steps of training.")] = None,
    max_rows_per_entity: Annotated[int, typer.Option(min=1, help="Rows that are used of each entity.")] = 1,
    ledger: Annotated[
        Path | None, typer.Option(metavar="LEDGER.JSON", help="Pays for it: see `synthbook budget`.")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(metavar="TEST.CSV", help="For release: nothing is seeded, and these rows audit it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For teaching only; with --release nothing is seeded.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a generator to a table with differential privacy; `synthbook sample` draws its rows.

    Bounds and categories must be public. The unit is a record, or the entity that the schema names.

    Examples: `synthbook fit-private real.csv --schema schema.toml --epsilon 1 --delta 1e-6 --out model/`,
    `synthbook fit-private real.csv --schema schema.toml --epsilon 1 --delta 1e-6 --release test.csv --out model/`
    """
    from synthbook.core.checkpoints import CONFIG_NAME
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Holdout, Schema
    from synthbook.generators import registry
    from synthbook.privacy.attacks.release_audit import check_sides
    from synthbook.privacy.generators.base import check_public
    from synthbook.privacy.generators.families import audit_generator
    from synthbook.privacy.ledger import PrivacyLedger
    from synthbook.privacy.mechanisms import check_epsilon_delta

    if (out / CONFIG_NAME).exists():
        raise InvalidArgument("out", str(out), "a folder without a model: nothing is overwritten")
    if target is not None and model is not PrivateModel.mst:
        raise InvalidArgument("target", target, "nothing: only mst has a column that matters most")
    check_epsilon_delta(epsilon, delta)
    check_files({"source": source, "schema": schema} | ({} if release is None else {"release": release}), None)
    settings = {
        "epsilon": epsilon,
        "delta": delta,
        "max_rows_per_entity": max_rows_per_entity,
        "release": release is not None,
    }
    generator: Any = registry.get(model.value)(**settings, **({} if target is None else {"target": target}))
    declared = Schema.from_toml(schema)
    check_public(declared, f"fitting {model.value}")
    table = load_table(source, declared)
    others = None if release is None else Holdout(load_table(release, declared))
    if others is not None:
        check_sides(table, others.data)  # before anything is paid
    paying = None if ledger is None else PrivacyLedger.load(ledger)
    with bar(f"fitting {model.value}") as told:
        generator.fit(
            table,
            seed=None if release else seed,
            steps=steps,
            callback=lambda step, steps, values: told(step, steps, next(iter(values.values()))),
            budget=paying,
        )
    if others is not None:
        audit_generator(generator, table, others)
    # no hash of the rows: it would let anyone who guesses them check the guess
    command = f"synthbook fit-private {source.name} --model {model.value} --schema {schema.name} --epsilon {epsilon:g}"
    command += f" --delta {delta:g} --max-rows-per-entity {max_rows_per_entity}"
    command += ("" if target is None else f" --target {target}") + ("" if steps is None else f" --steps {steps}")
    command += f" --seed {seed}" if release is None else f" --release {release.name}"
    provenance = Provenance(f"the rows of {source.name}", command, {schema.name: sha256_file(schema)}, 1, 1.0, seed)
    generator.save(out, provenance)
    terms = generator.guarantee_.to_dict()
    if as_json:
        echo_json({"model": str(out), "family": model.value} | terms)
        return
    echo(f"{out}: {model.value}")
    for name, value in terms.items():
        echo(f"  {name.replace('_', ' ')}: {value if value is not None else 'none was run'}")


def budget(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER.JSON", help="Shown; or begun, where it is missing.")],
    epsilon: Annotated[float | None, typer.Option(help="To begin one: all that may ever be spent.")] = None,
    delta: Annotated[float | None, typer.Option(help="To begin one: the same.")] = None,
    unit: Annotated[str, typer.Option(help="To begin one: whose privacy it is.")] = "one record",
    as_json: JsonOption = False,
) -> None:
    """Begin a ledger of looks at a private table, or show what was spent and what is left.

    Examples: `synthbook budget ledger.json --epsilon 2 --delta 1e-6`, `synthbook budget ledger.json`
    """
    from synthbook.privacy.ledger import PrivacyLedger

    if ledger.exists():
        if epsilon is not None or delta is not None:
            raise InvalidArgument("ledger", str(ledger), "a new file, to begin one: what was allowed stays")
        kept = PrivacyLedger.load(ledger)
    else:
        if epsilon is None or delta is None:
            raise InvalidArgument("epsilon, delta", (epsilon, delta), f"both, to begin {ledger}")
        kept = PrivacyLedger(epsilon, delta, unit, path=ledger).create()
    spent = [{"purpose": one.purpose, "epsilon": one.epsilon, "delta": one.delta} for one in kept.entries]
    left = dict(zip(("epsilon", "delta"), kept.remaining, strict=True))
    if as_json:
        echo_json(
            {"epsilon": kept.epsilon, "delta": kept.delta, "unit": kept.unit, "entries": spent, "remaining": left}
        )
        return
    echo(f"{ledger}: epsilon {kept.epsilon:g}, delta {kept.delta:g} for {kept.unit}")
    for one in kept.entries:
        echo(f"  {one.purpose}: epsilon {one.epsilon:g}, delta {one.delta:g}")
    echo(f"left: epsilon {left['epsilon']:g}, delta {left['delta']:g}")


def audit(
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC.CSV", help="The rows that would be released.")],
    train: Annotated[Path, typer.Option(metavar="TRAIN.CSV", help="The rows that the generator learned from.")],
    holdout: Annotated[Path, typer.Option(metavar="TEST.CSV", help="Real rows like them that it never saw.")],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.TOML", help="See: synthbook schema draft.")],
    secret: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="To guess; may be repeated. Else the first five.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Of the promise; else 0.01 / (number of people).")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes, as .html or .json.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picks rows, and breaks ties.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Attack a synthetic table: who was in it, and what of theirs does it tell? Ends with 1 where it leaks.

    Finding nothing proves nothing. A promised epsilon is read from the file's sidecar, and held against the attacks.

    Examples: `synthbook audit synthetic.csv --train train.csv --holdout test.csv --schema schema.toml`,
    `synthbook audit synthetic.csv --train train.csv --holdout test.csv --schema schema.toml --out audit.html`
    """
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, read_provenance, sha256_file, sidecar_path
    from synthbook.core.table import Holdout, Schema
    from synthbook.privacy.attacks.release_audit import audit

    files = {"synthetic": synthetic, "train": train, "holdout": holdout, "schema": schema}
    check_files(files, out)
    declared = Schema.from_toml(schema)
    said = read_provenance(synthetic).privacy if sidecar_path(synthetic).exists() else None
    with console(stderr=True).status("reading") as status:
        made, learned, kept = (load_table(path, declared) for path in (synthetic, train, holdout))
        found = audit(
            made,
            train=learned,
            holdout=Holdout(kept),
            secrets=None if secret is None else tuple(secret),
            delta=delta if delta is not None else (said or {}).get("delta"),
            claimed_epsilon=(said or {}).get("epsilon"),
            seed=seed,
            callback=status.update,
        )
        if out is not None:
            command = f"synthbook audit {synthetic.name} --train {train.name} --holdout {holdout.name}"
            command += f" --schema {schema.name} --seed {seed}" + "".join(f" --secret {one}" for one in secret or ())
            written = Provenance("attacks on synthetic rows", command, {n: sha256_file(p) for n, p in files.items()})
            (found.to_json if out.suffix == ".json" else found.to_html)(out, written)
    if as_json:
        echo_json(found.to_dict() | {"report": None if out is None else str(out)})
    else:
        echo(found)
        if out is not None:
            echo(f"report: {out}")
    raise typer.Exit(1 if found.leaks else 0)
