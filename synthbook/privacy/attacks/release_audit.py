"""An audit of a table that somebody wants to release: attacks on it, and what they prove.

Members are training rows, others are rows of a holdout; half of the holdout is the reference that tells attackers what
is common. Where the schema names an entity, the most suspicious of its rows speaks for it. What is proved is a lower
bound on epsilon: by one run with many guesses (Steinke et al., arXiv:2305.08846), with the limits shared out among the
attacks. Attacks that find nothing prove nothing: better ones exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from synthbook.core.errors import InvalidArgument
from synthbook.core.html import document, image, table
from synthbook.core.storage import Provenance, strict_json, write_with_provenance
from synthbook.core.table import (
    Holdout,
    Table,
    equalize_rows_per_unit,
    max_score_per_unit,
    n_units,
    refuse_holdout,
    sample_units,
    split_units,
)
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import check_tables
from synthbook.evaluation.inference import Z_BAND
from synthbook.privacy.attacks.attribute import AttributeInference, attribute_inference
from synthbook.privacy.attacks.distances import NO_VERDICT, Distances, distances
from synthbook.privacy.attacks.membership import domias, hole_score, nearest_distance_score
from synthbook.privacy.attacks.roc import AttackScores, plot_roc
from synthbook.privacy.audit import one_run_epsilon
from synthbook.privacy.mechanisms import check_delta

if TYPE_CHECKING:
    pass


LEAST, MOST, RELEASED = 60, 5_000, 100_000  # units on each side; units, and rows of the release, that are looked at
GUESSED = 0.2  # share of candidates that an attack dares to guess, half as members, half as others
SECRETS = 5  # columns that are guessed where none is named
CONFIDENCE, CERTAIN = 0.95, 0.999  # of the epsilon that is stated, and of one above 0 that is called a leak
Observe = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack found, and the epsilon that it proves."""

    name: str
    attack: AttackScores
    epsilon: float
    certain: bool  # that it is above 0

    @property
    def auc_null_upper(self) -> float:
        """The most that chance explains, at 3.3 standard errors."""
        return 0.5 + Z_BAND * self.attack.auc_null_se

    @property
    def hits(self) -> float:
        """Share of members that are found at 1 % false alarms."""
        return self.attack.tpr_at_fpr(0.01)

    @property
    def leaks(self) -> bool:
        """Whether members are told from others better than by chance."""
        return self.attack.auc > self.auc_null_upper or self.certain

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        numbers = {"auc": self.attack.auc, "auc_high": self.auc_null_upper, "tpr_at_1_percent": self.hits}
        return {"attack": self.name, **numbers, "epsilon": self.epsilon, "leaks": self.leaks}


@dataclass(frozen=True, eq=False)
class ReleaseAudit:
    """Everything that was found; `claimed_epsilon` is the epsilon that the release states, where it states one."""

    attacks: tuple[AttackResult, ...]
    attribute_inferences: tuple[AttributeInference, ...]
    distances: Distances
    copies: int
    claimed_epsilon: float | None
    notes: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """The largest epsilon that was proved; 0 where nothing was."""
        return max(finding.epsilon for finding in self.attacks)

    @property
    def exceeds_claim(self) -> bool:
        """Whether more was proved than was promised."""
        return self.claimed_epsilon is not None and self.epsilon > self.claimed_epsilon

    @property
    def leaks(self) -> bool:
        """Whether any attack found more than chance explains, or than was promised."""
        return (
            self.exceeds_claim or any(x.leaks for x in self.attacks) or any(x.leaks for x in self.attribute_inferences)
        )

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.exceeds_claim:
            return f"broken promise: epsilon is at least {self.epsilon:.2f}, and {self.claimed_epsilon:g} was promised"
        names = [f.name for f in self.attacks if f.leaks] + [x.secret for x in self.attribute_inferences if x.leaks]
        if names:
            return f"it leaks ({', '.join(names)}); epsilon is at least {self.epsilon:.2f}"
        return "these attacks found nothing, which proves nothing: only a guarantee holds against all of them"

    def __str__(self) -> str:
        head = ["attack", "AUC", "chance, at most", "hits at 1 % false alarms", "epsilon, at least"]
        rows = [(f.name, f.attack.auc, f.auc_null_upper, f.hits, f.epsilon) for f in self.attacks]
        shown = pd.DataFrame(rows, columns=head).round(3).to_string(index=False)
        lines = [shown, *map(str, self.attribute_inferences), str(self.distances), *self.notes, self.verdict]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "verdict": self.verdict,
            "leaks": self.leaks,
            "epsilon_at_least": self.epsilon,
            "promised": self.claimed_epsilon,
            "attacks": [finding.to_dict() for finding in self.attacks],
            "attributes": [x.to_dict() for x in self.attribute_inferences],
            "distances": self.distances.to_dict(),
            "copies": self.copies,
            "notes": list(self.notes),
        }

    def to_json(self, path: Path, provenance: Provenance) -> Path:
        """Write strict JSON and its sidecar."""
        return write_with_provenance(Path(path), strict_json(self.to_dict(), indent=1) + "\n", provenance)

    def to_html(self, path: Path, provenance: Provenance) -> Path:
        """Write one page that needs no other file and no network, and its sidecar."""

        return write_with_provenance(Path(path), page(self), provenance)


