"""Does an edited text still deserve its label? Two doubts: what carries meaning was touched, and a reader disagrees.

The first needs no model and looks at numbers, units and negations. The second asks a classifier that learned from real
texts. Neither is an oracle: the first sees only what it was told to look at, the second errs as often as it errs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthbook.core.errors import InvalidArgument

NEGATION = re.compile(r"\b(?:not|no|never|none|nobody|nothing|without|cannot)\b|n't\b", re.IGNORECASE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
UNIT = re.compile(r"(?<=\d)\s*(?:kilograms|grams|kg|g|hours|minutes|pounds|pence|km|m|%)\b", re.IGNORECASE)


def changed_label_cue(before: str, after: str) -> str | None:
    """What an edit touched that labels often depend on, else None.

    >>> changed_label_cue("It is not 6 m.", "It is 6 m."), changed_label_cue("a big box", "a big crate")
    ('negation', None)
    """
    for name, pattern in (("negation", NEGATION), ("number", NUMBER), ("unit", UNIT)):
        found, left = (Counter(m.strip().lower() for m in pattern.findall(text)) for text in (before, after))
        if found != left:
            return name
    return None


def label_disagrees(texts: Sequence[str], labels: Sequence[str], classifier: Any) -> NDArray[np.bool_]:
    """For each text whether a classifier with `predict`, trained on real texts, gives it another label."""
    if len(texts) != len(labels) or not texts:
        raise InvalidArgument("labels", len(labels), f"one for each of {len(texts)} texts, at least one")
    given: NDArray[np.bool_] = np.asarray(classifier.predict(list(texts))) != np.asarray(labels)
    return given
