"""A prompt with places for values. `{name}` is filled in, every other brace stays, and `{{name}}` stands for {name}.

What is filled in is data: it is not read for places again, and marks by which a chat template would end a turn are
broken up by a space. A server reads "<|im_end|>" in the middle of a message as the end of that message.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from synthbook.language.messages import break_special_tokens

NAME = re.compile(r"[^\W\d]\w*")
_PLACE = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")
_SHOWN = "\n\u200c\u200d"


@dataclass(frozen=True)
class Template:
    """A text as it was written, and in pieces, each with True where it is the name of a place."""

    source: str
    pieces: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """The pieces of a text.

        >>> Template.of('Write a {tone} review as {"text": ...}, not {{tone}}.').fill({"tone": "{product}"})
        'Write a {product} review as {"text": ...}, not {tone}.'
        """
        pieces, end = list[tuple[str, bool]](), 0
        for found in _PLACE.finditer(text):
            pieces.append((text[end : found.start()], False))
            pieces.append((f"{{{found[1]}}}", False) if found[1] else (found[2], True))
            end = found.end()
        return cls(text, (*pieces, (text[end:], False)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the places, each once, in their order."""
        return tuple(dict.fromkeys(text for text, is_name in self.pieces if is_name))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with a value in every place. Raises `KeyError` for a place without one."""
        return "".join(break_special_tokens(values[text]) if is_name else text for text, is_name in self.pieces)


def as_text(value: object) -> str | None:
    """A value as it stands in a prompt: text, numbers, true and false; None for anything else.

    >>> as_text(True), as_text(2.5), as_text(None)
    ('true', '2.5', None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def visible(text: str) -> str:
    r"""A text for people, whose control characters are spelt out, all but line ends and what joins letters.

    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(
        c if c.isprintable() or c in _SHOWN or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text
    )
