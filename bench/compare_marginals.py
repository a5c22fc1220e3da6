"""Private tables by counting: Mst of ours beside MST and AIM of smartnoise-synth, on all training rows of Adult.

All learn from the same rows in the same cells, which were fixed without looking at any row, so nobody pays to find
them: ours through its schema, the peers as whole numbers with a transformer that was shown every cell once. Each fit
has a process and a thread of its own, one after the other. The cells that were drawn become rows here, by the same
code for all, and gradient boosting that learns from them is tested on the real test file.

The argument is the Python of the environment with smartnoise-synth. A peer's run takes minutes, so each is kept in
build/bench-marginals, and not made again unless its inputs change or `--anew` is given; ours are made each time.
Nothing else should run on the machine meanwhile. Writes bench/results/marginals.json; `--quick` takes 3,000 rows, one
budget and one seed, and neither keeps nor writes anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

import harness
import numpy as np

EPSILONS, DELTA = (1.0, 8.0), 1e-5
QUICK_ROWS = 3_000
ROUNDS = 2  # of AIM for each column; by default 16
WARM_UP = 64  # rows of the call that child.py makes before it measures
OURS = {"tree": "synthbook's Mst", "target": "synthbook's Mst, target income"}
PEERS = {"peer_mst": "smartnoise's MST", "peer_aim": "smartnoise's AIM"}
NAMES = OURS | PEERS
SPENT = ("fit_seconds", "fit_cpu_seconds", "draw_seconds", "added_mib", "process_mib")
SCORES = ("auc", "marginals", "pairs")
PACKAGES = ("smartnoise-synth", "mbi", "jax", "opendp", "numpy", "pandas")
KEPT = harness.BENCH.parent / "build" / "bench-marginals"
Arrays = dict[str, np.ndarray]


# ── one fit, in a process of its own ─────────────────────────────────────────────────────────────────────────────────


def tree(**arrays: np.ndarray) -> dict[str, Any]:
    """Ours, with its defaults."""
    return ours(None, arrays)


def target(**arrays: np.ndarray) -> dict[str, Any]:
    """Ours, told which column matters."""
    return ours("income", arrays)


def ours(target: str | None, arrays: Arrays) -> dict[str, Any]:
    """What a fit and a draw took, and the cells that were drawn."""
    import torch

    from synthbook.core.table import Table
    from synthbook.datasets import adult
    from synthbook.privacy.generators.mst import Mst

    torch.set_num_threads(1)
    rows, seed, train = arrays["rows"], int(arrays["seed"]), adult().train
    table = Table(train.frame.iloc[rows], train.schema)
    model = Mst(epsilon=float(arrays["epsilon"]), delta=DELTA, target=target)
    _, fit, cpu = timed(lambda: model.fit(table, seed=seed))
    drawn, draw, _ = timed(lambda: model.sample(len(rows), seed=seed))
    cells = np.stack([one.codes(drawn.frame[one.column.name]) for one in model.discretizers_], axis=1)
    return {"fit_seconds": fit, "fit_cpu_seconds": cpu, "draw_seconds": draw, "cells": cells.tolist()}


def peer_mst(**arrays: np.ndarray) -> dict[str, Any]:
    """The peer's MST, with its defaults."""
    one_thread()
    from snsynth.mst import MSTSynthesizer

    return peer(MSTSynthesizer(epsilon=float(arrays["epsilon"]), delta=DELTA), arrays)


def peer_aim(**arrays: np.ndarray) -> dict[str, Any]:
    """The peer's AIM, with fewer rounds than by default."""
    one_thread()
    from snsynth.aim import AIMSynthesizer

    rounds = ROUNDS * len(arrays["sizes"])
    return peer(AIMSynthesizer(epsilon=float(arrays["epsilon"]), delta=DELTA, rounds=rounds), arrays)


