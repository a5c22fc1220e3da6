"""The site: built from a small book of its own, then judged as a reader without a network would meet it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.course import notebook as nb
from synthbook.course import offline, pages, site
from synthbook.course.board import board
from synthbook.course.claims import Shown, ledger
from synthbook.course.ledger_page import ledger_page
from tests.conftest import require

pytestmark = pytest.mark.slow  # every test builds a site or opens a browser

ROOT = Path(site.__file__).resolve().parents[2]
CLAIM = "C7.2-1"
FORMULA = r"$\sigma_t^2 = (1 - 1/n)^t$"


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *outputs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "metadata": metadata, "source": source}
    return cell | {"outputs": list(outputs), "execution_count": 1}


def picture() -> dict[str, Any]:
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "png")
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "metadata": {}, "data": data}


def alt(text: str) -> dict[str, Any]:
    return {"mystnb": {"image": {"alt": text}}}


def rows(holds: bool = True) -> list[dict[str, Any]]:
    """Every part of the claim, measured at its expected value, or far from it."""
    wrong = {"near": 5.0, "at least": -5.0, "at most": 5.0}
    return [
        {"id": CLAIM, "part": part.id, "measured": 0.25 + (0 if holds else wrong[part.rule]), "expected": 0.25}
        | {"tolerance": 0.0, "elements": 1, "holds": holds}
        for part in ledger()[CLAIM].parts
    ]


def notebook(*cells: dict[str, Any], claims: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    metadata = {"synthbook": {"claims": claims or []}}
    return nb.normalise({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)})


def write_book(root: Path, **books: dict[str, Any]) -> Path:
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "notebooks").mkdir()
    for name, book in books.items():
        (root / "notebooks" / f"{name.lstrip('_')}.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two notebooks, one of which checks a claim."""
    check = f'claim("{CLAIM}", part="x", measured=1.0, expected=1.0)'
    collapse = [markdown(f"# Model collapse\n\nHere {FORMULA}."), code("plot()", picture(), **alt("A falling line"))]
    later = notebook(*collapse, code(check), claims=rows())
    first = notebook(markdown("# Start here\n\nSee [collapse](07a_collapse.ipynb) and zebrafish."))
    return write_book(tmp_path_factory.mktemp("book"), _00_start=first, _07a_collapse=later, _01_demand=first)


@pytest.fixture(scope="module")
def html(book: Path) -> Path:
    index = site.build(book)
    assert index == book / "build" / "site" / "_build" / "html" / "index.html"
    return index.parent


def test_no_page_style_or_script_points_at_another_machine(html: Path) -> None:
    assert offline.faults(html) == []
    assert "cdn." not in (html / "_static" / "mathjax" / "tex-svg-full.js").read_text(encoding="utf-8")
    for page in html.rglob("*.html"):  # a second opinion, coarser than the parser's
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"https?://", text), page
        assert not re.search(r"""=\s*["']?//""", text), page


def test_every_claim_has_a_row_that_links_can_reach(html: Path) -> None:
    page = (html / "claims.html").read_text(encoding="utf-8")
    text = flat(page)
    assert len(ledger()) == 73
    for claim in ledger().values():
        assert f'id="{claim.id.lower().replace(".", "-")}"' in page
        for words in (claim.id, claim.title, *(part.says for part in claim.parts)):
            assert words in text, words
    assert "1 ✓ shown and holds" in text
    assert "72 – not yet shown" in text
    assert "0.25 measured" in text


def flat(page: str) -> str:
    """What a reader sees, in one line, with the typographer's quotes and dashes taken back."""
    text = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))
    return text.translate(str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})).replace("…", "...")


def test_a_cell_that_checks_a_claim_has_a_note_in_the_margin_that_leads_to_its_row(html: Path) -> None:
    page = (html / "notebooks" / "07a_collapse.html").read_text(encoding="utf-8")
    note = re.search(r'<aside class="margin.*?</aside>', page, re.DOTALL)
    assert note
    assert 'href="../claims.html#c7-2-1"' in note[0]
    assert CLAIM in note[0]
    assert "margin" not in (html / "notebooks" / "00_start.html").read_text(encoding="utf-8").split("<article")[1]


def test_downloads_are_the_committed_notebooks(book: Path, html: Path) -> None:
    for path in (book / "notebooks").glob("*.ipynb"):
        assert (html / "_sources" / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_the_figure_has_its_alternative_text(html: Path) -> None:
    page = (html / "notebooks" / "07a_collapse.html").read_text(encoding="utf-8")
    assert re.findall(r'<img alt="([^"]*)" src="\.\./_images', page) == ["A falling line"]


def test_the_first_page_lists_the_notebooks_in_the_order_of_reading(html: Path) -> None:
    article = (html / "index.html").read_text(encoding="utf-8").split("<article")[1]
    assert re.findall(r'href="notebooks/(\w+)\.html"', article)[:3] == ["00_start", "07a_collapse", "01_demand"]


def test_an_unchanged_book_is_not_built_again(book: Path, html: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "_sphinx", lambda *paths: pytest.fail("Sphinx ran again"))
    assert site.build(book) == html / "index.html"


@pytest.mark.parametrize("changed", ["docs/about.md", "docs/_static/book.css", "notebooks/00_start.ipynb"])
def test_any_change_of_an_input_is_noticed(book: Path, changed: str) -> None:
    before, original = site.inputs_hash(book), (book / changed).read_bytes()
    (book / changed).write_bytes(original + b"\n")
    assert site.inputs_hash(book) != before
    (book / changed).write_bytes(original)
    assert site.inputs_hash(book) == before


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"docs/conf\.py"):
        site.build(tmp_path)


