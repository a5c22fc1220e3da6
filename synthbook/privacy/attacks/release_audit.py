"""An audit of synthetic rows before their release: attacks on them, and the lower bounds on epsilon that these show.

Members are training rows, non-members are rows of a holdout; half of the holdout is the reference sample from which
attackers learn what is common. Where the schema names an entity, the row with the highest score represents it. The
lower bounds come from one run with many guesses (Steinke et al., arXiv:2305.08846), with the error probability shared
among the attacks. Attacks that find nothing show nothing: better ones may exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from synthbook.core import html
from synthbook.core.errors import InvalidArgument
from synthbook.core.storage import Provenance, strict_json, write_with_provenance
from synthbook.core.table import (
    Holdout,
    Table,
    check_holdout,
    equalize_rows_per_unit,
    max_score_per_unit,
    n_units,
    refuse_holdout,
    sample_rows,
    sample_units,
    split_units,
)
from synthbook.evaluation.features import fit_table_encoder
from synthbook.evaluation.fidelity import check_tables
from synthbook.evaluation.inference import Z_BAND
from synthbook.privacy.attacks.attribute import AttributeInference, attribute_inference
from synthbook.privacy.attacks.membership import (
    NO_VERDICT,
    AttackScores,
    Distances,
    distances,
    domias,
    hole_score,
    nearest_distance_score,
    plot_roc,
)
from synthbook.privacy.audit import one_run_epsilon
from synthbook.privacy.mechanisms import check_delta

_MIN_UNITS, MAX_UNITS, _MAX_SYNTHETIC_ROWS = 60, 5_000, 100_000  # on each side; compared; compared
_GUESS_SHARE = 0.2  # share of candidates that an attack guesses, half of them as members, half as non-members
_MAX_SECRETS = 5  # columns to infer if none is named
_CONFIDENCE, _SIGNIFICANCE = 0.95, 0.999  # of the bound that is stated; of one above 0 that counts as a leak


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Scores of an attack and its lower bound on epsilon; `significant`: whether epsilon > 0 holds at 99.9 %."""

    name: str
    attack: AttackScores
    epsilon_lower_bound: float
    significant: bool

    @property
    def auc_null_upper(self) -> float:
        """The largest AUC that chance explains, at 3.3 standard errors."""
        return 0.5 + Z_BAND * self.attack.auc_null_se

    @property
    def tpr_at_1pct_fpr(self) -> float:
        """The true positive rate at a false positive rate of 1 %."""
        return self.attack.tpr_at_fpr(0.01)

    @property
    def leaks(self) -> bool:
        """Whether the attack separates members from non-members better than chance explains."""
        return self.attack.auc > self.auc_null_upper or self.significant

    @property
    def numbers(self) -> dict[str, float]:
        """AUC, its upper limit under chance, TPR at 1 % FPR, and the lower bound on epsilon."""
        return {
            "auc": self.attack.auc,
            "auc_null_upper": self.auc_null_upper,
            "tpr_at_1pct_fpr": self.tpr_at_1pct_fpr,
            "epsilon_lower_bound": self.epsilon_lower_bound,
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"attack": self.name, **self.numbers, "leaks": self.leaks}


@dataclass(frozen=True, eq=False, repr=False)
class ReleaseAudit:
    """The results of all attacks; `claimed_epsilon` is the epsilon that the release states, None if it states none.

    In Jupyter it shows itself as tables with verdicts and the ROC curves.
    """

    attacks: tuple[AttackResult, ...]
    attribute_inferences: tuple[AttributeInference, ...]
    distances: Distances
    copies: int
    claimed_epsilon: float | None
    notes: tuple[str, ...]

    @property
    def epsilon_lower_bound(self) -> float:
        """The largest lower bound on epsilon of all attacks."""
        return max(result.epsilon_lower_bound for result in self.attacks)

    @property
    def exceeds_claim(self) -> bool:
        """Whether the lower bound on epsilon exceeds the claimed epsilon."""
        return self.claimed_epsilon is not None and self.epsilon_lower_bound > self.claimed_epsilon

    @property
    def leaks(self) -> bool:
        """Whether any attack succeeds beyond what chance explains, or beyond the claim."""
        results: tuple[AttackResult | AttributeInference, ...] = (*self.attacks, *self.attribute_inferences)
        return self.exceeds_claim or any(result.leaks for result in results)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.exceeds_claim:
            bound, claim = self.epsilon_lower_bound, self.claimed_epsilon
            return f"claim refuted: epsilon is at least {bound:.2f}, and {claim:g} was claimed"
        names = [result.name for result in self.attacks if result.leaks]
        names += [result.secret for result in self.attribute_inferences if result.leaks]
        if names:
            return f"it leaks ({', '.join(names)}); epsilon is at least {self.epsilon_lower_bound:.2f}"
        return "these attacks found nothing, which proves nothing: only a guarantee holds against all of them"

    def __repr__(self) -> str:
        return f"<ReleaseAudit of {len(self.attacks)} attacks: {self.verdict}>"

    def __str__(self) -> str:
        rows = [(result.name, *result.numbers.values()) for result in self.attacks]
        table = pd.DataFrame(rows, columns=_ATTACK_COLUMNS).round(3).to_string(index=False)
        return "\n".join([table, *map(str, self.attribute_inferences), str(self.distances), *self.notes, self.verdict])

    def _repr_html_(self) -> str:
        return "\n".join(html_parts(self))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "verdict": self.verdict,
            "leaks": self.leaks,
            "epsilon_lower_bound": self.epsilon_lower_bound,
            "claimed_epsilon": self.claimed_epsilon,
            "attacks": [result.to_dict() for result in self.attacks],
            "attribute_inferences": [result.to_dict() for result in self.attribute_inferences],
            "distances": self.distances.to_dict(),
            "copies": self.copies,
            "notes": list(self.notes),
        }

    def to_json(self, path: Path, provenance: Provenance) -> Path:
        """Write strict JSON and its sidecar."""
        return write_with_provenance(Path(path), strict_json(self.to_dict(), indent=1) + "\n", provenance)

    def to_html(self, path: Path, provenance: Provenance) -> Path:
        """Write a self-contained HTML page and its sidecar."""
        page = html.page("Audit of a release", ["<h1>Privacy audit</h1>", *html_parts(self)])
        return write_with_provenance(Path(path), page, provenance)