def one_thread() -> None:
    """Before jax is imported, which reads it."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def peer(model: Any, arrays: Arrays) -> dict[str, Any]:
    """As `ours`, without spending anything on a transformer; to warm up, three columns are enough."""
    from snsynth.transform import LabelTransformer, TableTransformer

    codes, sizes = arrays["codes"], arrays["sizes"]
    if len(codes) <= WARM_UP:
        codes, sizes = codes[:, :3], sizes[:3]
    transformer = TableTransformer([LabelTransformer(nullable=False) for _ in sizes])
    transformer.fit((np.arange(sizes.max())[:, None] % sizes).tolist())  # each cell of each column, and no row
    np.random.seed(int(arrays["seed"]))  # noqa: NPY002  # of the peer's choices; its noise cannot be seeded
    plain = codes.tolist()
    _, fit, cpu = timed(lambda: model.fit(plain, transformer=transformer, preprocessor_eps=0.0))
    spoilt = model.sample(len(codes))
    model.synthesizer = Mended(model.synthesizer)
    drawn, draw, _ = timed(lambda: model.sample(len(codes)))
    found = {"cells": np.array(drawn).tolist(), "cells_as_it_comes": np.array(spoilt).tolist()}
    return {"fit_seconds": fit, "fit_cpu_seconds": cpu, "draw_seconds": draw} | found


class Mended:
    """A fitted model of mbi 1.1, the last that smartnoise-synth takes, without two faults in how it draws.

    It conditions on the cliques that were measured, not on those of the junction tree, and by default, "round", it
    ties columns to each other that only share a parent: github.com/ryan112358/mbi/pull/145, in mbi 2.
    """

    def __init__(self, model: Any):
        from mbi import MarkovRandomField, junction_tree

        tree, _ = junction_tree.make_junction_tree(model.domain, [set(clique) for clique in model.cliques])
        potentials = model.potentials.expand(list(tree.nodes))
        self.model = MarkovRandomField(potentials=potentials, marginals=model.marginals, total=model.total)

    def synthetic_data(self, rows: int) -> Any:
        """As the model's own, each row by itself."""
        return self.model.synthetic_data(rows=rows, method="sample")


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, the seconds that it took, and those of the processor."""
    wall, cpu = perf_counter(), process_time()
    result = call()
    return result, perf_counter() - wall, process_time() - cpu


# ── runs and their judge ─────────────────────────────────────────────────────────────────────────────────────────────


class Judge:
    """Adult's training rows, all or a few, in cells; and what drawn cells are worth beside them."""

    def __init__(self, few: int | None):
        from synthbook.datasets import adult
        from synthbook.generators.tabular.base import TableSpec
        from synthbook.privacy.generators.discretize import Discretizer

        self.data = adult()
        train = self.data.train
        self.layout = TableSpec.of(train, public_only=True)
        self.cells = [Discretizer.from_column(column) for column in self.layout.modeled]
        self.rows = np.arange(len(train))
        if few is not None:
            self.rows = np.sort(np.random.default_rng(0).choice(len(train), few, replace=False))
        frame = train.frame.iloc[self.rows]
        self.codes = np.stack([one.encode(frame[one.column.name]) for one in self.cells], axis=1)
        self.sizes = np.array([one.n_bins for one in self.cells])

    def inputs(self, epsilon: float, seed: int) -> Arrays:
        """What a fit is given."""
        plain = {"rows": self.rows, "codes": self.codes, "sizes": self.sizes}
        return plain | {"epsilon": np.array(epsilon), "seed": np.array(seed)}

    def __call__(self, drawn: np.ndarray, seed: int) -> dict[str, float]:
        """`auc` and `marginals` as in `tradeoff.score`; `pairs`: mean distance of the counts of two columns."""
        import pandas as pd

        from synthbook.core.table import Table
        from synthbook.evaluation.fidelity import marginal_distances

        rng = np.random.default_rng(seed)
        values = {one.column.name: one.decode(drawn[:, j], rng) for j, one in enumerate(self.cells)}
        made = Table(self.layout.completed(pd.DataFrame(values), 1), self.layout.schema)
        moved = marginal_distances(made, real=self.data.train)["distance"].clip(upper=10).mean()
        return {"auc": self.auc(made), "marginals": float(moved), "pairs": self.pairs(drawn)}

    def auc(self, made: Any) -> float:
        """Of gradient boosting that learned from these rows, on the real test file."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.metrics import roc_auc_score

        from synthbook.evaluation.features import fit_table_encoder

        learned, test = made.drop_column("income"), self.data.test.data
        encode = fit_table_encoder(learned)
        model = HistGradientBoostingClassifier(early_stopping=False, random_state=0)
        model.fit(encode(learned), made["income"].cat.codes)
        guessed = model.predict_proba(encode(test.drop_column("income")))[:, 1]
        return float(roc_auc_score(test["income"].cat.codes, guessed))

    def pairs(self, drawn: np.ndarray) -> float:
        """Total variation distance from the rows that were learned from, over all pairs of columns."""
        found = []
        for a, b in combinations(range(len(self.sizes)), 2):
            p, q = (
                np.bincount(x[:, a] * self.sizes[b] + x[:, b], minlength=self.sizes[a] * self.sizes[b]) / len(x)
                for x in (self.codes, drawn)
            )
            found.append(float(np.abs(p - q).sum()) / 2)
        return mean(found)


def run(name: str, python: str, arrays: Arrays, sitting: str, *, keep: bool) -> dict[str, Any]:
    """What one fit took, the cells drawn, and when; of a peer, the one that was kept if there is any."""
    subject = harness.Subject(NAMES[name], "compare_marginals", name, *([python] if name in PEERS else []))
    task = sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())).hexdigest()
    stem = f"{name}-epsilon{arrays['epsilon']:g}-seed{arrays['seed']}"
    kept = KEPT / f"{stem}-{task[:16]}{f'-rounds{ROUNDS}' * (name == 'peer_aim')}.json"
    if keep and name in PEERS and kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    print(f"{stem} ...", flush=True)
    measured = harness.alternate([subject], arrays, 1)[NAMES[name]]
    found = measured["result"] | {key: measured[key]["median"] for key in ("added_mib", "process_mib")}
    found |= {"sitting": sitting, "seed": int(arrays["seed"])}
    if keep and name in PEERS:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found), encoding="utf-8")
    return found


# ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────────


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Spreads over the seeds, and each run."""
    return {key: harness.undo_compress([one[key] for one in runs]) for key in (*SPENT, *SCORES)} | {"runs": runs}


