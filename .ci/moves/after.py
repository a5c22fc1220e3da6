"""What `move.py` leaves to be done: new packages, the contract of floors, rules that were about the old house.

python .ci/moves/after.py CHECKOUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
INIT = {
    "cli": '''"""The `synthbook` command: one function for each verb."""

from synthbook.cli.main import app, main

__all__ = ["app", "main"]
''',
    "experiments": '"""What is measured on several seeds for the claims. No wing imports it."""\n',
    "language/sandbox": '"""Untrusted programs, run in a process that can only compute."""\n',
}
MAIN = '''"""`python -m synthbook.cli`."""

import sys

from synthbook.cli.main import main

sys.exit(main())
'''
LAYERS = """    "synthbook.course | synthbook.experiments | (synthbook.release)",
    "synthbook.language | synthbook.privacy | (synthbook.scaling) | synthbook.collapse",
    "synthbook.generators",
    "synthbook.simulation | synthbook.evaluation",
    "synthbook.datasets",
    "synthbook.core",
"""
LIGHT = """# their modules define networks or hold a client of the simulator; all others import such packages
# where they use them
HEAVY_ROOMS = ("generators", "experiments", "simulation", "privacy.dpsgd", "privacy.generators", "language.student")
LIGHT_INSIDE = (
    *(f"generators.tabular.{name}" for name in ("copula", "smote", "trees")),
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


"""


def replace(path: str, *pairs: tuple[str, str]) -> None:
    file = ROOT / path
    text = file.read_text()
    for old, new in pairs:
        assert old in text, (path, old)
        text = text.replace(old, new)
    file.write_text(text)


for package, text in INIT.items():
    (ROOT / "synthbook" / package / "__init__.py").write_text(text)
(ROOT / "synthbook/cli/__main__.py").write_text(MAIN)
(ROOT / "tests/models").rename(ROOT / "tests/generators")

contract = (ROOT / "pyproject.toml").read_text()
first = contract.index('    "synthbook.course | (synthbook.release)"')
last = contract.index("]", first)
(ROOT / "pyproject.toml").write_text(contract[:first] + LAYERS + contract[last:])

for name in ("test_data_properties", "test_data", "conftest", "test_manifest"):
    replace(f"tests/core/{name}.py", ('.parents[2] / "data"', '.parents[1] / "data"'))
replace(
    "synthbook/experiments/recording.py",
    ("for k, (name, run) in enumerate(chosen.items()):", "for k, (name, experiment) in enumerate(chosen.items()):"),
    ("        run(client.ask)\n", "        experiment(client.ask)\n"),
)
audit = ROOT / "synthbook/privacy/attacks/release_audit.py"
audit.write_text(
    audit.read_text()
    .replace(
        'for name, table in (("train", train), ("holdout", holdout)):',
        'for name, side in (("train", train), ("holdout", holdout)):',
    )
    .replace("        if units(table) < LEAST:", "        if units(side) < LEAST:")
    .replace('f"{units(table)} {kind}"', 'f"{units(side)} {kind}"')
)

rules = (ROOT / "tests/house/test_house.py").read_text()
rules = (
    rules[: rules.index("# they define networks or hold a client")]
    + LIGHT
    + rules[rules.index("def test_nothing_names_a_machine") :]
)
(ROOT / "tests/house/test_house.py").write_text(rules)
for path in (ROOT / "synthbook").rglob("*.py"):  # aliases of a second source that are one definition by now
    text = path.read_text()
    path.write_text(re.sub(r"\n{4,}", "\n\n\n", text))
