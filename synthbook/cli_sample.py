"""The verb that draws from a model: `synthbook sample`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import counter, put

if TYPE_CHECKING:
    from synthbook.core.provenance import Provenance


def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name, or a model's folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="FILE.csv for rows; FILE.npz for images and labels.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows or images.")] = 100,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only rows with this value; may be repeated.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these images, as often each: names or numbers, with commas between.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    as_json: Json = False,
) -> None:
    """Draw rows or images from a model. Images come with a contact sheet of the first hundred (FILE.png).

    Examples: `synthbook sample model/ -n 10000 --where income=">50K" --out synthetic.csv`,
    `synthbook sample fashion-ddpm -n 60 --classes Bag,Coat --out bags.npz`
    """
    from synthbook.core.provenance import Provenance
    from synthbook.models.tabular.families import is_table_model

    rows = is_table_model(Path(model))
    suffix, sheet = (".csv", None) if rows else (".npz", out.with_suffix(".png"))
    if out.suffix != suffix:
        raise InvalidArgument("out", str(out), f"a file name that ends in {suffix}")
    if (classes if rows else where) is not None:
        raise InvalidArgument(
            "classes" if rows else "where", classes or where, "--where for rows, --classes for images"
        )
    if not force and (taken := [str(path) for path in (out, sheet) if path is not None and path.exists()]):
        raise InvalidArgument("out", ", ".join(taken), "a new file, or --force to overwrite")
    asked = "".join(f" --where {shlex.quote(one)}" for one in where or ())
    asked += f" --classes {shlex.quote(classes)}" if classes else ""
    command = f"synthbook sample {model if sheet else Path(model).name} -n {n} --seed {seed}{asked}"
    origin = Provenance(f"samples of {model if sheet else Path(model).name}", command, {}, 1, 1.0, seed)
    if sheet is None:
        _sample_rows(Path(model), out, n, seed, where or [], origin)
    else:
        _sample_images(model, out, sheet, n, seed, classes, origin)
    if as_json:
        put_json({"samples": str(out), "n": n} | ({} if sheet is None else {"sheet": str(sheet)}))
    else:
        put(f"{out}: {n:,} rows" if sheet is None else f"{out}: {n:,} images; look at {sheet}")


def _sample_rows(model: Path, out: Path, n: int, seed: int, where: list[str], origin: Provenance) -> None:
    from synthbook.core.checkpoints import CARD
    from synthbook.core.files import sha256_file
    from synthbook.models.tabular.families import load, write_rows

    if unclear := [one for one in where if "=" not in one]:
        raise InvalidArgument("where", unclear[0], "COLUMN=VALUE")
    asked = dict(one.split("=", 1) for one in where)
    described = replace(origin, parents={f"{model.name}/{CARD}": sha256_file(model / CARD)})
    with counter("drawing", "rows") as observe:
        write_rows(load(model), n, out, described, seed=seed, where=asked, observe=observe)


def _sample_images(
    model: str, out: Path, sheet: Path, n: int, seed: int, classes: str | None, origin: Provenance
) -> None:
    from synthbook.models.fashion import write_samples, write_sheet
    from synthbook.models.shipped import load

    generator = load(model)
    if not generator.learnt_.is_image:
        raise InvalidArgument("model", model, "a model that was fitted to images")
    drawn = generator.sample(n, seed=seed, labels=_wanted(classes, generator.learnt_.class_names, n))
    write_samples(drawn, out, origin)
    write_sheet(drawn.take(slice(0, 100)), sheet, origin)


def _wanted(classes: str | None, names: tuple[str, ...], n: int) -> list[int] | None:
    """A label for each image, the classes in turn; None where nobody asked."""
    if classes is None:
        return None
    numbers = {name.lower(): k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    asked = [name.strip().lower() for name in classes.split(",")]
    if unknown := [name for name in asked if name not in numbers]:
        raise InvalidArgument("classes", ", ".join(unknown), f"some of {', '.join(names)}, or numbers from 0")
    return [numbers[asked[i % len(asked)]] for i in range(n)]
