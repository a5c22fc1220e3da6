"""Break a module on purpose: a check that still passes on the broken one checks nothing."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of `module` in which the one occurrence of `old` reads `new`."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    broken = ModuleType(f"{module.__name__}_mutant")
    sys.modules[broken.__name__] = broken  # dataclasses look their module up
    try:
        exec(compile(source.replace(old, new), broken.__name__, "exec"), broken.__dict__)
    finally:
        del sys.modules[broken.__name__]
    return broken
