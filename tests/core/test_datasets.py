"""The loaders against facts published about the sets, and their splits against what a split has to be."""

import csv
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from synthbook import datasets
from synthbook.core.table import Holdout, Table

FOLDER = Path(datasets.__file__).parents[1] / "data"


def raw_adult(name: str) -> list[list[str]]:
    """The rows as the csv module reads them: an oracle without pandas."""
    lines = gzip.decompress((FOLDER / "adult" / name).read_bytes()).decode().splitlines()
    return [row for row in csv.reader(lines, skipinitialspace=True) if len(row) == 15]


def digest(rows) -> str:
    return hashlib.sha256(",".join(str(row) for row in rows).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def adult():
    return datasets.adult()


@pytest.fixture(scope="module")
def fashion():
    return datasets.fashion_mnist()


def test_adult_has_the_published_numbers_of_rows(adult):
    assert (len(adult.train), len(adult.test)) == (32_561, 16_281)
    both = sum(len(part["income"].dropna()) for part in (adult.train, adult.test.data))
    rich = sum((part["income"] == ">50K").sum() for part in (adult.train, adult.test.data))
    assert both == 48_842 and round(100 * rich / both, 2) == 23.93  # adult.names
    complete = [len(part.frame.dropna()) for part in (adult.train, adult.test.data)]
    assert complete == [30_162, 15_060]  # adult.names


@pytest.mark.slow
@pytest.mark.parametrize(("part", "file"), [("train", "adult.data.gz"), ("test", "adult.test.gz")])
def test_adult_is_the_file_value_by_value(adult, part, file):
    table = adult.train if part == "train" else adult.test.data
    raw = raw_adult(file)
    assert list(table.frame.index) == list(range(len(raw)))
    for position, name in enumerate(table.schema.names):
        expected = [row[position].rstrip(".") for row in raw]
        found = ["?" if value != value else str(value) for value in table[name].astype(object)]
        assert found == expected, name


def test_only_row_19609_is_from_holand_netherlands(adult):
    countries = adult.train["native-country"]
    assert list(countries.index[countries == "Holand-Netherlands"]) == [19_609]
    assert not (adult.test.data["native-country"] == "Holand-Netherlands").any()
    assert "Holand-Netherlands" in adult.test.data["native-country"].cat.categories


def test_adult_missing_values_are_where_the_schema_allows_them(adult):
    missing = adult.train.frame.isna().sum()
    assert missing[missing > 0].to_dict() == {"workclass": 1_836, "occupation": 1_843, "native-country": 583}


def test_adult_categories_are_those_of_the_names_file():
    declared = {}
    for line in (FOLDER / "adult" / "adult.names").read_text().splitlines():
        name, colon, values = line.partition(":")
        if colon and not line.startswith("|") and "continuous" not in values:
            declared[name] = tuple(value.strip() for value in values.rstrip(". ").split(","))
    schema = datasets.load_schema("adult")
    assert len(declared) == 8
    assert {c.name: c.categories for c in schema.columns if c.categories and c.name != "income"} == declared
    assert schema["income"].categories == ("<=50K", ">50K")
    assert schema.origin == "public"


def test_no_bound_of_a_schema_was_fitted_to_the_rows():
    for name in ("V1", "V9"):
        assert (datasets.load_schema("shuttle")[name].lower, datasets.load_schema("shuttle")[name].upper) == (
            -(2**15),
            2**15 - 1,
        )
    weights = datasets.adult().train["fnlwgt"]
    assert (weights.min(), weights.max()) != (1, 2_000_000)


def test_shuttle_counts_and_split():
    split = datasets.shuttle()
    assert (len(split.train), len(split.test)) == (43_500, 14_500)
    counts = split.train["Class"].value_counts() + split.test.data["Class"].value_counts()
    assert (counts["Fpv.Open"], counts["Fpv.Close"], counts.sum()) == (171, 50, 58_000)
    rows = [*split.train.frame.index, *split.test.data.frame.index]
    assert sorted(rows) == list(range(58_000))
    assert digest(split.test.data.frame.index) == "7fd9ca28b2ecb22e"


def test_shuttle_rows_keep_their_numbers():
    lines = gzip.decompress((FOLDER / "shuttle" / "shuttle.csv.gz").read_bytes()).decode().splitlines()[1:]
    test = datasets.shuttle().test.data.frame
    for row in (test.index[0], test.index[7_000], test.index[-1]):
        assert ",".join(str(value) for value in test.loc[row]) == lines[row]


def test_hashed_rows_are_those_with_the_smallest_hashes():
    keys = [f"set:{row}" for row in range(100)]
    chosen = datasets.hash_split(keys, 20)
    by_hash = {hashlib.sha256(key.encode()).hexdigest(): row for row, key in enumerate(keys)}
    assert set(chosen) == {by_hash[h] for h in sorted(by_hash)[:20]}
    assert list(chosen) == sorted(chosen)


def test_sms_counts_and_no_message_twice():
    split = datasets.sms_spam()
    train, test = split.train, split.test.data
    assert (len(train), len(test)) == (3_034, 1_500)
    assert len({*train.texts, *test.texts}) == 4_534
    assert (*train.labels, *test.labels).count("spam") == 561
    assert digest(test.texts) == "4ca740abf2babcda"
    assert {m.strip().lower() for m in train.texts}.isdisjoint(m.strip().lower() for m in test.texts)


def test_sms_labels_belong_to_their_messages():
    lines = set(gzip.decompress((FOLDER / "sms-spam" / "sms_spam_4862.tsv.gz").read_bytes()).decode().split("\n"))
    for part in (datasets.sms_spam().train, datasets.sms_spam().test.data):
        assert {f"{label}\t{text}" for label, text in zip(part.labels, part.texts, strict=True)} <= lines


def test_austen_parts_join_to_the_novels():
    split = datasets.austen()
    whole = gzip.decompress((FOLDER / "austen" / "austen_six_novels.txt.gz").read_bytes()).decode()
    joined = [a + b for a, b in zip(split.train.texts, split.test.data.texts, strict=True)]
    separators = [line for line in whole.splitlines(keepends=True) if line.startswith("===")]
    assert "".join(s + novel for s, novel in zip(separators, joined, strict=True)) == whole
    assert len(joined) == 6 and split.train.labels == split.test.data.labels
    emma, pride = (split.train.texts[split.train.labels.index(t)] for t in ("Emma", "Pride and Prejudice"))
    assert emma.startswith("EMMA") and "handsome, clever, and rich" in emma and "truth universally" in pride


def test_austen_tests_on_about_a_tenth_from_a_paragraphs_start():
    split = datasets.austen()
    for train, test in zip(split.train.texts, split.test.data.texts, strict=True):
        share = test.count("\n") / (train + test).count("\n")
        assert 0.085 < share < 0.101  # a letter in Emma is one paragraph of 211 lines
        assert train.endswith("\n\n")


def test_fashion_mnist_is_balanced_and_scaled(fashion):
    train, test = fashion.train, fashion.test.data
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [6_000] * 10
    assert torch.bincount(test.labels).tolist() == [1_000] * 10
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64
    assert (float(train.images.min()), float(train.images.max())) == (-1, 1)
    assert train.class_names[int(train.labels[0])] == "Ankle boot"  # the first picture, as published


def test_fashion_mnist_pixels_are_the_files_bytes(fashion):
    raw = gzip.decompress((FOLDER / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    pixels = (fashion.test.data.images[-1, 0] + 1) * 127.5
    assert pixels.round().to(torch.uint8).flatten().tolist() == list(raw[-784:])


def test_digits_are_split_and_scaled():
    from sklearn.datasets import load_digits

    split = datasets.digits()
    train, test = split.train, split.test.data
    assert (len(train), len(test)) == (1_347, 450)
    rows = datasets.hash_split([f"digits:{row}" for row in range(1_797)], 450)
    assert digest(rows) == "6ac1b4c2c58fded3"
    assert torch.equal(test.labels, torch.from_numpy(load_digits().target[rows]))
    assert np.array_equal((test.images[:, 0].numpy() + 1) * 8, load_digits().images[rows])
    joined = torch.cat([train.images, test.images]).flatten(1).unique(dim=0)
    assert len(joined) == len(np.unique(load_digits().data, axis=0))


def test_real_cube_corners_are_where_the_pose_projects_them():
    photographs = datasets.real_cube()
    assert isinstance(photographs, Holdout)
    p = photographs.data
    assert p.images.shape == (140, 240, 320) and p.images.dtype == np.uint8
    assert np.ptp(p.cube_corners, axis=0) == pytest.approx([p.cube_side] * 3) and p.cube_side == 0.084
    for i in range(len(p)):
        camera = Rotation.from_rotvec(p.rvec[i]).apply(p.cube_corners) + p.tvec[i]  # (8, 3) m
        pixels = (camera / camera[:, 2:]) @ p.K.T
        assert np.abs(pixels[:, :2] - p.corners[i]).max() < 1
        around = [*p.corners[i].min(axis=0), *p.corners[i].max(axis=0)]
        assert np.abs(np.array(around) - p.boxes[i]).max() < 1
        nearest = camera[p.visible[i]][:, 2].max()
        assert not p.visible[i].all() and camera[~p.visible[i]][:, 2].max() >= nearest - 0.084 * 3**0.5


def test_every_test_part_is_a_holdout_and_every_table_has_a_schema(adult):
    for split in (adult, datasets.shuttle(), datasets.sms_spam(), datasets.austen(), datasets.digits()):
        assert isinstance(split.test, Holdout) and not isinstance(split.train, Holdout)
        with pytest.raises(AttributeError):
            split.train = split.test
    assert isinstance(adult.train, Table)
