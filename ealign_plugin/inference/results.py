"""What a captioner returns."""

from __future__ import annotations

from dataclasses import dataclass

from ealign_plugin.inference.two_pass import FirstPass
from ealign_plugin.news import NewsSample


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    """A sentence of the article as pass 1 judged it.

    Args:
        text: The sentence.
        score: P(yes): how surely it is about the photo.
        selected: Whether pass 1 selected it.
        paragraph: Index of its paragraph.
    """

    text: str
    score: float
    selected: bool
    paragraph: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What the model says of a photo; as a string, the caption.

    Args:
        caption: The caption; empty where there is an error.
        sentences: The article's sentences in order with their scores; empty where pass 1 was not needed.
        entities: Names that pass 1 selected.
        hallucinated_names: Names that the model listed and the article does not mention; pass 2 did not
            read them.
        context: What pass 2 read of the article.
        error: Why there is no caption; empty where there is one.
    """

    caption: str = ""
    sentences: tuple[ScoredSentence, ...] = ()
    entities: tuple[str, ...] = ()
    hallucinated_names: tuple[str, ...] = ()
    context: str = ""
    error: str = ""

    @property
    def selected(self) -> tuple[ScoredSentence, ...]:
        """The sentences that pass 1 selected."""
        return tuple(sentence for sentence in self.sentences if sentence.selected)

    def __str__(self) -> str:
        return self.caption


def scored_sentences(sample: NewsSample, first: FirstPass) -> tuple[ScoredSentence, ...]:
    """The sentences of an article with their scores; none where pass 1 did not run."""
    if not first.scores:
        return ()
    selected = set(first.selection.sentences)
    return tuple(
        ScoredSentence(sentence.text, score, index in selected, sentence.paragraph)
        for index, (sentence, score) in enumerate(zip(sample.sentences, first.scores, strict=True))
    )
