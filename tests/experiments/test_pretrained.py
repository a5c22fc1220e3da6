"""The scores of the shipped image models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthbook.cli.main import main
from synthbook.core.storage import read_provenance
from synthbook.datasets import data_folder
from synthbook.experiments.pretrained import IMAGE_MODELS, REAL_IMAGES, SCORES, read_scores
from synthbook.generators.registry import PRETRAINED_DIR


def test_the_shipped_scores_are_those_of_the_shipped_models() -> None:
    table = read_scores()
    assert list(table.index) == [REAL_IMAGES, *IMAGE_MODELS] and (table.n == 10_000).all()
    assert read_provenance(data_folder() / SCORES).command == "synthbook dev score-models -n 10000 --seed 0"
    for name in IMAGE_MODELS:
        log = json.loads((data_folder() / PRETRAINED_DIR / name / "log.json").read_text())
        assert table.loc[name, "sha256"] == log["sha256"]
    assert ((table[["precision", "recall", "coverage"]] > 0) & (table[["precision", "recall", "coverage"]] <= 1)).all(
        axis=None
    )


@pytest.mark.slow
def test_score_models_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    command = ["dev", "score-models", "-n", "100", "--out", str(out), "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["scores"]
    assert [row["name"] for row in rows] == [REAL_IMAGES, *IMAGE_MODELS] == list(read_scores(out).index)
    assert main(command) == 2 and "--force" in capsys.readouterr().out
