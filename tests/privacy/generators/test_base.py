"""What a private model promises, when it refuses, what it pays for, and whose rows count together."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthbook.core import table as units
from synthbook.core.checkpoints import CONFIG_NAME, CheckpointConfig
from synthbook.core.errors import DataError, HoldoutError, InvalidArgument, SchemaError
from synthbook.core.storage import Provenance, read_provenance
from synthbook.core.table import (
    Column,
    Constraint,
    Holdout,
    Schema,
    Table,
    bound_contributions,
    max_score_per_unit,
    sample_units,
    split_units,
    unit_codes,
)
from synthbook.generators import registry
from synthbook.generators.base import NotFittedError
from synthbook.generators.registry import load
from synthbook.privacy.generators import base, dp_tvae, mst
from synthbook.privacy.generators.base import PrivacyGuarantee, PrivateTableGenerator, ReleaseRefused, audit_generator
from synthbook.privacy.generators.dp_tvae import DpTvae
from synthbook.privacy.generators.mst import IndependentMarginals, Mst
from synthbook.privacy.ledger import BudgetExceeded, PrivacyLedger
from tests.mutation import mutant

PRIVATE = {info.name: registry.get(info.name) for info in registry.available("table", private=True)}

ORIGIN = Provenance("a test", "pytest", seed=5)
PROMISE: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-5}
TINY = {"steps": 3, "batch_size": 40, "hidden": 8, "latent_dim": 2}
MORE: dict[str, dict[str, Any]] = {"private-margins": {}, "mst": {}, "dp-tvae": TINY}
KEYS = {"epsilon", "delta", "neighbours", "unit", "accountant", "steps", "sample_rate", "noise_multiplier", "clip"}
KEYS |= {"noise", "floating_point", "audit"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """DP-SGD's noise is given: to find it takes seconds, and test_dp_tvae.py does."""
    monkeypatch.setattr(dp_tvae, "calibrate_noise", lambda *given, **named: 1.0)


