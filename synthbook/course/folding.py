"""Which code the site folds away, to be opened with a click: the imports at the top, and code that only draws.

A code cell only draws when all of these are true.

1. It shows a picture, and its code is longer than five lines.
2. It does not ask for a guess (`predict`), check a claim (`claim`) or train a model (`fit`), and it defines no function
   or class.
3. At least two thirds of its simple statements draw: they call `plt`, `subplots`, `new_axes`, a function whose name
   begins with `plot`, or a method of what such a call returned (a figure, an axis, a line). Statements inside loops and
   conditions count one each; asserts, prints and imports do not count.
4. No statement assigns to an item or an attribute of an object that the cell did not make.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from synthbook.course import notebook as nb

TAG = "hide-input"  # myst-nb folds the code of cells with this tag
_SHARE = 2 / 3  # of the simple statements
_LONG = 5  # lines; folding fewer saves nothing
_STAY = {"claim", "fit", "predict"}  # a cell that calls one of these stays open
_CANVASES = {"new_axes", "subplots"}


def fold(notebook: nb.Notebook) -> nb.Notebook:
    """Tag the cells whose code myst-nb shall fold, in place; return the notebook."""
    for number, cell in enumerate(nb.code_cells(notebook)):
        try:
            tree = ast.parse(cell["source"])
        except SyntaxError:  # a cell magic
            continue
        # imports, and beside them nothing but bare calls such as `torch.set_num_threads(1)`
        imports = [isinstance(statement, ast.Import | ast.ImportFrom) for statement in tree.body]
        calls = [isinstance(getattr(statement, "value", None), ast.Call) for statement in tree.body]
        prepares = number == 0 and any(imports) and all(map(max, imports, calls)) and not _assigned(tree)
        shows_picture = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if prepares or (shows_picture and _only_draws(tree)):
            cell["metadata"].setdefault("tags", []).append(TAG)
        if prepares:
            cell["metadata"].setdefault("mystnb", {})["code_prompt_show"] = "Show the imports"
    return notebook


def _only_draws(tree: ast.Module) -> bool:
    """Whether the code of a cell that shows a picture only draws.

    >>> code = ["ax = new_axes()", "ax.plot(x)", "ax.set(ylim=(0, 1))", "ax.grid()", "ax.legend()", "plt.show()"]
    >>> _only_draws(ast.parse("\\n".join(code)))
    True
    """
    n_lines = max((statement.end_lineno or 0 for statement in tree.body), default=0)
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    if n_lines <= _LONG or any(_called(node) in _STAY or isinstance(node, definitions) for node in ast.walk(tree)):
        return False
    canvases = _canvases(tree)
    statements = list(_simple_statements(tree))
    others = [statement for statement in statements if not _draws(statement, canvases)]
    own = canvases | {name for other in others for name in _assigned(other)}
    places = [node for other in others for node in ast.walk(other) if isinstance(node, ast.Subscript | ast.Attribute)]
    changes_an_object = any(isinstance(place.ctx, ast.Store) and _root(place) not in own for place in places)
    return len(statements) - len(others) >= _SHARE * len(statements) and not changes_an_object


def _simple_statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements that hold no others, but for asserts, prints and imports."""
    for node in ast.iter_child_nodes(tree):
        if any(isinstance(child, ast.stmt | ast.excepthandler) for child in ast.iter_child_nodes(node)):
            yield from _simple_statements(node)
        elif isinstance(node, ast.stmt):
            prints = isinstance(node, ast.Expr) and _called(node.value) == "print"
            if not prints and not isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
                yield node


def _draws(statement: ast.AST, canvases: set[str]) -> bool:
    """Whether a statement is a call that draws, or assigns what such a call returned."""
    call = getattr(statement, "value", None)
    if not isinstance(call, ast.Call):
        return False
    name = _called(call) or ""
    return _root(call.func) in canvases or name.startswith("plot") or name in _CANVASES


def _canvases(tree: ast.Module) -> set[str]:
    """The names that hold figures, axes and what was drawn on them."""
    canvases = {"plt"}
    for node in ast.walk(tree):  # outer statements first, so axes are known before the loop over them
        if isinstance(node, ast.Assign) and _draws(node, canvases):
            canvases |= _assigned(node)
        elif isinstance(node, ast.For):
            for target, values in _pairs(node.target, node.iter):
                canvases |= _assigned(target) if _root(values) in canvases else set()
    return canvases


def _pairs(target: ast.expr, values: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target of a loop with what it runs over; `zip` and `enumerate` are looked into."""
    if isinstance(values, ast.Call) and isinstance(target, ast.Tuple) and _called(values) in {"zip", "enumerate"}:
        targets = target.elts if _called(values) == "zip" else target.elts[1:]
        for one, argument in zip(targets, values.args, strict=False):
            yield from _pairs(one, argument)
    else:
        yield target, values


def _assigned(tree: ast.AST) -> set[str]:
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def _called(node: ast.AST) -> str | None:
    """The last name of a call's function: "plot" of `axes[0].plot(x)`."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def _root(node: ast.AST) -> str | None:
    """The first name of a chain: "axes" of `axes[0].spines[:].set_visible`."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None
