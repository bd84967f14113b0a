"""The metrics of this package, registered in the order in which metrics.json lists their figures.

==============  ==========================================================================
``entities``    precision, recall and F1 of named entities, over all labels and by label
``captions``    BLEU, ROUGE-L and CIDEr
``meteor``      METEOR 1.5, where Java can run it; at test only
``statistics``  words and type-token ratio, of the captions and of their references
``people``      share of captions that name all people of the reference and nobody else
``names_held``  share of the references' names that stand in what the model read
==============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from ealign_plugin.metrics.captions import find_java, score_captions, score_meteor
from ealign_plugin.metrics.entities import all_named, entity_scores, names_held
from ealign_plugin.metrics.protocols import Protocol, get_protocol
from ealign_plugin.metrics.registry import CaptionSet, Value, chosen_metrics, measure, register_metric
from ealign_plugin.metrics.statistics import caption_statistics
from ealign_plugin.news import Entity

LABELS = ("PERSON", "ORG", "GPE", "DATE")
"""Labels that have figures of their own."""

_GROUPS = ("entity", *(label.lower() for label in LABELS))
_STATISTICS = ("words", "type_token_ratio")


@register_metric(
    "entities",
    figures=[f"{group}_{ratio}" for group in _GROUPS for ratio in ("precision", "recall", "f1")],
    columns=[f"{group}_f1" for group in _GROUPS],
)
def entities(captions: CaptionSet) -> dict[str, Value]:
    """Precision, recall and F1 of the captions' entities, micro-averaged, over all labels and for each."""
    protocol = captions.protocol
    figures: dict[str, Value] = {}
    for group in (None, *LABELS):
        scores = entity_scores(
            captions.reference_entities,
            captions.caption_entities,
            None if group is None else (group,),
            match_label=protocol.match_label,
            fold=protocol.fold,
        )
        name = "entity" if group is None else group.lower()
        figures[f"{name}_precision"] = scores.precision
        figures[f"{name}_recall"] = scores.recall
        figures[f"{name}_f1"] = scores.f1
    return figures


@register_metric(
    "captions",
    figures=(*(f"bleu{n}" for n in range(1, 5)), "rouge", "cider"),
    columns=("bleu4", "rouge", "cider"),
)
def captions(captions: CaptionSet) -> dict[str, Value]:
    """BLEU-1 to BLEU-4 of the corpus, and the means of ROUGE-L and CIDEr."""
    figures: dict[str, Value] = dict(score_captions(captions.references, captions.captions, meteor=False))
    del figures["meteor"]
    return figures


def _without_java() -> str:
    return "" if find_java() else "METEOR is left out: it needs Java, and there is none on the PATH."


@register_metric("meteor", test_only=True, picks_best=False, unavailable=_without_java)
def meteor(captions: CaptionSet) -> float | None:
    """METEOR 1.5 of the whole set."""
    return score_meteor(captions.references, captions.captions)


@register_metric(
    "statistics",
    figures=(*_STATISTICS, *(f"reference_{name}" for name in _STATISTICS)),
    columns=(),
    picks_best=False,
)
def statistics(captions: CaptionSet) -> dict[str, Value]:
    """Mean words and type-token ratio of the captions and of their references."""
    references = caption_statistics(captions.references)
    return {
        **caption_statistics(captions.captions),
        **{f"reference_{name}": value for name, value in references.items()},
    }


@register_metric("people", figures=("people_right",))
def people(captions: CaptionSet) -> float | None:
    """Share of captions that name all people of the reference and nobody else."""
    return all_named(captions.reference_entities, captions.caption_entities)


@register_metric(
    "names_held",
    picks_best=False,
    note="names held: share of the reference captions' names that stand in what pass 2 reads.",
)
def names_in_context(captions: CaptionSet) -> float | None:
    """Share of the references' names that stand in what the model read; None where that is not known."""
    if not captions.contexts:
        return None
    return names_held(captions.reference_entities, captions.contexts)


def evaluate(
    protocol: str | Protocol,
    references: Sequence[str],
    candidates: Sequence[str],
    reference_entities: Sequence[Sequence[Entity]],
    candidate_entities: Sequence[Sequence[Entity]],
    *,
    meteor: bool | None = None,
) -> dict[str, str | Value]:
    """Caption, entity and length figures of one set of captions, of any origin.

    Args:
        protocol: A protocol or its name.
        references: The raw reference captions.
        candidates: The generated captions, in the same order.
        reference_entities: Named entities of each reference caption.
        candidate_entities: Named entities of each candidate caption, from the same recogniser.
        meteor: As in `score_captions`.

    Returns:
        ``protocol``, ``samples``, ``entity_precision``, ``entity_recall``, ``entity_f1``, the same three for
        each label in lower case (``person_f1``), ``bleu1`` ... ``bleu4``, ``rouge``, ``cider``, ``meteor``,
        ``words`` and ``type_token_ratio`` of the candidates, and both again as ``reference_words`` and
        ``reference_type_token_ratio``. Ratios are fractions; undefined is None.

    Raises:
        UserError: an unknown protocol, lists of different lengths, or what `score_captions` raises.
    """
    rows = CaptionSet(
        references=references,
        captions=candidates,
        reference_entities=reference_entities,
        caption_entities=candidate_entities,
        protocol=get_protocol(protocol) if isinstance(protocol, str) else protocol,
    )
    names = ("entities", "captions", "meteor", "statistics")
    figures = measure(rows, chosen_metrics(names), skipped=("meteor",))
    if meteor is not False:
        figures["meteor"] = score_captions(references, candidates, meteor=meteor)["meteor"]
    return figures
