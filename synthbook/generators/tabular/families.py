"""The generators of tables by name, and their rows as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from synthbook.core import checkpoints
from synthbook.core.errors import DataError
from synthbook.core.storage import Provenance, write_with_provenance
from synthbook.core.types import Seed
from synthbook.generators.tabular.base import TableGenerator
from synthbook.generators.tabular.copula import Bootstrap, Copula, Marginals
from synthbook.generators.tabular.ctgan import Ctgan
from synthbook.generators.tabular.diffusion import TableDiffusion
from synthbook.generators.tabular.trees import Boosted, Cart
from synthbook.generators.tabular.tvae import Tvae

FAMILIES: Mapping[str, type[TableGenerator]] = {
    "marginals": Marginals,
    "copula": Copula,
    "bootstrap": Bootstrap,
    "cart": Cart,
    "boosted": Boosted,
    "tvae": Tvae,
    "ctgan": Ctgan,
    "diffusion": TableDiffusion,
}


def is_table_model(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of one of these."""
    there = (Path(folder) / checkpoints.CONFIG_NAME).exists()
    return there and checkpoints.read_model_type(folder) in {family.family for family in FAMILIES.values()}


def load(folder: Path) -> TableGenerator:
    """The generator in a folder. Raises `DataError` for anything else."""
    kind = checkpoints.read_model_type(folder)
    for family in FAMILIES.values():
        if family.family == kind:
            return family.load(folder)
    raise DataError(f"{folder} holds a {kind!r}, not a generator of tables ({', '.join(FAMILIES)})")


def write_rows(
    model: TableGenerator,
    n: int,
    path: Path,
    provenance: Provenance,
    *,
    seed: Seed,
    where: Mapping[str, Any] | None = None,
    callback: Callable[[int, int], None] = lambda done, n: None,
) -> Path:
    """`n` rows as CSV with a sidecar, written in pieces: memory does not grow with `n`. `callback(rows so far, n)`."""
    frames = model.stream(n, seed=seed, where=where)  # bad arguments are refused here

    def pieces() -> Iterator[str]:
        done = 0
        for frame in frames:
            yield frame.to_csv(index=False, header=done == 0, lineterminator="\n")
            done += len(frame)
            callback(done, n)

    return write_with_provenance(path, pieces(), provenance)
