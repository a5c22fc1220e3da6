"""Textures: named, distinct, and as files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from synthbook.simulation.textures import FAMILIES, atlas, encode_tga, texture


@pytest.mark.parametrize("family", FAMILIES)
def test_textures_are_distinct_and_reproducible_by_name(family: str) -> None:
    images = [texture(f"{family}-{k}") for k in range(4)]
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in images)
    assert len({p.tobytes() for p in images}) == 4
    texture.cache_clear()
    assert (texture(f"{family}-2") == images[2]).all()


def test_an_atlas_and_its_file() -> None:
    six = atlas(tuple(f"flat-{k}" for k in range(6)))
    assert six.shape == (128, 192, 3) and (six[64:, 128:] == texture("flat-5")).all()
    assert (np.asarray(Image.open(BytesIO(encode_tga(six)))) == six).all()
