"""Who passes and who fails which question; what is refused; the page and the command."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from synthbook.cli.main import main
from synthbook.core.errors import HoldoutError, InvalidArgument, SchemaError
from synthbook.core.storage import read_provenance
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.datasets import adult
from synthbook.evaluation import report as module
from synthbook.evaluation.fidelity import dependence, marginal_distances
from synthbook.evaluation.novelty import novelty
from synthbook.evaluation.prdc import prdc
from synthbook.evaluation.report import MAX_BANDS, Report, ReportError, evaluate, plot_metrics
from synthbook.evaluation.two_sample import classifier_two_sample_test, pmse
from synthbook.evaluation.utility import utility
from tests.mutation import mutant
from tests.pages import Page

COLUMNS = (
    Column("x", "numeric", lower=-50, upper=50),
    Column("y", "numeric", lower=-50, upper=50, missing=True),
    Column("group", "categorical", categories=("a", "b", "rare")),
    Column("label", "categorical", categories=("no", "yes")),
)
SCHEMA = Schema(COLUMNS, "public")


def truth(seed: int, n: int = 600) -> pd.DataFrame:
    """Two numbers that go together, holes in one, a group that moves both, a label that follows."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "rare"], n, p=[0.6, 0.38, 0.02])
    x = rng.standard_normal(n) + 2 * (group == "b")
    y = np.where(rng.random(n) < 0.1, np.nan, x + 0.5 * rng.standard_normal(n))
    label = np.where(x + 0.7 * rng.standard_normal(n) > 1, "yes", "no")
    return pd.DataFrame({"x": x, "y": y, "group": group, "label": label})


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    return pd.DataFrame({name: rng.permutation(frame[name]) for name in frame})


def collapsed(frame: pd.DataFrame, n: int = 600) -> pd.DataFrame:
    """Near one point, never twice the same."""
    rng = np.random.default_rng(8)
    one = frame[frame["group"] == "b"].iloc[[0] * n].reset_index(drop=True)
    return one.assign(x=one["x"] + 0.01 * rng.standard_normal(n), y=1 + 0.01 * rng.standard_normal(n))


REAL, HELD = truth(1), truth(2, 1200)
GENERATORS = {
    "fresh": truth(3),
    "copy": REAL.sample(frac=1, random_state=0),
    "shuffled": shuffled(REAL),
    "collapsed": collapsed(REAL),
    "handful": REAL.head(12).sample(600, replace=True, random_state=0),
    "fresh, other sizes": truth(4, 200),
}


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return {
        name: evaluate(generated, train=REAL, holdout=Holdout(HELD), schema=SCHEMA, target="label", seed=0)
        for name, generated in GENERATORS.items()
    }


def failed(report: Report, question: str) -> set[str]:
    return {line.metric for line in report.results if line.question == question and not line.passed}


@pytest.mark.slow
def test_fresh_rows_pass_all_four_questions_whatever_the_seed(reports: dict[str, Report]) -> None:
    for name in ("fresh", "fresh, other sizes"):
        assert set(reports[name].answers.values()) == {True}
    for seed in range(5):  # other rows, other divisions
        fresh = evaluate(
            truth(30 + seed), train=truth(10 + seed), holdout=Holdout(truth(20 + seed, 900)), schema=SCHEMA, seed=seed
        )
        assert fresh.answers == {"real": True, "varied": True, "useful": None, "new": True}
        assert fresh.verdict.startswith("real, varied, new: as fresh real rows are")


def test_a_copier_fails_nothing_but_novelty(reports: dict[str, Report]) -> None:
    copy = reports["copy"]
    assert copy.answers == {"real": True, "varied": True, "useful": True, "new": False}
    assert failed(copy, "new") == {"share nearer to training", "exact copies", "membership AUC"}
    assert copy.verdict.startswith("not new (share nearer to training: copies its training rows)")


