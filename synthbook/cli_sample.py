"""The verb that draws from a model: `synthbook sample`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import counter, put

if TYPE_CHECKING:
    from synthbook.core.provenance import Provenance


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
    as_json: Json = False,
) -> None:
    """Draw rows, images or text from a model. Images come with a contact sheet of the first hundred (FILE.png).

    Examples: `synthbook sample model/ -n 10000 --where income=">50K" --out synthetic.csv`,
    `synthbook sample fashion-ddpm -n 60 --classes Bag,Coat --out bags.npz`,
    `synthbook sample austen-transformer -n 2000 --prompt "Emma " --out emma.txt`
    """
    from synthbook.core.provenance import Provenance
    from synthbook.models.shipped import draws, folder_of
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
    origin = Provenance(f"samples of {folder.name}", command, _parents(folder), 1, 1.0, seed)
    if kind == "rows":
        _sample_rows(folder, out, n, seed, where or [], origin)
    elif kind == "characters":
        _sample_text(folder, out, n, seed, prompt or "", origin)
    else:
        _sample_images(folder, out, n, seed, classes, origin)
    if as_json:
        put_json({"samples": str(out), "n": n} | ({} if sheet is None else {"sheet": str(sheet)}))
    else:
        put(f"{out}: {n:,} {kind}" + ("" if sheet is None else f"; look at {sheet}"))


def _parents(folder: Path) -> dict[str, str]:
    from synthbook.core.checkpoints import CARD
    from synthbook.core.files import sha256_file

    return {f"{folder.name}/{CARD}": sha256_file(folder / CARD)}


def _sample_rows(model: Path, out: Path, n: int, seed: int, where: list[str], origin: Provenance) -> None:
    from synthbook.models.tabular.families import load, write_rows
    from synthbook.privacy.generators import families as private
    from synthbook.privacy.generators.private_table import PrivateTable

    if unclear := [one for one in where if "=" not in one]:
        raise InvalidArgument("where", unclear[0], "COLUMN=VALUE")
    asked = dict(one.split("=", 1) for one in where)
    generator = load(model) if not private.is_private(model) else private.load(model)
    if isinstance(generator, PrivateTable):
        origin = generator.terms_.beside(origin)
    with counter("drawing", "rows") as observe:
        write_rows(generator, n, out, origin, seed=seed, where=asked, observe=observe)


def _sample_text(model: Path, out: Path, n: int, seed: int, prompt: str, origin: Provenance) -> None:
    from synthbook.models.shipped import load_text
    from synthbook.models.text.novels import write_text

    with counter("writing", "characters") as observe:
        write_text(load_text(model), n, out, origin, seed=seed, prompt=prompt, observe=observe)


def _sample_images(model: Path, out: Path, n: int, seed: int, classes: str | None, origin: Provenance) -> None:
    from synthbook.models.fashion import write_samples, write_sheet
    from synthbook.models.protocol import Generator
    from synthbook.models.shipped import load
    from synthbook.privacy.generators.dp_vae import DpVae
    from synthbook.privacy.generators.families import is_private_vae

    if is_private_vae(model):
        generator: Generator = (private := DpVae.load(model))
        origin = private.terms_.beside(origin)
    else:
        generator = load(model)
    if not generator.learnt_.is_image:
        raise InvalidArgument("model", str(model), "a model that was fitted to images")
    drawn = generator.sample(n, seed=seed, labels=_wanted(classes, generator.learnt_.class_names, n))
    write_samples(drawn, out, origin)
    write_sheet(drawn.take(slice(0, 100)), out.with_suffix(".png"), origin)


def _wanted(classes: str | None, names: tuple[str, ...], n: int) -> list[int] | None:
    """A label for each image, the classes in turn; None where nobody asked."""
    if classes is None:
        return None
    numbers = {name.lower(): k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    asked = [name.strip().lower() for name in classes.split(",")]
    if unknown := [name for name in asked if name not in numbers]:
        raise InvalidArgument("classes", ", ".join(unknown), f"some of {', '.join(names)}, or numbers from 0")
    return [numbers[asked[i % len(asked)]] for i in range(n)]
