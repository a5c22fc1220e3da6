"""Check that a generator follows the protocol, as scikit-learn's `check_estimator` does for estimators.

from synthbook.testing import check_generator

check_generator(MyGenerator)                      # with default settings, on a small example of its kind of data
check_generator(MyGenerator(steps=20), my_table)  # with settings and data of your own
"""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synthbook.core.errors import HoldoutError, InvalidArgument
from synthbook.core.storage import read_provenance
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.core.types import Images, Texts
from synthbook.generators.base import Generator, NotFittedError

_N = 40  # samples that are compared
_LARGE = {"table": 4_100, "images": 600, "text": 600}  # more than is sampled at a time
_RELOAD = """
import pickle, sys
from synthbook.generators import registry
folder, generator, n = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
with open(sys.argv[4], "wb") as file:
    pickle.dump(registry.load(folder, generator=generator).sample(n, seed=1), file)
"""


class GeneratorCheckError(AssertionError):
    """A generator does not follow the protocol; the message says what was expected and what to do."""


def check_generator(generator: type[Generator] | Generator, data: Any = None) -> None:
    """Check a class with its default settings, or an unfitted instance with its own; nothing is returned.

    `data` are what to fit to; without them a small example of the generator's `data_kind` is made. The model is fitted
    three times and loaded once in another process. Raises `GeneratorCheckError` for the first rule that is broken.
    """
    model = generator() if inspect.isclass(generator) else copy.deepcopy(generator)
    _check_class(model)
    data = _example(model.data_kind) if data is None else data
    seed = None if getattr(model.config, "release", False) else 0
    _require(seed is not None, "fitting is repeatable", "check a model without release=True: its seed is nobody's")
    _check_unfitted(model, data)
    before = repr(model)
    first, second, other = (copy.deepcopy(model) for _ in range(3))
    with _rule("fit(data, seed=0) works and returns the model itself", "let fit end with `return self`"):
        returned = first.fit(data, seed=0)
        _require(returned is first, "fit returns the model itself", "let fit end with `return self`")
        second.fit(data, seed=0)
        other.fit(data, seed=5)
    _check_samples(first, second, data)
    _check_options(first, data)
    _require(
        repr(first) != before and "fitted to" in repr(first) and "not fitted" in before,
        f"repr tells a fitted model from one that is not, and is {before!r} before and {first!r} after",
        "let __repr__ be the base class's, and implement _data_summary",
    )
    _require("<table" in first._repr_html_(), "_repr_html_ is a model card", "let _repr_html_ be the base class's")
    _check_disk(first)
    # a fit with another seed may give the same model (counts do), but it must say its seed
    seeds = (first.provenance_.seed, other.provenance_.seed)
    _require(seeds == (0, 5), f"provenance_ states the seed of the fit, not {seeds}", "call self._describe_fit in fit")


# ── The rules, in the order in which they are checked ──


def _check_class(model: Generator) -> None:
    cls = type(model)
    _require(isinstance(model, Generator), f"{cls.__name__} derives from Generator", "derive from TableGenerator, ...")
    _require(
        isinstance(vars(cls).get("family"), str),
        f"{cls.__name__} has a name of its own in checkpoints",
        'set family = "my-generator" in the class: an inherited one would load the parent class',
    )
    _require(
        model.data_kind in ("table", "images", "text"),
        f"data_kind is table, images or text, not {model.data_kind!r}",
        'set data_kind = "table" in the class',
    )


def _check_unfitted(model: Generator, data: Any) -> None:
    for name, call in (
        ("sample", lambda: model.sample(1, seed=0)),
        ("save", lambda: model.save("nowhere")),
        ("write", lambda: model.write(f"nowhere{model.suffix}", 1, seed=0)),
    ):
        _raises(
            NotFittedError,
            call,
            f"{name}() before fit() raises NotFittedError",
            "call self._check_fitted() first, and set no attribute that ends with an underscore in __init__",
        )
    _raises(
        HoldoutError,
        lambda: copy.deepcopy(model).fit(Holdout(data), seed=0),
        "fit refuses a Holdout, which is test data",
        "call refuse_holdout(data, ...) before anything else in fit",
    )


