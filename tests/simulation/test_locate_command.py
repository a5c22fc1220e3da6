"""`synthbook locate` and `synthbook dev score-localizer` as people and machines use them, with stand-in networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthbook import datasets
from synthbook.cli.main import main
from synthbook.core.storage import read_provenance
from synthbook.core.table import Holdout
from synthbook.datasets import real_cube
from synthbook.simulation.localizer import CornerNet, Localizer, LocalizerConfig
from tests.simulation.conftest import PROVENANCE


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


@pytest.mark.slow
def test_scores_are_printed_and_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = real_cube().data
    fifth = {name: getattr(real, name)[::5] for name in ("images", "corners", "visible", "boxes", "rvec", "tvec")}
    monkeypatch.setattr(datasets, "real_cube", lambda: Holdout(replace(real, **fifth)))
    net = Localizer(CornerNet(8, 4), CornerNet(8, 2))
    net.save(tmp_path / "model", LocalizerConfig(1, 8, 8), PROVENANCE)
    log = tmp_path / "looks.jsonl"
    command = ["dev", "score-localizer", "--model", str(tmp_path / "model"), "--log", str(log), "--commit", "abc"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "always the mean position: center" in printed and "28 photographs" in printed
    assert main([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert [s["name"] for s in scores] == ["as they are", "through random windows", "always the mean position"]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == 2 and entries[0]["commit"] == "abc"
    assert main(["dev", "score-localizer", "--model", str(tmp_path / "none")]) == 1
