"""Many items in few files that survive anything: a fixed plan, whole files, a hash for each, the manifest last.

Which items go into which shard follows from the plan alone, never from the number of workers. A shard is finished when
its file and the file with its hash are there and agree; everything else is made again. So a run that was killed at any
moment goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

import synthbook
from synthbook.core.errors import DataError, InvalidArgument, SynthbookError
from synthbook.core.storage import Provenance, atomic_write, file_lock, sha256, sha256_file, write_with_provenance

PLAN, MANIFEST, LOCK = "plan.json", "manifest.json", ".lock"
_SHARD_SIZE = 100


@dataclass(frozen=True)
class ShardPlan:
    """`n` items, `shard_size` to a file, drawn from `seed`; `settings` says what is made of them, as plain JSON.

    Item i has the seed sequence of `seed` with spawn key (i,), so that it can be made again alone.
    """

    n: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    shard_size: int = _SHARD_SIZE
    suffix: str = ".parquet"

    def __post_init__(self) -> None:
        for name, value, least in (("n", self.n, 1), ("seed", self.seed, 0), ("shard_size", self.shard_size, 1)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InvalidArgument(name, value, f"a whole number of at least {least}")

    @property
    def shard_names(self) -> list[str]:
        """File names of the shards."""
        return [f"shard-{k:05d}{self.suffix}" for k in range(-(-self.n // self.shard_size))]

    def item_seeds(self, shard: int) -> dict[int, np.random.SeedSequence]:
        """The seed sequence of each item of a shard."""
        first = shard * self.shard_size
        return {i: item_seed(self.seed, i) for i in range(first, min(first + self.shard_size, self.n))}

    def to_dict(self) -> dict[str, Any]:
        """The plan and the package version, as plain data."""
        fixed = {"n": self.n, "seed": self.seed, "shard_size": self.shard_size, "suffix": self.suffix}
        document: dict[str, Any] = json.loads(json.dumps({**fixed, "settings": dict(self.settings)}))
        return document | {"synthbook": synthbook.__version__}


def item_seed(seed: int, item: int) -> np.random.SeedSequence:
    """The seed sequence of one item of a run."""
    return np.random.SeedSequence(seed, spawn_key=(item,))


@contextmanager
def lock_output(folder: Path, plan: ShardPlan, *, resume: bool) -> Iterator[None]:
    """Hold the folder for this plan: raises `LockedError`, and `InvalidArgument` for a folder of another run.

    A new run wants a folder that is empty or not there; with `resume` the plan found there must be the same.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument("out", str(folder), "a folder: this is a file")
    stored = _json(folder / PLAN) if (folder / PLAN).exists() else None
    if stored is None and folder.exists() and [p for p in folder.iterdir() if p.name != LOCK]:
        raise InvalidArgument(
            "out", str(folder), "an empty folder, or one that does not exist yet: this holds other files"
        )
    if stored is not None and stored != plan.to_dict():
        other = ", ".join(
            f"{k} {stored.get(k)!r} there, {v!r} now" for k, v in plan.to_dict().items() if stored.get(k) != v
        )
        raise InvalidArgument(
            "out", str(folder), f"the folder of the same run, or a new one: it has another plan ({other})"
        )
    if stored is not None and not resume:
        raise InvalidArgument("out", str(folder), "a new folder, or --resume to go on with this run")
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / LOCK, f"{folder} is being written to"):
        if stored is None:
            atomic_write(folder / PLAN, json.dumps(plan.to_dict(), indent=1) + "\n")
        _remove_temp_files(folder)
        yield


def _remove_temp_files(folder: Path) -> None:
    """Remove temporary files that killed writers left."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
        assert isinstance(document, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise DataError(f"{path} is not readable as JSON ({error}): start again in a new folder") from None
    return document


def completed_shards(folder: Path, plan: ShardPlan) -> tuple[dict[str, str], list[str]]:
    """The SHA-256 of each completed shard, and the names of shards whose bytes have changed since."""
    good, damaged = {}, []
    for name in plan.shard_names:
        path, sidecar = folder / name, folder / f"{name}.sha256"
        if path.exists() and sidecar.exists():
            digest = sha256_file(path)
            if digest == sidecar.read_text().strip():
                good[name] = digest
            else:
                damaged.append(name)
    return good, damaged


def write_manifest(folder: Path, plan: ShardPlan, digests: Mapping[str, str], provenance: Provenance) -> Path:
    """Write the manifest: the plan, and the SHA-256 of every shard."""
    ordered = {name: digests[name] for name in plan.shard_names}
    text = json.dumps({"plan": plan.to_dict(), "shards": ordered}, indent=1) + "\n"
    return write_with_provenance(folder / MANIFEST, text, provenance)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a finished run, each checked against the manifest. Raises `DataError`, which names the file."""
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder} has no {MANIFEST}: the run has not finished; go on with --resume")
    paths = []
    for name, digest in _json(folder / MANIFEST).get("shards", {}).items():
        path = folder / name
        actual = sha256_file(path) if path.exists() else "missing"
        if actual != digest:
            raise DataError(f"{path}: its SHA-256 is {actual}, the manifest says {digest}. --resume makes it again")
        paths.append(path)
    return paths


