"""Every generator follows the protocol, and `check_generator` names what a generator does wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import read_provenance
from synthbook.core.table import Table
from synthbook.core.types import Seed
from synthbook.generators import registry
from synthbook.generators.base import NoConfig, NotFittedError
from synthbook.generators.tabular.copula import Copula, Marginals
from synthbook.testing import GeneratorCheckError, _example, check_generator
from tests.generators.own_rows import Jitter

ROWS = Path(__file__).with_name("own_rows.py")
TINY_NET = {"steps": 3, "batch_size": 50, "hidden": 8}
PROMISE = {"epsilon": 2.0, "delta": 1e-6}
TINY: dict[str, dict[str, Any]] = {
    "tvae": {**TINY_NET, "latent_dim": 4},
    "ctgan": {**TINY_NET, "latent_dim": 8},
    "tabddpm": {**TINY_NET, "T": 10},
    "private-margins": PROMISE,
    "mst": PROMISE,
    "dp-tvae": PROMISE | {**TINY_NET, "latent_dim": 4},
    "vae": {"steps": 3, "batch_size": 20, "width": 4},
    "gan": {"steps": 3, "batch_size": 20, "width": 4},
    "ddpm": {"steps": 3, "batch_size": 20, "width": 8, "T": 10, "sampling_steps": 2},
    "dp-vae": {"epsilon": 8.0, "delta": 1e-4, "steps": 2, "batch_size": 20, "width": 4},
    "ngram": {"n": 3},
    "transformer": {"steps": 3, "batch_size": 4, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("info", registry.OWN, ids=lambda info: info.name)
def test_our_generators_follow_the_protocol(info: registry.GeneratorInfo) -> None:
    generator = registry.get(info.name)
    assert (generator.family, generator.data_kind, generator.private) == (info.family, info.data_kind, info.private)
    assert registry.get(info.family).family == info.family
    check_generator(generator(**TINY.get(info.name, {})))


# ── Planted faults ──


class Unnamed(Jitter):
    pass


class AcceptsHoldout(Marginals):
    family = "accepts-holdout"

    def fit(self, data: Any, **options: Any) -> Any:
        return super().fit(getattr(data, "data", data), **options)


class Global(Jitter):
    family = "global"

    def _draw(self, n: int, seed: Any, where: Mapping[str, Any]) -> pd.DataFrame:
        return super()._draw(n, np.random.SeedSequence(), where)


class Constant(Jitter):
    family = "constant"

    def _draw(self, n: int, seed: Any, where: Mapping[str, Any]) -> pd.DataFrame:
        return super()._draw(n, np.random.SeedSequence(0), where)


class Forgets(Jitter):
    family = "forgets"

    def _set_state(self, tensors: Any, facts: Any) -> None:
        self.rows_ = tensors["rows"].numpy()[:100]


class Early(Jitter):
    family = "early"

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.rows_ = np.zeros((1, 3))


class DropsColumn(Jitter):
    family = "drops-column"

    def sample(self, n: int, *, seed: Seed, where: Any = None) -> Table:
        return super().sample(n, seed=seed, where=where).drop_column("age")


class Short(Jitter):
    family = "short"

    def sample(self, n: int, *, seed: Seed, where: Any = None) -> Table:
        rows = super().sample(n, seed=seed, where=where)
        return Table(rows.frame.iloc[:100], rows.schema)


class IgnoresWhere(Jitter):
    family = "ignores-where"

    def sample(self, n: int, *, seed: Seed, where: Any = None) -> Table:
        return super().sample(n, seed=seed)


class Silent(Jitter):
    family = "silent"

    def __repr__(self) -> str:
        return "Silent()"


class NoState(Jitter):
    family = "no-state"

    def _state(self) -> Any:
        raise NotImplementedError("later")


class UnseededFit(Jitter):
    family = "unseeded-fit"

    def _fit(self, frame: pd.DataFrame, seed: Any, **training: Any) -> None:
        super()._fit(frame, seed)
        self.rows_ = np.random.default_rng().permutation(self.rows_)


@pytest.mark.parametrize(
    ("faulty", "expected", "remedy"),
    [
        (Unnamed, "a name of its own", "set family"),
        (AcceptsHoldout, "fit refuses a Holdout", "call refuse_holdout"),
        (Early, r"sample\(\) before fit\(\) raises NotFittedError, not AttributeError", "in __init__"),
        (Global, "the same seed gives the same samples", "default_rng"),
        (UnseededFit, "fits with the same seed give the same model", "all randomness in fit from its seed"),
        (Constant, "another seed gives other samples", "use the seed of sample"),
        (DropsColumn, r"columns of the training data, .*'age'", "keep the schema"),
        (Short, r"sample\(4100\) has length 4100, not 100", "exactly n"),
        (IgnoresWhere, "5 rows with that value", "reject other rows"),
        (Silent, "repr tells a fitted model", "_data_summary"),
        (NoState, r"save\(folder\) works without provenance, not NotImplementedError \(later\)", "_state"),
        (Forgets, "the same samples in another process", "store everything"),
    ],
)
def test_each_fault_is_named_with_a_remedy(faulty: type[Jitter], expected: str, remedy: str) -> None:
    with pytest.raises(GeneratorCheckError, match=rf"(?s)expected: .*{expected}.*what to do: .*{remedy}"):
        check_generator(faulty)


# ── What the base does for all ──


def test_a_model_tells_its_settings_and_its_state() -> None:
    model = Jitter(scale=0.5)
    assert repr(model) == "Jitter(scale=0.5), not fitted" and repr(Copula()) == "Copula(), not fitted"
    assert "call fit()" in model._repr_html_()
    model.fit(_example("table"), seed=0)
    assert repr(model) == "Jitter(scale=0.5), fitted to a table with the columns size, age, weight"
    assert "jitter" in model._repr_html_() and "Jitter(scale=0.5).fit(data, seed=0)" in model._repr_html_()
    with pytest.raises(NotFittedError, match=r"this Copula is not fitted yet: call fit\(\) or load\(\)"):
        Copula().sample(1, seed=0)


def test_without_provenance_class_settings_seed_and_data_are_stated(tmp_path: Path) -> None:
    table = _example("table")
    model = Jitter(scale=0.5).fit(table, seed=3)
    provenance = Jitter.load(model.save(tmp_path / "model")).provenance_
    assert provenance.command == "Jitter(scale=0.5).fit(data, seed=3)" and provenance.seed == 3
    assert provenance.parents == Copula().fit(table, seed=0).provenance_.parents != {}
    rows = read_provenance(model.write(tmp_path / "rows.csv", 5, seed=4, where={"size": "M"}))
    assert rows.command == "Jitter.load(folder).write('rows.csv', 5, seed=4, where={'size': 'M'})"
    assert rows.parents == provenance.parents and (rows.generation, rows.synthetic_share, rows.seed) == (1, 1.0, 4)
    private = registry.get("mst")(**PROMISE).fit(table, seed=3)
    assert private.provenance_.parents == {} and private.provenance_.seed == 3
    with pytest.raises(InvalidArgument, match=r"ends in \.csv"):
        model.write(tmp_path / "rows.txt", 5, seed=0)


def test_a_model_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Jitter().fit(_example("table"), seed=0).save(tmp_path / "model")
    for version, remedy in ((99, "train the model again"), (0, "update synthbook")):
        monkeypatch.setattr("synthbook.generators.base.VERSION", version)
        with pytest.raises(DataError, match=f"this package reads {version}: {remedy}"):
            Jitter.load(folder)


def test_a_model_with_settings_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    folder = Jitter().fit(_example("table"), seed=0).save(tmp_path / "model")

    class Renamed(Jitter):
        config_class = NoConfig

    with pytest.raises(DataError, match="'scale': train the model again"):
        Renamed.load(folder)


# ── The registry ──


def test_generators_are_listed_by_kind_and_privacy() -> None:
    names = [info.name for info in registry.available("table", private=True)]
    assert names == ["private-margins", "mst", "dp-tvae"]
    assert {info.data_kind for info in registry.available()} == {"table", "images", "text"}


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ctgam", InvalidArgument, r"one of marginals, copula.*FILE\.py:CLASS"),
        ("none.py:Rows", InvalidArgument, "a Python file that exists"),
        (f"{ROWS}:Nothing", InvalidArgument, "derives from synthbook.generators.base.Generator"),
        (f"{ROWS}:TableGenerator", InvalidArgument, "defines _draw, _fit, _set_state, _state too"),
        (f"{ROWS}:JitterConfig", InvalidArgument, "derives from"),
    ],
)
def test_what_is_no_generator_is_named(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        registry.get(name)


def test_a_file_with_a_mistake_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(SynthbookError, match=r"broken\.py cannot be imported: ZeroDivisionError"):
        registry.get(f"{tmp_path / 'broken.py'}:Rows")


def test_packages_register_theirs_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[synthbook.generators]\njitter = tests.generators.own_rows:Jitter\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.get("jitter") is Jitter and registry.available()[-1].family == "jitter"
    folder = Jitter().fit(_example("table"), seed=0).save(tmp_path / "model")
    assert isinstance(registry.load(folder), Jitter)


def test_a_model_of_an_unknown_class_asks_for_its_file(tmp_path: Path) -> None:
    folder = Jitter().fit(_example("table"), seed=0).save(tmp_path / "model")
    with pytest.raises(DataError, match=r"holds a 'jitter', .*name it as FILE\.py:CLASS"):
        registry.load(folder)
    assert len(registry.load(folder, generator=f"{ROWS}:Jitter").sample(3, seed=0)) == 3


@pytest.mark.slow
def test_a_generator_in_one_file_goes_through_fit_sample_and_evaluate(tmp_path: Path) -> None:
    check_generator(Jitter)
    (tmp_path / "rows.py").write_text(ROWS.read_text())
    frame = _example("table").frame
    frame.iloc[:150].to_csv(tmp_path / "real.csv", index=False)
    frame.iloc[150:].to_csv(tmp_path / "test.csv", index=False)
    _example("table").schema.to_toml(tmp_path / "schema.toml")

    def synthbook(*arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        command = [sys.executable, "-m", "synthbook.cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in codes, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    synthbook("fit", "real.csv", "--model", "rows.py:Jitter", "--schema", "schema.toml", "--out", "model")
    synthbook("sample", "model", "--generator", "rows.py:Jitter", "-n", "150", "--out", "drawn.csv")
    assert "name it as FILE.py:CLASS" in synthbook("sample", "model", "--out", "x.csv", codes=(1,))["error"]
    judged = ("--train", "real.csv", "--holdout", "test.csv", "--schema", "schema.toml")
    report = synthbook("evaluate", "drawn.csv", *judged, codes=(0, 1))
    assert report["answers"]
