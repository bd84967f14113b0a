"""Two passes of one model over photos and their articles (EAMA, arXiv 2402.19404, section 4)::

    pass 1   every sentence of the article against the photo → P(yes) → selected sentences
             the selected sentences → list of names; names that no article text mentions are dropped
    pass 2   the context that a strategy makes of them       → caption

Here the method (`ealign_plugin.alignment`, which knows no tensors) meets the model (which knows no
sentences). The evaluation and `ealign_plugin.NewsCaptioner` both run it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ealign_plugin.alignment.contexts import Budget, Context, build_context, context_budget
from ealign_plugin.alignment.prompts import CONTEXT, Prompt, Wording
from ealign_plugin.alignment.selection import Selection, select_entities, select_sentences
from ealign_plugin.alignment.truncation import without_beginning
from ealign_plugin.inference.options import InferenceOptions, chosen_threshold
from ealign_plugin.models.protocol import CaptioningModel
from ealign_plugin.news import NewsSample


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What pass 1 gave for one photo.

    Args:
        scores: P(yes) of each sentence of the article.
        selection: The sentences and names to read in pass 2.
        hallucinated_names: Names that the model listed and the article does not mention.
    """

    scores: tuple[float, ...] = ()
    selection: Selection = Selection()
    hallucinated_names: tuple[str, ...] = ()


class TwoPasses:
    """Both passes; image features are computed by the caller once and handed to each call.

    No call changes the object: any number of threads may use it.

    Args:
        model: A `NewsModel`, or another `CaptioningModel`.
        wording: How the tasks are worded; as the training asked.
        options: How to select, read and write.

    Raises:
        UserError: the threshold is still to be chosen.

    Example:
        >>> passes = TwoPasses(model, Wording(), InferenceOptions())          # doctest: +SKIP
        >>> features = model.encode_images(images)                            # doctest: +SKIP
        >>> first = passes.select(features, samples)                          # doctest: +SKIP
    """

    def __init__(self, model: CaptioningModel, wording: Wording, options: InferenceOptions) -> None:
        self.model, self.wording, self.options = model, wording, options
        self._threshold = chosen_threshold(options)

    def select(self, features: Tensor, samples: Sequence[NewsSample]) -> list[FirstPass]:
        """Pass 1 of each photo; features [B, P, V]."""
        scores = [self.score_sentences(features[i : i + 1], sample) for i, sample in enumerate(samples)]
        return self.select_scored(features, samples, scores)

    def select_scored(
        self, features: Tensor, samples: Sequence[NewsSample], scores: Sequence[Sequence[float]]
    ) -> list[FirstPass]:
        """Pass 1 of each photo whose sentences are scored already; features [B, P, V]."""
        selected = [self.select_sentences(row, sample) for row, sample in zip(scores, samples, strict=True)]
        read = [
            self.context(sample, "refined", FirstPass(selection=selection))
            for sample, selection in zip(samples, selected, strict=True)
        ]
        answers = self.generate(features, [self.wording.entity(context.text) for context in read])
        separator = self.wording.templates.separator
        first = []
        for sample, row, selection, answer in zip(samples, scores, selected, answers, strict=True):
            names, hallucinated = select_entities(self.wording.sample(sample), answer, separator)
            first.append(FirstPass(tuple(row), replace(selection, entities=names), hallucinated))
        return first

    def score_sentences(self, features: Tensor, sample: NewsSample) -> list[float]:
        """P(yes) of each sentence of an article, for the photo of these features [1, P, V]."""
        before, after = self.wording.sentence_parts()
        log = self.model.score(
            features,
            before,
            [self.wording.text(sentence.text) + after for sentence in sample.sentences],
            [self.wording.templates.yes, self.wording.templates.no],
            question=self.wording.sentence("").question,
        )
        return log.softmax(-1)[:, 0].tolist()

    def context(self, sample: NewsSample, strategy: str, first: FirstPass | None = None) -> Context:
        """What pass 2 is given of an article; see `read` for what the model reads of that.

        Raises:
            UserError: as `build_context`.
        """
        selection = first.selection if first else None
        return build_context(self.wording.sample(sample), strategy, self.budget(), selection)

    def read(self, sample: NewsSample, context: Context) -> Context:
        """What the model reads of a context before it writes the caption: it may be too long for it."""
        instruction = self.wording.caption(context.text).instruction
        dropped = len(instruction) - len(self.model.remaining([instruction])[0])
        if not dropped:
            return context
        before, _, _ = self.wording.templates.caption.partition(CONTEXT)
        return without_beginning(context, self.wording.sample(sample), dropped - len(before))

    def budget(self) -> Budget:
        """How long a context may be."""
        return context_budget(
            self.wording,
            words=self.options.context_words,
            tokens=self.options.context_tokens,
            count_tokens=self.model.count_tokens,
            usual_context=self.options.usual_context,
            usual_words=self.options.usual_words,
        )

    def captions(self, features: Tensor, contexts: Sequence[str]) -> list[str]:
        """Pass 2: the caption of each photo, features [B, P, V], from its context."""
        return self.generate(features, [self.wording.caption(text) for text in contexts])

    def generate(self, features: Tensor, prompts: Sequence[Prompt]) -> list[str]:
        """The answer to the prompt of each photo; features [B, P, V]."""
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

    def losses(
        self,
        forward: Callable[[Mapping[str, Any]], Mapping[str, Tensor]],
        images: Tensor,
        samples: Sequence[NewsSample],
        strategy: str,
    ) -> list[float]:
        """Of each photo, images [B, 3, H, W]: the mean loss of its reference caption's tokens.

        Args:
            forward: The model's losses of a batch, as `NewsModel.forward`.
            images: The photos.
            samples: Theirs.
            strategy: The context that is read; one that needs no selection.
        """
        prompts = [self.wording.caption(self.context(sample, strategy).text) for sample in samples]
        output = forward(
            {
                "image": images,
                "instruction": [prompt.instruction for prompt in prompts],
                "question": [prompt.question for prompt in prompts],
                "target": [self.wording.text(sample.caption) for sample in samples],
                "task": [str(i) for i in range(len(samples))],  # so that each photo has a loss of its own
            }
        )
        return [float(output[f"loss_{i}"]) for i in range(len(samples))]

    def select_sentences(self, scores: Sequence[float], sample: NewsSample) -> Selection:
        """The sentences of an article that these scores select; no names yet."""
        chosen = select_sentences(
            scores,
            threshold=self._threshold,
            top_k=self.options.top_k,
            words=self.options.select_words,
            texts=[self.wording.text(sentence.text) for sentence in sample.sentences],
        )
        return Selection(chosen, scores=tuple(scores[index] for index in chosen))


def main_context(contexts: Sequence[str]) -> str:
    """The context that stands for a run: ``refined`` where it is evaluated, else the first."""
    return "refined" if "refined" in contexts else contexts[0]
