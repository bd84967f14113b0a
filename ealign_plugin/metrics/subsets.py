"""Groups of people by what a training knew of their names: a name that it held may be recognised, any other
must be read.

======================  =========================================================================
``strangers``           no caption of the training names them
``unseen_last_names``   their last name stands in no caption, headline or article of the training
``known``               a caption of the training names them
======================  =========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ealign_plugin.entities import entity_key
from ealign_plugin.metrics.entities import entity_scores
from ealign_plugin.metrics.protocols import Protocol
from ealign_plugin.news import Entity, NewsSample

PERSON = "PERSON"

_WORD = re.compile(r"[^\W\d_](?:[\w'’‐‑-]*\w)?")
_AFTER_LAST_NAMES = frozenset({"jr", "sr", "ii", "iii", "iv"})


@dataclass(frozen=True, slots=True)
class TrainingNames:
    """The names that a training held, compared by `ealign_plugin.entities.entity_key`.

    Args:
        captions: What its captions name, whatever the label, and each word of a person's name: a caption
            that says "Ana Ruiz" knows "Ruiz" too.
        words: All words with a capital in its captions, headlines and articles.
    """

    captions: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: Iterable[NewsSample]) -> TrainingNames:
        """Of a training's samples; nothing but the names is kept."""
        names: set[str] = set()
        words: set[str] = set()
        article: object = None
        for sample in samples:
            for entity in sample.caption_entities:
                names.add(entity.text)
                names.update(entity.text.split() if entity.label == PERSON else ())
            words.update(_capitalised((sample.caption,)))
            if sample.article != article:  # photos of one article stand together
                words.update(_capitalised((sample.headline, *sample.paragraphs)))
            article = sample.article
        return cls(_keys(names), _keys(words))

    def knows(self, name: str) -> bool:
        """Does a caption name this person?"""
        return entity_key(name) in self.captions

    def holds_last_name(self, name: str) -> bool:
        """Does the last name stand anywhere?

        >>> TrainingNames(words=frozenset({"ruiz"})).holds_last_name("Bea Ruiz Jr.")
        True
        """
        return last_name(name) in self.words


def last_name(name: str) -> str:
    """The key of a person's last name.

    >>> last_name("Martin Luther King Jr.")
    'king'
    """
    words = [key for word in name.split() if (key := entity_key(word))]
    return next((word for word in reversed(words) if word not in _AFTER_LAST_NAMES), "")


SUBSETS: Mapping[str, Callable[[TrainingNames, str], bool]] = {
    "strangers": lambda training, name: not training.knows(name),
    "unseen_last_names": lambda training, name: not training.holds_last_name(name),
    "known": lambda training, name: training.knows(name),
}
"""Name of a group → whether a person's name belongs to it."""


def people_right_counts(
    reference: Sequence[Entity], caption: Sequence[Entity], belongs: Callable[[str], bool]
) -> tuple[int, int]:
    """Of one photo: whether it is right, and whether it counts, for the people of one group.

    It counts where the reference names some of them; it is right where the caption names them all and nobody
    whom the reference does not name. On photos of one group alone that is `all_named`.
    """
    right, named = _people(reference), _people(caption)
    wanted = {name for name in right if belongs(name)}
    return (int(wanted <= named <= right), 1) if wanted else (0, 0)


def person_f1_counts(
    reference: Sequence[Entity],
    caption: Sequence[Entity],
    belongs: Callable[[str], bool],
    protocol: Protocol,
) -> tuple[int, int, int, int]:
    """Of one photo: hits and count of the reference's names of one group, and of the caption's."""
    sides = [
        [one for one in side if one.label == PERSON and belongs(one.text)] for side in (reference, caption)
    ]
    scores = entity_scores(sides[:1], sides[1:], match_label=protocol.match_label, fold=protocol.fold)
    return scores.reference_hits, scores.reference_count, scores.candidate_hits, scores.candidate_count


def _people(entities: Sequence[Entity]) -> set[str]:
    return {entity_key(entity.text) for entity in entities if entity.label == PERSON} - {""}


def _capitalised(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (word for word in _WORD.findall(text) if word[0].isupper())


def _keys(names: Collection[str]) -> frozenset[str]:
    return frozenset(map(entity_key, names)) - {""}
