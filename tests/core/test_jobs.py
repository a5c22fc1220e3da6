"""A run of shards survives kills, full disks, flipped bits and second writers, and always ends in the same bytes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from synthbook.core import jobs, storage
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.jobs import (
    MANIFEST,
    ShardPlan,
    WorkersTerminatedError,
    item_seed,
    lock_output,
    run_shards,
    shard_paths,
)
from synthbook.core.storage import LockedError, Provenance, read_provenance

ORIGIN = Provenance("a test", "pytest")


def numbers(items: dict[int, np.random.SeedSequence]) -> bytes:
    lines = [f"{i} {np.random.default_rng(seed).integers(1_000_000)}\n" for i, seed in items.items()]
    return "".join(lines).encode()


def slow(items: dict[int, np.random.SeedSequence]) -> bytes:
    time.sleep(0.02)
    return numbers(items)


@dataclass(frozen=True)
class SuicidalOnce:
    """The worker that gets item 20 dies the first time."""

    mark: Path

    def __call__(self, items: dict[int, np.random.SeedSequence]) -> bytes:
        if 20 in items and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers(items)


def suicidal(items: dict[int, np.random.SeedSequence]) -> bytes:
    if 20 in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers(items)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != jobs.LOCK}


PLAN = ShardPlan(95, seed=3, settings={"what": "numbers"}, shard_size=10, suffix=".txt")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    run_shards(numbers, PLAN, folder, provenance=ORIGIN)
    return folder


def test_every_item_comes_once_with_its_own_seed(undisturbed: Path) -> None:
    lines = "".join(path.read_text() for path in shard_paths(undisturbed)).splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(95))
    assert lines[42] == f"42 {np.random.default_rng(item_seed(3, 42)).integers(1_000_000)}"
    assert len({line.split()[1] for line in lines}) > 90
    assert read_provenance(undisturbed / MANIFEST).source == "a test"


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(undisturbed: Path, tmp_path: Path, n_jobs: int) -> None:
    seen: list[tuple[int, int]] = []
    run_shards(numbers, PLAN, tmp_path / "many", n_jobs=n_jobs, provenance=ORIGIN, callback=lambda *at: seen.append(at))
    assert content(tmp_path / "many") == content(undisturbed)
    assert seen[0] == (0, 95) and seen[-1] == (95, 95) and seen == sorted(seen)


@pytest.mark.slow
def test_shards_of_a_killed_worker_are_tried_again(undisturbed: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run_shards(SuicidalOnce(tmp_path / "mark"), PLAN, tmp_path / "run", n_jobs=2, provenance=ORIGIN, log=said.append)
    assert content(tmp_path / "run") == content(undisturbed)
    assert len(said) == 1 and "a worker was killed" in said[0]


@pytest.mark.slow
def test_workers_that_always_die_end_the_run_and_nothing_finished_is_lost(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkersTerminatedError, match="--resume"):
        run_shards(suicidal, PLAN, tmp_path / "run", n_jobs=2, provenance=ORIGIN)
    left = content(tmp_path / "run")
    assert MANIFEST not in left and 0 < sum(name.endswith(".txt") for name in left) < 10
    run_shards(numbers, PLAN, tmp_path / "run", n_jobs=2, provenance=ORIGIN, resume=True)
    assert content(tmp_path / "run") == content(undisturbed)


RUN = """
import sys; from pathlib import Path
from tests.core.test_jobs import ORIGIN, PLAN, slow
from synthbook.core.jobs import run_shards
run_shards(slow, PLAN, Path(sys.argv[1]), n_jobs=2, resume=True, provenance=ORIGIN)
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(undisturbed: Path, tmp_path: Path) -> None:
    rng, folder, kept = np.random.default_rng(0), tmp_path / "run", 0
    for _ in range(20):
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder)], start_new_session=True, stderr=subprocess.DEVNULL
        )
        try:
            run.wait(timeout=float(rng.uniform(0.3, 2.2)))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # the workers, too
            run.wait()
        found = len(jobs.completed_shards(folder, PLAN)[0])
        assert found >= kept  # nothing finished is lost
        kept = found
    run_shards(slow, PLAN, folder, n_jobs=2, resume=True, provenance=ORIGIN)
    assert content(folder) == content(undisturbed)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no hash"])
