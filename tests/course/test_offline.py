"""What a reader without a network, or without sight, would miss: each kind of fault is found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthbook.course import site


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.html", '<a href="https://example.org">x</a>', "<a href="),
        ("a.html", '<script src="//example.org/x.js"></script>', "<script src="),
        ("a.html", '<script type="module">import("https://example.org/x.js")</script>', "https://example.org/x.js"),
        ("a.html", '<script>fetch("//example.org/x")</script>', "//example.org/x"),
        ("a.html", "<button onclick=\"fetch('https://example.org/x')\">x</button>", "<button onclick="),
        ("a.html", '<img alt="x" srcset="a.png 1x, https://example.org/b.png 2x">', "srcset"),
        ("a.html", '<img alt="x" src="a.png" srcset="a.png 1x,//example.org/b.png 2x">', "srcset"),
        ("a.html", '<div data-src="https://example.org/x.png"></div>', "data-src"),
        ("a.html", """<div data-options='{"url": "//example.org/x"}'></div>""", "data-options"),
        ("a.html", "<iframe srcdoc=\"&lt;script src='https://example.org'&gt;\"></iframe>", "srcdoc"),
        ("a.html", '<link rel="preconnect" href="//fonts.example.org">', "<link href="),
        ("a.html", '<base href="//localhost">', "<base href="),
        ("a.html", '<form action="http://example.org"></form>', "action"),
        ("a.html", '<object data="HTTPS://example.org"></object>', "data"),
        ("a.html", '<meta property="og:image" content="https://example.org/x.png">', "content"),
        ("a.html", "<style>body { background: url(//example.org/x.png) }</style>", "example.org/x.png"),
        ("a.html", "<p style=\"background: url('https://example.org/x.png')\">x</p>", "example.org/x.png"),
        ("a.html", '<p style="background: url(//example.org/x.png)">x</p>', "example.org/x.png"),
        ("a.html", '<meta http-equiv="refresh" content="0; url=b.html">', "refresh"),
        ("a.html", '<img src="a.png">', "no alternative text"),
        ("a.html", '<img src="a.png" alt=" ">', "no alternative text"),
        ("a.html", '<img src="a.png" alt="_images/0a1b2c3d.png">', "file name"),
        ("a.svg", '<svg><image xlink:href="https://example.org/x.png"/></svg>', "xlink:href"),
        ("a.css", '@import "https://example.org/x.css";', "example.org/x.css"),
        ("a.css", "@import '//example.org/x.css';", "example.org/x.css"),
        ("a.css", "@font-face { src: url('//example.org/x.woff') }", "example.org/x.woff"),
        ("a.css", "p { content: '/*'; background: url(https://example.org/x) } /* x */", "example.org/x"),
        ("a.css", "p { background: image-set('https://example.org/x.png' 1x) }", "example.org/x.png"),
        ("a.js", "s.innerHTML='<a href=\"https://example.org\">'", "example.org"),
        ("a.js", "new Worker('https://example.org/w.js')", "https://example.org/w.js"),
        ("a.js", 'import x from "//example.org/x.js"', "//example.org/x.js"),
        ("a.js", "r.url=`https://example.org/${name}`", "https://example.org/"),
        ("a.js", 'new WebSocket("wss://example.org")', "wss://example.org"),
        ("a.js", 'x = {"url":"https:\\/\\/example.org"}', "example.org"),
        ("a.js", 'x = "/*"; fetch("https://example.org"); /* x */', "https://example.org"),
        ("a.json", '{"logo": "https://example.org/x.png"}', "https://example.org/x.png"),
    ],
)
def test_each_kind_of_fault_is_found(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (fault,) = site.find_problems(tmp_path)
    assert fault.startswith(f"{name}: ")
    assert says in fault


ALLOWED = {
    "a.html": """<!-- https://example.org --><a href="b.html#x" title="see https://example.org">x</a>
        <img src="data:image/png;base64,AA//x.y" alt="A dot"><p>See https://example.org and "//example.org"</p>
        <svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg><script>let a = 1 // 2</script>""",
    "a.css": "p { background: url(data:image/png;base64,AA) } /* https://example.org\n url(//example.org) */",
    "a.js": """/*! https://example.org/licence */ const ns = "http://www.w3.org/2000/svg"
        // see https://example.org
        const path = ".//self::*[@id]", half = "//", n = 4 //2
        """,
    "a.txt": "https://example.org",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_no_browser_loads_is_no_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ALLOWED[name], encoding="utf-8")
    assert site.find_problems(tmp_path) == []
