"""Move and merge modules as map.toml says, and repoint whoever names them; names stay as they are.

    pip install libcst
    python .ci/moves/move.py . .ci/moves/map.toml && python .ci/moves/after.py .
    ruff check --fix --select I,F401,F811 synthbook tests bench; ruff format synthbook tests bench

Imports, and names of modules used through them, are rewritten with libcst; dotted and slashed names in other text
by the longest match. Two modules that bind one name to different things can be merged once [rename] names one
of them anew.
This folder goes when the move is done.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path

import libcst as cst

PACKAGE = "synthbook"


class Map:
    def __init__(self, root: Path, path: Path):
        spec = tomllib.loads(path.read_text())
        self.root = root
        self.merged = {
            f"{PACKAGE}.{new}": [f"{PACKAGE}.{old}" for old in olds] for new, olds in spec["modules"].items()
        }
        self.new = {old: new for new, olds in self.merged.items() for old in olds}
        self.packages = {f"{PACKAGE}.{old}": f"{PACKAGE}.{new}" for old, new in spec["packages"].items()}
        self.tests = dict(spec.get("tests", {}))
        self.renames = {f"{PACKAGE}.{module}": names for module, names in spec.get("rename", {}).items()}
        self.principal = spec.get("principal", {})
        self.titles, self.docstrings = spec.get("titles", {}), spec.get("docstrings", {})
        self.modules = {module_of(p, root) for p in (root / PACKAGE).rglob("*.py")}

    def is_module(self, dotted: str) -> bool:
        return dotted in self.modules

    def target(self, dotted: str) -> str:
        """Where a module or package lies by now."""
        return self.new.get(dotted) or self.packages.get(dotted) or self.tests.get(dotted) or dotted

    def name(self, module: str, name: str) -> str:
        return self.renames.get(module, {}).get(name, name)


def module_of(path: Path, root: Path) -> str:
    dotted = str(path.relative_to(root))[:-3].replace("/", ".")
    return dotted.removesuffix(".__init__")


def source_of(module: str, root: Path) -> str:
    return (root / (module.replace(".", "/") + ".py")).read_text()


def dotted(node: cst.BaseExpression | None) -> str:
    if isinstance(node, cst.Attribute):
        return f"{dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""


def expression(name: str) -> cst.Name | cst.Attribute:
    first, *rest = name.split(".")
    node: cst.Name | cst.Attribute = cst.Name(first)
    for part in rest:
        node = cst.Attribute(node, cst.Name(part))
    return node


class Repoint(cst.CSTTransformer):
    """Imports follow their modules. Within `home`, what the same new module holds is no longer imported."""

    def __init__(self, map: Map, home: str | None = None, source: str | None = None):
        self.map, self.home, self.source = map, home, source
        self.local_modules: dict[str, str] = {}  # alias of a sibling module that is now this very module -> old module
        self.local_names: dict[str, str] = {}
        self.moved: dict[str, str] = {}  # a module's name -> that of the module which it is part of now

    def leave_ImportFrom(
        self, original: cst.ImportFrom, updated: cst.ImportFrom
    ) -> cst.BaseSmallStatement | cst.FlattenSentinel | cst.RemovalSentinel:
        base = dotted(updated.module)
        if not base.startswith((PACKAGE, "tests")) or isinstance(updated.names, cst.ImportStar):
            return updated
        groups: dict[str, list[cst.ImportAlias]] = {}
        for alias in updated.names:
            name = alias.name.value
            local = alias.asname.name.value if alias.asname else name
            full = f"{base}.{name}"
            if self.map.is_module(full) or full in self.map.tests:
                parent, _, leaf = self.map.target(full).rpartition(".")
                if self.map.target(full) == self.home:
                    self.local_modules[local] = full
                    continue
            else:
                parent, leaf = self.map.target(base), self.map.name(base, name)
                if parent == self.home:
                    if local != leaf:
                        self.local_names[local] = leaf
                    continue
            if self.map.is_module(full) and not alias.asname and local != leaf:
                self.moved[local] = leaf
            asname = (
                None
                if local == leaf
                else cst.AsName(cst.Name(local), cst.SimpleWhitespace(" "), cst.SimpleWhitespace(" "))
            )
            groups.setdefault(parent, []).append(cst.ImportAlias(cst.Name(leaf), asname))
        if not groups:
            return cst.RemoveFromParent()
        statements = [cst.ImportFrom(expression(parent), names) for parent, names in groups.items()]
        return cst.FlattenSentinel(statements) if len(statements) > 1 else statements[0]

    def leave_Import(self, original: cst.Import, updated: cst.Import) -> cst.Import:
        names = []
        for alias in updated.names:
            old = dotted(alias.name)
            names.append(
                alias.with_changes(name=expression(self.map.target(old))) if old.startswith(PACKAGE + ".") else alias
            )
        return updated.with_changes(names=names)


class Module(cst.CSTTransformer):
    """A module's name follows, where it stands by itself: not as an attribute, nor as a keyword."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        return False

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.Attribute:
        return updated.with_changes(value=original.value.visit(self))

    def visit_Arg(self, node: cst.Arg) -> bool:
        return False

    def leave_Arg(self, original: cst.Arg, updated: cst.Arg) -> cst.Arg:
        return updated.with_changes(value=original.value.visit(self))

    def visit_ImportAlias(self, node: cst.ImportAlias) -> bool:
        return False

    def leave_ImportAlias(self, original: cst.ImportAlias, updated: cst.ImportAlias) -> cst.ImportAlias:
        if updated.asname and self.names.get(updated.asname.name.value) == updated.name.value:
            return updated.with_changes(asname=None)
        return updated

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.Name:
        return updated.with_changes(value=self.names.get(updated.value, updated.value))


