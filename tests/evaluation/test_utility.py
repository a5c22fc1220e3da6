"""Scores against scikit-learn's, who may learn from what, and what happens when classes are missing."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.table import Column, Constraint, Holdout, Schema, Table
from synthbook.evaluation import utility as module
from synthbook.evaluation.utility import (
    METRICS,
    TRTR_SIZE_MATCHED,
    bootstrap_weights,
    default_models,
    exceeds_bayes_accuracy,
    utility,
    weighted_metrics,
)
from tests.evaluation.acceptance_useful import by_hand, noisy

FAST = {"logistic": LogisticRegression(), "1-NN": KNeighborsClassifier(1)}
BAYES = {"naive Bayes": GaussianNB()}
THREE = ("low", "middle", "high")


def graded(seed: int, n: int = 300, classes: tuple[str, ...] = THREE) -> Table:
    """Three classes along x, a category that helps a little, and a rule that names the target."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    y = np.array(THREE)[np.digitize(x + 0.5 * rng.standard_normal(n), [-0.7, 0.7])]
    frame = pd.DataFrame({"x": x, "sure": np.where(np.abs(x) > 1, "yes", "no"), "y": y})
    columns = (
        Column("x", "numeric", lower=-50, upper=50),
        Column("sure", "categorical", categories=("no", "yes")),
        Column("y", "ordinal", categories=THREE, missing=True),
    )
    pairs = tuple((a, b) for a in ("no", "yes") for b in THREE)
    schema = Schema(columns, "public", rules=(Constraint("pairs", ("sure", "y"), pairs),))
    return Table(frame[frame.y.isin(classes)], schema)


def of(result: pd.DataFrame, protocol: str, model: str) -> pd.Series:
    return result.set_index(["protocol", "model"]).loc[(protocol, model)]


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def some_probabilities(seed: int, n: int, classes: int, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, steps, (n, classes)).astype(float)  # with many ties
    return rng.permutation(np.arange(n) % classes), raw / raw.sum(axis=1, keepdims=True)


def test_two_classes_score_as_scikit_learn_says():
    y, p = some_probabilities(1, 200, 2)
    result = {name: value[0] for name, value in weighted_metrics(y, p, np.ones((1, 200))).items()}
    assert tuple(result) == METRICS
    assert result["auc"] == pytest.approx(roc_auc_score(y, p[:, 1]))
    assert result["brier"] == pytest.approx(brier_score_loss(y, p[:, 1]))
    assert result["f1"] == pytest.approx(f1_score(y, p.argmax(axis=1)))
    assert result["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(axis=1)))


def test_more_classes_score_as_means_over_classes():
    y, p = some_probabilities(2, 200, 4)
    result = {name: value[0] for name, value in weighted_metrics(y, p, np.ones((1, 200))).items()}
    assert result["auc"] == pytest.approx(roc_auc_score(y, p, multi_class="ovr"))
    assert result["f1"] == pytest.approx(f1_score(y, p.argmax(axis=1), average="macro"))
    assert result["brier"] == pytest.approx(((p - np.eye(4)[y]) ** 2).sum() / 2 / 200)


def test_a_replicate_is_the_score_of_the_rows_drawn():
    y, p = some_probabilities(3, 60, 2)
    weights = bootstrap_weights(y, 20, seed=1)
    assert weights.shape == (21, 60) and (weights[0] == 1).all()
    for label in (0, 1):
        assert (weights[:, y == label].sum(axis=1) == (y == label).sum()).all()
    result = weighted_metrics(y, p, weights)
    for replicate in (1, 7, 20):
        rows = np.repeat(np.arange(60), weights[replicate].astype(int))
        assert result["auc"][replicate] == pytest.approx(roc_auc_score(y[rows], p[rows, 1]))
        assert result["f1"][replicate] == pytest.approx(f1_score(y[rows], p[rows].argmax(axis=1)))
        assert result["brier"][replicate] == pytest.approx(brier_score_loss(y[rows], p[rows, 1]))


def test_rows_are_drawn_evenly():
    weights = bootstrap_weights(np.zeros(50, int), 4000, seed=2)[1:]
    assert abs(weights.mean(axis=0) - 1).max() < 0.1
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.03)


