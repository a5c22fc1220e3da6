"""Checkpoints: the same bytes for the same content, and a clear refusal of everything that is not whole."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from synthbook.core import checkpoints
from synthbook.core.errors import DataError, InvalidArgument
from synthbook.core.storage import Provenance, sha256_file

ORIGIN = Provenance("a test", "synthbook train nothing --seed 1", {"data": "00"}, seed=1)
CONFIG = {"width": 3, "names": ["a", "ü"], "rate": 0.1}


def save(folder: Path, **changed) -> Path:
    given = {"tensors": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}, "config": CONFIG}
    given |= {"model_type": "test-net", "provenance": ORIGIN} | changed
    return checkpoints.save(folder, given.pop("tensors"), given.pop("config"), **given)


def test_what_is_saved_comes_back(tmp_path):
    assert save(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    tensors, config = checkpoints.load(tmp_path / "a" / "b", model_type="test-net")
    assert config == CONFIG and set(tensors) == {"w", "b"}
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3)) and tensors["b"].dtype == torch.float32
    assert checkpoints.read_model_provenance(tmp_path / "a" / "b") == ORIGIN
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["model.json", "model.safetensors"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one = save(tmp_path / "1", tensors={"a": torch.ones(2), "b": torch.zeros(3)}, config={"x": 1, "y": 2})
    two = save(tmp_path / "2", tensors={"b": np.zeros(3, np.float32), "a": torch.ones(2)}, config={"y": 2, "x": 1})
    for file in ("model.json", "model.safetensors"):
        assert sha256_file(one / file) == sha256_file(two / file)


def test_tied_sliced_and_tracked_tensors_are_stored_as_they_look(tmp_path):
    w = torch.arange(12.0).reshape(3, 4)
    tensors = {"w": w, "same": w, "slice": w[:, ::2], "t": w.T, "tracked": w.clone().requires_grad_()}
    back, _ = checkpoints.load(save(tmp_path, tensors=tensors))
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.sampled_from([np.float32, np.float64, np.int64, np.int8, np.bool_]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_arrays_survive_the_round_trip(tmp_path_factory, tensors):
    back, _ = checkpoints.load(save(tmp_path_factory.mktemp("c"), tensors=tensors))
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        assert back[name].numpy().dtype == value.dtype
        np.testing.assert_array_equal(back[name].numpy(), value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tensors": {}}, "tensors = .* at least one"),
        ({"tensors": {"x": np.array(["a"])}}, r"tensors = \['x'\] .* named arrays of numbers"),
        ({"tensors": {1: torch.ones(1)}}, "named arrays of numbers"),
        ({"config": {"rate": float("nan")}}, "config .* finite JSON"),
        ({"config": {"net": object()}}, "config .* finite JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(tmp_path, changed, message):
    with pytest.raises(InvalidArgument, match=message):
        save(tmp_path / "new", **changed)
    assert not (tmp_path / "new").exists()


def spoil(folder: Path, file: str, change) -> None:
    path = folder / file
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw + b"\0", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])],
    ids=["truncated", "emptied", "longer", "one bit"],
)
def test_altered_tensors_are_refused_with_both_hashes_and_a_remedy(tmp_path, change):
    folder = save(tmp_path)
    expected = sha256_file(folder / "model.safetensors")
    spoil(folder, "model.safetensors", change)
    with pytest.raises(DataError) as error:
        checkpoints.load(folder)
    said = str(error.value)
    assert str(folder / "model.safetensors") in said and expected in said
    assert sha256_file(folder / "model.safetensors") in said and ORIGIN.command in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[: len(raw) // 2], "model.json cannot be read .* train the model again"),
        (lambda raw: raw.replace(b'"width": 3', b'"width": 4'), "model.json changed after it was written"),
        (lambda raw: raw.replace(b'"seed": 1', b'"seed": 2'), "model.json changed after it was written"),
        (lambda raw: raw.replace(b"synthbook checkpoint", b"somebody's model"), "is not a synthbook checkpoint"),
        (lambda raw: raw.replace(b'"version": 1', b'"version": 2'), "has format version 2, this package reads 1"),
        (lambda raw: b"[1, 2]", "is not a synthbook checkpoint"),
        (lambda raw: b"\xff\xfe\x00", "model.json cannot be read"),
    ],
)
def test_an_altered_card_is_refused(tmp_path, change, message):
    folder = save(tmp_path)
    spoil(folder, "model.json", change)
    with pytest.raises(DataError, match=message):
        checkpoints.load(folder)


def test_missing_files_and_foreign_models_are_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no model\.json: a checkpoint is a folder"):
        checkpoints.load(tmp_path / "nothing")
    folder = save(tmp_path / "one")
    with pytest.raises(DataError, match="checkpoint of 'test-net', not of 'other'"):
        checkpoints.load(folder, model_type="other")
    other = save(tmp_path / "two", tensors={"w": torch.ones(1)})
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="changed after it was written"):  # put together from two models
        checkpoints.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        checkpoints.load(folder)


def test_a_card_that_vouches_for_something_else_than_tensors_is_refused(tmp_path):
    folder = save(tmp_path)
    spoil(folder, "model.safetensors", lambda raw: b"not tensors")
    card = json.loads((folder / "model.json").read_text())
    card["sha256"] = sha256_file(folder / "model.safetensors")
    del card["sha256_of_card"]
    card["sha256_of_card"] = checkpoints._own_hash(card)
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="not in the safetensors format"):
        checkpoints.load(folder)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_crash_while_overwriting_never_gives_a_mixed_model(tmp_path, monkeypatch, fails_at):
    folder, calls = save(tmp_path), []

    def crash(path, content):
        calls.append(path)
        if len(calls) == fails_at:
            raise OSError("no space left")
        return real(path, content)

    real = checkpoints.atomic_write
    monkeypatch.setattr(checkpoints, "atomic_write", crash)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, tensors={"w": torch.ones(5)})
    assert [path.name for path in calls] == ["model.safetensors", "model.json"][:fails_at]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    if fails_at == 1:
        assert set(checkpoints.load(folder)[0]) == {"w", "b"}  # the old one, whole
    else:
        with pytest.raises(DataError, match="changed after it was written"):
            checkpoints.load(folder)
