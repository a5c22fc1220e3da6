"""What a public project needs beside its code: workflows, hooks and templates that are valid and name real commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def validate(schema, *paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def steps(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", "workflows/*.yml"),
        ("custom.github-workflows-require-timeout", "workflows/*.yml"),
        ("vendor.github-issue-forms", "ISSUE_TEMPLATE/fault.yml"),
        ("vendor.github-issue-config", "ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_for_the_host_follow_the_published_schema(schema, pattern):
    validate(schema, *(ROOT / ".github").glob(pattern))


def test_workflows_run_the_commands_that_people_run():
    assert [path.stem for path in WORKFLOWS] == ["nightly", "test"]
    commands = {path.stem: steps(path) for path in WORKFLOWS}
    assert ".ci/run" in commands["test"]
    assert [line for line in commands["nightly"] if line.startswith("make")] == ["make course", "make test-nightly"]
    assert {"course", "test", "test-machines", "test-nightly", "check"} <= TARGETS
    nightly = re.search(r"^test-nightly:.*", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    assert "test-machines" in nightly


def test_the_hook_runs_what_make_check_runs():
    path = ROOT / ".pre-commit-config.yaml"
    ran = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", str(path)], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (repository,) = yaml.safe_load(path.read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make check"]


def test_templates_ask_for_a_cell_that_shows_the_fault():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/fault.yml").read_text())
    cell = next(field for field in form["body"] if field.get("id") == "cell")
    assert cell["attributes"]["render"] == "python" and cell["validations"]["required"]
    assert "the cell that shows it" in (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text()


def test_the_changelog_names_this_version_and_what_is_to_come():
    import synthbook

    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE) == ["Unreleased", synthbook.__version__]
