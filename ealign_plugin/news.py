"""The data contract: one annotated news photo with its article, to and from JSON.

Everything else in the house speaks of these three records. A `NewsSample` keeps the article once, as
paragraphs; sentences and entities are spans into it, so a stored record cannot disagree with itself::

    paragraphs   ("Ana Ruiz spoke in Oslo. It rained.",)
    sentences    (Sentence("Ana Ruiz spoke in Oslo.", paragraph=0, start=0,  entities=(Ana Ruiz, Oslo)),
                  Sentence("It rained.",              paragraph=0, start=24, entities=()))

A sample that a reader has just read has paragraphs and no sentences; `ealign_plugin.data.prepare.annotate`
fills in sentences and entities.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import Any, TypeVar

from ealign_plugin.errors import UserError

_T = TypeVar("_T")

SCHEMA_VERSION = 1
"""Version of the JSON form below. Shards of another version are refused."""

SPLITS = ("train", "val", "test")
"""Splits of published data sets."""
ALL_SPLITS = (*SPLITS, "test_known")
"""Those that shards may have: MicroNews also tests photos of people who are known."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A named entity: its text, its OntoNotes label, and where it starts in the text around it.

    ``start`` counts characters from the beginning of the sentence, headline or caption that holds it.
    """

    text: str
    label: str
    start: int

    @property
    def end(self) -> int:
        """Character offset just after the entity."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the article: text, index of its paragraph, offset in that paragraph, entities."""

    text: str
    paragraph: int
    start: int
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsSample:
    """One news photo's text: its caption, and the article it stands in.

    Args:
        key: Name of the sample, unique in its data set; no dots and no slashes (WebDataset splits a
            member's name at its first dot).
        split: ``train``, ``val`` or ``test``.
        caption: The reference caption, as published.
        paragraphs: The article, paragraph by paragraph.
        headline: The article's headline; empty where the source has none.
        article_id: Name of the article; photos of one article share it.
        image_position: Index of the paragraph before which the photo stands; None where unknown.
        sentences: The article's sentences in order; empty before annotation.
        caption_entities: Entities of the caption; empty before annotation.
        headline_entities: Entities of the headline; empty before annotation.
        source: Name of the data set.
        extra: Whatever else the source holds (url, date, its entities): JSON values, kept as they are.
    """

    key: str
    split: str
    caption: str
    paragraphs: tuple[str, ...]
    headline: str = ""
    article_id: str = ""
    image_position: int | None = None
    sentences: tuple[Sentence, ...] = ()
    caption_entities: tuple[Entity, ...] = ()
    headline_entities: tuple[Entity, ...] = ()
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def article(self) -> str | tuple[str, ...]:
        """What the photos of one article share: its name, else its text."""
        return self.article_id or self.paragraphs

    def to_json(self) -> dict[str, Any]:
        """The sample as JSON values; `from_json` is its inverse."""
        return {
            "schema": SCHEMA_VERSION,
            "key": self.key,
            "split": self.split,
            "source": self.source,
            "article_id": self.article_id,
            "image_position": self.image_position,
            "headline": self.headline,
            "headline_entities": _spans(self.headline_entities),
            "caption": self.caption,
            "caption_entities": _spans(self.caption_entities),
            "paragraphs": list(self.paragraphs),
            "sentences": [
                {
                    "paragraph": sentence.paragraph,
                    "start": sentence.start,
                    "end": sentence.start + len(sentence.text),
                    "entities": _spans(sentence.entities),
                }
                for sentence in self.sentences
            ],
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> NewsSample:
        """Read what `to_json` wrote.

        Raises:
            UserError: another schema version, a missing field, a wrong type, or a span outside its text;
                the message names the sample and the field.
        """
        if not isinstance(record, Mapping):
            raise UserError(f"a JSON object was expected for a news sample, found {type(record).__name__}")
        key = record.get("key")
        if record.get("schema") != SCHEMA_VERSION:
            raise UserError(
                f"sample {key!r}: schema version {record.get('schema')!r} found, {SCHEMA_VERSION} expected; "
                "make the shards again with this version of ealign-plugin"
            )
        try:
            paragraphs = _list(record, "paragraphs", _text)
            headline, caption = _field(record, "headline", str), _field(record, "caption", str)
            return cls(
                key=_field(record, "key", str),
                split=_split(_field(record, "split", str)),
                source=_field(record, "source", str),
                article_id=_field(record, "article_id", str),
                image_position=_image_position(_field(record, "image_position", int, NoneType), paragraphs),
                headline=headline,
                headline_entities=_list(record, "headline_entities", partial(_entity, headline)),
                caption=caption,
                caption_entities=_list(record, "caption_entities", partial(_entity, caption)),
                paragraphs=paragraphs,
                sentences=_list(record, "sentences", partial(_sentence, paragraphs)),
                extra=_field(record, "extra", dict),
            )
        except ValueError as error:
            raise UserError(f"sample {key!r}: {error}") from None


def _spans(entities: Sequence[Entity]) -> list[list[Any]]:
    return [[entity.start, entity.end, entity.label] for entity in entities]


# Reading: whatever is wrong is a ValueError whose message begins with the path of the field.

_JSON_TYPES = {str: "text", int: "a whole number", list: "a list", dict: "an object", NoneType: "null"}


def _typed(value: Any, *types: type) -> Any:
    if type(value) not in types:  # isinstance would take true for 1
        expected = " or ".join(_JSON_TYPES[kind] for kind in types)
        raise ValueError(f"{expected} was expected, found {reprlib.repr(value)}")
    return value


def _field(record: Mapping[str, Any], name: str, *types: type) -> Any:
    """A field of the record, of one of these JSON types."""
    if name not in record:
        raise ValueError(f"{name}: the field is missing")
    try:
        return _typed(record[name], *types)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _list(record: Mapping[str, Any], name: str, parse: Callable[[Any], _T]) -> tuple[_T, ...]:
    """A field of the record that is a list, with each item parsed."""
    found: list[_T] = []
    for item in _field(record, name, list):
        try:
            found.append(parse(item))
        except ValueError as error:
            raise ValueError(f"{name}[{len(found)}]: {error}") from None
    return tuple(found)


def _text(value: Any) -> str:
    return _typed(value, str)


def _split(value: str) -> str:
    if value not in ALL_SPLITS:
        raise ValueError(f"split: one of {', '.join(ALL_SPLITS)} was expected, found {value!r}")
    return value


def _image_position(value: int | None, paragraphs: tuple[str, ...]) -> int | None:
    if value is not None and not 0 <= value <= len(paragraphs):
        raise ValueError(f"image_position: {value} found, the article has {len(paragraphs)} paragraphs")
    return value


def _slice(text: str, start: int, end: int) -> str:
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span {start}–{end} lies outside its text of {len(text)} characters")
    return text[start:end]


def _entity(text: str, span: Any) -> Entity:
    if type(span) is not list or list(map(type, span)) != [int, int, str]:
        raise ValueError(f"[start, end, label] was expected, found {reprlib.repr(span)}")
    start, end, label = span
    return Entity(_slice(text, start, end), label, start)


def _sentence(paragraphs: tuple[str, ...], item: Any) -> Sentence:
    _typed(item, dict)
    index, start = _field(item, "paragraph", int), _field(item, "start", int)
    if not 0 <= index < len(paragraphs):
        raise ValueError(f"paragraph: {index} found, the article has {len(paragraphs)} paragraphs")
    text = _slice(paragraphs[index], start, _field(item, "end", int))
    return Sentence(text, index, start, _list(item, "entities", partial(_entity, text)))
