"""Give the wings lazy public names, and let the notebooks import from the front door.

    python .ci/moves/front_door.py CHECKOUT

For each notebook, all imports of the package become: `import synthbook as sb` for the names of `FRONT`, used as
`sb.Name`, and one line for each wing. Names that a notebook needs and a stub lacks are added to the stub.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(sys.argv[1])
PACKAGE = ROOT / "synthbook"
WINGS = ("core", "evaluation", "generators", "simulation", "language", "privacy", "collapse", "experiments", "course")


def stub_names(path: Path) -> dict[str, str]:
    """name -> module it comes from ('' where it is a submodule)."""
    names = {}
    for node in ast.parse(path.read_text()).body if path.is_file() else []:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = node.module or ""
    return names


def write_stub(path: Path, names: dict[str, str], docstring: str) -> None:
    by_module = defaultdict(list)
    for name, module in names.items():
        by_module[module].append(name)
    lines = []
    for module in sorted(by_module):
        inside = ", ".join(
            f"{n} as {n}" for n in sorted(by_module[module], key=lambda n: (n.upper() != n, n[0].islower(), n))
        )
        lines.append(f"from .{module} import {inside}")
    path.write_text("\n".join(lines) + "\n")
    init = path.with_suffix(".py")
    text = init.read_text()
    if "attach_stub" not in text:
        doc = ast.get_docstring(ast.parse(text), clean=False)
        init.write_text(
            f'"""{doc}"""\n\nimport lazy_loader\n\n'
            "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
        )


def is_module(dotted: str) -> bool:
    place = ROOT.joinpath(*dotted.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


front = stub_names(PACKAGE / "__init__.pyi")
front_of = {}  # (module, name) -> front name
for name, module in front.items():
    front_of[f"synthbook.{module}" if module else "synthbook", name] = name
stubs = {wing: stub_names(PACKAGE / wing / "__init__.pyi") for wing in WINGS}

for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
    document = json.loads(path.read_text())
    first = None
    wanted: dict[str, set[str]] = defaultdict(set)
    to_front: set[str] = set()
    uses_sb = False
    for cell in document["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        tree = ast.parse(source)
        drop = []
        for node in tree.body:
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.Import) and any(a.name == "synthbook" for a in node.names):
                uses_sb = True
                drop.append((node.lineno, node.end_lineno))
            if not module or not (module == "synthbook" or module.startswith("synthbook.")):
                continue
            drop.append((node.lineno, node.end_lineno))
            first = cell if first is None else first
            for alias in node.names:
                name, bound = alias.name, alias.asname or alias.name
                if (module, name) in front_of and not alias.asname:
                    to_front.add(name)
                    continue
                wing = module.split(".")[1] if "." in module else name
                inner = ".".join(module.split(".")[2:])
                text = name if not alias.asname else f"{name} as {bound}"
                taken = is_module(f"synthbook.{wing}.{name}") and inner  # the package has a module of this name
                if wing not in WINGS or taken:
                    wanted[module].add(text)
                else:
                    wanted[f"synthbook.{wing}"].add(text)
                    if wing != "experiments" or inner:
                        stubs[wing].setdefault(name, inner)
        if drop:
            lines = source.split("\n")
            for start, end in reversed(drop):
                del lines[start - 1 : end]
            cell["_source"] = "\n".join(lines)
    if first is None:
        continue
    for cell in document["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = cell.pop("_source", "".join(cell["source"]))
        tree = ast.parse(source)
        edits = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in to_front and isinstance(node.ctx, ast.Load):
                edits.append((node.lineno, node.col_offset, node.id))
        lines = source.split("\n")
        for line, column, _ in sorted(edits, reverse=True):
            raw = lines[line - 1].encode()
            lines[line - 1] = (raw[:column] + b"sb." + raw[column:]).decode()
        source = "\n".join(lines)
        if cell is first:
            statements = [
                f"from {module} import {', '.join(sorted(names, key=lambda n: (n.upper() != n, n[0].islower(), n)))}"
                for module, names in sorted(wanted.items())
            ]
            if to_front or uses_sb:
                statements.insert(0, "import synthbook as sb")
            body = source.strip("\n").split("\n")
            # after the last import that stands at the top
            last = max(
                (n.end_lineno for n in ast.parse("\n".join(body)).body if isinstance(n, (ast.Import, ast.ImportFrom))),
                default=0,
            )
            body[last:last] = ([""] if last else []) + statements
            source = "\n".join(body)
        source = re.sub(r"\n{3,}", "\n\n", source).strip("\n")
        cell["source"] = source.splitlines(keepends=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

for wing, names in stubs.items():
    if names:
        write_stub(PACKAGE / wing / "__init__.pyi", names, "")