# ── Shards in parallel processes ──


_ShardFunction = Callable[[dict[int, np.random.SeedSequence]], bytes]
_RETRIES = 3  # rounds in which a worker may die


class WorkersTerminatedError(SynthbookError):
    """Worker processes were killed repeatedly, usually for lack of memory."""


def run_shards(
    function: _ShardFunction,
    plan: ShardPlan,
    out: Path,
    *,
    n_jobs: int = 1,
    resume: bool = False,
    provenance: Provenance,
    callback: Callable[[int, int], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda message: None,
) -> Path:
    """Compute every shard of `plan` in the folder `out` and return the manifest's path.

    `function` maps the items of a shard, each with its seed, to the shard's bytes; it is sent to worker processes, so
    it must be defined in a module. The bytes depend neither on `n_jobs` nor on how often the run was stopped. Shards of
    a killed worker are tried again. `callback(done, total)` counts items; `log(message)` receives warnings. Raises
    `InvalidArgument`, `LockedError`, `WorkersTerminatedError`, and what `function` raises.
    """
    if not isinstance(n_jobs, int) or n_jobs < 1:
        raise InvalidArgument("n_jobs", n_jobs, "a whole number of at least 1")
    out = Path(out)
    with lock_output(out, plan, resume=resume):
        digests, damaged = completed_shards(out, plan)
        for name in damaged:
            log(f"{out / name} changed after it was written: it is made again")
        for lost in range(_RETRIES + 1):
            missing = [k for k, name in enumerate(plan.shard_names) if name not in digests]
            done = plan.n - sum(len(plan.item_seeds(k)) for k in missing)
            callback(done, plan.n)
            try:
                work = (delayed(_write_shard)(function, plan, out, k) for k in missing)
                for k, digest in Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)(work):
                    digests[plan.shard_names[k]] = digest
                    done += len(plan.item_seeds(k))
                    callback(done, plan.n)
                break
            except TerminatedWorkerError:
                digests = completed_shards(out, plan)[0]  # the others went on while the news travelled
                log(f"a worker was killed; {len(plan.shard_names) - len(digests)} shards are left")
                if lost == _RETRIES:
                    raise WorkersTerminatedError(
                        f"workers were killed {_RETRIES + 1} times, perhaps for lack of memory. "
                        f"What is finished stays in {out}: use fewer --jobs and --resume"
                    ) from None
        _remove_temp_files(out)
        return write_manifest(out, plan, digests, provenance)


def _write_shard(function: _ShardFunction, plan: ShardPlan, out: Path, k: int) -> tuple[int, str]:
    """Compute and write shard `k`, then its hash beside it; return k and the hash."""
    name, content = plan.shard_names[k], function(plan.item_seeds(k))
    atomic_write(out / name, content)
    digest = sha256(content)
    atomic_write(out / f"{name}.sha256", digest + "\n")
    return k, digest


# ── Trials: one experiment for many cases and seeds ──
# The spread between seeds sets the tolerances of claims about trained models.


_TABLE = "trials.json"


@dataclass(frozen=True)
class TrialRunner:
    """`run(case, seed=k)` for every case and k = 0, ..., seeds - 1; it returns numbers by name, as plain JSON.

    `run` is a function of a module (or a `partial` of one), so that other processes find it.
    """

    run: Callable[..., Mapping[str, Any]]
    cases: tuple[str, ...]
    seeds: int

    @property
    def n(self) -> int:
        """The number of trials."""
        return len(self.cases) * self.seeds

    def __call__(self, items: dict[int, np.random.SeedSequence]) -> bytes:
        """The trials of a shard as lines of JSON; item i is case i mod K of seed i div K."""
        lines = [self.run(self.cases[i % len(self.cases)], seed=i // len(self.cases)) for i in items]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


def run_trials(
    trials: TrialRunner,
    out: Path,
    settings: Mapping[str, Any],
    provenance: Provenance,
    *,
    n_jobs: int = 1,
    resume: bool = False,
    callback: Callable[[int, int], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda message: None,
) -> Path:
    """Run the trials that `out` lacks, merge all into `out/trials.json`, and return its path.

    A folder whose run has other `settings` is refused.
    """
    plan = ShardPlan(trials.n, 0, settings, shard_size=1, suffix=".jsonl")
    run_shards(trials, plan, out, n_jobs=n_jobs, resume=resume, provenance=provenance, callback=callback, log=log)
    rows = ",\n ".join(path.read_text().strip() for path in shard_paths(out))
    budget = json.dumps(settings.get("budget"))
    text = f'{{"command": "{provenance.command}", "budget": {budget}, "trials": [\n {rows}\n]}}\n'
    return write_with_provenance(out / _TABLE, text, provenance)


def read_trials(path: Path) -> pd.DataFrame:
    """A frame with one row per trial and the columns that its experiment returned."""
    return pd.DataFrame(json.loads(path.read_text())["trials"])
