"""Compares an executed output with the committed one: exact where meaning is, one unit where arithmetic is.

Processors differ in the last bits of a result, so a printed decimal number may differ by one unit of its last digit.
Words, whole numbers, order, shapes and the number of outputs are compared exactly. Digits that are part of a word are
words: identifiers, versions, dates, hashes, file names, quoted text and code. Of a picture the size and a small
thumbnail are compared, which an empty, wrong, recolored or shifted figure does not pass. What a trained network draws
differs visibly from machine to machine: a cell may say which share of what it draws may differ.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8  # pixels to a side of what becomes one pixel of the thumbnail
# How far a pixel of two thumbnails may lie apart, of 255: an edge that moves by one pixel fills an eighth of a block,
# which is 32 in a channel of color, and 21 in gray where the edge is blue.
_LIMITS = {"gray": 22.0, "red": 33.0, "green": 33.0, "blue": 33.0}

_WORD = re.compile(
    r"""`[^`\n]*`|(?<!\w)"[^"\n]*"(?!\w)|(?<!\w)'[^'\n]*'(?!\w)"""  # quoted
    r"""|\w\([^()\n]*\)|\w\[[^\[\]\n]*\]|\w=\S+"""  # code: a call, an index, a keyword
    r"""|(?i:\b(?:sections?|chapters?|figures?|tables?|version|python) [\d.]+)"""
)
_DECIMAL = re.compile(
    r"(?<![\w.,/@#])(?<!\d[:\-])(?<![A-Za-z][:\-])"  # not in a word, version, path, time, date or identifier
    r"[\-−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)\.\d+(?:[eE][+\-]\d+)?|\d+[eE][+\-]\d\d+)"
    r"(?![\w/@]|[.,:\-]\w)"
)

Output = Mapping[str, Any]


def differences(committed: Sequence[Output], executed: Sequence[Output], *, may_differ: float = 0.0) -> list[str]:
    """What differs between two lists of outputs in nbformat's form, for people; empty when nothing does.

    `may_differ` is the share of what a picture draws that may; words and numbers are compared as ever.
    Streams of the name "stderr" are left out on both sides, since process numbers and rates differ from run to run.
    """
    before, after = (
        [output for output in outputs if output.get("name") != "stderr"] for outputs in (committed, executed)
    )
    if len(before) != len(after):
        return [f"{len(before)} outputs are committed, {len(after)} came: {_kinds(before)} against {_kinds(after)}"]
    faults = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        where = f"output {number} of {len(before)}" if len(before) > 1 else "the output"
        if _kinds([old]) != _kinds([new]):
            faults.append(f"{where} was {_kinds([old])} and is {_kinds([new])}")
            continue
        for kind, text in _content(old).items():
            faults += [f"{where} ({kind}): {line}" for line in _compare(kind, text, _content(new)[kind], may_differ)]
    return faults


def _compare(kind: str, old: Any, new: Any, may_differ: float) -> list[str]:
    if kind in ("image/png", "image/jpeg"):
        fault = picture_difference(base64.b64decode(old), base64.b64decode(new), may_differ)
        return [fault] if fault else []
    if isinstance(old, str) and isinstance(new, str):
        return text_differences(old, new)
    return [] if old == new else [f"\n    committed: {old!r}\n    now:       {new!r}"]


def _content(output: Output) -> dict[str, Any]:
    """The parts of an output that are compared, by kind: a stream's text, or each MIME type's data."""
    if output["output_type"] == "stream":
        return {output["name"]: output["text"]}
    if output["output_type"] == "error":
        return {"error": output["ename"]}
    return {kind: data for kind, data in output["data"].items() if kind != "application/vnd.jupyter.widget-view+json"}


def _kinds(outputs: Sequence[Output]) -> str:
    names = ["+".join([output["output_type"], *sorted(_content(output))]) for output in outputs]
    return ", ".join(names) or "none"


def text_differences(committed: str, executed: str) -> list[str]:
    """Pairs of lines that differ by more than one unit of a printed decimal number's last digit.

    Blanks count, except in an output in which a number changed its width.

    >>> text_differences("loss 9.99", "loss 10.0"), len(text_differences("loss 9.99", "loss 10.1"))
    ([], 1)
    """
    if committed == executed:
        return []
    old, new = committed.split("\n"), executed.split("\n")
    pairs = [(a, b) for a, b in zip_longest(old, new) if a is None or b is None or not _same(a, b)]
    if not pairs:
        lines = list(zip(old, new, strict=True))
        wider = any([*map(len, _split(a)[1])] != [*map(len, _split(b)[1])] for a, b in lines)
        pairs = [] if wider else [(a, b) for a, b in lines if re.findall(r"\s+", a) != re.findall(r"\s+", b)]
    return [f"\n    committed: {_shown(a)}\n    now:       {_shown(b)}" for a, b in pairs]


def _shown(line: str | None) -> str:
    return "(no such line)" if line is None else line


def _same(a: str, b: str) -> bool:
    """Whether two lines agree but for blanks and for a unit of each decimal number's last digit."""
    (words, numbers), (other_words, other_numbers) = _split(a), _split(b)
    return words == other_words and all(map(_within_one_unit, numbers, other_numbers))


def _split(line: str) -> tuple[list[str], list[str]]:
    """The words between the decimal numbers, blanks folded, and the numbers."""
    protected = [match.span() for match in _WORD.finditer(line)]
    words, numbers, end = [], [], 0
    for match in _DECIMAL.finditer(line):
        if any(start <= match.start() < stop for start, stop in protected):
            continue
        words.append(line[end : match.start()])
        numbers.append(match[0])
        end = match.end()
    words.append(line[end:])
    return [" ".join(word.split()) for word in words], numbers


def _within_one_unit(a: str, b: str) -> bool:
    """Whether two decimal numbers of one form differ by at most one unit of the last digit of the finer one.

    The number of decimals may differ where that of digits does not, as in 9.99 and 10.0, or where no zero ends either,
    as %g strips them.

    >>> _within_one_unit("0.44", "0.43"), _within_one_unit("0.44", "0.42"), _within_one_unit("0.01", "-0.01")
    (True, False, False)
    >>> _within_one_unit("9.99", "10.0"), _within_one_unit("0.44", "0.440"), _within_one_unit("0.5", "5e-01")
    (True, False, False)
    """
    plain = [text.replace("−", "-").lower() for text in (a, b)]
    if len({"e" in text for text in plain}) > 1:
        return False
    x, y = (Decimal(text.replace(",", "")) for text in plain)
    digits_x, digits_y = (re.sub(r"[^0-9]", "", text.partition("e")[0]).lstrip("0") for text in plain)  # significant
    if any(abs(value) >= 1000 and ("," in plain[0]) != ("," in plain[1]) for value in (x, y)):
        return False
    exponents = [int(value.as_tuple().exponent) for value in (x, y)]
    if exponents[0] != exponents[1] and len(digits_x) != len(digits_y) and "0" in (digits_x[-1:], digits_y[-1:]):
        return False
    return abs(x - y) <= Decimal(1).scaleb(min(exponents))


def picture_difference(committed: bytes, executed: bytes, may_differ: float = 0.0) -> str | None:
    """Why two pictures are not the same figure, or None: another size, or thumbnails that lie apart.

    `may_differ` is the share of the blocks with ink, on either side, that may lie apart.
    """
    old, new = _channels(committed), _channels(executed)
    if old["gray"].shape != new["gray"].shape:
        sizes = " and is ".join(f"{gray.shape[1]} x {gray.shape[0]}" for gray in (old["gray"], new["gray"]))
        return f"the picture was {sizes} pixels"
    thumbnails = {name: (thumbnail(old[name]), thumbnail(new[name])) for name in _LIMITS}
    excess = np.max([np.abs(a - b) / _LIMITS[name] for name, (a, b) in thumbnails.items()], axis=0)
    ink = np.minimum(*thumbnails["gray"]) < 250
    share = float((excess > 1).sum() / max(1, ink.sum()))
    if share <= may_differ:
        return None
    row, column = np.unravel_index(int(excess.argmax()), excess.shape)
    return (
        f"the picture is another one: {share:.1%} of the {_BLOCK}-pixel blocks that it draws on differ by more than "
        f"{_LIMITS['gray']:g} of 255 levels of gray or {_LIMITS['red']:g} of a color (allowed: {may_differ:.0%}), "
        f"most near x = {column * _BLOCK}, y = {row * _BLOCK}"
    )


def _channels(picture: bytes) -> dict[str, NDArray[np.float64]]:
    """The picture on white, in gray and in each color."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        rgba = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        planes = [flat.convert("L"), *flat.convert("RGB").split()]
        return {name: np.asarray(plane, dtype=float) for name, plane in zip(_LIMITS, planes, strict=True)}


def thumbnail(gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean level of each block of pixels; blocks at the right and lower edge may be smaller."""
    starts = [np.arange(0, size, _BLOCK) for size in gray.shape]
    sums = np.add.reduceat(np.add.reduceat(gray, starts[0], axis=0), starts[1], axis=1)
    sides = [np.diff([*start, size]) for start, size in zip(starts, gray.shape, strict=True)]
    return np.asarray(sums / np.outer(*sides))
