"""Compute the goldens with the arithmetic that all processors share: `python -m tests.goldens [--record]`."""

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
    parser.add_argument("--computing", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.computing:
        import torch

        from tests.goldens import cases  # noqa: F401  # registers them

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(hashes(Path(folder)), indent=1))
        return 0
    document = computed()
    if arguments.record:
        HASHES.write_text(document, encoding="utf-8")
    else:
        print(document, end="")
    return 0


def computed() -> str:
    """The goldens as JSON, computed in a process of its own."""
    command = [sys.executable, "-m", "tests.goldens", "--computing"]
    return subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
