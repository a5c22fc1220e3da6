"""Features: of tables against scikit-learn's preprocessing, of images against the shipped nets run layer by layer."""

import dataclasses
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from synthbook import datasets
from synthbook.core import checkpoints
from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.datasets import data_folder
from synthbook.evaluation import feature_nets, features
from synthbook.evaluation.features import (
    FEATURE_NETS,
    fit_table_encoder,
    high_frequency_power,
    image_features,
    radial_power_spectrum,
)
from tests.mutation import mutant

SCHEMA = Schema(
    (
        Column("id", "id"),
        Column("age", "numeric", lower=0, upper=120, integer=True),
        Column("pay", "numeric", lower=0.0, upper=1e6, missing=True),
        Column("city", "categorical", categories=("Bonn", "Cork", "Oslo"), missing=True),
        Column("sex", "categorical", categories=("f", "m")),
        Column("level", "ordinal", categories=("low", "middle", "high"), missing=True),
        Column("born", "datetime", missing=True),
        Column("note", "text"),
    ),
    "public",
)


def rows(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "age": rng.integers(18, 90, n),
            "pay": rng.uniform(0, 1e5, n),
            "city": rng.choice(["Bonn", "Cork"], n),  # nobody lives in Oslo
            "sex": rng.choice(["f", "m"], n),
            "level": rng.choice(["low", "middle", "high"], n),
            "born": pd.Timestamp("1950-01-01") + pd.to_timedelta(rng.integers(0, 20_000, n), unit="D"),
            "note": "hello",
        }
    )
    for name in ("pay", "city", "level", "born"):
        frame.loc[rng.random(n) < 0.2, name] = None
    return frame


def table(n: int, seed: int = 0, schema: Schema = SCHEMA, **changed: object) -> Table:
    return Table(rows(n, seed).assign(**changed), schema)


def test_tables_agree_with_scikit_learn():
    train, other = table(200), table(50, seed=1)
    f = fit_table_encoder(train)

    def with_sklearn(part: Table) -> np.ndarray:
        def plain(t: Table) -> np.ndarray:
            frame = t.frame
            days = frame["born"].to_numpy("datetime64[s]").astype(float)
            days[frame["born"].isna()] = np.nan
            ranks = frame["level"].astype(object).map({"low": 0, "middle": 1, "high": 2}).to_numpy(float)
            return np.column_stack([frame["age"].to_numpy(float), frame["pay"].to_numpy(float), ranks, days])

        z = np.nan_to_num(StandardScaler().fit(plain(train)).transform(plain(part)), nan=0.0)
        absent = np.isnan(plain(part)).astype(float)
        lists = [["Bonn", "Cork", "Oslo", "none"], ["f", "m"]]
        words = part.frame[["city", "sex"]].astype(object).fillna("none")
        one_hot = OneHotEncoder(categories=lists, sparse_output=False).fit_transform(words) / np.sqrt(2)
        age, pay, level, born = z.T
        return np.column_stack([age, pay, absent[:, 1], one_hot, level, absent[:, 2], born, absent[:, 3]])

    for part in (train, other):
        np.testing.assert_allclose(f(part), with_sklearn(part), atol=1e-9)
    assert f.d == 13 and f.name == "standardized columns"
    assert f.columns[:5] == ("age", "pay", "pay is missing", "city = Bonn", "city = Cork")
    assert f.columns[5:9] == ("city = Oslo", "city is missing", "sex = f", "sex = m")


