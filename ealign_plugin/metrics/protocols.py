"""Named protocols: figures of different protocols cannot be compared, so each result names its own.

Caption metrics are the same in all of them; the protocols differ in when two entities are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.captions import caption_statistics, score_captions
from ealign_plugin.metrics.entities import entity_scores
from ealign_plugin.news import Entity


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How entities are compared.

    Args:
        name: The name that results carry.
        source: Where the protocol comes from, and where this one deviates from it.
        match_label: Over all labels, a match needs an equal label too.
        fold: Texts are compared lower-cased and without accents.
        labels: Labels that get figures of their own.
    """

    name: str
    source: str
    match_label: bool
    fold: bool
    labels: tuple[str, ...] = ("PERSON", "ORG", "GPE", "DATE")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="tell",
            source="alasdairtran/transform-and-tell, scripts/compute_metrics.py: equal text and equal label",
            match_label=True,
            fold=False,
        ),
        Protocol(
            name="vacnic",
            source=(
                "tingyu215/VACNIC, evaluate_entity.py: folded text, label ignored over all labels. "
                "Deviations: accents are folded by Unicode decomposition and a short table, where VACNIC "
                "uses unidecode; both sides are tagged and folded alike, where VACNIC reads the references' "
                "entities from its data set and lower-cases the candidates' without folding accents"
            ),
            match_label=False,
            fold=True,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UserError: no such protocol; the message lists the known ones.
    """
    if name not in PROTOCOLS:
        raise UserError(f"evaluation protocol {name!r} is not known; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def evaluate(
    protocol: str | Protocol,
    references: Sequence[str],
    candidates: Sequence[str],
    reference_entities: Sequence[Sequence[Entity]],
    candidate_entities: Sequence[Sequence[Entity]],
    *,
    meteor: bool | None = None,
) -> dict[str, str | int | float | None]:
    """All figures of one set of captions, ready for JSON and for `format_table`.

    Args:
        protocol: A protocol or its name.
        references: The raw reference captions.
        candidates: The generated captions, in the same order.
        reference_entities: Named entities of each reference caption.
        candidate_entities: Named entities of each candidate caption, from the same recogniser.
        meteor: As in `score_captions`.

    Returns:
        ``protocol``, ``samples``, ``bleu1`` ... ``bleu4``, ``rouge``, ``cider``, ``meteor``,
        ``entity_precision``, ``entity_recall``, ``entity_f1``, the same three for each label in lower case
        (``person_f1``), ``words`` and ``type_token_ratio`` of the candidates, and both again as
        ``reference_words`` and ``reference_type_token_ratio``. Ratios are fractions; undefined is None.

    Raises:
        UserError: an unknown protocol, lists of different lengths, or what `score_captions` raises.
    """
    if isinstance(protocol, str):
        protocol = get_protocol(protocol)
    if len(reference_entities) != len(references):
        raise UserError(
            f"{len(references)} captions but entities of {len(reference_entities)}: "
            "one sequence of entities is expected for each caption"
        )
    figures: dict[str, str | int | float | None] = {"protocol": protocol.name, "samples": len(references)}
    # First: a mistake in the entities should not wait for METEOR.
    for group in (None, *protocol.labels):
        scores = entity_scores(
            reference_entities,
            candidate_entities,
            None if group is None else (group,),
            match_label=protocol.match_label,
            fold=protocol.fold,
        )
        name = "entity" if group is None else group.lower()
        figures[f"{name}_precision"] = scores.precision
        figures[f"{name}_recall"] = scores.recall
        figures[f"{name}_f1"] = scores.f1
    figures |= score_captions(references, candidates, meteor=meteor)
    figures |= caption_statistics(candidates)
    figures |= {f"reference_{name}": value for name, value in caption_statistics(references).items()}
    return figures
