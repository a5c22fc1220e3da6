"""Training domains, trials, and the log of evaluations on the photographs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import read_trials
from synthbook.core.table import Holdout
from synthbook.datasets import real_cube
from synthbook.experiments import load_experiment, read_results
from synthbook.experiments.randomization import (
    FULL,
    TRAIN_DOMAINS,
    TrialConfig,
    append_to_log,
    downsampled_photographs,
    randomization_trial,
    read_log,
    render_dataset,
)
from synthbook.simulation import pose
from synthbook.simulation.pose import bootstrap_score
from synthbook.simulation.randomize import DOMAINS, FACTORS, PROXY_TARGET

TINY = TrialConfig(n_train=70, epochs=1, width=4, n_test=5)


def test_domains_differ_from_the_full_one_as_named() -> None:
    assert (
        TRAIN_DOMAINS["width 1"] == FULL
        and TRAIN_DOMAINS["width 0"] == FULL.narrowed(0)
        and TRAIN_DOMAINS["stand-in"] == PROXY_TARGET
    )
    for factor, names in FACTORS.items():
        world = TRAIN_DOMAINS[f"without {factor}"]
        changed = {name for name in vars(world) if getattr(world, name) != getattr(FULL, name)}
        assert changed == set(names)
    few = TRAIN_DOMAINS["4 textures"]
    assert few.cube_textures.n_textures == few.table_textures.n_textures == 4 and few.noise == FULL.noise
    assert FULL.narrowed(1) != DOMAINS["stand-in"]


@pytest.mark.slow
def test_rendered_datasets_are_reproducible() -> None:
    seen = render_dataset(FULL, 12, seed=3)
    assert seen.images.shape == (12, 60, 80) and seen.images.dtype == np.uint8
    again = render_dataset(FULL, 12, seed=3)
    assert (seen.images == again.images).all() and (seen.images != render_dataset(FULL, 12, seed=4).images).any()
    with pytest.raises(InvalidArgument):
        render_dataset(FULL, 0, seed=1)


def test_downsampled_photographs_keep_labels_and_stay_held_out() -> None:
    held = downsampled_photographs()
    assert isinstance(held, Holdout)
    small = held.data
    assert small.images.shape == (140, 60, 80)
    shown = np.einsum("nij,nkj->nki", small.K, small.points)
    np.testing.assert_allclose(shown[..., :2] / shown[..., 2:], small.corners, atol=0.02)


@pytest.mark.slow
def test_a_trial_is_reproducible() -> None:
    one, two = (randomization_trial("width 0", seed=2, config=TINY) for _ in range(2))
    assert one == two and one["world"] == "width 0" and one["seed"] == 2
    assert all(np.isfinite(one[name]) and one[name] > 0 for name in ("own", "stand-in", "photographs"))
    with pytest.raises(InvalidArgument, match="one of width 0"):
        randomization_trial("width 2", seed=0, config=TINY)


@pytest.mark.slow
def test_the_experiment_from_the_shell_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = replace(
        load_experiment("randomization"),
        cases=("width 0", "width 1"),
        trial=partial(randomization_trial, config=TINY),
    )
    monkeypatch.setattr(randomization_trial, "experiment", tiny)
    out = tmp_path / "calibration"
    command = ["dev", "experiment", "randomization", "--seeds", "2", "--jobs", "1", "--out", str(out), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 4
    table = read_trials(out / "trials.json")
    assert table.groupby("world").seed.apply(list).to_dict() == {"width 0": [0, 1], "width 1": [0, 1]}
    assert table.columns.to_list()[:4] == ["world", "seed", "own", "own mean"]
    assert (table[["own", "stand-in", "photographs"]] > 0).all(axis=None)
    before = (out / "trials.json").read_bytes()
    assert main([*command, "--resume"]) == 0 and (out / "trials.json").read_bytes() == before
    capsys.readouterr()
    assert main(command) == 2 and "--resume" in capsys.readouterr().out


def test_shipped_errors_are_less_than_the_image_diagonal() -> None:
    trials = read_results("randomization")
    errors = trials[["own", "stand-in", "photographs"]].to_numpy()
    assert ((errors > 0) & (errors < 100)).all()  # the diagonal of the pictures


def test_the_log_of_photographs_keeps_every_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    one = bootstrap_score("as they are", pose.constant_baseline_errors(real_cube()))
    for day in ("2026-01-01", "2026-01-02"):
        append_to_log(path, day, "abc", "shipped", [one])
    log = read_log(path)
    assert [look["date"] for look in log] == ["2026-01-01", "2026-01-02"]
    assert log[0]["scores"] == [one] and '"centre"' in path.read_text()
