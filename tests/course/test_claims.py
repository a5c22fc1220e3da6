"""The ledger is complete and well-formed, and a check can fail."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthbook.core.errors import ClaimFailed, InvalidArgument
from synthbook.course import claims
from synthbook.course.claims import (
    COMPARISONS,
    TIERS,
    VERDICTS,
    Claim,
    Part,
    check,
    claim,
    find_part,
    format_result,
    load_claims,
    quantities,
)

# id, verdict, tier (+model where some parts are), kept here by hand so that no row can slip out or change sides
INDEX = """
C1.1-1 holds exact | C1.1-2 misattributed exact | C1.1-3 if null
C1.2-1 too-simple exact | C1.2-2 if exact | C1.2-3 holds null
C2.1-1 holds exact | C2.1-2 holds exact | C2.1-3 holds model
C2.2-1 holds model | C2.2-2 too-simple exact | C2.2-3 if model
C3.1-1 holds exact | C3.1-2 if exact+model | C3.1-3 holds exact+model | C3.1-4 holds model
C3.2-1 holds exact | C3.2-2 holds exact | C3.2-3 too-simple exact+model | C3.2-4 holds model | C3.2-5 holds model
C3.3-1 if exact | C3.3-2 holds exact+model | C3.3-3 holds model | C3.3-4 holds exact+model
C3.3-5 beyond-the-chapter exact+model
C3.4-1 holds model
C4.1-1 if exact+model
C4.2-1 if model | C4.2-2 holds model | C4.2-3 if null | C4.2-4 beyond-the-chapter model
C4.3-1 holds exact | C4.3-2 too-simple exact | C4.3-3 if exact | C4.3-4 holds exact | C4.3-5 holds model
C5.1-1 holds null+model | C5.1-2 holds null | C5.1-3 if model
C5.2-1 holds exact | C5.2-2 holds exact | C5.2-3 if exact+model | C5.2-4 holds null | C5.2-5 if exact
C5.3-1 holds null | C5.3-2 holds null | C5.3-3 too-simple null | C5.3-4 beyond-the-chapter model
C6.1-1 if exact | C6.1-2 if exact | C6.1-3 holds exact | C6.1-4 too-simple exact | C6.1-5 holds null
C6.2-1 holds exact | C6.2-2 holds null | C6.2-3 beyond-the-chapter exact
C7.1-1 too-simple exact | C7.1-2 holds exact | C7.1-3 if model
C7.2-1 holds exact | C7.2-2 too-simple exact | C7.2-3 if exact | C7.2-4 too-simple exact
C7.3-1 holds exact | C7.3-2 holds exact | C7.3-3 holds exact | C7.3-4 if exact | C7.3-5 if exact
C7.3-6 too-simple exact | C7.3-7 beyond-the-chapter model
C7.4-1 holds exact
C8-1 holds model
"""
ROWS = [tuple(row.split()) for row in re.split(r"[|\n]", INDEX) if row.strip()]
NEAR = Part("p", "something measured", "close", max_tolerance=1e9, max_tolerance_is_absolute=True)
BLAND = Claim("C0-0", "0", "title", "statement", "holds", "exact", "oracle", "derived here", (NEAR,))


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(claims.CLAIMS_LOG_ENV_VAR, raising=False)


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────────


def text() -> str:
    return files("synthbook.course").joinpath("claims.toml").read_text(encoding="utf-8")


def test_the_ledger_holds_the_73_rows_in_order() -> None:
    assert len(ROWS) == 73
    assert list(load_claims()) == [id for id, _, _ in ROWS]
    assert re.findall(r'^id = "(.+)"$', text(), re.MULTILINE) == list(load_claims()), "an id occurs twice"


@pytest.mark.parametrize(("id", "verdict", "tier"), ROWS)
def test_verdict_and_tier_are_those_of_the_index(id: str, verdict: str, tier: str) -> None:
    row = load_claims()[id]
    main, *mixed = tier.split("+")
    assert (row.verdict, row.tier) == (verdict.replace("-", " "), main)
    if main != "model":
        assert any(part.tier == "model" for part in row.parts) == bool(mixed)
        assert ("Model part" in row.oracle) == bool(mixed), "the oracle must say which parts are model parts"


@pytest.mark.parametrize("row", load_claims().values(), ids=lambda row: row.id)
def test_row_is_well_formed(row: Claim) -> None:
    assert row.section == row.id[1:].split("-")[0]
    assert row.verdict in VERDICTS and row.tier in TIERS
    for field in (row.title, row.statement, row.oracle, row.reference):
        assert field and field == field.strip()
    assert len(row.title) <= 70 and not row.title.endswith(".")
    assert row.statement.endswith(".") and ". " not in row.statement, "one sentence"
    for source in row.reference.split("; "):
        assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|(derived|measured) here", source), source
    ids, phrases = {part.id for part in row.parts}, {part.description for part in row.parts}
    assert len(ids) == len(phrases) == len(row.parts) > 0


@pytest.mark.parametrize("row", load_claims().values(), ids=lambda row: row.id)
def test_parts_can_be_read_and_can_fail(row: Claim) -> None:
    for part in row.parts:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", part.id), part.id
        assert part.description[0].islower() and len(part.description) <= 80 and not part.description.endswith("."), (
            part.description
        )
        assert part.comparison in COMPARISONS
        assert part.tier in (None, *TIERS) and part.tier != row.tier, "a part's tier is written where it differs"
        assert math.isfinite(part.max_tolerance) and part.max_tolerance >= 0
        if part.comparison == "close":
            assert part.max_tolerance > 0, "a near check needs room for rounding"
            assert part.max_tolerance_is_absolute or part.max_tolerance <= 0.5, "so wide that almost anything is near"
        missed = -math.inf if part.comparison == "at least" else math.inf
        assert not check(part, row.id, missed, 1.0, 0.0).holds


def test_the_file_names_no_address_and_no_quotation_of_the_design() -> None:
    assert "http" not in text() and "www." not in text()
    assert not re.search(r"\bMEM\b|V-[PS]\b|D\+C", text()), "marks of the design's bookkeeping"


def test_statements_and_titles_are_all_different() -> None:
    assert (
        len({row.statement for row in load_claims().values()})
        == len({row.title for row in load_claims().values()})
        == 73
    )


def test_the_parts_that_section_7_is_built_on() -> None:
    wanted = {
        "C7.1-1": "heterogeneity survivors tail_mass median_tail rare_category",
        "C7.1-2": "absorbed_at all_absorbed time_ratio",
        "C7.2-1": "mean_variance mean_log_variance log_variance_spread half_life_mean half_life_typical",
        "C7.2-2": "mean_variance mean_log_variance median_variance share_collapsed",
        "C7.2-3": "wasserstein_unbiased wasserstein_mle conservation wasserstein_mle_bounded",
        "C7.2-4": "statistical expressivity_fixed expressivity_jump sampling_bias "
        "kde_fixed_bandwidth kde_scott_grows kde_increasing",
    }
    for id, parts in wanted.items():
        assert set(parts.split()) <= {part.id for part in load_claims()[id].parts}


# ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────────────

numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers, st.floats(0, 1e6))
def test_near_holds_exactly_when_the_difference_is_within_the_tolerance(m: float, e: float, tol: float) -> None:
    assert check(NEAR, "C", m, e, tol).holds == (abs(m - e) <= tol)


@given(numbers, numbers)
def test_bounds_hold_exactly_on_their_side(m: float, e: float) -> None:
    assert check(Part("p", "s", "at least", 0.0), "C", m, e, 0.0).holds == (m >= e)
    assert check(Part("p", "s", "at most", 0.0), "C", m, e, 0.0).holds == (m <= e)


@given(st.lists(st.tuples(numbers, numbers, st.floats(0.001, 1e6)), min_size=1, max_size=6))
def test_an_array_holds_when_every_element_does_and_reports_the_worst(rows: list[tuple[float, float, float]]) -> None:
    m, e, tol = map(np.array, zip(*rows, strict=True))
    shown = check(NEAR, "C", m, e, tol)
    assert shown.holds == all(abs(a - b) <= t for a, b, t in rows)
    assert shown.elements == len(rows)
    # chosen in thousandths of the tolerance
    assert abs(shown.measured - shown.expected) / shown.tolerance == pytest.approx(
        np.max(np.abs(m - e) / tol), abs=1e-3
    )


@pytest.mark.parametrize("max_tolerance_is_absolute", [True, False])
def test_a_tolerance_beyond_the_cap_is_refused_whatever_was_measured(max_tolerance_is_absolute: bool) -> None:
    part = Part("p", "s", "close", 0.01, max_tolerance_is_absolute)
    cap = 0.01 if max_tolerance_is_absolute else 0.02  # expected is 2
    assert check(part, "C", 2.0, 2.0, cap).holds
    with pytest.raises(
        InvalidArgument, match=r"at most 0\.0[12], the widest tolerance of C \(p\); use more replicates"
    ):
        check(part, "C", 2.0, 2.0, cap * 1.01)


def test_one_element_beyond_its_own_cap_is_enough_to_refuse() -> None:
    part = Part("p", "s", "close", 0.1)
    with pytest.raises(InvalidArgument, match="widest tolerance"):
        check(part, "C", [1.0, 10.0], [1.0, 10.0], 0.5)  # caps are 0.1 and 1
    with pytest.raises(InvalidArgument, match="widest tolerance"):
        check(part, "C", 0.0, 0.0, 0.001)  # no relative room around zero


@pytest.mark.parametrize("rule", COMPARISONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_measured_value_that_is_no_number_never_holds(rule: str, value: float) -> None:
    shown = check(Part("p", "s", rule, 1.0, True), "C", [1.0, value], [1.0, 1.0], 0.5)
    assert not shown.holds
    assert shown.measured == value or (math.isnan(value) and math.isnan(shown.measured))


@pytest.mark.parametrize("tolerance", [math.nan, math.inf, -0.1, [0.1, -0.1]])
def test_tolerances_that_are_no_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(InvalidArgument, match="tolerance"):
        check(NEAR, "C", [1.0, 1.0], [1.0, 1.0], tolerance)


@pytest.mark.parametrize("expected", [math.nan, math.inf])
def test_expectations_must_be_finite(expected: float) -> None:
    with pytest.raises(InvalidArgument, match="finite expectations"):
        check(NEAR, "C", 1.0, expected, 0.1)


def test_an_empty_check_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least one number"):
        check(NEAR, "C", [], [], 0.1)


# ── what a notebook calls ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_that_holds_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    claim("C7.1-2", part="time_ratio", measured=2.0413, expected=2.0, tolerance=0.2)
    description = find_part("C7.1-2", "time_ratio")[1].description
    assert capsys.readouterr().out == f"✓ {description}: 2.04 measured, 2.00 expected, tolerance 0.2\n"


def test_a_claim_that_fails_raises_with_both_values_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ClaimFailed, match=r"✗ .*: 2\.35 measured, 2\.00 expected, tolerance 0\.2\n.*\(time_ratio\): 2\.35, close 2\.0"
    ):
        claim("C7.1-2", part="time_ratio", measured=2.35, expected=2.0, tolerance=0.2)
    assert capsys.readouterr().out == ""


def test_a_claim_cannot_be_loosened_until_it_passes() -> None:
    with pytest.raises(InvalidArgument, match=r"at most 0\.2, the widest tolerance of C7\.1-2"):
        claim("C7.1-2", part="time_ratio", measured=2.35, expected=2.0, tolerance=0.4)


def test_an_array_names_its_worst_element(capsys: pytest.CaptureFixture[str]) -> None:
    measured, expected = [0.501, 0.33, 0.15, 0.05], [0.5, 0.3, 0.15, 0.05]
    claim("C7.1-2", part="absorbed_at", measured=measured, expected=expected, tolerance=0.04)
    assert capsys.readouterr().out.endswith(": 0.330 measured, 0.300 expected, tolerance 0.04 (worst of 4)\n")
    with pytest.raises(ClaimFailed, match=r"0\.330 measured, 0\.300 expected, tolerance 0\.02 \(worst of 4\)"):
        claim("C7.1-2", part="absorbed_at", measured=measured, expected=expected, tolerance=0.02)


def test_bounds_say_which_side_they_are_on(capsys: pytest.CaptureFixture[str]) -> None:
    claim("C7.1-2", part="all_absorbed", measured=1.0, expected=1.0)
    assert "at least" in capsys.readouterr().out
    with pytest.raises(ClaimFailed, match=r"at least 1 expected\n.*0\.999, at least 1\.0"):
        claim("C7.1-2", part="all_absorbed", measured=0.999, expected=1.0)
    claim("C7.1-1", part="median_tail", measured=0.0, expected=0.0)
    assert "at most" in capsys.readouterr().out
    with pytest.raises(ClaimFailed, match="at most"):
        claim("C7.1-1", part="median_tail", measured=0.002, expected=0.0)


@pytest.mark.parametrize(("id", "part"), [("C2.1-3", "gap"), ("C3.2-3", "stabilised_modes")])
def test_model_parts_print_their_verdict_only(id: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    claim(id, part=part, measured=4.217, expected=3.0)
    assert capsys.readouterr().out == f"✓ {find_part(id, part)[1].description}\n"
    with pytest.raises(ClaimFailed, match=r"2\.41 measured, .*3"):
        claim(id, part=part, measured=2.413, expected=3.0)


def test_exact_parts_of_a_model_row_print_their_digits(capsys: pytest.CaptureFixture[str]) -> None:
    claim("C7.1-3", part="cooling_limit", measured=0.7501, expected=0.75009, tolerance=0.001)
    assert "0.7501 measured, 0.7501 expected, tolerance 0.001" in capsys.readouterr().out


def test_an_unknown_id_or_part_lists_what_there_is() -> None:
    with pytest.raises(InvalidArgument, match=r"id = 'C7\.9-1' .*C1\.1-1 to C8-1"):
        claim("C7.9-1", part="x", measured=1.0, expected=1.0)
    with pytest.raises(InvalidArgument, match=r"part = 'x' .*absorbed_at, all_absorbed, time_ratio"):
        claim("C7.1-2", part="x", measured=1.0, expected=1.0)


def test_each_check_adds_one_line_to_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "claims.jsonl"
    monkeypatch.setenv(claims.CLAIMS_LOG_ENV_VAR, str(log))
    claim("C7.1-2", part="absorbed_at", measured=[0.51, 0.3], expected=[0.5, 0.3], tolerance=0.02)
    with pytest.raises(ClaimFailed):
        claim("C7.1-2", part="time_ratio", measured=2.5, expected=2.0, tolerance=0.2)
    with pytest.raises(InvalidArgument):
        claim("C7.1-2", part="time_ratio", measured=2.0, expected=2.0, tolerance=9.0)
    held, failed = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    assert held == {
        "id": "C7.1-2", "part": "absorbed_at", "measured": 0.51, "expected": 0.5,
        "tolerance": 0.02, "elements": 2, "holds": True, "at": "",
    }  # fmt: skip
    assert (failed["part"], failed["measured"], failed["holds"]) == ("time_ratio", 2.5, False)


def numbers(line: str) -> tuple[str, str, str | None]:
    match = re.fullmatch(
        r"✓ something measured: (\S+) measured, (?:at least )?(\S+?) expected(?:, (?:tolerance|exact to) (\S+))?", line
    )
    assert match, line
    return match[1], match[2], match[3]


@given(st.floats(-999.0, 999.0), st.floats(-0.99, 0.99), st.floats(1e-9, 99.0))
def test_a_line_prints_digits_down_to_a_tenth_of_the_tolerance_and_four_at_most(
    e: float, off: float, tol: float
) -> None:
    m = e + off * tol
    measured, expected, tolerance = numbers(format_result(BLAND, NEAR, check(NEAR, "C", m, e, tol)))
    scale = max(abs(m), abs(e))
    rounding = max(tol / 20, scale / 2000)
    assert float(measured) == pytest.approx(m, abs=1.001 * rounding)
    assert float(expected) == pytest.approx(e, abs=1.001 * rounding)
    assert tolerance is not None and float(tolerance) == pytest.approx(tol, rel=0.05)
    digits_shown = re.sub(r"e.*|[-.]", "", measured).lstrip("0")
    assert len(digits_shown) <= 4 or "." not in measured


@pytest.mark.parametrize(
    ("residual", "tolerance", "printed"),
    [
        (3.55e-15, 1e-9, "0 measured, 0 expected, exact to 1e-09"),
        (3.11e-15, 1e-9, "0 measured, 0 expected, exact to 1e-09"),
        (-2.47e-17, 1e-9, "0 measured, 0 expected, exact to 1e-09"),
        (0.0056, 0.008, "0.0056 measured, 0 expected, tolerance 0.008"),
        (-0.0004, 0.05, "0.000 measured, 0 expected, tolerance 0.05"),
    ],
)
def test_a_residual_below_the_tolerance_prints_as_nothing(residual: float, tolerance: float, printed: str) -> None:
    assert format_result(BLAND, NEAR, check(NEAR, "C", residual, 0.0, tolerance)).endswith(f": {printed}")


@pytest.mark.parametrize(
    ("m", "e", "tol", "printed"),
    [
        (0.122, 0.1216, 0.003, "0.1220 measured, 0.1216 expected, tolerance 0.003"),
        (25.0, 25.0, 0.0, "25 measured, 25 expected"),
        (32561.0, 32561.0, 3.0, "32561 measured, 32561 expected, tolerance 3"),
        (68.97, 69.2, 2.0, "69.0 measured, 69.2 expected, tolerance 2"),
        (4.04e-05, 4.036e-05, 1e-6, "4.04e-05 measured, 4.04e-05 expected, tolerance 1e-06"),
        (1.3e-109, 0.0, 1e-6, "0 measured, 0 expected, exact to 1e-06"),
    ],
)
def test_numbers_print_as_people_write_them(m: float, e: float, tol: float, printed: str) -> None:
    assert quantities("close", m, e, tol) == printed


def test_the_last_bits_do_not_choose_the_worst_element() -> None:
    for noise in (1e-16, -1e-16):
        shown = check(NEAR, "C", [1.0 + noise, 1.0 - noise, 1.0], 1.0, 1e-9, at=["a", "b", "c"])
        assert shown.at == "a"
    assert check(NEAR, "C", [1.0, 3.0, 2.0], 1.0, 1.5, at=["a", "b", "c"]).at == "b"  # what fails comes first
    rising = Part("p", "something measured", "at least", max_tolerance=1e9, max_tolerance_is_absolute=True)
    assert check(rising, "C", [0.5, 0.03, 0.2], 0.0, 0.0, at=["a", "b", "c"]).at == "b"  # the nearest to a bound of 0


def test_the_line_names_where_the_worst_element_was_measured(capsys):
    claim("C7.2-2", part="nearly_all_collapse", measured=[1, 0.995], expected=0.99, at=[100, 500])
    assert capsys.readouterr().out.endswith("0.995 measured, at least 0.99 expected (worst of 2, at 500)\n")
