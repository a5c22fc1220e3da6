"""Experiments on generators of points and digits: trials, their parts, and what the claims rest on."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import read_trials
from synthbook.experiments import image_models, load_experiment, read_results
from synthbook.experiments.image_models import (
    BETAS,
    POINT_FAMILIES,
    SAMPLING_STEPS,
    VARIANCES,
    digits_novelty,
    modes_trial,
    noise_loss,
    split_digits,
    train_noise_net,
)
from synthbook.generators.diffusion import GaussianNoisePredictor, NoiseSchedule, optimal_loss

SHORT = {name: (family, {**settings, "steps": 3}) for name, (family, settings) in POINT_FAMILIES.items()}
FEW = 1_000  # points


def test_a_trial_on_points_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_models, "POINT_FAMILIES", SHORT)
    monkeypatch.setattr(image_models, "_N_POINTS", FEW)
    one, two = (modes_trial("R1 on ring", seed=2) for _ in range(2))
    timed = {"training seconds", "sampling seconds"}
    assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in two.items() if k not in timed}
    assert one["seed"] == 2 and 0 <= one["modes"] <= 8 and one["training seconds"] > 0
    assert modes_trial("R1 on ring", seed=3)["imbalance"] != one["imbalance"]
    for unknown in ("R2 on grid", "R1 on a line", "R1"):
        with pytest.raises(InvalidArgument, match="R1 on ring"):
            modes_trial(unknown, seed=0)


@pytest.mark.slow
def test_the_experiment_of_modes_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_models, "POINT_FAMILIES", SHORT)
    monkeypatch.setattr(image_models, "_N_POINTS", FEW)
    out, cases = tmp_path / "modes", load_experiment("modes").cases
    command = ["dev", "experiment", "modes", "--seeds", "2", "--jobs", "1", "--out", str(out), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2 * len(cases)
    table = read_trials(out / "trials.json")
    assert sorted(zip(table.case, table.seed, strict=True)) == sorted(product(cases, range(2)))
    assert main(command) == 2 and "--resume" in capsys.readouterr().out


def test_the_thresholds_of_the_claims_hold_in_all_five_seeds() -> None:
    """C3.1-2, C3.1-3, C3.3-2 and C3.3-4: what the notebooks show live for one seed."""
    vae = read_results("vae").set_index(["case", "seed"])
    diffusion = read_results("diffusion").set_index(["case", "seed"])
    for seed in range(5):
        kept = np.array([vae.loc[(f"latents {q}", seed), "redrawn"] for q in (1, 2, 4, 8)])
        assert (np.diff(kept) > 0).all()
        spent = np.array([vae.loc[(f"beta {beta:g}", seed), ["rate", "distortion"]] for beta in BETAS], float)
        assert (spent[1:, 0] < 1.02 * spent[:-1, 0]).all() and (spent[1:, 1] > 0.98 * spent[:-1, 1]).all()
        assert spent[-1, 0] / 8 < 0.05
        assert diffusion.loc[("floor", seed), "mean loss over floor"] < 1.15
        assert diffusion.loc[("floor", seed), "standard errors above floor"] > -3
        far = [diffusion.loc[("digits", seed), f"{steps} steps"] for steps in SAMPLING_STEPS]
        assert (np.diff(far) < 0).all()


def test_training_and_held_out_digits_share_no_row() -> None:
    seen, unseen = split_digits()
    assert len(seen.images) == len(unseen.images) == 898 and set(seen.labels.tolist()) == set(range(10))
    assert digits_novelty(seen.images, seen, unseen).dcr_share == 1.0
    assert digits_novelty(unseen.images, seen, unseen).dcr_share == 0.0


def test_the_exact_noise_predictor_reaches_the_optimal_loss() -> None:
    table = NoiseSchedule.linear(1_000)
    exact = GaussianNoisePredictor(torch.zeros(2), torch.diag(VARIANCES), table)
    least = optimal_loss(VARIANCES.numpy(), table)
    for t in (1, 300, 1_000):
        mean, error = noise_loss(exact, t, VARIANCES, table, seed=1)
        assert abs(mean - least[t - 1]) < 4 * error
    untrained, _ = noise_loss(lambda x, t: torch.zeros_like(x), 300, VARIANCES, table, seed=1)
    assert untrained > 1.5  # two numbers of variance 1


@pytest.mark.slow
def test_the_training_loop_lowers_the_loss() -> None:
    table = NoiseSchedule.linear(1_000)
    short, long = (train_noise_net(VARIANCES, table, seed=0, steps=steps) for steps in (2, 200))
    before, after = (noise_loss(net, 300, VARIANCES, table, seed=1)[0] for net in (short, long))
    least = optimal_loss(VARIANCES.numpy(), table)[299]
    assert least < after and after - least < 0.6 * (before - least)
