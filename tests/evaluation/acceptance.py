"""The ledger's acceptance checks of section 6, each as a function of the code it judges.

Called with the real modules every part must hold; called with a broken one at least one part must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from scipy.special import comb

from synthbook.course.claims import ClaimResult
from synthbook.evaluation import frechet, inference, novelty, prdc, two_sample, utility
from tests.collapse.acceptance import part, se
from tests.evaluation import acceptance_useful

# what a check is given, by name; a mutant takes one module's place
MODULES = {
    "frechet": frechet,
    "prdc": prdc,
    "two_sample": two_sample,
    "novelty": novelty,
    "utility": utility,
    "inference": inference,
}

# The experiments' own truths are written out here, so that a broken formula cannot agree with a broken measure.
WIDTHS = np.array([0.3, 0.45, 0.6, 0.75, 0.9, 1.0])
GRID = np.stack(np.meshgrid(*[[-4.0, -2.0, 0.0, 2.0, 4.0]] * 2), axis=-1).reshape(-1, 2)  # (25, 2)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def c6_1_1(code: SimpleNamespace) -> list[ClaimResult]:
    d2, moments = code.frechet.frechet_distance, code.frechet.frechet_from_moments
    turn, spread, other = np.linalg.qr(draws(1, 40, 40))[0], np.zeros(40), np.zeros(40)
    spread[:5], other[:6] = [4.0, 2.0, 1.0, 0.5, 0.0], [1.0, 3.0, 1.0, 0.1, 0.2, 0.3]  # both of them singular
    a, b = (turn * spread) @ turn.T, (turn * other) @ turn.T
    commuting = ((np.sqrt(spread) - np.sqrt(other)) ** 2).sum() + 40 * 0.3**2
    x, y = draws(2, 400, 6) @ draws(3, 6, 6), draws(4, 300, 6) + 0.5
    one, two = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])  # means 1 and 3, unbiased variances 2 and 8
    closed = [moments([0.0], [[4.0]], [3.0], [[1.0]]), moments(np.zeros(40), a, np.full(40, 0.3), b), d2(one, two)]
    by_hand, other_way = np.array([10.0, commuting, 4 + 2.0]), d2(y, x)
    pairs = [(draws(i, 320, 16), draws(i + 9000, 320, 16)) for i in range(60)]
    plain = np.array([d2(*pair) for pair in pairs])
    truth = 2 / 320 * 16 * 21 / 4  # (1/N + 1/M) d (d + 5) / 4
    bias = [plain.mean(), code.frechet.finite_sample_bias(np.eye(16), 320, 320)]
    spectrum = np.arange(1, 9) ** -1.0
    scale = np.sqrt(spectrum)
    uneven = np.array([d2(draws(i, 200, 8) * scale, draws(i + 9000, 400, 8) * scale) for i in range(200)])
    expected = code.frechet.finite_sample_bias(np.diag(spectrum), 200, 400)
    extrapolated = np.array([code.frechet.frechet_infinity(*pair, seed=i) for i, pair in enumerate(pairs)])
    rng = np.random.default_rng(6)
    bumps = GRID[rng.integers(25, size=(20, 2000))] + np.sqrt(0.05) * rng.standard_normal((20, 2000, 2))
    broad = np.sqrt(8.05) * draws(7, 20, 2000, 2)
    blind = np.array([d2(*pair) for pair in zip(bumps, broad, strict=True)])
    chance = 8.05 * 2 / 2000 * 2 * 7 / 4
    return [
        part("C6.1-1", "closed_form", closed, by_hand, 1e-8 * by_hand),
        part("C6.1-1", "identical", [moments(np.zeros(40), a, np.zeros(40), a), d2(x, x[::-1])], 0, 1e-8),
        part("C6.1-1", "symmetric", d2(x, y), other_way, 1e-8 * other_way),
        part("C6.1-1", "bias", bias, truth, 0.05 * truth),
        part("C6.1-1", "bias", uneven.mean(), expected, 0.05 * expected),
        part("C6.1-1", "extrapolation", 1 - abs(extrapolated.mean()) / plain.mean(), 0.8),
        part("C6.1-1", "blind", blind.mean() / chance, 2),
    ]


def double_loop(real: np.ndarray, synthetic: np.ndarray, k: int) -> list[float]:
    def radius(rows: np.ndarray, i: int) -> float:
        return sorted(float(np.sqrt(((rows[i] - rows[j]) ** 2).sum())) for j in range(len(rows)) if j != i)[k - 1]

    r, s = ([radius(rows, i) for i in range(len(rows))] for rows in (real, synthetic))
    far = [[float(np.sqrt(((y - x) ** 2).sum())) for y in synthetic] for x in real]
    n, m = len(real), len(synthetic)
    return [
        sum(any(far[i][j] < r[i] for i in range(n)) for j in range(m)) / m,
        sum(any(far[i][j] < s[j] for j in range(m)) for i in range(n)) / n,
        sum(far[i][j] < r[i] for i in range(n) for j in range(m)) / (k * m),
        sum(any(far[i][j] < r[i] for j in range(m)) for i in range(n)) / n,
    ]


def scores(code: SimpleNamespace, real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> list[float]:
    result = code.prdc.prdc(synthetic, real=real, k=k)
    return [result.precision, result.recall, result.density, result.coverage]


def perfect(code: SimpleNamespace, d: int, i: int) -> list[float]:
    real, synthetic = np.random.default_rng([d, i]).standard_normal((2, 1000, d))
    return scores(code, real, synthetic)


def c6_1_2(code: SimpleNamespace) -> list[ClaimResult]:
    dimensions = (2, 8, 32, 128)
    even = np.array([[perfect(code, d, i) for i in range(8)] for d in dimensions])  # (dimensions, draws, scores)
    uneven = np.array([scores(code, draws(i, 1000, 3), draws(i + 50, 500, 3), k) for k in (5, 3) for i in range(8)])
    uneven = uneven.reshape(2, 8, 4)  # (k, draws, scores)
    spread = [result[..., 3].std(axis=1).mean() / np.sqrt(8) for result in (even, uneven)]
    at_k = [1 - np.prod([(1000 - j) / (1500 - j) for j in range(1, k + 1)]) for k in (5, 3)]
    narrow = draws(1, 60, 3), 0.6 * draws(2, 40, 3) + 0.2
    lattice = np.random.default_rng(3).integers(0, 3, (50, 2)), np.random.default_rng(4).integers(0, 4, (45, 2))
    sets = [(*narrow, 3), (*narrow, 1), (*(rows.astype(float) for rows in lattice), 4)]
    return [
        part("C6.1-2", "density", even[..., 2].mean(axis=1), 1, 0.05),
        part("C6.1-2", "density", uneven[..., 2].mean(axis=1), 1, 0.05),
        part("C6.1-2", "coverage", even[..., 3].mean(axis=1), 0.9690, 4 * spread[0]),
        part("C6.1-2", "coverage", uneven[..., 3].mean(axis=1), at_k, 4 * spread[1]),
        part("C6.1-2", "coverage", [code.prdc.expected_coverage(1000, 500, k) for k in (5, 3)], at_k, 1e-12),
        part("C6.1-2", "precision", even[..., 0].mean(axis=1), [0.997, 0.939, 0.79, 0.68], 0.02),
        part("C6.1-2", "libraries", [scores(code, *s) for s in sets], [double_loop(*s) for s in sets], 1e-12),
    ]


def c6_1_3(code: SimpleNamespace) -> list[ClaimResult]:
    train, handful = draws(1, 1000, 4), (5, 20, 100)
    picked = {m: [np.random.default_rng(s).choice(1000, m, replace=False) for s in range(20)] for m in handful}
    # every copy is there six times, once more than k
    result = {
        m: np.array([scores(code, train, np.repeat(train[rows], 6, axis=0)) for rows in picked[m]]) for m in handful
    }
    coverage = np.stack([result[m][:, 3] for m in handful])  # (handfuls, draws)
    truth = [1 - comb(995, m) / comb(1000, m) for m in handful]
    claimed = [code.prdc.expected_coverage_of_copies(1000, m, 5) for m in handful]
    return [
        part("C6.1-3", "precision", [result[m][:, 0].min() for m in handful], 1),
        part("C6.1-3", "coverage", coverage.mean(axis=1), truth, 4 * se(coverage)),
        part("C6.1-3", "coverage", claimed, truth, 1e-9),
        part("C6.1-3", "recall", [result[m][:, 1].max() for m in handful], 0),
    ]


def c6_1_5(code: SimpleNamespace) -> list[ClaimResult]:
    real, noise = draws(1, 2000, 8), draws(2, 2000, 8)
    by_width = np.array([scores(code, real, width * noise) for width in WIDTHS])
    distances = [code.frechet.frechet_distance(real, width * noise) for width in WIDTHS]
    return [
        part("C6.1-5", "precision_falls", np.diff(by_width[:, 0]), [0, 0, 0, -0.01, -0.01]),
        part("C6.1-5", "recall_rises", np.diff(by_width[:, 1]), 0.02),
        part("C6.1-5", "best_width", WIDTHS[np.argmin(distances)], 1, 0.05),
    ]


ACCEPTANCE: dict[str, Callable[[SimpleNamespace], list[ClaimResult]]] = {
    "C6.1-1": c6_1_1,
    "C6.1-2": c6_1_2,
    "C6.1-3": c6_1_3,
    "C6.1-5": c6_1_5,
} | acceptance_useful.CHECKS