def test_rows_that_differ_in_one_category_lie_one_apart():
    frame = rows(2).assign(age=[30, 40], pay=1.0, city=["Bonn", None], sex="f", level="low", born=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = fit_table_encoder(Table(frame, SCHEMA))(Table(frame.assign(age=30), SCHEMA))
    assert np.linalg.norm(x[0] - x[1]) == pytest.approx(1)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_any_table_gives_finite_features_in_the_order_of_its_rows(n, m, seed, random):
    train, other = table(n, seed), table(m, seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small tables have constant columns
        f = fit_table_encoder(train)
    x, order = f(other), random.sample(range(m), m)
    assert x.shape == (m, len(f.columns)) and np.isfinite(x).all()
    np.testing.assert_array_equal(f(Table(other.frame.iloc[order], SCHEMA)), x[order])
    own = f(train)
    varied = [i for i, name in enumerate(f.columns) if name == "age" and train["age"].nunique() > 1]
    np.testing.assert_allclose(own[:, varied].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(own[:, varied].std(axis=0), 1, atol=1e-9)


def test_constant_columns_keep_a_scale_and_say_so():
    constant = table(5, age=40, pay=None, level="high", born=datetime(2000, 1, 1))
    with pytest.warns(UserWarning) as caught:
        f = fit_table_encoder(constant)
    messages = [str(warning.message) for warning in caught]
    assert "column 'age' has one value (40) in the rows given: divided by 120 instead of its sd" in messages
    assert any("'pay' has no value" in s and "1e+06" in s for s in messages)
    assert len(messages) == 4 and all(Path(warning.filename) == Path(__file__) for warning in caught)
    x = f(table(5, age=100, pay=5e5, level="low", born=datetime(2000, 1, 3)))
    picked = [f.columns.index(name) for name in ("age", "pay", "level", "born")]
    np.testing.assert_allclose(x[0, picked], [0.5, 0.5, -1, 2])


def test_a_tiny_spread_around_a_large_value_is_not_noise():
    spread = np.array([1e6, 1e6 - 1e-4, 1e6 - 2e-4])
    given = table(3, pay=spread, born=[datetime(2000, 1, day) for day in (1, 2, 3)])
    x = fit_table_encoder(given)(given)
    assert x[:, 1].std() == pytest.approx(1) and x[0, 1] > x[1, 1] > x[2, 1]


def test_bad_tables_are_refused_with_words():
    f = fit_table_encoder(table(20))
    with pytest.raises(HoldoutError, match="standardizing columns"):
        fit_table_encoder(Holdout(table(20)))
    with pytest.raises(InvalidArgument, match="train = 'DataFrame'"):
        fit_table_encoder(rows(3))
    with pytest.raises(InvalidArgument, match="train = 'Table with 0 rows'"):
        fit_table_encoder(table(0))
    with pytest.raises(InvalidArgument, match="table = 'Table with 0 rows'"):
        f(table(0))
    with pytest.raises(InvalidArgument, match="of a Holdout, its `data`"):
        f(Holdout(table(3)))
    more = tuple(
        dataclasses.replace(c, categories=(*c.categories, "x")) if c.name == "sex" else c for c in SCHEMA.columns
    )
    with pytest.raises(SchemaError, match="they differ in: sex"):
        f(table(3, schema=dataclasses.replace(SCHEMA, columns=more)))
    with pytest.raises(SchemaError, match="they differ in: their order"):
        f(table(3, schema=dataclasses.replace(SCHEMA, columns=SCHEMA.columns[::-1])))
    with pytest.raises(SchemaError, match=r"'sex'.*not allowed"):
        table(3, sex="unseen")
    labels = Schema((Column("id", "id"), Column("note", "text")), "public")
    with pytest.raises(SchemaError, match="no usable columns"):
        fit_table_encoder(Table(rows(3)[["id", "note"]], labels))


def test_the_features_are_those_of_a_schema_that_differs_only_in_its_reviewer():
    f, inferred = fit_table_encoder(table(20)), dataclasses.replace(SCHEMA, origin="inferred")
    np.testing.assert_array_equal(f(table(5)), f(table(5, schema=inferred)))


def test_a_matrix_that_cannot_fit_is_refused(monkeypatch):
    f = fit_table_encoder(table(20))
    monkeypatch.setattr(features, "MAX_ELEMENTS", 13 * 10)
    assert f(table(10)).shape == (10, 13)
    with pytest.raises(InvalidArgument, match="at most 10 rows at 13 features"):
        f(table(11))


def test_adult_has_the_dimension_its_schema_says():
    train = datasets.adult().train
    f = fit_table_encoder(train)
    assert f(train).shape == (32_561, f.d) and f.d == 6 + (8 + 1) + 16 + 7 + (14 + 1) + 6 + 5 + 2 + (41 + 1) + 2


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", feature_nets.CONFIGS)
def test_features_are_the_last_hidden_layer_of_the_shipped_net(name):
    side = FEATURE_NETS[name].size
    images = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (300, 1, side, side)).astype(np.float32))
    x = image_features(images, net=name)
    assert x.shape == (300, FEATURE_NETS[name].d) and x.dtype == np.float64 and np.isfinite(x).all()
    w, _ = checkpoints.load(data_folder() / feature_nets.PRETRAINED / name, model_type=name)
    y = images  # the same arithmetic, written out
    for layer in ("0", "3"):
        y = torch.nn.functional.conv2d(y, w[f"{layer}.weight"], w[f"{layer}.bias"], padding=1).clamp(min=0)
        n, c, h, _ = y.shape
        y = y[:, :, : h // 2 * 2, : h // 2 * 2].reshape(n, c, h // 2, 2, h // 2, 2).amax(dim=(3, 5))
    np.testing.assert_allclose(x, y.reshape(300, -1) @ w["7.weight"].T + w["7.bias"], atol=1e-4)
    assert x.std(axis=0).min() > 0  # no dead unit
    np.testing.assert_allclose(image_features(images.numpy()[:3], net=name), x[:3], atol=1e-4)  # chunks do not matter


def test_features_of_the_real_test_part_are_nearer_than_those_of_noise():
    split = datasets.digits()
    real, test = image_features(split.train.images, "digits-cnn"), image_features(split.test.data.images, "digits-cnn")
    noise = image_features(torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (450, 1, 8, 8))), "digits-cnn")
    centre, spread = real.mean(axis=0), real.std(axis=0)
    assert np.abs((test.mean(axis=0) - centre) / spread).mean() < 0.15
    assert np.abs((noise.mean(axis=0) - centre) / spread).mean() > 0.3


