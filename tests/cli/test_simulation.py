"""`synthbook render`, which can be resumed after a kill, and `synthbook locate` without its networks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthbook.cli.main import main
from synthbook.core.jobs import shard_paths
from synthbook.core.storage import read_provenance
from tests.simulation.conftest import SMALL


@pytest.mark.slow
def test_a_run_as_text_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "renders"
    assert main(["render", "--scene", "cube", "-n", "25", "--out", str(out), *SMALL, "--coco"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"25 images in 3 shards: {out}/manifest.json")
    assert "rendering: 20 of 25 images" in printed.err
    assert Image.open(out / "preview.png").size[0] > 600
    provenance = read_provenance(out / "manifest.json")
    assert (provenance.synthetic_share, provenance.generation, provenance.seed) == (1.0, 1, 7)
    assert provenance.command == "synthbook render --scene cube -n 25 --seed 7 --width 48 --height 32"
    assert len(json.loads((out / "coco" / "instances.json").read_text())["images"]) == 25

    other = tmp_path / "other"
    assert main(["render", "-n", "25", "--out", str(other), *SMALL, "--jobs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == 3
    assert [p.read_bytes() for p in shard_paths(out)] == [p.read_bytes() for p in shard_paths(other)]

    assert main(["render", "-n", "25", "--out", str(out), *SMALL]) == 2
    assert "or --resume" in capsys.readouterr().err
    assert main(["render", "-n", "25", "--out", str(out), *SMALL, "--resume"]) == 0
    assert main(["render", "--help"]) == 0 and "--jobs 2 --seed 7" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-n", "0"], "-n"),
        (["-n", "-5"], "-n"),
        (["--scene", "teapot"], "one of cube"),
        (["--width", "-64"], "width = -64"),
        (["--height", "0"], "height = 0"),
        (["--jobs", "0"], "--jobs"),
        (["--seed", "-1"], "--seed"),
        (["--shard-size", "0"], "--shard-size"),
        (["-n", "many"], "integer"),
    ],
)
def test_bad_arguments_fail_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert main(["render", "--out", str(tmp_path / "new"), *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["render", "-n", "5", "--out", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def render_in_a_group(*arguments: str) -> None:
    """`synthbook render` as the leader of a process group, so that one signal ends its workers, too."""
    os.setsid()
    main(["render", "-n", "600", "--width", "32", "--height", "24", "--shard-size", "5", "--seed", "3", *arguments])


@pytest.mark.slow
def test_twenty_kills_of_a_render_change_no_byte(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")  # it imports once what every process needs
    processes.set_forkserver_preload([__name__, "pybullet", "pyarrow.parquet", "synthbook.simulation.render"])
    whole, torn, rng = tmp_path / "whole", tmp_path / "torn", np.random.default_rng(1)

    def start(*arguments: str) -> BaseProcess:
        run = processes.Process(target=render_in_a_group, args=arguments)
        run.start()
        return run

    def shards() -> int:
        return len(list(torn.glob("shard-*.parquet")))

    start("--out", str(whole)).join()
    finished, torn_parts = [0], []
    for i in range(20):
        run = start("--out", str(torn), "--resume", "--jobs", "2" if i % 5 == 0 else "1")
        while run.is_alive() and shards() == finished[-1]:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        assert run.pid
        os.killpg(run.pid, signal.SIGKILL)
        run.join()
        finished.append(shards())
        torn_parts.append(len(list(torn.glob(".shard*.tmp"))))
    # each kill hit a run at work, and no finished shard is lost
    assert np.diff(finished).min() > 0 and finished[-1] < 120
    assert max(torn_parts) <= 2  # at most the one shard that each worker was writing
    start("--out", str(torn), "--resume").join()
    assert [p.read_bytes() for p in shard_paths(torn)] == [p.read_bytes() for p in shard_paths(whole)]
    assert (torn / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


# ── locate ──


@pytest.mark.slow
def test_locate_as_text_and_as_json(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "photo.jpg"]) == 0
    assert "photo.jpg: box 192, 144 to 384, 336" in capsys.readouterr().out
    assert main(["locate", "photo.jpg", "--intrinsics", "K.json", "--out", "drawn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["photos"][0]
    assert found["corners"][0] == pytest.approx([0.4 * 640 - 0.5, 0.7 * 480 - 0.5], abs=0.02)
    assert np.linalg.det(found["pose"]["R"]) == pytest.approx(1, abs=1e-3) and found["pose"]["t_m"][2] > 0.1
    assert found["pose"]["edge_m"] == 0.084
    assert Image.open(found["drawn"]).size[0] > 300
    assert read_provenance(Path(found["drawn"])).command == "synthbook locate"
    assert main(["locate", "--help"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.jpg"], "an image file that can be read"),
        (["K.json"], "an image file that can be read"),
        (["photo.jpg", "--intrinsics", "none.json"], "intrinsics"),
        (["photo.jpg", "--intrinsics", "photo.jpg"], "intrinsics"),
        (["photo.jpg", "sub/photo.jpg", "--out", "drawn"], "different names"),
        (["tiny.png"], "32 pixels or more"),
        ([], "PHOTO.JPG"),
    ],
)
def test_bad_input_ends_with_2_and_draws_nothing(
    photo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    Path("sub").mkdir()
    Image.open(photo).save("sub/photo.jpg")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save("tiny.png")
    assert main(["locate", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert not Path("drawn").exists()
