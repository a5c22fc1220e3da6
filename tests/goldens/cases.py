"""The cases: a tiny fit of each family, draws of each shipped model, each command on small files."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import torch

from synthbook.cli.main import main
from synthbook.core.jobs import shard_paths
from synthbook.core.table import Column, Schema, Table
from synthbook.core.types import Images
from synthbook.datasets import adult, austen, digits, real_cube
from synthbook.generators import registry
from synthbook.generators.diffusion import Diffusion
from synthbook.generators.gan import GAN
from synthbook.generators.text.ngram import NGram
from synthbook.generators.text.transformer import Transformer
from synthbook.generators.vae import VAE
from synthbook.privacy.generators.dp_vae import DpVae
from synthbook.privacy.ledger import PrivacyLedger
from tests.goldens.recorder import golden
from tests.language.rude import Handler, completion, serving

COLUMNS = ("age", "workclass", "education-num", "hours-per-week", "native-country", "income")
SMALL_TABLE = {
    "tvae": {"batch_size": 50, "hidden": 16, "latent_dim": 4},
    "ctgan": {"batch_size": 50, "hidden": 16, "latent_dim": 8},
    "diffusion": {"batch_size": 50, "hidden": 16, "T": 10},
}
PROMISE = {"epsilon": 2.0, "delta": 1e-6}
TASK = """prompt = "Write a {tone} review."
[values]
tone = ["glad", "angry"]
[fields]
text = {type = "text", max_length = 40}
stars = {type = "integer", min = 1, max = 5}
[seeds]
file = "seeds.jsonl"
per_prompt = 2
[filters]
min_length = 8
max_length = 39
near_duplicates = 0.6
copies_of_seeds = 0.5
label = "tone"
balance = "tone"
[model]
prices = {input = 2, output = 4}
"""
WORDS = ("tall", "red", "old", "soft", "loud", "quick", "warm", "dear", "odd", "plain")


def command(folder: Path, *arguments: str, ends_with: tuple[int, ...] = (0,)) -> str:
    """What a command prints on standard output; the folder's path is left out."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors), contextlib.chdir(folder):
        code = main(list(arguments))
    assert code in ends_with, (code, errors.getvalue(), printed.getvalue())
    return printed.getvalue().replace(str(folder), "")


def document(folder: Path, *arguments: str, ends_with: tuple[int, ...] = (0,)) -> Any:
    return json.loads(command(folder, *arguments, "--json", ends_with=ends_with))


def rows(part: str, n: int) -> Table:
    split = adult()
    table = split.train if part == "train" else split.test.data
    schema = Schema(tuple(table.schema[name] for name in COLUMNS), "public")
    return Table(table.frame[list(COLUMNS)].iloc[:n].reset_index(drop=True), schema)


def pictures(n: int) -> Images:
    every = digits().train
    return Images(every.images[:n], every.labels[:n], every.class_names)


def points(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2)) * [1.0, 3.0]


@golden
def arithmetic(folder: Path) -> Mapping[str, Any]:
    """What libraries compute; where it differs, the processor has kernels of its own, whatever it is told."""
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(129, 129)), torch.from_numpy(rng.normal(size=(8, 3, 16, 16)).astype("float32"))
    weights = torch.from_numpy(rng.normal(size=(8, 3, 3, 3)).astype("float32")).requires_grad_()
    torch.nn.functional.silu(torch.nn.functional.conv2d(x, weights, padding=1)).exp().log1p().mean().backward()
    return {"numpy": np.exp(a @ a / 129), "scipy": scipy.linalg.eigvalsh(a @ a.T), "torch": weights.grad}


@golden
def generators_of_tables(folder: Path) -> Mapping[str, Any]:
    table, values = rows("train", 400), {}
    for info in registry.available("table", private=False):
        name = info.name if info.name != "tabddpm" else "diffusion"
        steps = 5 if name in SMALL_TABLE else None
        model = registry.get(info.name)(**SMALL_TABLE.get(name, {})).fit(table, seed=0, steps=steps)
        values[name] = model.sample(60, seed=1).frame
        if name != "marginals":
            values[f"{name} with income"] = model.sample(20, seed=2, where={"income": ">50K"}).frame
    return values


