"""Commands for simulated scenes: render and locate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthbook.cli.common import Force, JsonOption, Quiet, Resume, Seed, check_outputs, echo_json, echo_warning
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import echo, progress_bar

_PREVIEW = 24  # images on the contact sheet


def render(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the shards.")],
    scene: Annotated[str, typer.Option(help="cube, cube-half, cube-narrow or stand-in.")] = "cube",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of images.")] = 1_000,
    width: Annotated[int, typer.Option(help="Pixels.")] = 160,
    height: Annotated[int, typer.Option(help="Pixels.")] = 120,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel processes; the bytes do not depend on it.")] = 1,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in one file.")] = 100,
    coco: Annotated[bool, typer.Option("--coco", help="Also write COCO: images/ and instances.json.")] = False,
    seed: Seed = 0,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
) -> None:
    """Render labeled images of random scenes.

    Writes Parquet shards, a manifest, and a contact sheet.

    Examples: `synthbook render --scene cube -n 20000 --out renders/ --jobs 2 --seed 7`, and with `--resume` after
    Ctrl-C
    """
    check_outputs(out, resume=resume, accept="--resume")
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
    command = f"synthbook render --scene {scene} -n {n} --seed {seed} --width {width} --height {height}"
    provenance = Provenance(f"rendered scenes: {scene}", command, generation=1, synthetic_share=1.0, seed=seed)
    with progress_bar("rendering", "images", quiet=quiet) as callback:
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
    preview = write_preview(out, out / "preview.png", _PREVIEW, provenance)
    exported = write_coco(out, out / "coco", provenance) if coco else None
    if as_json:
        paths = {"manifest": manifest, "preview": preview, "coco": exported}
        echo_json(
            {"pictures": n, "shards": len(plan.shard_names)} | {k: str(p) if p else None for k, p in paths.items()}
        )
    else:
        echo(f"{n:,} images in {len(plan.shard_names)} shards: {manifest}")
        echo(f"contact sheet: {preview}" + (f", COCO: {exported}" if exported else ""))


def locate(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO.JPG ...", help="Images of a cube.")],
    intrinsics: Annotated[
        Path | None, typer.Option(metavar="K.JSON", help='The camera, as {"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]}.')
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of PNG files with the detections drawn.")
    ] = None,
    force: Force = False,
    as_json: JsonOption = False,
) -> None:
    """Locate the cube in photographs.

    Its eight corners, their bounding box and, with intrinsics, its pose. The shipped network was trained on rendered
    images of a cube of 8.4 cm on a table; it always gives an answer.

    Examples: `synthbook locate photo.jpg`, `synthbook locate *.jpg --intrinsics K.json --out located/ --json`
    """
    from synthbook.simulation import pose
    from synthbook.simulation.localizer import load_pretrained

    if out is not None and len({path.stem for path in photos}) < len(photos):
        raise InvalidArgument("photos", [str(path) for path in photos], "images with different names, to draw them")
    plots = {} if out is None else {path: out / f"{path.stem}.png" for path in photos}
    check_outputs(*plots.values(), force=force)
    images = {path: pose.read_photograph(path) for path in photos}
    camera = None if intrinsics is None else pose.read_intrinsics(intrinsics)
    net = load_pretrained()
    detections = {path: pose.locate(net, image, camera) for path, image in images.items()}
    for path, plot in plots.items():
        pose.save_detection_plot(images[path], detections[path], plot)
    if as_json:
        drawn = {path: str(plots[path]) if path in plots else None for path in photos}
        echo_json({"photos": [{"photo": str(p), "drawn": drawn[p]} | d.to_dict() for p, d in detections.items()]})
        return
    for path, detection in detections.items():
        echo(f"{path}: {detection}" + (f"; drawn in {plots[path]}" if path in plots else ""))