def test_a_single_class_has_no_auc():
    result = weighted_metrics(np.ones(5, int), np.full((5, 2), 0.5), np.ones((1, 5)))
    assert np.isnan(result["auc"][0]) and result["accuracy"][0] == 0


# ── utility ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_protocol_learns_and_is_judged_where_it_says():
    rng = np.random.default_rng(1)
    train, generated, test = noisy(400, rng), noisy(150, rng), noisy(250, rng)
    result = utility(generated, train=train, holdout=Holdout(test), target="y", seed=0, models=FAST)
    assert list(result.protocol.unique()) == ["TRTR", "TSTR", "TRTS", TRTR_SIZE_MATCHED]
    for protocol, learned, judged in (("TRTR", train, test), ("TSTR", generated, test), ("TRTS", train, generated)):
        row = of(result, protocol, "1-NN")
        assert (row.n_train, row.n_test) == (len(learned), len(judged))
        assert row.accuracy == pytest.approx(by_hand(learned, judged, KNeighborsClassifier(1)), abs=1e-12)
    assert of(result, TRTR_SIZE_MATCHED, "1-NN").n_train == 150
    for score in METRICS:
        assert (result[f"{score}_low"] <= result[score]).all() and (result[score] <= result[f"{score}_high"]).all()


def test_no_smaller_trial_where_there_are_as_many_synthetic_rows():
    rng = np.random.default_rng(1)
    result = utility(
        noisy(100, rng), train=noisy(100, rng), holdout=Holdout(noisy(100, rng)), target="y", seed=0, models=BAYES
    )
    assert set(result.protocol) == {"TRTR", "TSTR", "TRTS"}


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    train = noisy(300, rng)
    truth = by_hand(train, noisy(100_000, rng), GaussianNB())
    result = [
        of(
            utility(train, train=train, holdout=Holdout(noisy(200, rng)), target="y", seed=i, models=BAYES),
            "TRTR",
            "naive Bayes",
        )
        for i in range(60)
    ]
    held = np.mean([row.accuracy_low <= truth <= row.accuracy_high for row in result])
    assert 0.84 <= held <= 1


def test_models_and_encoders_never_meet_the_test_rows():
    rng = np.random.default_rng(3)
    train, generated, test = noisy(60, rng), noisy(60, rng), noisy(60, rng)
    with mock.patch.object(module, "fit_table_encoder", wraps=module.fit_table_encoder) as encoder:
        utility(generated, train=train, holdout=Holdout(test), target="y", seed=0, models=BAYES)
    seen = [call.args[0].frame for call in encoder.call_args_list]
    assert len(seen) == 3
    for frame, learned in zip(seen, (train, generated, train), strict=True):
        pd.testing.assert_frame_equal(frame, learned.frame.drop(columns="y"))  # nor the target


def test_a_far_test_row_changes_no_other_prediction():
    rng = np.random.default_rng(4)
    train, test = noisy(100, rng), noisy(100, rng)
    far = test.frame.assign(x0=np.where(np.arange(100) == 0, 99.0, test["x0"]))
    result = [
        utility(train, train=train, holdout=Holdout(t), target="y", seed=0, models=FAST)
        for t in (test, Table(far, test.schema))
    ]
    gap = of(result[0], "TSTR", "1-NN").accuracy - of(result[1], "TSTR", "1-NN").accuracy
    assert abs(gap) <= 1 / 100 + 1e-12


def test_a_holdout_is_demanded_for_testing_and_refused_for_training():
    table = noisy(50, np.random.default_rng(5))
    with pytest.raises(InvalidArgument, match=r"holdout = 'Table'.*a Holdout"):
        utility(table, train=table, holdout=table, target="y", seed=0)
    for train, generated in ((Holdout(table), table), (table, Holdout(table))):
        with pytest.raises(HoldoutError, match="kept for testing"):
            utility(generated, train=train, holdout=Holdout(table), target="y", seed=0)