def _check_samples(first: Generator, second: Generator, data: Any) -> None:
    with _rule("sample(n, seed=...) works after fit", "see the error above"):
        rows, again, twin = first.sample(_N, seed=1), first.sample(_N, seed=1), second.sample(_N, seed=1)
        different = first.sample(_N, seed=2)
        large = _LARGE[first.data_kind]
        one, many = first.sample(1, seed=1), first.sample(large, seed=1)
    _require(
        _bytes(rows) == _bytes(again),
        "the same seed gives the same samples",
        "draw all randomness in sample from numpy.random.default_rng(seed), and change no state",
    )
    _require(
        _bytes(rows) == _bytes(twin),
        "fits with the same seed give the same model",
        "draw all randomness in fit from its seed, never from a global generator",
    )
    _require(
        _bytes(rows) != _bytes(different),
        "another seed gives other samples",
        "use the seed of sample, not a constant or that of the fit",
    )
    for n, samples in ((_N, rows), (1, one), (large, many)):
        _require(len(samples) == n, f"sample({n}) has length {n}, not {len(samples)}", "return exactly n samples")
        _check_kind(samples, data)
    for refused in (0, -1, 2.5):
        _raises(
            InvalidArgument,
            lambda n=refused: first.sample(n, seed=0),
            f"sample({refused}) raises InvalidArgument",
            'call check_positive_int("n", n) in sample',
        )


def _check_kind(samples: Any, data: Any) -> None:
    if isinstance(data, Table):
        _require(isinstance(samples, Table), "sample returns a Table", "return Table(frame, schema)")
        _require(
            samples.schema.columns == data.schema.columns,
            f"the samples have the columns of the training data, {data.schema.names}, not {samples.schema.names}",
            "keep the schema: names, order, kinds, bounds and categories",
        )
    elif isinstance(data, Images):
        _require(isinstance(samples, Images), "sample returns Images", "return Images(images, labels, class_names)")
        _require(
            samples.images.shape[1:] == data.images.shape[1:] and samples.class_names == data.class_names,
            f"images have the shape {tuple(data.images.shape[1:])} and the classes of the training data",
            "keep shape and class_names",
        )
        inside = bool((samples.images.abs() <= 1).all())
        _require(inside, "pixels lie in [-1, 1]", "clamp the images")
    elif isinstance(data, Texts | str | list):
        _require(isinstance(samples, str), "sample returns a str", "return the characters as one string")
    else:
        _require(
            np.shape(samples)[1:] == np.shape(data)[1:], "points have the dimension of the training data", "keep it"
        )


def _check_options(model: Generator, data: Any) -> None:
    """What can be asked of samples: `where` of tables, `labels` of images, `prompt` of text."""
    options = inspect.signature(model.sample).parameters
    if "where" in options and isinstance(data, Table):
        column = next((c for c in data.schema.columns if c.categories), None)
        if column is not None:
            value = data[column.name].mode()[0]
            rows = model.sample(5, seed=1, where={column.name: value})  # type: ignore[call-arg]
            _require(
                len(rows) == 5 and set(rows[column.name]) == {value},
                f"sample(5, where={{{column.name!r}: {value!r}}}) has 5 rows with that value",
                "reject other rows: TableGenerator.sample does",
            )
    if "labels" in options and isinstance(data, Images):
        labels = [k % len(data.class_names) for k in range(6)]
        images = model.sample(6, seed=1, labels=labels)  # type: ignore[call-arg]
        _require(images.labels.tolist() == labels, "labels=[...] gives images with these labels", "pass them on")
    if "prompt" in options and isinstance(data, Texts | str | list):
        text = model.sample(5, seed=1, prompt="a")  # type: ignore[call-arg]
        _require(len(text) == 5, "a prompt is not part of the n characters", "return what follows the prompt only")


