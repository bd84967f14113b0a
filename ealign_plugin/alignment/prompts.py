"""How the tasks are worded: templates, and the one function that fills them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ealign_plugin.errors import UserError
from ealign_plugin.validation import check_names

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
        check_names(self, changes, "templates")
        return replace(self, **changes)  # type: ignore[arg-type]

    def caption_prompt(self, context: str) -> tuple[str, str]:
        """Instruction and question of the caption task."""
        return _fill(self.caption, CONTEXT, context)

    def sentence_prompt(self, sentence: str) -> tuple[str, str]:
        """Instruction and question of the sentence task."""
        return _fill(self.sentence, SENTENCE, sentence)

    def entity_prompt(self, context: str) -> tuple[str, str]:
        """Instruction and question of the entity task."""
        return _fill(self.entity, CONTEXT, context)

    def sentence_parts(self) -> tuple[str, str]:
        """What stands before and after the sentence in the sentence task."""
        before, _, after = self.sentence.partition(SENTENCE)
        return before, after


def _fill(template: str, mark: str, text: str) -> tuple[str, str]:
    """The template with its text, and without (what the Q-Former sees)."""
    return template.replace(mark, text), " ".join(template.replace(mark, "").split())
