"""Experiments are found by their decorator, listed without loading torch, and are those of the shipped tables."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import read_provenance
from synthbook.datasets import data_folder
from synthbook.experiments import list_experiments, load_experiment, read_results

NAMES = list(list_experiments())


def test_every_file_of_trials_is_the_result_of_one_experiment() -> None:
    shipped = [str(path.relative_to(data_folder())) for path in data_folder().glob("artifacts/**/trials.json")]
    assert sorted(shipped) == sorted(entry.results for entry in list_experiments().values())


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_table_is_that_of_the_experiment(name: str) -> None:
    experiment, entry = load_experiment(name), list_experiments()[name]
    assert (experiment.name, experiment.help, experiment.results) == (name, entry.help, entry.results)
    file = data_folder() / entry.results
    document = json.loads(file.read_text())
    provenance = read_provenance(file)
    assert provenance.command == document["command"] == f"synthbook dev experiment {name}"
    assert provenance.source == experiment.data_source
    assert document["budget"] == json.loads(json.dumps(experiment.budget))
    trials = read_results(name)
    assert sorted(zip(trials.iloc[:, 0], trials.seed, strict=True)) == sorted(product(experiment.cases, range(5)))


@pytest.mark.parametrize("name", ["modes", "rare", "private", "overfitting", "distillation"])
def test_a_trial_refuses_an_unknown_case(name: str) -> None:
    with pytest.raises(InvalidArgument, match="case = 'another case' is not accepted: give one of"):
        load_experiment(name).trial("another case", seed=0)


def test_an_unknown_experiment_is_refused_with_the_names_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidArgument, match="one of answer-utility, boosted-full"):
        load_experiment("calibrate")
    assert main(["dev", "experiment", "whole", "--out", str(tmp_path)]) == 2
    assert "boosted-full" in capsys.readouterr().err


def test_the_command_lists_all_without_loading_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev", "experiment"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES
    code = "import sys; from synthbook.cli.main import main; main(['dev', 'experiment', '--list', '--json']);"
    code += "assert not {'torch', 'sklearn', 'pybullet'} & set(sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert list(json.loads(listed)["experiments"]) == NAMES
