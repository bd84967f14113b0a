"""``run.threshold: auto``: the threshold of pass 1, chosen on validation for a figure of pass 2.

A few candidates are tried (`ealign_plugin.metrics.thresholds`). Each photo is captioned once for every
different selection, and the candidate whose captions have the best figure is chosen. It is a threshold of
P(yes) as the model gives it, so whoever uses it needs to correct nothing::

    P(yes) of all sentences of run.threshold_photos photos ─► candidates
    each photo, each candidate ─► selection ─► caption     ─► run.threshold_figure ─► the best one
                                                               └► captioning.json of the checkpoint
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ealign_plugin.alignment.contexts import CONTEXTS
from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.distributed import all_gather_object, rank, run_on_first_rank
from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.errors import UserError
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.figures import caption_figures
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.options import AUTO, EvaluationOptions, InferenceOptions
from ealign_plugin.inference.protocols import EvaluatedModel, EvaluationData
from ealign_plugin.inference.records import Row, add_caption
from ealign_plugin.inference.report import threshold_in_words
from ealign_plugin.inference.settings import NAME, CaptioningSettings
from ealign_plugin.inference.two_pass import TwoPasses
from ealign_plugin.metrics.protocols import get_protocol
from ealign_plugin.metrics.registry import check_figure
from ealign_plugin.metrics.thresholds import candidate_thresholds, corrected, share_of_positives
from ealign_plugin.models.protocol import CaptioningModel
from ealign_plugin.news import NewsSample

_ADVICE = "name in run.valid_splits a split that a data set has, or give a number"

Batches = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A threshold that was tried.

    Args:
        threshold: Of P(yes).
        corrected: The same, corrected to the share of positives.
        selected: Share of the sentences that reach it.
        figure: What the captions were worth; None where it is undefined.
    """

    threshold: float
    corrected: float
    selected: float
    figure: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """What was chosen and why, as ``captioning.json`` and ``metrics.json`` keep it.

    Args:
        threshold: Of P(yes).
        figure: The figure that was asked.
        context: Whose captions it was measured of.
        split: The split that it was measured on.
        photos: Number of its photos.
        positives: Share of their sentences that share a visual entity with the caption.
        candidates: All that were tried.
    """

    threshold: float
    figure: str
    context: str
    split: str
    photos: int
    positives: float
    candidates: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "candidates": [asdict(candidate) for candidate in self.candidates]}


