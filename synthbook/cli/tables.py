"""Commands for tables and models: `fit`, `evaluate`, `schema draft` and `sample`."""

from __future__ import annotations

import shlex
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer

from synthbook.cli.common import JsonOption, echo_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, console, counter, echo

schema = typer.Typer(help="Draft a schema from a table.")


@schema.command("draft")
def schema_draft(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[Path, typer.Option(help="Where the draft goes.")] = Path("schema.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file named by --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draft a schema from a table, marked "inferred", with comments that say what to review.

    Examples: `synthbook schema draft real.csv`, `synthbook schema draft real.csv --out adult.toml --force`
    """
    from synthbook.core.schema_draft import draft_file

    found = draft_file(source, out, force=force)
    if as_json:
        echo_json({"schema": str(out)} | found.to_dict())
    else:
        console().print(found)
        echo(f"{out}: {len(found.schema.columns)} columns, {len(found.rules)} rules to review")


def fit(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A generator's name, or FILE.py:CLASS for your own.")
    ] = "copula",
    schema: Annotated[
        Path | None, typer.Option(metavar="SCHEMA.TOML", help="Without it, FOLDER/schema.toml, drafted from the rows.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training: tvae, ctgan and tabddpm.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a generator to a table. Without a reviewed schema one is drafted from the rows, and shown for review.

    Examples: `synthbook fit real.csv --model copula --out model/`,
    `synthbook fit real.csv --model ctgan --schema schema.toml --out model/`, and with `--resume` after Ctrl-C
    """
    import shutil

    from synthbook.core.checkpoints import CONFIG_NAME, CheckpointConfig
    from synthbook.core.csv import load_table
    from synthbook.core.schema_draft import draft_file
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Schema
    from synthbook.generators import registry
    from synthbook.generators.tabular.base import TableGenerator

    if (out / CONFIG_NAME).exists():
        raise InvalidArgument("out", str(out), "a folder without a model: nothing is overwritten")
    generator = registry.get(model)
    if not issubclass(generator, TableGenerator) or generator.private:
        names = ", ".join(info.name for info in registry.available("table", private=False))
        raise InvalidArgument("model", model, f"a generator of tables: {names}, or FILE.py:CLASS for your own")
    check_files({"source": source} | ({} if schema is None else {"schema": schema}), None)
    chosen = schema or out / "schema.toml"
    if not chosen.exists():
        console(stderr=True).print(draft_file(source, chosen))
    declared = Schema.from_toml(chosen)
    table = load_table(source, declared)
    with bar(f"fitting {model}") as told:
        fitted = generator().fit(
            table,
            seed=seed,
            steps=steps,
            checkpoint=CheckpointConfig(out / "state", resume=resume),
            callback=lambda step, steps, values: told(step, steps, next(iter(values.values()))),
        )
    parents = {source.name: sha256_file(source), chosen.name: sha256_file(chosen)}
    command = f"synthbook fit {source.name} --model {model} --schema {chosen.name} --seed {seed} --out {out.name}"
    command += "" if steps is None else f" --steps {steps}"
    fitted.save(out, Provenance(f"the rows of {source.name}", command, parents, 1, 1.0, seed))
    shutil.rmtree(out / "state", ignore_errors=True)
    facts = {"model": str(out), "family": model, "rows": len(table), "schema": str(chosen)}
    if as_json:
        echo_json(facts | {"origin": declared.origin})
        return
    echo(f"{out}: {model} of {len(table):,} rows and {len(fitted.table_spec_.modeled)} columns")
    for rule in fitted.table_spec_.unenforced_rules:
        echo(
            f"rows may break the rule {rule.kind}{rule.columns}: if it is no law, remove it from {chosen}", stderr=True
        )
    if declared.origin == "inferred":
        echo(f'{chosen} was inferred from the data: review it, say origin = "public", and fit again', stderr=True)


def evaluate(
    real: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="The rows that the generator learned from.")],
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC.CSV", help="The rows it made.")],
    holdout: Annotated[Path, typer.Option(metavar="TEST.CSV", help="Real rows that nothing has learned from.")],
    schema: Annotated[Path, typer.Option(metavar="SCHEMA.TOML", help="See: synthbook schema draft.")],
    target: Annotated[
        str | None, typer.Option(help="The column of categories to predict; without it nobody asks: is it useful?")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes, as .html or .json.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picks rows, divisions and models.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Is a synthetic table real, varied, useful and new? Ends with 1 where one of the four is answered with no.

    Examples: `synthbook evaluate real.csv synthetic.csv --holdout test.csv --schema schema.toml --target income`,
    `synthbook evaluate real.csv synthetic.csv --holdout test.csv --schema schema.toml --out report.html`
    """
    files = {"real": real, "synthetic": synthetic, "holdout": holdout, "schema": schema}
    check_files(files, out)
    from synthbook.core.csv import load_table
    from synthbook.core.storage import Provenance, sha256_file
    from synthbook.core.table import Holdout, Schema
    from synthbook.evaluation import report as reports
    from synthbook.evaluation.utility import check_target

    declared = Schema.from_toml(schema)
    if target is not None:
        check_target(declared, target)
    with console(stderr=True).status("reading") as status:
        learned, made, kept = (load_table(path, declared) for path in (real, synthetic, holdout))
        found = reports.evaluate(learned, Holdout(kept), made, target=target, seed=seed, callback=status.update)
        if out is not None:
            names = f"{real.name} {synthetic.name} --holdout {holdout.name} --schema {schema.name}"
            command = f"synthbook evaluate {names} --seed {seed}" + (f" --target {target}" if target else "")
            parents = {name: sha256_file(path) for name, path in files.items()}
            written = Provenance("an evaluation of synthetic rows", command, parents, seed=seed)
            (found.to_json if out.suffix == ".json" else found.to_html)(out, written)
    if as_json:
        echo_json(found.to_dict() | {"report": None if out is None else str(out)})
    else:
        echo(found)
        if out is not None:
            echo(f"report: {out}")
    raise typer.Exit(1 if False in found.answers.values() else 0)


def check_files(files: dict[str, Path], out: Path | None) -> None:
    for name, path in files.items():
        if not path.is_file():
            raise InvalidArgument(name, str(path), "the path of a file that exists")
    for (name, path), (other, same) in combinations(files.items(), 2):
        if path.samefile(same):
            raise InvalidArgument(other, str(same), f"another file than {name}")
    if out is None:
        return
    if out.suffix not in (".html", ".json"):
        raise InvalidArgument("out", str(out), "a path that ends in .html or .json")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InvalidArgument("out", str(out), "a file in a folder that exists")


# ── sample ──


CONDITIONS = {"where": "table", "classes": "images", "prompt": "text"}  # the kind of data of each option


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name, or a model's folder.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.csv for rows, FILE.npz for images and labels, FILE.txt for text.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows, images or characters.")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only rows with this value; may be repeated.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these images, as often each: names or numbers, with commas between.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the text begins with.")] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="FILE.py:CLASS", help="The class of a model that is your own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw rows, images or text from a model. Images come with a contact sheet of the first hundred (FILE.png).

    Examples: `synthbook sample model/ -n 10000 --where income=">50K" --out synthetic.csv`,
    `synthbook sample fashion-ddpm -n 60 --classes Bag,Coat --out bags.npz`,
    `synthbook sample austen-transformer -n 2000 --prompt "Emma " --out emma.txt`
    """
    from synthbook.core.storage import Provenance
    from synthbook.generators import registry

    folder = registry.resolve_model(model)
    generator_class = registry.read_class(folder, generator=generator)
    kind, suffix, unit = generator_class.data_kind, generator_class.suffix, generator_class.unit
    if out.suffix != suffix:
        raise InvalidArgument("out", str(out), f"a file name that ends in {suffix}")
    for option, value in {"where": where, "classes": classes, "prompt": prompt}.items():
        if value is not None and CONDITIONS[option] != kind:
            accepted = ", ".join(f"--{name} for {kind}" for name, kind in CONDITIONS.items())
            raise InvalidArgument(option, value, accepted)
    sheet = out.with_suffix(".png") if kind == "images" else None
    if not force and (existing := [str(path) for path in (out, sheet) if path is not None and path.exists()]):
        raise InvalidArgument("out", ", ".join(existing), "a new file, or --force to overwrite")
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
    provenance = Provenance(f"samples of {folder.name}", command, _parents(folder), 1, 1.0, seed)
    with counter("sampling", unit) as callback:
        fitted.write(out, n, seed=seed, provenance=provenance, callback=callback, **options)
    if as_json:
        echo_json({"samples": str(out), "n": n} | ({} if sheet is None else {"sheet": str(sheet)}))
    else:
        echo(f"{out}: {n:,} {unit}" + ("" if sheet is None else f"; look at {sheet}"))


def _parents(folder: Path) -> dict[str, str]:
    from synthbook.core.checkpoints import CONFIG_NAME
    from synthbook.core.storage import sha256_file

    return {f"{folder.name}/{CONFIG_NAME}": sha256_file(folder / CONFIG_NAME)}


def _labels(classes: str, names: tuple[str, ...], n: int) -> list[int]:
    """A label for each of `n` images, the classes in turn."""
    numbers = {name.lower(): k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    asked = [name.strip().lower() for name in classes.split(",")]
    if unknown := [name for name in asked if name not in numbers]:
        raise InvalidArgument("classes", ", ".join(unknown), f"some of {', '.join(names)}, or numbers from 0")
    return [numbers[asked[i % len(asked)]] for i in range(n)]
