"""`synthbook fit` and `synthbook sample`: tables with gaps, images, text, and mistakes in the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthbook.cli.common import run_app
from synthbook.cli.main import app, main
from synthbook.core.csv import load_table
from synthbook.core.storage import Provenance, read_provenance
from synthbook.core.table import Schema
from synthbook.datasets import adult, data_folder, digits
from synthbook.generators.text.ngram import NGram
from synthbook.generators.vae import VAE

ORIGIN = Provenance("a test", "pytest")


@pytest.fixture(scope="module")
def digit_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = VAE(steps=30, width=8, device="cpu").fit(digits().train, seed=0)
    return model.save(tmp_path_factory.mktemp("digits"), ORIGIN)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows of Adult with holes, as a spreadsheet writes them: byte order mark, semicolons, "NA"."""
    frame = adult().train.frame.drop(columns=["fnlwgt"]).head(600)
    rng = np.random.default_rng(0)
    frame["age"] = frame["age"].astype("Int64").mask(rng.random(600) < 0.1)
    path = tmp_path_factory.mktemp("files") / "real.csv"
    path.write_bytes(b"\xef\xbb\xbf" + frame.to_csv(index=False, sep=";", na_rep="NA").encode())
    return path


@pytest.mark.slow
def test_from_a_file_to_a_model_to_a_file(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_app(app, ["fit", str(real), "--model", "cart", "--out", "model"]) == 0
    told = capsys.readouterr()
    assert "600 rows" in told.out and "review it" in told.err and "capital-gain" in told.err
    schema = Schema.from_toml(tmp_path / "model" / "schema.toml")
    assert schema.origin == "inferred" and schema["age"].missing
    draw = ["sample", "model", "-n", "1200", "--where", "income=>50K", "--seed", "3", "--out", "made.csv"]
    assert run_app(app, draw) == 0
    made = load_table(tmp_path / "made.csv", schema)
    assert len(made) == 1_200 and set(made["income"]) == {">50K"}
    assert made["age"].isna().mean() == pytest.approx(0.1, abs=0.06)
    provenance = read_provenance(tmp_path / "made.csv")
    assert (
        provenance.synthetic_share == 1
        and "--where 'income=>50K'" in provenance.command
        and "model/model.json" in provenance.parents
    )
    assert str(tmp_path) not in (tmp_path / "made.csv.provenance.json").read_text()
    first = (tmp_path / "made.csv").read_bytes()
    assert run_app(app, draw) == 2 and "--force" in capsys.readouterr().err
    assert run_app(app, [*draw, "--force"]) == 0 and (tmp_path / "made.csv").read_bytes() == first
    assert run_app(app, ["fit", str(real), "--out", "model"]) == 2 and "--force" in capsys.readouterr().err
    reviewed = tmp_path / "model" / "schema.toml"
    reviewed.write_text(reviewed.read_text().replace('origin = "inferred"', 'origin = "public"'))
    assert run_app(app, ["fit", str(real), "--schema", str(reviewed), "--out", "again", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["origin"] == "public" and "review it" not in told.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"where": "income"}, "COLUMN=VALUE"),
        ({"where": "income=rich"}, ">50K"),
        ({"where": "wage=1"}, "one of age"),
        ({"out": "made.npz"}, "ends in .csv"),
        ({"model": "fashion-nothing", "out": "made.npz"}, "fashion-ddpm"),
        ({"model": "fashion-vae", "where": "income=>50K", "out": "made.npz"}, "--classes for images"),
    ],
)
def test_mistakes_are_named_before_any_row_is_written(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], expected: str
) -> None:
    model = real.parent / "model"
    if not model.exists():
        assert run_app(app, ["fit", str(real), "--out", str(model)]) == 0
    options = {"model": str(model), "out": "made.csv"} | changed
    where = ["--where", options["where"]] if "where" in options else []
    capsys.readouterr()
    assert run_app(app, ["sample", options["model"], *where, "--out", str(tmp_path / options["out"])]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 fields"),
        (b"a,a\n1,2\n", "same name"),
        (b"\x00\x01\x02", "zero bytes"),
    ],
)
def test_files_that_are_no_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, expected: str
) -> None:
    path = tmp_path / "real.csv"
    path.write_bytes(content)
    assert run_app(app, ["fit", str(path), "--out", str(tmp_path / "model")]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "model" / "model.json").exists()


@pytest.mark.slow
def test_latin_letters_dates_free_text_and_many_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["stadt,am,notiz,kunde,leer,gleich"]
    for k in range(3_000):
        town = ["Köln", "Münster", "Zürich"][rng.integers(3)]
        lines.append(f"{town},2024-0{rng.integers(1, 10)}-1{rng.integers(10)},text {k} {rng.random()},{k},,x")
    path = tmp_path / "real.csv"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    assert run_app(app, ["fit", str(path), "--out", str(tmp_path / "model")]) == 0
    assert run_app(app, ["sample", str(tmp_path / "model"), "-n", "50", "--out", str(tmp_path / "made.csv")]) == 0
    made = load_table(tmp_path / "made.csv", Schema.from_toml(tmp_path / "model" / "schema.toml")).frame
    assert (
        set(made["stadt"]) == {"Köln", "Münster", "Zürich"}
        and made["leer"].isna().all()
        and set(made["gleich"]) == {"x"}
    )
    assert made["am"].dt.year.eq(2024).all() and "text" not in (tmp_path / "made.csv").read_text()


@pytest.mark.slow
def test_rows_that_do_not_fit_a_reviewed_schema_are_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app, ["fit", str(real), "--model", "marginals", "--out", str(tmp_path / "model")]) == 0
    schema, frame = tmp_path / "model" / "schema.toml", adult().train.frame.drop(columns=["fnlwgt"]).head(50)
    for changed, expected in (
        (frame.assign(sex=["Male"] * 49 + ["Other"]), "Other"),
        (frame.assign(shoe=42), "shoe"),
        (frame.drop(columns=["sex"]), "sex"),
        (frame.assign(age=["forty"] + [40] * 49), "forty"),
    ):
        path = tmp_path / "other.csv"
        changed.to_csv(path, index=False)
        capsys.readouterr()
        assert run_app(app, ["fit", str(path), "--schema", str(schema), "--out", str(tmp_path / "again")]) == 2
        assert expected in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "again").exists() or not list((tmp_path / "again").iterdir())


@pytest.mark.slow
def test_ten_thousand_categories_are_for_models_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["shop,sum", *(f"s{rng.integers(10_000)},{rng.normal():.3f}" for _ in range(40_000))]
    path = tmp_path / "real.csv"
    path.write_text("\n".join(lines))
    model = tmp_path / "model"
    assert run_app(app, ["schema", "draft", str(path), "--out", str(tmp_path / "schema.toml")]) == 0
    drafted = Schema.from_toml(tmp_path / "schema.toml")
    if drafted["shop"].kind == "categorical":
        for family, code, expected in (("tvae", 2, "name model cart or copula"), ("marginals", 0, "40,000 rows")):
            capsys.readouterr()
            ask = ["fit", str(path), "--schema", str(tmp_path / "schema.toml"), "--model", family, "--out", str(model)]
            assert run_app(app, ask) == code
            told = capsys.readouterr()
            assert expected in " ".join((told.err + told.out).split())
    else:
        assert drafted["shop"].kind in ("id", "text")  # so many different words are taken for no category


# ── sample ──


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
