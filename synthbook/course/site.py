"""The book as a web site that is read without a network: built from committed outputs, never by executing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from html import escape
from html.parser import HTMLParser
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import synthbook
from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.storage import atomic_write, read_provenance, sha256, sha256_file
from synthbook.course import notebook as nb
from synthbook.course.api import api_page
from synthbook.course.claims import VERDICTS, Board, Row, committed, find_part, quantities
from synthbook.course.folding import fold
from synthbook.course.project import Project

# ── A built book must be readable without a network and without sight: find what would break either ──
# What a browser reads may hold no address on another machine, wherever it stands: every address in a script, a style
# sheet or an attribute counts, since any of them can be loaded or visited. Comments, words on a page, and the names
# below, which no browser loads, do not count.


_NAMES = (
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


def find_problems(site: Path) -> list[str]:
    """What a reader without a network, or without sight, would miss in the pages, styles and scripts under `site`.

    One line per fault, each naming the file: an address on another machine, an image without alternative text or with
    a file name in its place.
    """
    problems: list[str] = []
    for path in sorted(site.rglob("*")):
        reader = _READERS.get(path.suffix.lower())
        if reader and path.is_file():
            name = path.relative_to(site).as_posix()
            problems += [f"{name}: {problem}" for problem in reader(path.read_text(encoding="utf-8"))]
    return problems


def _remote(text: str, no_scheme: re.Pattern[str]) -> list[str]:
    """Every address on another machine, each once; `no_scheme` finds those that begin with //."""
    addresses = dict.fromkeys([*_ADDRESS.findall(text), *no_scheme.findall(text)])
    return [address for address in addresses if not address.replace("\\", "").startswith(_NAMES)]


def _css_problems(text: str) -> Iterator[str]:
    text = _CSS_COMMENT.sub(lambda match: match[1] or "", text)
    return (f"the style sheet holds the address {address}" for address in _remote(text, _IN_STYLE))


def _js_problems(text: str) -> Iterator[str]:
    text = _JS_COMMENT.sub("", text)
    return (f"the script holds the address {address}" for address in _remote(text, _IN_QUOTES))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name not in _PROSE and _remote(value or "", _IN_ATTRIBUTE):
                self.problems.append(f'<{tag} {name}="{value}"> points at another machine')
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() == "refresh":
            self.problems.append("<meta http-equiv=refresh> sends the reader elsewhere")
        if tag == "img":
            self._check_alt(dict(attrs))

    def handle_data(self, data: str) -> None:
        reader = {"style": _css_problems, "script": _js_problems}.get(self._inside)
        self.problems += reader(data) if reader else ()

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def _check_alt(self, attrs: dict[str, str | None]) -> None:
        alt, source = (attrs.get("alt") or "").strip(), (attrs.get("src") or "")[:100]
        if not alt:
            self.problems.append(f"image {source} has no alternative text: {_HOW_ALT}")
        elif _FILE_NAME.match(alt):
            self.problems.append(f"image {source} has a file name as alternative text: {_HOW_ALT}")


_READERS: dict[str, Callable[[str], Iterable[str]]] = {
    **dict.fromkeys((".html", ".htm", ".xhtml", ".svg"), lambda text: _Page(text).problems),
    **dict.fromkeys((".js", ".mjs", ".json", ".webmanifest"), _js_problems),
    ".css": _css_problems,
}
_HOW_ALT = 'say what it shows in the cell\'s metadata, "mystnb": {"image": {"alt": "..."}}'


# ── The page of comparisons ──


_BENCH_HEAD = """# Benchmarks

How the package compares with others that measure the same thing: same data, same machine, runs that take turns in
processes of their own with one thread for linear algebra, unless a table says otherwise. Imports are not counted.
Memory is what a call adds at its peak. The files lie in `bench/results`, each with a sidecar that names its command;
`make bench` and `make test-machines` measure all of them anew. Times differ from machine to machine, so look at the
ratios."""


