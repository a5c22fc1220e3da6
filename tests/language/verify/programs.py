"""Two hundred programs that are right: whoever refuses one is wrong. Expected values come from running them here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

# an expression of x, what it needs, and x
BODIES: tuple[tuple[str, str, Any], ...] = (
    ("x + 1", "", 41),
    ("sum(x)", "", [1, 2, 3]),
    ("sorted(x, key=lambda v: (-v, v))", "", [3, 1, 2]),
    ("[v * v for v in x if v % 2]", "", [1, 2, 3, 4, 5]),
    ("{k: len(k) for k in x}", "", ["a", "bb", ""]),
    ("{v % 3 for v in range(x)}", "", 10),
    ("tuple(reversed(x))", "", [1, "a", None]),
    ("dict(zip(x, range(len(x))))", "", "abc"),
    ("x[::-1]", "", "stressed"),
    ("x.title().swapcase()", "", "pride and prejudice"),
    ("' '.join(sorted(x.split()))", "", "the cat sat"),
    ("f'{x:>8.3f}|{x:e}'", "", 3.14159),
    ("[hex(v) for v in x.encode('utf-8')]", "", "é☃"),
    ("x.encode('utf-16').decode('utf-16')", "", "naïve"),
    ("bin(x).count('1')", "", 2**100 - 1),
    ("pow(3, x, 1_000_007)", "", 10**9),
    ("divmod(-7, x)", "", 3),
    ("round(x, 2)", "", 2.675),
    ("x // 0.7", "", 4.2),
    ("float('inf') > x", "", 1e308),
    ("complex(x, 1).conjugate().imag", "", 2),
    ("int('ff', x)", "", 16),
    ("any(v is None for v in x)", "", [1, None]),
    ("max(x, default='none')", "", []),
    ("[*x, *x]", "", [1]),
    ("(lambda *a, **k: (a, k))(*x, y=1)", "", [1, 2]),
    ("list(map(str, filter(None, x)))", "", [0, 1, "", "a"]),
    ("next(v for v in x if v > 2)", "", [1, 2, 3]),
    ("[a + b for a in x for b in x]", "", ["p", "q"]),
    ("isinstance(x, (int, str))", "", "s"),
    ("heapq.nsmallest(3, x)", "import heapq", [5, 1, 4, 2, 3]),
    ("[heapq.heappop(h) for h in [list(x)] for _ in x if not heapq.heapify(h)]", "import heapq", [3, 1, 2]),
    ("bisect.bisect_left(x, 3)", "import bisect", [1, 2, 3, 4]),
    ("collections.Counter(x).most_common(1)", "import collections", "banana"),
    ("list(collections.deque(x, maxlen=2))", "import collections", [1, 2, 3]),
    ("dict(collections.OrderedDict(a=x))", "import collections", 1),
    ("collections.defaultdict(int, a=x)['b']", "import collections", 5),
    ("list(collections.ChainMap({'a': x}, {'b': 2}))", "import collections", 1),
    ("collections.namedtuple('P', 'a b')(x, 2).b", "import collections", 1),
    ("list(itertools.permutations(x, 2))", "import itertools", [1, 2, 3]),
    ("list(itertools.accumulate(x))", "import itertools", [1, 2, 3]),
    ("[''.join(g) for _, g in itertools.groupby(x)]", "import itertools", "aabbb"),
    ("list(itertools.islice(itertools.count(x), 3))", "import itertools", 5),
    ("functools.reduce(lambda a, b: a * b, x)", "import functools", [1, 2, 3, 4]),
    ("functools.lru_cache(None)(lambda n: n + 1)(x)", "import functools", 1),
    ("operator.itemgetter(1)(x)", "import operator", [1, 2]),
    ("math.isqrt(x) + math.comb(10, 3)", "import math", 10**20),
    ("math.fsum(x)", "import math", [0.1] * 10),
    ("math.floor(math.log2(x))", "import math", 1025),
    ("statistics.median(x)", "import statistics", [3, 1, 2, 10]),
    ("str(fractions.Fraction(x).limit_denominator(10))", "import fractions", 0.333),
    ("str(decimal.Decimal(x) / 3)", "import decimal", "1.00"),
    ("re.sub(r'(\\w+)@(\\w+)', r'\\2 at \\1', x)", "import re", "me@home you@work"),
    ("re.findall(r'\\d+', x)", "import re", "a1b22c333"),
    ("bool(re.fullmatch(r'(?i)[a-z_]\\w*', x))", "import re", "Name_1"),
    ("re.split(r'[;,]\\s*', x)", "import re", "a, b;c"),
    ("json.loads(json.dumps(x))", "import json", {"a": [1, None, True]}),
    ("hashlib.sha256(x.encode()).hexdigest()", "import hashlib", "abc"),
    ("base64.b64encode(x.encode()).decode()", "import base64", "hello"),
    ("zlib.decompress(zlib.compress(x.encode())).decode()", "import zlib", "aaaa" * 100),
    ("random.Random(x).randint(1, 6)", "import random", 7),
    ("datetime.date(x, 2, 28) + datetime.timedelta(1) == datetime.date(x, 2, 29)", "import datetime", 2024),
    ("calendar.monthrange(x, 2)[1]", "import calendar", 2023),
    ("string.ascii_lowercase.index(x)", "import string", "k"),
    ("textwrap.fill(x, 10)", "import textwrap", "the quick brown fox jumps"),
    ("copy.deepcopy(x)", "import copy", [[1], [2]]),
    ("struct.unpack('<I', struct.pack('<I', x))[0]", "import struct", 2**31),
    ("array.array('i', x).tolist()", "import array", [1, 2]),
    ("unicodedata.normalize('NFD', x)", "import unicodedata", "é"),
    ("ast.literal_eval(x)", "import ast", "{'a': [1, 2]}"),
    ("enum.Enum('E', x)['b'].value", "import enum", "a b c"),
    ("contextlib.nullcontext(x).__enter__()", "import contextlib", 3),
    ("csv.reader(io.StringIO(x)).__next__()", "import csv, io", "a,b,'c d'"),
    ("uuid.UUID(int=x).hex", "import uuid", 1),
    ("difflib.SequenceMatcher(None, x, 'abxd').ratio()", "import difflib", "abcd"),
)

PLAIN = "{needs}\ndef f(x):\n    return {body}\n"
LAZY = """{needs}
from typing import Iterator

def made(x) -> Iterator[object]:
    try:
        yield {body}
    finally:
        pass

def f(x):
    return [*made(x)][0]
"""
CLASS = """from __future__ import annotations
{needs}
from dataclasses import dataclass, field

@dataclass
class Solution:
    x: object
    seen: list = field(default_factory=list)

    @property
    def answer(self):
        x = self.x
        self.seen.append(x)
        return {body}

def f(x):
    solution = Solution(x)
    assert solution.seen == []
    return solution.answer
"""


def programs() -> list[tuple[str, tuple[Any, ...], Any]]:
    """Code that defines f, the arguments, and what f returns here."""
    found = []
    for body, needs, x in BODIES:
        for wrapper in (PLAIN, LAZY, CLASS):
            code = wrapper.format(needs=needs, body=body)
            module = sys.modules["program"] = ModuleType("program")  # where dataclasses look for themselves
            exec(compile(code, "program", "exec", dont_inherit=True), module.__dict__)
            found.append((code, (x,), module.f(x)))
    return found
