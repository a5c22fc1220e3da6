"""The verbs of section 3: train the shipped models, and score-models."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, counter, put


class Length(StrEnum):
    """How long a model is trained."""

    quick = "quick"
    full = "full"


TRAINED = {  # the recipes of `models.shipped.RECIPES`
    "fashion-vae": "a variational autoencoder on Fashion-MNIST",
    "fashion-gan": "a generative adversarial network on Fashion-MNIST",
    "fashion-ddpm": "a diffusion model on Fashion-MNIST",
    "austen-transformer": "a transformer that writes like Jane Austen, character by character",
}

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The checkpoint's folder.")]
Profile = Annotated[Length, typer.Option(help="full is what the book ships; quick shows that it works.")]
Seed = Annotated[int, typer.Option(min=0)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]


def trainer(name: str) -> Callable[..., None]:
    """The verb that makes a shipped model anew."""

    def verb(
        out: Out, profile: Profile = Length.full, seed: Seed = 0, resume: Resume = False, as_json: Json = False
    ) -> None:
        from synthbook.models.making import make
        from synthbook.models.shipped import RECIPES

        with bar(f"training {name}") as told:
            log = make(
                name,
                RECIPES[name],
                out,
                profile=profile.value,
                seed=seed,
                resume=resume,
                observe=lambda step, steps, losses: told(step, steps, next(iter(losses.values()))),
            )
        if as_json:
            put_json({"folder": str(out)} | log)
        else:
            last = ", ".join(f"{key} {value:.3g}" for key, value in log["history"][-1].items() if key != "step")
            put(f"{out}: {log['steps']:,} steps, {log['parameters']:,} parameters; at the end {last}")

    verb.__doc__ = (
        f"Train {TRAINED[name]}.\n\n"
        f"Examples: `synthbook train {name} --profile full --out build/{name}`, and with `--resume` after Ctrl-C"
    )
    return verb


def score_models(
    out: Annotated[Path, typer.Option(metavar="FILE.JSON", help="Where the table goes.")],
    n: Annotated[int, typer.Option("-n", min=100, max=10_000, help="Images of each model.")] = 10_000,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Json = False,
) -> None:
    """Score the shipped models of clothes against the real test set: Fréchet distance, precision to coverage, seconds.

    Example: `synthbook score-models --out build/scores.json`
    """
    import json

    from synthbook.core.provenance import Provenance, write_described
    from synthbook.models.scoring import score_models as score

    if out.exists() and not force:
        raise InvalidArgument("out", str(out), "a new file, or --force to overwrite")
    with counter("scoring", "models") as observe:
        rows = score(n=n, seed=seed, observe=observe)
    command = f"synthbook score-models -n {n} --seed {seed}"
    text = json.dumps({"command": command, "scores": rows}, indent=1) + "\n"
    write_described(out, text, Provenance("the shipped models and Fashion-MNIST's test part", command, seed=seed))
    if as_json:
        put_json({"table": str(out), "scores": rows})
    else:
        for row in rows:
            put(f"{row['name']:26} Fréchet {row['frechet corrected']:.1f}, coverage {row['coverage']:.2f}")


def train_features(
    net: Annotated[str, typer.Option(help="fashion-cnn or digits-cnn.")],
    out: Annotated[Path, typer.Option(help="The checkpoint's folder.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train a net that measures images, on the real train part.

    Example: `synthbook train features --net digits-cnn --seed 0 --out build/digits-cnn`
    """
    from synthbook.evaluation import feature_nets

    with bar(f"training {net}") as observe:
        log = feature_nets.make(net, out, seed=seed, observe=observe)
    if as_json:
        put_json({"folder": str(out)} | log)
    else:
        put(f"{out}: test accuracy {log['test_accuracy']:.3f} after {log['steps']:,} steps, {log['minutes']} minutes")
