"""The verbs for tables of one's own: `synthbook fit` and `synthbook evaluate`; `synthbook sample` draws rows."""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, console, put


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
    as_json: Json = False,
) -> None:
    """Fit a generator to a table. Without a reviewed schema one is drafted from the rows, and shown for review.

    Examples: `synthbook fit real.csv --model copula --out model/`,
    `synthbook fit real.csv --model ctgan --schema schema.toml --out model/`, and with `--resume` after Ctrl-C
    """
    import shutil

    from synthbook.core.checkpoints import CARD
    from synthbook.core.draft import draft_file
    from synthbook.core.files import sha256_file
    from synthbook.core.provenance import Provenance
    from synthbook.core.reading import load_table
    from synthbook.core.resume import Keep
    from synthbook.core.schema import Schema
    from synthbook.models.tabular.families import FAMILIES

    if (out / CARD).exists():
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
            keep=Keep(out / "state", resume=resume),
            observe=lambda step, steps, values: told(step, steps, next(iter(values.values()))),
        )
    parents = {source.name: sha256_file(source), chosen.name: sha256_file(chosen)}
    command = f"synthbook fit {source.name} --model {model.value} --schema {chosen.name} --seed {seed} --out {out.name}"
    command += "" if steps is None else f" --steps {steps}"
    fitted.save(out, Provenance(f"the rows of {source.name}", command, parents, 1, 1.0, seed))
    shutil.rmtree(out / "state", ignore_errors=True)
    facts = {"model": str(out), "family": model.value, "rows": len(table), "schema": str(chosen)}
    if as_json:
        put_json(facts | {"origin": declared.origin})
        return
    put(f"{out}: {model.value} of {len(table):,} rows and {len(fitted.layout_.modelled)} columns")
    for rule in fitted.layout_.rules_at_risk:
        put(f"rows may break the rule {rule.kind}{rule.columns}: if it is no law, remove it from {chosen}", stderr=True)
    if declared.origin == "inferred":
        put(f'{chosen} was inferred from the data: review it, say origin = "public", and fit again', stderr=True)


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
    as_json: Json = False,
) -> None:
    """Is a synthetic table real, varied, useful and new? Ends with 1 where one of the four is answered with no.

    Examples: `synthbook evaluate real.csv synthetic.csv --holdout test.csv --schema schema.toml --target income`,
    `synthbook evaluate real.csv synthetic.csv --holdout test.csv --schema schema.toml --out report.html`
    """
    files = {"real": real, "synthetic": synthetic, "holdout": holdout, "schema": schema}
    check_files(files, out)
    from synthbook.core.files import sha256_file
    from synthbook.core.provenance import Provenance
    from synthbook.core.reading import load_table
    from synthbook.core.schema import Holdout, Schema
    from synthbook.evaluation import report as reports
    from synthbook.evaluation.utility import check_target

    declared = Schema.from_toml(schema)
    if target is not None:
        check_target(declared, target)
    with console(stderr=True).status("reading") as status:
        learned, made, kept = (load_table(path, declared) for path in (real, synthetic, holdout))
        found = reports.evaluate(learned, Holdout(kept), made, target=target, seed=seed, observe=status.update)
        if out is not None:
            names = f"{real.name} {synthetic.name} --holdout {holdout.name} --schema {schema.name}"
            command = f"synthbook evaluate {names} --seed {seed}" + (f" --target {target}" if target else "")
            parents = {name: sha256_file(path) for name, path in files.items()}
            written = Provenance("an evaluation of synthetic rows", command, parents, seed=seed)
            (found.to_json if out.suffix == ".json" else found.to_html)(out, written)
    if as_json:
        put_json(found.as_json() | {"report": None if out is None else str(out)})
    else:
        put(found)
        if out is not None:
            put(f"report: {out}")
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
