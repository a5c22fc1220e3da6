"""The verbs of section 2: render, locate, score-localizer, train localizer, calibrate randomization."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthbook.cli.common import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import counter, put

PREVIEW = 24  # pictures on the sheet


def render(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the shards go.")],
    scene: Annotated[str, typer.Option(help="cube, cube-half, cube-narrow or stand-in.")] = "cube",
    n: Annotated[int, typer.Option(metavar="N", help="How many pictures.")] = 1_000,
    seed: Annotated[int, typer.Option(help="With the picture's number, what it is drawn from.")] = 0,
    width: Annotated[int, typer.Option(help="Pixels.")] = 160,
    height: Annotated[int, typer.Option(help="Pixels.")] = 120,
    jobs: Annotated[int, typer.Option(help="Processes side by side; the bytes do not depend on it.")] = 1,
    shard_size: Annotated[int, typer.Option(help="Pictures in one file.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    coco: Annotated[bool, typer.Option("--coco", help="Write images/ and instances.json as well.")] = False,
    as_json: Json = False,
) -> None:
    """Render labelled pictures of a random scene: Parquet shards, a manifest, and a sheet to look at.

    Examples: `synthbook render --scene cube --n 20000 --out renders/ --jobs 2 --seed 7`,
    `synthbook render --scene cube --n 20000 --out renders/ --jobs 2 --seed 7 --resume`
    """
    from dataclasses import asdict

    from synthbook.core.jobs import Plan, pmap
    from synthbook.core.storage import Provenance
    from synthbook.simulation.export import RenderShard, library_versions, write_coco, write_preview
    from synthbook.simulation.randomize import DOMAINS

    if scene not in DOMAINS:
        raise InvalidArgument("scene", scene, f"one of {', '.join(DOMAINS)}")
    task = RenderShard(DOMAINS[scene], width, height)
    settings = {
        "scene": scene,
        "width": width,
        "height": height,
        "domain": asdict(task.domain),
        "made by": library_versions(),
    }
    plan = Plan(n, seed, settings, shard_size)
    command = f"synthbook render --scene {scene} --n {n} --seed {seed} --width {width} --height {height}"
    provenance = Provenance(f"rendered scenes: {scene}", command, generation=1, synthetic_share=1.0, seed=seed)
    with counter("rendering", "pictures") as callback:
        manifest = pmap(
            task,
            plan,
            out,
            jobs=jobs,
            resume=resume,
            provenance=provenance,
            callback=callback,
            log=_say,
        )
    preview = write_preview(out, out / "preview.png", PREVIEW, provenance)
    exported = write_coco(out, out / "coco", provenance) if coco else None
    if as_json:
        paths = {"manifest": manifest, "preview": preview, "coco": exported}
        put_json({"pictures": n, "shards": len(plan.names)} | {k: str(p) if p else None for k, p in paths.items()})
    else:
        put(f"{n:,} pictures in {len(plan.names)} shards: {manifest}")
        put(f"look at {preview}" + (f", COCO in {exported}" if exported else ""))


def locate(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO.JPG ...", help="Pictures that show a cube.")],
    intrinsics: Annotated[
        Path | None, typer.Option(metavar="K.JSON", help='The camera, as {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]}.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw what was found into PNG files there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the cube in photographs: its eight corners, the box around them, its pose where intrinsics are given.

    The shipped network was trained on rendered pictures of a cube of 8.4 cm on a table, and always answers.

    Examples: `synthbook locate photo.jpg`, `synthbook locate *.jpg --intrinsics K.json --out located/ --json`
    """
    from synthbook.simulation import locate as finder
    from synthbook.simulation.localizer import load_pretrained

    if out is not None and len({path.stem for path in photos}) < len(photos):
        raise InvalidArgument("photos", [str(p) for p in photos], "pictures with different names, to draw them")
    pictures = {path: finder.read_photograph(path) for path in photos}
    lens = None if intrinsics is None else finder.read_intrinsics(intrinsics)
    net = load_pretrained()
    found = {path: finder.locate(net, picture, lens) for path, picture in pictures.items()}
    drawn = (
        {}
        if out is None
        else {p: finder.save_detection_plot(pictures[p], found[p], out / f"{p.stem}.png") for p in photos}
    )
    if as_json:
        rows = [
            {"photo": str(p), "drawn": str(drawn[p]) if p in drawn else None} | f.to_dict() for p, f in found.items()
        ]
        put_json({"photos": rows})
        return
    for path, one in found.items():
        put(f"{path}: {one}" + (f"; drawn in {drawn[path]}" if path in drawn else ""))


