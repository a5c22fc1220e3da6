"""Turn positional arguments of the evaluation wing's measures into what is judged first and the others by name.

    python .ci/moves/arguments.py FILE...

Calls with a starred positional argument are printed and left as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import libcst as cst

OLD = dict.fromkeys(
    ("prdc", "marginal_distances", "dependence", "pmse", "fidelity_metrics", "classifier_two_sample_test"), ("real", "")
) | {
    "novelty": ("", "train", "holdout"),
    "utility": ("train", "", "holdout"),
    "evaluate": ("train", "holdout", "", "schema"),
}
NO_SPACE = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))


class Calls(cst.CSTTransformer):
    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.Call:
        name = (
            updated.func.attr.value if isinstance(updated.func, cst.Attribute) else getattr(updated.func, "value", "")
        )
        if name not in OLD:
            return updated
        positional = [a for a in updated.args if a.keyword is None]
        if any(a.star for a in positional) or len(positional) < 2:
            print("  left:", cst.Module([]).code_for_node(updated))
            return updated
        named = dict(zip(OLD[name], positional, strict=False))
        first = [named.pop("")] if "" in named else []
        others = [a.with_changes(keyword=cst.Name(role), equal=NO_SPACE) for role, a in named.items()]
        args = [*first, *others, *updated.args[len(positional) :]]
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        last = updated.args[-1].comma
        args = [a.with_changes(comma=comma) for a in args[:-1]] + [args[-1].with_changes(comma=last)]
        return updated.with_changes(args=args)


def change(source: str) -> str:
    return cst.parse_module(source).visit(Calls()).code


for path in map(Path, sys.argv[1:]):
    print(path)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        path.write_text(change(text), encoding="utf-8")
        continue
    document = json.loads(text)
    for cell in document["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and any(f"{name}(" in source for name in OLD):
            new = change(source)
            if new != source:
                cell["source"] = new.splitlines(keepends=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
