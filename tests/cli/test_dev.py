"""`synthbook dev train` and `dev score-localizer`, on the smallest models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synthbook import datasets
from synthbook.cli.dev import TRAINABLE
from synthbook.cli.main import main
from synthbook.core.storage import Provenance, read_provenance
from synthbook.core.table import Holdout
from synthbook.datasets import digits, real_cube
from synthbook.experiments import pretrained
from synthbook.experiments.pretrained import RECIPES
from synthbook.generators import registry
from synthbook.simulation import localizer
from synthbook.simulation.localizer import CornerNet, Localizer, LocalizerConfig
from tests.simulation.conftest import PROVENANCE

ORIGIN = Provenance("a test", "pytest")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_train_writes_a_checkpoint_a_log_and_looks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPES[name]
    size = "d_model" if name == "austen-transformer" else "width"
    small = replace(recipe, settings={**recipe.settings, size: 8, "batch_size": 8}, quick=10)
    monkeypatch.setattr(pretrained, "RECIPES", {name: small})
    monkeypatch.setattr(pretrained, "fashion_mnist", digits)
    monkeypatch.setattr(pretrained, "SAMPLE_LENGTH", 30)
    command = ["dev", "train", name, "--profile", "quick", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    log = json.loads((tmp_path / "log.json").read_text())
    assert told == {"folder": str(tmp_path)} | log
    assert log["command"] == f"synthbook dev train {name} --profile quick --seed 0"
    assert log["steps"] == 10 == len(log["history"])
    assert read_provenance(tmp_path / "log.json").synthetic_share == 1.0
    suffix = {"images": ".png", "text": ".txt"}[registry.read_class(tmp_path).data_kind]
    assert len(list((tmp_path / "looks").glob(f"*{suffix}"))) == 10
    assert isinstance(registry.load(tmp_path), recipe.family)
    assert not (tmp_path / "state").exists()
    assert main(command) == 2 and "a path that does not exist, or --resume" in capsys.readouterr().out


def test_every_recipe_has_its_verb() -> None:
    assert list(TRAINABLE) == list(RECIPES)


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_train_localizer_shows_progress_unless_quiet(
    quiet: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object, callback: Callable[[int, int], None], **__: object) -> dict[str, Any]:
        callback(5, 10)
        return {"pictures": 1_500}

    monkeypatch.setattr(localizer, "train_localizer", train)
    assert main(["dev", "train", "localizer", "--renders", "r", "--out", str(tmp_path / "model"), *quiet]) == 0
    printed = capsys.readouterr()
    assert "1,500 images, 16 epochs" in printed.out
    assert printed.err == ("" if quiet else "training the localizer: 5 of 10 steps\n")


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
