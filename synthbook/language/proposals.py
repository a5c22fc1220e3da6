"""One proposed instruction: read out of an answer, looked at for its form, and held against all that are known.

    dropped where ROUGE-L(new, known) >= 0.7 for any known one                        Wang et al., arXiv:2212.10560

Of an answer one line counts, up to the mark of a next task or of a speaker. So no instruction can pose as two, or as
somebody else's turn, where it is shown to a model again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from synthbook.core.errors import InvalidArgument
from synthbook.language.chat import HALVES, Answer
from synthbook.language.pipeline import Stage, Told
from synthbook.language.records import Record
from synthbook.language.verify.dedup import rouge_l

MOST_ALIKE = 0.7
WORDS = (4, 40)  # of an instruction
READ = 2_000  # characters of an answer
BEYOND_TEXT = re.compile(
    r"\b(?:images?|pictures?|photos?|graphs?|files?|maps?|draw|plot|videos?|audio|diagrams?|websites?|go to)\b", re.I
)
LOST = "\ufffd"  # stands for what was no character
TURN = r"<\|[^<>]*>|</?s>|\[/?INST\]|<</?SYS>>|#{2,}|\b(?:system|user|assistant|human)\s*:"
SPEAKER = re.compile(TURN, re.I)
NEXT = re.compile(rf"{TURN}|\btask\s*#?\d+\s*:", re.I)
FIRST = re.compile(rf"(?:{TURN}|[\s\-*+>•\"'`_]|task\s*#?\d*\s*[:.)]|\d+\s*[.:)](?!\d))+", re.I)
NEAREST = "nearest"  # the verdict that holds the likeness


def parsed(answer: str) -> str:
    """The instruction in an answer: its first line that says something, without a number or marks around it.

    >>> parsed("\\nTask 9: Count the  rows.\\nTask 10: Leave your record.")
    'Count the rows.'
    """
    text = unicodedata.normalize("NFKC", HALVES.sub(LOST, answer[:READ]))
    return next(filter(None, map(_instruction, text.splitlines())), "")


def _instruction(line: str) -> str:
    line = " ".join(line.split())
    if first := FIRST.match(line):
        line = line[first.end() :]
    if another := NEXT.search(line):
        line = line[: another.start()]
    return line.strip("*_\"'`: ")


def proposal(name: str, answer: Answer) -> Record:
    """The record of what an answer proposes."""
    cut = answer.finish == "length" and len(answer.text.strip().splitlines()) < 2
    return Record(name, "", parsed(answer.text), "", {"cut off": cut, "tokens": answer.completion_tokens})


def fault(instruction: str) -> str | None:
    """What is wrong with the form of an instruction, else None."""
    if not instruction:
        return "empty"
    count = len(instruction.split())
    if count < WORDS[0]:
        return "too short"
    if count > WORDS[1]:
        return "too long"
    if not instruction.isprintable() or LOST in instruction:
        return "unprintable"
    if not (instruction[0].isascii() and instruction[0].isalnum()):
        return "no plain sentence"
    return "not for a model of text" if BEYOND_TEXT.search(instruction) else None


def plain() -> Stage:
    """Keeps whole instructions of a plain form, that ask a model of text for nothing but text."""

    def stage(records: Iterable[Record]) -> Iterator[Told]:
        for record in records:
            reason = fault(record.response)
            yield record, "cut off" if reason is None and record.provenance["cut off"] else reason

    return stage


def different(known: Iterable[str], most: float = MOST_ALIKE) -> Stage:
    """Drops what is like a known instruction; what stays is known from then on."""
    if not most > 0:
        raise InvalidArgument("most", most, "a likeness above 0; infinity keeps everything")
    pool = list(known)

    def stage(records: Iterable[Record]) -> Iterator[Told]:
        for record in records:
            alike = max((rouge_l(record.response, other) for other in pool), default=0.0)
            if alike < most:
                pool.append(record.response)
            yield record.told(NEAREST, alike), None if alike < most else "like another"

    return stage
