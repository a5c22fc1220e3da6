"""One HTML page that is read without a network: a title, tables, pictures inside.

Cells and paragraphs are HTML already: whoever has text from somebody else's data escapes it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_CSS = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}.fails{font-weight:bold}"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole page."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_CSS}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; numbers to the right."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ["".join(f'<td class="n">{c}</td>' if _is_number(c) else f"<td>{c}</td>" for c in row) for row in rows]
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _is_number(cell: str) -> bool:
    return cell.lstrip("-").replace(",", "").replace(".", "", 1).isdigit()


def img(figure: Any, alt: str) -> str:
    """A figure as a picture in the page, with the text that stands for it; the figure is closed."""
    from synthbook.core.plots import to_png

    return f'<img src="data:image/png;base64,{base64.b64encode(to_png(figure)).decode()}" alt="{escape(alt)}">'