GOOD = np.zeros((2, 1, 28, 28))


@pytest.mark.parametrize(
    ("images", "net", "message"),
    [
        (GOOD, "inception", "net = 'inception' .* one of fashion-cnn, digits-cnn, mobilenet_v2"),
        (GOOD[0], "fashion-cnn", r"shape \(1, 28, 28\).*images \(N, 1, 28, 28\) for fashion-cnn"),
        (GOOD, "digits-cnn", r"shape \(2, 1, 28, 28\).*\(N, 1, 8, 8\) for digits-cnn"),
        (np.zeros((2, 1, 28, 14)), "fashion-cnn", r"shape \(2, 1, 28, 14\)"),
        (np.zeros((2, 3, 28, 28)), "fashion-cnn", r"shape \(2, 3, 28, 28\)"),
        (np.zeros((2, 2, 9, 9)), "mobilenet_v2", r"\(N, 1 or 3, H, W\) for mobilenet_v2"),
        (GOOD[:0], "fashion-cnn", r"shape \(0, 1, 28, 28\).*at least one"),
        (GOOD + 255, "fashion-cnn", r"values from 255 to 255.*in \[-1, 1\]: black is -1"),
        (GOOD + 1.01, "fashion-cnn", "values from 1.01 to 1.01"),
        (GOOD - 1.01, "fashion-cnn", "values from -1.01 to -1.01"),
        (np.where(np.arange(28) == 3, np.nan, GOOD), "fashion-cnn", "array with NaN"),
        (np.where(np.arange(28) == 3, np.inf, GOOD), "fashion-cnn", "values from 0 to inf"),
        ("images", "fashion-cnn", "images = 'str'"),
        (None, "fashion-cnn", "images = 'NoneType'"),
    ],
)
def test_bad_images_are_refused_with_words(images, net, message):
    with pytest.raises(InvalidArgument, match=message):
        image_features(images, net=net)


# ── spectra of waves, noise and blurred noise ──


@pytest.mark.parametrize("cycles", [1, 3, 8])
def test_a_wave_has_one_frequency(cycles: int) -> None:
    wave = np.cos(2 * np.pi * cycles * np.arange(16) / 16)
    for image in (np.tile(wave, (16, 1)), np.tile(wave, (16, 1)).T):
        frequency, power = radial_power_spectrum(7 + image[None])
        assert frequency[power.argmax()] == cycles / 16
        assert power[np.arange(9) != cycles].max() < 1e-20


def white_noise_is_flat(code: object) -> bool:
    noise = np.random.default_rng(0).standard_normal((2_000, 1, 16, 16))
    power = code.radial_power_spectrum(noise)[1][1:]  # type: ignore[attr-defined]
    return bool(np.abs(power - 1).max() < 0.06)


def test_white_noise_has_power_one_everywhere() -> None:
    assert white_noise_is_flat(features)
    assert not white_noise_is_flat(mutant(features, " / count", ""))
    assert not white_noise_is_flat(mutant(features, ".mean(0) / side**2", ".mean(0) / side"))


def test_blur_takes_fine_detail_away() -> None:
    noise = np.random.default_rng(0).standard_normal((50, 1, 16, 16))
    blurred = (noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2) + np.roll(noise, (1, 1), (-1, -2))) / 4
    assert high_frequency_power(blurred) < 0.25 * high_frequency_power(noise)
    assert high_frequency_power(2 * noise) == pytest.approx(4 * high_frequency_power(noise))


def test_what_is_no_picture_is_refused() -> None:
    for wrong in (np.zeros((2, 4, 5)), np.zeros((4, 4)), np.full((1, 4, 4), np.nan), np.zeros((0, 4, 4))):
        with pytest.raises(InvalidArgument, match="square images"):
            radial_power_spectrum(wrong)