def audit(
    synthetic: Table,
    *,
    train: Table,
    holdout: Holdout[Table],
    secrets: tuple[str, ...] | None = None,
    delta: float | None = None,
    claimed_epsilon: float | None = None,
    seed: int = 0,
    callback: Callable[[str], None] = lambda step: None,
) -> ReleaseAudit:
    """Attack synthetic rows, given the training rows of their generator and real rows that no generator has seen.

    `secrets`: categorical columns to infer; by default the first five. `delta`: of the claimed guarantee; by default
    1 / (100 units). Raises `HoldoutError`, `InvalidArgument`, `SchemaError`.
    """
    refuse_holdout([synthetic, train], "synthetic rows and what they were made from")
    check_holdout(holdout)
    columns = check_tables(synthetic=synthetic, train=train, holdout=holdout.data)
    if len(synthetic) < _MIN_UNITS:
        raise InvalidArgument("synthetic", f"{len(synthetic)} rows", f"at least {_MIN_UNITS}")
    check_sides(train, holdout.data)
    secrets = _check_secrets(
        secrets,
        [c.name for c in columns if len(c.categories) > 1 and len(columns) > 1],
        (synthetic, train, holdout.data),
    )
    rng = np.random.default_rng(seed)
    delta = 1 / (100 * n_units(train)) if delta is None else delta
    if not delta >= 0:
        raise InvalidArgument("delta", delta, "a probability, or 0")
    check_delta(delta, n_units(train))
    nonmembers, reference = split_units(holdout.data, rng)
    members, nonmembers = equalize_rows_per_unit([train, nonmembers], rng)
    n = min(n_units(members), n_units(nonmembers), MAX_UNITS)
    members, nonmembers = (sample_units(table, n, rng) for table in (members, nonmembers))

    encode = fit_table_encoder(reference)  # every scale is the reference's, so that no training row affects one
    compared = sample_rows(synthetic, _MAX_SYNTHETIC_ROWS, rng)
    reference = sample_rows(reference, MAX_UNITS, rng)
    z_synthetic, z_members, z_nonmembers, z_ref = (encode(t) for t in (compared, members, nonmembers, reference))
    score_functions: dict[str, Callable[[Any], Any]] = {
        "nearest synthetic row": lambda rows: nearest_distance_score(rows, z_synthetic),
        "DOMIAS (k-NN)": lambda rows: domias(rows, z_synthetic, z_ref),
        "holes": lambda rows: hole_score(rows, z_synthetic),
    }
    results = []
    for name, score in score_functions.items():
        callback(f"attack: {name}")
        attack = AttackScores(
            max_score_per_unit(members, score(z_members)), max_score_per_unit(nonmembers, score(z_nonmembers))
        )
        bounds = [
            one_run_lower_bound(attack, delta, 1 - (1 - confidence) / len(score_functions), rng)
            for confidence in (_CONFIDENCE, _SIGNIFICANCE)
        ]
        results.append(AttackResult(name, attack, bounds[0], bounds[1] > 0))
    inferences = []
    for secret in secrets:
        callback(f"attack: inferring {secret}")
        inferences.append(attribute_inference(compared, members, nonmembers, secret))
    callback("distances")
    sample, learned = (encode(sample_rows(table, MAX_UNITS, rng)) for table in (compared, train))
    names = [column.name for column in columns]
    copies = len(synthetic.frame[names].merge(train.frame[names].drop_duplicates()))
    notes = (
        f"{n:,} members and as many non-members of {n_units(train):,}; the unit is {train.schema.entity or 'a record'};"
        f" delta {delta:.2g}.",
        f"Distances are {NO_VERDICT}. The audit itself read private rows: its results are not covered by any epsilon.",
    )
    near = distances(sample, learned, z_nonmembers, seed=seed)
    return ReleaseAudit(tuple(results), tuple(inferences), near, copies, claimed_epsilon, notes)


