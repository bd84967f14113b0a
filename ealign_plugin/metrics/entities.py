"""Entity metrics: how many of the reference captions' named entities a set of captions names, and back.

Source: repository alasdairtran/transform-and-tell, scripts/compute_metrics.py. An entity is a hit if the
other caption of the same photo has it at least once; a repeated entity counts each time it stands there::

    reference  Oslo, Oslo, Ana Ruiz      2 of 3 are in the candidate     recall    2/3
    candidate  Oslo, Bergen              1 of 2 is in the reference      precision 1/2

Hits and counts are summed over the set before dividing (micro average).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from ealign_plugin.entities import entity_keys, mentioned_names
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity

# What Unicode does not decompose, for the letters and marks that news captions in Latin script use.
_PLAIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
    | dict.fromkeys("‘’", "'")
    | dict.fromkeys("“”", '"')
    | {"–": "-", "—": "--"}
)


@dataclass(frozen=True, slots=True)
class EntityScores:
    """Hits and counts on both sides, and the ratios that follow from them.

    Args:
        reference_hits: Entities of the references that the candidates have too.
        reference_count: Entities of the references.
        candidate_hits: Entities of the candidates that the references have too.
        candidate_count: Entities of the candidates.
    """

    reference_hits: int
    reference_count: int
    candidate_hits: int
    candidate_count: int

    @property
    def precision(self) -> float | None:
        """Fraction of the candidates' entities that are right; None where they have none."""
        return self.candidate_hits / self.candidate_count if self.candidate_count else None

    @property
    def recall(self) -> float | None:
        """Fraction of the references' entities that were found; None where they have none."""
        return self.reference_hits / self.reference_count if self.reference_count else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean; 0 where one side has no entities, None where both have none."""
        if not self.reference_count and not self.candidate_count:
            return None
        precision, recall = self.precision or 0.0, self.recall or 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def entity_scores(
    references: Sequence[Sequence[Entity]],
    candidates: Sequence[Sequence[Entity]],
    labels: Collection[str] | None = None,
    *,
    match_label: bool = True,
    fold: bool = False,
) -> EntityScores:
    """Compare the entities of each candidate caption with those of its reference caption.

    Args:
        references: Entities of the reference captions, one sequence a photo.
        candidates: Entities of the candidate captions, in the same order.
        labels: Labels to look at, for example ``("PERSON",)``; None looks at all entities.
        match_label: A match needs an equal label and not only an equal text.
        fold: Compare texts through `fold_text`.

    Raises:
        UserError: different numbers of photos on the two sides.
    """
    if len(references) != len(candidates):
        raise UserError(
            f"entities of {len(references)} reference captions but of {len(candidates)} candidate captions: "
            "one sequence is expected for each photo on both sides"
        )

    def keys(entities: Sequence[Entity]) -> list[Hashable]:
        kept = (entity for entity in entities if labels is None or entity.label in labels)
        texts = ((fold_text(e.text) if fold else e.text, e.label if match_label else None) for e in kept)
        return list(texts)

    pairs = [(keys(r), keys(c)) for r, c in zip(references, candidates, strict=True)]
    return EntityScores(
        reference_hits=sum(_found(reference, candidate) for reference, candidate in pairs),
        reference_count=sum(len(reference) for reference, _ in pairs),
        candidate_hits=sum(_found(candidate, reference) for reference, candidate in pairs),
        candidate_count=sum(len(candidate) for _, candidate in pairs),
    )


def fold_text(text: str) -> str:
    """Lower case, letters without accents, straight quotes and dashes; other scripts keep their letters.

    Example:
        >>> fold_text("José Bjørn’s")
        "jose bjorn's"
    """
    parts = unicodedata.normalize("NFKD", text)
    return "".join(char for char in parts if not unicodedata.combining(char)).lower().translate(_PLAIN)


def _found(items: Sequence[Hashable], others: Sequence[Hashable]) -> int:
    there = set(others)
    return sum(item in there for item in items)


def all_named(
    references: Sequence[Sequence[Entity]], candidates: Sequence[Sequence[Entity]], label: str = "PERSON"
) -> float | None:
    """Share of captions that name all entities of this label that the reference names, and no other.

    Names are compared by `ealign_plugin.entities.entity_key`; photos whose reference has none do not count.
    None where no reference has any.
    """
    hits = [
        entity_keys(e for e in candidate if e.label == label) == wanted
        for reference, candidate in zip(references, candidates, strict=True)
        if (wanted := entity_keys(e for e in reference if e.label == label))
    ]
    return sum(hits) / len(hits) if hits else None


def names_held(references: Sequence[Sequence[Entity]], texts: Sequence[str]) -> float | None:
    """Share of the references' names, each once a photo, that stand in a text: the recall of what is read.

    Compared by `ealign_plugin.entities.mentioned_names`, whatever their labels; None where no reference has
    names.

    Raises:
        UserError: not as many texts as references.
    """
    if len(references) != len(texts):
        raise UserError(f"{len(references)} reference captions but {len(texts)} texts: one each is expected")
    wanted = [entity_keys(reference) for reference in references]
    count = sum(map(len, wanted))
    held = sum(len(mentioned_names(text, keys)) for keys, text in zip(wanted, texts, strict=True))
    return held / count if count else None
