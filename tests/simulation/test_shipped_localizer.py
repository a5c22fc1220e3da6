"""What is shipped is what was logged, small, and right on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synthbook.core.checkpoints import WEIGHTS_NAME
from synthbook.core.errors import DataError
from synthbook.core.storage import read_provenance, sha256_file
from synthbook.datasets import data_folder, real_cube
from synthbook.experiments.randomization import read_log, render_dataset
from synthbook.simulation import localizer
from synthbook.simulation.localizer import LOG, PRETRAINED, PRETRAINED_NARROW, Localizer, load_pretrained
from synthbook.simulation.pose import (
    bootstrap_score,
    constant_baseline_errors,
    photo_errors,
    pose_errors,
    random_crop_errors,
)
from synthbook.simulation.randomize import DOMAINS

FOLDER = data_folder() / PRETRAINED


def test_the_log_tells_how_it_was_made() -> None:
    log = json.loads((FOLDER / LOG).read_text())
    assert log["sha256"] == sha256_file(FOLDER / WEIGHTS_NAME)
    assert (FOLDER / WEIGHTS_NAME).stat().st_size < 3_000_000
    assert log["command"].startswith("synthbook dev train localizer") and log["renders"]["settings"]["scene"] == "cube"
    assert len(log["losses"]["coarse"]) == len(log["losses"]["fine"]) == log["recipe"]["epochs"]
    for losses in log["losses"].values():
        assert losses[-1] < losses[0] / 2
    assert read_provenance(FOLDER / LOG).synthetic_share == 1.0


def test_every_look_at_the_photographs_is_written_down() -> None:
    log = read_log(FOLDER / "photographs.jsonl")
    assert all({"date", "commit", "model", "scores"} <= look.keys() for look in log)
    shown = log[-1]["scores"]
    assert [score.name for score in shown] == ["as they are", "through random windows", "always the mean position"]


@pytest.mark.slow
def test_the_narrow_one_is_good_at_home_and_lost_in_reality() -> None:
    narrow = load_pretrained(PRETRAINED_NARROW)
    home = render_dataset(DOMAINS["cube-narrow"], 60, seed=6, width=320, height=240)
    at_home = pose_errors(narrow(home.images), home.corners, home.points, home.K)
    assert np.median(at_home.center) < 0.5
    away = bootstrap_score("now", photo_errors(narrow, real_cube()))
    assert away.center_low > 3 * bootstrap_score("shipped", photo_errors(load_pretrained(), real_cube())).center_high


@pytest.mark.slow
def test_errors_on_real_photographs_in_centimetres() -> None:
    """At most 1.0 cm for the centre and 1.2 cm for the corners, also through random windows."""
    net, held = load_pretrained(), real_cube()
    looked = [look for look in read_log(FOLDER / "photographs.jsonl") if look["model"] == "shipped"][-1]["scores"]
    for found, logged in ((photo_errors(net, held), looked[0]), (random_crop_errors(net, held, seed=0), looked[1])):
        one = bootstrap_score("now", found)
        assert one.center_high < 1.0 and one.corner_high < 1.2
        assert one.center == pytest.approx(logged.center, abs=0.02)
    assert constant_baseline_errors(held).center.mean() > 5 * one.center


def test_a_missing_or_foreign_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localizer, "data_folder", lambda: tmp_path)
    with pytest.raises(DataError, match="git checkout -- data/artifacts/localizer"):
        load_pretrained()
    with pytest.raises(DataError, match="not of 'cube-localizer'"):
        Localizer.load(data_folder() / "artifacts" / "feature-nets" / "digits-cnn")
