"""Commands for simulated scenes: render and locate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthbook.cli.common import JsonOption, echo_json, echo_warning
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import counter, echo

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
    as_json: JsonOption = False,
) -> None:
    """Render labelled pictures of a random scene: Parquet shards, a manifest, and a sheet to look at.

    Examples: `synthbook render --scene cube --n 20000 --out renders/ --jobs 2 --seed 7`,
    `synthbook render --scene cube --n 20000 --out renders/ --jobs 2 --seed 7 --resume`
    """
    from dataclasses import asdict

    from synthbook.core.jobs import ShardPlan, run_shards
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
    plan = ShardPlan(n, seed, settings, shard_size)
    command = f"synthbook render --scene {scene} --n {n} --seed {seed} --width {width} --height {height}"
    provenance = Provenance(f"rendered scenes: {scene}", command, generation=1, synthetic_share=1.0, seed=seed)
    with counter("rendering", "pictures") as callback:
        manifest = run_shards(
            task,
            plan,
            out,
            n_jobs=jobs,
            resume=resume,
            provenance=provenance,
            callback=callback,
            log=echo_warning,
        )
    preview = write_preview(out, out / "preview.png", PREVIEW, provenance)
    exported = write_coco(out, out / "coco", provenance) if coco else None
    if as_json:
        paths = {"manifest": manifest, "preview": preview, "coco": exported}
        echo_json(
            {"pictures": n, "shards": len(plan.shard_names)} | {k: str(p) if p else None for k, p in paths.items()}
        )
    else:
        echo(f"{n:,} pictures in {len(plan.shard_names)} shards: {manifest}")
        echo(f"look at {preview}" + (f", COCO in {exported}" if exported else ""))


def locate(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO.JPG ...", help="Pictures that show a cube.")],
    intrinsics: Annotated[
        Path | None, typer.Option(metavar="K.JSON", help='The camera, as {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]}.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw what was found into PNG files there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the cube in photographs: its eight corners, the box around them, its pose where intrinsics are given.

    The shipped network was trained on rendered pictures of a cube of 8.4 cm on a table, and always answers.

    Examples: `synthbook locate photo.jpg`, `synthbook locate *.jpg --intrinsics K.json --out located/ --json`
    """
    from synthbook.simulation import pose
    from synthbook.simulation.localizer import load_pretrained

    if out is not None and len({path.stem for path in photos}) < len(photos):
        raise InvalidArgument("photos", [str(p) for p in photos], "pictures with different names, to draw them")
    pictures = {path: pose.read_photograph(path) for path in photos}
    lens = None if intrinsics is None else pose.read_intrinsics(intrinsics)
    net = load_pretrained()
    found = {path: pose.locate(net, picture, lens) for path, picture in pictures.items()}
    drawn = (
        {}
        if out is None
        else {p: pose.save_detection_plot(pictures[p], found[p], out / f"{p.stem}.png") for p in photos}
    )
    if as_json:
        rows = [
            {"photo": str(p), "drawn": str(drawn[p]) if p in drawn else None} | f.to_dict() for p, f in found.items()
        ]
        echo_json({"photos": rows})
        return
    for path, one in found.items():
        echo(f"{path}: {one}" + (f"; drawn in {drawn[path]}" if path in drawn else ""))
