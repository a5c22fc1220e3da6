"""The verb of section 5: `synthbook epsilon`."""

from __future__ import annotations

from typing import Annotated

import typer

from synthbook.command import Json, put_json
from synthbook.core.errors import InvalidArgument
from synthbook.core.progress import put

SAYS = "epsilon bounds what an attacker can learn in principle; no floating-point protection is claimed."


def epsilon(
    sample_rate: Annotated[float, typer.Option(help="Probability with which a step takes each record.")],
    steps: Annotated[int, typer.Option(help="Steps of training.")],
    delta: Annotated[float, typer.Option(help="Far below 1 / (number of records).")],
    noise_multiplier: Annotated[float | None, typer.Option(help="Noise over clipping length.")] = None,
    target: Annotated[float | None, typer.Option(metavar="EPSILON", help="Find the noise for this budget.")] = None,
    accountant: Annotated[str, typer.Option(help="What calibrates the noise: rdp, prv, pld or pld-replace.")] = "pld",
    as_json: Json = False,
) -> None:
    """Say what a run of DP-SGD spends, by every accountant, or how much noise a budget asks for.

    Batches must be Poisson samples. The unit is one record: where a person has several, it is not the person.

    Examples: `synthbook epsilon --noise-multiplier 1.1 --sample-rate 0.01 --steps 1000 --delta 1e-5`,
    `synthbook epsilon --target 2 --sample-rate 0.01 --steps 1000 --delta 1e-5`
    """
    from synthbook.privacy.accounting import ACCOUNTANTS, Steps, noise_for

    if (noise_multiplier is None) == (target is None):
        given = (noise_multiplier, target)
        raise InvalidArgument("noise-multiplier, target", given, "one of both")
    if noise_multiplier is None:
        assert target is not None
        Steps(1.0, sample_rate, steps)  # refuses what makes no sense before anything is searched
        noise_multiplier = noise_for(target, delta, rate=sample_rate, steps=steps, by=accountant)
    run = Steps(noise_multiplier, sample_rate, steps)
    spent = {name: {"neighbours": pair, "epsilon": spends(run, delta)} for name, (pair, spends) in ACCOUNTANTS.items()}
    if as_json:
        told = {"noise_multiplier": run.noise, "sample_rate": run.rate, "steps": run.steps, "delta": delta}
        put_json(told | {"unit": "one record", "sampling": "Poisson", "accountants": spent})
        return
    about = f"noise multiplier {run.noise:g}, sample rate {run.rate:g}, {run.steps:,} steps, delta {delta:g}"
    put(f"{about}, unit: one record")
    for name, found in spent.items():
        put(f"{name:12} epsilon {found['epsilon']:8.3f}   neighbours: {found['neighbours']}")
    put(SAYS)
