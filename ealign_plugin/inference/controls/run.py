"""Captions of a batch under each control, written into its records::

    record["controls"] = {"tfidf": {"captions": {"refined": {"caption": …, "context_text": …}}},
                          "other_photo": {"first": …, "captions": {"refined": …}}}

What several controls need is computed once a batch: the features of the other photos, and pass 1 on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.articles import SplitArticles
from ealign_plugin.inference.controls.names import OF_ANOTHER_PHOTO, OTHER_SCENES
from ealign_plugin.inference.controls.renaming import Renaming
from ealign_plugin.inference.controls.sentences import ORDERS, as_much_as, with_other_scenes
from ealign_plugin.inference.controls.twins import with_twins
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.passes import write_contexts, write_first_pass, write_strategy
from ealign_plugin.inference.protocols import EvaluatedModel
from ealign_plugin.inference.records import Row
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses
from ealign_plugin.news import NewsSample


@dataclass(frozen=True, slots=True)
class SplitControls:
    """What the controls of a test need beside its batches.

    Args:
        names: The controls, as ``run.controls`` lists them.
        main: The main context, which they change.
        articles: The split.
        ner: Finds the people of captions.
        renaming: Gives people new names; None where no control asks for it.
    """

    names: Sequence[str]
    main: str
    articles: SplitArticles
    ner: NamedEntityRecognizer
    renaming: Renaming | None = None

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch that lacks what the controls need.

        Raises:
            UserError: it has no other photos.
        """
        name = next((name for name in self.names if name in OF_ANOTHER_PHOTO), None)
        if name is not None and "other_image" not in batch:
            raise UserError(
                f"run.controls: {name!r} needs another article's photo, the data set gives none; set its "
                "other_image: true (run.shuffled_images asks for 'other_photo')"
            )

    def write(
        self,
        model: EvaluatedModel,
        passes: TwoPasses,
        batch: Mapping[str, Any],
        features: Tensor,
        first: Sequence[FirstPass],
        records: Sequence[Record],
    ) -> None:
        """Add captions under each control to the records.

        Args:
            model: The model.
            passes: Its passes.
            batch: As `Evaluator.evaluate_batch` takes it.
            features: Of its photos [B, P, V].
            first: What pass 1 gave for them.
            records: Theirs, with the captions of all contexts.
        """
        asked = _Batch(self, model, passes, batch, features, first, records)
        for name in self.names:
            for record, part in zip(records, _WRITE[name](asked, name), strict=True):
                record.setdefault("controls", {})[name] = part

    def renamed(self, sample: NewsSample) -> NewsSample:
        """The sample as the control ``renamed`` reads it."""
        assert self.renaming is not None
        return self.renaming(sample)

    def tag_references(self, rows: Sequence[Row]) -> None:
        """Find the entities of renamed references by the recogniser that finds those of the captions."""
        entities = self.ner.entities([row.sample.caption for row in rows])
        for row, found in zip(rows, entities, strict=True):
            row.sample = replace(row.sample, caption_entities=found)


@dataclass
class _Batch:
    """One batch under all controls; see `SplitControls.write` for the arguments."""

    controls: SplitControls
    model: EvaluatedModel
    passes: TwoPasses
    batch: Mapping[str, Any]
    features: Tensor
    first: Sequence[FirstPass]
    records: Sequence[Record]

    @property
    def samples(self) -> Sequence[NewsSample]:
        """The batch's samples."""
        samples: Sequence[NewsSample] = self.batch["sample"]
        return samples

    def empty(self) -> list[Record]:
        """A part for each photo."""
        return [{} for _ in self.samples]

    @cached_property
    def other_features(self) -> Tensor:
        """Of the other photos [B, P, V]."""
        return self.model.encode_images(self.batch["other_image"])

    @cached_property
    def other_first(self) -> tuple[list[FirstPass], list[Record]]:
        """What pass 1 gives for the other photos, and parts that hold it."""
        parts = self.empty()
        return write_first_pass(self.passes, self.other_features, self.samples, parts), parts

    def caption(
        self,
        features: Tensor,
        first: Sequence[FirstPass],
        parts: Sequence[Record],
        samples: Sequence[NewsSample] | None = None,
    ) -> list[Record]:
        """Write captions in the main context into copies of the parts."""
        parts = [dict(part) for part in parts]
        samples = self.samples if samples is None else samples
        write_strategy(self.passes, features, samples, self.controls.main, first, parts)
        return parts


def _sentences(asked: _Batch, name: str) -> list[Record]:
    main, budget, articles = asked.controls.main, asked.passes.budget(), asked.controls.articles
    contexts = []
    for sample, record in zip(asked.samples, asked.records, strict=True):
        worded = asked.passes.wording.sample(sample)
        text = record["captions"][main]["context_text"]
        contexts.append(as_much_as(text, worded, ORDERS[name](worded, articles), budget))
    parts = asked.empty()
    write_contexts(asked.passes, asked.features, asked.samples, main, contexts, parts)
    return parts


def _renamed(asked: _Batch, name: str) -> list[Record]:
    samples = [asked.controls.renamed(sample) for sample in asked.samples]
    parts = asked.empty()
    first = write_first_pass(asked.passes, asked.features, samples, parts)
    return asked.caption(asked.features, first, parts, samples)


def _other_photo_pass1(asked: _Batch, name: str) -> list[Record]:
    return asked.caption(asked.features, *asked.other_first)


def _other_photo_pass2(asked: _Batch, name: str) -> list[Record]:
    parts = [{"first": record["first"]} for record in asked.records]
    return asked.caption(asked.other_features, asked.first, parts)


def _other_photo(asked: _Batch, name: str) -> list[Record]:
    return asked.caption(asked.other_features, *asked.other_first)


def _blank_photo(asked: _Batch, name: str) -> list[Record]:
    # The mean of all photos, as the image processor normalises them.
    features = asked.model.encode_images(torch.zeros_like(asked.batch["image"]))
    parts = asked.empty()
    return asked.caption(features, write_first_pass(asked.passes, features, asked.samples, parts), parts)


def _twin_table(asked: _Batch, name: str) -> list[Record]:
    read = [record["captions"]["head"] for record in asked.records]
    people = asked.controls.ner.entities([one["caption"] for one in read])
    return [
        {"captions": {"head": {**one, "caption": with_twins(one["caption"], entities, sample)}}}
        for one, entities, sample in zip(read, people, asked.samples, strict=True)
    ]


def _oracle_other_scenes(asked: _Batch, name: str) -> list[Record]:
    worded, budget = asked.passes.wording.sample, asked.passes.budget()
    contexts = []
    for sample in asked.samples:
        others = map(worded, asked.controls.articles.others(sample))
        contexts.append(with_other_scenes(worded(sample), others, budget, OTHER_SCENES[name]))
    parts = asked.empty()
    write_contexts(asked.passes, asked.features, asked.samples, "oracle_sentences", contexts, parts)
    return parts


_WRITE: Mapping[str, Callable[[_Batch, str], list[Record]]] = {
    **dict.fromkeys(ORDERS, _sentences),
    "renamed": _renamed,
    "other_photo_pass1": _other_photo_pass1,
    "other_photo_pass2": _other_photo_pass2,
    "other_photo": _other_photo,
    "blank_photo": _blank_photo,
    "twin_table": _twin_table,
    **dict.fromkeys(OTHER_SCENES, _oracle_other_scenes),
}
"""Control → what captions a batch under it."""
