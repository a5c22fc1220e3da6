"""Samples as files: Parquet shards with picture, labels and theta; COCO JSON with run-length masks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import shard_paths
from synthbook.core.plots import BLUE, ORANGE, VERMILLION, new_axes, subplots
from synthbook.core.storage import Provenance, atomic_write, write_with_provenance
from synthbook.simulation.labels import annotate
from synthbook.simulation.randomize import Domain, sample_params
from synthbook.simulation.render import Renderer, Sample

EDGES = [(i, (i + 1) % 4 + 4 * (i // 4)) for i in range(8)] + [(i, i + 4) for i in range(4)]  # of a cube's corners


def plot_corners(corners: ArrayLike, ax: Axes) -> Axes:
    """A cube's eight corners (8, 2) px in the order of `shapes.CUBE_CORNERS`, and its twelve edges."""
    points = np.asarray(corners, dtype=float)
    for a, b in EDGES:
        ax.plot(*points[[a, b]].T, "-", color=ORANGE, linewidth=1)
    ax.plot(*points.T, "o", color=ORANGE, markersize=3)
    return ax


def plot_sample(row: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """A row of a shard: the picture, boxes of what is seen, and the target's corners."""
    ax = new_axes(ax, width=4, height=3)
    with Image.open(io.BytesIO(row["image"])) as file:
        picture = np.asarray(file)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    for found in json.loads(row["labels"]):
        target = found["category"] == "target"
        if found["box"] is not None:
            left, top, wide, high = found["box"]
            colour, line = (VERMILLION, "-") if target else (BLUE, ":")
            place = (left - 0.5, top - 0.5)
            ax.add_patch(Rectangle(place, wide, high, fill=False, edgecolor=colour, linestyle=line))
        if target and all(found["corners"]):
            plot_corners(found["corners"], ax)
    high, wide = picture.shape[:2]
    ax.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5), xticks=[], yticks=[])
    ax.grid(False)
    return ax


def plot_contact_sheet(rows: Sequence[Mapping[str, Any]], *, across: int = 6) -> tuple[Figure, list[Axes]]:
    """A contact sheet: one picture for each row, with its labels and its number."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    down = -(-len(rows) // across)
    figure, axes = subplots(down, min(across, len(rows)), width=2.2 * min(across, len(rows)), height=1.8 * down)
    for ax in axes[len(rows) :]:
        ax.axis("off")
    for ax, row in zip(axes, rows, strict=False):
        plot_sample(row, ax).set_title(f"{row['index']}", fontsize=8)
    return figure, axes


THETA: dict[str, Callable[[Any], Any]] = {
    "distance (m)": lambda t: np.linalg.norm(np.subtract(t["camera"]["eye"], t["bodies"][1]["position"])),
    "elevation of the camera (degrees)": lambda t: np.degrees(np.arcsin(_toward(t)[2])),
    "elevation of the lamp (degrees)": lambda t: np.degrees(np.arcsin(t["light"]["direction"][2])),
    "exposure (share of white)": lambda t: t["finish"]["exposure"],
    "noise (grey levels)": lambda t: t["finish"]["noise"],
    "distractors": lambda t: len(t["bodies"]) - 2,
}


def _toward(theta: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    away = np.subtract(theta["camera"]["eye"], theta["bodies"][1]["position"])
    return np.asarray(away / np.linalg.norm(away))


def plot_theta(rows: Sequence[Mapping[str, Any]]) -> list[Axes]:
    """Histograms of six parts of theta as they were drawn."""
    if not rows:
        raise InvalidArgument("rows", "none", "at least one row of a shard")
    drawn = [json.loads(row["theta"]) for row in rows]
    _, axes = subplots(2, 3, width=10, height=5)
    for ax, (name, of) in zip(axes, THETA.items(), strict=True):
        values = np.array([of(theta) for theta in drawn], dtype=float)
        bins: Any = np.arange(values.min(), values.max() + 2) - 0.5 if name == "distractors" else 20
        ax.hist(values, bins=bins, color=BLUE)
        ax.set(xlabel=name, ylabel="scenes")
    return axes


# ── Parquet and COCO ──


SCHEMA = pa.schema([("index", pa.int64()), ("image", pa.binary()), ("labels", pa.string()), ("theta", pa.string())])


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) as COCO's run lengths: zeros, ones, zeros ... down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))  # starts and ends of the runs of ones
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts[: len(counts) - (counts[-1] == 0)].tolist()}


def decode_rle(runs: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask (H, W) that `encode_rle` wrote."""
    values = np.arange(len(runs["counts"])) % 2 == 1
    return np.repeat(values, runs["counts"]).reshape(runs["size"], order="F")


