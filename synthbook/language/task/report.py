"""The report on a run: the task, the funnel of its filters, the cost, and samples of kept and dropped records.

All text of models and files is escaped, and its control characters are spelled out.
"""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from synthbook.core import html
from synthbook.core.plots import BLUE, new_axes, subplots
from synthbook.language.pipeline import StageStats, plot_funnel
from synthbook.language.task.config import TaskConfig
from synthbook.language.task.fields import visible
from synthbook.language.task.runner import ENOUGH, GenerationResult, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 10  # records of each kind
_LONGEST = 600  # characters of a text
BARS = 12  # categories in a figure
_CHARTS = 6  # names that are counted
_BOX = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"


def report_page(task: TaskConfig, result: GenerationResult, model: str) -> str:
    """The report on a run, as HTML."""
    title = f"{task.name}: {len(result.kept):,} of {result.n:,} records"
    lengths, counts = [len(record.response) for record in result.kept], category_counts(task, result)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a font that lacks a letter draws a box
        figures = [html.img(plot_funnel(_short_reasons(result.ledger)).figure, funnel_alt(result.ledger))]
        figures += [html.img(_plot_records(lengths, counts), records_alt(lengths, counts))] if lengths else []
    content = [
        f"<h1>{_text(title)}</h1>",
        f"<p><strong>{_summary(task, result, model)}</strong></p>",
        f"<p>It ended before there were enough: {_text(result.stop_reason)}.</p>" if result.stop_reason else "",
        "<h2>What was asked</h2>",
        *_request(task),
        "<h2>Filtering results</h2>",
        figures[0],
        html.table(["stage", "came", "stayed", "dropped because"], map(_stage_row, _shown_stages(result.ledger))),
        "<h2>What was kept</h2>",
        "<p>Filters see form and repetition. Whether an answer is true or a label deserved, a reader sees.</p>",
        *figures[1:],
        *_records(result),
        "<h2>What was dropped</h2>",
        *_drops(result),
    ]
    return html.page(title, content)