def test_exact_copies_are_held_against_their_own_chance_and_far_marks_say_how_far(reports: dict[str, Report]) -> None:
    (line,) = (line for line in reports["copy"].results if line.metric == "exact copies")
    assert line.value == 600 and abs(line.reference / 300 - 1) < 0.05 and 0 < line.low < line.reference < line.high
    bands = (line.value - line.reference) / (line.high - line.reference)
    assert bands > MAX_BANDS
    ax = plot_metrics((line, dataclasses.replace(line, value=line.reference)))
    assert [text.get_text() for text in ax.texts] == [f"{bands:.0f} →"]  # the other mark lies where it is drawn
    plt.close(ax.figure)
    assert "600 of 600 synthetic rows repeat a training row" in str(reports["copy"])
    assert "repeat a training row" not in str(reports["fresh"])


def test_shuffled_columns_keep_their_marginals_and_lose_the_rest(reports: dict[str, Report]) -> None:
    answers = reports["shuffled"].answers
    assert (answers["real"], answers["useful"], answers["new"]) == (False, False, True)
    assert {"dependence error", "classifier accuracy"} <= failed(reports["shuffled"], "real")
    assert "marginal distance" not in failed(reports["shuffled"], "real")


def test_a_collapsed_generator_has_precision_and_no_recall(reports: dict[str, Report]) -> None:
    line = {line.metric: line for line in reports["collapsed"].results}
    assert line["precision"].value == 1 and line["precision"].passed
    assert line["recall"].value < 0.02 and line["coverage"].value < 0.05
    assert failed(reports["collapsed"], "varied") == {"recall", "coverage", "categories lost"}
    assert "group = rare, label = yes, group = a" in str(reports["collapsed"])
    handful = reports["handful"].answers
    assert handful["real"] is handful["varied"] is handful["new"] is False