def against(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Ratios of medians of what was spent, and differences of those of the scores."""
    ratios = {key: mine[key]["median"] / theirs[key]["median"] for key in SPENT}
    return ratios | {key: mine[key]["median"] - theirs[key]["median"] for key in SCORES}


COLUMNS = [
    "ε",
    "",
    "AUC, median (least–most)",
    "distance of columns",
    "distance of pairs",
    "fit, seconds, median (least–most)",
    "CPU seconds of the fit",
    "added peak memory, MiB",
    "CPU time of ours, tree and target, over this",
]


def table(found: dict[str, dict[str, Any]], ratios: dict[str, Any], real: float) -> list[list[str]]:
    """A line for each budget and subject, and one for the real rows."""
    lines = [COLUMNS]
    for epsilon, subjects in found.items():
        for name, one in subjects.items():
            auc, fit = one["auc"], one["fit_seconds"]
            over = [f"{ratios[epsilon][f'{mine}/{name}']['fit_cpu_seconds']:.4f}" for mine in OURS if name in PEERS]
            lines.append(
                [
                    epsilon,
                    NAMES[name],
                    f"{auc['median']:.3f} ({auc['least']:.3f}–{auc['most']:.3f})",
                    *(f"{one[key]['median']:.3f}" for key in ("marginals", "pairs")),
                    f"{fit['median']:,.2f} ({fit['least']:,.2f}–{fit['most']:,.2f})",
                    f"{one['fit_cpu_seconds']['median']:,.2f}",
                    f"{one['added_mib']['median']:,.0f}",
                    ", ".join(over),
                ]
            )
    return [*lines, ["none", "the real rows", f"{real:.3f}", *[""] * 6]]


def told(found: dict[str, dict[str, Any]], sittings: list[str]) -> str:
    """The sentences below the table."""
    text = (
        f"δ = {DELTA:g}; the schema's cells for all, so no budget goes to a preprocessor (preprocessor_eps = 0)."
        f" MST has its defaults. AIM has {ROUNDS} rounds for each column instead of its 16, with which a fit had spent"
        " a tenth of its budget after three minutes of the processor and was given up; its other settings are its own."
        " Ours with a target is told which column will be predicted, the peers are not."
        " Distances are from the training rows, 0 is none. The peers compile each model anew with jax, which is part of"
        " their time. Their noise is OpenDP's, slower and made to withstand attacks on floating-point numbers; ours"
        " claims no such protection. mbi 1.1, which smartnoise-synth asks for, has two faults in how it draws (its pull"
        " request 145 tells); the rows judged here were drawn from the same fits without them. As it comes,"
        f" {spoilt(found)}."
    )
    for epsilon, subjects in found.items():
        for score, better, what in (("auc", max, "AUC"), ("pairs", min, "pairs of columns")):
            best = better(subjects, key=lambda name: subjects[name][score]["median"])
            text += f" At ε = {epsilon} {NAMES[best]} is best by {what}."
    aim = [subjects["peer_aim"]["auc"]["median"] for subjects in found.values()]
    if aim[-1] < aim[0]:
        text += (
            " AIM's AUC does not grow with the budget: most likely few rounds hold it back, not noise, and with its"
            " default it may well come out ahead."
        )
    counts = {name: {len(subjects[name]["runs"]) for subjects in found.values()} for name in NAMES}
    text += f" Fits at each budget: {', '.join(f'{NAMES[name]} {min(seeds)}' for name, seeds in counts.items())}."
    if any(min(seeds) == 1 for seeds in counts.values()):
        text += " What luck does to a single fit is not known."
    busy = [one for of in found.values() for name in PEERS for one in of[name]["runs"] if idle(one) > 0.1]
    if busy:
        text += f" During {len(busy)} fits of the peers the machine had other work too: only seconds of CPU count."
    return text + (f" The peers' runs were made in {len(sittings)} sittings." if len(sittings) > 1 else "")


def spoilt(found: dict[str, dict[str, Any]]) -> str:
    """What the peers' rows are worth with the faults of mbi 1.1, in words."""
    said = []
    for epsilon, subjects in found.items():
        for name in PEERS:
            runs = [one["as_it_comes"] for one in subjects[name]["runs"]]
            auc, pairs = (median(one[key] for one in runs) for key in ("auc", "pairs"))
            said.append(
                f"at ε = {epsilon}, {NAMES[name]} has an AUC of {auc:.3f} and a distance of pairs of {pairs:.3f}"
            )
    return "; ".join(said)


def idle(one: dict[str, Any]) -> float:
    """The share of a fit in which it had no processor."""
    return 1 - float(one["fit_cpu_seconds"] / one["fit_seconds"])


def versions(python: str) -> dict[str, str]:
    """Of the peer's packages."""
    code = f"import json, importlib.metadata as m; print(json.dumps({{p: m.version(p) for p in {PACKAGES}}}))"
    return dict(json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout))


