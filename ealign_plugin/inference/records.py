"""What an evaluation keeps of a photo: its record in the journal, and a row for each context.

A record::

    {"index": 7, "key": "a_0",                       where it stands in the split
     "first": {"scores": …, "selected": …, "entities": …, "invented": …},      where pass 1 ran
     "captions": {"refined": {"caption": …, "context_text": …, "context_sentences": …, "context_cut": false}},
                                                     what the model read, and whether it was given more
     "losses": {"oracle": 1.2},                      of run.caption_loss
     "answers": {"products": "a lamp"},              of tasks that other packages registered
     "controls": {"other_photo": {"first": …, "captions": …}}}      of run.controls, one caption each
    {"index": 8, "key": "b_0", "error": "…"}         it could not be read

The files say ``invented`` for `FirstPass.hallucinated_names`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ealign_plugin.alignment.contexts import Context
from ealign_plugin.inference.controls.names import row_name
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.two_pass import FirstPass, main_context
from ealign_plugin.news import Entity, NewsSample


def add_first_pass(record: Record, first: FirstPass) -> None:
    """Write what pass 1 gave."""
    record["first"] = {
        "scores": [round(score, 6) for score in first.scores],
        "selected": list(first.selection.sentences),
        "entities": list(first.selection.entities),
        "invented": list(first.hallucinated_names),
    }


def add_caption(record: Record, strategy: str, read: Context, given: Context, caption: str) -> None:
    """Write a caption, what the model was given for it, and what it read of that."""
    record.setdefault("captions", {})[strategy] = {
        "caption": caption,
        "context_text": read.text,
        "context_sentences": list(read.sentences),
        "context_cut": read.text != given.text,
    }


def merge_records(parts: Sequence[Sequence[Record]]) -> dict[int, Record]:
    """The records of all processes by their index in the split, each photo once."""
    merged: dict[int, Record] = {}
    for part in parts:
        for record in part:
            merged.setdefault(record["index"], record)
    return merged


@dataclass(slots=True)
class Row:
    """One photo in one context.

    Args:
        sample: The photo's sample.
        first: What pass 1 gave, as the record has it; None where it did not run.
        caption: The caption, as the record has it.
        entities: Named entities of the caption, once it is measured.
        metrics: Figures of this caption alone.
    """

    sample: NewsSample
    first: Mapping[str, Any] | None
    caption: Mapping[str, Any]
    entities: Sequence[Entity] = ()
    metrics: dict[str, float | None] = field(default_factory=dict)

    def selected(self) -> list[dict[str, Any]]:
        """The sentences that pass 1 chose, with their scores; none where it did not run."""
        if self.first is None:
            return []
        return [
            {"index": i, "score": round(self.first["scores"][i], 4), "text": self.sample.sentences[i].text}
            for i in self.first["selected"]
        ]

    def line(self, context: str) -> dict[str, Any]:
        """Its line in predictions.jsonl."""
        line = {
            "key": self.sample.key,
            "context": context,
            "reference": self.sample.caption,
            **self.caption,
        }
        if self.first:
            line |= {
                "selected": self.selected(),
                "entities": self.first["entities"],
                "invented": self.first["invented"],
            }
        return {**line, "metrics": self.metrics}


def rows_by_context(
    records: Sequence[Record],
    sample_of: Callable[[int], NewsSample],
    renamed: Callable[[NewsSample], NewsSample] = lambda sample: sample,
) -> dict[str, list[Row]]:
    """For each context, then for each control, a row a photo, in the order of the records.

    Args:
        records: Of photos that could be read.
        sample_of: Index in the split → sample.
        renamed: Sample → that of the control ``renamed``.
    """
    rows: dict[str, list[Row]] = {}
    for record in records:
        sample, captions = sample_of(record["index"]), record.get("captions", {})
        for name, caption in captions.items():
            rows.setdefault(name, []).append(Row(sample, record.get("first"), caption))
        for name, part in record.get("controls", {}).items():
            (caption,) = part["captions"].values()
            seen = renamed(sample) if name == "renamed" else sample
            row = rows.setdefault(row_name(name, main_context(list(captions))), [])
            row.append(Row(seen, part.get("first"), caption))
    return rows