def words_of(tree: cst.Module) -> set[str]:
    """All names in a module but attributes and keywords."""
    names: set[str] = set()

    class Visit(cst.CSTVisitor):
        def visit_Attribute(self, node: cst.Attribute) -> bool:
            node.value.visit(self)
            return False

        def visit_Arg(self, node: cst.Arg) -> bool:
            node.value.visit(self)
            return False

        def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
            if not isinstance(node.names, cst.ImportStar):
                for alias in node.names:
                    names.add(alias.asname.name.value if alias.asname else alias.name.value)
            return False

        def visit_Name(self, node: cst.Name) -> None:
            names.add(node.value)

    tree.visit(Visit())
    return names


class Local(cst.CSTTransformer):
    """`module.name` becomes `name` where the module is this one by now; renamed names follow."""

    def __init__(self, modules: dict[str, str], names: dict[str, str], map: Map):
        self.modules, self.names, self.map = modules, names, map

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        if isinstance(updated.value, cst.Name) and updated.value.value in self.modules:
            return cst.Name(self.map.name(self.modules[updated.value.value], updated.attr.value))
        return updated

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> cst.Name:
        return updated.with_changes(value=self.names.get(updated.value, updated.value))


class Attributes(cst.CSTTransformer):
    """`module.name` follows a renamed name."""

    def __init__(self, aliases: dict[str, str], map: Map):
        self.aliases, self.map = aliases, map

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        if isinstance(updated.value, cst.Name) and updated.value.value in self.aliases:
            return updated.with_changes(
                attr=cst.Name(self.map.name(self.aliases[updated.value.value], updated.attr.value))
            )
        return updated


def aliases_of(tree: cst.Module, map: Map) -> dict[str, str]:
    """Local names of modules whose names change."""
    names: dict[str, str] = {}

    class Visit(cst.CSTVisitor):
        def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
            base = dotted(node.module)
            if isinstance(node.names, cst.ImportStar):
                return
            for alias in node.names:
                full = f"{base}.{alias.name.value}"
                if full in map.renames:
                    names[alias.asname.name.value if alias.asname else alias.name.value] = full

    tree.visit(Visit())
    return names


def rewrite(code: str, map: Map, home: str | None = None, source: str | None = None) -> str:
    tree = cst.parse_module(code)
    names = dict(map.renames.get(source or "", {}))
    aliases = aliases_of(tree, map)
    repoint = Repoint(map, home, source)
    tree = tree.visit(repoint)
    if repoint.local_modules or repoint.local_names or names:
        tree = tree.visit(Local(repoint.local_modules, repoint.local_names | names, map))
    taken = words_of(tree)
    free = {old: new for old, new in repoint.moved.items() if new not in taken}
    if free:
        tree = tree.visit(Module(free))
    if aliases:
        aliases = {free.get(alias, alias): module for alias, module in aliases.items()}
        tree = tree.visit(Attributes({a: m for a, m in aliases.items() if a not in repoint.local_modules}, map))
    return tree.code


