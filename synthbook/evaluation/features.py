"""Features in which real and synthetic data are compared: a row of numbers for each image or table row.

Distances depend on the features, so results name them, as in "Fréchet distance on standardized columns".
"""

from __future__ import annotations

import warnings
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


_BATCH_SIZE = 256  # images
MAX_ELEMENTS = 2**28  # of a feature matrix: 2 GiB


@dataclass(frozen=True)
class FeatureNet:
    """A feature net: `name` in results, `d` features, image `size` in pixels (None: any)."""

    name: str
    d: int
    size: int | None


FEATURE_NETS = {
    "fashion-cnn": FeatureNet("Fashion-MNIST CNN", 64, 28),
    "digits-cnn": FeatureNet("digits CNN", 32, 8),
    "mobilenet_v2": FeatureNet("MobileNetV2 (ImageNet)", 1280, None),
}


def image_features(images: torch.Tensor | ArrayLike, net: str = "fashion-cnn") -> Array:
    """Features (N, d) of grayscale images (N, 1, H, W) in [-1, 1]; "mobilenet_v2" also takes three channels.

    The two small nets are shipped with the data. "mobilenet_v2" needs its weights installed and resizes images to 96 x
    96. Raises `InvalidArgument` for images that the net cannot take, `DataError` if the net is missing or altered.
    """
    import torch

    if net not in FEATURE_NETS:
        raise InvalidArgument("net", net, f"one of {', '.join(FEATURE_NETS)}")
    tensor = _check_images(images, net)
    # of a small net, the layers up to the features
    embed = feature_nets.embedder() if net == "mobilenet_v2" else feature_nets.load_pretrained(net)[:-2]
    with torch.no_grad():
        return np.concatenate([embed(batch).numpy().astype(np.float64) for batch in torch.split(tensor, _BATCH_SIZE)])


