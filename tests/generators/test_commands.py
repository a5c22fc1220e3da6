"""synthbook dev train and synthbook sample: as people run them, on the smallest models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthbook.generators.pretrained import RECIPES

from synthbook.cli.dev import TRAINABLE
from synthbook.cli.main import main
from synthbook.core.plots import plot_images
from synthbook.core.storage import Provenance, read_provenance
from synthbook.datasets import data_folder, digits
from synthbook.generators import pretrained, registry
from synthbook.generators.text.ngram import NGram
from synthbook.generators.vae import VAE

ORIGIN = Provenance("a test", "pytest")


@pytest.fixture(scope="module")
def digit_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = VAE(steps=30, width=8, device="cpu").fit(digits().train, seed=0)
    return model.save(tmp_path_factory.mktemp("digits"), ORIGIN)


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


@pytest.mark.slow
def test_sample_writes_text_that_goes_on_from_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = NGram(4).fit("the cat sat on the mat and the dog sat on the log. " * 9)
    folder, out = model.save(tmp_path / "cats", ORIGIN), tmp_path / "cats.txt"
    command = ["sample", str(folder), "-n", "1200", "--prompt", "the dog", "--out", str(out)]
    assert main(command) == 0
    written = out.read_text(encoding="utf-8")
    assert len(written) == 1_207 and written.startswith("the dog") and "1,200 characters" in capsys.readouterr().out
    assert read_provenance(out).command == "synthbook sample cats -n 1200 --seed 0 --prompt 'the dog'"
    second = np.random.SeedSequence(0).spawn(3)[1]
    assert written[507:1007] == model.sample(500, seed=second, prompt=written[:507])  # it goes on
    out.unlink()
    assert main(command) == 0 and out.read_text(encoding="utf-8") == written


@pytest.mark.slow
def test_sample_draws_the_classes_asked_for(
    digit_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.npz"
    command = ["sample", str(digit_model), "-n", "120", "--seed", "3", "--classes", "3, 7", "--out", str(out)]
    assert main(command) == 0
    with np.load(out) as found:
        assert found["images"].shape == (120, 8, 8) and found["images"].dtype == np.uint8
        assert found["labels"].tolist() == [3, 7] * 60
        first = found["images"].copy()
    with Image.open(tmp_path / "digits.png") as sheet:
        assert sheet.width > 300
    assert read_provenance(out).synthetic_share == 1.0
    capsys.readouterr()
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    with np.load(out) as found:
        assert (found["images"] == first).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--classes", "3,Hat"], "some of 0, 1, 2"),
        (["--out", "digits.csv"], "ends in .npz"),
        (["--where", "a=1"], "--where for table"),
        (["--prompt", "a"], "--prompt for text"),
        (["-n", "0"], "greater than or equal to 1"),
    ],
)
def test_sample_refuses_before_it_works(
    arguments: list[str], says: str, digit_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(digit_model), "--out", str(tmp_path / "x.npz"), *arguments]
    assert main(command) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sample_names_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.npz")
    assert main(["sample", "fashion-dream", "--out", out]) == 2
    assert "a folder with model.json, or one of" in capsys.readouterr().err
    other = data_folder() / "artifacts" / "feature-nets" / "digits-cnn"
    assert main(["sample", str(other), "--out", out]) == 1
    assert "no generator that is installed" in capsys.readouterr().err


def test_a_sheet_shows_the_pictures() -> None:
    ax = plot_images(digits().train.images[:13], n_cols=5)
    (sheet,) = ax.images
    assert sheet.get_array().shape == (3 * 10, 5 * 10)  # 8 pixels and a white edge, the last two tiles empty
