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
from synthbook.course import site
from synthbook.course import site as offline
from synthbook.course import site as pages
from synthbook.course.claims import load_claims
from tests.conftest import require

pytestmark = pytest.mark.slow  # nearly every test builds a site or opens a browser

ROOT = Path(site.__file__).resolve().parents[2]
CLAIM = "C7.2-1"
FORMULA = r"$\sigma_t^2 = (1 - 1/n)^t$"
WIDE_FORMULA = "$$" + " + ".join(f"x_{{{k}}}" for k in range(40)) + "$$"
CARD = "| | |\n|---|---|\n| **Section** | 7.2 of the chapter |"
FRAME = (
    "<div><table border='1' class='dataframe'><thead><tr><th></th>{}</tr></thead><tbody><tr><th>a</th>{}</tr></tbody>"
)


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


def frame(columns: int) -> dict[str, Any]:
    """What pandas gives a notebook for a table."""
    page = FRAME.format("<th>precision</th>" * columns, "<td>0.25</td>" * columns) + "</table></div>"
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": page, "text/plain": "a"}}


def alt(text: str) -> dict[str, Any]:
    return {"mystnb": {"image": {"alt": text}}}


def rows(holds: bool = True) -> list[dict[str, Any]]:
    """Every part of the claim, measured at its expected value, or far from it."""
    wrong = {"near": 5.0, "at least": -5.0, "at most": 5.0}
    return [
        {"id": CLAIM, "part": part.id, "measured": 0.25 + (0 if holds else wrong[part.comparison]), "expected": 0.25}
        | {"tolerance": 0.0, "elements": 1, "holds": holds}
        for part in load_claims()[CLAIM].parts
    ]


def notebook(*cells: dict[str, Any], claims: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    metadata = {"synthbook": {"claims": claims or []}}
    return nb.normalize({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)})


def write_book(root: Path, **books: dict[str, Any]) -> Path:
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "notebooks").mkdir()
    for name, book in books.items():
        (root / "notebooks" / f"{name.lstrip('_')}.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return root


DRAWING = "ax = new_axes()\nax.plot(x)\nax.set(xlabel='t')\nax.grid(False)\nax.legend()\nplt.show()"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with three notebooks, one of which checks a claim."""
    check = f'claim("{CLAIM}", part="x", measured=1.0, expected=1.0)'
    later = notebook(
        markdown(f"# Model collapse\n\n{CARD}\n\nHere {FORMULA}.\n\n{WIDE_FORMULA}"),
        code("import numpy as np\nimport torch"),
        code(DRAWING, picture(), **alt("A falling line")),
        code(f"{check}\nx = {'1 + ' * 80}1", frame(3)),
        code("table", frame(30)),
        claims=rows(),
    )
    first = notebook(markdown("# Start here\n\nSee [collapse](07a_collapse.ipynb) and zebrafish."))
    demand = notebook(markdown("# A demand\n\nFor zebrafish."))
    return write_book(tmp_path_factory.mktemp("book"), _00_start=first, _07a_collapse=later, _01_demand=demand)


@pytest.fixture(scope="module")
def html(book: Path) -> Path:
    index = site.build(book)
    assert index == book / "build" / "site" / "_build" / "html" / "index.html"
    return index.parent


def test_no_page_style_or_script_points_at_another_machine(html: Path) -> None:
    assert offline.find_problems(html) == []
    assert "cdn." not in (html / "_static" / "mathjax" / "tex-svg-full.js").read_text(encoding="utf-8")
    for page in html.rglob("*.html"):  # a second opinion, coarser than the parser's
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"https?://", text), page
        assert not re.search(r"""=\s*["']?//""", text), page


def test_every_claim_has_a_row_that_links_can_reach(html: Path) -> None:
    page = (html / "claims.html").read_text(encoding="utf-8")
    text = flat(page)
    assert len(load_claims()) == 73
    for claim in load_claims().values():
        assert f'id="{claim.id.lower().replace(".", "-")}"' in page
        for words in (claim.id, claim.title, *(part.description for part in claim.parts)):
            assert words in text, words
    assert "Of 73 claims 1 pass, 0 fail, and 72 are not yet shown." in text
    assert re.search(r"0\.25\d* measured", text)


def test_the_board_shows_first_what_is_shown_and_keeps_two_verdicts_apart(html: Path) -> None:
    article = (html / "claims.html").read_text(encoding="utf-8").split("<article")[1]
    assert re.findall(r"<h2>([^<]*)<", article) == ["7 Model collapse", "Not yet shown"]
    shown, waiting = article.split("<h2>")[1:]
    headings = [flat(heading).strip() for heading in re.findall(r"<th[ >].*?</th>", shown, re.DOTALL)]
    assert headings == ["Claim", "The chapter's sentence", "The check", "Shown in"]
    cells = re.findall(r"<td>.*?</td>", shown, re.DOTALL)
    assert [flat(cell).strip() for cell in cells[1:]] == [load_claims()[CLAIM].verdict, "✓ passes", "07a"]
    assert f"<details><summary><b>{CLAIM}</b>" in cells[0]
    assert "✓" not in waiting
    assert waiting.count("<details>") == 72


def flat(page: str) -> str:
    """What a reader sees, in one line, with the typographer's quotes and dashes taken back."""
    text = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))
    return text.translate(str.maketrans("’‘“”", "''\"\"")).replace("…", "...")


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


