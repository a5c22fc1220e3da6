"""What runs in the child: give up all rights, say so, read one task, run it, answer, wait to be ended.

The parent starts this file with a bare interpreter. Nothing that it sends after the task was read can be trusted, and
nothing is: values go back as tagged JSON, the parent holds them against what only the parent knows.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEPTH = 200  # levels of lists in lists


def encode(value: Any, depth: int = _DEPTH) -> Any:
    """A value of the plain types as JSON, other types by a tag; `TypeError` for anything else.

    Types are compared exactly: an object that claims to equal everything is of no plain type.
    """
    kind = type(value)
    if depth < 0:
        raise TypeError("more levels than can be sent")
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if value - value == 0 else {"$": "float", "v": repr(value)}  # inf and nan
    if kind is list:
        return [encode(item, depth - 1) for item in value]
    if kind in (tuple, set, frozenset):
        return {"$": kind.__name__, "v": [encode(item, depth - 1) for item in value]}
    if kind is dict:
        return {"$": "dict", "v": [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in value.items()]}
    raise TypeError(f"a result of type {kind.__name__}, which is not sent")


def decode(sent: Any) -> Any:
    """What `encode` made, back; plain JSON objects are dicts."""
    if isinstance(sent, list):
        return [decode(item) for item in sent]
    if not isinstance(sent, dict):
        return sent
    if "$" not in sent:
        return {key: decode(value) for key, value in sent.items()}
    kind, inner = sent["$"], sent["v"]
    if kind == "dict":
        return {decode(key): decode(value) for key, value in inner}
    if kind == "float":
        return float(inner)
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](decode(item) for item in inner)


def _failure(error: BaseException) -> list[str]:
    """A kind of failure, and its words."""
    import errno

    words = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, MemoryError):
        return ["memory", words]
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES):
        return ["denied", words]
    if "can't start new thread" in words:
        return ["denied", words]
    return ["error", words]


def _attempt(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """`{"value": ...}` or `{"failed": [kind, words]}` of one call."""
    try:
        return {"value": encode(work(*arguments))}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are nothing special here
        return {"failed": _failure(error)}


def _outcomes(task: dict[str, Any]) -> list[dict[str, Any]]:
    """An outcome for each call of the task, or one for all of them where the code itself fails."""
    module = sys.modules["answer"] = type(sys)("answer")  # dataclasses look themselves up there
    namespace: dict[str, Any] = module.__dict__
    if task["function"] is None:
        return [_attempt(lambda: eval(compile(task["code"], "<answer>", "eval", dont_inherit=True), namespace))]
    try:
        exec(compile(task["code"], "<answer>", "exec", dont_inherit=True), namespace)
        if not task["function"]:
            return [{"value": None}]  # it ran to its end
        function: Callable[..., Any] = namespace[task["function"]]
    except BaseException as error:
        return [{"failed": _failure(error)}]
    return [_attempt(function, *decode(arguments)) for arguments in task["calls"]]


def _main() -> None:
    """Confine, say what was reached, answer one task."""
    import json
    import os

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import confine  # type: ignore[import-not-found]

    sys.path.pop(0)
    seconds, memory_mib, pipe = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sys.argv = [""]
    level = confine.confine(seconds, memory_mib)
    send, dumps = os.write, json.dumps
    send(pipe, dumps({"isolation": level}).encode() + b"\n")
    task = json.loads(sys.stdin.buffer.read())
    try:
        text = dumps(_outcomes(task), allow_nan=False).encode() + b"\n"
    except BaseException as error:
        text = dumps([{"failed": _failure(error)}]).encode() + b"\n"
    while text:
        text = text[send(pipe, text) :]
    while True:  # the parent reads how much memory was used, then ends this process
        import time

        time.sleep(60)


if __name__ == "__main__":
    _main()
