"""The cheapest trick: captions whose people are put right by a list of names, without looking or reading.

A model that recognises faces names somebody of its training. Where a look has few owners, the article need
not be read to correct that: its owner is whoever of them the article names. So a table does it::

    caption of `head`   Susan Campbell at the World Cup.     the article names Karen Wright and Omar Farouk
    table               Susan Campbell → Karen Wright        of the data set, where it gives one
    without a table     the first person of the article whom the caption does not name yet

A data set gives its table as ``extra["twins"]`` of a sample: name → name. What reaches the main context's
figure by this trick was not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ealign_plugin.alignment.selection import in_article
from ealign_plugin.entities import entity_key, mentioned_names
from ealign_plugin.news import Entity, NewsSample

TWINS = "twins"

_POSSESSIVE = re.compile(r"['’]s$")


def with_twins(caption: str, entities: Sequence[Entity], sample: NewsSample) -> str:
    """The caption with names of the article in place of people whom the article does not name.

    Args:
        caption: The caption.
        entities: Its entities.
        sample: The photo's sample.
    """
    people = [entity for entity in entities if entity.label == "PERSON"]
    there = set(in_article(sample, [entity.text for entity in people]))
    free = [name for name in people_of(sample) if not mentioned_names(caption, [name])]
    given = sample.extra.get(TWINS)
    table = {entity_key(name): twin for name, twin in given.items()} if isinstance(given, Mapping) else {}
    replaced: dict[str, str] = {}
    for entity in people:
        key = entity_key(entity.text)
        if entity.text in there or key in replaced:
            continue
        twin = table.get(key)
        name = twin if twin in free else next(iter(free), None)
        if name is not None:
            replaced[key] = name
            free.remove(name)
    for entity in reversed(people):
        if (name := replaced.get(entity_key(entity.text))) is not None:
            caption = caption[: entity.start] + name + caption[entity.end :]
    return caption


def people_of(sample: NewsSample) -> list[str]:
    """The people of an article in the order in which it names them; part of a longer name is nobody."""
    names: dict[str, str] = {}
    for sentence in sample.sentences:
        for entity in sentence.entities:
            if entity.label == "PERSON" and (key := entity_key(entity.text)):
                names.setdefault(key, _POSSESSIVE.sub("", entity.text))
    return [
        name
        for key, name in names.items()
        if not any(key != other and mentioned_names(other, [key]) for other in names)
    ]
