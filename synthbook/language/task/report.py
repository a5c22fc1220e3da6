"""A page about a run: what was asked, what became of the answers, what it cost, and some of both kinds to read.

Whatever a model or a file of somebody's said is shown as text: escaped, and with its control characters spelt out.
"""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from synthbook.core.html import document, image, table
from synthbook.core.plots import BLUE, new_axes, subplots
from synthbook.language.pipeline import StageStats, plot_funnel
from synthbook.language.task.config import TaskConfig
from synthbook.language.task.fields import visible
from synthbook.language.task.runner import ENOUGH, GenerationResult, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 10  # records of each kind
_LONGEST = 600  # characters of a text
BARS = 12  # categories in a figure
_CHARTS = 6  # names that are counted
_BOX = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"


def page(task: TaskConfig, result: GenerationResult, model: str) -> str:
    """The whole page, as HTML."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a font that lacks a letter draws a box
        return _page(task, result, model)


def _page(task: TaskConfig, result: GenerationResult, model: str) -> str:
    title = f"{task.name}: {len(result.kept):,} of {result.n:,} records"
    lengths, counts = [len(record.response) for record in result.kept], counted(task, result)
    drawn = [image(_plot_kept(lengths, counts), kept_alt(lengths, counts))] if lengths else []
    return document(
        title,
        [
            f"<h1>{_text(title)}</h1>",
            f"<p><strong>{_sentence(task, result, model)}</strong></p>",
            f"<p>It ended before there were enough: {_text(result.stop_reason)}.</p>" if result.stop_reason else "",
            "<h2>What was asked</h2>",
            *_asked(task),
            "<h2>Filtering results</h2>",
            image(plot_funnel(_plain(result.ledger)).figure, flow_alt(result.ledger)),
            table(["stage", "came", "stayed", "dropped because"], map(_row, _telling(result.ledger))),
            "<h2>What was kept</h2>",
            "<p>Filters see form and repetition. Whether an answer is true or a label deserved, a reader sees.</p>",
            *drawn,
            *_kept(result),
            "<h2>What was dropped</h2>",
            *_dropped(result),
        ],
    )


def _text(text: str) -> str:
    return escape(visible(text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."))


def _box(text: str) -> str:
    return f'<div style="{_BOX}">{_text(text)}</div>'


def _sentence(task: TaskConfig, result: GenerationResult, model: str) -> str:
    asked, (paid, given) = len(result.answers), result.tokens
    said = f"{_text(model)} was asked {asked:,} times; {sum(result.passed):,} answers passed all filters"
    said += (
        f" ({result.yield_rate:.1%}) and {len(result.kept):,} are kept. Prompts: {paid:,} tokens, answers: {given:,}"
    )
    prices = task.model.prices
    return said + ("." if prices is None else f", which cost {result.cost(prices):,.4f} in the currency of the prices.")


def _asked(task: TaskConfig) -> list[str]:
    found = [
        f"<p>{name}:</p>{_box(one.source)}"
        for name, one in {"System": task.system, "Prompt": task.prompt}.items()
        if one
    ]
    for group in task.values:
        rows = [" and ".join(row.values()) for row in group]
        found.append(
            f"<p>{len(group):,} values of {_text(' and '.join(group[0]))} in turn: {_text(', '.join(rows))}</p>"
        )
    if task.examples is not None:
        shown, many = task.examples.per_prompt, len(task.examples.rows)
        found.append(
            f"<p>Each question shows {shown} of the {many:,} examples in {_text(task.examples.path.name)}.</p>"
        )
    if task.form is not None:
        found.append(
            table(["field", "holds"], ([_text(name), _text(one.words)] for name, one in task.form.fields.items()))
        )
    drawn = task.sampling
    found.append(
        f"<p>Temperature {drawn.temperature:g}, top_p {drawn.top_p:g}, at most {drawn.max_tokens:,} tokens.</p>"
    )
    return found


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _telling(ledger: Sequence[StageStats]) -> list[StageStats]:
    """Without the stage that only counts, where it dropped nothing."""
    return [one for one in ledger if one.stage != ENOUGH or one.reasons]


def _row(entry: StageStats) -> list[str]:
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in entry.reasons.most_common(SHOWN))
    more = f"; {len(entry.reasons) - SHOWN:,} other reasons" if len(entry.reasons) > SHOWN else ""
    return [_text(entry.stage), f"{entry.n_in:,}", f"{entry.n_out:,}", _text(reasons + more)]


def flow_alt(ledger: Sequence[StageStats]) -> str:
    """The figure in words."""
    steps = (f"{one.stage}: {one.n_in:,} came, {one.n_out:,} stayed" for one in _telling(ledger))
    return visible(f"A stream of answers that narrows from stage to stage. {'; '.join(steps)}.")


def _plain(ledger: Sequence[StageStats]) -> list[StageStats]:
    """The same with reasons that fit into the figure."""
    some = _telling(ledger)
    found = [replace(one, reasons=Counter[str]()) for one in some]
    for one, new in zip(some, found, strict=True):
        for why, count in one.reasons.items():
            new.reasons[f"{_label(why, 22)}:"] += count
    return found


def _label(text: str, width: int) -> str:
    """Words for a figure: on few lines, and never read as a formula."""
    short = textwrap.shorten(visible(" ".join(text.split())), 3 * width, placeholder=" ...")
    return textwrap.fill(short, width).replace("$", r"\$")


# ── kept and dropped ─────────────────────────────────────────────────────────────────────────────────────────────────


def counted(task: TaskConfig, result: GenerationResult) -> dict[str, Counter[str]]:
    """How often each category was kept, by name of the field or placeholder, in the order in which it was declared."""
    fields = {} if task.form is None else task.form.fields
    names = [*task.placeholders, *(name for name, one in fields.items() if one.type != "text")]
    found: dict[str, Counter[str]] = {}
    for name in [*names, *filter(None, (task.filters.label, task.filters.balance))]:
        if (known := task.categories(name)) is not None and name not in found:
            found[name] = Counter(dict.fromkeys(known, 0))
            found[name].update(value(record, name) for record in result.kept)
    return found


def _plot_kept(lengths: Sequence[int], counts: Mapping[str, Counter[str]]) -> Figure:
    """Lengths of the texts, and a chart of the categories of each name."""
    some = dict(list(counts.items())[:_CHARTS])
    rows = -(-(1 + len(some)) // 2)
    figure, axes = subplots(rows, 2 if some else 1, width=9.0, height=0.6 + 2.8 * rows)
    _plot_lengths(lengths, axes[0])
    for ax, (name, count) in zip(axes[1:], some.items(), strict=False):
        plot_counts(count, name, ax)
    for ax in axes[1 + len(some) :]:
        ax.set_axis_off()
    return figure


def _plot_lengths(lengths: Sequence[int], ax: Axes | None = None) -> Axes:
    """A histogram."""
    ax = new_axes(ax)
    ax.hist(lengths, bins=min(20, max(5, len(set(lengths)))), color=BLUE, edgecolor="white")
    ax.set(xlabel="characters of text", ylabel="records")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_counts(count: Counter[str], name: str, ax: Axes | None = None) -> Axes:
    """Bars from the top, with their numbers beside them."""
    ax = new_axes(ax)
    some = _bars(count)
    bars = ax.barh(range(len(some)), [k for _, k in some], color=BLUE)
    ax.bar_label(bars, padding=3, fmt="{:,.0f}")
    ax.set_yticks(range(len(some)), [_label(one, 18) for one, _ in some])
    ax.set(xlabel="records", title=_label(name, 30))
    ax.margins(x=0.15)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_yaxis()
    ax.grid(False)
    return ax


def _bars(count: Counter[str]) -> list[tuple[str, int]]:
    """As they come, or the most frequent ones where they are many."""
    if len(count) <= BARS:
        return list(count.items())
    common = count.most_common()
    rest = common[BARS - 1 :]
    return [*common[: BARS - 1], (f"{len(rest):,} others", sum(k for _, k in rest))]


def kept_alt(lengths: Sequence[int], counts: Mapping[str, Counter[str]]) -> str:
    """The figures in words."""
    said = [f"Texts have {min(lengths):,} to {max(lengths):,} characters"]
    for name, count in list(counts.items())[:_CHARTS]:
        said.append(f"{name}: " + ", ".join(f"{one} {k:,}" for one, k in _bars(count)))
    return visible(". ".join(said) + ".")


def _kept(result: GenerationResult) -> list[str]:
    if not result.kept:
        return ["<p>Nothing.</p>"]
    step = max(len(result.kept) // SHOWN, 1)
    rows = []
    for record in result.kept[::step][:SHOWN]:
        fields = {**record.provenance["values"], **record.provenance["fields"]}
        rows.append([record.id, _items(fields)])
    return [f"<p>{len(rows)} of {len(result.kept):,}:</p>", table(["number", "record"], rows)]


def _items(fields: Mapping[str, object]) -> str:
    return "".join(_box(f"{name}: {said}") for name, said in fields.items())


def _dropped(result: GenerationResult) -> Iterable[str]:
    """The first of each reason, then the second of each, and so on."""
    if not result.dropped:
        return ["<p>Nothing.</p>"]
    seen: Counter[tuple[str, str]] = Counter()
    order = []
    for drop in result.dropped:
        seen[drop.stage, drop.reason] += 1
        order.append((seen[drop.stage, drop.reason], drop))
    chosen = [drop for _, drop in sorted(order, key=lambda pair: (pair[0], pair[1].record.id))[:SHOWN]]
    rows = [[d.record.id, _text(d.stage), _text(d.reason), _box(result.answers[int(d.record.id)].text)] for d in chosen]
    return [f"<p>{len(rows)} of {len(result.dropped):,}:</p>", table(["number", "stage", "reason", "answer"], rows)]
