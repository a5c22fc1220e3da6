"""What an audit of a release says: in words, as data, as a page, and as a command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from synthbook.cli.main import main
from synthbook.core.storage import Provenance, read_provenance, write_with_provenance
from synthbook.core.table import Column, Holdout, Schema, Table
from synthbook.privacy.attacks import release_audit
from synthbook.privacy.attacks.release_audit import ReleaseAudit, audit
from synthbook.privacy.generators.mst import IndependentMarginals
from tests.mutation import mutant
from tests.pages import Page
from tests.privacy.attacks.releases import COLUMNS, ORIGIN, SCHEMA, copied, frame, real


def test_it_says_all_that_it_found_in_words_and_as_data(tmp_path: Path) -> None:
    found = copied()
    said = str(found)
    for part in ("nearest synthetic row", "DOMIAS (k-NN)", "holes", "TPR at 1 % FPR", "group: accuracy"):
        assert part in said
    assert "not a privacy verdict" in said and "not covered by any epsilon" in said and said.endswith(found.verdict)
    path = found.to_json(tmp_path / "audit.json", ORIGIN)
    told = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert told["verdict"] == found.verdict and told["leaks"] is True and told["copies"] == 300
    assert told["epsilon_lower_bound"] == found.epsilon_lower_bound and told["claimed_epsilon"] == 0.5
    assert [one["attack"] for one in told["attacks"]] == ["nearest synthetic row", "DOMIAS (k-NN)", "holes"]
    assert {one["secret"] for one in told["attribute_inferences"]} == {"group", "label"}
    assert told["distances"]["note"] == "not a privacy verdict"
    assert read_provenance(path) == ORIGIN
    endless = ReleaseAudit(**(vars(found) | {"claimed_epsilon": float("inf")}))
    again = endless.to_json(tmp_path / "endless.json", ORIGIN).read_text()
    assert json.loads(again, parse_constant=pytest.fail)["claimed_epsilon"] == "Infinity"


@pytest.mark.slow
def test_the_page_needs_nothing_else_and_escapes_names(tmp_path: Path) -> None:
    evil = '<script src="https://example.org/x.js">&"'
    columns = (*COLUMNS[:2], Column(evil, "categorical", categories=("a", "b", "rare", evil)), COLUMNS[3])
    schema = Schema(columns, "public")
    train, held = (Table(frame(k, 240).rename(columns={"group": evil}), schema) for k in (1, 2))
    before = plt.get_fignums()
    found = audit(train, train=train, holdout=Holdout(held))
    assert evil in found.verdict  # its secret leaks, so that its name stands in the verdict, too
    path = found.to_html(tmp_path / "audit.html", ORIGIN)
    text, page = path.read_text(), Page(path.read_text())
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags) and "&lt;script" in text
    sources = [value for _, given in page.tags for key, value in given.items() if key in ("src", "href")]
    assert len(sources) == 1 and all(re.match("data:image/png;base64,", source or "") for source in sources)
    assert "http" not in re.sub("&lt;script.*?&gt;", "", text) and "url(" not in text and "@import" not in text
    alts = [given.get("alt") or "" for tag, given in page.tags if tag == "img"]
    assert len(alts) == 1 and f"nearest synthetic row {found.attacks[0].attack.auc:.2f}" in alts[0]
    assert "240 rows repeat a training row exactly" in text and "not a privacy verdict" in text
    assert read_provenance(path) == ORIGIN and plt.get_fignums() == before
    for cell in ("escape(x.secret)", "escape(result.verdict)"):
        careless = mutant(release_audit, cell, cell[7:-1])
        assert "script" in {tag for tag, _ in Page("".join(careless.html_parts(found))).tags}


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SCHEMA.to_toml(Path("schema.toml"))
    tables = {"train": frame(1), "test": frame(2, 240), "fresh": frame(3), "copy": frame(1)}
    for name, table in tables.items():
        table.to_csv(f"{name}.csv", index=False, na_rep="?")
    return tmp_path


RULED = ["--train", "train.csv", "--holdout", "test.csv", "--schema", "schema.toml"]


@pytest.mark.slow
def test_the_command_for_people_and_for_machines(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "fresh.csv", *RULED, "--secret", "label", "--out", "fresh.html"]) == 0
    printed = capsys.readouterr()
    assert "these attacks found nothing" in printed.out and "report: fresh.html" in printed.out
    assert "label: accuracy" in printed.out and "group: accuracy" not in printed.out and printed.err == ""
    provenance = read_provenance(files / "fresh.html")
    assert set(provenance.parents) == {"synthetic", "train", "holdout", "schema"}
    assert provenance.command.endswith("--schema schema.toml --seed 0 --secret label")
    assert main(["audit", "copy.csv", *RULED, "--json", "--out", "copy.json"]) == 1
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["leaks"] is True and told["claimed_epsilon"] is None and told["report"] == "copy.json"
    assert told["copies"] == 120 and json.loads((files / "copy.json").read_text())["attacks"] == told["attacks"]
    assert main(["audit", "--help"]) == 0 and "--train train.csv" in capsys.readouterr().out


@pytest.mark.slow
def test_the_promise_of_a_private_model_is_read_beside_its_rows(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    IndependentMarginals(epsilon=3.0, delta=1e-5).fit(real(1), seed=0).save(files / "model", ORIGIN)
    assert main(["sample", "model", "-n", "150", "--out", "private.csv"]) == 0
    capsys.readouterr()
    assert main(["audit", "private.csv", *RULED, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["claimed_epsilon"] == 3.0 and told["epsilon_lower_bound"] == 0 and "delta 1e-05" in told["notes"][0]
    # somebody wrote a promise beside copies
    text = (files / "copy.csv").read_text()
    write_with_provenance(
        files / "copy.csv", text, Provenance("a liar", "none", privacy={"epsilon": 0.1, "delta": 1e-6})
    )
    assert main(["audit", "copy.csv", *RULED]) == 1
    said = capsys.readouterr().out
    assert "claim refuted: epsilon is at least" in said and "0.1 was claimed" in said and "delta 1e-06" in said
    assert main(["audit", "copy.csv", *RULED, "--delta", "1e-4"]) == 1 and "delta 0.0001" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.csv", *RULED], "synthetic = 'none.csv'"),
        (["train.csv", *RULED], "another file than"),
        (["fresh.csv", *RULED, "--secret", "nobody"], "secret = 'nobody'"),
        (["fresh.csv", *RULED, "--secret", "x"], "some of group, label"),
        (["fresh.csv", *RULED, "--out", "report.pdf"], "ends in .html or .json"),
        (["fresh.csv", *RULED, "--out", "nowhere/report.html"], "a folder that exists"),
        (["fresh.csv", *RULED, "--delta", "0.5"], "delta = 0.5"),
        (["fresh.csv", *RULED[:4]], "--schema"),
        (["fresh.csv", *RULED[:5], "train.csv"], "another file than"),
    ],
)
def test_bad_input_to_the_command_ends_with_2(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    before = set(files.iterdir())
    assert main(["audit", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert set(files.iterdir()) == before


def test_rows_that_changed_after_they_were_described_are_refused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_with_provenance(files / "fresh.csv", (files / "fresh.csv").read_text(), ORIGIN)
    (files / "fresh.csv").write_text((files / "copy.csv").read_text())
    assert main(["audit", "fresh.csv", *RULED]) == 1
    assert "changed after it was described" in capsys.readouterr().err
