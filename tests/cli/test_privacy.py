"""Private models on the command line: what is written, what is paid, and what is kept out of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from synthbook.cli import tables
from synthbook.cli.common import run_app
from synthbook.cli.main import app, main
from synthbook.core.checkpoints import CONFIG_NAME, WEIGHTS_NAME
from synthbook.core.csv import load_table
from synthbook.core.errors import DataError
from synthbook.core.storage import Provenance, read_provenance, sha256_file
from synthbook.core.table import Column, Schema
from synthbook.core.types import Images
from synthbook.generators import registry
from synthbook.generators.registry import load
from synthbook.privacy.generators import base, dp_tvae
from synthbook.privacy.generators.dp_vae import DpVae
from synthbook.privacy.ledger import PrivacyLedger
from tests.mutation import mutant
from tests.privacy.generators.test_base import some

PRIVATE = {info.name: registry.get(info.name) for info in registry.available("table", private=True)}

ROWS = 1_100


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real.csv, test.csv and visits.csv, with schemas that were reviewed; and one that was not."""
    folder = tmp_path_factory.mktemp("files")
    for name, table in (
        ("real", some(ROWS)),
        ("test", some(400, seed=1)),
        ("visits", some(600, visits=3)),
    ):
        table.frame.to_csv(folder / f"{name}.csv", index=False)
    some(2).schema.to_toml(folder / "schema.toml")
    some(2, provenance="inferred").schema.to_toml(folder / "drafted.toml")
    some(2, visits=2).schema.to_toml(folder / "visits.toml")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """DP-SGD's noise is given: to find it takes seconds, and test_dp_tvae.py does."""
    monkeypatch.setattr(dp_tvae, "calibrate_noise", lambda *given, **named: 1.0)


def fit(files: Path, out: Path, *more: str, data: str = "real.csv", schema: str = "schema.toml") -> int:
    options = {"--epsilon": "2", "--delta": "1e-6", "--schema": str(files / schema), "--out": str(out)}
    model = () if "--model" in more else ("--model", "mst")
    given = [part for name, value in options.items() if name not in more for part in (name, value)]
    return run_app(app, ["fit", str(files / data), *model, *given, *more])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    return " ".join((told.out + told.err).split())