def test_previous_and_next_follow_the_order_of_reading(html: Path) -> None:
    names = ["index", "notebooks/00_start", "notebooks/07a_collapse", "notebooks/01_demand", *pages.ABOUT]
    assert trail(html, "right-next", names[0]) == names
    assert trail(html, "left-prev", names[-1]) == names[::-1]


def trail(html: Path, kind: str, page: str) -> list[str]:
    """The pages that one comes through from this one by clicking on Next or on Previous."""
    link = re.search(rf'<a class="{kind}"\s+href="([^"]+)"', (html / f"{page}.html").read_text(encoding="utf-8"))
    if link is None:
        return [page]
    target = (html / page).parent.joinpath(link[1]).resolve().relative_to(html.resolve())
    return [page, *trail(html, kind, target.with_suffix("").as_posix())]


def test_a_section_that_is_read_in_two_parts_stands_twice_in_the_contents() -> None:
    order = ["08_practice", "07b_mitigations", "01_why", "06a_fidelity", "07a_collapse", "00b_warm_up", "00_start", "x"]
    trees = pages.contents(order)
    assert re.findall(r":caption: (.*)", trees) == [
        "Before you start",
        "7 Model collapse",
        "6 Evaluation",
        "1 Why synthesize data",
        "7 Model collapse, continued",
        "8 In practice",
        "Further notebooks",
        "About the book",
    ]
    assert re.findall(r"notebooks/(\w+)", trees)[:4] == ["00_start", "00b_warm_up", "07a_collapse", "06a_fidelity"]


def test_the_first_page_opens_with_a_picture_and_its_alternative_text(html: Path) -> None:
    opening = (html / "index.html").read_text(encoding="utf-8").split("<article")[1].split("<h2")[0]
    assert re.search(
        r'<img alt="Seven histograms of age, one below the other\.[^"]{50,}" src="_images/collapse', opening
    )


def test_the_page_on_the_chapter_says_where_each_section_is_tested(html: Path) -> None:
    article = (html / "chapter.html").read_text(encoding="utf-8").split("<article")[1].split("</article")[0]
    text = flat(article)
    assert "Its notebook is still to come: 6 claims on the board, 0 shown so far." in text.split("3 Generative")[0]
    assert "Tested in Model collapse: 15 claims on the board, 1 shown so far." in text
    assert 'href="notebooks/07a_collapse.html"' in article
    assert "<!--" not in article
    assert len(re.findall(r"arXiv:\d{4}\.\d{4,5}", text)) == 13  # the chapter gives none for one of its 14 references


def test_imports_and_code_that_only_draws_are_folded_on_the_site_alone(book: Path, html: Path) -> None:
    page = (html / "notebooks" / "07a_collapse.html").read_text(encoding="utf-8")
    folds = re.findall(r'<details class="admonition hide above-input">.*?</details>', page, re.DOTALL)
    assert ["Show the imports" in folds[0], "Show the code" in folds[1], len(folds)] == [True, True, 2]
    assert "numpy" in folds[0]
    assert "new_axes" in folds[1]
    assert "hide-input" not in (book / "notebooks" / "07a_collapse.ipynb").read_text(encoding="utf-8")


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


