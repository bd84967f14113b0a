"""How the tasks are worded: the templates, and the one place where an article's texts are put into them.

The training stream, the evaluation and the captioner word every prompt by `Wording`, so that the model is
asked at test what it was asked in training::

    sample ── Wording.sample ──► its texts as the text processor leaves them
                                   │ contexts are built from these (`ealign_plugin.alignment.contexts`)
    template ── Wording.caption ─► Prompt(instruction, question)     the template itself is never changed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample
from ealign_plugin.validation import check_keys

CONTEXT, SENTENCE = "{context}", "{sentence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The words around the data, and the answers.

    ``{sentence}`` and ``{context}`` stand where the article's text goes. In the sentence task the question
    comes first, so that all sentences of an article share the beginning of their prompt; in the others it
    comes last, because a prompt that is too long loses its beginning.

    Raises:
        UserError: a template without its mark or with two of them, equal or empty answers, or a separator
            that separates nothing.
    """

    caption: str = "Article: {context} Write the caption of this news photo:"
    sentence: str = "Is this sentence about the photo? {sentence} Answer:"
    entity: str = "Article: {context} List the names that belong to this news photo:"
    yes: str = "yes"
    no: str = "no"
    separator: str = "; "
    names_label: str = "Names:"

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str):
                raise UserError(f"templates.{item.name}: text was expected, found {value!r}")
        for name, mark in (("caption", CONTEXT), ("sentence", SENTENCE), ("entity", CONTEXT)):
            template = getattr(self, name)
            if template.count(mark) != 1:
                raise UserError(f"templates.{name}: {mark} was expected once in the text, found {template!r}")
        if not self.yes.strip() or not self.no.strip() or self.yes == self.no:
            raise UserError(
                f"templates.yes and no: two answers were expected, found {self.yes!r}, {self.no!r}"
            )
        if not self.separator.strip(" "):
            raise UserError(
                f"templates.separator: a mark between names was expected, found {self.separator!r}; "
                "names hold spaces themselves"
            )

    def changed(self, changes: Mapping[str, object]) -> Templates:
        """The templates with some of the texts replaced.

        Raises:
            UserError: a name that no templates have.
        """
        check_keys("templates", changes, [text.name for text in fields(self)])
        return replace(self, **changes)  # type: ignore[arg-type]


class Prompt(NamedTuple):
    """What the model is asked.

    Args:
        instruction: The whole text that the language model reads.
        question: The instruction without what is to be read. The Q-Former reads it, so that one set of
            image tokens serves every sentence of an article.
    """

    instruction: str
    question: str


def fold_white_space(text: str) -> str:
    """The text with single spaces between its words and none around it.

    >>> fold_white_space(" Ana  Ruiz\\nspoke. ")
    'Ana Ruiz spoke.'
    """
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Wording:
    """Templates and text processor: everything that decides how a sample becomes a prompt.

    The text processor acts on the texts of the data, once and before anything is made of them: call
    `sample` (or `text`) on what comes from the data, and give the methods below what came out. Templates,
    answers and the separator between names stand in the prompt exactly as they are configured.

    Args:
        templates: The words around the data.
        text_processor: Text → text, applied to sentences, captions, headlines and names.

    Example:
        >>> wording = Wording(Templates(caption="Read:\\n{context}\\nWrite:"), str.lower)
        >>> wording.caption(wording.text("Ana spoke."))
        Prompt(instruction='Read:\\nana spoke.\\nWrite:', question='Read:\\nWrite:')
    """

    templates: Templates = field(default_factory=Templates)
    text_processor: Callable[[str], str] = fold_white_space

    def text(self, text: str) -> str:
        """A text of the data, as the text processor leaves it."""
        return self.text_processor(text)

    def sample(self, sample: NewsSample) -> NewsSample:
        """The sample with all its texts as the text processor leaves them.

        Sentences keep their number and order. Spans (``start``) are those of the original texts. An entity
        of which nothing is left is left out.
        """

        def entities(found: Iterable[Entity]) -> tuple[Entity, ...]:
            texts = ((entity, self.text(entity.text)) for entity in found)
            return tuple(replace(entity, text=text) for entity, text in texts if text.strip())

        return replace(
            sample,
            caption=self.text(sample.caption),
            headline=self.text(sample.headline),
            paragraphs=tuple(map(self.text, sample.paragraphs)),
            sentences=tuple(
                replace(sentence, text=self.text(sentence.text), entities=entities(sentence.entities))
                for sentence in sample.sentences
            ),
            caption_entities=entities(sample.caption_entities),
            headline_entities=entities(sample.headline_entities),
        )

    def caption(self, context: str) -> Prompt:
        """The prompt of the caption task."""
        return self.fill(self.templates.caption, CONTEXT, context)

    def sentence(self, sentence: str) -> Prompt:
        """The prompt of the sentence task: the sentence between the two `sentence_parts`."""
        before, after = self.sentence_parts()
        return Prompt(before + sentence + after, _without(before, after))

    def entity(self, context: str) -> Prompt:
        """The prompt of the entity task."""
        return self.fill(self.templates.entity, CONTEXT, context)

    def sentence_parts(self) -> tuple[str, str]:
        """What stands before and after the sentence in the sentence task."""
        before, _, after = self.templates.sentence.partition(SENTENCE)
        return before, after

    def names(self, names: Iterable[str]) -> str:
        """A list of names, as the entity task answers and contexts show it."""
        return self.templates.separator.join(names)

    def list_names(self, names: Iterable[str]) -> str:
        """The names as a context shows them, behind their label."""
        return f"{self.templates.names_label.strip()} {self.names(names)}.".lstrip()

    def fill(self, template: str, mark: str, text: str) -> Prompt:
        """Put a text into a template, where the mark stands.

        An empty text leaves one of the two gaps around the mark, not both.

        >>> Wording().fill("Article: {context} Write:", "{context}", "")
        Prompt(instruction='Article: Write:', question='Article: Write:')
        """
        before, _, after = template.partition(mark)
        question = _without(before, after)
        return Prompt(before + text + after if text.strip() else question, question)


def _without(before: str, after: str) -> str:
    """The parts of a template as they stand when there is nothing between them."""
    start, end = before.rstrip(), after.lstrip()
    gaps = before[len(start) :], after[: len(after) - len(end)]
    if not start or not end:  # nothing to keep apart
        return start + end
    return start + max(gaps, key=lambda gap: (gap.count("\n"), len(gap))) + end
