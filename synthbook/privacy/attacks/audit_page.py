"""The audit of a release as one page that is read without a network: verdict, attacks, curves, distances.

Names of columns come from somebody's data: everything is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from synthbook.core.html import document, image, table
from synthbook.privacy.attacks.roc import plot_roc

if TYPE_CHECKING:
    from synthbook.privacy.attacks.release_audit import ReleaseAudit


def figure(found: ReleaseAudit) -> tuple[Figure, str]:
    """The attacks' curves, and the text that stands for them."""
    attacks = {finding.name: finding.attack for finding in found.findings}
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
            *(f"{v:.3f}" for v in (f.attack.auc, f.auc_high, f.hits, f.epsilon)),
            _mark(f.leaks),
        ]
        for f in found.findings
    ]
    secrets = [
        [escape(x.secret), *(f"{v:.3f}" for v in (x.members, x.others, x.advantage, *x.interval)), _mark(x.leaks)]
        for x in found.inferences
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
