"""What makes a private generator of tables fit for release."""

from __future__ import annotations

from synthbook.core.table import Holdout, Table
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit
from synthbook.privacy.generators.base import PrivateTableGenerator


def audit_generator(
    model: PrivateTableGenerator, train: Table, holdout: Holdout[Table], *, seed: int = 0
) -> ReleaseAudit:
    """Attack as many rows of a fitted model as it learned from, and write what was proved into its `guarantee_`.

    Raises `ReleaseRefused` where more is proved than was promised.
    """
    drawn = model.sample(len(train), seed=seed)
    terms = model.guarantee_
    found = audit(drawn, train=train, holdout=holdout, delta=terms.delta, claimed_epsilon=terms.epsilon, seed=seed)
    model.guarantee_ = terms.with_audit(found.epsilon_lower_bound)
    return found
