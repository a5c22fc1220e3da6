"""Compute the goldens: `python -m tests.goldens`, with `--record` to replace those on file.

Most are the same on every processor, as all compute with the kernels of the oldest. Networks are not: for them the file
holds one hash for each kind of processor. `--add` adds this one's; do that on a commit before your change.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.goldens.recorder import HASHES, environment, hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {HASHES.name} instead of printing")
    parser.add_argument("--add", action="store_true", help="add this processor's to those on file")
    parser.add_argument("--computing", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.computing:
        import torch

        from tests.goldens import cases  # noqa: F401  # registers them

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(hashes(Path(folder)), indent=1))
        return 0
    actual = computed()
    if arguments.record or arguments.add:
        known = read() if arguments.add else {}
        lists = {name: list(dict.fromkeys([*known.get(name, ()), digest])) for name, digest in actual.items()}
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(digests)}" for name, digests in lists.items())
        HASHES.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    else:
        print(json.dumps(actual, indent=1))
    return 0


def read() -> dict[str, list[str]]:
    """The hashes on file by name, one for each kind of processor."""
    hashes_by_name: dict[str, list[str]] = json.loads(HASHES.read_text(encoding="utf-8"))
    return hashes_by_name


def computed() -> dict[str, str]:
    """The goldens' hashes by name, computed in a process of its own."""
    command = [sys.executable, "-m", "tests.goldens", "--computing"]
    printed = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout
    digests: dict[str, str] = json.loads(printed)
    return digests


if __name__ == "__main__":
    sys.exit(main())