def bench_page(folder: Path) -> str:
    """The page's source in MyST Markdown, from the `*.json` results in `folder`, in the order of their names."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".provenance.json")]
    if not paths:
        return f"{_BENCH_HEAD}\n\nNothing has been measured yet.\n"
    return "\n\n".join([_BENCH_HEAD, *(_bench_section(path) for path in paths)]) + "\n"


def _bench_section(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    measured = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    command = read_provenance(path).command
    columns = result["table"]["columns"]
    table = "\n".join(
        f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *result["table"]["rows"])
    )
    return f"## {result['title']}\n\n{table}\n\n{result['note']}\n\n`{command}`: {measured}."


# ── The page of claims ──
# Two verdicts stand beside each other and mean different things: the check's, on our measurement, and the sentence's,
# on the chapter.


_SECTIONS = {
    "0": "Before you start",
    "1": "1 Why synthesize data",
    "2": "2 Simulation",
    "3": "3 Generative models",
    "4": "4 Data from language models",
    "5": "5 Privacy",
    "6": "6 Evaluation",
    "7": "7 Model collapse",
    "8": "8 In practice",
}

_CHECKS = {True: "✓ passes", False: "✗ fails", None: "– not yet shown"}
_CLAIMS_HEAD = """# The claims board

Every statement of [the chapter](chapter.md) that an experiment can confirm or refute is a row here. Open a row to read
the statement and what was measured. The numbers are those of the committed notebooks; running the book measures them
again and stops where one does not hold. A row about a trained network shows no number while it holds: its digits differ
from machine to machine.

**The check** asks whether what we measured agrees with an independent oracle. Of {total} claims **{passing}** pass,
**{failing}** fail, and **{waiting}** are not yet shown.

**The chapter's sentence** is judged by what the check shows. It *holds* ({holds}); it *holds if* a condition is met
that the chapter leaves out ({if}); it is *too simple* ({too simple}) or *misattributed* ({misattributed}); or the row
goes *beyond the chapter* ({beyond the chapter}). A check that passes on a sentence that is too simple has shown where
the sentence stops being true.
"""


def claims_page(board: Board) -> str:
    """The board in MyST Markdown: a table for each section, then the claims that no notebook shows yet.

    Each claim is a row with a fold and a target for links.
    """
    checks, sentences = (Counter(row[key] for row in board.rows) for key in ("holds", "verdict"))
    counts = {"total": len(board.rows), "passing": checks[True], "failing": checks[False], "waiting": checks[None]}
    blocks = [_CLAIMS_HEAD.format_map(counts | {verdict: sentences[verdict] for verdict in VERDICTS})]
    if board.errors:
        blocks.append("\n".join([":::{warning}", *(f"- {_plain(error)}" for error in board.errors), ":::"]))
    demonstrated = [row for row in board.rows if row["holds"] is not None]
    for section, caption in _SECTIONS.items():
        rows = [row for row in demonstrated if row["section"].split(".")[0] == section]
        blocks += [f"## {caption}\n\n{_claims_table(rows)}"] if rows else []
    waiting = [row for row in board.rows if row["holds"] is None]
    blocks += [f"## Not yet shown\n\n{_claims_table(waiting, n_columns=2)}"] if waiting else []
    return "\n\n".join(blocks) + "\n"


_COLUMNS = {"Claim": 55, "The chapter's sentence": 21, "The check": 14, "Shown in": 10}  # heading: width in percent


def _claims_table(rows: list[Row], n_columns: int = len(_COLUMNS)) -> str:
    """A MyST list-table of the first `n_columns` columns."""
    widths = " ".join(str(width) for width in list(_COLUMNS.values())[:n_columns])
    lines = ["````{list-table}", ":class: ledger", ":header-rows: 1", f":widths: {widths}", ""]
    lines += ["* - " + "\n  - ".join(cells[:n_columns]) for cells in (list(_COLUMNS), *map(_claim_cells, rows))]
    return "\n".join([*lines, "````"])


def _claim_cells(row: Row) -> list[str]:
    """A claim's cells; the first is a fold, open where the check fails, whose summary is the claim in one line."""
    opened = " open" if row["holds"] is False else ""
    fold = [
        f"<details{opened}><summary><b>{row['id']}</b> {escape(row['title'], quote=False)}</summary>",
        f"({row['id']})=\n    {_plain(row['statement'])}",
        "\n    ".join(f"- {_measurement(row['id'], part)}" for part in row["parts"]),
        "</details>",
    ]
    sentence = "holds if …" if row["verdict"] == "if" else row["verdict"]
    stems = row["notebook"].split(", ") if row["notebook"] else []
    notebooks = ", ".join(_link(stem, stem.split("_")[0]) for stem in stems) or "–"
    return ["\n\n    ".join(fold), sentence, _CHECKS[row["holds"]], notebooks]


