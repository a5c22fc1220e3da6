"""Commands for authors of the book, under `synthbook dev`: train, record, experiment, score-models, score-localizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from synthbook.cli.common import (
    Force,
    JsonOption,
    Profile,
    Quiet,
    Resume,
    Seed,
    check_outputs,
    echo_json,
    echo_warning,
)
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import echo, progress_bar

_Checkpoint = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the checkpoint.")]
app = typer.Typer(help="Commands for authors of the book.", no_args_is_help=True, rich_markup_mode="markdown")
train = typer.Typer(help="Train the models that the book ships.", no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(train, name="train")


# ── train ──


TRAINABLE = {  # the recipes of `experiments.pretrained.RECIPES`
    "fashion-vae": "a variational autoencoder on Fashion-MNIST",
    "fashion-gan": "a generative adversarial network on Fashion-MNIST",
    "fashion-ddpm": "a diffusion model on Fashion-MNIST",
    "austen-transformer": "a character-level transformer on Austen's novels",
}


def _train_command(name: str) -> Callable[..., None]:
    """The command that trains a shipped model."""

    def command(
        out: _Checkpoint,
        profile: Annotated[Profile, typer.Option(help="full: as shipped; quick: a smoke test.")] = Profile.full,
        seed: Seed = 0,
        resume: Resume = False,
        quiet: Quiet = False,
        as_json: JsonOption = False,
    ) -> None:
        check_outputs(out, resume=resume, accept="--resume")
        from synthbook.experiments.pretrained import RECIPES, train_pretrained

        with progress_bar(f"training {name}", quiet=quiet) as callback:
            log = train_pretrained(
                name,
                RECIPES[name],
                out,
                profile=profile.value,
                seed=seed,
                resume=resume,
                callback=callback,
            )
        if as_json:
            echo_json({"folder": str(out)} | log)
        else:
            last = ", ".join(f"{key} {value:.3g}" for key, value in log["history"][-1].items() if key != "step")
            echo(f"{out}: {log['steps']:,} steps, {log['parameters']:,} parameters; at the end {last}")

    command.__doc__ = (
        f"Train {TRAINABLE[name]}.\n\n"
        f"Examples: `synthbook dev train {name} --profile full --out build/{name}`, and with `--resume` after Ctrl-C"
    )
    return command


for name in TRAINABLE:
    train.command(name)(_train_command(name))


@train.command("features")
def train_features(
    net: Annotated[str, typer.Option(help="fashion-cnn or digits-cnn.")],
    out: _Checkpoint,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network that extracts image features.

    Example: `synthbook dev train features --net digits-cnn --seed 0 --out build/digits-cnn`
    """
    check_outputs(out, force=force)
    from synthbook.evaluation import feature_nets

    with progress_bar(f"training {net}", quiet=quiet) as callback:
        log = feature_nets.train_and_save(net, out, seed=seed, callback=callback)
    if as_json:
        echo_json({"folder": str(out)} | log)
    else:
        echo(f"{out}: test accuracy {log['test_accuracy']:.3f} after {log['steps']:,} steps, {log['minutes']} minutes")


@train.command("localizer")
def train_localizer(
    renders: Annotated[Path, typer.Option(metavar="FOLDER", help="Output of synthbook render, 320 x 240 pixels.")],
    out: _Checkpoint,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 16,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option(min=1, help="2 trains both networks at the same time.")] = 2,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Train the two networks that locate the cube.

    Examples: `synthbook render -n 24000 --width 320 --height 240 --seed 8 --jobs 2 --out renders/`, then
    `synthbook dev train localizer --renders renders/ --out build/localizer`, and with `--resume` after Ctrl-C
    """
    check_outputs(out, resume=resume, accept="--resume")
    from synthbook.simulation.localizer import LocalizerConfig
    from synthbook.simulation.localizer import train_localizer as train

    config = LocalizerConfig(epochs=epochs)
    with progress_bar("training the localizer", "steps", quiet=quiet) as callback:
        log = train(renders, out, seed=seed, config=config, n_jobs=jobs, resume=resume, callback=callback)
    if as_json:
        echo_json({"folder": str(out)} | log)
    else:
        echo(f"{out}: {log['pictures']:,} images, {epochs} epochs")


# ── record, experiment ──


@app.command()
def record(
    out: Annotated[Path, typer.Option(metavar="CACHE.JSONL", help="File of the answers; its log is written beside.")],
    only: Annotated[
        str | None, typer.Option(help="Beginning of one experiment's name, such as sums or judged.")
    ] = None,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Record a live model's answers for section 4.

    The model is SmolLM2 on this machine (half an hour on two cores), or the one that SYNTHBOOK_LLM_URL and
    SYNTHBOOK_LLM_MODEL name. With --resume, nothing in the file is requested again.

    Examples: `synthbook dev record --out build/smollm2.jsonl`, and with `--resume` after Ctrl-C
    """
    check_outputs(out, resume=resume, accept="--resume")
    from contextlib import nullcontext

    from synthbook.experiments.recording import record as record_answers
    from synthbook.language.client import Endpoint
    from synthbook.language.server import local_server

    remote = Endpoint.from_environment()
    server = local_server() if remote is None else nullcontext(remote)
    with server as endpoint, progress_bar("recording", "experiments", quiet=quiet) as callback:
        log = record_answers(endpoint, out, resume=resume, only=only, callback=callback)
    if as_json:
        echo_json({"cache": str(out)} | log)
        return
    costs = log["experiments"].values()
    tokens, minutes = sum(cost["completion_tokens"] for cost in costs), sum(cost["seconds"] for cost in costs) / 60
    echo(f"{out}: {tokens:,} tokens, generated in {minutes:.1f} minutes")


