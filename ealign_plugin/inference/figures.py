"""The figures of an evaluation, made of its rows: captions, selection, losses, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ealign_plugin.alignment.selection import sentence_labels, shared_entities
from ealign_plugin.entities import NamedEntityRecognizer, entity_key, entity_keys
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.records import Row
from ealign_plugin.metrics.captions import score_each
from ealign_plugin.metrics.entities import all_named, entity_scores
from ealign_plugin.metrics.protocols import Protocol
from ealign_plugin.metrics.ranking import auc, average_precision, list_f1
from ealign_plugin.metrics.registry import CaptionSet, Metric, measure

LOSS = "caption_loss/"
_RATIOS = ("precision", "recall", "f1")


def caption_figures(
    rows: Sequence[Row],
    ner: NamedEntityRecognizer,
    protocol: Protocol,
    metrics: Sequence[Metric],
    *,
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """The figures of one context; those of each photo alone, and its entities, are written into the rows.

    Args:
        rows: One context's, a row a photo.
        ner: Finds the entities of the captions.
        protocol: How entities are compared.
        metrics: What is measured.
        skipped: Names of metrics whose figures are None.

    Returns:
        ``protocol``, ``samples``, each metric's figures, and ``contexts_cut``: number of contexts whose
        beginning the model did not read.
    """
    captions = [row.caption["caption"] for row in rows]
    entities = ner.entities(captions)
    captioned = CaptionSet(
        references=[row.sample.caption for row in rows],
        captions=captions,
        reference_entities=[row.sample.caption_entities for row in rows],
        caption_entities=entities,
        contexts=[row.caption["context_text"] for row in rows],
        protocol=protocol,
    )
    figures = measure(captioned, metrics, skipped=skipped)
    for row, each, named in zip(rows, score_each(captioned.references, captions), entities, strict=True):
        reference = [row.sample.caption_entities]
        scores = entity_scores(reference, [named], match_label=protocol.match_label, fold=protocol.fold)
        row.entities = named
        row.metrics = {
            **each,
            "entity_precision": scores.precision,
            "entity_recall": scores.recall,
            "people_right": all_named(reference, [named]),
        }
    return {**figures, "contexts_cut": sum(row.caption["context_cut"] for row in rows)}


def selection_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """How good pass 1 was: ranking and choice of the sentences, and the list of names.

    Args:
        rows: One context's; those of all contexts hold the same first pass.

    Returns:
        ``sentence_auc`` (against all other sentences), ``sentence_auc_hard`` (against those that name a
        visual entity), ``sentence_ap``; precision, recall and F1 of the selected sentences, of the names as
        the model listed them (``entity_list_raw_…``) and of those among them that the article mentions
        (``entity_list_…``); ``entity_list_invented``: number of names that it does not mention. Empty where
        pass 1 did not run.
    """
    pairs = [(row.sample, row.first) for row in rows if row.first]
    if not pairs:
        return {}
    scores = [score for _, first in pairs for score in first["scores"]]
    labels_by_photo = [sentence_labels(sample) for sample, _ in pairs]
    labels = [label for row in labels_by_photo for label in row]
    sentences = [sentence for sample, _ in pairs for sentence in sample.sentences]
    hard = [
        i
        for i, (label, sentence) in enumerate(zip(labels, sentences, strict=True))
        if label or entity_keys(sentence.entities, visual=True)
    ]
    selected = list_f1(
        [first["selected"] for _, first in pairs],
        [[i for i, label in enumerate(row) if label] for row in labels_by_photo],
    )
    wanted = [{entity_key(name) for name in shared_entities(sample)} for sample, _ in pairs]
    kept = [{entity_key(name) for name in first["entities"]} for _, first in pairs]
    dropped = [{entity_key(name) for name in first["invented"]} for _, first in pairs]
    listed = [one | other for one, other in zip(kept, dropped, strict=True)]
    return {
        "sentence_auc": auc(scores, labels),
        "sentence_auc_hard": auc([scores[i] for i in hard], [labels[i] for i in hard]),
        "sentence_ap": average_precision(scores, labels),
        **_ratios("sentence", selected),
        **_ratios("entity_list_raw", list_f1(listed, wanted)),
        **_ratios("entity_list", list_f1(kept, wanted)),
        "entity_list_invented": sum(len(first["invented"]) for _, first in pairs),
    }


def _ratios(name: str, values: tuple[float | None, float | None, float | None]) -> dict[str, float | None]:
    return {f"{name}_{ratio}": value for ratio, value in zip(_RATIOS, values, strict=True)}


def mean_losses(records: Sequence[Record]) -> dict[str, float]:
    """``caption_loss/<context>``: the mean over the photos of the loss of their references."""
    values: dict[str, list[float]] = {}
    for record in records:
        for name, loss in record.get("losses", {}).items():
            values.setdefault(f"{LOSS}{name}", []).append(loss)
    return {name: sum(row) / len(row) for name, row in values.items()}
