"""What a test leaves for people and programs: report.txt and predictions.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ealign_plugin.inference.intervals import SUBSET_FIGURES, WITH_INTERVALS
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.records import Row
from ealign_plugin.metrics.bootstrap import RESAMPLES
from ealign_plugin.metrics.registry import Metric, ordered
from ealign_plugin.metrics.subsets import SUBSETS
from ealign_plugin.metrics.tables import PLAIN, format_table, heading


def photos(count: int) -> str:
    """'1 photo', '2 photos'."""
    return f"{count} photo{'s' * (count != 1)}"


def prediction_lines(
    rows: Mapping[str, Sequence[Row]], answers: Sequence[Mapping[str, Any]], unreadable: Sequence[Record]
) -> bytes:
    """predictions.jsonl: a line a photo and context, then one a task's answer, then the unreadable photos."""
    by_photo = zip(*rows.values(), strict=True)
    lines = [row.line(name) for photo in by_photo for name, row in zip(rows, photo, strict=True)]
    lines += [dict(answer) for answer in answers]
    lines += [{"key": record["key"], "error": record["error"]} for record in unreadable]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def metrics_table(figures: Mapping[str, Mapping[str, Any]], metrics: Sequence[Metric]) -> str:
    """A row a context, with the columns that the metrics show."""
    columns = ordered([column for metric in metrics for column in metric.columns])
    headings: dict[str, str] = {}
    plain = set(PLAIN)
    for metric in metrics:
        headings |= metric.headings
        plain |= set() if metric.fraction else set(metric.figures)
    rows = [{"context": name, **row} for name, row in figures.items()]
    return format_table(rows, ["context", *columns], headings=headings, plain=plain)


def intervals_text(figures: Mapping[str, Mapping[str, Any]], main: str, articles: int) -> list[str]:
    """A row a context: figures with their intervals, and the differences from the main context with theirs.

    Args:
        figures: By row of the table.
        main: The main context.
        articles: So many were resampled.
    """
    shown = [key for key in WITH_INTERVALS if any(f"{key}_low" in row for row in figures.values())]
    if not shown:
        return []
    columns = [column for key in shown for column in (key, f"{key}_minus_{main}")]
    headings = {f"{key}_minus_{main}": f"- {main}" for key in shown}
    return [
        f"95 % intervals ({articles:,} articles resampled {RESAMPLES:,} times), and differences from {main}:",
        "",
        _with_intervals(figures, columns, headings),
        "",
    ]


def subsets_text(figures: Mapping[str, Mapping[str, Any]], main: str) -> list[str]:
    """A row a context: what it is worth on people whom the training knew, and on those whom it did not."""
    groups = {
        group: figures[main].get(f"photos_{group}", 0)
        for group in SUBSETS
        if any(f"photos_{group}" in row for row in figures.values())
    }
    if not groups:
        return []
    headings = {
        f"{key}_{group}": f"{group.replace('_', ' ')}: {heading(key)}"
        for group in groups
        for key in SUBSET_FIGURES
    }
    counted = "; ".join(f"{group.replace('_', ' ')} on {photos(count)}" for group, count in groups.items())
    return [
        f"People by what the training knew of their names ({counted}):",
        "",
        _with_intervals(figures, list(headings), headings),
        "",
    ]


def _with_intervals(
    figures: Mapping[str, Mapping[str, Any]], columns: Sequence[str], headings: Mapping[str, str]
) -> str:
    def cell(row: Mapping[str, Any], key: str) -> str | None:
        if row.get(key) is None:
            return None
        text = f"{100 * row[key]:.1f}"
        if row.get(f"{key}_low") is None:
            return text
        return f"{text} [{100 * row[f'{key}_low']:.1f}, {100 * row[f'{key}_high']:.1f}]"

    rows = [{"context": name, **{key: cell(row, key) for key in columns}} for name, row in figures.items()]
    return format_table(rows, ["context", *columns], headings=headings)


