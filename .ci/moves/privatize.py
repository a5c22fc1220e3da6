"""Underscore functions and constants that only their own module names.

python .ci/moves/privatize.py CHECKOUT
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rename import rename_code

ROOT = Path(sys.argv[1])
PATTERNS = (
    "synthbook/**/*.py",
    "synthbook/**/*.pyi",
    "synthbook/**/*.toml",
    "tests/**/*.py",
    "bench/**/*.py",
    "conftest.py",
)
PATTERNS += ("notebooks/*.ipynb", "docs/**/*.md", "*.md", "pyproject.toml")
texts = {p: p.read_text() for pattern in PATTERNS for p in ROOT.glob(pattern)}
words = {p: set(re.findall(r"[A-Za-z_]\w*", text)) for p, text in texts.items()}
count = 0
for path in sorted((ROOT / "synthbook").rglob("*.py")):
    tree = ast.parse(texts[path])
    stem = path.stem if path.stem != "__init__" else path.parent.name
    top = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            top[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        top[name.id] = node
    bound = {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    bound |= {a.asname or a.name for a in ast.walk(tree) if isinstance(a, ast.alias)}
    for function in ast.walk(tree):
        if isinstance(
            function,
            ast.FunctionDef | ast.ClassDef | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp | ast.Lambda,
        ):
            bound |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    names = {}
    for name in top:
        if name.startswith("_") or name in bound or "_" + name in words[path] or name in ("app", "main"):
            continue
        if any(name in words[p] and stem in words[p] for p in texts if p != path):
            continue
        names[name] = "_" + name
    if names:
        count += len(names)
        path.write_text(rename_code(texts[path], names, {"bare"}))
        print(path.relative_to(ROOT), *names)
        for p in (ROOT / "tests").rglob("*.py"):  # sources that mutants change
            text = p.read_text()
            if "mutant" in text and stem in text:
                new = rename_code(text, names, {"bare"}) if False else text
                if new != text:
                    p.write_text(new)
print(count)