def test_a_note_stands_before_every_cell_that_checks_a_claim_and_nowhere_else() -> None:
    cells = [code("x = 1"), code(f'x = 2\ncourse.claim(id="{CLAIM}", part="a", at=x)'), markdown('claim("C1.1-1")')]
    noted = pages.with_margin_notes(notebook(*cells))["cells"]
    assert [cell["cell_type"] for cell in noted] == ["code", "markdown", "code", "markdown"]
    assert noted[1]["source"] == f"```{{margin}}\nChecks claim {{ref}}`{CLAIM} <{CLAIM}>`\n```"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const list = document.createElement("pre");
  list.id = "requests";
  list.textContent = performance.getEntriesByType("resource").map(entry => entry.name).join("\\n");
  document.body.append(list);
}, 2000));</script></body>"""


def dom(address: str, profile: Path, seconds: int = 8) -> str:
    """The page as a browser without a network leaves it after a few seconds of its own time."""
    require(CHROMIUM, "no chromium: install the package of that name to test the site in a browser")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *QUIET, f"--user-data-dir={profile}"]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--virtual-time-budget={seconds * 1000}",
        "--dump-dom",
        address,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_search_works_from_the_file_system_and_lists_first_what_is_read_first(html: Path, tmp_path: Path) -> None:
    hits = dom(f"{html.as_uri()}/search.html?q=zebrafish", tmp_path).split('id="search-results"')[1]
    assert re.findall(r'href="(notebooks/\w+)\.html', hits) == ["notebooks/00_start", "notebooks/01_demand"]


def test_a_link_to_a_claim_opens_its_row(html: Path, tmp_path: Path) -> None:
    page = dom(f"{html.as_uri()}/claims.html#c7-2-1", tmp_path)
    assert re.search(r'<details open=""><summary><b>C7\.2-1</b>', page)
    assert page.count("<details open") == 1


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


LAYOUT = """({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  height: document.documentElement.scrollHeight,
  beyond: [...document.querySelectorAll("article *")].filter(beyond).map(node => node.outerHTML.slice(0, 80)),
  heads: [...document.querySelectorAll("article thead")].map(head => [head.textContent.trim(), head.offsetHeight > 0]),
  padding: [...document.querySelectorAll(".dataframe td")].map(cell => parseFloat(getComputedStyle(cell).paddingLeft)),
  formula: Math.max(0, ...[...document.querySelectorAll("div.math mjx-container")].map(box => box.scrollWidth)),
})"""
# what sticks out of the page and lies in no box that scrolls; what is read to the blind is nowhere to be seen
MEASURE = """<script>
const scrolls = node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
const boxes = node => node.matches("article") ? [] : [node, ...boxes(node.parentElement)];
const beyond = node => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest("mjx-assistive-mml")
  && !boxes(node.parentElement).some(scrolls);
addEventListener("load", () => (globalThis.MathJax?.startup.promise ?? Promise.resolve()).then(() =>
  parent.postMessage(%s, "*")));
</script></body>"""
FRAMES = """<body><script>
const left = %s, seen = [];
const next = () => {
  document.body.replaceChildren();
  const [src, width] = left.shift() ?? [];
  if (src) document.body.append(Object.assign(document.createElement("iframe"), {src, width, height: 800}));
  else document.body.append(Object.assign(document.createElement("pre"), {textContent: JSON.stringify(seen)}));
};
addEventListener("message", ({data}) => { seen.push(data); next(); });
next();
</script></body>"""


def layouts(html: Path, names: list[str], width: int, folder: Path) -> list[dict[str, Any]]:
    """How a browser lays out pages in a window of this width; in frames, since its own window is 500 wide at least."""
    copy = folder / "copy"
    if not copy.exists():
        shutil.copytree(html, copy)
        for path in copy.rglob("*.html"):
            path.write_text(path.read_text(encoding="utf-8").replace("</body>", MEASURE % LAYOUT), encoding="utf-8")
    frames = copy / "frames.html"
    frames.write_text(FRAMES % json.dumps([[f"{name}.html", width] for name in names]), encoding="utf-8")
    page = dom(frames.as_uri(), folder / "profile", seconds=max(8, len(names)))
    seen = re.search(r"<pre>(.*)</pre>", page, re.DOTALL)
    assert seen
    found: list[dict[str, Any]] = json.loads(unescape(seen[1]))
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_page_and_tables_keep_what_they_need(html: Path, tmp_path: Path, width: int) -> None:
    notebook, board, chapter, index = layouts(
        html, ["notebooks/07a_collapse", "claims", "chapter", "index"], width, tmp_path
    )
    for page in (notebook, board, chapter, index):
        assert page["page"] <= page["width"] == width
        assert page["beyond"] == []
    assert notebook["formula"] > 1_000  # the test's own formula does not fit
    assert notebook["heads"][0] == ["", False]  # the header card
    assert [(words[:9], visible) for words, visible in notebook["heads"][1:]] == [("precision", True)] * 2
    assert min(notebook["padding"]) >= 4
    assert [visible for _, visible in board["heads"]] == [width > 600] * 2  # on a phone each row is a card
    assert board["height"] < 9_000


def test_the_real_book_builds(tmp_path: Path) -> None:
    root = tmp_path / "book"  # a copy, since a run of the book sweeps the checkout's build folder
    for folder in ("docs", "notebooks", "bench/results"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".*"))
    html = site.build(root).parent
    stems = pages.in_order(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    for stem in stems:
        ids = {id for cell in nb.code_cells(nb.read(root / "notebooks" / f"{stem}.ipynb")) for id in nb.claim_ids(cell)}
        page = (html / "notebooks" / f"{stem}.html").read_text(encoding="utf-8")
        assert ids == {unescape(id) for id in re.findall(r'claims\.html#[^"]+"><span[^>]*>(C[\d.]+-\d+)<', page)}
    names = ["index", *(f"notebooks/{stem}" for stem in stems), *pages.ABOUT]
    assert trail(html, "right-next", "index") == names
    for name, layout in zip(names, layouts(html, names, 390, tmp_path), strict=True):
        assert layout["page"] <= 390 and layout["beyond"] == [], name