def check_sides(train: Table, holdout: Table) -> None:
    """Raise `InvalidArgument` unless both have enough units, and none in common."""
    entity = train.schema.entity
    for name, side in (("train", train), ("holdout", holdout)):
        if n_units(side) < _MIN_UNITS:
            kind = "rows" if entity is None else f"different {entity}"
            raise InvalidArgument(name, f"{n_units(side)} {kind}", f"at least {_MIN_UNITS}")
    if entity is not None and (shared := set(train[entity]) & set(holdout[entity])):
        raise InvalidArgument("holdout", f"{len(shared)} {entity} that train has, too", "rows of others")


def _check_secrets(secrets: tuple[str, ...] | None, columns: list[str], tables: tuple[Table, ...]) -> tuple[str, ...]:
    """The columns to infer: those given, else the first that have two values in every table."""
    if secrets is None:
        return tuple([name for name in columns if all(t[name].nunique() > 1 for t in tables)][:_MAX_SECRETS])
    if unknown := [name for name in secrets if name not in columns]:
        raise InvalidArgument("secret", ", ".join(unknown), f"some of {', '.join(columns) or 'no columns'}")
    return secrets


def one_run_lower_bound(attack: AttackScores, delta: float, confidence: float, rng: np.random.Generator) -> float:
    """A lower bound on epsilon from a fixed share of guesses: the highest scores as members, the lowest as not."""
    scores = np.concatenate([attack.members, attack.nonmembers])
    is_member = np.arange(len(scores)) < len(attack.members)
    shuffled = rng.permutation(len(scores))  # so that ties are broken at random
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    half = max(int(len(scores) * _GUESS_SHARE / 2), 1)
    n_correct = int((~is_member[order[:half]]).sum() + is_member[order[-half:]].sum())
    n_canaries, n_guesses = len(scores), 2 * half
    return one_run_epsilon(
        delta, n_canaries=n_canaries, n_guesses=n_guesses, n_correct=n_correct, confidence=confidence
    )


# ── The page ──
# Names of columns come from somebody's data: everything is escaped.

_ATTACK_COLUMNS = ["attack", "AUC", "chance, at most", "TPR at 1 % FPR", "epsilon, at least"]
_INFERENCE_COLUMNS = ["column inferred", "accuracy on members", "on non-members", "advantage", "from", "to", "verdict"]


def _figure(result: ReleaseAudit) -> tuple[Figure, str]:
    """The ROC curves of the attacks, and their text alternative."""
    attacks = {one.name: one.attack for one in result.attacks}
    ax = plot_roc(attacks)
    ax.set_title("Above the dotted line, members are identified")
    assert isinstance(ax.figure, Figure)
    areas = ", ".join(f"{name} {attack.auc:.2f}" for name, attack in attacks.items())
    return ax.figure, f"ROC curves of the attacks, on log scales; areas under the curves: {areas}."


def html_parts(result: ReleaseAudit) -> list[str]:
    """Verdict, tables and figure as HTML elements."""
    attacks = [
        [escape(one.name), *(f"{v:.3f}" for v in one.numbers.values()), _verdict_html(one.leaks)]
        for one in result.attacks
    ]
    secrets = [
        [
            escape(x.secret),
            *(f"{v:.3f}" for v in (x.member_accuracy, x.nonmember_accuracy, x.advantage, *x.interval)),
            _verdict_html(x.leaks),
        ]
        for x in result.attribute_inferences
    ]
    d = result.distances
    near = [
        ["to the nearest training row", *(f"{v:.3g}" for v in (*d.dcr, *d.dcr_holdout))],
        ["its ratio to the second nearest", *(f"{v:.3g}" for v in (*d.nndr, *d.nndr_holdout))],
    ]
    return [
        f"<p><strong>{escape(result.verdict)}</strong></p>",
        html.table([*_ATTACK_COLUMNS, "verdict"], attacks),
        html.img(*_figure(result)),
        html.table(_INFERENCE_COLUMNS, secrets),
        html.table(["distance", "median", "5th percentile", "of held-out rows", "5th percentile"], near),
        f"<p>{escape(str(d.novelty))}. {result.copies} rows repeat a training row exactly.</p>",
        *(f"<p>{escape(note)}</p>" for note in result.notes),
    ]


def _verdict_html(leaks: bool) -> str:
    return '<span class="fails">✗ more than chance explains</span>' if leaks else "nothing beyond chance"
