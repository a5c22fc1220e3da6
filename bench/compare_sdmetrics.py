"""The novelty share of honest rows: ours against sdmetrics' DCROverfittingProtection, on the same rows of Adult.

Rows drawn at random stand in for a perfect generator: they are neither nearer to the training rows nor to the holdout,
so 0.5 is right. Two tables: all columns but fnlwgt, which hardly repeats, and the categories alone, where most
distances are tied. Writes bench/results/sdmetrics.json. Its argument is the Python of the environment with sdmetrics.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import mean

import harness
import numpy as np

ROWS, SEEDS = 2_000, (0, 1, 2, 3, 4)
TABLES = ("all columns", "categories")
SETS = ("synthetic", "train", "holdout")


def ours(**arrays: np.ndarray) -> dict:
    from synthbook.core.table import Schema, Table
    from synthbook.datasets import adult
    from synthbook.evaluation.features import fit_table_encoder
    from synthbook.evaluation.novelty import novelty

    whole = adult().train.schema
    frames = _frames(arrays)
    schema = Schema(tuple(whole[name] for name in frames["train"].columns), whole.origin)
    tables = {name: Table(schema.cast(frame), schema) for name, frame in frames.items()}
    features = fit_table_encoder(tables["train"])
    found = novelty(**{name: features(tables[name]) for name in SETS}, seed=0)
    return {"share": found.dcr_share, "low": found.low, "high": found.high}


def peer(**arrays: np.ndarray) -> dict:
    from sdmetrics.single_table import DCROverfittingProtection

    frames = _frames(arrays)
    kinds = {name: "categorical" if values.dtype == object else "numerical" for name, values in frames["train"].items()}
    columns = {name: {"sdtype": kind} for name, kind in kinds.items()}
    found = DCROverfittingProtection.compute_breakdown(
        real_training_data=frames["train"],
        synthetic_data=frames["synthetic"],
        real_validation_data=frames["holdout"],
        metadata={"columns": columns},
        table_name="adult",
    )
    return {"share": float(found["synthetic_data_percentages"]["closer_to_training"])}


def _frames(arrays: dict[str, np.ndarray]) -> dict:
    import pandas as pd

    frames: dict[str, dict] = {name: {} for name in SETS}
    for key, values in arrays.items():
        part, column = key.split("/")
        frames[part][column] = values.astype(object) if values.dtype.kind == "U" else values
    return {name: pd.DataFrame(columns) for name, columns in frames.items()}


def rows_of_adult(table: str, seed: int) -> dict[str, np.ndarray]:
    """Three disjoint random parts of Adult's training file without missing values, as columns of plain arrays."""
    from synthbook.datasets import adult

    train = adult().train
    words = [column.name for column in train.schema.columns if column.kind == "categorical"]
    names = words if table == "categories" else [name for name in train.schema.names if name != "fnlwgt"]
    frame = train.frame[names].dropna()
    picked = np.random.default_rng(seed).permutation(len(frame))[: 3 * ROWS].reshape(3, ROWS)
    arrays = {}
    for part, rows in zip(SETS, picked, strict=True):
        for name, values in frame.iloc[rows].items():
            arrays[f"{part}/{name}"] = values.to_numpy().astype(str) if name in words else values.to_numpy(dtype=float)
    return arrays


def main(python: str) -> None:
    subjects = [
        harness.Subject("synthbook", "compare_sdmetrics", "ours"),
        harness.Subject("sdmetrics", "compare_sdmetrics", "peer", python),
    ]
    rows, tables = [["table", *harness.COLUMNS, "share nearer to training rows, mean (least–most)"]], {}
    for table in TABLES:
        tables[table] = _measured(table, subjects)
        for name, m in tables[table].items():
            s = m["shares"]
            rows.append([table, *harness.row(name, m, f"{mean(s):.3f} ({min(s):.3f}–{max(s):.3f})")])
    note = (
        f"{ROWS:,} fresh rows of Adult, {len(SEEDS)} random draws. 0.5 is right; sdmetrics counts every tie for the"
        " holdout. The two measure distance differently, so single draws differ too."
    )
    content = {
        "rows": ROWS,
        "seeds": list(SEEDS),
        "tables": tables,
        "sdmetrics": _version(python),
        "machine": harness.machine("scikit-learn", "scipy"),
    }
    harness.save_result("sdmetrics", "Novelty of fresh rows", note, rows, content)


def _measured(table: str, subjects: list[harness.Subject]) -> dict[str, dict]:
    runs: dict[str, list[dict]] = {subject.name: [] for subject in subjects}
    for seed in SEEDS:
        for name, measured in harness.alternate(subjects, rows_of_adult(table, seed), 1).items():
            runs[name].append(measured)
    return {name: _merged(found) for name, found in runs.items()}


def _merged(runs: list[dict]) -> dict:
    measures = ("seconds", "cpu_seconds", "added_mib", "process_mib")
    spreads = {key: harness.spread([run[key]["median"] for run in runs]) for key in measures}
    bands = [[run["result"][end] for end in ("low", "high")] for run in runs if "low" in run["result"]]
    return spreads | {"shares": [run["result"]["share"] for run in runs], "bands": bands}


def _version(python: str) -> str:
    code = "import sdmetrics; print(sdmetrics.__version__)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