def row(index: int, sample: Sample) -> dict[str, Any]:
    """A sample as a row of a shard; each label has its mask."""
    labels = [found.to_dict() | {"segmentation": encode_rle(sample.mask == found.body)} for found in annotate(sample)]
    return {"index": index, "image": sample.file, "labels": json.dumps(labels), "theta": sample.params.to_json()}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


@dataclass(frozen=True)
class RenderShard:
    """The task of `synthbook render`: the pictures of one shard, with a renderer of its own."""

    domain: Domain
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if not isinstance(value, int) or not 16 <= value <= 4096:
                raise InvalidArgument(name, value, "a whole number of pixels, 16 to 4096")

    def __call__(self, items: dict[int, np.random.SeedSequence]) -> bytes:
        with Renderer() as renderer:
            return parquet([row(i, self.sample(renderer, seed)) for i, seed in items.items()])

    def sample(self, renderer: Renderer, seed: np.random.SeedSequence) -> Sample:
        """One picture from its seed alone."""
        rng = np.random.default_rng(seed)
        return renderer.render(sample_params(self.domain, rng, width=self.width, height=self.height), rng)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a finished run in order, shard by shard; labels and theta are still JSON. Raises `DataError`."""
    for path in shard_paths(folder):
        yield from pq.read_table(path, schema=SCHEMA).to_pylist()


def library_versions() -> dict[str, str]:
    """The libraries that the bytes depend on: a run goes on under the same ones only."""
    return {name: version(name) for name in ("numpy", "pillow", "pyarrow", "pybullet", "scikit-image", "scipy")}


def write_preview(folder: Path, out: Path, n: int, provenance: Provenance) -> Path:
    """The first `n` pictures of a finished run as one sheet, with their labels."""
    rows = list(islice(read_rows(folder), n))
    figure, _ = plot_contact_sheet(rows)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return write_with_provenance(out, buffer.getvalue(), provenance)


def write_coco(folder: Path, out: Path, provenance: Provenance) -> Path:
    """A finished run as COCO: `images/000000.jpg` ... and `instances.json` under `out`; returns the latter's path."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for row in read_rows(folder):
        name = f"{row['index']:06d}.jpg"
        atomic_write(out / "images" / name, row["image"])
        camera = json.loads(row["theta"])["camera"]
        images.append({"id": row["index"], "file_name": name, "width": camera["width"], "height": camera["height"]})
        for found in json.loads(row["labels"]):
            if found["box"] is None:
                continue
            category = categories.setdefault(found["category"], len(categories) + 1)
            points = [
                [*pixel, 2 if seen else 1] if pixel else [0, 0, 0]
                for pixel, seen in zip(found["corners"], found["corner_visible"], strict=True)
            ]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row["index"],
                    "category_id": category,
                    "bbox": found["box"],
                    "area": found["area"],
                    "iscrowd": 0,
                    "segmentation": found["segmentation"],
                    "keypoints": [value for point in points for value in point],
                    "num_keypoints": sum(point[2] > 0 for point in points),
                }
            )
    names = [f"corner {k}" for k in range(8)]
    kinds = [{"id": k, "name": name, "keypoints": names} for name, k in categories.items()]
    text = json.dumps({"images": images, "annotations": annotations, "categories": kinds})
    return write_with_provenance(out / "instances.json", text, provenance)
