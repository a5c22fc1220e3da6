"""A built book must be readable without a network and without sight: find what would break either."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# attributes that make a browser load or visit an address
_ADDRESSES = {"action", "background", "cite", "data", "formaction", "href", "poster", "src", "srcset", "xlink:href"}
_REMOTE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
_CSS_REMOTE = re.compile(r"(?:url\(\s*|@import\s+)['\"]?\s*((?:https?:)?//[^'\")\s;]+)", re.IGNORECASE)
_JS_REMOTE = re.compile(r"\b(?:src|href|action)\s*=\s*\\?['\"]((?:https?:)?//[^'\"\\]+)", re.IGNORECASE)
_FILE_NAME = re.compile(r"^\S+\.(?:png|jpe?g|svg|gif|webp)$", re.IGNORECASE)


def faults(site: Path) -> list[str]:
    """What a reader without a network, or without sight, would miss in the HTML, CSS and JavaScript files of `site`.

    One line per fault, each naming the file: an address on another machine, an image without alternative text or with
    a file name in its place.
    """
    found: list[str] = []
    for path in sorted(site.rglob("*")):
        reader = {".html": _html_faults, ".css": _css_faults, ".js": _js_faults}.get(path.suffix)
        if reader:
            name = path.relative_to(site).as_posix()
            found += [f"{name}: {fault}" for fault in reader(path.read_text(encoding="utf-8"))]
    return found


def _css_faults(text: str) -> Iterator[str]:
    return (f"the style sheet loads {address}" for address in _CSS_REMOTE.findall(text))


def _js_faults(text: str) -> Iterator[str]:
    return (f"the script writes a link to {address}" for address in _JS_REMOTE.findall(text))


def _html_faults(text: str) -> Iterator[str]:
    page = _Page()
    page.feed(text)
    page.close()
    return iter(page.faults)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name in _ADDRESSES and any(_REMOTE.match(part) for part in _addresses(name, value or "")):
                self.faults.append(f'<{tag} {name}="{value}"> points at another machine')
            if name == "style":
                self.faults += _css_faults(value or "")
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() == "refresh":
            self.faults.append("<meta http-equiv=refresh> sends the reader elsewhere")
        if tag == "img":
            self._check_alt(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.faults += _css_faults(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def _check_alt(self, attrs: dict[str, str | None]) -> None:
        alt, source = (attrs.get("alt") or "").strip(), (attrs.get("src") or "")[:100]
        if not alt:
            self.faults.append(f"image {source} has no alternative text: {_HOW_ALT}")
        elif _FILE_NAME.match(alt):
            self.faults.append(f"image {source} has a file name as alternative text: {_HOW_ALT}")


_HOW_ALT = 'say what it shows in the cell\'s metadata, "mystnb": {"image": {"alt": "..."}}'


def _addresses(name: str, value: str) -> list[str]:
    return value.split(",") if name == "srcset" else [value]
