"""Rename identifiers as a map says, in sources, tests, benches and notebooks' code cells.

    python .ci/moves/rename.py CHECKOUT MAP.toml [--check]

The map is a list of tables, applied in order:

    [[rename]]
    files = ["synthbook/generators/**/*.py", "tests/**/*.py", "notebooks/*.ipynb"]   # default: everything
    not = ["synthbook/language/**"]                                                 # except these
    kinds = ["bare", "attribute", "keyword"]     # default: all three; also "string": a literal that is exactly the name
    names = {judge_steps = "n_critic"}

"bare" is a variable, function, class, import or parameter; "attribute" is what follows a dot, and the names that a
class body defines; "keyword" is the name of an argument in a call, and of a parameter. Where a parameter or a class
attribute may be reached in two ways, name both kinds. Names in `backticks` of docstrings, comments and Markdown are
renamed too when all of "bare" and "attribute" are. Names inside the code strings of `mutant(module, "old", "new")` too.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import libcst as cst

ROOTS = ("synthbook/**/*.py", "tests/**/*.py", "bench/**/*.py", "conftest.py", "notebooks/*.ipynb", "docs/**/*.md")
BACKTICKS = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def rename_code(source: str, names: dict[str, str], kinds: set[str]) -> str:
    """`source` with `names` renamed; positions are found on the syntax tree and replaced in the text."""
    if not any(re.search(rf"\b{re.escape(n)}\b", source) for n in names):
        return source
    wrapper = cst.metadata.MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    positions = wrapper.resolve(cst.metadata.PositionProvider)
    parents = wrapper.resolve(cst.metadata.ParentNodeProvider)
    edits: list[tuple[int, int, int, str]] = []
    for node, place in positions.items():
        if isinstance(node, cst.Name) and node.value in names and _kinds(node, parents) & kinds:
            edits.append((place.start.line, place.start.column, len(node.value), names[node.value]))
        elif isinstance(node, cst.SimpleString):
            text = node.raw_value
            if "string" in kinds and text in names:
                quote = len(node.prefix) + len(node.quote)
                edits.append((place.start.line, place.start.column + quote, len(text), names[text]))
    lines = source.splitlines(keepends=True)
    for line, column, length, new in sorted(edits, reverse=True):
        text = lines[line - 1]
        lines[line - 1] = text[:column] + new + text[column + length :]
    code = "".join(lines)
    if {"bare", "attribute"} <= kinds:
        code = _backticks(code, names)
    return _mutants(code, names) if "mutant(" in code else code


def _kinds(node: cst.Name, parents: dict) -> set[str]:
    parent = parents[node]
    if isinstance(parent, cst.Attribute) and parent.attr is node:
        module = _is_import(parent, parents)
        return {"bare"} if module else {"attribute"}
    if isinstance(parent, cst.Arg) and parent.keyword is node:
        return {"keyword"}
    if isinstance(parent, cst.Param) and parent.name is node:
        return {"keyword", "bare"}
    if isinstance(parent, cst.FunctionDef) and parent.name is node:
        return {"attribute"} if _in_class(parent, parents) else {"bare"}
    if isinstance(parent, (cst.AnnAssign, cst.AssignTarget)) and parent.target is node:
        outer = parents[parent]
        outer = parents[outer] if isinstance(outer, cst.Assign) else outer
        if _in_class(outer, parents):
            return {"attribute", "keyword"}  # a field: an attribute, and an argument of a dataclass
    return {"bare"}


def _is_import(node, parents) -> bool:
    while node in parents and isinstance(node, (cst.Attribute, cst.Name, cst.ImportAlias)):
        node = parents[node]
        if isinstance(node, (cst.ImportFrom, cst.Import)):
            return True
    return False


def _in_class(node, parents) -> bool:
    while node in parents:
        node = parents[node]
        if isinstance(node, cst.FunctionDef):
            return False
        if isinstance(node, cst.ClassDef):
            return True
    return False


def _words(text: str, names: dict[str, str]) -> str:
    return WORD.sub(lambda m: names.get(m.group(), m.group()), text)


def _backticks(text: str, names: dict[str, str]) -> str:
    return BACKTICKS.sub(lambda m: "`" + _words(m.group(1), names) + "`", text)


def _mutants(code: str, names: dict[str, str]) -> str:
    """Names inside the string arguments of `mutant(...)` calls follow."""
    out, end = [], 0
    for call in re.finditer(r"\bmutant\(", code):
        depth, k = 1, call.end()
        while k < len(code) and depth:
            depth += {"(": 1, ")": -1}.get(code[k], 0)
            k += 1
        out.append(code[end : call.end()])
        body = code[call.end() : k]
        out.append(re.sub(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", lambda m: _words(m.group(), names), body))
        end = k
    return "".join([*out, code[end:]])


def rename_notebook(path: Path, names: dict[str, str], kinds: set[str]) -> str:
    text = path.read_text(encoding="utf-8")
    document = json.loads(text)
    for cell in document["cells"]:
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if cell["cell_type"] == "code":
            new = rename_code(source, names, kinds)
        elif {"bare", "attribute"} <= kinds:
            new = _backticks(source, names)
        else:
            new = source
        if new != source:
            cell["source"] = new if isinstance(cell["source"], str) else new.splitlines(keepends=True)
    indent = 1
    return json.dumps(document, indent=indent, ensure_ascii=False) + "\n"


def main() -> None:
    root, spec = Path(sys.argv[1]), tomllib.loads(Path(sys.argv[2]).read_text())
    everything = sorted({p for pattern in ROOTS for p in root.glob(pattern)})
    for entry in spec["rename"]:
        kinds = set(entry.get("kinds", ["bare", "attribute", "keyword"]))
        paths = sorted({p for g in entry["files"] for p in root.glob(g)}) if "files" in entry else everything
        left_out = {p for g in entry.get("not", []) for p in root.glob(g)}
        for path in paths:
            if path in left_out or not path.is_file():
                continue
            old = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                new = rename_notebook(path, entry["names"], kinds)
            elif path.suffix == ".py":
                new = rename_code(old, entry["names"], kinds)
            else:
                new = _backticks(old, entry["names"])
            if new != old:
                path.write_text(new, encoding="utf-8")
                print(path)


if __name__ == "__main__":
    main()
