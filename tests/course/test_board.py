"""The board: three-valued verdicts, judged anew, each claim in one notebook; and its page on the site."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.course.claims import VERDICTS, Board, Claim, ClaimResult, Part, board, committed, load_claims
from synthbook.course.site import claims_page
from tests.course.conftest import Book

TWO, ONE = "C1.1-1", "C1.1-3"
LEDGER = {
    TWO: Claim(
        TWO,
        "1.1",
        "A",
        "a",
        "holds",
        "exact",
        "o",
        "r",
        (Part("p", "says p", "close", 0.1), Part("q", "q", "at least", 0.1)),
    ),
    ONE: Claim(ONE, "2", "B", "b", "if", "model", "o", "r", (Part("only", "o", "at most", 0.5, True),)),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthbook.course.claims.load_claims", lambda: LEDGER)


def row(part: str, measured: Any, id: str = TWO, expected: float = 1.0, tolerance: float = 0.1) -> dict[str, Any]:
    numbers = {"measured": measured, "expected": expected, "tolerance": tolerance}
    return {"id": id, "part": part, **numbers, "elements": 1, "holds": True}  # the flag is not to be trusted


def holds(*rows: dict[str, Any], id: str = TWO) -> bool | None:
    (found,) = [line for line in board({"01": list(rows)}).rows if line["id"] == id]
    verdict: bool | None = found["holds"]
    return verdict


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([row("p", 1.0)], None),
        ([row("p", 1.0), row("q", 5.0)], True),
        ([row("p", 1.09), row("q", 0.91)], True),
        ([row("p", 1.11), row("q", 5.0)], False),
        ([row("p", 1.0), row("q", 0.8)], False),
        ([row("p", 1.2)], False),
        ([row("p", 1.2), row("p", 1.0), row("q", 5.0)], False),
        ([row("p", math.nan), row("q", 5.0)], False),
        ([row("p", None), row("q", 5.0)], False),
        ([row("p", "NaN"), row("q", 5.0)], False),
        ([row("p", 1.0), row("q", "Infinity")], False),
        ([row("p", "one"), row("q", 5.0)], False),
        ([row("p", [1.0]), row("q", {})], False),
        ([{"id": TWO, "part": "p"}, row("q", 5.0)], False),
        ([row("p", 1.3, tolerance=0.5), row("q", 5.0)], False),  # wider than the ledger's cap
    ],
)
def test_a_claim_holds_when_all_its_parts_do(rows: list[dict[str, Any]], expected: bool | None) -> None:
    assert holds(*rows) is expected


@pytest.mark.usefixtures("small")
def test_the_rule_decides(small: None) -> None:
    assert holds(row("only", -9.0, ONE), id=ONE) is True
    assert holds(row("only", 1.5, ONE, tolerance=0.4), id=ONE) is False


@pytest.mark.usefixtures("small")
def test_counts_and_parts() -> None:
    result = board({"01": [row("p", 1.05)], "02": [row("only", 3.0, ONE)]})
    assert (result.n_demonstrated, result.n_holding, result.ok) == (1, 0, False)
    document = result.to_dict()
    assert (document["shown"], document["hold"], document["total"]) == (1, 0, 2)
    first, second = document["claims"]
    assert (first["notebook"], first["verdict"], first["section"], first["title"]) == ("01", "holds", "1.1", "A")
    p, q = first["parts"]
    assert p == {"id": "p", "description": "says p", "measured": 1.05, "expected": 1.0, "tolerance": 0.1, "holds": True}
    assert q["measured"] is None and q["holds"] is None and second["parts"][0]["holds"] is False
    assert board({"01": []}).ok


@pytest.mark.usefixtures("small")
def test_what_is_wrong_with_the_book_as_a_whole() -> None:
    good = [row("p", 1.0), row("q", 5.0)]
    twice = board({"01": good, "02": good})
    assert "shown by 2 notebooks (01, 02)" in twice.errors[0] and not twice.ok and twice.n_holding == 1
    assert "shows C9-9, which the ledger does not have" in board({"01": [row("p", 1.0, "C9-9")]}).errors[0]
    assert "shows part z of C1.1-1" in board({"01": [*good, row("z", 1.0)]}).errors[0]


@pytest.mark.usefixtures("small")
def test_one_section() -> None:
    def ids(result: Board) -> list[str]:
        return [line["id"] for line in result.rows]

    assert ids(board({}, section="1")) == ids(board({}, section="1.1")) == [TWO]
    assert ids(board({}, section="2")) == [ONE]
    with pytest.raises(InvalidArgument, match=r"section = '7' .* 1\.1, 2"):
        board({}, section="7")


def test_the_committed_board_reads_metadata(book: Book, shown: Callable[..., Any]) -> None:
    claim = next(claim for claim in load_claims().values() if claim.tier == "exact")
    bounds = [row(part.id, 1.0, claim.id, tolerance=0.0) for part in claim.parts]
    shown(book, "01", bounds)
    book.write("02", "1")
    result = committed(book)
    assert (result.n_demonstrated, result.n_holding, len(result.rows)) == (1, 1, len(load_claims()))


def test_an_unreadable_notebook_is_an_error_beside_the_others(book: Book, shown: Callable[..., Any]) -> None:
    claim = next(claim for claim in load_claims().values() if claim.tier == "exact")
    shown(book, "01", [row(part.id, 1.0, claim.id, tolerance=0.0) for part in claim.parts])
    (book.notebooks / "02.ipynb").mkdir()
    result = committed(book)
    assert result.n_holding == 1 and not result.ok and "02.ipynb cannot be read: Is a directory" in result.errors[0]


def test_a_claim_that_fails_is_marked_as_failing_whatever_the_notebook_says() -> None:
    parts = load_claims()["C7.2-1"].parts
    wrong = {"close": 5.0, "at least": -5.0, "at most": 5.0}
    lying = [row(part.id, wrong[part.comparison], "C7.2-1", expected=0.25, tolerance=0.0) for part in parts]
    page = claims_page(board({"07a_collapse": lying}))
    assert "**0** pass, **1** fail, and **72** are" in " ".join(page.split())
    assert "<details open><summary><b>C7.2-1</b>" in page  # what fails lies open
    assert page.count("✗ fails") == 1
    assert ClaimResult(**lying[0]).holds  # the stored flag said otherwise


def test_the_page_counts_the_verdicts_on_the_chapter_apart_from_the_checks() -> None:
    result = board({})
    page = " ".join(claims_page(result).split())
    verdicts = [claim.verdict for claim in load_claims().values()]
    counts = [verdicts.count(verdict) for verdict in VERDICTS]
    assert [int(number) for number in re.findall(r"\((\d+)\)", page.split("## Not yet shown")[0])] == counts
    assert "✓ passes" not in page
    assert page.count("holds if …") == verdicts.count("if")


def test_a_part_about_a_trained_network_shows_digits_only_where_it_fails() -> None:
    def page(blur: float) -> str:
        bounds = {"id": "C3.1-2", "expected": 0.6, "tolerance": 0.0, "elements": 1, "holds": True}
        parts = {"variance_kept": 0.6, "image_blur": blur}  # exact: near 0.6; model: at most 0.6
        return claims_page(board({"03a_vae": [bounds | {"part": part, "measured": m} for part, m in parts.items()]}))

    assert "✓ fine detail in VAE images, over that in real ones\n" in page(0.123)
    failing = r"✗ fine detail in VAE images, over that in real ones: 0\.789 measured, at most 0\.60* expected"
    assert re.search(failing, page(0.789))
    assert len(re.findall(r"measured, 0\.60* expected", page(0.123))) == 1


def test_text_of_the_ledger_cannot_become_markup() -> None:
    result = board({})
    result.rows[0]["statement"] = "a*b*c <script> $x$ `d` [e](f)"
    assert r"a\*b\*c \<script\> \$x\$ \`d\` \[e\](f)" in claims_page(result)