@pytest.mark.slow
@pytest.mark.parametrize("family", PRIVATE)
def test_from_a_file_to_a_model_to_a_file(
    family: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, made = tmp_path / "model", tmp_path / "made.csv"
    steps = ("--steps", "3") if family == "dp-tvae" else ()
    assert fit(files, out, "--model", family, *steps, "--seed", "4", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    model = load(out)
    assert told == {"model": str(out), "family": family} | model.guarantee_.to_dict()
    assert (told["epsilon"], told["delta"], told["unit"], told["audit"]) == (2, 1e-6, "one record", None)
    assert told["noise"] == base.SEEDED_NOISE and told["neighbours"] == "add or remove one record"
    card = json.loads((out / CONFIG_NAME).read_text())["provenance"]
    assert card["seed"] == 4 and card["generation"] == 1 and card["synthetic_share"] == 1
    assert card["parents"] == {"schema.toml": sha256_file(files / "schema.toml")}
    draw = ["sample", str(out), "-n", "150", "--where", "size=M", "--seed", "3", "--out", str(made)]
    assert run_app(app, draw) == 0
    rows, provenance = load_table(made, some(2).schema), read_provenance(made)
    assert len(rows) == 150 and set(rows["size"]) == {"M"}
    assert provenance.privacy == model.guarantee_.to_dict() and provenance.parents == {
        f"model/{CONFIG_NAME}": sha256_file(out / CONFIG_NAME)
    }
    first = made.read_bytes()
    assert run_app(app, draw) == 2 and "--force" in said(capsys)
    assert run_app(app, [*draw, "--force"]) == 0 and made.read_bytes() == first
    assert fit(files, out, "--model", family, *steps) == 2 and "--force" in said(capsys)


def hashes(folder: Path, private: Path) -> list[str]:
    """Files in which the SHA-256 of private rows stands: whoever guesses the rows could check the guess."""
    found = sha256_file(private)
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and found in path.read_text("latin-1")]


def test_no_hash_of_the_private_rows_is_written(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "ledger.json"
    PrivacyLedger(3.0, 1e-5, "one record", ledger).create()
    assert fit(files, tmp_path / "model", "--ledger", str(ledger)) == 0
    assert run_app(app, ["sample", str(tmp_path / "model"), "--out", str(tmp_path / "made.csv")]) == 0
    assert hashes(tmp_path, files / "real.csv") == []
    telling = mutant(tables, "{schema.name: sha256_file(schema)}", "{n.name: sha256_file(n) for n in (schema, source)}")
    telling.fit(
        files / "real.csv",
        tmp_path / "other",
        "mst",
        files / "schema.toml",
        epsilon=2.0,
        delta=1e-6,
    )
    assert hashes(tmp_path, files / "real.csv") == [CONFIG_NAME]


def test_rows_of_one_person_are_bounded_and_named_in_the_promise(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert (
        fit(files, out, "--max-rows-per-entity", "2", "--target", "size", data="visits.csv", schema="visits.toml") == 0
    )
    assert "unit: one person, with at most 2 rows" in said(capsys)
    model = load(out)
    assert model.config.target == "size" and model.config.max_rows_per_entity == 2 and model.guarantee_.clip == 2
    assert {frozenset(pair) for pair in model.parents_} > {frozenset({0}), frozenset()}  # size, by its place


@pytest.mark.slow
def test_a_ledger_pays_until_nothing_is_left(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = str(tmp_path / "ledger.json")
    begin = ["privacy-ledger", ledger, "--epsilon", "5", "--delta", "1e-5", "--unit", "one patient"]
    assert run_app(app, ["privacy-ledger", ledger]) == 2 and "both, to create" in said(capsys)
    assert run_app(app, begin) == 0
    assert "remaining: epsilon 5, delta 1e-05" in said(capsys) and json.loads(Path(ledger).read_text())["entries"] == []
    assert run_app(app, begin) == 2 and "a total is never changed" in said(capsys)
    for k in range(2):
        assert fit(files, tmp_path / f"model{k}", "--ledger", ledger) == 0
    capsys.readouterr()
    assert fit(files, tmp_path / "third", "--ledger", ledger) == 1
    told = said(capsys)
    assert "needs epsilon 2" in told and "for one patient, 1 and 8e-06 remain" in told
    assert not (tmp_path / "third").exists()
    assert run_app(app, ["privacy-ledger", ledger, "--json"]) == 0
    told_ = json.loads(capsys.readouterr().out)
    assert told_["remaining"] == pytest.approx({"epsilon": 1.0, "delta": 8e-6}) and told_["unit"] == "one patient"
    assert [(one["purpose"], one["epsilon"], one["delta"]) for one in told_["entries"]] == [
        ("fitting Mst", 2.0, 1e-6)
    ] * 2
    assert (
        run_app(app, ["privacy-ledger", ledger]) == 0 and said(capsys).count("fitting Mst: epsilon 2, delta 1e-06") == 2
    )


@pytest.mark.slow
def test_for_release_nothing_is_seeded_and_the_audit_is_stated(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(2):
        assert fit(files, tmp_path / f"model{k}", "--release", str(files / "test.csv"), "--seed", "7", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["noise"] == base.SYSTEM_ENTROPY and 0 <= told["audit"] <= 2
        card = json.loads((tmp_path / f"model{k}" / CONFIG_NAME).read_text())
        assert card["provenance"]["seed"] is None and "--seed" not in card["provenance"]["command"]
        assert card["provenance"]["privacy"]["audit"] == told["audit"]
        load(tmp_path / f"model{k}").guarantee_.check_release()
    one, two = ((tmp_path / f"model{k}" / WEIGHTS_NAME).read_bytes() for k in range(2))
    assert one != two
    assert run_app(app, ["sample", str(tmp_path / "model0"), "--out", str(tmp_path / "made.csv")]) == 0
    assert read_provenance(tmp_path / "made.csv").privacy == card_of(tmp_path / "model0")["privacy"]
    taught = [fit(files, tmp_path / name, "--seed", seed) for name, seed in (("a", "7"), ("b", "7"), ("c", "8"))]
    assert taught == [0, 0, 0]
    a, b, c = ((tmp_path / name / WEIGHTS_NAME).read_bytes() for name in "abc")
    assert a == b != c


def card_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text())["provenance"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "expected"),
    [
        (["--epsilon", "0"], 2, "epsilon = 0.0"),
        (["--epsilon", "-1"], 2, "epsilon = -1.0"),
        (["--epsilon", "nan"], 2, "epsilon = nan"),
        (["--epsilon", "inf"], 2, "epsilon = inf"),
        (["--delta", "0"], 2, "delta = 0.0"),
        (["--delta", "0.001"], 2, "far below 1 / 1,100"),
        (["--target", "income"], 2, "one of size, age, weight"),
        (["--target", "size", "--model", "dp-tvae"], 2, "only mst"),
        (["--steps", "5"], 2, "Mst does not train in steps"),
        (["--model", "gan"], 2, "gan"),
        (["--schema", "{files}/drafted.toml"], 2, "origin = 'inferred'"),
        (["--schema", "{files}/none.toml"], 2, "none.toml"),
        (["--release", "{files}/none.csv"], 2, "none.csv"),
        (["--ledger", "{files}/schema.toml"], 1, "is no ledger"),
        (["--ledger", "{files}/none.json"], 1, "is no ledger"),
    ],
)
def test_mistakes_are_named_before_anything_is_paid_or_written(
    more: list[str],
    code: int,
    expected: str,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger = tmp_path / "ledger.json"
    PrivacyLedger(50.0, 1e-2, "one record", ledger).create()
    more = [part.format(files=files) for part in more]
    assert fit(files, tmp_path / "model", *(() if "--ledger" in more else ("--ledger", str(ledger))), *more) == code
    assert expected in said(capsys)
    assert not (tmp_path / "model").exists() and PrivacyLedger.load(ledger).entries == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '"x"', "null",
        '{"epsilon": 1.0, "delta": 1e-5, "unit": "one record"}',
        '{"epsilon": "1", "delta": 1e-5, "unit": "one record", "entries": []}',
        '{"epsilon": 0.0, "delta": 1e-5, "unit": "one record", "entries": []}',
        '{"epsilon": null, "delta": 1e-5, "unit": "one record", "entries": []}',
        '{"epsilon": 1.0, "delta": 1e-5, "unit": "one record", "entries": [{"purpose": "x"}]}',
    ],
)  # fmt: skip
def test_what_is_no_ledger_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is no ledger of a privacy budget"):
        PrivacyLedger.load(path)
    assert run_app(app, ["privacy-ledger", str(path)]) == 1 and "no ledger" in said(capsys)
    assert path.read_text() == text


def test_a_ledger_is_read_as_it_was_begun_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    begun = PrivacyLedger(2.0, 1e-5, "one person", path).create().spend("a look", 0.5, 1e-6, rows=3)
    again = PrivacyLedger.load(path)
    assert again == begun and again.remaining == pytest.approx((1.5, 9e-6))
    assert again.create() == begun  # writes what is there
    text = json.loads(path.read_text())
    text["entries"][0]["epsilon"] = -5.0
    path.write_text(json.dumps(text))
    with pytest.raises(DataError, match="edited by hand"):
        PrivacyLedger.load(path)
    with pytest.raises(DataError, match="no ledger"):
        PrivacyLedger.load(tmp_path / "none.json")
    assert PrivacyLedger(1.0, 1e-5, "one person").create().remaining == (1.0, 1e-5)


def test_what_was_drawn_looks_like_what_was_there(files: Path, tmp_path: Path) -> None:
    assert fit(files, tmp_path / "model", "--epsilon", "8") == 0
    assert run_app(app, ["sample", str(tmp_path / "model"), "-n", "4000", "--out", str(tmp_path / "made.csv")]) == 0
    made, real = load_table(tmp_path / "made.csv", some(2).schema).frame, some(ROWS).frame
    for size in ("S", "M", "L"):
        assert (made["size"] == size).mean() == pytest.approx((real["size"] == size).mean(), abs=0.06)
    assert made["weight"].mean() == pytest.approx(real["weight"].mean(), rel=0.1)
    assert np.isfinite(made["weight"]).all() and made["age"].isna().mean() == pytest.approx(0.1, abs=0.06)


@pytest.mark.slow
def test_images_of_a_private_model_are_drawn_from_the_shell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.uniform(-1, 1, (40, 1, 8, 8))).float()
    data = Images(images, torch.arange(40) % 2, ("zero", "one"))
    model = DpVae(epsilon=2.0, delta=1e-3, steps=2, batch_size=5, width=4, latent_dim=2).fit(data, seed=0)
    folder, out = model.save(tmp_path / "model", Provenance("made here", "a test")), tmp_path / "some.npz"
    assert main(["sample", str(folder), "-n", "6", "--out", str(out)]) == 0
    assert np.load(out)["images"].shape[0] == 6
    assert read_provenance(out).privacy == model.guarantee_.to_dict()


def test_sides_that_cannot_be_audited_are_refused_before_anything_is_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (Column("x", "categorical", categories=("a", "b")), Column("y", "categorical", categories=("c", "d")))
    Schema(columns, "public").to_toml(tmp_path / "schema.toml")
    frame = pd.DataFrame({"x": ["a", "b"] * 100, "y": ["c", "d"] * 100})
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame[:20].to_csv(tmp_path / "few.csv", index=False)
    ledger = tmp_path / "ledger.json"
    PrivacyLedger(2.0, 1e-3, "one record", path=ledger).create()
    command = [
        "fit",
        str(tmp_path / "train.csv"),
        "--model",
        "mst",
        "--schema",
        str(tmp_path / "schema.toml"),
        "--epsilon",
        "1",
    ]
    command += ["--delta", "1e-4", "--out", str(tmp_path / "m"), "--ledger", str(ledger)]
    assert main([*command, "--release", str(tmp_path / "few.csv")]) == 2
    assert "holdout = '20 rows'" in capsys.readouterr().err and not PrivacyLedger.load(ledger).entries