def main() -> None:
    options = parsed()
    quick, sitting = options.quick, datetime.now(UTC).isoformat(timespec="seconds")
    judge = Judge(QUICK_ROWS if quick else None)
    seeds = dict.fromkeys(OURS, options.seeds) | {"peer_mst": options.peer_seeds, "peer_aim": options.aim_seeds}
    if options.anew:
        for file in KEPT.glob("*.json"):
            file.unlink()
    made: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for epsilon in EPSILONS[:1] if quick else EPSILONS:
        runs = made[f"{epsilon:g}"] = {name: [] for name in NAMES}
        for seed in range(1 if quick else max(seeds.values())):
            for name in [name for name in NAMES if seed < (1 if quick else seeds[name])]:
                runs[name].append(run(name, options.python, judge.inputs(epsilon, seed), sitting, keep=not quick))
    for one in [one for runs in made.values() for several in runs.values() for one in several]:
        one |= judge(np.array(one.pop("cells")), one["seed"])
        if "cells_as_it_comes" in one:
            one["as_it_comes"] = judge(np.array(one.pop("cells_as_it_comes")), one["seed"])

    found = {epsilon: {name: summary(several) for name, several in runs.items()} for epsilon, runs in made.items()}
    ratios = {
        epsilon: {f"{mine}/{peer}": against(of[mine], of[peer]) for mine in OURS for peer in PEERS}
        for epsilon, of in found.items()
    }
    real = judge.auc(judge.data.train)
    sittings = sorted({one["sitting"] for of in found.values() for name in PEERS for one in of[name]["runs"]})
    lines, note = table(found, ratios, real), told(found, sittings)
    if quick:
        return harness.show(lines, note)
    result = {
        "rows": len(judge.rows),
        "delta": DELTA,
        "cells": {one.column.name: one.n for one in judge.cells},
        "aim_rounds": ROUNDS * len(judge.cells),
        "subjects": found,
        "against": ratios,
        "real_auc": real,
        "sittings": sittings,
        "peer_packages": versions(options.python),
        "machine": harness.machine("scikit-learn", "pandas"),
    }
    title = f"Private tables by counting, fitted to {len(judge.rows):,} rows of Adult"
    harness.save_result("marginals", title, note, lines, result, seed=0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", help="the Python of the environment with smartnoise-synth")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each of ours at each budget")
    parser.add_argument("--peer-seeds", type=int, default=3, help="fits of the peer's MST at each budget")
    parser.add_argument("--aim-seeds", type=int, default=3, help="fits of the peer's AIM at each budget")
    parser.add_argument("--anew", action="store_true", help="make the peers' runs again")
    parser.add_argument("--quick", action="store_true", help="few rows, one budget and seed, and no result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