def _check_images(images: torch.Tensor | ArrayLike, net: str) -> torch.Tensor:
    """The images as a float32 tensor. Raises `InvalidArgument` for a shape or values that the net cannot take."""
    import torch

    side, channels = FEATURE_NETS[net].size, (1,) if FEATURE_NETS[net].size else (1, 3)
    expected = f"images (N, {' or '.join(map(str, channels))}, {f'{side}, {side}' if side else 'H, W'}) for {net}"
    try:
        tensor = torch.as_tensor(images).to(torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgument("images", type(images).__name__, f"{expected}: one array or tensor of numbers") from None
    shape = tuple(tensor.shape)
    fits = len(shape) == 4 and shape[1] in channels and min(shape) > 0 and side in (None, *set(shape[2:]))
    if not fits or (side and shape[2] != shape[3]):
        raise InvalidArgument("images", f"array of shape {shape}", f"{expected}, at least one")
    low, high = (float(bound) for bound in tensor.aminmax())
    if not (low >= -1 and high <= 1):  # also where either is NaN
        values = "NaN" if np.isnan(low + high) else f"values from {low:.4g} to {high:.4g}"
        raise InvalidArgument("images", f"array with {values}", "values in [-1, 1]: black is -1, white is 1")
    return tensor


@dataclass(frozen=True)
class TableEncoder:
    """Encodes tables of one schema as features (N, d); created by `fit_table_encoder`.

    `columns` names the d features; `mean` and `scale` are those of the numeric columns of the table it was fitted to.
    """

    schema: Schema
    columns: tuple[str, ...]
    mean: dict[str, float] = field(repr=False)
    scale: dict[str, float] = field(repr=False)
    name: str = "standardized columns"

    @property
    def d(self) -> int:
        """Number of features."""
        return len(self.columns)

    def __call__(self, table: Table) -> Array:
        """Encode a table with the same columns as features (N, d). Raises `SchemaError`, `InvalidArgument`."""
        if not isinstance(table, Table):
            raise InvalidArgument("table", type(table).__name__, "a Table (of a Holdout, its `data`)")
        _check_same_columns(self.schema, table.schema)
        if len(table) == 0:
            raise InvalidArgument("table", "Table with 0 rows", "at least one row")
        if len(table) * self.d > MAX_ELEMENTS:
            raise InvalidArgument(
                "table", table, f"at most {MAX_ELEMENTS // self.d:,} rows at {self.d:,} features, or fewer categories"
            )
        frame = table.frame
        blocks = [self._block(column, frame[column.name]) for column in _feature_columns(self.schema)]
        return np.concatenate(blocks, axis=1)

    def _block(self, column: Column, values: pd.Series[Any]) -> Array:
        missing = values.isna().to_numpy()
        if column.kind == "categorical":
            codes = values.cat.codes.to_numpy().astype(np.intp)  # -1 where missing, which picks the last unit vector
            units = np.eye(len(column.categories) + 1)[codes, : len(column.categories) + column.missing]
            # rows that differ in one category lie 1 apart: sqrt(1/2 + 1/2)
            return np.asarray(units / np.sqrt(2))
        # z = (x - mean) / sd, and 0 where x is missing
        z = np.where(missing, 0.0, (column_to_float(column, values) - self.mean[column.name]) / self.scale[column.name])
        return np.column_stack([z, missing] if column.missing else [z])


def fit_table_encoder(train: Table) -> TableEncoder:
    """Fit the standardization of columns to the real train part.

    Numbers, dates and ranks become (x - mean) / sd; missing ones become 0, with an indicator column if the schema
    allows missing values. Categories, "missing" included, are one-hot encoded, scaled so that rows that differ in one
    category are 1 apart. IDs and free text are dropped. A column that is constant in `train` is divided by the width of
    its bounds (1 without bounds), with a warning. Raises `HoldoutError`, `InvalidArgument`, `SchemaError`.
    """
    refuse_holdout(train, "standardizing columns")
    if not isinstance(train, Table):
        raise InvalidArgument("train", type(train).__name__, "a Table, the real train part")
    if len(train) == 0:
        raise InvalidArgument("train", "Table with 0 rows", "at least one row")
    columns = _feature_columns(train.schema)
    if not columns:
        raise SchemaError("no usable columns: all are IDs or free text")
    mean, scale = {}, {}
    for column in columns:
        if column.kind != "categorical":
            mean[column.name], scale[column.name] = _mean_and_scale(column, train[column.name])
    return TableEncoder(train.schema, tuple(name for column in columns for name in _feature_names(column)), mean, scale)


def _mean_and_scale(column: Column, values: pd.Series[Any]) -> tuple[float, float]:
    present = column_to_float(column, values.dropna())
    mean = float(present.mean()) if len(present) else 0.0
    sd = float(present.std()) if len(present) else 0.0
    if len(present) and present.min() < present.max() and sd > 0:
        return mean, sd
    width = _width(column) or 1.0
    values_text = f"has one value ({present[0]:g})" if len(present) else "has no value"
    warnings.warn(
        f"column {column.name!r} {values_text} in the rows given: divided by {width:g} instead of its sd", stacklevel=3
    )
    return (float(present[0]) if len(present) else 0.0), width


def _width(column: Column) -> float:
    """Difference of the bounds of a column, in the units of `column_to_float`; 0 without bounds."""
    import pandas as pd

    if column.kind == "ordinal":
        return float(len(column.categories) - 1)
    if column.lower is None or column.upper is None:
        return 0.0
    low, high = column_to_float(column, pd.Series([column.lower, column.upper]))
    return float(high - low)


def column_to_float(column: Column, values: pd.Series[Any]) -> Array:
    """A column as float64 (N,), NaN if missing: numbers unchanged, ranks from 0, dates in days since 1970."""
    import pandas as pd

    if column.kind == "ordinal":
        codes = values.cat.codes.to_numpy().astype(np.float64)
        return np.asarray(np.where(codes < 0, np.nan, codes), dtype=np.float64)
    if column.kind == "datetime":
        days = (values.astype("datetime64[us]") - pd.Timestamp(0)) / pd.Timedelta(days=1)
        return np.asarray(days.to_numpy(dtype=np.float64))
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _feature_columns(schema: Schema) -> list[Column]:
    return [column for column in schema.columns if column.kind not in ("id", "text")]


def _feature_names(column: Column) -> list[str]:
    missing = [f"{column.name} is missing"] if column.missing else []
    own = [f"{column.name} = {c}" for c in column.categories] if column.kind == "categorical" else [column.name]
    return own + missing


def _check_same_columns(expected: Schema, given: Schema) -> None:
    """Raise `SchemaError` unless both schemas give the same features."""
    kinds = [[(c.name, c.kind, c.categories, c.missing) for c in schema.columns] for schema in (expected, given)]
    if kinds[0] != kinds[1]:
        differing = sorted({c[0] for c in set(kinds[0]) ^ set(kinds[1])}) or ["their order"]
        raise SchemaError(
            f"the table has another schema than the one the features were fitted on; they differ in: "
            f"{', '.join(differing)} (name, kind, categories, missing)"
        )


def radial_power_spectrum(images: ArrayLike) -> tuple[Array, Array]:
    """Radial power spectrum of images (N, C, H, W) or (N, H, W): frequencies (K,) in cycles per pixel, mean power (K,).

    Power is |FFT|^2 / (H W) of each channel minus its mean, averaged over images, channels and directions, in steps of
    1 / H up to 1/2. Corner frequencies (radius above 1/2) are dropped. Raises `InvalidArgument`.
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


def high_frequency_power(images: ArrayLike) -> float:
    """Total power at frequencies of at least 1/4 cycle per pixel, half the Nyquist frequency."""
    frequency, power = radial_power_spectrum(images)
    return float(power[frequency >= 0.25].sum())
