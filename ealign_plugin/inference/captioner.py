"""A trained model in another project: photos and articles in, captions out::

    captioner = NewsCaptioner.from_checkpoint("output/ealign_news_captioning/2026-11-23_14-05-09")
    result = captioner("photo.jpg", "Ana Ruiz spoke in Oslo. It rained.")
    print(result, result.selected, result.entities)
    for result in captioner.stream(pairs):  # any iterable of (image, article), read a batch at a time
        ...

Neither LAVIS nor shards nor data sets need to be on the machine. Any number of threads may share a captioner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ealign_plugin.alignment.contexts import CONTEXTS, check_usual_context, context_strategy
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.entities import NamedEntityRecognizer, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.inference.inputs import Article, Photo, SentenceFinder, read_article, read_photo
from ealign_plugin.inference.loading import (
    find_device,
    find_settings,
    load_model,
    load_plugins,
    make_image_processor,
    make_text_processor,
)
from ealign_plugin.inference.options import INFERENCE_OPTIONS, InferenceOptions, chosen_threshold
from ealign_plugin.inference.protocols import ImageProcessor
from ealign_plugin.inference.results import Caption, scored_sentences
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses
from ealign_plugin.models.protocol import CaptioningModel
from ealign_plugin.news import NewsSample
from ealign_plugin.validation import unknown


class NewsCaptioner:
    """Both passes of a model, on any photo and article; made by `from_checkpoint`.

    Args:
        model: A `NewsModel`, or another `CaptioningModel`; it is put into evaluation mode.
        image_processor: PIL picture → tensor [3, H, W].
        ner: Finds the sentences of an article.
        wording: How the tasks are worded; as the training asked.
        options: How both passes select, read and write.
        context: What pass 2 reads where a call does not say it.

    Raises:
        UserError: the context is unknown, or reads the reference caption; or the usual context cannot be
            one.
    """

    def __init__(
        self,
        model: CaptioningModel,
        image_processor: ImageProcessor,
        ner: NamedEntityRecognizer,
        *,
        wording: Wording | None = None,
        options: InferenceOptions | None = None,
        context: str = "refined",
    ) -> None:
        self.model, self.image_processor, self.ner = model.eval(), image_processor, ner
        self.context = _usable(context)
        self._passes = TwoPasses(model, wording or Wording(), _possible(options or InferenceOptions()))
        self._find_sentences = SentenceFinder(ner)

    @property
    def wording(self) -> Wording:
        """How the tasks are worded."""
        return self._passes.wording

    @property
    def options(self) -> InferenceOptions:
        """How both passes select, read and write."""
        return self._passes.options

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        config: str | os.PathLike[str] | None = None,
        device: str = "auto",
        ner: str | NamedEntityRecognizer | None = None,
        plugins: Sequence[str] = (),
        **options: Any,
    ) -> Self:
        """What a training learnt.

        Args:
            path: A checkpoint's folder, which needs nothing beside itself; the folder of a run (its best
                checkpoint is taken, else its last); a folder that `ealign export` wrote; or a .safetensors
                file.
            config: YAML of the run, which replaces the checkpoint's own settings (``captioning.json``);
                checkpoints of older versions have none and take the ``config.yaml`` of their run.
            device: ``auto`` (cuda where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
            ner: spaCy model that finds the sentences; None: the one that annotated the training's articles.
            plugins: Modules to import first, of packages that are not installed as plugins of LAVIS. A
                checkpoint that names others is refused: it may come from anywhere.
            **options: Fields of `InferenceOptions` that replace the run's: ``num_beams=1``.

        Raises:
            UserError: no checkpoint or settings there, the two do not belong together, an unknown option or
                device, data sets that ask in different words, or no such spaCy model.
        """
        if strange := next((name for name in options if name not in INFERENCE_OPTIONS), None):
            raise UserError(unknown("NewsCaptioner.from_checkpoint", strange, INFERENCE_OPTIONS, "option"))
        where = find_device(device)
        place = Path(path).expanduser().absolute()
        settings, weights = find_settings(place, Path(config).expanduser() if config else None)
        # What stands in a YAML that the user names is the user's word.
        load_plugins(settings, place, [*plugins, *(settings.plugins if config else ())])
        # All that can be wrong before what may take minutes.
        parts: dict[str, Any] = {
            "image_processor": make_image_processor(settings.image_processor),
            "wording": Wording(settings.templates, make_text_processor(settings.text_processor)),
            "options": _possible(replace(settings.options, **options)),
            "context": _usable(settings.context),
            "ner": ner if isinstance(ner, NamedEntityRecognizer) else load_ner(ner or settings.ner["name"]),
        }
        return cls(load_model(settings, weights, where), **parts)

    def __call__(
        self,
        image: Photo,
        article: Article,
        context: str | None = None,
        *,
        headline: str | None = None,
        image_position: int | None = None,
        scores: bool = False,
    ) -> Caption:
        """The caption of one photo.

        Args:
            image: A PIL picture, or a picture file: its path or its bytes.
            article: Text, whose paragraphs blank lines divide; a list of paragraphs; or a `NewsSample`. An
                empty one is allowed.
            context: What pass 2 reads (`ealign_plugin.alignment.contexts`), without the oracles, which know
                the caption; None: the run's.
            headline: The article's headline, which ``around_image`` reads, and what adds to it.
            image_position: Index of the paragraph before which the photo stands; for ``around_image`` too.
            scores: Run pass 1 also where the context needs none of it.

        Raises:
            UserError: the picture cannot be read, the article is no text, or the context is unknown.
        """
        strategy = _usable(context or self.context)
        sample = self._read_article(article, "article", headline, image_position)
        return self._caption([self._read_photo(image, "image")], [sample], strategy, scores)[0]

    def stream(
        self,
        pairs: Iterable[tuple[Photo, Article]],
        context: str | None = None,
        *,
        batch_size: int = 8,
        scores: bool = False,
        on_error: str = "raise",
    ) -> Iterator[Caption]:
        """Captions of many photos, lazily and in order; no more than a batch is read ahead.

        Photos of one article are best given one after the other: its sentences are then found once.

        Args:
            pairs: Image and article each, as for a single call; a headline and the photo's position come as
                those of a `NewsSample`.
            context: As for a single call.
            batch_size: Photos that are captioned together.
            scores: As for a single call.
            on_error: A pair that cannot be read: ``raise``, or ``skip`` for a `Caption` with ``error``, so
                that every pair has one.

        Raises:
            UserError: as for a single call, with the number of the pair, from 0; or a wrong argument.
        """
        strategy = _usable(context or self.context)
        if batch_size < 1:
            raise UserError(f"stream: batch_size {batch_size} found, at least 1 expected")
        if on_error not in ("raise", "skip"):
            raise UserError(f"stream: on_error {on_error!r} found, 'raise' or 'skip' expected")
        return self._stream(pairs, strategy, batch_size, scores, on_error == "skip")

    def _stream(
        self, pairs: Iterable[object], strategy: str, batch_size: int, scores: bool, skip: bool
    ) -> Iterator[Caption]:
        numbered = enumerate(pairs)
        while batch := list(islice(numbered, batch_size)):
            errors: dict[int, str] = {}
            images, samples = [], []
            for number, pair in batch:
                try:
                    image, sample = self._read_pair(pair, f"pair {number}")
                except UserError as error:
                    if not skip:
                        raise
                    errors[number] = str(error)
                else:
                    images.append(image)
                    samples.append(sample)
            captions = iter(self._caption(images, samples, strategy, scores) if images else ())
            for number, _ in batch:
                yield Caption(error=errors[number]) if number in errors else next(captions)

    def _read_pair(self, pair: object, name: str) -> tuple[Tensor, NewsSample]:
        if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
            raise UserError(f"{name}: (image, article) was expected, found {type(pair).__name__}")
        return self._read_photo(pair[0], f"{name}, image"), self._read_article(pair[1], f"{name}, article")

    def _read_photo(self, photo: object, name: str) -> Tensor:
        decode_size = getattr(self.image_processor, "decode_size", None)
        return self.image_processor(read_photo(photo, name, decode_size))

    def _read_article(
        self, article: object, name: str, headline: str | None = None, image_position: int | None = None
    ) -> NewsSample:
        return read_article(
            article,
            name,
            headline=headline,
            image_position=image_position,
            max_characters=self._find_sentences.max_characters,
        )

    @torch.no_grad()
    def _caption(
        self, images: Sequence[Tensor], samples: Sequence[NewsSample], strategy: str, scores: bool
    ) -> list[Caption]:
        """Both passes over images [3, H, W] and their articles."""
        samples = self._find_sentences(samples)
        features = self.model.encode_images(torch.stack(list(images)).to(self.model.device))
        first = [FirstPass() for _ in samples]
        if scores or CONTEXTS[strategy].needs_selection:
            first = self._passes.select(features, samples)
        contexts = [
            self._passes.context(sample, strategy, one) for sample, one in zip(samples, first, strict=True)
        ]
        captions = self._passes.captions(features, [context.text for context in contexts])
        return [
            Caption(
                caption=caption,
                sentences=scored_sentences(sample, one),
                entities=one.selection.entities,
                hallucinated_names=one.hallucinated_names,
                context=self._passes.read(sample, context).text,
            )
            for sample, one, context, caption in zip(samples, first, contexts, captions, strict=True)
        ]


def _possible(options: InferenceOptions) -> InferenceOptions:
    """The options, where their threshold is known and their usual context can be one, of a plugin too."""
    check_usual_context(options.usual_context)
    chosen_threshold(options)
    return options


def _usable(context: str) -> str:
    """The context itself, where it can be made without the reference caption."""
    if context_strategy(context).reads_caption:
        raise UserError(
            f"context {context!r} reads the reference caption, which is known in an evaluation only; "
            "choose another, such as 'refined'"
        )
    return context
