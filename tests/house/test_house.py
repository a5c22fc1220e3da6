"""House rules: floors, types, style, light imports, sizes, and a Makefile that refuses the wrong Python."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synthbook.core.storage import read_provenance
from synthbook.course import notebook as nb

ROOT = Path(__file__).parents[2]
PACKAGE = sorted(path for path in (ROOT / "synthbook").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE]
HEAVY = ("torch", "torchvision", "pybullet", "opacus")


def run(*command, **kwargs):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **kwargs)


def tool(*arguments):
    ran = run(sys.executable, "-m", *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_nothing_imports_upwards():
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_types():
    tool("mypy", "--cache-dir", "build/mypy")


def test_lint():
    tool("ruff", "check", ".")


def test_format():
    tool("ruff", "format", "--check", ".")


def test_importing_the_package_is_light():
    code = "import time; t = time.perf_counter(); import synthbook; print(time.perf_counter() - t)"
    assert min(float(run(sys.executable, "-c", code).stdout) for _ in range(5)) < 0.2


# their modules define networks or hold a client of the simulator; all others import such packages
# where they use them
HEAVY_ROOMS = ("generators", "experiments", "simulation", "privacy.dpsgd", "privacy.generators", "language.distill")
LIGHT_INSIDE = (
    *(f"generators.tabular.{name}" for name in ("copula", "trees")),
    *("generators.text.ngram", "privacy.generators.discretize", "privacy.generators.mst"),
    *("simulation.scene", "simulation.sir"),
)


@pytest.mark.slow
def test_no_module_imports_torch_or_pybullet_before_it_is_used():
    rooms = tuple(f"synthbook.{room}" for room in HEAVY_ROOMS)
    light = [name for name in MODULES if not name.startswith(rooms)] + [f"synthbook.{name}" for name in LIGHT_INSIDE]
    assert set(MODULES) > set(light) and len(light) > 60
    imports = f"import sys, importlib; [importlib.import_module(m) for m in {light}]"
    code = f"{imports}; print(sys.modules.keys() & {set(HEAVY)})"
    ran = run(sys.executable, "-c", code)
    assert ran.stdout.strip() == "set()", ran.stdout + ran.stderr


def test_nothing_names_a_machine():
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    own = {"tests/house/test_house.py", "tests/notebooks/test_rules.py"}
    for name in set(files) - own:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", ".json", ".cff", "") and path.is_file():
            text = path.read_text(errors="ignore")
            assert not re.search(r"/(root|home)/\w|/Users/\w", text) and f"{ROOT}/" not in text, name


def test_make_refuses_another_python_and_says_what_to_do(tmp_path):
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.13.1";; *) exit 1;; esac\n')
    fake.chmod(0o755)
    ran = run("make", "course", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}")
    assert ran.returncode != 0
    assert "needs Python 3.11" in ran.stdout and "Python 3.13.1" in ran.stdout and "PYTHON=python3.11" in ran.stdout
    assert not (tmp_path / "venv").exists()


def test_make_refuses_an_environment_of_another_python(tmp_path):
    fake = tmp_path / "venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.12.4";; *) exit 1;; esac\n')
    fake.chmod(0o755)
    ran = run("make", "course", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}")
    assert ran.returncode != 0
    assert "Python 3.12.4" in ran.stdout and "make clean" in ran.stdout


def test_make_has_nothing_to_set_up_when_all_is_in_place(tmp_path):
    (tmp_path / "ready-course").touch()
    planned = run("make", "-n", "course", f"VENV={tmp_path}").stdout
    assert "synthbook.cli course run" in planned and "pip install" not in planned


def test_ci_runs_the_command_that_the_readme_names():
    assert re.search(r"^make test$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_readme_figure_is_the_notebooks():
    figure = ROOT / "docs/figures/collapse.png"
    assert "docs/figures/collapse.png" in (ROOT / "README.md").read_text()
    assert "notebooks/07a_model_collapse.ipynb" in read_provenance(figure).parents
    exported = nb.exported_figures(nb.read(ROOT / "notebooks/07a_model_collapse.ipynb"))
    assert exported["docs/figures/collapse.png"] == figure.read_bytes()


def test_refit_bench_reached_its_figure():
    path = ROOT / "bench/results/refit.json"
    result = json.loads(path.read_text())
    assert read_provenance(path).command == "make bench-refit"
    assert result["n"] == 100 and result["ratio_of_medians"] >= 20
    assert result["difference_in_standard_errors"] <= 4
    assert result["seconds_for_100000_replicates_of_100_generations"] < 10