def some(n: int, *, visits: int = 0, seed: int = 0, provenance: str = "public") -> Table:
    """Rows with holes; with `visits`, so many of each person, as its first column says."""
    rng = np.random.default_rng(seed)
    columns = (
        Column("size", "categorical", categories=("S", "M", "L")),
        Column("age", "numeric", 0, 99, integer=True, missing=True),
        Column("weight", "numeric", 0, 200),
    )
    size = rng.choice(["S", "M", "L"], n, p=[0.6, 0.3, 0.1])
    age = pd.Series(rng.integers(0, 100, n)).mask(rng.random(n) < 0.1).astype("Int64")
    frame = pd.DataFrame({"size": size, "age": age, "weight": rng.uniform(0, 200, n)})
    if not visits:
        return Table(frame, Schema(columns, provenance))
    frame.insert(0, "person", rng.permutation(np.arange(n) // visits))
    return Table(frame, Schema((Column("person", "id"), *columns), provenance, entity="person"))


def model(family: str, **settings: Any) -> PrivateTableGenerator:
    return PRIVATE[family](**PROMISE | MORE[family] | settings)


# ── refused before any row is used, and before anything is paid ──────────────────────────────────────────────────────

BAD = {
    "epsilon of nothing": ({"epsilon": 0.0}, InvalidArgument, "epsilon = 0.0"),
    "a negative epsilon": ({"epsilon": -1.0}, InvalidArgument, "epsilon = -1.0"),
    "epsilon that is no number": ({"epsilon": math.nan}, InvalidArgument, "epsilon = nan"),
    "delta of nothing": ({"delta": 0.0}, InvalidArgument, "delta = 0.0"),
    "delta of everything": ({"delta": 1.0}, InvalidArgument, "delta = 1.0"),
    "no row of anybody": ({"max_rows_per_entity": 0}, InvalidArgument, "max_rows_per_entity = 0"),
    "a control for release": ({"epsilon": math.inf, "release": True}, InvalidArgument, "epsilon = inf"),
    "a wrong name": ({"epsilonn": 1.0}, InvalidArgument, "epsilonn"),
}


@pytest.mark.parametrize("family", PRIVATE)
@pytest.mark.parametrize("case", BAD)
def test_invalid_privacy_settings_are_refused(family: str, case: str) -> None:
    settings, error, told = BAD[case]
    with pytest.raises(error, match=told):
        model(family, **settings)


def undated() -> Table:
    seen = Column("seen", "datetime")
    return Table(
        some(100).frame.assign(seen=pd.Timestamp("2024-01-01")), Schema((*some(100).schema.columns, seen), "public")
    )


def nobodys() -> Table:
    table = some(100, visits=2)
    schema = replace(table.schema, columns=(Column("person", "id", missing=True), *table.schema.columns[1:]))
    return Table(table.frame.assign(person=[None, *map(str, table["person"][1:])]), schema)


def fixed() -> Table:
    """The price follows from the size, and is looked up: there is nothing to measure."""
    table, prices = some(100), {"S": 1.0, "M": 2.0, "L": 3.0}
    columns = (*table.schema.columns, Column("price", "numeric", 0, 9))
    schema = Schema(columns, "public", (Constraint("pairs", ("size", "price"), tuple(prices.items())),))
    return Table(table.frame.assign(price=table["size"].astype(str).map(prices)), schema)


def of_ids() -> Table:
    return Table(pd.DataFrame({"id": range(90)}), Schema((Column("id", "id"),), "public"))


LARGE = some(200)
TABLES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "a holdout": (Holdout(LARGE), {}, {}, HoldoutError, "kept for testing"),
    "a holdout in a list": ([Holdout(LARGE)], {}, {}, HoldoutError, "kept for testing"),
    "a frame": (LARGE.frame, {}, {}, InvalidArgument, "table = 'DataFrame'"),
    "a drafted schema": (some(200, provenance="inferred"), {}, {}, SchemaError, "origin = 'inferred'"),
    "no rows": (some(0), {}, {}, InvalidArgument, "table = '0 rows'"),
    "one row": (some(1), {}, {}, InvalidArgument, "table = '1 rows'"),
    "one person": (some(90, visits=90), {}, {}, InvalidArgument, "delta = 1e-05 .*number of units, of at least 2"),
    "delta of one row": (LARGE, {"delta": 1 / 200}, {}, InvalidArgument, "delta = 0.005 .*far below 1 / 200"),
    "delta of one person": (some(200, visits=4), {"delta": 0.03}, {}, InvalidArgument, "delta = 0.03 .*1 / 50"),
    "no seed": (LARGE, {}, {"seed": None}, InvalidArgument, "seed = None .*or release=True"),
    "a seed for release": (
        LARGE,
        {"release": True},
        {"seed": 0},
        InvalidArgument,
        "seed, checkpoint = .*can subtract the noise",
    ),
    "kept for release": (
        LARGE,
        {"release": True},
        {"seed": None, "checkpoint": CheckpointConfig(Path("kept"))},
        InvalidArgument,
        "seed, checkpoint = .*None for release",
    ),
    "a date without bounds": (undated(), {}, {}, SchemaError, "'seen'.*a lower and an upper bound"),
    "a row that is nobody's": (nobodys(), {}, {}, SchemaError, "'person' .* 1 rows do not say whose"),
    "nothing to model": (of_ids(), {}, {}, SchemaError, "nothing is left to model"),
}
OTHERS = {
    "a batch of all": ("dp-tvae", LARGE, {"batch_size": 200}, {}, "batch_size = 200 .*fewer than the 200 units"),
    "a batch of all people": (
        "dp-tvae",
        some(200, visits=4),
        {"batch_size": 50},
        {},
        "batch_size = 50 .*fewer than the 50",
    ),
    "no steps": ("dp-tvae", LARGE, {}, {"steps": 0}, "steps = 0"),
    "an unknown target": ("mst", LARGE, {"target": "income"}, {}, "target = 'income' .*one of size, age, weight"),
    "a target that another column fixes": ("mst", fixed(), {"target": "price"}, {}, "target = 'price' .*one of size"),
    "a target that is an id": ("mst", some(200, visits=2), {"target": "person"}, {}, "target = 'person'"),
    "steps of what has none": ("mst", LARGE, {}, {"steps": 3}, "steps = 3 .*does not train in steps"),
    "the same of margins": ("private-margins", LARGE, {}, {"steps": 3}, "steps = 3"),
    "a look while it trains": ("dp-tvae", LARGE, {}, {"on_eval": print}, "on_eval = .*not evaluated while they train"),
}
CASES = [(family, *case) for family in PRIVATE for case in TABLES.values()]
CASES += [
    (family, table, settings, fit, InvalidArgument, told) for family, table, settings, fit, told in OTHERS.values()
]
NAMES = [f"{family}: {name}" for family in PRIVATE for name in TABLES] + list(OTHERS)


def test_an_unknown_option_charges_nothing() -> None:
    ledger = PrivacyLedger(100.0, 0.5, "one record")
    with pytest.raises(TypeError, match="budget"):
        model("mst").fit(LARGE, seed=0, ledger=ledger, budget=ledger)
    assert ledger.entries == []


@pytest.mark.parametrize(("family", "table", "settings", "fit", "error", "told"), CASES, ids=NAMES)
def test_a_refused_fit_uses_no_row_and_charges_nothing(
    family: str,
    table: Any,
    settings: dict[str, Any],
    fit: dict[str, Any],
    error: type[Exception],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused, ledger = model(family, **settings), PrivacyLedger(100.0, 0.5, "one record")
    monkeypatch.setattr(type(refused), "_learn", lambda *given, **named: pytest.fail("rows were learnt from"))
    with pytest.raises(error, match=told):
        refused.fit(table, **{"seed": 0, "ledger": ledger} | fit)
    assert ledger.entries == [] and not hasattr(refused, "guarantee_")
    with pytest.raises(NotFittedError):
        refused.sample(3, seed=0)


@pytest.mark.parametrize("family", PRIVATE)
def test_a_fit_is_charged_once_before_training_and_refused_when_too_little_remains(
    family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger = PrivacyLedger(3.0, 1e-4, "one record", tmp_path / "ledger.json").create()
    fitted, learn = model(family, release=True), PRIVATE[family]._learn

    def learns(*given: Any, **training: Any) -> PrivacyGuarantee:
        assert len(PrivacyLedger.load(tmp_path / "ledger.json").entries) == 1
        return learn(*given, **training)

    monkeypatch.setattr(PRIVATE[family], "_learn", learns)
    fitted.fit(some(200), seed=None, ledger=ledger)
    (entry,) = ledger.entries
    assert (entry.epsilon, entry.delta) == (2.0, 1e-5) and type(fitted).__name__ in entry.purpose
    assert entry.details["max_rows_per_entity"] == 1 and entry.details["release"] is True
    monkeypatch.setattr(PRIVATE[family], "_learn", lambda *given, **named: pytest.fail("rows were learnt from"))
    with pytest.raises(BudgetExceeded, match=r"needs epsilon 2.*1 and 9e-05 remain"):
        fitted.fit(some(200), seed=None, ledger=ledger)
    with pytest.raises(InvalidArgument, match="spend"):  # no ledger can pay for a control without privacy
        model(family, epsilon=math.inf).fit(some(200), seed=0, ledger=PrivacyLedger(3.0, 1e-4, "one record"))


@pytest.mark.parametrize("family", PRIVATE)
def test_a_failed_fit_keeps_no_units(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = model(family)
    with monkeypatch.context() as patch:
        patch.setattr(type(broken), "_learn", lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.fit(some(200), seed=0)
    assert not hasattr(broken, "_unit_of") and not hasattr(broken, "guarantee_")


# ── what stands beside what is released ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("family", PRIVATE)
def test_models_and_samples_state_the_full_guarantee(family: str, tmp_path: Path) -> None:
    fitted = model(family, max_rows_per_entity=2).fit(some(400, visits=4), seed=3)
    folder = fitted.save(tmp_path / "model", ORIGIN)
    said = json.loads((folder / CONFIG_NAME).read_text())["provenance"]
    assert said["privacy"] == fitted.guarantee_.to_dict() and said["privacy"].keys() == KEYS and said["seed"] == 5
    assert (said["privacy"]["epsilon"], said["privacy"]["delta"], said["privacy"]["audit"]) == (2.0, 1e-5, None)
    assert said["privacy"]["neighbours"] == "add or remove one person" and said["privacy"]["noise"] == base.SEEDED_NOISE
    assert said["privacy"]["unit"] == "one person, with at most 2 rows" and "floating-point" in str(said["privacy"])
    kept = load(folder)
    assert registry.read_class(folder).private and type(kept) is type(fitted) and kept.guarantee_ == fitted.guarantee_
    pd.testing.assert_frame_equal(kept.sample(300, seed=1).frame, fitted.sample(300, seed=1).frame)
    assert not kept.sample(300, seed=2).frame.equals(kept.sample(300, seed=1).frame)
    path = kept.write(tmp_path / "made.csv", 50, seed=1, provenance=ORIGIN)
    assert (
        read_provenance(path).privacy == said["privacy"]
        and PrivacyGuarantee.from_provenance(read_provenance(path)) == kept.guarantee_
    )
    again = model(family, max_rows_per_entity=2).fit(some(400, visits=4), seed=3).save(tmp_path / "again", ORIGIN)
    for name in ("model.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    other = model(family, max_rows_per_entity=2).fit(some(400, visits=4), seed=4).sample(300, seed=1)
    assert not other.frame.equals(fitted.sample(300, seed=1).frame)


def test_conditional_samples_and_a_missing_guarantee(tmp_path: Path) -> None:
    made = model("mst").fit(some(400), seed=0).sample(40, seed=1, where={"size": "M"})
    assert set(made["size"]) == {"M"} and len(made) == 40 and made.schema == some(400).schema
    with pytest.raises(DataError, match="no privacy guarantee is stated"):
        PrivacyGuarantee.from_provenance(ORIGIN)
    with pytest.raises(DataError, match=r"another format .*fit the model again"):
        PrivacyGuarantee.from_provenance(replace(ORIGIN, privacy={"epsilon": 1.0, "delta": 1e-6, "price": 3}))
    with pytest.raises(NotFittedError):
        model("mst").save(tmp_path / "model", ORIGIN)


@pytest.mark.slow
@pytest.mark.parametrize("family", PRIVATE)
def test_a_release_needs_secret_noise_and_an_audit(family: str, tmp_path: Path) -> None:
    taught = model(family).fit(some(200), seed=0)
    with pytest.raises(ReleaseRefused, match="teaching: the noise comes from a seed"):
        replace(taught.guarantee_, audit=0.1).check_release()
    fitted = model(family, release=True).fit(some(200), seed=None)
    assert fitted.guarantee_.noise == base.SYSTEM_ENTROPY
    for refused in (fitted.guarantee_.check_release, lambda: fitted.save(tmp_path / "model", ORIGIN)):
        with pytest.raises(ReleaseRefused, match="audit's lower bound"):
            refused()
    assert not (tmp_path / "model").exists()
    found = audit_generator(fitted, some(200), Holdout(some(200, seed=1)), seed=0)
    assert fitted.guarantee_.audit == found.epsilon_lower_bound <= 2
    folder = fitted.save(tmp_path / "model", ORIGIN)
    said = json.loads((folder / CONFIG_NAME).read_text())["provenance"]
    assert said["seed"] is None and said["privacy"]["noise"] == base.SYSTEM_ENTROPY
    assert said["privacy"]["audit"] == found.epsilon_lower_bound
    load(folder).guarantee_.check_release()
    twice = model(family, release=True).fit(some(200), seed=None)
    assert not twice.sample(100, seed=0).frame.equals(fitted.sample(100, seed=0).frame)


def test_a_release_states_no_seed(tmp_path: Path) -> None:
    kept = PrivacyGuarantee(
        **PROMISE,
        unit="x",
        accountant="x",
        steps=1,
        sample_rate=1,
        noise_multiplier=1,
        clip=1,
        noise=base.SYSTEM_ENTROPY,
    )
    assert replace(kept, audit=0.0).attach_to(ORIGIN).seed is None
    telling = mutant(base, "privacy=self.to_dict(), seed=None)", "privacy=self.to_dict())")
    assert telling.PrivacyGuarantee(**replace(kept, audit=0.0).to_dict()).attach_to(ORIGIN).seed == 5


class Copies(IndependentMarginals):
    """Promises, and hands out the rows themselves."""

    def _learn(self, frame: pd.DataFrame, seed: np.random.SeedSequence, **training: Any) -> PrivacyGuarantee:
        self._rows = frame
        return super()._learn(frame, seed, **training)

    def _draw(self, n: int, seed: np.random.SeedSequence, where: Any) -> pd.DataFrame:
        return self._rows.head(n)


def test_an_audit_above_the_guarantee_is_refused() -> None:
    promise = PrivacyGuarantee(
        **PROMISE, unit="x", accountant="x", steps=1, sample_rate=1, noise_multiplier=1, clip=1, noise="x"
    )
    assert promise.with_audit(2.0).audit == 2.0 and promise.audit is None
    with pytest.raises(ReleaseRefused, match=r"proved epsilon 2\.1, and 2 was promised"):
        promise.with_audit(2.1)
    leaky = Copies(epsilon=0.5, delta=1e-5).fit(some(400), seed=0)
    with pytest.raises(ReleaseRefused, match=r"proved epsilon .* 0\.5 was promised"):
        audit_generator(leaky, some(400), Holdout(some(400, seed=1)))
    assert leaky.guarantee_.audit is None
    careless = mutant(base, "if epsilon > self.epsilon:", "if False:")
    assert careless.PrivacyGuarantee(**promise.to_dict()).with_audit(9.0).audit == 9.0


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    from synthbook.generators.tabular.copula import Marginals

    folder = Marginals().fit(some(200), seed=0).save(tmp_path / "model", ORIGIN)
    assert not registry.read_class(folder).private
    with pytest.raises(DataError):
        Mst.load(folder)


# ── whose rows count together ────────────────────────────────────────────────────────────────────────────────────────


def visits(counts: list[int], seed: int = 0) -> Table:
    """A table in which person i has counts[i] rows, in any order."""
    table, rng = some(sum(counts), seed=seed), np.random.default_rng(seed)
    people = rng.permutation(np.repeat([f"p{i}" for i in range(len(counts))], counts))
    schema = Schema((*table.schema.columns, Column("person", "id")), "public", entity="person")
    return Table(table.frame.assign(person=people), schema)


@pytest.mark.slow
def test_contributions_are_bounded_and_rows_chosen_uniformly() -> None:
    table = visits([1, 2, 7, 30])
    for k in (1, 3, 10):
        rows = bound_contributions(table, k, np.random.default_rng(0))
        assert len(set(rows)) == len(rows) and (np.diff(rows) > 0).all()
        kept = table["person"].iloc[rows].value_counts()
        assert kept.to_dict() == {f"p{i}": min(c, k) for i, c in enumerate([1, 2, 7, 30])}
    often = np.zeros(40)
    for seed in range(600):
        often[bound_contributions(table, 3, np.random.default_rng(seed))] += 1
    theirs = often[(table["person"] == "p3").to_numpy()]
    assert theirs.sum() == 1_800 and stats.chisquare(theirs).pvalue > 1e-3
    assert bound_contributions(some(50), 1, np.random.default_rng(0)).tolist() == list(range(50))  # each row is its own


def test_splits_keep_units_together() -> None:
    table, rng = visits([3, 1, 6, 2, 5, 4]), np.random.default_rng(0)
    codes = unit_codes(table)
    assert len(set(zip(codes, table["person"], strict=True))) == 6 and units.n_units(table) == 6 == codes.max() + 1
    one, two = split_units(table, rng)
    assert len(one) + len(two) == 21 and not set(one["person"]) & set(two["person"]) and units.n_units(one) == 3
    taken = sample_units(table, 2, rng)
    assert taken["person"].nunique() == 2
    assert all((taken["person"] == p).sum() == (table["person"] == p).sum() for p in set(taken["person"]))
    assert len(sample_units(table, 9, rng)) == 21
    scores = rng.normal(size=21)
    oracle = [scores[(table["person"] == p).to_numpy()].max() for p in pd.unique(table["person"])]
    np.testing.assert_array_equal(max_score_per_unit(table, scores), oracle)
    assert units.n_units(some(0)) == 0 and units.n_units(some(7)) == 7


@pytest.mark.parametrize("k", [1, 3])
def test_counts_have_the_stated_sensitivity(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with forty equal rows comes: the counts that noise would be added to, with and without this person."""
    few = visits([k] * 30).drop_column("weight")
    same = few.frame.head(1).loc[[0] * 40].assign(person="new")
    more = Table(pd.concat([few.frame, same], ignore_index=True), few.schema)
    counted: list[np.ndarray] = []
    monkeypatch.setattr(mst, "measure", lambda counts, sigma, rng: (counted.append(counts), counts)[1])

    def moved(family: type[PrivateTableGenerator]) -> tuple[list[float], float]:
        """Of each table of counts, and of all in one vector: L2 distances."""
        found = []
        for table in (few, more):
            counted.clear()
            model = family(epsilon=math.inf, delta=1e-5, max_rows_per_entity=k).fit(table, seed=0)
            found.append(list(counted))
        apart = [float(np.linalg.norm(one - other)) for one, other in zip(*found, strict=True)]
        return apart, model.guarantee_.clip

    assert moved(Mst) == ([k, k, k], k)  # size, age, both: as far as a row that comes k times can
    apart, clip = moved(IndependentMarginals)
    assert apart == [k, k] and clip == pytest.approx(math.sqrt(2) * k)
    unbounded = mutant(units, "cumcount() < rows", "cumcount() >= 0")
    monkeypatch.setattr(base, "bound_contributions", unbounded.bound_contributions)
    assert moved(Mst)[0] == [40, 40, 40]


def test_fits_use_bounded_contributions(monkeypatch: pytest.MonkeyPatch) -> None:
    table, seen = visits([9] * 30), []
    for family in PRIVATE:
        fitted = model(family, max_rows_per_entity=2, **({"batch_size": 5} if family == "dp-tvae" else {}))
        learn = type(fitted)._learn

        def spied(self: Any, frame: pd.DataFrame, *given: Any, learn: Any = learn, **training: Any) -> PrivacyGuarantee:
            seen.append((len(frame), np.bincount(self._unit_of).tolist()))
            return learn(self, frame, *given, **training)

        monkeypatch.setattr(type(fitted), "_learn", spied)
        fitted.fit(table, seed=0)
    assert seen == [(60, [2] * 30)] * 3
    assert DpTvae.public_only and Mst.public_only
