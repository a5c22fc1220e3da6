"""environment.yml, pyproject.toml and constraints.txt must name the same packages in versions that fit."""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import require

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"torch": "pytorch-cpu"}  # where conda-forge's name is not PyPI's
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def ranges(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def pins(file: str = "constraints.txt") -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("#")[0].strip().split("==") for line in lines if line.split("#")[0].strip()]
    assert all(len(pair) == 2 for pair in pairs), f"{file} holds exact pins only, one a line"
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_conda_installs_what_the_project_declares_in_the_same_ranges() -> None:
    declared = ranges(PROJECT["dependencies"] + EXTRAS["course"])
    expected = {CONDA_NAMES.get(name, name): requirement.specifier for name, requirement in declared.items()}
    listed = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    packages = [line for line in listed if line != "pip" and not line.startswith("python=")]
    assert {name: requirement.specifier for name, requirement in ranges(packages).items()} == expected
    assert len(packages) == len(expected)


def test_conda_brings_a_python_that_the_project_and_pybullet_accept() -> None:
    assert "python=3.11" in CONDA["dependencies"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")
    assert ranges(EXTRAS["course"])["pybullet"].marker.evaluate({"python_version": "3.11"})


def test_conda_uses_one_channel_and_pip_installs_the_project_and_the_one_package_that_the_channel_lacks() -> None:
    assert CONDA["channels"] == ["conda-forge"]
    assert [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)] == [["-e .[llm]"]]
    assert list(ranges(EXTRAS["llm"])) == ["xllamacpp"]
    assert "pip" in CONDA["dependencies"]


@pytest.mark.parametrize("part", ["dependencies", *EXTRAS])
def test_the_pinned_versions_lie_in_the_declared_ranges(part: str) -> None:
    lines = PROJECT["dependencies"] if part == "dependencies" else EXTRAS[part]
    pinned = pins("bench/peers.txt" if part == "bench" else "constraints.txt")
    for name, requirement in ranges(lines).items():
        assert name in pinned, f"no file pins {name}"
        assert requirement.specifier.contains(pinned[name]), (
            f"{name} is pinned to {pinned[name]}, outside {requirement}"
        )


def test_torchvision_is_pinned_with_the_torch_that_it_was_built_for() -> None:
    torchvision, pinned = distribution("torchvision"), pins()
    found = Version(torchvision.version).public  # a CPU build adds "+cpu"
    require(found == str(pinned["torchvision"]), f"torchvision {found} is installed, which is not the one pinned")
    needed = ranges(torchvision.requires or [])["torch"].specifier
    built_for = {Version(specifier.version).release[:2] for specifier in needed if specifier.operator in ("==", ">=")}
    fits = needed.contains(pinned["torch"]) and pinned["torch"].release[:2] in built_for
    assert fits, f"torch is pinned to {pinned['torch']}, torchvision {found} was built for {needed}"


def test_the_shared_peers_add_to_the_constraints_and_those_with_an_older_pandas_stand_apart() -> None:
    assert not pins("bench/peers.txt").keys() & pins().keys(), "the shared peer environment borrows these from .venv"
    for peer in ("sdmetrics", "ctgan"):
        apart = pins(f"bench/peers-{peer}.txt")
        assert peer in apart and apart["pandas"] < Version("3") <= pins()["pandas"]
    assert pins("bench/peers-ctgan.txt").keys() & pins().keys() == {"pandas"}, "ctgan borrows all else from .venv"
