"""Rewrite command lines that name moved verbs, in data, prose and notebooks; mend the hashes that depend on them.

    python .ci/moves/commands.py CHECKOUT [PATTERN ...]        # default: all of the patterns below

Running it again changes nothing. Only the commands change: tables and weights keep their bytes.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from synthbook.core.checkpoints import _own_hash
from synthbook.core.storage import sha256_file
from synthbook.datasets import write_manifest

PATTERNS = ("data/**/*.json", "data/**/SOURCE.md", "notebooks/*.ipynb", "docs/**/*.md", "docs/**/*.toml", "README.md")
RULES = {
    r"\bsynthbook(\s+)calibrate whole\b": r"synthbook\1dev experiment boosted-full",
    r"\bsynthbook(\s+)calibrate teaching\b": r"synthbook\1dev experiment student-filtering",
    r"\bsynthbook(\s+)calibrate worth\b": r"synthbook\1dev experiment answer-utility",
    r"\bsynthbook(\s+)calibrate\b": r"synthbook\1dev experiment",
    r"\bsynthbook(\s+)(train (?=fashion-|austen-|localizer|features)|record\b|score-models|score-localizer)": (
        r"synthbook\1dev \2"
    ),
    r"\bsynthbook (render|generate)\b([^`\n]*) --n (?=\d)": r"synthbook \1\2 -n ",
}


def main() -> None:
    root = Path(sys.argv[1])
    patterns = sys.argv[2:] or PATTERNS
    changed = []
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        old = new = path.read_text(encoding="utf-8")
        for pattern, replacement in RULES.items():
            new = re.sub(pattern, replacement, new)
        if new == old:
            continue
        if path.name == "model.json":
            card = json.loads(new)
            digest = card.pop("sha256_of_card")
            new = new.replace(digest, _own_hash(card))
        path.write_text(new, encoding="utf-8")
        changed.append(path)
        print(path)
    for path in changed:
        sidecar = path.with_name(f"{path.name}.provenance.json")
        if sidecar.exists():
            document = json.loads(sidecar.read_text())
            sidecar.write_text(sidecar.read_text().replace(document["sha256"], sha256_file(path)))
    write_manifest(root / "data")


main()
