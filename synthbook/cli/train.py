"""Commands for authors: `train`, `score-models` and `calibrate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from synthbook.cli.common import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import bar, counter, put


class Length(StrEnum):
    """How long a model is trained."""

    quick = "quick"
    full = "full"


TRAINED = {  # the recipes of `generators.registry.RECIPES`
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
        from synthbook.generators.pretrained import make
        from synthbook.generators.registry import RECIPES

        with bar(f"training {name}") as told:
            log = make(
                name,
                RECIPES[name],
                out,
                profile=profile.value,
                seed=seed,
                resume=resume,
                callback=lambda step, steps, losses: told(step, steps, next(iter(losses.values()))),
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

    from synthbook.core.storage import Provenance, write_with_provenance
    from synthbook.experiments.model_scores import score_models as score

    if out.exists() and not force:
        raise InvalidArgument("out", str(out), "a new file, or --force to overwrite")
    with counter("scoring", "models") as callback:
        rows = score(n=n, seed=seed, callback=callback)
    command = f"synthbook score-models -n {n} --seed {seed}"
    text = json.dumps({"command": command, "scores": rows}, indent=1) + "\n"
    write_with_provenance(out, text, Provenance("the shipped models and Fashion-MNIST's test part", command, seed=seed))
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

    with bar(f"training {net}") as callback:
        log = feature_nets.make(net, out, seed=seed, callback=callback)
    if as_json:
        put_json({"folder": str(out)} | log)
    else:
        put(f"{out}: test accuracy {log['test_accuracy']:.3f} after {log['steps']:,} steps, {log['minutes']} minutes")


# ── calibrate ──


@dataclass(frozen=True)
class Calibration:
    """A module with `CASES` and a function `run(case, seed=k)`, what it does, and the budget to write down."""

    module: str
    does: str
    source: str
    run: str = "trial"
    budget: Callable[[Any], Any] = lambda module: None


SECTION_3 = "models of section 3, trained anew for each row"
CALIBRATED = {
    "modes": Calibration(
        "experiments.coverage",
        "Train six small models on the grid and on the ring, and count the modes that they find.",
        SECTION_3,
        run="cover",
        budget=lambda module: {name: settings for name, (_, settings) in module.FAMILIES.items()},
    ),
    "vae": Calibration(
        "experiments.vae_codes", "Train VAEs of the digits at five prices and with five sizes of code.", SECTION_3
    ),
    "diffusion": Calibration(
        "experiments.diffusion_sketch",
        "Train diffusion models of points and digits: loss over the least possible, sampling steps, nearness to"
        " training.",
        SECTION_3,
    ),
    "tables": Calibration(
        "experiments.table_choice",
        "Fit every family of generators to 5,000 rows of Adult, and score what each keeps, copies and costs.",
        SECTION_3,
        budget=lambda module: module.STEPS,
    ),
    "whole": Calibration(
        "experiments.boosted_adult",
        "Fit boosted trees to all rows of Adult, and teach a classifier by four times as many that were drawn.",
        SECTION_3,
        budget=lambda module: {"times": module.TIMES},
    ),
    "rare": Calibration(
        "experiments.rare_categories",
        "Train conditional GANs of a toy table and of Shuttle, with and without what keeps rare categories.",
        SECTION_3,
        budget=lambda module: {"toy": module.TOY},
    ),
    "teaching": Calibration(
        "experiments.teaching",
        "Teach students from a scripted teacher's answers: raw, filtered, deduplicated, balanced, and right ones.",
        "a scripted teacher's answers to word problems, judged by running them",
        budget=lambda module: {"asked": module.ASKED},
    ),
    "distillation": Calibration(
        "language.distill",
        "Teach small students of Adult by drawn rows that a large model labelled, softly and hard.",
        "students of a teacher on Adult, and of drawn rows that it labelled",
        budget=lambda module: {"transfer": module.TRANSFER, "times": module.TIMES},
    ),
    "self-instruct": Calibration(
        "experiments.grammar",
        "Grow pools of tasks with a scripted author, with the filter and without it.",
        "a scripted author's tasks",
        budget=lambda module: {"rounds": module.ROUNDS, "side by side": module.SIDE_BY_SIDE},
    ),
    "worth": Calibration(
        "experiments.answer_worth",
        "Measure what the answers that SmolLM2 gave are worth: to classifiers, to students, and when they are run.",
        "the answers of SmolLM2 that come with the book, raw and verified",
        budget=lambda module: {"steps": module.STEPS},
    ),
    "private": Calibration(
        "experiments.private_tradeoff",
        "Fit private generators to Adult at six budgets, and ones without privacy, and score what their rows teach.",
        "generators of Adult with differential privacy and without",
        budget=lambda module: {"delta": module.DELTA},
    ),
    "overfitting": Calibration(
        "experiments.overfitting",
        "Train networks of growing size on people of Adult, and tell by their losses who was learned.",
        "networks trained on rows of Adult, and attacks on them",
        budget=lambda module: {"rows": module.ROWS, "shadows": module.SHADOWS},
    ),
    "noise": Calibration(
        "experiments.noise_teacher",
        "Train students on noise to give a teacher's unused outputs, and see which of them name clothes.",
        "networks trained on Fashion-MNIST and on noise",
        budget=lambda module: {"teacher": module.TEACHER_STEPS, "student": module.STUDENT_STEPS},
    ),
}


def calibration(name: str) -> Callable[..., None]:
    """The verb of one calibration."""

    def verb(
        out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where trials are kept, one file each.")],
        seeds: Annotated[int, typer.Option(min=1, help="Trials of each case.")] = 5,
        jobs: Annotated[int, typer.Option(min=1, help="Trials side by side.")] = 2,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with a calibration that was stopped.")] = False,
        as_json: Json = False,
    ) -> None:
        from synthbook.core.jobs import Trials, calibrate
        from synthbook.core.storage import Provenance

        what = CALIBRATED[name]
        module = import_module(f"synthbook.{what.module}")
        task = Trials(getattr(module, what.run), module.CASES, seeds)
        settings = {"cases": list(module.CASES), "budget": what.budget(module)}
        provenance = Provenance(what.source, f"synthbook calibrate {name}")
        with counter("calibrating", "trials") as callback:
            table = calibrate(
                task,
                out,
                settings,
                provenance,
                jobs=jobs,
                resume=resume,
                callback=callback,
                log=lambda message: put(message, stderr=True),
            )
        if as_json:
            put_json({"trials": str(table), "n": task.n})
        else:
            put(f"{task.n} trials: {table}")

    verb.__doc__ = f"{CALIBRATED[name].does}\n\nExample: `synthbook calibrate {name} --out build/{name} --jobs 2`"
    return verb
