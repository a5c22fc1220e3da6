"""The linear VAE solved with pencil and paper: probabilistic PCA (Tipping and Bishop 1999).

x = W z + mu + noise, z ~ N(0, I_q), noise ~ N(0, sigma^2 I_d). With lambda_1 >= ... >= lambda_d the eigenvalues of the
data's covariance, the likelihood is greatest at

    sigma^2 = mean(lambda_{q+1}, ..., lambda_d),   W W^T = U_q (Lambda_q - sigma^2 I) U_q^T

and there a linear encoder makes the bound exact: the ELBO equals the log-likelihood (Dai et al., arXiv:1706.05148).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthbook.core.errors import InvalidArgument

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PPCA:
    """The best linear model with `q` latents for a covariance with `eigenvalues` (d,), falling."""

    eigenvalues: Array
    q: int

    def __post_init__(self) -> None:
        values = np.asarray(self.eigenvalues, dtype=float)
        if values.ndim != 1 or not (values > 0).all() or (np.diff(values) > 0).any():
            raise InvalidArgument("eigenvalues", self.eigenvalues, "falling variances (d,), all above 0")
        if not 0 <= self.q < len(values):
            raise InvalidArgument("q", self.q, f"a number of latents from 0 to {len(values) - 1}")

    @property
    def noise(self) -> float:
        """sigma^2, the mean of the eigenvalues that are left out."""
        return float(np.mean(self.eigenvalues[self.q :]))

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood of a row, in nats: -1/2 [d ln 2 pi + sum_{i<=q} ln lambda_i + (d - q) ln sigma^2 + d]."""
        d, kept = len(self.eigenvalues), np.asarray(self.eigenvalues[: self.q])
        return float(-0.5 * (d * np.log(2 * np.pi) + np.log(kept).sum() + (d - self.q) * np.log(self.noise) + d))

    @property
    def variance_kept(self) -> float:
        """Share of the variance in samples that are decoder means, without the decoder's noise."""
        return float(np.sum(self.eigenvalues[: self.q] - self.noise) / np.sum(self.eigenvalues))


def active_latents(eigenvalues: ArrayLike, noise: float, beta: float) -> int:
    """How many directions pay for their code, with a fixed noise variance: those with lambda_i > beta sigma^2."""
    return int((np.asarray(eigenvalues, dtype=float) > beta * noise).sum())