def report_text(
    report: Mapping[str, Any],
    rows: Mapping[str, Sequence[Row]],
    metrics: Sequence[Metric],
    *,
    protocol: str,
    unavailable: Mapping[str, str],
    tasks: Mapping[str, Mapping[str, Any]],
    unreadable: Sequence[Record],
    show_samples: int,
) -> str:
    """report.txt.

    Args:
        report: ``split``, ``samples``, ``articles``, ``main_context``, ``contexts`` (figures by context) and
            ``selection``.
        rows: By context, a row a photo.
        metrics: What was measured.
        protocol: Name of the scoring protocol.
        unavailable: By metric, why it could not be measured here.
        tasks: Figures by task, of tasks that other packages registered.
        unreadable: Records of photos that could not be read.
        show_samples: So many samples are printed in words.
    """
    measured = [metric for metric in metrics if metric.name not in unavailable]
    text = [
        f"{photos(report['samples'])} of the split {report['split']!r}, protocol {protocol!r}, ×100:",
        "",
        metrics_table(report["contexts"], measured),
        "",
        *intervals_text(report["contexts"], report["main_context"], report["articles"]),
        *subsets_text(report["contexts"], report["main_context"]),
        *_selection_in_words(report["selection"]),
        *(f"Task {name}: {_listed(figures)}" for name, figures in tasks.items()),
        *(metric.note for metric in measured if metric.note),
    ]
    text += _cut_contexts(report["contexts"])
    if choice := report.get("threshold_choice"):
        text.append(threshold_in_words(choice))
    if unreadable:
        text.append(
            f"{photos(len(unreadable))} could not be read (not in the figures); the first: "
            f"{unreadable[0]['error']}"
        )
    text += unavailable.values()
    text += _samples_in_words(rows, show_samples)
    return "\n".join(text) + "\n"


def _cut_contexts(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}: {row['contexts_cut']} of {row['samples']} contexts were too long for the model, which read "
        "them without their beginning, and all figures are of what it read; lower run.context_words or raise "
        "model.max_txt_len"
        for name, row in figures.items()
        if row["contexts_cut"]
    ]


def threshold_in_words(choice: Mapping[str, Any]) -> str:
    """How the threshold was chosen; ``threshold_choice`` of the report."""
    tried = ", ".join(f"{one['threshold']:.4f}: {_decimals(one['figure'])}" for one in choice["candidates"])
    return (
        f"Threshold {choice['threshold']:.4f}, chosen on {photos(choice['photos'])} of {choice['split']!r} "
        f"({choice['positives']:.1%} of the sentences are positive) by {choice['figure']} of "
        f"{choice['context']}: {tried}"
    )


def _decimals(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _listed(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_decimals(value)}" for name, value in figures.items()) or "no figures"


def _selection_in_words(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return []

    def value(name: str) -> str:
        return _decimals(figures[name])

    return [
        f"Pass 1, sentences: AUC {value('sentence_auc_hard')} against hard negatives, "
        f"{value('sentence_auc')} against all; average precision {value('sentence_ap')}; the selected ones "
        f"have precision {value('sentence_precision')}, recall {value('sentence_recall')}",
        f"Pass 1, names, as the model lists them: {_ratios('entity_list_raw', figures)}; without the "
        f"{figures['entity_list_invented']} that no article tells: {_ratios('entity_list', figures)}",
    ]


def _ratios(name: str, figures: Mapping[str, Any]) -> str:
    precision, recall, f1 = (_decimals(figures[f"{name}_{key}"]) for key in ("precision", "recall", "f1"))
    return f"precision {precision}, recall {recall}, F1 {f1}"


def _samples_in_words(rows: Mapping[str, Sequence[Row]], count: int) -> list[str]:
    text: list[str] = []
    first_rows = next(iter(rows.values()))
    step = max(1, len(first_rows) // max(1, count))
    for number in range(0, len(first_rows), step)[:count]:
        row = first_rows[number]
        text += ["", row.sample.key, f"  reference: {row.sample.caption}"]
        if row.first:
            selected = [f"    P(yes) {s['score']:.2f}  {s['text']}" for s in row.selected()]
            text += ["  pass 1 selected:", *(selected or ["    nothing"])]
            text.append(f"  names: {', '.join(row.first['entities']) or 'none'}")
        text += [f"  {name}: {same[number].caption['caption']}" for name, same in rows.items()]
    return text