def _check_disk(model: Generator) -> None:
    rows = _bytes(model.sample(_N, seed=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _rule("save(folder) works without provenance", "implement _state, or _serialize"):
            model.save(folder / "model")
            model.save(folder / "again")
        _require(
            all(
                path.read_bytes() == (folder / "again" / path.name).read_bytes()
                for path in (folder / "model").iterdir()
            ),
            "saving twice gives the same bytes",
            "store no time, path or random number",
        )
        with _rule("write(path, n) works", "implement _write, or derive from TableGenerator, ..."):
            path = model.write(folder / f"samples{model.suffix}", _N, seed=1)
            read_provenance(path)
        _require(
            _bytes(_reloaded(model, folder)) == rows,
            "a saved model gives the same samples in another process",
            "store everything that sample needs in _state, and take it back in _set_state",
        )
        loaded = type(model).load(folder / "model")
        _require(
            repr(loaded) == repr(model), f"a loaded model looks like the saved one: {loaded!r}, {model!r}", "see repr"
        )


def _reloaded(model: Generator, folder: Path) -> Any:
    """Samples of a model that was loaded in another process; here, where its class was defined in a notebook."""
    file = inspect.getsourcefile(type(model)) if not type(model).__module__.startswith("synthbook.") else ""
    if file is None or type(model).__qualname__ != type(model).__name__:
        return type(model).load(folder / "model").sample(_N, seed=1)
    generator = f"{file}:{type(model).__name__}" if file else ""
    arguments = [str(folder / "model"), generator, str(_N), str(folder / "samples.pickle")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _RELOAD, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1:] or [""]
    _require(
        done.returncode == 0,
        f"a saved model can be loaded in another process, which ended with: {last[0]}",
        "define the class at the top of its file, without needing what only this process has",
    )
    return pickle.loads((folder / "samples.pickle").read_bytes())


# ── Helpers ──


def _example(data_kind: str) -> Any:
    """Small data of a kind: 300 rows, 120 images in three classes, or a text."""
    rng = np.random.default_rng(0)
    if data_kind == "text":
        return Texts(("the cat sat on the mat and the dog sat on the log. " * 20,), ("animals",))
    if data_kind == "images":
        import torch

        labels = torch.arange(120) % 3
        images = torch.from_numpy(rng.normal(0, 0.2, (120, 1, 8, 8)).astype("float32")) + labels.view(-1, 1, 1, 1) / 3
        return Images((images - 0.3).clamp(-1, 1), labels, ("dark", "gray", "bright"))
    columns = (
        Column("size", "categorical", categories=("S", "M", "L")),
        Column("age", "numeric", 0, 99, integer=True, missing=True),
        Column("weight", "numeric", 0, 200),
    )
    age = pd.Series(rng.integers(0, 100, 300)).mask(rng.random(300) < 0.1).astype("Int64")
    size = rng.choice(["S", "M", "L"], 300, p=[0.6, 0.3, 0.1])
    frame = pd.DataFrame({"size": size, "age": age, "weight": rng.uniform(0, 200, 300)})
    return Table(frame, Schema(columns, "public"))


def _bytes(samples: Any) -> bytes:
    if isinstance(samples, Table):
        return samples.frame.to_csv(index=False).encode()
    if isinstance(samples, Images):
        return np.asarray(samples.images).tobytes() + np.asarray(samples.labels).tobytes()
    return samples.encode() if isinstance(samples, str) else np.asarray(samples).tobytes()


def _require(holds: bool, expected: str, remedy: str) -> None:
    if not holds:
        raise GeneratorCheckError(f"expected: {expected}\nwhat to do: {remedy}")


def _raises(error: type[Exception], call: Any, expected: str, remedy: str) -> None:
    try:
        call()
    except error:
        return
    except Exception as other:
        raise GeneratorCheckError(
            f"expected: {expected}, not {type(other).__name__} ({other})\nwhat to do: {remedy}"
        ) from other
    raise GeneratorCheckError(f"expected: {expected}\nwhat to do: {remedy}")


@contextmanager
def _rule(expected: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except GeneratorCheckError:
        raise
    except Exception as error:
        raise GeneratorCheckError(
            f"expected: {expected}, not {type(error).__name__} ({error})\nwhat to do: {remedy}"
        ) from error
