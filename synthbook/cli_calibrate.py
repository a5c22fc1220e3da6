"""The verb `synthbook calibrate`: several seeds of what the claims about trained models rest on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from synthbook.command import Json, put_json
from synthbook.core.progress import counter, put


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
        "models.coverage",
        "Train six small models on the grid and on the ring, and count the modes that they find.",
        SECTION_3,
        run="cover",
        budget=lambda module: {name: settings for name, (_, settings) in module.FAMILIES.items()},
    ),
    "vae": Calibration(
        "models.rate", "Train VAEs of the digits at five prices and with five sizes of code.", SECTION_3
    ),
    "diffusion": Calibration(
        "models.sketch",
        "Train diffusion models of points and digits: loss over the least possible, sampling steps, nearness to"
        " training.",
        SECTION_3,
    ),
    "tables": Calibration(
        "models.tabular.choosing",
        "Fit every family of generators to 5,000 rows of Adult, and score what each keeps, copies and costs.",
        SECTION_3,
        budget=lambda module: module.STEPS,
    ),
    "whole": Calibration(
        "models.tabular.whole",
        "Fit boosted trees to all rows of Adult, and teach a classifier by four times as many that were drawn.",
        SECTION_3,
        budget=lambda module: {"times": module.TIMES},
    ),
    "rare": Calibration(
        "models.tabular.rare",
        "Train conditional GANs of a toy table and of Shuttle, with and without what keeps rare categories.",
        SECTION_3,
        budget=lambda module: {"toy": module.TOY},
    ),
    "teaching": Calibration(
        "language.teaching",
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
        "language.grammar",
        "Grow pools of tasks with a scripted author, with the filter and without it.",
        "a scripted author's tasks",
        budget=lambda module: {"rounds": module.ROUNDS, "side by side": module.SIDE_BY_SIDE},
    ),
    "worth": Calibration(
        "language.worth",
        "Measure what the answers that SmolLM2 gave are worth: to classifiers, to students, and when they are run.",
        "the answers of SmolLM2 that come with the book, raw and verified",
        budget=lambda module: {"steps": module.STEPS},
    ),
    "private": Calibration(
        "privacy.generators.tradeoff",
        "Fit private generators to Adult at six budgets, and ones without privacy, and score what their rows teach.",
        "generators of Adult with differential privacy and without",
        budget=lambda module: {"delta": module.DELTA},
    ),
    "overfitting": Calibration(
        "privacy.attacks.overfitting",
        "Train networks of growing size on people of Adult, and tell by their losses who was learned.",
        "networks trained on rows of Adult, and attacks on them",
        budget=lambda module: {"rows": module.ROWS, "shadows": module.SHADOWS},
    ),
    "noise": Calibration(
        "language.noise",
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
        from synthbook.core.provenance import Provenance
        from synthbook.core.trials import Trials, calibrate

        what = CALIBRATED[name]
        module = import_module(f"synthbook.{what.module}")
        task = Trials(getattr(module, what.run), module.CASES, seeds)
        settings = {"cases": list(module.CASES), "budget": what.budget(module)}
        origin = Provenance(what.source, f"synthbook calibrate {name}")
        with counter("calibrating", "trials") as observe:
            table = calibrate(
                task,
                out,
                settings,
                origin,
                jobs=jobs,
                resume=resume,
                observe=observe,
                say=lambda message: put(message, stderr=True),
            )
        if as_json:
            put_json({"trials": str(table), "n": task.n})
        else:
            put(f"{task.n} trials: {table}")

    verb.__doc__ = f"{CALIBRATED[name].does}\n\nExample: `synthbook calibrate {name} --out build/{name} --jobs 2`"
    return verb
