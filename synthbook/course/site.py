"""The book as a web site that is read without a network: built from committed outputs, never by executing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import synthbook
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.files import atomic_write, sha256, sha256_file
from synthbook.course import offline, pages

_BUILDERS = ("sphinx", "myst-nb", "sphinx-book-theme", "sphinx-design")


class SiteError(SynthbookError):
    """The site was not built; the message holds every warning."""


def build(root: Path, *, force: bool = False) -> Path:
    """Build the site of the checkout at `root` and return its first page.

    Reads docs/, notebooks/*.ipynb, bench/results and the ledger; writes under build/site. When none of them changed
    since the last good build, nothing is done unless `force`. Any warning, remote address or image without alternative
    text raises `SiteError`. The site appears all at once: until then, and after a failure, the one before it stays.
    """
    root = Path(root).resolve()
    if not (root / "docs" / "conf.py").is_file():
        raise InvalidArgument("root", str(root), "the folder of a checkout, which holds docs/conf.py")
    folder = root / "build" / "site"
    first_page, stamp = folder / "_build" / "html" / "index.html", folder / "inputs.sha256"
    inputs = inputs_hash(root)
    if not force and first_page.is_file() and stamp.is_file() and stamp.read_text() == inputs:
        return first_page
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".site.", suffix=".tmp") as spare:
        new = Path(spare) / "new"
        _build_into(new, root)
        atomic_write(new / stamp.name, inputs)
        if folder.exists():
            folder.rename(Path(spare) / "old")
        new.rename(folder)
    return first_page


def _build_into(folder: Path, root: Path) -> None:
    source, html = folder / "source", folder / "_build" / "html"  # myst-nb writes beside _build/html
    pages.assemble(root, source)
    _sphinx(source, html)
    pages.restore_downloads(root, html)
    found = offline.faults(html)
    if found:
        raise SiteError(f"the site has {len(found)} faults:\n  " + "\n  ".join(found))


def inputs_hash(root: Path) -> str:
    """SHA-256 over all that the site is made from: pages, notebooks, results, ledger, this package and Sphinx."""
    package = Path(__file__).parent
    pages_of_docs = (path for path in (root / "docs").rglob("*") if path.is_file() and path.suffix != ".pyc")
    made = (*(root / "notebooks").glob("*.ipynb"), *(root / "bench" / "results").glob("*.json"))
    inputs = [(path.relative_to(root), path) for path in (*pages_of_docs, *made)]
    inputs += [(path.relative_to(package), path) for path in (*package.glob("*.py"), package / "claims.toml")]
    lines = [f"{name.as_posix()} {sha256_file(path)}" for name, path in sorted(inputs)]
    lines += [f"{name} {version(name)}" for name in _BUILDERS] + [synthbook.__version__]
    return sha256("\n".join(lines).encode())


def _sphinx(source: Path, html: Path) -> None:
    doctrees = html.parent / "doctrees"
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-N", "-W", "--keep-going"]
    done = subprocess.run(
        [*command, "-d", str(doctrees), str(source), str(html)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr + done.stdout).replace(f"{source}{os.sep}", "").strip()
        raise SiteError(f"Sphinx did not build the site (warnings count as errors):\n{said}")