def _measurement(id: str, part: Row) -> str:
    description = f"{_CHECKS[part['holds']][0]} {_plain(part['description'])}"
    claim, spec = find_part(id, part["id"])
    differs_between_machines = (spec.tier or claim.tier) == "model" and part["holds"]
    if part["holds"] is None or differs_between_machines:
        return description
    return f"{description}: {quantities(spec.comparison, part['measured'], part['expected'], part['tolerance'])}"


def _plain(text: str) -> str:
    """Text that Markdown prints as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~])", r"\\\1", " ".join(text.split()))


# ── The site's sources ──


# prefixes of the notebooks' names, whose numbers are the chapter's
_READING_ORDER = ("00", "07a", "06", "01", "02", "03", "04", "05", "07", "08")
ABOUT = ("chapter", "claims", "benchmarks", "ten_minutes", "api", "generate", "privacy", "classroom", "about")


def _write_sources(root: Path, source: Path) -> None:
    """Fill the empty folder `source` with everything Sphinx reads; the checkout at `root` is left as it is."""
    project = Project(root)
    shutil.copytree(root / "docs", source, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    (source / "notebooks").mkdir()
    books = {path.stem: nb.read(path) for path in project.sources()}
    titles = {stem: title(books[stem], stem) for stem in in_order(books)}
    board = committed(project)
    for stem, book in books.items():
        (source / "notebooks" / f"{stem}.ipynb").write_text(nb.dumps(fold(with_margin_notes(book))), encoding="utf-8")
    (source / "claims.md").write_text(claims_page(board), encoding="utf-8")
    (source / "api.md").write_text(api_page(root / "synthbook"), encoding="utf-8")
    (source / "benchmarks.md").write_text(bench_page(root / "bench" / "results"), encoding="utf-8")
    names = {stem: re.sub(r"^\d+[a-z]?\. ", "", heading) for stem, heading in titles.items()}  # the list has numbers
    path = "\n".join(f"1. {_link(stem, names[stem])} ({stem.split('_')[0]})" for stem in titles)
    _fill(source / "index.md", {"<!-- reading path -->": path, "<!-- contents -->": contents(titles)})
    _fill(source / "chapter.md", {f"<!-- tests of {n} -->": _tests_of(n, titles, board) for n in _SECTIONS if n != "0"})
    order = [*(f"notebooks/{stem}" for stem in titles), "index", *ABOUT]
    _fill(source / "scorer.js", {"[/* all pages in the order of reading */]": json.dumps(order)})


def with_margin_notes(notebook: nb.Notebook) -> nb.Notebook:
    """Put a note with a link to the ledger before every cell that checks a claim, in place; return the notebook."""
    cells: list[nb.Cell] = []
    for number, cell in enumerate(notebook["cells"]):
        ids = nb.claim_ids(cell)
        if ids:
            links = ", ".join(f"{{ref}}`{id} <{id}>`" for id in ids)
            note = f"```{{margin}}\nChecks claim {links}\n```"
            cells.append({"cell_type": "markdown", "id": f"claims-{number}", "metadata": {}, "source": note})
        cells.append(cell)
    notebook["cells"] = cells
    return notebook


def title(notebook: nb.Notebook, stem: str) -> str:
    """A notebook's first heading of level 1, or its file name."""
    words = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    heading = re.search(r"^# +(.+?)\s*#*$", words, re.MULTILINE)
    return heading[1] if heading else stem


def in_order(stems: Iterable[str]) -> list[str]:
    """The notebooks in the order of reading; those that the path does not name come last."""
    last = len(_READING_ORDER)
    steps = {stem: next((k for k, p in enumerate(_READING_ORDER) if stem.startswith(p)), last) for stem in stems}
    return sorted(steps, key=lambda stem: (steps[stem], stem))


def contents(stems: Iterable[str]) -> str:
    """The tables of contents, in the order of reading, which Previous and Next follow; then the pages about the book.

    A section of the chapter that is read in two parts stands there twice, the second time as "continued".
    """
    trees, captions = [], set[str]()
    for section, part in groupby(in_order(stems), key=_section):
        caption = _SECTIONS.get(section, "Further notebooks")
        caption += ", continued" if caption in captions else ""
        captions.add(caption)
        trees.append(_toctree(caption, (f"notebooks/{stem}" for stem in part)))
    return "\n\n".join([*trees, _toctree("About the book", ABOUT)])


