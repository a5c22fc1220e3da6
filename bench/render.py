"""What the whole pipeline costs beyond PyBullet's own renderer, what a second process brings, and whether memory grows.

Bare: `getCameraImage` alone, again and again, on the scenes that the pipeline draws, builds, renders, labels, finishes
and writes. Both alternate, scene by scene, in this process. Writes bench/results/render.json; run it with
`make bench-render`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import harness
import numpy as np
import psutil

from synthbook.core.jobs import ShardPlan, item_seed, run_shards
from synthbook.core.storage import Provenance
from synthbook.simulation.export import RenderShard, to_parquet, to_row
from synthbook.simulation.randomize import DOMAINS, sample_params
from synthbook.simulation.render import Renderer

SIZE, SCENES_TIMED, AGAIN, ROUNDS, MANY = 128, 100, 5, 7, 2_000


def pipeline_against_bare(task: RenderShard) -> tuple[list[float], list[float]]:
    """Images per second of both, one figure for each round over the same scenes."""
    rates: tuple[list[float], list[float]] = [], []
    with Renderer() as renderer:
        for number in range(ROUNDS + 1):
            bare = whole = 0.0
            rows = []
            for i in range(SCENES_TIMED):
                start = perf_counter()
                rows.append(to_row(i, task.sample(renderer, item_seed(0, i))))
                whole += perf_counter() - start
                params = sample_params(task.domain, np.random.default_rng(item_seed(0, i)), width=SIZE, height=SIZE)
                start = perf_counter()
                for _ in range(AGAIN):
                    renderer.raw_buffers(params)
                bare += (perf_counter() - start) / AGAIN
            start = perf_counter()
            to_parquet(rows)
            whole += perf_counter() - start
            if number:  # the first round fills the texture cache
                rates[0].append(SCENES_TIMED / whole)
                rates[1].append(SCENES_TIMED / bare)
    return rates


def growth(task: RenderShard, images: int = 5_000) -> list[float]:
    """Resident memory in MiB after each 500 images."""
    process, seen = psutil.Process(), []
    for first in range(0, images, 100):
        task({i: item_seed(1, i) for i in range(first, first + 100)})
        if first % 500 == 400:
            seen.append(process.memory_info().rss / 2**20)
    return seen


def side_by_side(task: RenderShard, n_jobs: int) -> float:
    """Images per second of a whole run, the start of the workers included."""
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        provenance = Provenance("a bench", "make bench-render")
        run_shards(task, ShardPlan(MANY, seed=2), Path(folder) / "run", n_jobs=n_jobs, provenance=provenance)
        return MANY / (perf_counter() - start)


def main() -> None:
    task = RenderShard(DOMAINS["cube"], SIZE, SIZE)
    whole, bare = pipeline_against_bare(task)
    jobs = {n: [side_by_side(task, n) for _ in range(3)] for n in (1, 2)}
    memory = growth(task)
    share = float(np.median(np.array(whole) / np.array(bare)))
    result = {
        "size": SIZE,
        "images_per_second": {"pipeline": harness.spread(whole), "bare": harness.spread(bare)},
        "share_of_the_bare_rate": share,
        "two_processes_over_one": float(np.median(jobs[2]) / np.median(jobs[1])),
        "memory_mib": memory,
        "growth_mib": max(memory[1:]) - memory[0],
        "machine": harness.machine(),
    }
    rows = [["", "images per second, median (least–most)"]]
    for name, r in result["images_per_second"].items():
        rows.append([name, f"{r['median']:,.0f} ({r['least']:,.0f}–{r['most']:,.0f})"])
    for n, rates in jobs.items():
        rows.append([f"a run of {MANY:,}, {n} process{'es' * (n > 1)}", f"{np.median(rates):,.0f}"])
    note = (
        f"The pipeline reaches {share:.0%} of the bare rate; two processes {result['two_processes_over_one']:.2f}"
        f" times one; memory grows by {result['growth_mib']:.0f} MiB from image 500 to 5,000."
    )
    title = f"Rendering at {SIZE} x {SIZE}: pipeline and bare renderer"
    harness.save_result("render", title, note, rows, result, seed=0)


if __name__ == "__main__":
    main()