def audit_release(
    released: Table,
    train: Table,
    holdout: Holdout[Table],
    *,
    secrets: tuple[str, ...] | None = None,
    delta: float | None = None,
    claimed_epsilon: float | None = None,
    seed: int = 0,
    callback: Observe = lambda step: None,
) -> ReleaseAudit:
    """Attack a release of rows, with the rows it was made from and real rows that nothing has learned from.

    `secrets`: columns of categories to guess; without them the first five. `delta`: of the promise, 1 / (100 units)
    where nothing is said. Raises `HoldoutError`, `InvalidArgument`, `SchemaError`.
    """
    refuse_holdout([released, train], "a release and what it was made from")
    if not isinstance(holdout, Holdout):
        raise InvalidArgument("holdout", type(holdout).__name__, "a Holdout: real rows that nothing has learned from")
    compared = check_tables(released=released, train=train, holdout=holdout.data)
    if len(released) < LEAST:
        raise InvalidArgument("released", f"{len(released)} rows", f"at least {LEAST}")
    check_sides(train, holdout.data)
    entity = train.schema.entity
    columns = [c.name for c in compared if len(c.categories) > 1 and len(compared) > 1]
    there = [name for name in columns if all(t[name].nunique() > 1 for t in (released, train, holdout.data))]
    if secrets is not None and (unknown := [name for name in secrets if name not in columns]):
        raise InvalidArgument("secret", ", ".join(unknown), f"some of {', '.join(columns) or 'no columns'}")
    secrets = tuple(there[:SECRETS]) if secrets is None else secrets
    rng = np.random.default_rng(seed)
    delta = 1 / (100 * n_units(train)) if delta is None else delta
    if not delta >= 0:
        raise InvalidArgument("delta", delta, "a probability, or 0")
    check_delta(delta, n_units(train))
    others, reference = split_units(holdout.data, rng)
    members, others = equalize_rows_per_unit([train, others], rng)
    n = min(n_units(members), n_units(others), MOST)
    members, others = (sample_units(table, n, rng) for table in (members, others))

    # every scale is the reference's: nothing of the training rows can tell on itself through it
    encode = fit_table_encoder(reference)
    looked_at = _rows(released, RELEASED, rng)
    made, x, y, z = (encode(table) for table in (looked_at, members, others, _rows(reference, MOST, rng)))
    attacks: dict[str, Callable[[Any], Any]] = {
        "nearest released row": lambda rows: nearest_distance_score(rows, made),
        "density ratio": lambda rows: domias(rows, made, z),
        "holes": lambda rows: hole_score(rows, made),
    }
    findings = []
    for name, scores in attacks.items():
        callback(f"attack: {name}")
        attack = AttackScores(max_score_per_unit(members, scores(x)), max_score_per_unit(others, scores(y)))
        bounds = [one_run_lower_bound(attack, delta, 1 - (1 - c) / len(attacks), rng) for c in (CONFIDENCE, CERTAIN)]
        findings.append(AttackResult(name, attack, bounds[0], bounds[1] > 0))
    inferences = []
    for secret in secrets:
        callback(f"attack: guessing {secret}")
        inferences.append(attribute_inference(looked_at, members, others, secret))
    callback("distances")
    some, learned = (encode(_rows(table, MOST, rng)) for table in (looked_at, train))
    found = distances(some, learned, y, seed=seed)
    copies = _copies(released, train, [c.name for c in compared])
    notes = (
        f"{n:,} members and as many others of {n_units(train):,}; the unit is {entity or 'a record'}; "
        f"delta {delta:.2g}.",
        f"Distances are {NO_VERDICT}. The audit itself read private rows: what it says is not covered by any epsilon.",
    )
    return ReleaseAudit(tuple(findings), tuple(inferences), found, copies, claimed_epsilon, notes)


