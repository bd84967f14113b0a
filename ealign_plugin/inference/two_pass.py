"""Two passes of one model over photos and their articles (EAMA, arXiv 2402.19404, section 4)::

    pass 1   every sentence of the article against the photo → P(yes) → selected sentences
             the selected sentences → list of names; names that the article does not tell are dropped
    pass 2   the context that a strategy makes of them       → caption

Here the method (`ealign_plugin.alignment`, which knows no tensors) meets the model (which knows no
sentences). The task evaluates by it, `ealign_plugin.NewsCaptioner` captions by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ealign_plugin.alignment.contexts import NEED_SELECTION, ORACLES, Context, build_context
from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.alignment.selection import Selection, count_words, select_entities, select_sentences
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """How the two passes select, read and write; the keys of a YAML's ``run`` section.

    Args:
        context_words: Word budget of every context.
        context_tokens: Budget in the model's tokens instead; None: words count.
        threshold: A sentence is selected when P(yes) is at least this; None: each may be.
        top_k: Most sentences that are selected, the best first; None: no limit.
        select_words: Most words of the selected sentences, the best first; None: no limit.
        num_beams: Width of the beam.
        max_len: Most new tokens.
        min_len: Fewest new tokens.
        repetition_penalty: Divides the logits of tokens already written.
        length_penalty: Exponent of the length in beam search.

    Raises:
        UserError: a number outside its range.
    """

    context_words: int = 100
    context_tokens: int | None = None
    threshold: float | None = 0.5
    top_k: int | None = None
    select_words: int | None = None
    num_beams: int = 5
    max_len: int = 64
    min_len: int = 1
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name in ("context_words", "context_tokens", "top_k", "select_words", "num_beams", "max_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"run.{name}: at least 1 was expected, found {value}")


OPTIONS = tuple(field.name for field in fields(InferenceOptions))
"""Names of the options."""


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What pass 1 found out about one photo.

    Args:
        scores: P(yes) of each sentence of the article.
        selection: The sentences and names to read in pass 2.
        invented: Names that the model listed and the article does not tell.
    """

    scores: tuple[float, ...] = ()
    selection: Selection = Selection()
    invented: tuple[str, ...] = ()


class TwoPasses:
    """Both passes; image features are computed by the caller once and handed to each call.

    Args:
        model: A `NewsModel`, or what has its ``score``, ``generate`` and ``ids``.
        wording: How the tasks are worded; as the training asked.
        options: See `InferenceOptions`.
    """

    def __init__(self, model: Any, wording: Wording, options: InferenceOptions) -> None:
        self.model, self.wording, self.options = model, wording, options

    def select(self, features: Tensor, samples: Sequence[NewsSample]) -> list[FirstPass]:
        """Pass 1 of each photo; features [B, P, V]."""
        scores = [self._judged(features[i : i + 1], sample) for i, sample in enumerate(samples)]
        chosen = [self._chosen(row, sample) for row, sample in zip(scores, samples, strict=True)]
        read = [
            self.context(sample, "refined", FirstPass(selection=Selection(sentences)))
            for sample, sentences in zip(samples, chosen, strict=True)
        ]
        answers = self._written(features, [self.wording.entity(one.text) for one in read])
        found = []
        for sample, row, sentences, answer in zip(samples, scores, chosen, answers, strict=True):
            told, invented = select_entities(
                self.wording.sample(sample), answer, self.wording.templates.separator
            )
            found.append(FirstPass(tuple(row), Selection(sentences, told), invented))
        return found

    def context(self, sample: NewsSample, strategy: str, first: FirstPass | None = None) -> Context:
        """What pass 2 reads of an article.

        Raises:
            UserError: as `build_context`.
        """
        tokens = self.options.context_tokens
        return build_context(
            self.wording.sample(sample),
            strategy,
            words=self.options.context_words if tokens is None else tokens,
            selection=first.selection if first else None,
            names_label=self.wording.templates.names_label,
            separator=self.wording.templates.separator,
            length=count_words if tokens is None else self._count_tokens,
            # The head of an article is read as it stands; what was chosen is chosen once.
            once=strategy in NEED_SELECTION or strategy in ORACLES,
        )

    def captions(self, features: Tensor, contexts: Sequence[str]) -> list[str]:
        """Pass 2: the caption of each photo, features [B, P, V], from its context."""
        return self._written(features, [self.wording.caption(text) for text in contexts])

    def _judged(self, features: Tensor, sample: NewsSample) -> list[float]:
        before, after = self.wording.sentence_parts()
        log = self.model.score(
            features,
            before,
            [self.wording.text(sentence.text) + after for sentence in sample.sentences],
            [self.wording.templates.yes, self.wording.templates.no],
            question=self.wording.sentence("").question,
        )
        return log.softmax(-1)[:, 0].tolist()

    def _chosen(self, scores: Sequence[float], sample: NewsSample) -> tuple[int, ...]:
        return select_sentences(
            scores,
            threshold=self.options.threshold,
            top_k=self.options.top_k,
            words=self.options.select_words,
            texts=[self.wording.text(sentence.text) for sentence in sample.sentences],
        )

    def _count_tokens(self, text: str) -> int:
        return len(self.model.ids([text])[0])

    def _written(self, features: Tensor, prompts: Sequence[Prompt]) -> list[str]:
        return self.model.generate(
            {
                "features": features,
                "instruction": [prompt.instruction for prompt in prompts],
                "question": [prompt.question for prompt in prompts],
            },
            num_beams=self.options.num_beams,
            max_length=self.options.max_len,
            min_length=self.options.min_len,
            repetition_penalty=self.options.repetition_penalty,
            length_penalty=self.options.length_penalty,
        )


def main_context(contexts: Sequence[str]) -> str:
    """The context that stands for a run: ``refined`` where it is evaluated, else the first."""
    return "refined" if "refined" in contexts else contexts[0]