def test_a_damaged_shard_is_named_and_made_again(undisturbed: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    run_shards(numbers, PLAN, folder, provenance=ORIGIN)
    path = folder / "shard-00004.txt"
    raw = path.read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    elif damage == "truncate":
        path.write_bytes(raw[:-1])
    elif damage == "delete":
        path.unlink()
    else:
        (folder / "shard-00004.txt.sha256").unlink()
    if damage != "no hash":  # the manifest still knows
        with pytest.raises(DataError, match="shard-00004"):
            shard_paths(folder)
    said: list[str] = []
    run_shards(numbers, PLAN, folder, provenance=ORIGIN, resume=True, log=said.append)
    assert content(folder) == content(undisturbed)
    assert any("shard-00004" in line for line in said) == (damage in ("flip", "truncate"))


def test_a_full_disk_is_reported_and_nothing_finished_is_lost(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = storage.atomic_write, iter(range(1000))

    def full(path: Path, what: str | bytes) -> Path:
        if next(count) >= 7:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, what)

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "atomic_write", full)
        with pytest.raises(OSError, match="No space"):
            run_shards(numbers, PLAN, tmp_path / "run", provenance=ORIGIN)
    assert len(jobs.completed_shards(tmp_path / "run", PLAN)[0]) == 3  # a plan, then a file and a hash for each
    run_shards(numbers, PLAN, tmp_path / "run", provenance=ORIGIN, resume=True)
    assert content(tmp_path / "run") == content(undisturbed)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        lock_output(tmp_path / "run", PLAN, resume=False),
        pytest.raises(LockedError, match=f"wait until process {os.getpid()} has ended"),
    ):
        run_shards(numbers, PLAN, tmp_path / "run", provenance=ORIGIN, resume=True)


def test_folders_that_are_refused_before_any_work(undisturbed: Path, tmp_path: Path) -> None:
    def never(items: dict[int, np.random.SeedSequence]) -> bytes:
        raise AssertionError("work began")

    other = ShardPlan(95, seed=4, settings={"what": "numbers"}, shard_size=10, suffix=".txt")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "plan.json").write_text("{")
    for plan, folder, options, why in (
        (PLAN, undisturbed, {}, "--resume to go on"),
        (other, undisturbed, {"resume": True}, "seed 3 there, 4 now"),
        (PLAN, tmp_path, {}, "this holds other files"),
        (PLAN, tmp_path / "file", {}, "this is a file"),
        (PLAN, tmp_path / "new", {"n_jobs": 0}, "n_jobs = 0"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            run_shards(never, plan, folder, provenance=ORIGIN, **options)
    with pytest.raises(DataError, match="not readable as JSON"):
        run_shards(never, PLAN, tmp_path / "broken", provenance=ORIGIN, resume=True)
    assert not (tmp_path / "new").exists()
    for arguments in ({"n": 0}, {"n": -3}, {"n": 2.5}, {"seed": -1}, {"shard_size": 0}):
        with pytest.raises(InvalidArgument, match="whole number"):
            ShardPlan(**({"n": 1, "seed": 0} | arguments))
    with pytest.raises(DataError, match="has not finished"):
        shard_paths(tmp_path)


def test_a_finished_run_is_left_alone(undisturbed: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.glob("shard*")}
    run_shards(numbers, PLAN, undisturbed, provenance=ORIGIN, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in undisturbed.glob("shard*")} == before
    assert json.loads((undisturbed / MANIFEST).read_text())["plan"]["n"] == 95
