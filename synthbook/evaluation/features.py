"""What real and synthetic data are compared in: a row of numbers for each image or each row of a table.

Every distance depends on this choice, so every result names it: "Fréchet distance on standardised columns", never
"the Fréchet distance".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from synthbook.core.errors import InvalidArgument, SchemaError
from synthbook.core.table import Column, Schema, Table, refuse_holdout
from synthbook.core.types import Array
from synthbook.evaluation import feature_nets

if TYPE_CHECKING:
    import pandas as pd
    import torch


CHUNK = 256  # images at a time
LARGEST = 2**28  # numbers in a feature matrix: 2 GiB


@dataclass(frozen=True)
class Net:
    """A feature net: `name` as results print it, `d` features, the `size` in pixels it takes (None: any)."""

    name: str
    d: int
    size: int | None


NETS = {
    "fashion-cnn": Net("Fashion-MNIST CNN", 64, 28),
    "digits-cnn": Net("digits CNN", 32, 8),
    "mobilenet_v2": Net("MobileNetV2 (ImageNet)", 1280, None),
}


def image_features(images: torch.Tensor | ArrayLike, net: str = "fashion-cnn") -> Array:
    """Features (N, d) of grey images (N, 1, H, W) in [-1, 1]; "mobilenet_v2" also takes three channels.

    The two small nets are shipped with the data; "mobilenet_v2" is used where its weights are installed, and sees the
    images resized to 96 x 96. Raises `InvalidArgument` for images that the net cannot take, `DataError` for a net that
    is missing or altered.
    """
    import torch

    if net not in NETS:
        raise InvalidArgument("net", net, f"one of {', '.join(NETS)}")
    tensor = _checked_images(images, net)
    embed = feature_nets.embedder() if net == "mobilenet_v2" else _small_net(net)
    with torch.no_grad():
        return np.concatenate([embed(chunk).numpy().astype(np.float64) for chunk in torch.split(tensor, CHUNK)])


def _checked_images(images: torch.Tensor | ArrayLike, net: str) -> torch.Tensor:
    import torch

    side, channels = NETS[net].size, (1,) if NETS[net].size else (1, 3)
    wanted = f"images (N, {' or '.join(map(str, channels))}, {f'{side}, {side}' if side else 'H, W'}) for {net}"
    try:
        tensor = torch.as_tensor(images).to(torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgument("images", type(images).__name__, f"{wanted}: one array or tensor of numbers") from None
    shape = tuple(tensor.shape)
    fits = len(shape) == 4 and shape[1] in channels and min(shape) > 0 and side in (None, *set(shape[2:]))
    if not fits or (side and shape[2] != shape[3]):
        raise InvalidArgument("images", f"array of shape {shape}", f"{wanted}, at least one")
    low, high = (float(bound) for bound in tensor.aminmax())
    if not (low >= -1 and high <= 1):  # also where either is NaN
        found = "NaN" if np.isnan(low + high) else f"values from {low:.4g} to {high:.4g}"
        raise InvalidArgument("images", f"array with {found}", "values in [-1, 1]: black is -1, white is 1")
    return tensor


def _small_net(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    from synthbook.evaluation.feature_nets import shipped

    net: Callable[[torch.Tensor], torch.Tensor] = shipped(name)[:-2]  # up to the features
    return net


@dataclass(frozen=True)
class TableFeatures:
    """Turns tables of one schema into features (N, d); made by `table_features`.

    `columns` names the d features; `centre` and `scale` are those of the numeric columns of the table it was fitted on.
    """

    schema: Schema
    columns: tuple[str, ...]
    centre: dict[str, float] = field(repr=False)
    scale: dict[str, float] = field(repr=False)
    name: str = "standardised columns"

    @property
    def d(self) -> int:
        """The number of features."""
        return len(self.columns)

    def __call__(self, table: Table) -> Array:
        """Features (N, d) of a table with the same columns; raises `SchemaError` or `InvalidArgument`."""
        if not isinstance(table, Table):
            raise InvalidArgument("table", type(table).__name__, "a Table (of a Holdout, its `data`)")
        _same_columns(self.schema, table.schema)
        if len(table) == 0:
            raise InvalidArgument("table", "Table with 0 rows", "at least one row")
        if len(table) * self.d > LARGEST:
            raise InvalidArgument(
                "table", table, f"at most {LARGEST // self.d:,} rows at {self.d:,} features, or fewer categories"
            )
        frame = table.frame
        blocks = [self._block(column, frame[column.name]) for column in _measured(self.schema)]
        return np.concatenate(blocks, axis=1)

    def _block(self, column: Column, values: pd.Series[Any]) -> Array:
        absent = values.isna().to_numpy()
        if column.kind == "categorical":
            codes = values.cat.codes.to_numpy().astype(np.intp)  # -1 where missing, which picks the last unit vector
            units = np.eye(len(column.categories) + 1)[codes, : len(column.categories) + column.missing]
            # rows that differ in one category lie 1 apart: sqrt(1/2 + 1/2)
            return np.asarray(units / np.sqrt(2))
        # z = (x - mean) / sd, and 0 where x is missing
        z = np.where(absent, 0.0, (numbers(column, values) - self.centre[column.name]) / self.scale[column.name])
        return np.column_stack([z, absent] if column.missing else [z])


def table_features(fit_on: Table) -> TableFeatures:
    """Standardised columns: what the mean and standard deviation of the real train part turn a table into.

    Numbers, dates and ranks become (x - mean) / sd. A missing one becomes 0, with an indicator column beside it where
    the schema allows missing values. Categories become one column each, "missing" included, scaled so that rows that
    differ in one category lie 1 apart. Ids and free text are left out. A column that is constant in `fit_on` is divided
    by the width of its bounds (by 1 where they have none), with a warning. Raises `HoldoutError`, `InvalidArgument`,
    `SchemaError`.
    """
    refuse_holdout(fit_on, "standardising columns")
    if not isinstance(fit_on, Table):
        raise InvalidArgument("fit_on", type(fit_on).__name__, "a Table, the real train part")
    if len(fit_on) == 0:
        raise InvalidArgument("fit_on", "Table with 0 rows", "at least one row")
    columns = _measured(fit_on.schema)
    if not columns:
        raise SchemaError("every column is an id or free text: nothing is left to measure")
    centre, scale = {}, {}
    for column in columns:
        if column.kind != "categorical":
            centre[column.name], scale[column.name] = _centre_and_scale(column, fit_on[column.name])
    return TableFeatures(fit_on.schema, tuple(name for column in columns for name in _names(column)), centre, scale)


def _centre_and_scale(column: Column, values: pd.Series[Any]) -> tuple[float, float]:
    present = numbers(column, values.dropna())
    centre = float(present.mean()) if len(present) else 0.0
    sd = float(present.std()) if len(present) else 0.0
    if len(present) and present.min() < present.max() and sd > 0:
        return centre, sd
    width = _width(column) or 1.0
    what = f"has one value ({present[0]:g})" if len(present) else "has no value"
    warnings.warn(
        f"column {column.name!r} {what} in the rows given: divided by {width:g} instead of its sd", stacklevel=3
    )
    return (float(present[0]) if len(present) else 0.0), width


def _width(column: Column) -> float:
    """How far apart a column's lowest and highest possible values are, in the units of `numbers`; 0 where unknown."""
    import pandas as pd

    if column.kind == "ordinal":
        return float(len(column.categories) - 1)
    if column.lower is None or column.upper is None:
        return 0.0
    low, high = numbers(column, pd.Series([column.lower, column.upper]))
    return float(high - low)