def test_real_and_synthetic_are_not_the_same_thing():
    rng = np.random.default_rng(6)
    good, test = noisy(300, rng, best=1.0), noisy(300, rng, best=1.0)
    wrong = Table(good.frame.assign(y=np.where(good["y"] == "yes", "no", "yes")), good.schema)
    assert (
        of(utility(wrong, train=good, holdout=Holdout(test), target="y", seed=0, models=FAST), "TSTR", "logistic").auc
        < 0.1
    )
    assert (
        of(utility(good, train=wrong, holdout=Holdout(test), target="y", seed=0, models=FAST), "TSTR", "logistic").auc
        > 0.9
    )


def test_several_classes_and_rules_on_the_target():
    result = utility(graded(2, 200), train=graded(1), holdout=Holdout(graded(3)), target="y", seed=0, models=FAST)
    row = of(result, "TSTR", "logistic")
    assert 0.8 < row.auc < 1 and 0.6 < row.f1 < 1 and 0 < row.brier < 0.3


def test_a_class_that_synthetic_rows_lack_gets_probability_0_and_a_warning():
    with pytest.warns(UserWarning, match="TSTR: y = high is absent from training and gets probability 0"):
        result = utility(
            graded(2, classes=("low", "middle")),
            train=graded(1),
            holdout=Holdout(graded(3)),
            target="y",
            seed=0,
            models=FAST,
        )
    assert of(result, "TSTR", "logistic").f1 < of(result, "TRTR", "logistic").f1 - 0.1
    assert np.isfinite(result[list(METRICS)].to_numpy(dtype=float)).all()


def test_synthetic_rows_of_a_single_class_teach_to_say_always_the_same():
    rng = np.random.default_rng(7)
    train, test = noisy(200, rng), noisy(200, rng)
    flat = Table(train.frame.assign(y="yes"), train.schema)
    with (
        pytest.warns(UserWarning, match="TSTR: y = no is absent from training"),
        pytest.warns(UserWarning, match="TRTS: all test rows have the same y; AUC is NaN"),
    ):
        result = utility(flat, train=train, holdout=Holdout(test), target="y", seed=0, models=FAST)
    row = of(result, "TSTR", "logistic")
    assert row.auc == 0.5 and row.accuracy == pytest.approx((test["y"] == "yes").mean())
    assert np.isnan(of(result, "TRTS", "logistic").auc)  # one class cannot be ranked


def test_rows_without_a_label_are_left_out_with_a_warning():
    real = graded(1)
    some = Table(real.frame.assign(y=real["y"].where(np.arange(len(real)) % 3 > 0)), real.schema)
    with pytest.warns(UserWarning, match="train: 100 rows without 'y' are dropped"):
        result = utility(graded(2), train=some, holdout=Holdout(graded(3)), target="y", seed=0, models=BAYES)
    assert of(result, "TRTR", "naive Bayes").n_train == 200
    none = Table(real.frame.assign(y=None), real.schema)
    with pytest.raises(InvalidArgument, match=r"synthetic = .*without a single 'y'"):
        utility(none, train=real, holdout=Holdout(real), target="y", seed=0, models=BAYES)


def test_large_tables_are_cut_the_same_way_and_the_seed_decides():
    rng = np.random.default_rng(8)
    train, test = noisy(300, rng), Holdout(noisy(100, rng))
    result = utility(train, train=train, holdout=test, target="y", seed=3, models=FAST, max_rows=120)
    assert set(result.n_train) == {120}
    same = utility(
        train, train=train, holdout=test, target="y", seed=np.random.SeedSequence(3), models=FAST, max_rows=120
    )
    pd.testing.assert_frame_equal(result, same)
    for model in FAST:
        copy, real = (of(result, protocol, model)[list(METRICS)] for protocol in ("TSTR", "TRTR"))
        pd.testing.assert_series_equal(copy, real, check_names=False)
    assert not result.equals(utility(train, train=train, holdout=test, target="y", seed=4, models=FAST, max_rows=120))


