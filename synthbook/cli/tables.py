"""Commands for generators: schema draft, fit, sample and evaluate."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from synthbook.cli.common import (
    Force,
    JsonOption,
    Quiet,
    Resume,
    Seed,
    check_inputs,
    check_outputs,
    check_report,
    echo_json,
    echo_report,
    echo_warning,
    status,
)
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import console, echo, progress_bar

schema = typer.Typer(help="Draft a schema from a table.")


@schema.command("draft")
def schema_draft(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[
        Path | None, typer.Option(metavar="SCHEMA.TOML", help="Default: print the draft, and the review on stderr.")
    ] = None,
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a schema from a table, with comments on what to review.

    A draft says origin = "inferred"; private generators refuse it until you have reviewed it and written "public".

    Examples: `synthbook schema draft real.csv > schema.toml`, `synthbook schema draft real.csv --out schema.toml`
    """
    check_inputs({"source": source})
    check_outputs(out, force=force)
    from synthbook.core.schema_draft import draft_file

    with TemporaryDirectory() as folder:
        path = out or Path(folder) / "schema.toml"
        draft = draft_file(source, path, force=force)
        text = path.read_text(encoding="utf-8")
    if as_json:
        echo_json({"schema": None if out is None else str(out)} | draft.to_dict())
        return
    console(stderr=out is None).print(draft)
    echo(text.rstrip() if out is None else f"{out}: {len(draft.schema.columns)} columns, {len(draft.rules)} rules")


# ── fit ──