def _tests_of(section: str, titles: dict[str, str], board: Board) -> str:
    """Which notebooks test a section of the chapter, and how many of its claims are shown."""
    rows = [row for row in board.rows if row["section"].split(".")[0] == section]
    shown = sum(row["holds"] is not None for row in rows)
    links = [_link(stem, heading) for stem, heading in titles.items() if _section(stem) == section]
    where = f"Tested in {'; '.join(links)}" if links else "Its notebook is still to come"
    return f"*{where}: {len(rows)} claim{'s' * (len(rows) != 1)} on [the board](claims.md), {shown} shown so far.*"


def _fill(page: Path, texts: dict[str, str]) -> None:
    words = page.read_text(encoding="utf-8")
    for marker, text in texts.items():
        words = words.replace(marker, text)
    page.write_text(words, encoding="utf-8")


def _link(stem: str, words: str) -> str:
    return f"[{words}](notebooks/{stem}.ipynb)"


def _toctree(caption: str, entries: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def _section(stem: str) -> str:
    """The chapter's section that a notebook belongs to, "" where there is none."""
    number = re.match(r"\d\d", stem)
    section = str(int(number[0])) if number else ""
    return section if section in _SECTIONS else ""


# ── The build ──


_BUILDERS = ("sphinx", "myst-nb", "sphinx-book-theme", "sphinx-design")


class SiteError(SynthbookError):
    """The site was not built; the message holds every warning."""


def build(root: Path, *, force: bool = False) -> Path:
    """Build the site of the checkout at `root` and return its first page.

    Reads docs/, notebooks/*.ipynb, bench/results and the ledger; writes under build/site. When none of them changed
    since the last good build, nothing is done unless `force`. Any warning, remote address or image without alternative
    text raises `SiteError`. The site appears all at once: until then, and after a failure, the one before it stays.
    """
    root = Path(root).resolve()
    if not (root / "docs" / "conf.py").is_file():
        raise InvalidArgument("root", str(root), "the folder of a checkout, which holds docs/conf.py")
    folder = root / "build" / "site"
    first_page, stamp = folder / "_build" / "html" / "index.html", folder / "inputs.sha256"
    inputs = inputs_hash(root)
    if not force and first_page.is_file() and stamp.is_file() and stamp.read_text() == inputs:
        return first_page
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".site.", suffix=".tmp") as temp_folder:
        new = Path(temp_folder) / "new"
        _build_into(new, root)
        atomic_write(new / stamp.name, inputs)
        if folder.exists():
            folder.rename(Path(temp_folder) / "old")
        new.rename(folder)
    return first_page


def _build_into(folder: Path, root: Path) -> None:
    source, html = folder / "source", folder / "_build" / "html"  # myst-nb writes beside _build/html
    _write_sources(root, source)
    _sphinx(source, html)
    for path in Project(root).sources():  # the download buttons give the committed notebooks: no notes, nothing folded
        shutil.copyfile(path, html / "_sources" / "notebooks" / path.name)
    problems = find_problems(html)
    if problems:
        raise SiteError(f"the site has {len(problems)} faults:\n  " + "\n  ".join(problems))


def inputs_hash(root: Path) -> str:
    """SHA-256 over all that the site is made from: pages, notebooks, results, ledger, this package and Sphinx."""
    package = Path(synthbook.__file__).parent
    docs = (path for path in (root / "docs").rglob("*") if path.is_file() and path.suffix != ".pyc")
    results = (*(root / "notebooks").glob("*.ipynb"), *(root / "bench" / "results").glob("*.json"))
    inputs = [(path.relative_to(root), path) for path in (*docs, *results)]
    sources = (path for path in package.rglob("*") if path.suffix in (".py", ".pyi", ".toml"))
    inputs += [(path.relative_to(package), path) for path in sources]
    lines = [f"{name.as_posix()} {sha256_file(path)}" for name, path in sorted(inputs)]
    lines += [f"{name} {version(name)}" for name in _BUILDERS] + [synthbook.__version__]
    return sha256("\n".join(lines).encode())


def _sphinx(source: Path, html: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-N", "-W", "--keep-going"]
    command += ["-d", str(html.parent / "doctrees"), str(source), str(html)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        warnings = (done.stderr + done.stdout).replace(f"{source}{os.sep}", "").strip()
        raise SiteError(f"Sphinx did not build the site (warnings count as errors):\n{warnings}")
