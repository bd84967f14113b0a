"""A sample whose people have new names, everywhere: who reads the names is not moved by that.

::

    Maria Keller spoke.  Mrs. Keller left.  caption: Maria Keller in Oslo.
    Clara Thornley spoke.  Mrs. Thornley left.  caption: Clara Thornley in Oslo.

Names are changed word by word, so that a first or last name alone, and two people who share one, stay
consistent. The new last names stand nowhere in the training. A data set may say itself how people are
renamed, by ``extra["new_names"]`` of a sample: name → name of as many words.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ealign_plugin.entities import entity_key
from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.new_names import LAST, MEN, WOMEN
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import Entity, NewsSample, Sentence

NEW_NAMES = "new_names"

_WORD = re.compile(r"[^\W\d_](?:[\w'’‐‑-]*\w)?")
_POSSESSIVE = re.compile(r"['’]s$")
_KEPT = frozenset("mr mrs ms miss dr sir dame lord lady jr sr ii iii iv".split())
"""Words beside names, which stay."""


class Renaming:
    """Renames the people of samples; the photos of one article alike.

    Args:
        training: The names that the training held: none of them becomes a new name.

    Raises:
        UserError: the training holds all last names that there are here.
    """

    def __init__(self, training: TrainingNames) -> None:
        self._last = [name for name in LAST if not training.holds_last_name(name)]
        if not self._last:
            raise UserError(
                f"run.controls: 'renamed' needs a last name that the training never held, and it held all "
                f"{len(LAST)} that there are; leave it out"
            )

    def __call__(self, sample: NewsSample) -> NewsSample:
        """The sample with new names; entities keep their labels.

        Raises:
            UserError: the data set's own new name has another number of words than the old one.
        """
        names = _Names.of(sample)
        new = self._new_words(names, sample)

        def renamed(text: str, entities: Sequence[Entity], starts: Iterable[int] = (0,)) -> _Text:
            return _Text(text, _edits(text, entities, starts, names, new))

        paragraphs = []
        for number, paragraph in enumerate(sample.paragraphs):
            inside = [sentence for sentence in sample.sentences if sentence.paragraph == number]
            entities = [_shifted(e, sentence.start) for sentence in inside for e in sentence.entities]
            paragraphs.append(renamed(paragraph, entities, [sentence.start for sentence in inside]))
        headline = renamed(sample.headline, sample.headline_entities)
        caption = renamed(sample.caption, sample.caption_entities)
        return replace(
            sample,
            paragraphs=tuple(paragraph.new for paragraph in paragraphs),
            sentences=tuple(
                paragraphs[sentence.paragraph].sentence(sentence) for sentence in sample.sentences
            ),
            headline=headline.new,
            headline_entities=tuple(map(headline.entity, sample.headline_entities)),
            caption=caption.new,
            caption_entities=tuple(map(caption.entity, sample.caption_entities)),
        )

    def _new_words(self, names: _Names, sample: NewsSample) -> dict[tuple[str, bool], str]:
        """Word, and whether it is a last name → new word: the data set's, or one of the lists above."""
        new = _given_words(sample)
        rng = random.Random(f"renamed {sample.article}")
        text = " ".join((sample.headline, *sample.paragraphs))
        pools = {
            "last": [n for n in rng.sample(self._last, len(self._last)) if n not in text] or self._last,
            "women": rng.sample(WOMEN, len(WOMEN)),
            "men": rng.sample(MEN, len(MEN)),
        }
        used = Counter[str]()
        # The article's first, so that its photos share them whatever their captions add.
        article = _Names.of(replace(sample, caption="", caption_entities=()))
        for word, is_last in (*article.words(), *names.words()):
            if (word, is_last) in new:
                continue
            kind = "last" if is_last else "women" if word in WOMEN else "men" if word in MEN else None
            kind = kind or rng.choice(("women", "men"))
            new[word, is_last] = pools[kind][used[kind] % len(pools[kind])]
            used[kind] += 1
        return new


