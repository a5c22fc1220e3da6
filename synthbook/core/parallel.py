"""The same work on one core or many: shards side by side, whatever happens to the workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.core.provenance import Provenance
from synthbook.core.shards import Plan, claimed, finished, sweep, write_manifest, write_shard

Task = Callable[[dict[int, np.random.SeedSequence]], bytes]
RETRIES = 3  # rounds in which a worker may die


class WorkersLost(SynthbookError):
    """Workers were killed again and again, by the system's memory guard as a rule."""


def pmap(
    task: Task,
    plan: Plan,
    out: Path,
    *,
    jobs: int = 1,
    resume: bool = False,
    origin: Provenance,
    observe: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Make every shard of `plan` in the folder `out` and return the manifest's path.

    `task` gets the items of a shard, each with its seed, and returns the shard's bytes; it is sent to worker processes,
    so it lives in a module. Workers write their shards themselves. The bytes do not depend on `jobs`, nor on how often
    the run was stopped. Shards of a worker that was killed are tried again. `observe` is told (items done, of how
    many), `say` what people should know. Raises `InvalidArgument`, `Busy`, `WorkersLost`, and what `task` raises.
    """
    if not isinstance(jobs, int) or jobs < 1:
        raise InvalidArgument("jobs", jobs, "a whole number of at least 1")
    out = Path(out)
    with claimed(out, plan, resume=resume):
        digests, damaged = finished(out, plan)
        for name in damaged:
            say(f"{out / name} changed after it was written: it is made again")
        for lost in range(RETRIES + 1):
            missing = [k for k, name in enumerate(plan.names) if name not in digests]
            done = plan.n - sum(len(plan.items(k)) for k in missing)
            observe(done, plan.n)
            try:
                work = (delayed(_shard)(task, plan, out, k) for k in missing)
                for k, digest in Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(work):
                    digests[plan.names[k]] = digest
                    done += len(plan.items(k))
                    observe(done, plan.n)
                break
            except TerminatedWorkerError:
                digests = finished(out, plan)[0]  # the others went on while the news travelled
                say(f"a worker was killed; {len(plan.names) - len(digests)} shards are left")
                if lost == RETRIES:
                    raise WorkersLost(
                        f"workers were killed {RETRIES + 1} times, perhaps for lack of memory. "
                        f"What is finished stays in {out}: use fewer --jobs and --resume"
                    ) from None
        sweep(out)
        return write_manifest(out, plan, digests, origin)


def _shard(task: Task, plan: Plan, out: Path, k: int) -> tuple[int, str]:
    return k, write_shard(out, plan.names[k], task(plan.items(k)))
