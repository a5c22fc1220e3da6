"""The smallest private generator, and the best attack on it: against closed forms, and against broken copies."""

import math

import numpy as np
import pytest
from scipy import stats

from synthbook.core.errors import InvalidArgument
from synthbook.privacy import mechanisms
from synthbook.privacy.attacks.membership import attack_histogram, dp_accuracy_bound
from synthbook.privacy.mechanisms import laplace_histogram, laplace_mechanism, multinomial_counts

OTHERS = np.full(32, 30.0)
OTHERS[7] = 0
TRIALS = 4_000


def best(epsilon: float) -> float:
    """Accuracy of the best attack on a count with Laplace noise: 1 - e^(-epsilon / 2) / 2."""
    return 1 - math.exp(-epsilon / 2) / 2


def test_the_total_noise_of_a_histogram_is_cells_over_epsilon() -> None:
    rng = np.random.default_rng(0)
    for epsilon in (0.1, 1.0, 10.0):
        total = np.abs(laplace_mechanism(np.zeros((TRIALS, 32)), epsilon, rng)).sum(axis=1)
        assert abs(total.mean() - 32 / epsilon) < 4 * total.std() / math.sqrt(TRIALS)


def test_clipping_at_zero_worsens_no_cell() -> None:
    truth = np.random.default_rng(1).poisson(1.0, (500, 32)).astype(float)
    raw = laplace_mechanism(truth, 0.5, np.random.default_rng(2))
    clipped = laplace_histogram(truth, 0.5, np.random.default_rng(2))
    assert (clipped == np.maximum(raw, 0)).all() and (clipped != raw).any()
    assert (np.abs(clipped - truth) <= np.abs(raw - truth)).all()


def test_drawn_rows_have_the_shares_of_the_counts() -> None:
    counts = np.array([5.0, 0.0, 15.0])
    drawn = multinomial_counts(counts, 100_000, np.random.default_rng(3))
    assert drawn.sum() == 100_000 and drawn[1] == 0
    assert abs(drawn[0] / 1e5 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1e5)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_attack_on_the_worst_case_is_the_best_there_is_and_stays_below_the_bound(epsilon: float) -> None:
    found = attack_histogram(epsilon, 10_000_000, counts_without_victim=OTHERS, victim_cell=7, n_trials=TRIALS, seed=4)
    se = math.sqrt(0.25 / (2 * TRIALS))
    assert abs(found.accuracy - best(epsilon)) < 4 * se
    assert found.accuracy < dp_accuracy_bound(epsilon)


def test_more_rows_tell_more_of_the_counts_and_no_more_than_the_counts() -> None:
    sizes = (100, 10_000, 1_000_000, 100_000_000)
    found = [
        attack_histogram(1.0, m, counts_without_victim=OTHERS, victim_cell=7, n_trials=TRIALS, seed=5).accuracy
        for m in sizes
    ]
    se = math.sqrt(0.25 / (2 * TRIALS))
    assert found[0] < found[1] and abs(found[3] - found[2]) < 4 * se * math.sqrt(2)
    assert max(found) < dp_accuracy_bound(1.0)


def test_without_noise_the_victim_is_found_and_that_exceeds_the_bound() -> None:
    found = attack_histogram(np.inf, 1_000_000, counts_without_victim=OTHERS, victim_cell=7, n_trials=200, seed=6)
    assert found.accuracy == 1.0 > dp_accuracy_bound(1.0)


def test_half_the_noise_is_caught_by_the_attack_on_the_worst_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: noise for twice the budget under the name of epsilon = 1 puts the attack above what 1 allows it."""
    monkeypatch.setattr(
        mechanisms, "laplace_mechanism", lambda counts, epsilon, rng: laplace_mechanism(counts, 2 * epsilon, rng)
    )
    found = attack_histogram(1.0, 10_000_000, counts_without_victim=OTHERS, victim_cell=7, n_trials=TRIALS, seed=7)
    assert stats.binom.sf(found.n_correct - 1, 2 * found.n_trials, dp_accuracy_bound(1.0)) < 1e-6


def test_an_attacker_who_knows_the_others_less_well_finds_less() -> None:
    crowd = np.full(32, 30.0)
    known = attack_histogram(1.0, 10**6, counts_without_victim=OTHERS, victim_cell=7, n_trials=TRIALS, seed=8).accuracy
    unknown = attack_histogram(
        1.0, 10**6, counts_without_victim=crowd, victim_cell=7, n_trials=TRIALS, seed=8, worst_case=False
    ).accuracy
    assert 0.45 < unknown < known - 0.1


def test_what_makes_no_sense_is_refused() -> None:
    for rows, trials, victim in ((0, 1, 0), (1, 0, 0), (1, 1, 32), (1, 1, -1)):
        with pytest.raises(InvalidArgument, match="n_rows, n_trials, victim_cell"):
            attack_histogram(1.0, rows, counts_without_victim=OTHERS, victim_cell=victim, n_trials=trials, seed=0)
    with pytest.raises(InvalidArgument, match="epsilon"):
        attack_histogram(0.0, 1, counts_without_victim=OTHERS, victim_cell=0, n_trials=1, seed=0)
