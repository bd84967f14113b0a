"""Photos and articles as users have them → pictures, and samples with sentences."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.news import NewsSample, Sentence

Photo = Image.Image | str | os.PathLike[str] | bytes
"""A PIL picture, or a picture file: its path or its bytes."""

Article = str | Sequence[str] | NewsSample
"""Text whose paragraphs blank lines divide, a list of paragraphs, or a sample."""

_BLANK_LINE = re.compile(r"\n\s*\n")


def read_photo(photo: object, name: str, decode_size: int | None = None) -> Image.Image:
    """A photo in RGB, upright, on white.

    Args:
        photo: A `Photo`; other types are refused.
        name: How an error calls it.
        decode_size: A JPEG file may be decoded at a fraction of its size, no smaller than this.

    Raises:
        UserError: it is no picture, or cannot be read.
    """
    if isinstance(photo, bytes | Image.Image):
        return open_image(photo, name, decode_size)
    if isinstance(photo, str | os.PathLike):
        return open_image(photo, f"{name} {photo}", decode_size)
    raise UserError(
        f"{name}: a PIL picture, or a file's path or bytes, was expected, found {type(photo).__name__}"
    )


def read_article(
    article: object,
    name: str,
    *,
    headline: str | None = None,
    image_position: int | None = None,
    max_characters: int,
) -> NewsSample:
    """An article as the method knows it; its sentences may be missing.

    Args:
        article: An `Article`; other types are refused.
        name: How an error calls it.
        headline: Replaces that of a sample.
        image_position: Index of the paragraph before which the photo stands; replaces that of a sample.
        max_characters: Longest paragraph that is read.

    Raises:
        UserError: it is no text, the photo stands outside of it, or a paragraph is too long.
    """
    if not isinstance(article, NewsSample):
        article = NewsSample(key="", split="test", caption="", paragraphs=_paragraphs(article, name))
    if headline is not None:
        article = replace(article, headline=headline, headline_entities=())
    if image_position is not None:
        article = replace(article, image_position=image_position)
    for number, paragraph in enumerate(article.paragraphs):
        if len(paragraph) > max_characters:
            raise UserError(
                f"{name}: paragraph {number} has {len(paragraph):,} characters, at most {max_characters:,} "
                "are read; divide it by blank lines"
            )
    if not 0 <= (article.image_position or 0) <= len(article.paragraphs):
        raise UserError(
            f"{name}: image_position {article.image_position} found, the article has "
            f"{len(article.paragraphs)} paragraphs"
        )
    return article


def _paragraphs(article: object, name: str) -> tuple[str, ...]:
    """The paragraphs of a text, which blank lines divide, or of a list; white space is folded."""
    texts = _BLANK_LINE.split(article) if isinstance(article, str) else article
    if isinstance(texts, bytes) or not isinstance(texts, Sequence):
        raise UserError(f"{name}: text or a list of paragraphs was expected, found {type(article).__name__}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name}: paragraph {number} is no text, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half a character, of a file that was read as another encoding
            raise UserError(f"{name}: paragraph {number} is no Unicode text ({error.reason})") from None
    # Empty ones keep their index in a list: image_position counts them.
    folded = tuple(" ".join(text.split()) for text in texts)
    return tuple(filter(None, folded)) if isinstance(article, str) else folded


class SentenceFinder:
    """Finds the sentences of articles; any number of threads may share one.

    The articles that were read last are remembered: photos of one article often come together.

    Args:
        ner: The pipeline that finds sentences; it finds no entities here, which takes most of its time.
        remembered: Number of articles.
    """

    def __init__(self, ner: NamedEntityRecognizer, remembered: int = 64) -> None:
        self.ner, self.remembered = ner, remembered
        self._known: OrderedDict[tuple[str, ...], tuple[Sentence, ...]] = OrderedDict()
        # spaCy does not promise that threads may share a pipeline.
        self._lock = threading.Lock()

    @property
    def max_characters(self) -> int:
        """Longest paragraph that spaCy reads."""
        return self.ner.nlp.max_length

    def __call__(self, samples: Sequence[NewsSample]) -> list[NewsSample]:
        """The samples with the sentences of their articles; a sample that has sentences keeps them."""
        with self._lock:
            missing = {s.paragraphs for s in samples if not s.sentences and s.paragraphs not in self._known}
            wanted = {s.paragraphs: None for s in samples if s.paragraphs in missing}
            for paragraphs in wanted:
                self._known[paragraphs] = self.ner.sentences(paragraphs)
            found = []
            for sample in samples:
                if not sample.sentences:
                    self._known.move_to_end(sample.paragraphs)
                    sample = replace(sample, sentences=self._known[sample.paragraphs])
                found.append(sample)
            while len(self._known) > self.remembered:
                self._known.popitem(last=False)
        return found
