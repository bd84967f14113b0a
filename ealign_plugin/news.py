"""The data contract: one annotated news photo with its article, to and from JSON.

Everything else in the house speaks of these three records. A `NewsSample` keeps the article once, as
paragraphs; sentences and entities are spans into it, so a stored record cannot disagree with itself::

    paragraphs   ("Ana Ruiz spoke in Oslo. It rained.",)
    sentences    (Sentence("Ana Ruiz spoke in Oslo.", paragraph=0, start=0,  entities=(Ana Ruiz, Oslo)),
                  Sentence("It rained.",              paragraph=0, start=24, entities=()))

A sample that a reader has just read has paragraphs and no sentences; `ealign_plugin.shards.annotate`
fills in sentences and entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ealign_plugin.errors import UserError

SCHEMA_VERSION = 1
"""Version of the JSON form below. Shards of another version are refused."""

SPLITS = ("train", "val", "test")


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
        extra: Whatever else the source tells (url, date, its own entities): JSON values, kept as they are.
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
    extra: Mapping[str, Any] | None = None

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
            "extra": dict(self.extra) if self.extra else {},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> NewsSample:
        """Read what `to_json` wrote.

        Raises:
            UserError: another schema version, a missing field, a wrong type, or a span outside its text.
        """
        key = record.get("key", "?") if isinstance(record, Mapping) else "?"
        if not isinstance(record, Mapping):
            raise UserError(f"a JSON object was expected for a news sample, found {type(record).__name__}")
        if record.get("schema") != SCHEMA_VERSION:
            raise UserError(
                f"sample {key!r}: schema version {record.get('schema')!r} found, {SCHEMA_VERSION} expected; "
                "make the shards again with this version of ealign-plugin"
            )
        try:
            paragraphs = tuple(_text(paragraph) for paragraph in record["paragraphs"])
            headline, caption = _text(record["headline"]), _text(record["caption"])
            if record["split"] not in SPLITS:
                raise ValueError(f"split {record['split']!r} is none of {', '.join(SPLITS)}")
            return cls(
                key=_text(record["key"]),
                split=record["split"],
                source=_text(record["source"]),
                article_id=_text(record["article_id"]),
                image_position=record["image_position"],
                headline=headline,
                headline_entities=_entities(headline, record["headline_entities"]),
                caption=caption,
                caption_entities=_entities(caption, record["caption_entities"]),
                paragraphs=paragraphs,
                sentences=tuple(_sentence(paragraphs, item) for item in record["sentences"]),
                extra=record["extra"] or None,
            )
        except KeyError as error:
            raise UserError(f"sample {key!r}: the field {error} is missing") from None
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(f"sample {key!r}: {error}") from None


def _spans(entities: Sequence[Entity]) -> list[list[Any]]:
    return [[entity.start, entity.end, entity.label] for entity in entities]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was expected, found {type(value).__name__}")
    return value


def _slice(text: str, start: int, end: int) -> str:
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span {start}–{end} lies outside its text of {len(text)} characters")
    return text[start:end]


def _entities(text: str, spans: Sequence[Sequence[Any]]) -> tuple[Entity, ...]:
    return tuple(Entity(_slice(text, start, end), _text(label), start) for start, end, label in spans)


def _sentence(paragraphs: tuple[str, ...], item: Mapping[str, Any]) -> Sentence:
    index, start = item["paragraph"], item["start"]
    if not 0 <= index < len(paragraphs):
        raise IndexError(f"paragraph {index} named, the article has {len(paragraphs)}")
    text = _slice(paragraphs[index], start, item["end"])
    return Sentence(text, index, start, _entities(text, item["entities"]))