@golden
def generators_of_images_and_points(folder: Path) -> Mapping[str, Any]:
    values = {}
    for family, settings in (
        (VAE, {}),
        (GAN, {}),
        (GAN, {"loss": "wasserstein", "penalty": "wgan-gp"}),
        (Diffusion, {"T": 20, "sampling_steps": 5}),
    ):
        name = " ".join([family.__name__, *map(str, settings.values())])
        model = family(width=8, batch_size=16, **settings).fit(pictures(64), seed=0, steps=4)
        values[f"{name} digits"] = model.sample(10, seed=1, labels=np.arange(10)).images
        values[f"{name} points"] = (
            family(width=8, batch_size=16, **settings).fit(points(64), seed=0, steps=4).sample(10, seed=1)
        )
    return values


@golden
def generators_of_text(folder: Path) -> Mapping[str, Any]:
    text = austen().train.texts[0][:4_000]
    tiny = {"batch_size": 4, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 1}
    return {
        "n-gram": NGram(3).fit([text]).sample(200, seed=1, prompt="She "),
        "transformer": Transformer(steps=5, **tiny).fit(text, seed=0).sample(60, seed=1, prompt="She "),
    }


@golden
def private_generators(folder: Path) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for name in ("private-margins", "mst", "dp-tvae"):
        small = {"batch_size": 100, "hidden": 16, "latent_dim": 4} if name == "dp-tvae" else {}
        steps = 3 if small else None
        model = registry.get(name)(**PROMISE, **small).fit(people(400), seed=0, steps=steps)
        values[name] = model.sample(60, seed=1).frame
    painter = DpVae(epsilon=8.0, delta=1e-4, batch_size=50, width=4).fit(pictures(200), seed=0, steps=3)
    values["dp-vae"] = painter.sample(10, seed=1, labels=np.arange(10)).images
    return values


def people(n: int, seed: int = 0) -> Table:
    """Rows with holes and a reviewed schema."""
    rng = np.random.default_rng(seed)
    columns = (
        Column("size", "categorical", categories=("S", "M", "L")),
        Column("age", "numeric", 0, 99, integer=True, missing=True),
        Column("weight", "numeric", 0, 200),
    )
    age = pd.Series(rng.integers(0, 100, n)).mask(rng.random(n) < 0.1).astype("Int64")
    size = rng.choice(["S", "M", "L"], n, p=[0.6, 0.3, 0.1])
    return Table(pd.DataFrame({"size": size, "age": age, "weight": rng.uniform(0, 200, n)}), Schema(columns, "public"))


@golden
def shipped_models(folder: Path) -> Mapping[str, Any]:
    names = ("fashion-vae", "fashion-gan", "fashion-ddpm")
    drawn = {name: registry.load(name, device="cpu").sample(4, seed=1, labels=[0, 3, 5, 9]).images for name in names}
    return drawn | {"austen-transformer": registry.load("austen-transformer").sample(80, seed=1, prompt="She ")}


@golden
def ledger(folder: Path) -> Mapping[str, Any]:
    budget = PrivacyLedger(1.0, 1e-5, "one person", folder / "ledger.json").create()
    budget.spend("bounds", 0.1).spend("training", 0.6, 9e-6, accountant="pld", noise=1.3)
    return {"file": (folder / "ledger.json").read_bytes(), "left": list(budget.remaining)}


@golden
def render_command(folder: Path) -> Mapping[str, Any]:
    small = ("--width", "32", "--height", "24", "--shard-size", "4", "--seed", "7")
    values: dict[str, Any] = {}
    for scene in ("cube", "cube-half", "cube-narrow", "stand-in"):
        values[f"{scene}, printed"] = document(folder, "render", "--scene", scene, "-n", "6", "--out", scene, *small)
        for path in shard_paths(folder / scene):
            values[f"{scene}, {path.name}"] = path.read_bytes()
    return values


@golden
def locate_command(folder: Path) -> Mapping[str, Any]:
    from PIL import Image

    Image.fromarray(real_cube().data.images[0]).save(folder / "photo.png")
    return {"printed": document(folder, "locate", "photo.png")}


