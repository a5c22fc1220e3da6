"""Experiments on privacy: utility against the budget and leaks of overfitted networks, in all five seeds."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from synthbook.core.errors import InvalidArgument
from synthbook.core.table import Table
from synthbook.datasets import adult
from synthbook.experiments import read_results
from synthbook.experiments.privacy import (
    DP_TVAE,
    EPSILONS,
    INDEPENDENT,
    MST_TARGET,
    N_MEMBERS,
    NETS,
    NON_PRIVATE,
    build_generator,
    logit_confidence,
    mean_interval,
    overfitting_trial,
    plot_tradeoff,
    private_trial,
    sample_members,
    score_adult,
    train_net,
)
from synthbook.experiments.tables import FRESH_ROWS
from synthbook.privacy.generators.dp_tvae import DpTvae
from synthbook.privacy.generators.mst import Mst

SEEDS = range(5)


@pytest.fixture(scope="module")
def private() -> pd.DataFrame:
    return read_results("private")


def auc_of(trials: pd.DataFrame, method: str, epsilon: float) -> np.ndarray:
    mine = trials[trials.case == f"{method}, epsilon {epsilon:g}"].sort_values("seed")
    assert list(mine.seed) == list(SEEDS)
    return mine["auc"].to_numpy()


def test_counts_at_epsilon_1_teach_within_003_of_every_generator_without_privacy(private: pd.DataFrame) -> None:
    ours = auc_of(private, MST_TARGET, 1.0)
    for name in NON_PRIVATE:
        assert ours.mean() > private.loc[private.case == name, "auc"].mean() - 0.03
    best = read_results("boosted-full")["auc"].median()
    smaller = read_results("tables").groupby("case")["auc"].median()
    assert np.median(ours) > best - 0.03 and np.median(ours) > smaller.drop(FRESH_ROWS).max() - 0.03


def test_no_budget_at_all_beats_the_tightest_in_all_seeds(private: pd.DataFrame) -> None:
    for method in (DP_TVAE, MST_TARGET):
        assert (auc_of(private, method, math.inf) > auc_of(private, method, 0.5)).all()


def test_margins_alone_teach_nothing_at_any_budget(private: pd.DataFrame) -> None:
    for epsilon in EPSILONS:
        assert abs(auc_of(private, INDEPENDENT, epsilon).mean() - 0.5) < 0.1


def test_no_release_is_nearer_to_its_training_rows_than_chance_explains(private: pd.DataFrame) -> None:
    mine = private[private.case.str.contains("epsilon")]
    assert (mine["share"] <= mine["share high"]).mean() > 0.98


def test_intervals_are_those_of_student(private: pd.DataFrame) -> None:
    made = pd.DataFrame({"case": ["a"] * 5, "auc": [1.0, 2.0, 3.0, 4.0, 5.0]})
    mean, reach = mean_interval(made, "a", "auc")
    assert mean == 3.0 and abs(reach - 2.7764 * math.sqrt(2.5 / 5)) < 1e-3
    ax = plot_tradeoff(private)
    assert "budget" in ax.get_xlabel() and len(ax.get_legend_handles_labels()[1]) == 7
    plt.close(ax.figure)


def test_cases_name_their_generators() -> None:
    assert isinstance(build_generator("tree with income, epsilon 4"), Mst)
    network = build_generator("DP-TVAE, epsilon inf")
    assert isinstance(network, DpTvae) and network.config.epsilon == math.inf
    for wrong in ("tree, epsilon 3", "forest, epsilon 1", ""):
        with pytest.raises(InvalidArgument, match="case"):
            build_generator(wrong)


@pytest.mark.slow
def test_a_trial_of_a_private_generator_is_the_shipped_one(private: pd.DataFrame) -> None:
    found = private_trial("tree with income, epsilon 1", seed=0)
    shipped = private[(private.case == found["case"]) & (private.seed == 0)].iloc[0]
    assert abs(found["auc"] - shipped["auc"]) < 0.005 and abs(found["marginals"] - shipped["marginals"]) < 0.005


def test_leaks_follow_overfitting_in_all_seeds() -> None:
    trials = read_results("overfitting").set_index(["case", "seed"])
    for seed in SEEDS:
        mine = trials.xs(seed, level="seed").loc[list(NETS)]
        assert spearmanr(mine["gap"], mine["auc"]).statistic >= 0.8
        assert mine["auc"].iloc[0] <= 0.56 and mine["auc"].iloc[-1] >= 0.7
        assert mine["apart"].iloc[0] >= mine["typical"].iloc[0]
        assert mine["shadow auc"].iloc[0] > mine["auc"].iloc[0]


@pytest.mark.slow
def test_a_trial_of_a_network_repeats_itself_and_members_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (overfitting_trial("middling", seed=3) for _ in range(2))
    assert one == two and one["gap"] > 0.1
    rows, member = sample_members(3)
    assert rows.shape[0] == 2 * N_MEMBERS and member.sum() == N_MEMBERS
    with pytest.raises(InvalidArgument, match="case"):
        overfitting_trial("enormous", seed=0)


@pytest.mark.slow
def test_labels_at_random_leave_nothing_but_memory() -> None:
    """An oracle: with shuffled labels all that a network can do on members beyond chance is to know them by heart."""
    rows, member = sample_members(4)
    rows = rows.copy()
    rows[:, -1] = np.random.default_rng(0).permutation(rows[:, -1])
    model = train_net(NETS["large"], rows[member], 0)
    scores = logit_confidence(rows, model)
    assert scores[member].mean() > scores[~member].mean() + 1


@pytest.mark.slow
def test_the_confidence_of_a_class_that_was_never_seen_is_the_lowest() -> None:
    rows, member = sample_members(5)
    seen = rows[member]
    model = train_net(NETS["held back"], seen[seen[:, -1] != seen[0, -1]], 0)
    scores = logit_confidence(seen, model)
    assert (scores[seen[:, -1] == seen[0, -1]] < -20).all()


@pytest.mark.slow
def test_score_reads_off_a_copy_what_it_is() -> None:
    train = adult().train
    copy = Table(train.frame.reset_index(drop=True), train.schema)
    found = score_adult(Table(copy.frame.iloc[:6_000], copy.schema), seed=0)
    assert found["marginals"] < 0.02 and found["share"] > found["share high"] and found["her country"] == 0
