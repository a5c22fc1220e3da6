"""The page about a run: text stays text, and figures have their words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from synthbook.cli.main import main
from synthbook.language.client import KEY, MODEL, URL
from synthbook.language.task import report as generate_page
from tests.language.generating import (
    SECRET,
    TASK,
    answers,
    lines,
    new,
    reported,
    result,
)
from tests.language.rude import Handler, Rude, completion, serving
from tests.language.test_task import FIELDS, FILE, NASTY, PROMPT, TONES, read
from tests.mutation import mutant


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rude]:
    with serving() as running:
        running.always = answers
        monkeypatch.setenv(URL, running.url)
        monkeypatch.setenv(MODEL, "tiny")
        monkeypatch.setenv(KEY, SECRET)
        yield running


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag, tuple(name for name, _ in attrs)] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_nothing_that_a_model_or_a_file_says_leaves_its_record_or_the_page(
    server: Rude, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = [text for text in NASTY if len(text) <= 39 and len(text) >= 8]
    lists = "[values]\ntone = " + json.dumps([*nasty, "$\\frac{$", "漢字 \\u200b"]) + "\n"
    toml = PROMPT + lists + FIELDS + FILE + "[filters]\nlabel = 'tone'\nbalance = 'tone'\nat_most = 9\n"
    folder, said = new(tmp_path, "reviews", toml), list[str]()

    def malicious(handler: Handler, body: dict[str, Any]) -> None:
        text = NASTY[len(said) % len(NASTY)]
        key = "stars" if len(said) % 3 else f"stars{text}"
        said.append(json.dumps({"text": f"{text[:36]} {len(said)}", key: 3}) if len(said) % 4 else text)
        handler.reply(completion(said[-1], finish_reason="stop") if len(said) % 5 else completion(said[-1]))

    server.always = malicious
    assert main(reported(folder, "--concurrency", "1")) == 0
    shown = capsys.readouterr()
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    for name in ("data.jsonl", "data.jsonl.dropped.jsonl"):
        raw = (folder / name).read_bytes()
        assert raw.isascii() and raw.decode().replace("\n", "").isprintable()
        assert len(raw.splitlines()) == raw.count(b"\n")
    kept, dropped = lines(folder / "data.jsonl"), lines(folder / "data.jsonl.dropped.jsonl")
    assert len(kept) == 12 and {line["answer"] for line in dropped} <= set(said)
    for line in kept:
        assert json.dumps({"text": line["text"], "stars": line["stars"]}) == said[line["request"]["index"]]
    page = Tags()
    html = (folder / "report.html").read_text()
    page.feed(html)
    own = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "strong",
        "div",
        "table",
        "tr",
        "th",
        "td",
        "img",
    }
    assert {tag for tag, _ in page.tags} == own
    assert {attributes for _, attributes in page.tags} <= {
        (),
        ("lang",),
        ("charset",),
        ("style",),
        ("class",),
        ("src", "alt"),
    }
    assert "<script>alert(1)</script>" in page.text and "\\x1b" in page.text
    assert not set(html) & set("\x1b\x07\x08\x00\u202e\u2028\x9b\x85")
    assert "{tone}" in page.text


def test_a_page_that_does_not_escape_is_caught(tmp_path: Path) -> None:
    some = read(tmp_path, PROMPT + TONES)
    found = result(some, 2, lambda request: f"<script>alert({request.index})</script>")
    assert "<script>" not in generate_page.report_page(some, found, "tiny")
    careless = mutant(generate_page, "return escape(visible(", "return (visible(")
    assert "<script>" in careless.report_page(some, found, "tiny")


def test_figures_tell_in_words_what_they_show(tmp_path: Path) -> None:
    some = read(tmp_path, TASK)
    found = result(some, 30)
    counts = generate_page.category_counts(some, found)
    assert counts["tone"] == {"glad": 15, "angry": 15} and list(counts["stars"]) == ["1", "2", "3", "4", "5"]
    alt = generate_page.records_alt([len(r.response) for r in found.kept], counts)
    assert "tone: glad 15, angry 15" in alt and alt.startswith("Texts have ")
    assert f"form: {found.ledger[0].n_in} came, {found.ledger[0].n_out} stayed" in generate_page.funnel_alt(
        found.ledger
    )
    many = Counter({f"{k}": k for k in range(40)})
    ax = generate_page.plot_counts(many, "of many kinds")
    assert len(ax.patches) == generate_page.BARS and sum(bar.get_width() for bar in ax.containers[0]) == many.total()
    ax.figure.clear()