def is_import(statement: cst.BaseStatement | cst.BaseSmallStatement) -> bool:
    if isinstance(statement, cst.SimpleStatementLine):
        return all(isinstance(small, cst.Import | cst.ImportFrom) for small in statement.body)
    return isinstance(statement, cst.If) and dotted(statement.test) == "TYPE_CHECKING"


def docstring(statement: cst.BaseStatement) -> str | None:
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        value = getattr(statement.body[0], "value", None)
        if isinstance(statement.body[0], cst.Expr) and isinstance(value, cst.SimpleString):
            return value.evaluated_value
    return None


def merge(new: str, olds: list[str], map: Map) -> str:
    """One module of many: their imports on top, then their bodies, a line between them."""
    key = new.removeprefix(PACKAGE + ".")
    principal = map.principal.get(key) or next(
        (old for old in olds if old.rpartition(".")[2] == new.rpartition(".")[2]), olds[0]
    )
    head, imports, body = "", [], []
    for old in olds:
        tree = cst.parse_module(rewrite(source_of(old, map.root), map, new, old))
        statements = list(tree.body)
        doc = docstring(statements[0])
        if doc is not None:
            statements = statements[1:]
        words = (doc or "").strip().split("\n")
        if old.removeprefix(PACKAGE + ".") == principal.removeprefix(PACKAGE + "."):
            head, words = "\n".join(words), words[:1]
        title = map.titles.get(old.removeprefix(PACKAGE + "."), words[0].rstrip(".") if words else "")
        rest = words[1:]
        comment = commented("\n".join(rest).strip("\n"))
        if body or rest:
            body.append(f"\n\n# ── {title} ──\n{comment}\n")
        for s in statements:
            (imports if is_import(s) else body).append(cst.Module([s]).code)
    head = map.docstrings.get(key, head)
    end = "\n" if "\n" in head else ""
    head = f'"""{head}{end}"""'
    imports = [i.lstrip("\n") for i in imports if "__future__" not in i]
    future = "from __future__ import annotations\n"
    return "\n\n".join([head, future + "\n" + united(imports), "".join(body)])


def commented(text: str) -> str:
    """Text as a comment, its prose wrapped anew."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text) if text else []:
        long = not paragraph.startswith(" ") and max(map(len, paragraph.split("\n"))) > 118
        wrapped = textwrap.fill(" ".join(paragraph.split()), 118).split("\n") if long else paragraph.split("\n")
        lines += ["#"] * bool(lines) + [f"# {line}".rstrip() for line in wrapped]
    return "".join(line + "\n" for line in lines)


def sorted_imports(cell: str) -> str:
    """A cell's imports of the package, one line for each module, sorted."""
    lines = cell.split("\n")
    ours = [i for i, line in enumerate(lines) if re.fullmatch(r"from synthbook[\w.]* import [^(]+", line)]
    if len(ours) < 2 or ours[-1] - ours[0] + 1 != len(ours):
        return cell
    names: dict[str, list[str]] = {}
    for i in ours:
        module, _, what = lines[i].removeprefix("from ").partition(" import ")
        names.setdefault(module, []).extend(name.strip() for name in what.split(","))
    block = [
        f"from {module} import {', '.join(sorted(set(what), key=lambda n: (not n.isupper(), not n[0].isupper(), n)))}"
        for module, what in sorted(names.items())
    ]
    return "\n".join([*lines[: ours[0]], *block, *lines[ours[-1] + 1 :]])


def united(imports: list[str]) -> str:
    """Import statements, one for each module; blocks for the type checker last."""
    plain: dict[str, None] = {}
    names: dict[str, dict[str, None]] = {}
    blocks: dict[str, None] = {}
    for text in imports:
        for statement in cst.parse_module(text).body:
            if isinstance(statement, cst.If):
                blocks[cst.Module([statement]).code.lstrip("\n")] = None
                continue
            for small in statement.body:
                if isinstance(small, cst.Import):
                    plain[cst.Module([cst.SimpleStatementLine([small])]).code.lstrip("\n")] = None
                elif dotted(small.module) != "__future__":
                    group = names.setdefault(dotted(small.module), {})
                    for alias in small.names:
                        asname = f" as {alias.asname.name.value}" if alias.asname else ""
                        group[f"{alias.name.value}{asname}"] = None
    lines = [f"from {module} import {', '.join(group)}\n" for module, group in names.items()]
    return "".join([*plain, *lines, "\n", *blocks])


