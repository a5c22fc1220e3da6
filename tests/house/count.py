"""The figures of the house: sizes, public names, short helpers used once, circles, start-up, words of the dialect.

It reports and gates nothing. Run it with `make house`, or `python tests/house/count.py CHECKOUT --json`.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "synthbook"
HEAVY = ("torch", "pybullet", "opacus", "openai")
SHORT = 6  # lines; a helper below it that is used once costs more to find than to read in place
# the column "not" of the language table; words that the field uses in plain English are left out
DIALECT = {
    *("found", "said", "told", "kept", "made", "came", "taught", "asked", "mixed", "dealt", "raked", "stayed"),
    *("Learnt", "Keep", "Parts", "Maker", "Judge", "Bumps", "Spread", "Margin", "Ask", "Patience", "Passing", "Spent"),
    *("Told", "Line", "newness", "judge_steps", "by_sampling", "noise_for", "per_record", "clipped_sum_of_linear"),
    *("density_ratio", "likelihood_ratio", "side_by_side", "spokes", "hub", "_at_rest", "follow", "observe", "silent"),
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name, its lines, its tree."""

    name: str
    lines: int
    tree: ast.Module

    @property
    def wing(self) -> str:
        return [*self.name.split("."), ""][1]


def modules(root: Path) -> list[Module]:
    """Every module of the package, sorted by path."""
    every = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        every.append(Module(name, len(text.splitlines()), ast.parse(text)))
    return every


def public_names(module: Module) -> dict[str, str]:
    """Names that a module binds at its top, by what they are bound to; imports and underscored names are left out."""
    names = {}
    for statement in module.tree.body:
        if isinstance(statement, Definition | ast.ClassDef):
            names[statement.name] = ast.unparse(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name):
                    names[node.id] = ast.unparse(statement.value) if statement.value else ""
    return {name: bound for name, bound in names.items() if not name.startswith("_")}


def bound_twice(every: list[Module]) -> list[str]:
    """Public names that two modules of one wing bind to different things, as "wing: name"."""
    bound: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module in every:
        for name, value in public_names(module).items():
            bound[module.wing, name].add(value)
    return sorted(f"{wing}: {name}" for (wing, name), values in bound.items() if len(values) > 1)


def short_helpers(every: list[Module]) -> list[str]:
    """Functions and methods of fewer than six lines whose name the package uses once; commands and properties stay."""
    uses: Counter[str] = Counter()
    helpers: dict[str, list[str]] = defaultdict(list)
    for module in every:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name | ast.Attribute):
                uses[node.id if isinstance(node, ast.Name) else node.attr] += 1
            elif isinstance(node, Definition) and not node.decorator_list and not node.name.startswith("__"):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                helpers[node.name].append(f"{module.name}.{node.name}" if length < SHORT else "")
    return sorted(
        places[0] for name, places in helpers.items() if places != [""] and len(places) == 1 and uses[name] == 1
    )


def circles(every: list[Module]) -> list[list[str]]:
    """Groups of modules that import each other in a circle, imports inside functions included."""
    names = {module.name for module in every}
    graph = {module.name: {n for n in _imports(module.tree) if n in names and n != module.name} for module in every}
    reach = {name: _reached(name, graph) for name in graph}
    groups = {tuple(sorted(n for n in reach[name] if name in reach[n])) for name in graph if name in reach[name]}
    return sorted(map(list, groups))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from inside
            yield node.module


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph[name]
    return reached


def dialect(every: list[Module]) -> tuple[Counter[str], Counter[str]]:
    """How often words of the dialect name what others see (definitions, fields, arguments), and what they do not."""
    seen: Counter[str] = Counter()
    local: Counter[str] = Counter()

    def walk(node: ast.AST, public: bool, inside: bool) -> None:
        if isinstance(node, Definition | ast.ClassDef):
            (seen if public and not inside else local)[node.name] += 1
            public = public and not node.name.startswith("_")
        if isinstance(node, ast.arg):
            (seen if public else local)[node.arg] += 1
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            (seen if public and not inside else local)[node.id] += 1
        for child in ast.iter_child_nodes(node):
            walk(
                child, public and not (inside and isinstance(child, Definition)), inside or isinstance(node, Definition)
            )

    for module in every:
        walk(module.tree, True, False)
    return tuple(Counter({w: n for w, n in c.items() if w in DIALECT}) for c in (seen, local))  # type: ignore[return-value]


def notebook_imports(root: Path) -> dict[str, int]:
    """For each notebook, the lines that import from the package."""
    counts = {}
    for path in sorted(root.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code").splitlines()
        counts[path.stem] = sum(line.strip().startswith((f"from {PACKAGE}", f"import {PACKAGE}")) for line in lines)
    return counts


def start_up(root: Path) -> tuple[float, list[str]]:
    """Seconds that `import synthbook` takes (the least of five), and the heavy packages that it loads."""
    code = f"import time, sys; t = time.perf_counter(); import {PACKAGE}; print(time.perf_counter() - t)"
    code += f"; print(*({set(HEAVY)} & sys.modules.keys()))"
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(5)
    ]
    return min(float(run.split("\n")[0]) for run in runs), runs[0].split("\n")[1].split()


def figures(root: Path) -> dict[str, object]:
    """All figures of a checkout."""
    every = modules(root)
    names = Counter(name for module in every for name in public_names(module))
    seconds, heavy = start_up(root)
    seen, local = dialect(every)
    imports = notebook_imports(root)
    return {
        "modules": len(every),
        "lines": sum(module.lines for module in every),
        "lines of the language wing": sum(module.lines for module in every if module.wing == "language"),
        "longest module": max((module.lines, module.name) for module in every),
        "public names": len(names),
        "bound in several modules": sum(n > 1 for n in names.values()),
        "bound twice in one wing": bound_twice(every),
        "short helpers used once": short_helpers(every),
        "circles": circles(every),
        "seconds to import": round(seconds, 3),
        "heavy packages imported": heavy,
        "import lines of a notebook, at most": max(imports.values(), default=0),
        "dialect in public names": dict(seen.most_common()),
        "dialect in local names": dict(local.most_common()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--json", action="store_true", help="one JSON document, with every name")
    arguments = parser.parse_args()
    result = figures(arguments.checkout)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return 0
    for name, value in result.items():
        if isinstance(value, dict):
            value = f"{sum(value.values())}  ({', '.join(f'{word} {n}' for word, n in list(value.items())[:6])})"
        elif isinstance(value, list):
            value = f"{len(value)}  ({'; '.join(map(str, value[:4]))})" if value else 0
        print(f"{name:36} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
