"""Where a model answers: an address, a name, a key, and what pins its answers.

The server speaks the protocol of OpenAI's chat completions, as llama.cpp, vLLM and Ollama do. The key is sent and never
written: it is cut out of whatever a server says.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from synthbook.core.errors import InvalidArgument, SynthbookError

URL, MODEL, KEY = "SYNTHBOOK_LLM_URL", "SYNTHBOOK_LLM_MODEL", "SYNTHBOOK_LLM_KEY"
NO_KEY, HIDDEN = "none", "[key]"
SHORTEST_SECRET = 8  # characters: a shorter key, such as EMPTY or ollama, guards nothing and stands in honest answers


class ModelError(SynthbookError):
    """A language model gave no answer, and asking again did not or would not help."""


@dataclass(frozen=True)
class Endpoint:
    """The `url` up to /v1, the model's name there, a key, what pins its answers in a cache, and what to do if it fails.

    `pinned`: the SHA-256 of the model's file where it is known, else its name.
    """

    url: str
    model: str
    key: str = field(default=NO_KEY, repr=False)
    pinned: str = ""
    remedy: str = "look whether the server runs, and whether this is its address"

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            shown = re.split("[?#]", self.url.rpartition("@")[2])[0]  # a password or a key may stand in the rest
            raise InvalidArgument(URL, shown, "an address such as http://127.0.0.1:8000/v1, with nothing secret in it")
        if not self.model:
            raise InvalidArgument(MODEL, self.model, "the name by which the server knows its model")
        key = self.key.strip() or NO_KEY
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidArgument(KEY, HIDDEN, "a key of letters, digits and signs, without spaces, on one line")
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "pinned", self.pinned or self.model)

    @classmethod
    def from_environment(cls) -> Endpoint | None:
        """What SYNTHBOOK_LLM_URL, _MODEL and _KEY name; None where no address is set."""
        url = os.environ.get(URL, "").strip()
        if not url:
            return None
        remedy = f"look at {URL}, {MODEL} and {KEY}"
        return cls(url, os.environ.get(MODEL, "").strip(), os.environ.get(KEY, ""), remedy=remedy)

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:  # a name
            return False

    def without_key(self, text: str) -> str:
        """A text in which the key is not to be seen."""
        return text if len(self.key) < SHORTEST_SECRET else text.replace(self.key, HIDDEN)

    def shown(self, text: str, length: int = 300) -> str:
        """The beginning of what a server said, on one line, for a message to people."""
        whole = self.without_key(text)  # before it is cut, which could leave a part of the key
        return "".join(c if c.isprintable() else " " for c in whole[:length]).strip()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is none
        good = parts.scheme in ("http", "https") and parts.hostname and url.isprintable() and " " not in url
    except ValueError:
        return False
    return bool(good) and not ("@" in parts.netloc or parts.query or parts.fragment)