def spread(size: int, count: int) -> list[int]:
    """At most ``count`` of the numbers below ``size``, evenly spread.

    >>> spread(10, 4), spread(3, 5)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    return sorted({index * size // min(count, size) for index in range(min(count, size))})


def context_to_choose_by(contexts: Sequence[str]) -> str:
    """The tested context whose captions decide: ``refined``, else the first that reads a selection."""
    reading = [context for context in contexts if CONTEXTS[context].needs_selection]
    return reading[0] if reading and "refined" not in reading else "refined"


@torch.no_grad()
def choose_threshold(
    model: CaptioningModel,
    data: EvaluationData,
    batches: Batches,
    options: InferenceOptions,
    plan: EvaluationOptions,
    ner: NamedEntityRecognizer,
) -> ThresholdChoice:
    """Try the candidates on a split; the same choice in every process. Collective.

    Args:
        model: In evaluation mode.
        data: The split.
        batches: This process's batches of it; iterated twice.
        options: How the two passes select, read and write; the threshold is left aside.
        plan: ``contexts``, ``threshold_figure``, ``threshold_candidates``, ``threshold_photos``.
        ner: Finds the entities of the captions.

    Raises:
        UserError: the split holds no sentence.
    """
    photos = spread(len(data), plan.threshold_photos)
    data.leave_out(set(range(len(data))) - set(photos))
    try:
        own = _score(TwoPasses(model, data.wording, replace(options, threshold=None)), batches)
        scores = {index: row for part in all_gather_object(own) for index, row in part.items()}
        labels = [label for index in sorted(scores) for label in sentence_labels(data.sample(index))]
        if not labels:
            raise UserError(
                f"run.threshold: auto found, but the photos of {data.split!r} have no sentence to choose by; "
                "give a number"
            )
        positives = share_of_positives(labels)
        every = [score for index in sorted(scores) for score in scores[index]]
        thresholds = candidate_thresholds(every, positives, plan.threshold_candidates)
        context = context_to_choose_by(plan.contexts)
        passes = [TwoPasses(model, data.wording, replace(options, threshold=one)) for one in thresholds]
        written = all_gather_object(_caption(passes, batches, own, context))
    finally:
        data.leave_out(())
    captions = {index: row for part in written for index, row in part.items()}
    figures = run_on_first_rank(lambda: _figures(captions, len(thresholds), data, plan, ner))
    candidates = tuple(
        Candidate(
            threshold=threshold,
            corrected=corrected(threshold, positives),
            selected=sum(score >= threshold for score in every) / len(every),
            figure=figure,
        )
        for threshold, figure in zip(thresholds, figures, strict=True)
    )
    # The first of equal ones: the corrected probability where nothing speaks against it.
    best = max(candidates, key=lambda one: -math.inf if one.figure is None else one.figure)
    choice = ThresholdChoice(
        threshold=best.threshold,
        figure=plan.threshold_figure,
        context=context,
        split=data.split,
        photos=len(captions),
        positives=positives,
        candidates=candidates,
    )
    if rank() == 0:
        for one in candidates:
            logging.info(
                "Threshold %.4f (corrected %.4f) selects %.1f %% of the sentences: %s %s",
                *(one.threshold, one.corrected, 100 * one.selected, choice.figure, _decimals(one.figure)),
            )
        logging.info("%s", threshold_in_words(choice.to_json()))
    return choice


def check_threshold(evaluator: Evaluator, run: Mapping[str, Any]) -> None:
    """Refuse a config whose threshold could not be chosen when the training has ended.

    Args:
        evaluator: Of the run.
        run: The section ``run``.

    Raises:
        UserError: an unknown figure, or a training without a validation split.
    """
    if evaluator.options.threshold != AUTO:
        return
    plan = evaluator.plan
    check_figure(plan.threshold_figure, plan.chosen_metrics(), "run.threshold_figure")
    if not run.get("evaluate") and run.get("valid_splits") == []:
        raise UserError(f"run.threshold: auto found beside run.valid_splits: []; {_ADVICE}")


def settle_threshold(
    evaluator: Evaluator,
    model: EvaluatedModel,
    folder: Path | None,
    validation: tuple[EvaluationData, Batches] | None,
) -> Mapping[str, Any] | None:
    """Before a test: the threshold of ``run.threshold: auto``, the same in every process. Collective.

    Args:
        evaluator: Its options get the threshold.
        model: With the weights that are tested, in evaluation mode.
        folder: Of their checkpoint: a choice that lies there, made for the same figure, is taken.
        validation: The split to choose on, and this process's batches of it; None where there is none.

    Returns:
        A choice that was made now, to be kept with the checkpoint; None where there was none to make.

    Raises:
        UserError: there is none in the checkpoint and nothing to choose it on.
    """
    if evaluator.options.threshold != AUTO:
        return None
    kept = run_on_first_rank(lambda: _kept(folder, evaluator.plan.threshold_figure))
    made: Mapping[str, Any] | None = None
    if kept is None:
        if validation is None:
            where = f"{folder}: it holds none, " if folder else ""
            raise UserError(f"run.threshold: auto found; {where}and there is no validation split; {_ADVICE}")
        data, batches = validation
        evaluator.start(data, Path())
        assert evaluator.ner is not None
        chosen = choose_threshold(model, data, batches, evaluator.options, evaluator.plan, evaluator.ner)
        made = chosen.to_json()
    choice = made or kept
    assert choice is not None
    evaluator.options = replace(evaluator.options, threshold=choice["threshold"])
    evaluator.threshold_choice = choice
    return made


def _kept(folder: Path | None, figure: str) -> Mapping[str, Any] | None:
    """The choice that a checkpoint carries, where it was made for this figure."""
    if folder is None or not (folder / NAME).is_file():
        return None
    choice = CaptioningSettings.read(folder / NAME).threshold_choice
    return choice if choice and choice["figure"] == figure else None


def _score(passes: TwoPasses, batches: Batches) -> dict[int, list[float]]:
    """P(yes) of each sentence, by the photo's index in the split."""
    scores = {}
    for batch in batches:
        if batch["sample"]:
            features = passes.model.encode_images(batch["image"].to(passes.model.device))
            for row, (index, sample) in enumerate(zip(batch["index"], batch["sample"], strict=True)):
                scores[index] = passes.score_sentences(features[row : row + 1], sample)
    return scores


def _caption(
    candidates: Sequence[TwoPasses], batches: Batches, scores: Mapping[int, list[float]], context: str
) -> dict[int, list[Record]]:
    """By the photo's index: a caption for each candidate, as a record holds it."""
    captions: dict[int, list[Record]] = {}
    model = candidates[0].model
    for batch in batches:
        if not batch["sample"]:
            continue
        features = model.encode_images(batch["image"].to(model.device))
        samples: list[NewsSample] = batch["sample"]
        scored = [scores[index] for index in batch["index"]]
        known: dict[tuple[int, tuple[int, ...]], Record] = {}
        for passes in candidates:
            pairs = zip(scored, samples, strict=True)
            selected = [passes.select_sentences(row, sample).sentences for row, sample in pairs]
            new = [row for row, sentences in enumerate(selected) if (row, sentences) not in known]
            if new:
                images, some = features[new], [samples[row] for row in new]
                first = passes.select_scored(images, some, [scored[row] for row in new])
                given = [passes.context(s, context, one) for s, one in zip(some, first, strict=True)]
                texts = passes.captions(images, [one.text for one in given])
                for row, sample, one, text in zip(new, some, given, texts, strict=True):
                    record: Record = {}
                    add_caption(record, context, passes.read(sample, one), one, text)
                    known[row, selected[row]] = record["captions"][context]
            for row, index in enumerate(batch["index"]):
                captions.setdefault(index, []).append(known[row, selected[row]])
    return captions


def _figures(
    captions: Mapping[int, Sequence[Record]],
    count: int,
    data: EvaluationData,
    plan: EvaluationOptions,
    ner: NamedEntityRecognizer,
) -> list[float | None]:
    """The figure of each candidate."""
    samples = {index: data.sample(index) for index in sorted(captions)}
    metrics = [one for one in plan.chosen_metrics() if plan.threshold_figure in one.figures]
    figures = []
    for number in range(count):
        rows = [Row(sample, None, captions[index][number]) for index, sample in samples.items()]
        figures.append(
            caption_figures(rows, ner, get_protocol(plan.protocol), metrics)[plan.threshold_figure]
        )
    return figures


def _decimals(figure: float | None) -> str:
    return "undefined" if figure is None else f"{figure:.4f}"