def train_localizer(
    renders: Annotated[Path, typer.Option(metavar="FOLDER", help="A run of synthbook render, 320 x 240 pixels.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The checkpoint's folder.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 16,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="2 trains both networks side by side.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train the two networks that find the cube, on rendered pictures only.

    Examples: `synthbook render --n 24000 --width 320 --height 240 --seed 8 --jobs 2 --out renders/`, then
    `synthbook train localizer --renders renders/ --out build/localizer`, and with `--resume` after Ctrl-C
    """
    from synthbook.simulation.localizer import LocalizerConfig
    from synthbook.simulation.localizer import train_localizer as train

    log = train(renders, out, seed=seed, config=LocalizerConfig(epochs=epochs), jobs=jobs, resume=resume)
    if as_json:
        put_json({"folder": str(out)} | log)
    else:
        put(f"{out}: {log['pictures']:,} pictures, {epochs} epochs")


def calibrate_randomization(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where trials are kept, one file each.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each world.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Trials side by side.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a calibration that was stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train small networks in 17 worlds and test each in three: what the claims about randomization rest on.

    Example: `synthbook calibrate randomization --out build/calibration --jobs 2`
    """
    from dataclasses import asdict
    from functools import partial

    from synthbook.core.jobs import Trials, calibrate
    from synthbook.core.storage import Provenance
    from synthbook.experiments.randomization import TRAIN_DOMAINS, TrialConfig, trial
    from synthbook.simulation.export import library_versions

    budget = TrialConfig()
    task = Trials(partial(trial, budget=budget), tuple(TRAIN_DOMAINS), seeds)
    domains = {name: asdict(domain) for name, domain in TRAIN_DOMAINS.items()}
    settings = {"worlds": domains, "budget": asdict(budget), "made by": library_versions()}
    provenance = Provenance("rendered scenes; tested on photographs, too", "synthbook calibrate randomization")
    with counter("calibrating", "trials") as callback:
        trials = calibrate(task, out, settings, provenance, jobs=jobs, resume=resume, callback=callback, log=_say)
    if as_json:
        put_json({"trials": str(trials), "n": task.n})
    else:
        put(f"{task.n} trials: {trials}")


def _say(message: str) -> None:
    put(message, stderr=True)


def score_localizer(
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A checkpoint; the shipped one without.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="LOG.JSONL", help="Append the figures to this log.")] = None,
    commit: Annotated[str, typer.Option(help="What the log says of the code's version.")] = "not said",
    as_json: Json = False,
) -> None:
    """Errors on the 140 real photographs, in centimetres. With --log the look is written down, so that all can see it.

    Example: `synthbook score-localizer --log data/artifacts/localizer/photographs.jsonl --commit $(git rev-parse HEAD)`
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from synthbook.datasets import real_cube
    from synthbook.simulation import photographs as real
    from synthbook.simulation.localizer import Localizer, load_pretrained

    net, held = load_pretrained() if model is None else Localizer.load(model), real_cube()
    scores = [
        real.bootstrap_score("as they are", real.photo_errors(net, held)),
        real.bootstrap_score("through random windows", real.random_crop_errors(net, held, seed=0)),
        real.bootstrap_score("always the mean position", real.constant_baseline_errors(held)),
    ]
    if log is not None:
        real.append_to_log(log, datetime.now(UTC).date().isoformat(), commit, str(model or "shipped"), scores)
    if as_json:
        put_json({"scores": [asdict(one) for one in scores]})
    else:
        put("\n".join(map(str, scores)))