@pytest.mark.slow
def test_swapped_arguments_are_seen(reports: dict[str, Report]) -> None:
    swapped = evaluate(REAL, train=GENERATORS["collapsed"], holdout=Holdout(HELD), schema=SCHEMA, seed=0)
    line = {line.metric: line.value for line in swapped.results}
    assert line["precision"] < 0.02 and line["recall"] == 1  # the other way round


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("value <= high))", "True))"),  # novelty that never fails
        ("1 if name in HIGHER_IS_BETTER else -1", "1"),
        ("sign * (value - reference) >= -margin", "sign * (value - reference) >= margin"),
    ],
)
def test_mutants_of_the_judgement_are_found(
    old: str, new: str, reports: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthbook.evaluation import report

    changed = mutant(module, old, new)
    for name in ("fidelity_results", "utility_results", "novelty_results"):
        monkeypatch.setattr(report, name, getattr(changed, name))
    for name in ("fresh", "copy", "shuffled", "handful"):
        result = evaluate(GENERATORS[name], train=REAL, holdout=Holdout(HELD), schema=SCHEMA, target="label", seed=0)
        if [line.passed for line in result.results] != [line.passed for line in reports[name].results]:
            return
    pytest.fail(f"nothing notices {new!r} in the place of {old!r}")


def test_no_verdict_without_novelty_or_without_a_reference(reports: dict[str, Report]) -> None:
    good = reports["fresh"]
    without = dataclasses.replace(good, results=tuple(line for line in good.results if line.question != "new"))
    bare = dataclasses.replace(
        good, results=(dataclasses.replace(good.results[0], reference=np.nan), *good.results[1:])
    )
    for report, why in ((without, "novelty"), (bare, "a real-data reference: precision")):
        for show in (lambda r: r.verdict, str, Report.to_dict):
            with pytest.raises(ReportError, match=why):
                show(report)


@pytest.mark.slow
def test_what_is_refused_before_any_work() -> None:
    held = Holdout(HELD)
    for real, synthetic in ((held, REAL), (REAL, held)):
        with pytest.raises(HoldoutError):
            evaluate(synthetic, train=real, holdout=held, schema=SCHEMA)  # type: ignore[arg-type]
    good = {"synthetic": REAL, "train": REAL, "holdout": held, "schema": SCHEMA}
    for changed, why in (
        ({"holdout": HELD}, "a Holdout"),
        ({"train": REAL.to_numpy()}, "train = 'ndarray' .*a DataFrame"),
        ({"train": REAL.head(30)}, "at least 60 rows"),
        ({"synthetic": REAL.head(0)}, "at least"),
        ({"holdout": Holdout(HELD.head(100))}, "at least 120 rows"),
        ({"max_rows": 3}, "max_rows"),
        ({"holdout": Holdout(HELD.assign(label="no")), "target": "label"}, "one that varies there"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            evaluate(**good | changed)
    for frame, target, why in (
        (REAL.drop(columns="x"), None, "column 'x' is missing"),
        (REAL.assign(x=np.inf), None, "x"),
        (REAL.assign(group="unseen"), None, "unseen"),
        (REAL, "x", "the target must be categorical or ordinal"),
        (REAL, "nobody", "not in the schema"),
    ):
        with pytest.raises(SchemaError, match=why):
            evaluate(frame, train=REAL, holdout=held, schema=SCHEMA, target=target)
    other = Table(REAL.drop(columns="x"), Schema(COLUMNS[1:], "public"))
    with pytest.raises(SchemaError, match="has the columns"):
        evaluate(other, train=REAL, holdout=held, schema=SCHEMA)


@pytest.mark.slow
def test_one_column_constant_columns_and_holes_give_defined_values() -> None:
    one = Schema(COLUMNS[:1], "inferred")
    report = evaluate(truth(3)[["x"]], train=REAL[["x"]], holdout=Holdout(HELD[["x"]]), schema=one)
    assert "dependence error" not in report.table["metric"].to_list() and set(report.answers.values()) == {True, None}
    assert "nobody has reviewed" in str(report)
    flat = [frame.assign(x=1.0, y=np.nan) for frame in (REAL, HELD, truth(3))]
    report = evaluate(flat[2], train=flat[0], holdout=Holdout(flat[1]), schema=SCHEMA, target="label")
    assert np.isfinite(report.table[["value", "reference", "low", "high"]].to_numpy()).all()
    assert set(report.answers.values()) == {True}
    moved = evaluate(flat[2].assign(x=2.0), train=flat[0], holdout=Holdout(flat[1]), schema=SCHEMA)
    assert "marginal distance" in failed(moved, "real")
    assert "column 'x' is constant in the real table; the distance is infinite" in str(moved)
    assert json.loads(json.dumps(moved.to_dict()["verdict"])).startswith("not real")


def test_frames_take_the_schema_of_a_table_or_a_drafted_one() -> None:
    table = Table(REAL, SCHEMA)
    with_table = evaluate(truth(3), train=table, holdout=Holdout(HELD), seed=0)
    assert with_table.to_dict() == evaluate(truth(3), train=REAL, holdout=Holdout(HELD), schema=SCHEMA).to_dict()
    drafted = evaluate(truth(3), train=REAL, holdout=Holdout(HELD), target="label", max_rows=200)
    assert "nobody has reviewed" in str(drafted) and set(drafted.answers.values()) == {True}


def test_a_report_shows_itself_in_a_console_and_in_jupyter(reports: dict[str, Report]) -> None:
    assert repr(reports["copy"]) == "Report(real: yes, varied: yes, useful: yes, new: no; 15 metrics)"
    before, shown = plt.get_fignums(), reports["copy"]._repr_html_()
    page = Page(shown)
    assert [result["alt"] for tag, result in page.tags if tag == "img"] == [
        "Every metric against fresh real rows; worse: share nearer to training, exact copies, membership AUC."
    ]
    assert shown.count("<tr>") == 16 and shown.count("✗ copies its training rows") == 3
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    "function",
    [classifier_two_sample_test, dependence, evaluate, marginal_distances, novelty, pmse, prdc, utility],
)
def test_what_is_judged_comes_first_and_everything_else_by_name(function: Callable[..., object]) -> None:
    first, *others = inspect.signature(function).parameters.values()
    assert first.name == "synthetic" and {p.kind for p in others} == {inspect.Parameter.KEYWORD_ONLY}
    assert {p.name for p in others} >= {"real"} or {p.name for p in others} >= {"train", "holdout"}
    with pytest.raises(TypeError, match="positional argument"):
        function(REAL, REAL)


@pytest.mark.slow
def test_the_page_needs_nothing_else_and_escapes_names(tmp_path: Path) -> None:
    evil = '<script src="https://example.org/x.js">&"'
    columns = (*COLUMNS[:2], Column(evil, "categorical", categories=("a", "b", "rare", evil)), COLUMNS[3])
    frames = [frame.rename(columns={"group": evil}) for frame in (REAL, HELD, collapsed(REAL))]
    frames[0].loc[0, evil] = evil
    report = evaluate(
        frames[2], train=frames[0], holdout=Holdout(frames[1]), schema=Schema(columns, "public"), target=evil
    )
    before = plt.get_fignums()
    path = report.to_html(tmp_path / "report.html")
    text, page = path.read_text(), Page(path.read_text())
    assert "script" not in {tag for tag, _ in page.tags} and "&lt;script" in text
    sources = [value for _, result in page.tags for key, value in result.items() if key in ("src", "href")]
    assert len(sources) == 3 and all(re.match("data:image/png;base64,", source or "") for source in sources)
    assert all(result["alt"] for tag, result in page.tags if tag == "img")
    assert read_provenance(path).source == "an evaluation of synthetic rows"
    assert plt.get_fignums() == before  # every figure was closed
    written = json.loads(report.to_json(tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert written["answers"]["varied"] is False and len(written["results"]) == len(report.results)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SCHEMA.to_toml(Path("schema.toml"))
    for name, frame in {"real": REAL, "test": HELD, "fresh": truth(3), "copy": GENERATORS["copy"]}.items():
        frame.to_csv(f"{name}.csv", index=False, na_rep="?")  # with holes
    return tmp_path


RULED = ["--train", "real.csv", "--holdout", "test.csv", "--schema", "schema.toml"]


@pytest.mark.slow
def test_the_command_for_people_and_for_machines(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "fresh.csv", *RULED, "--target", "label", "--out", "fresh.html"]) == 0
    printed = capsys.readouterr()
    assert "real, varied, useful, new: as fresh real rows are" in printed.out and "report: fresh.html" in printed.out
    assert printed.err == ""
    provenance = read_provenance(files / "fresh.html")
    assert set(provenance.parents) == {"synthetic", "train", "holdout", "schema"} and provenance.seed == 0
    assert provenance.command.endswith(
        "fresh.csv --train real.csv --holdout test.csv --schema schema.toml --seed 0 --target label"
    )
    assert main(["evaluate", "copy.csv", *RULED, "--json", "--out", "copy.json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["answers"]["new"] is False and result["report"] == "copy.json"
    assert json.loads((files / "copy.json").read_text())["results"] == result["results"]
    assert main(["evaluate", "--help"]) == 0 and "--holdout test.csv" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.csv", *RULED], "synthetic = 'none.csv'"),
        (["real.csv", *RULED], "another file than synthetic"),
        (["test.csv", *RULED], "another file than synthetic"),
        (["copy.csv", *RULED, "--target", "nobody"], "'nobody' is not in the schema"),
        (["copy.csv", *RULED, "--out", "report.pdf"], "ends in .html or .json"),
        (["copy.csv", *RULED, "--out", "nowhere/report.html"], "a folder that exists"),
        (["schema.toml", *RULED[:4], "--schema", "copy.csv"], "is not a schema"),
        (["copy.csv", *RULED[:4]], "--schema"),
    ],
)
def test_bad_input_to_the_command_ends_with_2(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    before = set(files.iterdir())
    assert main(["evaluate", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert set(files.iterdir()) == before


@pytest.mark.slow
def test_on_adult_a_copy_passes_all_but_novelty() -> None:
    split = adult()
    real, test = Table(split.train.frame.iloc[:3000], split.train.schema), split.test
    rows = test.data.frame.sample(frac=1, random_state=0)
    held, fresh = (Table(part, real.schema) for part in (rows.iloc[:8000], rows.iloc[8000:]))
    copy = Table(real.frame.sample(frac=1, random_state=0), real.schema)
    answers = {"real": True, "varied": True, "useful": True, "new": True}
    assert evaluate(fresh, train=real, holdout=Holdout(held), target="income", max_rows=3000).answers == answers
    report = evaluate(copy, train=real, holdout=Holdout(held), target="income", max_rows=3000)
    assert report.answers == answers | {"new": False}
    assert "closer than fresh rows" in str(report)  # which is no fault