@dataclass(slots=True)
class _Names:
    """The people of a sample.

    Args:
        full: Names of several words, as the text spells them: words, and whether each is a last name; None
            for a word that stays.
        roles: All words that are changed where they stand alone; True: a last name.
        alone: People of one word who are named in no other way.
    """

    full: dict[tuple[str, ...], tuple[bool | None, ...]] = field(default_factory=dict)
    roles: dict[tuple[str, bool], None] = field(default_factory=dict)
    alone: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: NewsSample) -> _Names:
        article = [e for sentence in sample.sentences for e in sentence.entities]
        labels: dict[str, Counter[str]] = {}
        # The article decides, so that all its photos are renamed alike; the caption, whom it does not name.
        for entity in (*article, *sample.headline_entities):
            labels.setdefault(entity_key(entity.text), Counter())[entity.label] += 1
        found = cls()
        single: list[str] = []
        for entity in (*article, *sample.headline_entities, *sample.caption_entities):
            counted = labels.get(entity_key(entity.text), Counter({entity.label: 1}))
            if counted.most_common(1)[0][0] != "PERSON":
                continue
            words = tuple(_POSSESSIVE.sub("", word) for word in _WORD.findall(entity.text))
            changed = [word for word in words if _is_changed(word)]
            if len(changed) > 1:
                last = max(index for index, word in enumerate(words) if _is_changed(word))
                kinds = [index == last if _is_changed(word) else None for index, word in enumerate(words)]
                found.full[words] = tuple(kinds)
                for word, kind in zip(words, kinds, strict=True):
                    if kind is not None:
                        found.roles.setdefault((word, kind))
            elif changed and len(counted) == 1:
                single.append(changed[0])
        for word in single:
            if (word, True) not in found.roles and (word, False) not in found.roles:
                found.alone.setdefault(word)
        return found

    def words(self) -> Iterator[tuple[str, bool]]:
        """All words that are changed, in the order of their mention; True: a last name."""
        yield from self.roles
        yield from ((word, True) for word in self.alone)


def _is_changed(word: str) -> bool:
    return len(word) > 1 and word[0].isupper() and word.casefold() not in _KEPT


def _given_words(sample: NewsSample) -> dict[tuple[str, bool], str]:
    """What the data set says."""
    given = sample.extra.get(NEW_NAMES)
    new: dict[tuple[str, bool], str] = {}
    for name, other in given.items() if isinstance(given, Mapping) else ():
        old_words, new_words = str(name).split(), str(other).split()
        if len(old_words) != len(new_words):
            raise UserError(
                f"sample {sample.key!r}: extra.{NEW_NAMES}: {name!r} → {other!r} found, a name of as many "
                "words expected; make the shards again with others"
            )
        for number, (word, new_word) in enumerate(zip(old_words, new_words, strict=True), start=1):
            new.setdefault((word, number == len(old_words)), new_word)
    return new


_Edit = tuple[int, int, str]
"""Start, end, and what stands there then."""


def _edits(
    text: str,
    entities: Sequence[Entity],
    starts: Iterable[int],
    names: _Names,
    new: Mapping[tuple[str, bool], str],
) -> list[_Edit]:
    """The words of a text that are changed, in order.

    Full names are found as text, whether or not they were tagged there. A word alone is changed within the
    name of a person; where nothing was tagged a last name is, and a first name unless it begins a sentence,
    where it may be any word.
    """
    edits: dict[int, _Edit] = {}
    for words, kinds in sorted(names.full.items(), key=lambda item: -len(item[0])):
        pattern = r"[\s.]+".join(map(re.escape, words))
        for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", text):
            end = match.start()
            for word, kind in zip(words, kinds, strict=True):
                start = text.index(word, end)
                end = start + len(word)
                if kind is not None:
                    edits.setdefault(start, (start, end, _cased(new[word, kind], word)))
    inside = {position: e.label for e in entities for position in range(e.start, e.end)}
    begins = set(starts)
    for match in _WORD.finditer(text):
        start, word = match.start(), _POSSESSIVE.sub("", match.group())
        label = inside.get(start)
        if start in edits or label not in (None, "PERSON"):
            continue
        if (word, True) in names.roles:
            kind = True
        elif (word, False) in names.roles and (label or start not in begins):
            kind = False
        elif word in names.alone and label:
            kind = True
        else:
            continue
        edits[start] = (start, start + len(word), _cased(new[word, kind], word))
    return [edits[start] for start in sorted(edits)]


def _cased(new: str, old: str) -> str:
    return new.upper() if old.isupper() else new


class _Text:
    """A text with its edits made, and where its parts stand then."""

    def __init__(self, text: str, edits: Sequence[_Edit]) -> None:
        self.edits = edits
        pieces, end = [], 0
        for start, stop, word in edits:
            pieces += [text[end:start], word]
            end = stop
        self.new = "".join([*pieces, text[end:]])

    def moved(self, position: int) -> int:
        """Where a position of the old text is in the new one."""
        shift = 0
        for start, end, word in self.edits:
            if end > position:
                break
            shift += len(word) - (end - start)
        return position + shift

    def entity(self, entity: Entity) -> Entity:
        start, end = self.moved(entity.start), self.moved(entity.end)
        return Entity(self.new[start:end], entity.label, start)

    def sentence(self, sentence: Sentence) -> Sentence:
        start, end = self.moved(sentence.start), self.moved(sentence.start + len(sentence.text))
        moved = (self.entity(_shifted(entity, sentence.start)) for entity in sentence.entities)
        entities = tuple(_shifted(entity, -start) for entity in moved)
        return Sentence(self.new[start:end], sentence.paragraph, start, entities)


def _shifted(entity: Entity, by: int) -> Entity:
    return replace(entity, start=entity.start + by)
