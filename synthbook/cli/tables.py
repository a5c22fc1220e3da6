"""Commands for tables and models: `fit`, `evaluate`, `schema draft` and `sample`."""

from __future__ import annotations

import shlex
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthbook.cli.common import JsonOption, echo_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, console, counter, echo

if TYPE_CHECKING:
    from synthbook.core.storage import Provenance

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


class TableModel(StrEnum):
    """The names of `models.tabular.families.FAMILIES`."""

    marginals = "marginals"
    copula = "copula"
    bootstrap = "bootstrap"
    cart = "cart"
    boosted = "boosted"
    tvae = "tvae"
    ctgan = "ctgan"
    diffusion = "diffusion"


def fit(
    source: Annotated[Path, typer.Argument(metavar="REAL.CSV", help="A delimited text file with a header.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes.")],
    model: Annotated[TableModel, typer.Option(help="The family.")] = TableModel.copula,
    schema: Annotated[
        Path | None, typer.Option(metavar="SCHEMA.TOML", help="Without it, FOLDER/schema.toml, drafted from the rows.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of training: tvae, ctgan and diffusion.")] = None,
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
    from synthbook.generators.tabular.families import FAMILIES

    if (out / CONFIG_NAME).exists():
        raise InvalidArgument("out", str(out), "a folder without a model: nothing is overwritten")
    check_files({"source": source} | ({} if schema is None else {"schema": schema}), None)
    chosen = schema or out / "schema.toml"
    if not chosen.exists():
        console(stderr=True).print(draft_file(source, chosen))
    declared = Schema.from_toml(chosen)
    table = load_table(source, declared)
    with bar(f"fitting {model.value}") as told:
        fitted = FAMILIES[model.value]().fit(
            table,
            seed=seed,
            steps=steps,
            checkpoint=CheckpointConfig(out / "state", resume=resume),
            callback=lambda step, steps, values: told(step, steps, next(iter(values.values()))),
        )
    parents = {source.name: sha256_file(source), chosen.name: sha256_file(chosen)}
    command = f"synthbook fit {source.name} --model {model.value} --schema {chosen.name} --seed {seed} --out {out.name}"
    command += "" if steps is None else f" --steps {steps}"
    fitted.save(out, Provenance(f"the rows of {source.name}", command, parents, 1, 1.0, seed))
    shutil.rmtree(out / "state", ignore_errors=True)
    facts = {"model": str(out), "family": model.value, "rows": len(table), "schema": str(chosen)}
    if as_json:
        echo_json(facts | {"origin": declared.origin})
        return
    echo(f"{out}: {model.value} of {len(table):,} rows and {len(fitted.layout_.modelled)} columns")
    for rule in fitted.layout_.rules_at_risk:
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


SUFFIX = {"rows": ".csv", "images": ".npz", "characters": ".txt"}
ASKED = {"where": "rows", "classes": "images", "prompt": "characters"}  # what each option is for


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
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw rows, images or text from a model. Images come with a contact sheet of the first hundred (FILE.png).

    Examples: `synthbook sample model/ -n 10000 --where income=">50K" --out synthetic.csv`,
    `synthbook sample fashion-ddpm -n 60 --classes Bag,Coat --out bags.npz`,
    `synthbook sample austen-transformer -n 2000 --prompt "Emma " --out emma.txt`
    """
    from synthbook.core.storage import Provenance
    from synthbook.generators.registry import draws, folder_of
    from synthbook.privacy.generators.families import is_private, is_private_vae

    folder = folder_of(model)
    kind = "rows" if is_private(folder) else "images" if is_private_vae(folder) else draws(folder)
    sheet = out.with_suffix(".png") if kind == "images" else None
    if out.suffix != SUFFIX[kind]:
        raise InvalidArgument("out", str(out), f"a file name that ends in {SUFFIX[kind]}")
    for option, given in {"where": where, "classes": classes, "prompt": prompt}.items():
        if given is not None and ASKED[option] != kind:
            fitting = ", ".join(f"--{name} for {what}" for name, what in ASKED.items())
            raise InvalidArgument(option, given, fitting)
    if not force and (taken := [str(path) for path in (out, sheet) if path is not None and path.exists()]):
        raise InvalidArgument("out", ", ".join(taken), "a new file, or --force to overwrite")
    asked = "".join(f" --where {shlex.quote(one)}" for one in where or ())
    asked += f" --classes {shlex.quote(classes)}" if classes else ""
    asked += f" --prompt {shlex.quote(prompt)}" if prompt else ""
    command = f"synthbook sample {folder.name} -n {n} --seed {seed}{asked}"
    provenance = Provenance(f"samples of {folder.name}", command, _parents(folder), 1, 1.0, seed)
    if kind == "rows":
        _sample_rows(folder, out, n, seed, where or [], provenance)
    elif kind == "characters":
        _sample_text(folder, out, n, seed, prompt or "", provenance)
    else:
        _sample_images(folder, out, n, seed, classes, provenance)
    if as_json:
        echo_json({"samples": str(out), "n": n} | ({} if sheet is None else {"sheet": str(sheet)}))
    else:
        echo(f"{out}: {n:,} {kind}" + ("" if sheet is None else f"; look at {sheet}"))


def _parents(folder: Path) -> dict[str, str]:
    from synthbook.core.checkpoints import CONFIG_NAME
    from synthbook.core.storage import sha256_file

    return {f"{folder.name}/{CONFIG_NAME}": sha256_file(folder / CONFIG_NAME)}


def _sample_rows(model: Path, out: Path, n: int, seed: int, where: list[str], provenance: Provenance) -> None:
    from synthbook.generators.tabular.families import load, write_rows
    from synthbook.privacy.generators import families as private
    from synthbook.privacy.generators.base import PrivateTableGenerator

    if unclear := [one for one in where if "=" not in one]:
        raise InvalidArgument("where", unclear[0], "COLUMN=VALUE")
    asked = dict(one.split("=", 1) for one in where)
    generator = load(model) if not private.is_private(model) else private.load(model)
    if isinstance(generator, PrivateTableGenerator):
        provenance = generator.guarantee_.attach_to(provenance)
    with counter("drawing", "rows") as callback:
        write_rows(generator, n, out, provenance, seed=seed, where=asked, callback=callback)


def _sample_text(model: Path, out: Path, n: int, seed: int, prompt: str, provenance: Provenance) -> None:
    from synthbook.generators.pretrained import write_text
    from synthbook.generators.registry import load_text

    with counter("writing", "characters") as callback:
        write_text(load_text(model), n, out, provenance, seed=seed, prompt=prompt, callback=callback)


def _sample_images(model: Path, out: Path, n: int, seed: int, classes: str | None, provenance: Provenance) -> None:
    from synthbook.generators.neural import Generator
    from synthbook.generators.pretrained import write_samples, write_sheet
    from synthbook.generators.registry import load
    from synthbook.privacy.generators.dp_vae import DpVae
    from synthbook.privacy.generators.families import is_private_vae

    if is_private_vae(model):
        generator: Generator = (private := DpVae.load(model))
        provenance = private.guarantee_.attach_to(provenance)
    else:
        generator = load(model)
    if not generator.learnt_.is_image:
        raise InvalidArgument("model", str(model), "a model that was fitted to images")
    drawn = generator.sample(n, seed=seed, labels=_wanted(classes, generator.learnt_.class_names, n))
    write_samples(drawn, out, provenance)
    write_sheet(drawn.take(slice(0, 100)), out.with_suffix(".png"), provenance)


def _wanted(classes: str | None, names: tuple[str, ...], n: int) -> list[int] | None:
    """A label for each image, the classes in turn; None where nobody asked."""
    if classes is None:
        return None
    numbers = {name.lower(): k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    asked = [name.strip().lower() for name in classes.split(",")]
    if unknown := [name for name in asked if name not in numbers]:
        raise InvalidArgument("classes", ", ".join(unknown), f"some of {', '.join(names)}, or numbers from 0")
    return [numbers[asked[i % len(asked)]] for i in range(n)]