def check_sides(train: Table, holdout: Table) -> None:
    """Raise `InvalidArgument` unless both have enough units, and none in common."""
    entity = train.schema.entity
    for name, side in (("train", train), ("holdout", holdout)):
        if n_units(side) < LEAST:
            kind = "rows" if entity is None else f"different {entity}"
            raise InvalidArgument(name, f"{n_units(side)} {kind}", f"at least {LEAST}")
    if entity is not None and (both := set(train[entity]) & set(holdout[entity])):
        raise InvalidArgument("holdout", f"{len(both)} {entity} that train has, too", "rows of others")


def _rows(table: Table, n: int, rng: np.random.Generator) -> Table:
    if len(table) <= n:
        return table
    return Table(table.frame.iloc[np.sort(rng.choice(len(table), n, replace=False))], table.schema)


def _copies(released: Table, train: Table, columns: list[str]) -> int:
    """How many released rows repeat a training row exactly."""
    return len(released.frame[columns].merge(train.frame[columns].drop_duplicates()))


def one_run_lower_bound(attack: AttackScores, delta: float, confidence: float, rng: np.random.Generator) -> float:
    """The epsilon that a fixed share of guesses proves: the highest scores as members, the lowest as others."""
    scores = np.concatenate([attack.members, attack.nonmembers])
    is_member = np.arange(len(scores)) < len(attack.members)
    mixed = rng.permutation(len(scores))  # so that ties are broken by chance
    order = mixed[np.argsort(scores[mixed], kind="stable")]
    half = max(int(len(scores) * GUESSED / 2), 1)
    right = int((~is_member[order[:half]]).sum() + is_member[order[-half:]].sum())
    return one_run_epsilon(delta, n_canaries=len(scores), n_guesses=2 * half, n_correct=right, confidence=confidence)


# ── The page ──
# Names of columns come from somebody's data: everything is escaped.


def figure(found: ReleaseAudit) -> tuple[Figure, str]:
    """The attacks' curves, and the text that stands for them."""
    attacks = {finding.name: finding.attack for finding in found.attacks}
    ax = plot_roc(attacks)
    ax.set_title("Above the dotted line, members are found")
    drawn = ax.figure
    assert isinstance(drawn, Figure)
    said = ", ".join(f"{name} {attack.auc:.2f}" for name, attack in attacks.items())
    return drawn, f"Hits against false alarms of each attack, on log scales; areas under the curves: {said}."


def page(found: ReleaseAudit) -> str:
    """The whole audit as one HTML page."""
    attacks = [
        [
            escape(f.name),
            *(f"{v:.3f}" for v in (f.attack.auc, f.auc_null_upper, f.hits, f.epsilon)),
            _mark(f.leaks),
        ]
        for f in found.attacks
    ]
    secrets = [
        [escape(x.secret), *(f"{v:.3f}" for v in (x.members, x.others, x.advantage, *x.interval)), _mark(x.leaks)]
        for x in found.attribute_inferences
    ]
    d = found.distances
    near = [
        ["to the closest training row", *(f"{v:.3g}" for v in (*d.dcr, *d.dcr_holdout))],
        ["its ratio to the second closest", *(f"{v:.3g}" for v in (*d.nndr, *d.nndr_holdout))],
    ]
    asked = ["attack", "AUC", "chance, at most", "hits at 1 % false alarms", "epsilon, at least", "found"]
    guessed = ["column guessed", "right for members", "for others", "advantage", "from", "to", "found"]
    body = [
        "<h1>Who was in it?</h1>",
        f"<p><strong>{escape(found.verdict)}</strong></p>",
        table(asked, attacks),
        image(*figure(found)),
        table(guessed, secrets),
        table(["distance", "median", "5th percentile", "of held-out rows", "5th percentile"], near),
        f"<p>{escape(str(d.novelty))}. {found.copies} rows repeat a training row exactly.</p>",
        *(f"<p>{escape(note)}</p>" for note in found.notes),
    ]
    return document("Audit of a release", body)


def _mark(leaks: bool) -> str:
    return '<span class="fails">✗ more than chance explains</span>' if leaks else "nothing beyond chance"
