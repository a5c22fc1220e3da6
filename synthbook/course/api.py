"""The API reference: what each package's stub names, with signatures and docstrings, read from the source.

Nothing is imported, so the page costs no time and no heavy package.
"""

from __future__ import annotations

import ast
from pathlib import Path

_HEAD = """# API reference

Everything here is public: `import synthbook as sb` and `sb.Table`, or `from synthbook.privacy import MST`. Modules load
when they are first touched. Seeds are whole numbers or `numpy.random.SeedSequence`; errors are subclasses of
`SynthbookError` and say what was given and what would be accepted.
"""


def api_page(package: Path) -> str:
    """The reference in MyST Markdown: a section for each package with a stub (`__init__.pyi`), the front door first."""
    sections = [_HEAD]
    for stub in sorted(package.glob("**/__init__.pyi"), key=lambda path: (len(path.parts), path)):
        dotted = ".".join(stub.parent.relative_to(package.parent).parts)
        about = ast.get_docstring(ast.parse(stub.with_suffix(".py").read_text(encoding="utf-8"))) or ""
        names = sorted(exported(stub).items(), key=lambda item: item[0].lower())
        entries = [_entry(name, _definition(name, file)) for name, file in names]
        sections.append("\n\n".join([f"## `{dotted}`", about.split("\n\n")[0], *entries]))
    return "\n\n".join(sections) + "\n"


def exported(stub: Path) -> dict[str, Path]:
    """Names that a stub gives, each with the file that defines it; a module's or package's name with its own file."""
    names = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            place = stub.parent.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                inside = place / alias.name
                files = (inside.with_suffix(".py"), inside / "__init__.py", place.with_suffix(".py"))
                names[alias.asname or alias.name] = next(file for file in files if file.is_file())
    return names


def _definition(name: str, file: Path) -> ast.AST:
    """The last statement of a file that binds a name; the file's tree where none does, as the name is the module's."""
    definition: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.iter_child_nodes(definition):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name == getattr(node, "name", None) or name in [getattr(target, "id", None) for target in targets]:
            definition = node
    return definition


def _entry(name: str, node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef):
        return _block(f"{name}{_signature(node)}", ast.get_docstring(node))
    if isinstance(node, ast.ClassDef):
        methods = []
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
                is_property = any("property" in ast.unparse(decorator) for decorator in method.decorator_list)
                call = method.name if is_property else f"{method.name}{_signature(method)}"
                methods.append(f"- `{call}`: {_first_sentence(ast.get_docstring(method))}")
        return "\n\n".join(
            [_block(f"{name}({_fields(node)})", ast.get_docstring(node)), *["\n".join(methods)] * bool(methods)]
        )
    if isinstance(node, ast.Module):
        return _block(name, _first_sentence(ast.get_docstring(node)))
    value = ast.unparse(node.value) if isinstance(node, ast.Assign | ast.AnnAssign) and node.value else ""
    return _block(f"{name} = {value}" if len(value) < 60 else name, None)


def _signature(node: ast.FunctionDef) -> str:
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("cls, ")
    arguments = "" if arguments in ("self", "cls") else arguments
    return f"({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def _fields(node: ast.ClassDef) -> str:
    """What the constructor takes: arguments of `__init__`, or the fields of a dataclass."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return _signature(method).partition(" -> ")[0][1:-1]
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return ""
    fields = (
        field
        for field in node.body
        if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation)
    )
    return ", ".join(ast.unparse(field) for field in fields)


def _block(signature: str, docstring: str | None) -> str:
    return f"```python\n{signature}\n```" + (f"\n\n{docstring}" if docstring else "")


def _first_sentence(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())
