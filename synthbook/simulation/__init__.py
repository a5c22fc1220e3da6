"""Section 2: mechanistic simulators, randomized rendering with exact labels, and a localizer tested on photographs."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import lazy_loader

from synthbook.core.errors import SynthbookError

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def import_pybullet() -> Any:
    """Import PyBullet without the greeting that it writes to the error stream. Raises `SynthbookError`."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        import pybullet

        ctypes.CDLL(None).fflush(None)
    except ImportError as error:
        how = "it comes with synthbook[course], under Python 3.11 (later ones have no wheels)"
        raise SynthbookError(f"PyBullet cannot be imported ({error}): {how}") from None
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
    return pybullet