def test_what_a_reader_would_miss_fails_the_build_and_the_next_build_starts_anew(tmp_path: Path) -> None:
    bad = notebook(
        markdown("# Bad\n\nRead [this](https://example.org/paper)."),
        code("no_alt()", picture()),
    )
    root = write_book(tmp_path / "bad", _02_bad=bad)
    with pytest.raises(SynthbookError) as failed:
        site.build(root)
    assert "02_bad.html" in str(failed.value)
    assert "https://example.org/paper" in str(failed.value)
    assert "file name as alternative text" in str(failed.value)
    assert "mystnb" in str(failed.value)
    assert not (root / "build" / "site" / "inputs.sha256").exists()


def test_a_warning_of_sphinx_fails_the_build_and_is_shown(tmp_path: Path) -> None:
    bad = notebook(markdown("# Bad\n\nSee [nothing](nowhere.md)."), code('claim("C0-0", part="x", measured=1)'))
    root = write_book(tmp_path / "bad", _02_bad=bad)
    with pytest.raises(SynthbookError) as failed:
        site.build(root)
    assert "nowhere.md" in str(failed.value)
    assert re.search(r"undefined label: 'c0-0'", str(failed.value))
    assert "notebooks/02_bad.ipynb" in str(failed.value)
    assert str(tmp_path) not in str(failed.value)


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
    (fault,) = offline.faults(tmp_path)
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
    assert offline.faults(tmp_path) == []


def test_a_note_stands_before_every_cell_that_checks_a_claim_and_nowhere_else() -> None:
    cells = [code("x = 1"), code(f'x = 2\ncourse.claim(id="{CLAIM}", part="a", at=x)'), markdown('claim("C1.1-1")')]
    noted = pages.with_margin_notes(notebook(*cells))["cells"]
    assert [cell["cell_type"] for cell in noted] == ["code", "markdown", "code", "markdown"]
    assert noted[1]["source"] == f"```{{margin}}\nChecks claim {{ref}}`{CLAIM} <{CLAIM}>`\n```"


def test_a_claim_that_fails_is_marked_as_failing_whatever_the_notebook_says() -> None:
    lying = [row | {"holds": True} for row in rows(holds=False)]
    page = ledger_page(board({"07a_collapse": lying}))
    assert "**1** ✗ shown and fails" in page
    assert Shown(**lying[0]).holds  # the stored flag said otherwise


def test_a_part_about_a_trained_network_shows_digits_only_where_it_fails() -> None:
    def page(blur: float) -> str:
        bounds = {"id": "C3.1-2", "expected": 0.6, "tolerance": 0.0, "elements": 1, "holds": True}
        parts = {"variance_kept": 0.6, "image_blur": blur}  # exact: near 0.6; model: at most 0.6
        return ledger_page(board({"03a_vae": [bounds | {"part": part, "measured": m} for part, m in parts.items()]}))

    assert "✓ fine detail in VAE images, over that in real ones\n" in page(0.123)
    assert "✗ fine detail in VAE images, over that in real ones: **0.789** measured, expected at most 0.6" in page(
        0.789
    )
    assert page(0.123).count("measured, expected 0.6") == 1


def test_text_of_the_ledger_cannot_become_markup() -> None:
    result = board({})
    result.rows[0]["statement"] = "a*b*c <script> $x$ `d` [e](f)"
    assert r"a\*b\*c \<script\> \$x\$ \`d\` \[e\](f)" in ledger_page(result)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const list = document.createElement("pre");
  list.id = "requests";
  list.textContent = performance.getEntriesByType("resource").map(entry => entry.name).join("\\n");
  document.body.append(list);
}, 2000));</script></body>"""


def dom(address: str, profile: Path) -> str:
    """The page as a browser without a network leaves it after a few seconds of its own time."""
    require(CHROMIUM, "no chromium: install the package of that name to test the site in a browser")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *QUIET, f"--user-data-dir={profile}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_search_works_from_the_file_system(html: Path, tmp_path: Path) -> None:
    hits = dom(f"{html.as_uri()}/search.html?q=zebrafish", tmp_path).split('id="search-results"')[1]
    assert 'href="notebooks/00_start.html' in hits
    assert 'href="notebooks/07a_collapse.html' not in hits


def test_formulas_are_drawn_without_asking_another_machine(html: Path, tmp_path: Path) -> None:
    page = html / "notebooks" / "07a_collapse.html"
    probed = page.with_name("probe.html")
    leak = '<img src="https://example.invalid/leak.png" alt="a request that the probe must notice">'
    try:
        probed.write_text(page.read_text(encoding="utf-8").replace("</body>", leak + PROBE), encoding="utf-8")
        seen = dom(probed.as_uri(), tmp_path)
    finally:
        probed.unlink()
    assert re.search(r"<mjx-container[^>]*><svg", seen)
    assert "<mjx-assistive-mml" in seen
    requests = re.search(r'<pre id="requests">(.*?)</pre>', seen, re.DOTALL)
    assert requests
    remote = [address for address in requests[1].split() if not address.startswith(("file:", "data:", "blob:"))]
    assert remote == ["https://example.invalid/leak.png"]


def test_the_real_book_builds() -> None:
    html = site.build(ROOT).parent
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        ids = {id for cell in nb.code_cells(nb.read(path)) for id in nb.claim_ids(cell)}
        page = (html / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert ids == {unescape(id) for id in re.findall(r'claims\.html#[^"]+"><span[^>]*>(C[\d.]+-\d+)<', page)}