def _text(text: str) -> str:
    return escape(visible(text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."))


def _box(text: str) -> str:
    return f'<div style="{_BOX}">{_text(text)}</div>'


def _summary(task: TaskConfig, result: GenerationResult, model: str) -> str:
    prices, (prompt_tokens, answer_tokens) = task.model.prices, result.tokens
    text = f"{_text(model)} was asked {len(result.answers):,} times; {sum(result.passed):,} answers passed all filters"
    text += f" ({result.yield_rate:.1%}) and {len(result.kept):,} are kept."
    text += f" Prompts: {prompt_tokens:,} tokens, answers: {answer_tokens:,}"
    return text + ("." if prices is None else f", which cost {result.cost(prices):,.4f} in the currency of the prices.")


def _request(task: TaskConfig) -> Iterator[str]:
    for name, template in {"System": task.system, "Prompt": task.prompt}.items():
        if template:
            yield f"<p>{name}:</p>{_box(template.source)}"
    for group in task.values:
        names, rows = " and ".join(group[0]), ", ".join(" and ".join(row.values()) for row in group)
        yield f"<p>{len(group):,} values of {_text(names)} in turn: {_text(rows)}</p>"
    if (seeds := task.examples) is not None:
        shown = f"{seeds.per_prompt} of the {len(seeds.rows):,} examples in {_text(seeds.path.name)}"
        yield f"<p>Each question shows {shown}.</p>"
    if task.form is not None:
        yield html.table(
            ["field", "holds"], ([_text(name), _text(one.words)] for name, one in task.form.fields.items())
        )
    params = task.sampling
    limits = f"Temperature {params.temperature:g}, top_p {params.top_p:g}, at most {params.max_tokens:,} tokens"
    yield f"<p>{limits}.</p>"


def _shown_stages(ledger: Sequence[StageStats]) -> list[StageStats]:
    """The stages, without the last one where it dropped nothing."""
    return [one for one in ledger if one.stage != ENOUGH or one.reasons]


def _stage_row(entry: StageStats) -> list[str]:
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in entry.reasons.most_common(_SHOWN))
    more = f"; {len(entry.reasons) - _SHOWN:,} other reasons" if len(entry.reasons) > _SHOWN else ""
    return [_text(entry.stage), f"{entry.n_in:,}", f"{entry.n_out:,}", _text(reasons + more)]


def funnel_alt(ledger: Sequence[StageStats]) -> str:
    """Alternative text for the funnel."""
    steps = (f"{one.stage}: {one.n_in:,} came, {one.n_out:,} stayed" for one in _shown_stages(ledger))
    return visible(f"A stream of answers that narrows from stage to stage. {'; '.join(steps)}.")


def _short_reasons(ledger: Sequence[StageStats]) -> list[StageStats]:
    """The same stages with reasons that fit into the figure."""
    shortened = []
    for one in _shown_stages(ledger):
        reasons: Counter[str] = Counter()
        for reason, count in one.reasons.items():
            reasons[f"{_label(reason, 22)}:"] += count
        shortened.append(replace(one, reasons=reasons))
    return shortened


def _label(text: str, width: int) -> str:
    """Words for a figure: on few lines, and never read as a formula."""
    short = textwrap.shorten(visible(" ".join(text.split())), 3 * width, placeholder=" ...")
    return textwrap.fill(short, width).replace("$", r"\$")


def category_counts(task: TaskConfig, result: GenerationResult) -> dict[str, Counter[str]]:
    """Records by category, for each field or placeholder with categories, in the order of declaration."""
    fields = {} if task.form is None else task.form.fields
    names = [*task.placeholders, *(name for name, one in fields.items() if one.type != "text")]
    counts: dict[str, Counter[str]] = {}
    for name in [*names, *filter(None, (task.filters.label, task.filters.balance))]:
        if (known := task.categories(name)) is not None and name not in counts:
            counts[name] = Counter(dict.fromkeys(known, 0))
            counts[name].update(value(record, name) for record in result.kept)
    return counts


def _plot_records(lengths: Sequence[int], counts: Mapping[str, Counter[str]]) -> Figure:
    """Plot the lengths of the texts, and the categories of each name."""
    some = dict(list(counts.items())[:_CHARTS])
    rows = -(-(1 + len(some)) // 2)
    figure, axes = subplots(rows, 2 if some else 1, width=9.0, height=0.6 + 2.8 * rows)
    axes[0].hist(lengths, bins=min(20, max(5, len(set(lengths)))), color=BLUE, edgecolor="white")
    axes[0].set(xlabel="characters of text", ylabel="records")
    axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    for ax, (name, count) in zip(axes[1:], some.items(), strict=False):
        plot_counts(count, name, ax)
    for ax in axes[1 + len(some) :]:
        ax.set_axis_off()
    return figure


def plot_counts(count: Counter[str], name: str, ax: Axes | None = None) -> Axes:
    """Plot the number of records in each category as labeled bars."""
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
    """All categories, or the most frequent ones where there are more than `BARS`."""
    if len(count) <= BARS:
        return list(count.items())
    common = count.most_common()
    rest = common[BARS - 1 :]
    return [*common[: BARS - 1], (f"{len(rest):,} others", sum(k for _, k in rest))]


def records_alt(lengths: Sequence[int], counts: Mapping[str, Counter[str]]) -> str:
    """Alternative text for the figures of the records."""
    sentences = [f"Texts have {min(lengths):,} to {max(lengths):,} characters"]
    for name, count in list(counts.items())[:_CHARTS]:
        sentences.append(f"{name}: " + ", ".join(f"{one} {k:,}" for one, k in _bars(count)))
    return visible(". ".join(sentences) + ".")


def _records(result: GenerationResult) -> list[str]:
    if not result.kept:
        return ["<p>Nothing.</p>"]
    step = max(len(result.kept) // _SHOWN, 1)
    rows = []
    for record in result.kept[::step][:_SHOWN]:
        fields = {**record.provenance["values"], **record.provenance["fields"]}
        rows.append([record.id, "".join(_box(f"{name}: {text}") for name, text in fields.items())])
    return [f"<p>{len(rows)} of {len(result.kept):,}:</p>", html.table(["number", "record"], rows)]


def _drops(result: GenerationResult) -> list[str]:
    """The first of each reason, then the second of each, and so on."""
    if not result.dropped:
        return ["<p>Nothing.</p>"]
    seen: Counter[tuple[str, str]] = Counter()
    order = []
    for drop in result.dropped:
        seen[drop.stage, drop.reason] += 1
        order.append((seen[drop.stage, drop.reason], drop))
    chosen = [drop for _, drop in sorted(order, key=lambda pair: (pair[0], pair[1].record.id))[:_SHOWN]]
    rows = [[d.record.id, _text(d.stage), _text(d.reason), _box(result.answers[int(d.record.id)].text)] for d in chosen]
    return [
        f"<p>{len(rows)} of {len(result.dropped):,}:</p>",
        html.table(["number", "stage", "reason", "answer"], rows),
    ]
