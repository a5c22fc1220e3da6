"""A built book must be readable without a network and without sight: find what would break either.

What a browser reads may hold no address on another machine, wherever it stands: every address in a script, a style
sheet or an attribute counts, since any of them can be loaded or visited. Comments, words on a page, and the names
below, which no browser loads, do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

NAMES = (
    "http://www.w3.org/",  # XML namespaces
    "https://pydata-sphinx-theme.readthedocs.io/",  # in a message that the theme writes to the browser's console
)
_PROSE = {"alt", "aria-label", "title"}  # attributes that are read, never followed
_ADDRESS = re.compile(r"(?:https?|wss?|ftp):(?:\\?/){2}[^\s\"'`<>)\\]*", re.IGNORECASE)
# addresses such as //host.org/x, which take the page's own scheme
_IN_QUOTES = re.compile(r"[\"'`]\s*((?:\\?/){2}[\w-]+(?:[.:][\w-]+)+[^\s\"'`<>)\\]*)")
_IN_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(//[^\s'\");]+)", re.IGNORECASE)
_IN_ATTRIBUTE = re.compile(r"(?:^|[\s,;='\"(])((?:\\?/){2}\w[^\s'\"]*)")
_CSS_COMMENT = re.compile(r"(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')|/\*.*?\*/", re.DOTALL)  # strings are kept
_JS_COMMENT = re.compile(r"^[ \t]*(?:/\*.*?\*/|//[^\n]*)", re.DOTALL | re.MULTILINE)  # those that begin a line
_FILE_NAME = re.compile(r"^\S+\.(?:png|jpe?g|svg|gif|webp)$", re.IGNORECASE)


def faults(site: Path) -> list[str]:
    """What a reader without a network, or without sight, would miss in the pages, styles and scripts under `site`.

    One line per fault, each naming the file: an address on another machine, an image without alternative text or with
    a file name in its place.
    """
    found: list[str] = []
    for path in sorted(site.rglob("*")):
        reader = _READERS.get(path.suffix.lower())
        if reader and path.is_file():
            name = path.relative_to(site).as_posix()
            found += [f"{name}: {fault}" for fault in reader(path.read_text(encoding="utf-8"))]
    return found


def _remote(text: str, no_scheme: re.Pattern[str]) -> list[str]:
    """Every address on another machine, each once; `no_scheme` finds those that begin with //."""
    found = [*_ADDRESS.findall(text), *no_scheme.findall(text)]
    return [address for address in dict.fromkeys(found) if not address.replace("\\", "").startswith(NAMES)]


def _css_faults(text: str) -> Iterator[str]:
    text = _CSS_COMMENT.sub(lambda match: match[1] or "", text)
    return (f"the style sheet holds the address {address}" for address in _remote(text, _IN_STYLE))


def _js_faults(text: str) -> Iterator[str]:
    text = _JS_COMMENT.sub("", text)
    return (f"the script holds the address {address}" for address in _remote(text, _IN_QUOTES))


def _html_faults(text: str) -> Iterator[str]:
    page = _Page()
    page.feed(text)
    page.close()
    return iter(page.faults)


_READERS = {
    **dict.fromkeys((".html", ".htm", ".xhtml", ".svg"), _html_faults),
    **dict.fromkeys((".js", ".mjs", ".json", ".webmanifest"), _js_faults),
    ".css": _css_faults,
}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name not in _PROSE and _remote(value or "", _IN_ATTRIBUTE):
                self.faults.append(f'<{tag} {name}="{value}"> points at another machine')
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() == "refresh":
            self.faults.append("<meta http-equiv=refresh> sends the reader elsewhere")
        if tag == "img":
            self._check_alt(dict(attrs))

    def handle_data(self, data: str) -> None:
        reader = {"style": _css_faults, "script": _js_faults}.get(self._inside)
        self.faults += reader(data) if reader else ()

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def _check_alt(self, attrs: dict[str, str | None]) -> None:
        alt, source = (attrs.get("alt") or "").strip(), (attrs.get("src") or "")[:100]
        if not alt:
            self.faults.append(f"image {source} has no alternative text: {_HOW_ALT}")
        elif _FILE_NAME.match(alt):
            self.faults.append(f"image {source} has a file name as alternative text: {_HOW_ALT}")


_HOW_ALT = 'say what it shows in the cell\'s metadata, "mystnb": {"image": {"alt": "..."}}'
