"""Experiments are found by their decorator, listed without loading torch, and are those of the shipped tables."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

from synthbook.cli.main import main
from synthbook.core.errors import InvalidArgument
from synthbook.core.jobs import read_trials
from synthbook.core.storage import read_provenance
from synthbook.datasets import data_folder
from synthbook.experiments import list_experiments, load_experiment

NAMES = list(list_experiments())


def test_every_module_with_trials_has_an_experiment() -> None:
    folder = Path(sys.modules["synthbook.experiments"].__path__[0])
    modules = {f"synthbook.experiments.{p.stem}" for p in folder.glob("*.py") if "\nTRIALS = " in p.read_text()}
    assert modules == {entry.module for entry in list_experiments().values()}


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_table_is_that_of_the_experiment(name: str) -> None:
    experiment, entry = load_experiment(name), list_experiments()[name]
    assert (experiment.name, experiment.help) == (entry.name, entry.help) == (name, experiment.help)
    file = data_folder() / import_module(entry.module).TRIALS
    document = json.loads(file.read_text())
    provenance = read_provenance(file)
    assert provenance.command == document["command"] == f"synthbook dev experiment {name}"
    assert provenance.source == experiment.data_source
    assert document["budget"] == json.loads(json.dumps(experiment.budget))
    trials = read_trials(file)
    assert sorted(zip(trials.iloc[:, 0], trials.seed, strict=True)) == sorted(product(experiment.cases, range(5)))


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