def fit(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the model.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A generator's name, or FILE.py:CLASS for your own.")
    ] = "copula",
    schema: Annotated[
        Path | None, typer.Option(metavar="SCHEMA.TOML", help="Default: FOLDER/schema.toml, drafted from the rows.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, for neural networks.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Private models: the privacy budget.")] = None,
    delta: Annotated[float | None, typer.Option(help="Private models: far below 1 / (number of people).")] = None,
    target: Annotated[str | None, typer.Option(help="mst: the column whose dependences matter most.")] = None,
    max_rows_per_entity: Annotated[
        int | None, typer.Option(min=1, help="Private models: rows used of each entity (default: 1).")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="LEDGER.JSON", help="Private models: see synthbook privacy-ledger.")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(metavar="TEST.CSV", help="Private models, unseeded: these rows audit the result.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a generator to a table, private or not.

    Without --schema one is drafted from the rows, for you to review. A private model (mst, private-margins, dp-tvae)
    needs a reviewed schema, whose bounds and categories are public, and --epsilon and --delta; the privacy unit is a
    row, or the entity that the schema names.

    Examples: `synthbook fit real.csv --model ctgan --out model/`, and with `--resume` after Ctrl-C,
    `synthbook fit real.csv --model mst --schema schema.toml --epsilon 1 --delta 1e-6 --out model/`
    """
    from synthbook.core.checkpoints import CONFIG_NAME
    from synthbook.generators import registry
    from synthbook.generators.tabular.base import TableGenerator

    generator_class = registry.get(model)
    if not issubclass(generator_class, TableGenerator):
        names = ", ".join(info.name for info in registry.available("table"))
        raise InvalidArgument("model", model, f"a generator of tables: {names}, or FILE.py:CLASS for your own")
    check_outputs(out / CONFIG_NAME, force=force)
    inputs = {"source": source, "schema": schema, "release": release}
    check_inputs({name: path for name, path in inputs.items() if path is not None})
    private: dict[str, Any] = {
        "epsilon": epsilon,
        "delta": delta,
        "target": target,
        "max_rows_per_entity": max_rows_per_entity,
        "ledger": ledger,
        "release": release,
    }
    if generator_class.private:
        if schema is None or epsilon is None or delta is None:
            given = (schema and str(schema), epsilon, delta)
            raise InvalidArgument("schema, epsilon, delta", given, f"all three: {model} is private")
        if resume:
            raise InvalidArgument("resume", True, f"nothing: a fit of {model} cannot be resumed")
        guarantee = _fit_private(source, out, model, schema, steps, seed, quiet, **private)
        if as_json:
            echo_json({"model": str(out), "family": model} | guarantee)
            return
        echo(f"{out}: {model}")
        for name, value in guarantee.items():
            echo(f"  {name.replace('_', ' ')}: {value if value is not None else 'none was run'}")
    else:
        for name, value in private.items():
            if value is not None:
                raise InvalidArgument(name, str(value), f"nothing: {model} is not private")
        facts = _fit(source, out, model, schema, steps, seed, quiet, resume=resume, force=force)
        if as_json:
            echo_json({"model": str(out), "family": model} | facts)
        else:
            echo(f"{out}: {model} of {facts['rows']:,} rows")


def _fit(
    source: Path,
    out: Path,
    model: str,
    schema: Path | None,
    steps: int | None,
    seed: int,
    quiet: bool,
    *,
    resume: bool,
    force: bool,
) -> dict[str, Any]:
    from synthbook.core.checkpoints import CheckpointConfig
    from synthbook.core.csv import load_table
    from synthbook.core.schema_draft import draft_file
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Schema
    from synthbook.generators import registry

    state, schema = out / "state", schema or out / "schema.toml"
    if force and not resume:
        shutil.rmtree(state, ignore_errors=True)
    if not schema.exists():
        console(stderr=True).print(draft_file(source, schema))
    declared = Schema.from_toml(schema)
    table = load_table(source, declared)
    checkpoint = CheckpointConfig(state, resume=resume)
    with progress_bar(f"fitting {model}", quiet=quiet) as callback:
        generator: Any = registry.get(model)().fit(
            table, seed=seed, steps=steps, checkpoint=checkpoint, callback=callback
        )
    parents = {source.name: sha256_file(source), schema.name: sha256_file(schema)}
    command = f"synthbook fit {source.name} --model {model} --schema {schema.name} --seed {seed} --out {out.name}"
    command += "" if steps is None else f" --steps {steps}"
    generator.save(out, Provenance(f"the rows of {source.name}", command, parents, 1, 1.0, seed))
    shutil.rmtree(state, ignore_errors=True)
    for rule in generator.table_spec_.unenforced_rules:
        echo_warning(f"rows may break the rule {rule.kind}{rule.columns}: if it is no law, remove it from {schema}")
    if declared.origin == "inferred":
        echo_warning(f'{schema} was inferred from the data: review it, set origin = "public", and fit again')
    return {"rows": len(table), "schema": str(schema), "origin": declared.origin}


def _fit_private(
    source: Path,
    out: Path,
    model: str,
    schema: Path,
    steps: int | None,
    seed: int,
    quiet: bool,
    *,
    epsilon: float,
    delta: float,
    target: str | None,
    max_rows_per_entity: int | None,
    ledger: Path | None,
    release: Path | None,
) -> dict[str, Any]:
    """Fit, audit where `release` names held-out rows, and save; the guarantee as plain JSON."""
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Holdout, Schema
    from synthbook.generators import registry
    from synthbook.privacy.attacks.release_audit import check_sides
    from synthbook.privacy.generators.base import audit_generator, check_public
    from synthbook.privacy.ledger import PrivacyLedger
    from synthbook.privacy.mechanisms import check_epsilon_delta

    if target is not None and model != "mst":
        raise InvalidArgument("target", target, "nothing: only mst has a column that matters most")
    check_epsilon_delta(epsilon, delta)
    generator: Any = registry.get(model)(
        epsilon=epsilon,
        delta=delta,
        max_rows_per_entity=max_rows_per_entity or 1,
        release=release is not None,
        **({} if target is None else {"target": target}),
    )
    declared = Schema.from_toml(schema)
    check_public(declared, f"fitting {model}")
    table = load_table(source, declared)
    holdout = None if release is None else Holdout(load_table(release, declared))
    if holdout is not None:
        check_sides(table, holdout.data)  # before anything is paid
    charged = None if ledger is None else PrivacyLedger.load(ledger)
    with progress_bar(f"fitting {model}", quiet=quiet) as callback:
        generator.fit(table, seed=None if release else seed, steps=steps, callback=callback, ledger=charged)
    if holdout is not None:
        audit_generator(generator, table, holdout)
    # no hash of the rows: it would let anyone who guesses them check the guess
    command = f"synthbook fit {source.name} --model {model} --schema {schema.name} --epsilon {epsilon:g}"
    command += f" --delta {delta:g} --max-rows-per-entity {max_rows_per_entity or 1}"
    command += ("" if target is None else f" --target {target}") + ("" if steps is None else f" --steps {steps}")
    command += f" --seed {seed}" if release is None else f" --release {release.name}"
    provenance = Provenance(f"the rows of {source.name}", command, {schema.name: sha256_file(schema)}, 1, 1.0, seed)
    generator.save(out, provenance)
    guarantee: dict[str, Any] = generator.guarantee_.to_dict()
    return guarantee


# ── sample ──


_CONDITIONS = {"where": "table", "classes": "images", "prompt": "text"}  # the kind of data of each option


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name, or a model's folder.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.csv for rows, FILE.npz for images and labels, FILE.txt for text.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of rows, images or characters.")] = 100,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only rows with this value; may be repeated.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes of the images in turn: names or numbers, with commas.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Beginning of the text.")] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="FILE.py:CLASS", help="The class of a model that is your own.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Draw rows, images or text from a model.

    Images come with a contact sheet of the first hundred, FILE.png.

    Examples: `synthbook sample model/ -n 10000 --where income=">50K" --out synthetic.csv`,
    `synthbook sample fashion-ddpm -n 60 --classes Bag,Coat --out bags.npz`,
    `synthbook sample austen-transformer -n 2000 --prompt "Emma " --out emma.txt`
    """
    from synthbook.core.checkpoints import CONFIG_NAME
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.generators import registry

    folder = registry.resolve_model(model)
    generator_class = registry.read_class(folder, generator=generator)
    kind, suffix, unit = generator_class.data_kind, generator_class.suffix, generator_class.unit
    if out.suffix != suffix:
        raise InvalidArgument("out", str(out), f"a file name that ends in {suffix}")
    for option, value in {"where": where, "classes": classes, "prompt": prompt}.items():
        if value is not None and _CONDITIONS[option] != kind:
            accepted = ", ".join(f"--{name} for {kind}" for name, kind in _CONDITIONS.items())
            raise InvalidArgument(option, value, accepted)
    sheet = out.with_suffix(".png") if kind == "images" else None
    check_outputs(out, sheet, force=force)
    fitted = generator_class.load(folder)
    command = f"synthbook sample {folder.name} -n {n} --seed {seed}"
    options: dict[str, Any] = {}
    if where:
        if unclear := [condition for condition in where if "=" not in condition]:
            raise InvalidArgument("where", unclear[0], "COLUMN=VALUE")
        options["where"] = dict(condition.split("=", 1) for condition in where)
        command += "".join(f" --where {shlex.quote(condition)}" for condition in where)
    if classes:
        options["labels"] = _labels(classes, fitted.class_names, n)  # type: ignore[attr-defined]
        command += f" --classes {shlex.quote(classes)}"
    if prompt:
        options["prompt"] = prompt
        command += f" --prompt {shlex.quote(prompt)}"
    parents = {f"{folder.name}/{CONFIG_NAME}": sha256_file(folder / CONFIG_NAME)}
    provenance = Provenance(f"samples of {folder.name}", command, parents, 1, 1.0, seed)
    with progress_bar("sampling", unit, quiet=quiet) as callback:
        fitted.write(out, n, seed=seed, provenance=provenance, callback=callback, **options)
    if as_json:
        echo_json({"samples": str(out), "n": n} | ({} if sheet is None else {"sheet": str(sheet)}))
    else:
        echo(f"{out}: {n:,} {unit}" + ("" if sheet is None else f"; contact sheet: {sheet}"))


def _labels(classes: str, names: tuple[str, ...], n: int) -> list[int]:
    """A label for each of `n` images, the classes in turn."""
    numbers = {name.lower(): k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    chosen = [name.strip().lower() for name in classes.split(",")]
    if unknown := [name for name in chosen if name not in numbers]:
        raise InvalidArgument("classes", ", ".join(unknown), f"some of {', '.join(names)}, or numbers from 0")
    return [numbers[chosen[i % len(chosen)]] for i in range(n)]


# ── evaluate ──


def evaluate(
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC.CSV", help="The rows to evaluate.")],
    train: Annotated[Path, typer.Option(metavar="REAL.CSV", help="The rows that the generator was fitted to.")],
    holdout: Annotated[Path, typer.Option(metavar="TEST.CSV", help="Real rows that nothing was fitted to.")],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.TOML", help="See synthbook schema draft.")],
    target: Annotated[
        str | None, typer.Option(help="Categorical column to predict. Without it, utility is not evaluated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Report, as .html or .json.")] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a synthetic table against real rows.

    Fidelity, diversity, utility and novelty. Exits with status 1 if any of the four fails.

    Examples:
    `synthbook evaluate synthetic.csv --train real.csv --holdout test.csv --schema schema.toml --target income`,
    `synthbook evaluate synthetic.csv --train real.csv --holdout test.csv --schema schema.toml --out report.html`
    """
    files = {"synthetic": synthetic, "train": train, "holdout": holdout, "schema": schema}
    check_inputs(files)
    check_report(out, force=force)
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Holdout, Schema
    from synthbook.evaluation import report as reports
    from synthbook.evaluation.utility import check_target

    declared = Schema.from_toml(schema)
    if target is not None:
        check_target(declared, target)
    with status("reading", quiet=quiet) as callback:
        rows, real, test = (load_table(path, declared) for path in (synthetic, train, holdout))
        report = reports.evaluate(rows, train=real, holdout=Holdout(test), target=target, seed=seed, callback=callback)
        if out is not None:
            names = f"{synthetic.name} --train {train.name} --holdout {holdout.name} --schema {schema.name}"
            command = f"synthbook evaluate {names} --seed {seed}" + (f" --target {target}" if target else "")
            parents = {name: sha256_file(path) for name, path in files.items()}
            provenance = Provenance("an evaluation of synthetic rows", command, parents, seed=seed)
            (report.to_json if out.suffix == ".json" else report.to_html)(out, provenance)
    echo_report(report, out, as_json=as_json)
    raise typer.Exit(1 if False in report.answers.values() else 0)