@app.command()
def experiment(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Without it, all are listed.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder of the trials, one file each.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each case.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Trials run in parallel.")] = 2,
    list_all: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment for several seeds.

    Examples: `synthbook dev experiment --list`, `synthbook dev experiment modes --out build/modes --jobs 2`
    """
    from synthbook.core.jobs import TrialRunner, run_trials
    from synthbook.core.storage import Provenance
    from synthbook.experiments import list_experiments, load_experiment

    if name is None or list_all:
        helps = {entry.name: entry.help for entry in list_experiments().values()}
        if as_json:
            echo_json({"experiments": helps})
        else:
            echo("\n".join(f"{name:18} {help}" for name, help in helps.items()))
        return
    if out is None:
        raise InvalidArgument("out", None, "a folder for the trials")
    check_outputs(out, resume=resume, accept="--resume")
    what = load_experiment(name)
    trials = TrialRunner(what.trial, what.cases, seeds)
    settings = {"cases": list(what.cases), "budget": what.budget} | dict(what.settings or {})
    provenance = Provenance(what.data_source, f"synthbook dev experiment {name}")
    with progress_bar(name, "trials", quiet=quiet) as callback:
        table = run_trials(
            trials, out, settings, provenance, n_jobs=jobs, resume=resume, callback=callback, log=echo_warning
        )
    if as_json:
        echo_json({"trials": str(table), "n": trials.n})
    else:
        echo(f"{trials.n} trials: {table}")


# ── scores of shipped models ──


@app.command()
def score_models(
    out: Annotated[Path, typer.Option(metavar="FILE.JSON", help="File of the table.")],
    n: Annotated[int, typer.Option("-n", min=100, max=10_000, help="Images of each model.")] = 10_000,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Score the shipped image models on the test set.

    Fréchet distance, precision, recall, density, coverage, and seconds.

    Example: `synthbook dev score-models --out build/scores.json`
    """
    check_outputs(out, force=force)
    import json

    from synthbook.core.storage import Provenance, write_with_provenance
    from synthbook.experiments.pretrained import score_models as score

    with progress_bar("scoring", "models", quiet=quiet) as callback:
        rows = score(n=n, seed=seed, callback=callback)
    command = f"synthbook dev score-models -n {n} --seed {seed}"
    text = json.dumps({"command": command, "scores": rows}, indent=1) + "\n"
    write_with_provenance(out, text, Provenance("the shipped models and Fashion-MNIST's test part", command, seed=seed))
    if as_json:
        echo_json({"table": str(out), "scores": rows})
    else:
        for row in rows:
            echo(f"{row['name']:26} Fréchet {row['frechet corrected']:.1f}, coverage {row['coverage']:.2f}")


@app.command()
def score_localizer(
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default: the shipped checkpoint.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="LOG.JSONL", help="Append the scores to this log.")] = None,
    commit: Annotated[str, typer.Option(help="The code's version, for the log.")] = "not said",
    as_json: JsonOption = False,
) -> None:
    """Score the localizer on the 140 real photographs, in cm.

    The photographs are test data: --log writes down each use of them.

    Example: `synthbook dev score-localizer --log data/artifacts/localizer/photographs.jsonl --commit $(git rev-parse
    HEAD)`
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from synthbook.datasets import real_cube
    from synthbook.experiments.randomization import append_to_log
    from synthbook.simulation import pose
    from synthbook.simulation.localizer import Localizer, load_pretrained

    net, held_out = load_pretrained() if model is None else Localizer.load(model), real_cube()
    scores = [
        pose.bootstrap_score("as they are", pose.photo_errors(net, held_out)),
        pose.bootstrap_score("through random windows", pose.random_crop_errors(net, held_out, seed=0)),
        pose.bootstrap_score("always the mean position", pose.constant_baseline_errors(held_out)),
    ]
    if log is not None:
        append_to_log(log, datetime.now(UTC).date().isoformat(), commit, str(model or "shipped"), scores)
    if as_json:
        echo_json({"scores": [asdict(score) for score in scores]})
    else:
        echo("\n".join(map(str, scores)))