@golden
def table_commands(folder: Path) -> Mapping[str, Any]:
    for name, table in (("real", rows("train", 300)), ("test", rows("test", 300))):
        table.frame.to_csv(folder / f"{name}.csv", index=False)
    command(folder, "schema", "draft", "real.csv", "--out", "drafted.toml")
    values: dict[str, Any] = {"schema draft": (folder / "drafted.toml").read_text()}
    rows("train", 1).schema.to_toml(folder / "schema.toml")
    fitted = ("--schema", "schema.toml", "--out", "model")
    values["fit"] = document(folder, "fit", "real.csv", "--model", "cart", *fitted)
    values["sample"] = document(folder, "sample", "model", "-n", "300", "--seed", "3", "--out", "drawn.csv")
    values["sample, rows"] = (folder / "drawn.csv").read_bytes()
    judged = ("--holdout", "test.csv", "--schema", "schema.toml")
    values["evaluate"] = document(
        folder, "evaluate", "drawn.csv", "--train", "real.csv", *judged, "--target", "income", ends_with=(0, 1)
    )
    values["audit"] = document(folder, "audit", "drawn.csv", "--train", "real.csv", *judged, ends_with=(0, 1))
    return values


@golden
def private_commands(folder: Path) -> Mapping[str, Any]:
    people(400).frame.to_csv(folder / "real.csv", index=False)
    people(400).schema.to_toml(folder / "schema.toml")
    values: dict[str, Any] = {}
    total = ("--epsilon", "5", "--delta", "1e-5", "--unit", "one record")
    values["budget, begun"] = document(folder, "privacy-ledger", "ledger.json", *total)
    asked = ("--schema", "schema.toml", "--epsilon", "2", "--delta", "1e-6", "--ledger", "ledger.json", "--seed", "4")
    values["fit-private"] = document(folder, "fit", "real.csv", "--model", "mst", *asked, "--out", "model")
    values["budget, spent"] = document(folder, "privacy-ledger", "ledger.json")
    values["ledger"] = (folder / "ledger.json").read_bytes()
    command(folder, "sample", "model", "-n", "50", "--out", "drawn.csv")
    values["sample, rows"] = (folder / "drawn.csv").read_bytes()
    run = ("--sample-rate", "0.01", "--steps", "1000", "--delta", "1e-5")
    values["epsilon of a noise"] = document(folder, "compute-epsilon", "--noise-multiplier", "1.1", *run)
    values["noise of an epsilon"] = document(folder, "compute-epsilon", "--target-epsilon", "3", *run)
    return values


@golden
def verify_command(folder: Path) -> Mapping[str, Any]:
    programs = [("right", "a + b"), ("wrong", "a - b"), ("error", "a / 0"), ("thief", "open('/etc/passwd').read()")]
    lines = [{"id": id, "function": "add", "code": f"def add(a, b): return {code}"} for id, code in programs]
    cases = [{"function": "add", "args": [1, 2], "expected": 3}, {"function": "add", "args": [0, 0], "expected": 0}]
    for name, some in (("records", lines), ("cases", cases)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in some))
    command(folder, "verify", "records.jsonl", "--cases", "cases.jsonl", "--out", "out.jsonl", "--allow-weak")
    verdicts = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return {"verdicts": [{key: line[key] for key in ("id", "passed", "reason")} for line in verdicts]}


def reply(handler: Handler, body: dict[str, Any]) -> None:
    """Mostly of the form that was asked for; at times no JSON, a copy of a seed, too short, or out of bounds."""
    rng = np.random.default_rng(body["seed"])
    kind, text = rng.random(), " ".join(rng.choice(WORDS, 6, replace=False))
    if kind < 0.2:
        text = "a real text 3" if kind < 0.1 else "no"
    answer = json.dumps({"text": text, "stars": int(rng.integers(1, 7 if kind < 0.35 else 6))})
    handler.reply(completion("Certainly! Here is your review." if kind > 0.9 else answer))


@golden
def generate_command(folder: Path) -> Mapping[str, Any]:
    (folder / "task.toml").write_text(TASK)
    seeds = [{"tone": "glad", "text": f"a real text {k}", "stars": k % 5 + 1} for k in range(6)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    with serving() as server:
        server.always = reply
        os.environ |= {"SYNTHBOOK_LLM_URL": server.url, "SYNTHBOOK_LLM_MODEL": "tiny", "SYNTHBOOK_LLM_KEY": "none"}
        printed = document(folder, "generate", "task.toml", "-n", "12", "--out", "data.jsonl")
        bodies = sorted(json.dumps(body, sort_keys=True) for body in server.bodies)
    values: dict[str, Any] = {"printed": printed, "questions": "\n".join(bodies)}
    for path in sorted(folder.glob("data.jsonl*")):
        if "provenance" not in path.name and "answers" not in path.name:
            values[path.name] = path.read_text()
    return values


@golden
def book_commands(folder: Path) -> Mapping[str, Any]:
    return {"data verify": command(folder, "data", "verify")}