@pytest.mark.slow
def test_the_four_default_models_run_and_repeat_themselves():
    assert list(default_models()) == ["logistic regression", "random forest", "gradient boosting", "1-NN"]
    rng = np.random.default_rng(9)
    train, generated, test = noisy(120, rng), noisy(120, rng), Holdout(noisy(80, rng))
    result = utility(generated, train=train, holdout=test, target="y", seed=0)
    assert len(result) == 12
    pd.testing.assert_frame_equal(result, utility(generated, train=train, holdout=test, target="y", seed=0))


def test_impossible_scores_are_flagged_and_honest_ones_are_not():
    rng = np.random.default_rng(10)
    train, test = noisy(500, rng), noisy(500, rng)
    honest = utility(train, train=train, holdout=Holdout(test), target="y", seed=0, models=FAST, bayes_accuracy=0.8)
    assert not honest[honest.protocol != "TRTS"].exceeds_bayes.any()
    leaked = utility(test, train=train, holdout=Holdout(test), target="y", seed=0, models=FAST, bayes_accuracy=0.8)
    assert of(leaked, "TSTR", "1-NN").exceeds_bayes
    assert "exceeds_bayes" not in utility(train, train=train, holdout=Holdout(test), target="y", seed=0, models=BAYES)
    for bad in ({"score": 1.2, "se": 0.1, "bayes_accuracy": 0.8}, {"score": 0.5, "se": np.nan, "bayes_accuracy": 0.8}):
        with pytest.raises(InvalidArgument):
            exceeds_bayes_accuracy(**bad)


def test_what_cannot_be_predicted_is_refused():
    table = graded(1)
    test = Holdout(table)
    for target, says in (("x", "numeric: the target must be"), ("nobody", "not in the schema")):
        with pytest.raises(SchemaError, match=says):
            utility(table, train=table, holdout=test, target=target, seed=0)
    alone = Table(table.frame[["sure"]], Schema((table.schema["sure"],), "public"))
    with pytest.raises(SchemaError, match="no column is left"):
        utility(alone, train=alone, holdout=Holdout(alone), target="sure", seed=0)
    single = Column("sure", "categorical", categories=("no",))
    flat = Table(pd.DataFrame({"sure": ["no"], "x": [1.0]}), Schema((single, table.schema["x"]), "public"))
    with pytest.raises(SchemaError, match="single category"):
        utility(flat, train=flat, holdout=Holdout(flat), target="sure", seed=0)
    with pytest.raises(InvalidArgument, match="without rows"):
        utility(Table(table.frame.iloc[:0], table.schema), train=table, holdout=test, target="y", seed=0)
    with pytest.raises(SchemaError, match="has the columns"):
        utility(flat, train=table, holdout=test, target="y", seed=0)
    for wrong in ({"max_rows": 1}, {"models": {}}, {"bayes_accuracy": 1.5}):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            utility(table, train=table, holdout=test, target="y", seed=0, **wrong)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_small_odd_tables_have_scores_in_bounds_or_nan(data):
    row = st.tuples(st.floats(-50, 50), st.sampled_from(["no", "yes"]), st.sampled_from(THREE))
    tables = [
        Table(
            pd.DataFrame(data.draw(st.lists(row, min_size=1, max_size=8)), columns=["x", "sure", "y"]), graded(1).schema
        )
        for _ in range(3)
    ]
    result = utility(tables[1], train=tables[0], holdout=Holdout(tables[2]), target="y", seed=0, models=FAST)
    values = result[list(METRICS)].to_numpy(dtype=float)
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert np.isfinite(result[["f1", "brier", "accuracy"]].to_numpy(dtype=float)).all()
