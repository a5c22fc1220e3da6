"""PyBullet without its greeting: on import it writes to the error stream, in every notebook and log."""

from __future__ import annotations

import ctypes
import os
import sys

from synthbook.core.errors import SynthbookError


def _import_quietly() -> None:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import pybullet  # noqa: F401

        ctypes.CDLL(None).fflush(None)
    except ImportError as error:
        how = "it comes with synthbook[course], under Python 3.11 (later ones have no wheels)"
        raise SynthbookError(f"PyBullet cannot be imported ({error}): {how}") from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_import_quietly()
import pybullet  # noqa: E402

__all__ = ["pybullet"]
