"""More of the same by small edits: which keep the label, which break it, and what a wrong symmetry costs.

An edit keeps a label where nothing that the label depends on is touched. That is a statement about the world, not about
the text: turning a digit round is harmless in an address and fatal in a sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthbook.language.messages import ChatRequest, SamplingParams, few_shot

_Edit = Callable[[str, np.random.Generator], str]
SYNONYMS = {
    "parcel": "package",
    "weighs": "has a weight of",
    "box": "crate",
    "call": "phone",
    "message": "note",
    "great": "wonderful",
    "win": "gain",
    "home": "house",
    "today": "this day",
    "friend": "mate",
}
_UNITS = {"grams": "kilograms", "kilograms": "grams", "minutes": "hours", "hours": "minutes", "pounds": "pence"}


def synonyms(text: str, rng: np.random.Generator) -> str:
    """Other words for the same things."""
    return re.sub(r"\w+", lambda m: SYNONYMS.get(m[0], m[0]), text)


def _reorder(text: str, rng: np.random.Generator) -> str:
    """Sentences in another order."""
    parts = re.findall(r"[^.!?]+[.!?]*\s*", text)
    return " ".join(parts[i].strip() for i in rng.permutation(len(parts))) if len(parts) > 1 else text


LABEL_PRESERVING: Mapping[str, _Edit] = {
    "synonyms": synonyms,
    "order of sentences": _reorder,
    "spacing": lambda text, rng: text.rstrip(". ").replace(" ", "  ", 1),
}
LABEL_CHANGING: Mapping[str, _Edit] = {
    "negation dropped": lambda text, rng: re.sub(r"\b(not |never |no )", "", text, count=1),
    "digits turned": lambda text, rng: text.translate(str.maketrans("69", "96")),
    "unit changed": lambda text, rng: re.sub(rf"\b({'|'.join(_UNITS)})\b", lambda m: _UNITS[m[0]], text, count=1),
}

# ── statements with an oracle ────────────────────────────────────────────────────────────────────────────────────────

_WEIGHT = re.compile(r"(?:weighs|has a weight of)\s+(\d+)\s+(grams|kilograms)")
_CLAIM = re.compile(r"\bis\s+(not\s+)?(?:heavier|more) than\s+(\d+)\s+(grams|kilograms)")
_IN_GRAMS = {"grams": 1, "kilograms": 1_000}


def statement(rng: np.random.Generator) -> str:
    """Such as "The parcel weighs 640 grams. It is not heavier than 2 kilograms."; true or false."""
    thing = str(rng.choice(["parcel", "box", "stone"]))
    a, b = (int(x) for x in rng.integers(1, 1_000, 2))
    unit, other = (str(u) for u in rng.choice(["grams", "grams", "kilograms"], 2))
    negation = "not " if rng.random() < 0.5 else ""
    return f"The {thing} weighs {a} {unit}. It is {negation}heavier than {b} {other}."


def oracle(text: str) -> bool:
    """Whether a statement is true, whatever was done to it. Raises `ValueError` where it says nothing."""
    weight, claim = _WEIGHT.search(text), _CLAIM.search(text)
    if weight is None or claim is None:
        raise ValueError(f"no statement about a weight: {text!r}")
    heavier = int(weight[1]) * _IN_GRAMS[weight[2]] > int(claim[2]) * _IN_GRAMS[claim[3]]
    return heavier != bool(claim[1])


# ── edits by a model ─────────────────────────────────────────────────────────────────────────────────────────────────

_EXAMPLES = (
    (
        "The jug weighs 2 kilograms. It is heavier than 900 grams.",
        "A jug has a weight of 2 kilograms and is more than 900 grams.",
    ),
    (
        "The jar weighs 300 grams. It is not heavier than 1 kilograms.",
        "A jar has a weight of 300 grams and is not more than 1 kilograms.",
    ),
)


def paraphrase_requests(texts: Sequence[str], *, seed: int = 0) -> Iterator[ChatRequest]:
    """One question for each text: say it in other words. What comes back may say something else."""
    sampling = SamplingParams(temperature=0.7, max_tokens=60, stop=("\n",), seed=seed)
    question = "Say this in other words: "
    examples = [(question + before, after) for before, after in _EXAMPLES]
    for k, text in enumerate(texts):
        yield ChatRequest(few_shot(examples, question + text), sampling, k)


def label_preserved(before: str, after: str) -> bool | None:
    """Whether a rewording of a statement is as true as it was, by the oracle; None where it says nothing any more."""
    try:
        return oracle(after) == oracle(before)
    except ValueError:
        return None


# ── a symmetry, true or false ────────────────────────────────────────────────────────────────────────────────────────


def reflection_augmentation(
    true: bool, *, draws: int = 40, n: int = 120, d: int = 6, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Test errors (draws,) of a support vector machine with and without mirror images of its n training rows.

    With a `true` symmetry the label of -x is that of x; with a false one it is the opposite, and the mirror images are
    given the same label all the same.
    """
    from sklearn.svm import SVC

    errors: dict[str, list[float]] = {"plain": [], "augmented": []}
    for child in np.random.SeedSequence(seed).spawn(draws):
        rng = np.random.default_rng(child)
        w = rng.standard_normal(d)
        x, test = rng.standard_normal((n, d)), rng.standard_normal((2_000, d))

        def label(rows: NDArray[np.float64], w: NDArray[np.float64] = w) -> NDArray[Any]:
            z = rows @ w / np.linalg.norm(w)
            return np.abs(z) > 0.6745 if true else z > 0  # half of all rows either way

        y = label(x)
        sets = {"plain": (x, y), "augmented": (np.concatenate([x, -x]), np.concatenate([y, y]))}
        for name, (rows, labels) in sets.items():
            errors[name].append(float((SVC().fit(rows, labels).predict(test) != label(test)).mean()))
    return {name: np.array(values) for name, values in errors.items()}
