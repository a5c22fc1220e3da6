"""Austen's novels: how the shipped transformer was made, and the file that its text goes into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from synthbook.core.data import austen
from synthbook.core.provenance import Provenance, write_described
from synthbook.models.making import Recipe
from synthbook.models.settings import check_count
from synthbook.models.text.ngram import NGram, Seed
from synthbook.models.text.transformer import Transformer

TextModel = NGram | Transformer
STRETCH = 500  # characters that are drawn together
LOOK = 600  # characters


def write_text(
    model: TextModel,
    n: int,
    path: Path,
    origin: Provenance,
    *,
    seed: Seed,
    prompt: str = "",
    observe: Callable[[int, int], None] = lambda done, n: None,
) -> Path:
    """`prompt` and `n` characters after it as UTF-8, with a sidecar; `observe(characters so far, n)`."""
    check_count("n", n)

    def pieces() -> Iterator[str]:
        yield prompt
        before, root = prompt, seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        for first, child in zip(range(0, n, STRETCH), root.spawn(-(-n // STRETCH)), strict=True):
            before = model.sample(min(STRETCH, n - first), seed=child, prompt=before)  # longer than what it looks at
            yield before
            observe(min(first + STRETCH, n), n)

    return write_described(path, pieces(), origin)


def _look(model: TextModel, stem: Path, origin: Provenance) -> Path:
    return write_text(model, LOOK, stem.with_suffix(".txt"), origin, seed=0)


RECIPES: Mapping[str, Recipe] = {
    "austen-transformer": Recipe(
        Transformer,
        {"layers": 4, "width": 128, "context": 128, "batch": 24, "learning_rate": 2e-3},
        full=4_000,
        quick=100,
        data=lambda: austen().train,
        source="the first nine tenths of each of Austen's novels",
        files=("austen/austen_six_novels.txt.gz",),
        look=_look,
    )
}