def duplicates(code: str) -> str:
    """Drop a second definition with the same words, such as `Array = NDArray[np.float64]`."""
    tree, seen, body = cst.parse_module(code), set(), []
    for s in tree.body:
        text = cst.Module([s.with_changes(leading_lines=[])]).code.strip() if hasattr(s, "leading_lines") else ""
        if isinstance(s, cst.SimpleStatementLine) and not is_import(s) and text in seen and "=" in text:
            continue
        seen.add(text)
        body.append(s)
    return tree.with_changes(body=body).code


def texts(map: Map) -> Iterable[tuple[re.Pattern[str], dict[str, str]]]:
    dots = {**map.new, **map.packages, **map.tests}
    dots = {old: new for old, new in dots.items() if old != new}
    slashes = {old.replace(".", "/") + ".py": new.replace(".", "/") + ".py" for old, new in dots.items()}
    slashes |= {old.replace(".", "/"): new.replace(".", "/") for old, new in (map.packages | map.tests).items()}
    for table in (dots, slashes):
        pattern = "|".join(re.escape(old) for old in sorted(table, key=len, reverse=True))
        yield re.compile(rf"(?<![\w.])({pattern})(?![\w])"), table


def main() -> None:
    root, map = Path(sys.argv[1]), Map(Path(sys.argv[1]), Path(sys.argv[2]))
    replace = list(texts(map))

    def words(text: str) -> str:
        for pattern, table in replace:
            text = pattern.sub(lambda m, table=table: table[m[1]], text)
        return text

    outputs: dict[Path, str] = {}
    gone: set[Path] = set()
    for new, olds in map.merged.items():
        code = merge(new, olds, map) if len(olds) > 1 else rewrite(source_of(olds[0], root), map, new, olds[0])
        outputs[root / (new.replace(".", "/") + ".py")] = duplicates(code) if len(olds) > 1 else code
        gone |= {root / (old.replace(".", "/") + ".py") for old in olds}
    for path in [
        *(root / PACKAGE).rglob("*.py"),
        *(root / "tests").rglob("*.py"),
        *(root / "bench").rglob("*.py"),
        root / "conftest.py",
    ]:
        if path in gone:
            continue
        target = path
        if path.name == "__init__.py":
            package = module_of(path, root)
            target = root / map.packages.get(package, package).replace(".", "/") / "__init__.py"
        outputs[target] = rewrite(path.read_text(), map)
        if target != path:
            gone.add(path)
    for path, code in outputs.items():
        outputs[path] = words(code)
    for path in gone - outputs.keys():
        path.unlink()
    for path, code in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    for path in (root / "notebooks").glob("*.ipynb"):
        document = json.loads(path.read_text())
        mark = "\n# ···· another cell ····\n"
        code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        pieces = rewrite(mark.join("".join(cell["source"]) for cell in code), map).split(mark)
        pieces = [re.sub(r"^(from synthbook[^;\n]*); (?=from )", r"\1\n", piece, flags=re.M) for piece in pieces]
        assert len(pieces) == len(code)
        for cell in document["cells"]:
            source = "".join(cell["source"])
            changed = pieces.pop(0) if cell["cell_type"] == "code" else source
            changed = words(changed)
            cell["source"] = (sorted_imports(changed) if changed != source else source).splitlines(keepends=True)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    others = [
        "README.md",
        "CONTRIBUTING.md",
        "pyproject.toml",
        "Makefile",
        "environment.yml",
        ".pre-commit-config.yaml",
    ]
    for path in [
        *(root / name for name in others),
        *(root / "docs").rglob("*.md"),
        *(root / "docs").rglob("*.py"),
        *(root / ".github").rglob("*.*"),
        *(root / ".ci").rglob("*"),
    ]:
        if path.is_file():
            path.write_text(words(path.read_text()))
    for package in sorted((root / PACKAGE).rglob("*"), reverse=True):
        if package.is_dir() and not any(package.iterdir()):
            package.rmdir()


if __name__ == "__main__":
    main()
