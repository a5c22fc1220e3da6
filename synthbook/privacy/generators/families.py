"""The private generators of tables by name, and what makes one of them fit for release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from synthbook.core import checkpoints
from synthbook.core.errors import DataError
from synthbook.core.table import Holdout, Table
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit_release
from synthbook.privacy.generators.base import PrivateTableGenerator
from synthbook.privacy.generators.dp_tvae import DpTvae
from synthbook.privacy.generators.dp_vae import DpVae
from synthbook.privacy.generators.mst import IndependentMarginals, Mst

PRIVATE: Mapping[str, type[PrivateTableGenerator]] = {
    family.family: family for family in (IndependentMarginals, Mst, DpTvae)
}


def is_private(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of one of these."""
    return (Path(folder) / checkpoints.CONFIG_NAME).exists() and checkpoints.read_model_type(folder) in PRIVATE


def is_private_vae(folder: Path) -> bool:
    """Whether a folder holds a private generator of images."""
    return (Path(folder) / checkpoints.CONFIG_NAME).exists() and checkpoints.read_model_type(folder) == DpVae.family


def load(folder: Path) -> PrivateTableGenerator:
    """The generator in a folder. Raises `DataError` for anything else."""
    kind = checkpoints.read_model_type(folder)
    if kind not in PRIVATE:
        raise DataError(f"{folder} holds a {kind!r}, not a private generator of tables ({', '.join(PRIVATE)})")
    return PRIVATE[kind].load(folder)


def audit_generator(
    model: PrivateTableGenerator, train: Table, holdout: Holdout[Table], *, seed: int = 0
) -> ReleaseAudit:
    """Attack as many rows of a fitted model as it learned from, and write what was proved into its `guarantee_`.

    Raises `ReleaseRefused` where more is proved than was promised.
    """
    drawn = model.sample(len(train), seed=seed)
    terms = model.guarantee_
    found = audit_release(drawn, train, holdout, delta=terms.delta, claimed_epsilon=terms.epsilon, seed=seed)
    model.guarantee_ = terms.with_audit(found.epsilon)
    return found
