"""The three instruction tasks of EAMA (arXiv 2402.19404, section 3): sample → (instruction, target).

========  ==============================  =============================================
task      input                           target
========  ==============================  =============================================
caption   photo + context                 the caption
sentence  photo + one article sentence    yes / no
entity    photo + context                 the article's names that are also in the caption
========  ==============================  =============================================

One model learns all three with one language-model loss. The paper publishes neither templates nor the
list's separator: those below are ours, and config values.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from ealign_plugin.alignment.context import NEED_SELECTION, STRATEGIES, build_context
from ealign_plugin.alignment.selection import (
    EMPTY_LIST,
    Selection,
    noisy_oracle,
    sentence_labels,
    shared_entities,
)
from ealign_plugin.entities import VISUAL_LABELS, entity_key, entity_keys
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample

TASKS = ("caption", "sentence", "entity")

_CONTEXT, _SENTENCE = "{context}", "{sentence}"


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: instruction → target. The photo joins it in the stream.

    ``question`` is the instruction without what is to be read: the Q-Former sees it, so that one set of
    image tokens serves every sentence of an article.
    """

    task: str
    instruction: str
    question: str
    target: str


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
        for name, mark in (("caption", _CONTEXT), ("sentence", _SENTENCE), ("entity", _CONTEXT)):
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
        _check_names(self, changes, "templates")
        return replace(self, **changes)  # type: ignore[arg-type]

    def caption_prompt(self, context: str) -> tuple[str, str]:
        """Instruction and question of the caption task."""
        return _fill(self.caption, _CONTEXT, context)

    def sentence_prompt(self, sentence: str) -> tuple[str, str]:
        """Instruction and question of the sentence task."""
        return _fill(self.sentence, _SENTENCE, sentence)

    def entity_prompt(self, context: str) -> tuple[str, str]:
        """Instruction and question of the entity task."""
        return _fill(self.entity, _CONTEXT, context)

    def sentence_parts(self) -> tuple[str, str]:
        """What stands before and after the sentence in the sentence task."""
        before, _, after = self.sentence.partition(_SENTENCE)
        return before, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which examples a visit to a sample gives.

    Args:
        tasks: Share of each task among the examples of a batch.
        contexts: Share of each context strategy among caption examples.
        entity_contexts: The same among entity examples.
        words: Word budget of the contexts.
        positives: Positive sentences per visit; as many negatives.
        caption_positive: Share of the positives that are the caption itself.
        any_negative: Share of the negatives that are any sentence without a shared entity; the others hold
            an entity of the same type as their positive (hard negatives).
        miss: Mistakes of the selections made from labels (see `noisy_oracle`): left out.
        extra: Mistakes of the selections made from labels: added.

    Raises:
        UserError: unknown names, shares that are negative or all zero, or a number outside its range.
    """

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"caption": 1.0, "sentence": 2.0, "entity": 0.3}
    )
    contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    entity_contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    words: int = 100
    positives: int = 2
    caption_positive: float = 0.1
    any_negative: float = 0.25
    miss: float = 0.1
    extra: float = 0.2

    def __post_init__(self) -> None:
        for name, shares, known in (
            ("tasks", self.tasks, TASKS),
            ("contexts", self.contexts, STRATEGIES),
            ("entity_contexts", self.entity_contexts, STRATEGIES),
        ):
            if not isinstance(shares, Mapping) or not all(_number(v, 0) for v in shares.values()):
                raise UserError(
                    f"recipe.{name}: names with shares of 0 or more were expected, found {shares!r}"
                )
            for key in shares:
                if key not in known:
                    raise UserError(f"recipe.{name}: {key!r} is unknown; choose from {', '.join(known)}")
            if not any(shares.values()):
                raise UserError(f"recipe.{name}: a share above 0 was expected, found {shares!r}")
        for name in ("words", "positives"):
            value = getattr(self, name)
            if not isinstance(value, int) or not _number(value, 1):
                raise UserError(f"recipe.{name}: a whole number of at least 1 was expected, found {value!r}")
        for name in ("caption_positive", "any_negative", "miss", "extra"):
            value = getattr(self, name)
            if not _number(value, 0, 1):
                raise UserError(f"recipe.{name}: a number from 0 to 1 was expected, found {value!r}")

    def changed(self, changes: Mapping[str, object]) -> Recipe:
        """The recipe with some values replaced (a phase of the training schedule).

        Raises:
            UserError: a name that no recipe has.
        """
        _check_names(self, changes, "recipe")
        # An empty mapping of shares in a config means: as it was.
        return replace(self, **{k: v for k, v in changes.items() if v != {}})  # type: ignore[arg-type]


def _check_names(record: Templates | Recipe, changes: Mapping[str, object], where: str) -> None:
    known = {f.name for f in fields(record)}
    for name in changes:
        if name not in known:
            raise UserError(f"{where}: unknown key {name!r}; known are {', '.join(sorted(known))}")


def examples(
    sample: NewsSample, task: str, recipe: Recipe, templates: Templates, rng: random.Random
) -> list[Example]:
    """The examples of one task that one visit to a sample gives; none where the sample cannot give any."""
    if task == "caption":
        return [_caption(sample, recipe, templates, rng)]
    if task == "entity":
        return [_entity(sample, recipe, templates, rng)]
    return _sentence_pairs(sample, recipe, templates, rng)


def _caption(sample: NewsSample, recipe: Recipe, templates: Templates, rng: random.Random) -> Example:
    context, _ = _context(sample, recipe.contexts, recipe, templates, rng)
    return Example("caption", *templates.caption_prompt(context), sample.caption)


def _entity(sample: NewsSample, recipe: Recipe, templates: Templates, rng: random.Random) -> Example:
    context, sentences = _context(sample, recipe.entity_contexts, recipe, templates, rng)
    # A sentence longer than the budget is cut: what it no longer shows is not asked for.
    names = [name for name in shared_entities(sample, sentences) if name in context]
    return Example("entity", *templates.entity_prompt(context), templates.separator.join(names) or EMPTY_LIST)


def _context(
    sample: NewsSample,
    shares: Mapping[str, float],
    recipe: Recipe,
    templates: Templates,
    rng: random.Random,
) -> tuple[str, tuple[int, ...]]:
    strategy = rng.choices(list(shares), list(shares.values()))[0]
    selection: Selection | None = None
    if strategy in NEED_SELECTION:
        selection = noisy_oracle(sample, rng, miss=recipe.miss, extra=recipe.extra)
    context = build_context(
        sample,
        strategy,
        words=recipe.words,
        selection=selection,
        names_label=templates.names_label,
        separator=templates.separator,
    )
    return context.text, context.sentences


def _sentence_pairs(
    sample: NewsSample, recipe: Recipe, templates: Templates, rng: random.Random
) -> list[Example]:
    """As many positives as negatives of one article, balanced over the types of entity.

    A type is drawn first, then a positive that shares an entity of this type with the caption, then a
    negative that holds the type too: otherwise the frequent types are learnt and the others stay at chance.
    """
    labels = sentence_labels(sample)
    wanted = entity_keys(sample.caption_entities, visual=True)
    positives = [
        (sentence.text, _types(e for e in sentence.entities if entity_key(e.text) in wanted))
        for sentence, label in zip(sample.sentences, labels, strict=True)
        if label
    ]
    negatives = [
        (sentence.text, _types(sentence.entities))
        for sentence, label in zip(sample.sentences, labels, strict=True)
        if not label
    ]
    if not positives or not negatives:
        return []
    kinds = sorted(set().union(*(types for _, types in positives)))
    pairs = []
    for _ in range(recipe.positives):
        kind = rng.choice(kinds)
        if rng.random() < recipe.caption_positive:
            positive = sample.caption
        else:
            positive = rng.choice([text for text, types in positives if kind in types])
        alike = [text for text, types in negatives if kind in types]
        if not alike or rng.random() < recipe.any_negative:
            alike = [text for text, _ in negatives]
        negative = rng.choice(alike)
        for sentence, answer in ((positive, templates.yes), (negative, templates.no)):
            pairs.append(Example("sentence", *templates.sentence_prompt(sentence), answer))
    return pairs


def _number(value: object, least: float, most: float = sys.float_info.max) -> bool:
    """Is it a finite number within these limits? true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _types(entities: Iterable[Entity]) -> frozenset[str]:
    return frozenset(entity.label for entity in entities if entity.label in VISUAL_LABELS)


def _fill(template: str, mark: str, text: str) -> tuple[str, str]:
    """The template with its text, and without (what the Q-Former sees)."""
    return template.replace(mark, text), " ".join(template.replace(mark, "").split())