def numbers(column: Column, values: pd.Series[Any]) -> Array:
    """A column as float64 (N,), NaN where missing: numbers as they are, ranks from 0, dates in days since 1970."""
    import pandas as pd

    if column.kind == "ordinal":
        codes = values.cat.codes.to_numpy().astype(np.float64)
        return np.asarray(np.where(codes < 0, np.nan, codes), dtype=np.float64)
    if column.kind == "datetime":
        days = (values.astype("datetime64[us]") - pd.Timestamp(0)) / pd.Timedelta(days=1)
        return np.asarray(days.to_numpy(dtype=np.float64))
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _measured(schema: Schema) -> list[Column]:
    return [column for column in schema.columns if column.kind not in ("id", "text")]


def _names(column: Column) -> list[str]:
    missing = [f"{column.name} is missing"] if column.missing else []
    own = [f"{column.name} = {c}" for c in column.categories] if column.kind == "categorical" else [column.name]
    return own + missing


def _same_columns(expected: Schema, given: Schema) -> None:
    """Raise a `SchemaError` unless both schemas give the same features."""
    kinds = [[(c.name, c.kind, c.categories, c.missing) for c in schema.columns] for schema in (expected, given)]
    if kinds[0] != kinds[1]:
        differing = sorted({c[0] for c in set(kinds[0]) ^ set(kinds[1])}) or ["their order"]
        raise SchemaError(
            f"the table has another schema than the one the features were fitted on; they differ in: "
            f"{', '.join(differing)} (name, kind, categories, missing)"
        )


def radial_spectrum(images: ArrayLike) -> tuple[Array, Array]:
    """Frequencies (K,) in cycles per pixel, 0 to 1/2, and the mean power of images (N, C, H, W) or (N, H, W) at each.

    Power is |FFT|^2 / (H W) of each channel after its mean is taken away, averaged over images, channels and all
    directions; frequencies are in steps of 1 / H. The corners of the spectrum, beyond 1/2, are left out.
    """
    x = np.asarray(images, dtype=float)
    if x.ndim not in (3, 4) or x.shape[-1] != x.shape[-2] or x.size == 0 or not np.isfinite(x).all():
        raise InvalidArgument("images", f"array of shape {x.shape}", "finite square images (N, C, H, W) or (N, H, W)")
    x = x.reshape(-1, *x.shape[-2:])
    side = x.shape[-1]
    power = (np.abs(np.fft.fft2(x - x.mean((1, 2), keepdims=True))) ** 2).mean(0) / side**2  # (H, W)
    frequency = np.fft.fftfreq(side)
    ring = np.rint(side * np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    count = np.bincount(ring)[: side // 2 + 1]
    return np.arange(side // 2 + 1) / side, np.bincount(ring, power.ravel())[: side // 2 + 1] / count


def fine_detail(images: ArrayLike) -> float:
    """Total power at and above a quarter of a cycle per pixel, half of the highest frequency an image can hold."""
    frequency, power = radial_spectrum(images)
    return float(power[frequency >= 0.25].sum())
