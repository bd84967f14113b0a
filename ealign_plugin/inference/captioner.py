"""A trained model in another project: photos and articles in, captions out::

    captioner = NewsCaptioner.from_checkpoint("output/ealign_news_captioning/2026-11-23_14-05-09")
    result = captioner("photo.jpg", "Ana Ruiz spoke in Oslo. It rained.")
    print(result, result.selected, result.entities)
    for result in captioner.stream(pairs):  # any iterable of (image, article), read a batch at a time
        ...

Neither shards nor data sets need to be on the machine, and LAVIS's registry is left as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image
from torch import Tensor

from ealign_plugin.alignment.contexts import NEED_SELECTION, ORACLES, check_strategy
from ealign_plugin.alignment.prompts import Templates, Wording, fold_white_space
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.entities import DEFAULT_NER, NamedEntityRecognizer, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.inference.options import INFERENCE_OPTIONS as OPTIONS
from ealign_plugin.inference.options import InferenceOptions
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses, main_context
from ealign_plugin.news import NewsSample, Sentence
from ealign_plugin.training.checkpoints.manifest import FOLDER
from ealign_plugin.training.checkpoints.store import weights_of

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


Photo = Image.Image | str | os.PathLike[str] | bytes


Article = str | Sequence[str] | NewsSample


CONFIG = "config.yaml"


_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class ScoredSentence:
    """A sentence of the article as pass 1 judged it.

    Args:
        text: The sentence.
        score: P(yes): how surely it is about the photo.
        selected: Whether pass 1 chose it.
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
        entities: Names that pass 1 chose.
        invented: Names that the model listed and the article does not tell; pass 2 did not read them.
        context: What pass 2 read of the article.
        error: Why there is no caption; empty where there is one.
    """

    caption: str = ""
    sentences: tuple[ScoredSentence, ...] = ()
    entities: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    context: str = ""
    error: str = ""

    @property
    def selected(self) -> tuple[ScoredSentence, ...]:
        """The sentences that pass 1 chose."""
        return tuple(sentence for sentence in self.sentences if sentence.selected)

    def __str__(self) -> str:
        return self.caption


class NewsCaptioner:
    """Both passes of a model, on any photo and article; made by `from_checkpoint`.

    Args:
        model: A `NewsModel`; it is put into evaluation mode.
        image_processor: PIL picture → tensor [3, H, W].
        ner: Finds the sentences of an article.
        wording: How the tasks are worded; as the training asked.
        options: How both passes select, read and write.
        context: What pass 2 reads where a call does not say it.
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        ner: NamedEntityRecognizer,
        *,
        wording: Wording | None = None,
        options: InferenceOptions | None = None,
        context: str = "refined",
    ) -> None:
        self.model, self.image_processor, self.ner = model.eval(), image_processor, ner
        self.context = _strategy(context)
        self._passes = TwoPasses(model, wording or Wording(), options or InferenceOptions())
        self._known: dict[tuple[str, ...], tuple[Sentence, ...]] = {}  # articles of the batch before

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
        **options: Any,
    ) -> Self:
        """What a run of ``lavis.train`` learnt.

        Args:
            path: The run's folder (its best checkpoint is taken, else its last), or a checkpoint in it.
            config: YAML of the run; None: ``config.yaml`` of the run's folder.
            device: ``auto`` (cuda where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
            ner: spaCy model that finds the sentences; None: that of the run's shards, as far as its config
                or their ``index.json`` tells it here, else `DEFAULT_NER`.
            **options: Fields of `InferenceOptions` that replace the run's: ``num_beams=1``.

        Raises:
            UserError: no checkpoint or config there, the two do not belong together, an unknown option or
                device, data sets that ask in different words, or no such spaCy model.
        """
        from ealign_plugin.host.registration import registered_class
        from ealign_plugin.host.run_config import load_run_config
        from ealign_plugin.validation import unknown

        if strange := next((name for name in options if name not in OPTIONS), None):
            raise UserError(unknown("NewsCaptioner.from_checkpoint", strange, OPTIONS, "option"))
        place = _device(device)
        weights = weights_of(Path(path).expanduser().absolute())
        cfg_path = Path(config).expanduser() if config else _config_of(weights)
        with _configuration_kept():
            cfg = load_run_config(cfg_path)
        # All that can be wrong before what may take minutes.
        run = {name: cfg.run_cfg[name] for name in OPTIONS if name in cfg.run_cfg}
        usable = [name for name in cfg.run_cfg.get("contexts") or () if name not in ORACLES]
        parts = {
            "image_processor": _image_processor(cfg, cfg_path),
            "wording": Wording(_templates(cfg, cfg_path), _text_processor(cfg)),
            "options": InferenceOptions(**{**run, **options}),
            "context": main_context(usable or ["refined"]),
            "ner": ner if isinstance(ner, NamedEntityRecognizer) else load_ner(ner or _ner_name(cfg)),
        }
        model = registered_class("model", cfg.model_cfg.arch).from_config(cfg.model_cfg)
        model.load_checkpoint(weights)
        return cls(model.to(place), **parts)

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
            headline: The article's headline, which ``around_image`` reads.
            image_position: Index of the paragraph before which the photo stands; for ``around_image`` too.
            scores: Run pass 1 also where the context needs none of it.

        Raises:
            UserError: the picture cannot be read, the article is no text, or the context is unknown.
        """
        strategy = _strategy(context or self.context)
        sample = self._sample(article, "article", headline, image_position)
        return self._captions([self._tensor(image, "image")], [sample], strategy, scores)[0]

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
            pairs: Image and article each, as for a single call; a headline and the photo's place come as
                those of a `NewsSample`.
            context: As for a single call.
            batch_size: Photos that are captioned together.
            scores: As for a single call.
            on_error: A pair that cannot be read: ``raise``, or ``skip`` for a `Caption` with ``error``, so
                that every pair has one.

        Raises:
            UserError: as for a single call, with the number of the pair, from 0; or a wrong argument.
        """
        strategy = _strategy(context or self.context)
        if batch_size < 1:
            raise UserError(f"stream: batch_size {batch_size} found, at least 1 expected")
        if on_error not in ("raise", "skip"):
            raise UserError(f"stream: on_error {on_error!r} found, 'raise' or 'skip' expected")
        return self._stream(pairs, strategy, batch_size, scores, on_error == "skip")

    def _stream(
        self, pairs: Iterable[Any], strategy: str, batch_size: int, scores: bool, skip: bool
    ) -> Iterator[Caption]:
        numbered = enumerate(pairs)
        while batch := list(islice(numbered, batch_size)):
            errors: dict[int, str] = {}
            images, samples = [], []
            for number, pair in batch:
                try:
                    image, sample = self._read(pair, f"pair {number}")
                except UserError as error:
                    if not skip:
                        raise
                    errors[number] = str(error)
                else:
                    images.append(image)
                    samples.append(sample)
            captions = iter(self._captions(images, samples, strategy, scores) if images else ())
            for number, _ in batch:
                yield Caption(error=errors[number]) if number in errors else next(captions)

    def _read(self, pair: Any, name: str) -> tuple[Tensor, NewsSample]:
        if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
            raise UserError(f"{name}: (image, article) was expected, found {type(pair).__name__}")
        return self._tensor(pair[0], f"{name}, image"), self._sample(pair[1], f"{name}, article")

    def _sample(
        self, article: Any, name: str, headline: str | None = None, image_position: int | None = None
    ) -> NewsSample:
        """The article as the method knows it.

        Raises:
            UserError: it is no text, the photo's place is outside it, or a paragraph is too long for spaCy.
        """
        if not isinstance(article, NewsSample):
            article = NewsSample(key="", split="test", caption="", paragraphs=_paragraphs(article, name))
        if headline is not None:
            article = replace(article, headline=headline, headline_entities=())
        if image_position is not None:
            article = replace(article, image_position=image_position)
        most = self.ner.nlp.max_length
        for number, paragraph in enumerate(article.paragraphs):
            if len(paragraph) > most:
                raise UserError(
                    f"{name}: paragraph {number} has {len(paragraph):,} characters, at most {most:,} are "
                    "read; divide it by blank lines"
                )
        if not 0 <= (article.image_position or 0) <= len(article.paragraphs):
            raise UserError(
                f"{name}: image_position {article.image_position} found, the article has "
                f"{len(article.paragraphs)} paragraphs"
            )
        return article

    def _tensor(self, image: Any, name: str) -> Tensor:
        size = getattr(self.image_processor, "decode_size", None)
        return self.image_processor(_picture(image, name, size))

    @torch.no_grad()
    def _captions(
        self, images: Sequence[Tensor], samples: Sequence[NewsSample], strategy: str, scores: bool
    ) -> list[Caption]:
        """Both passes over images [3, H, W] and their articles."""
        samples = self._with_sentences(samples)
        device = next(self.model.parameters()).device
        features = self.model.encode_images(torch.stack(list(images)).to(device))
        first = [FirstPass()] * len(samples)
        if scores or strategy in NEED_SELECTION:
            first = self._passes.select(features, samples)
        read = [
            self._passes.context(sample, strategy, found).text
            for sample, found in zip(samples, first, strict=True)
        ]
        captions = self._passes.captions(features, read)
        return [
            Caption(
                caption=caption,
                sentences=_scored(sample, found),
                entities=found.selection.entities,
                invented=found.hallucinated_names,
                context=text,
            )
            for sample, found, text, caption in zip(samples, first, read, captions, strict=True)
        ]

    def _with_sentences(self, samples: Sequence[NewsSample]) -> list[NewsSample]:
        """The samples with the sentences of their articles; each article is read once, here and next time."""
        known, nlp = self._known, self.ner.nlp
        fresh = {s.paragraphs: s for s in samples if not s.sentences and s.paragraphs not in known}
        # Neither pass asks for the article's entities, and finding them takes most of the time.
        with nlp.select_pipes(disable=[name for name in nlp.pipe_names if name == "ner"]):
            found = {s.paragraphs: s.sentences for s in self.ner.annotate(fresh.values())}
        known = {**known, **found}
        self._known = {s.paragraphs: known[s.paragraphs] for s in samples if s.paragraphs in known}
        return [s if s.sentences else replace(s, sentences=known[s.paragraphs]) for s in samples]


def _scored(sample: NewsSample, found: FirstPass) -> tuple[ScoredSentence, ...]:
    """The sentences of an article; none where pass 1 did not run."""
    if not found.scores:
        return ()
    chosen = set(found.selection.sentences)
    return tuple(
        ScoredSentence(sentence.text, score, index in chosen, sentence.paragraph)
        for index, (sentence, score) in enumerate(zip(sample.sentences, found.scores, strict=True))
    )


def _picture(image: Any, name: str, size: int | None) -> Image.Image:
    """A picture in RGB, upright, on white."""
    if isinstance(image, bytes | Image.Image):
        return open_image(image, name, size)
    if isinstance(image, str | os.PathLike):
        return open_image(image, f"{name} {image}", size)
    raise UserError(
        f"{name}: a PIL picture, or a file's path or bytes, was expected, found {type(image).__name__}"
    )


def _paragraphs(article: Any, name: str) -> tuple[str, ...]:
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
    # Empty ones keep their places in a list: image_position counts them.
    folded = tuple(" ".join(text.split()) for text in texts)
    return tuple(filter(None, folded)) if isinstance(article, str) else folded


def _strategy(context: str) -> str:
    if context in ORACLES:
        raise UserError(
            f"context {context!r} reads the reference caption, which is known in an evaluation only; "
            "choose another, such as 'refined'"
        )
    return check_strategy(context)


# The files of a run


def _config_of(weights: Path) -> Path:
    """The config of the run that wrote this checkpoint."""
    folder = weights.parent
    if folder.parent.name == FOLDER:
        folder = folder.parent.parent
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{weights}: no {CONFIG} of its run, expected in {folder}; name the run's YAML by config="
        )
    return folder / CONFIG


@contextmanager
def _configuration_kept() -> Iterator[None]:
    """LAVIS's Config registers itself for the whole process; the host project may have one of its own."""
    from ealign_plugin.host.compat import check_host

    check_host()
    from lavis.common.registry import registry

    before = registry.get("configuration", no_warning=True)
    try:
        yield
    finally:
        if before is None:
            registry.unregister("configuration")
        else:
            registry.register("configuration", before)


def _device(name: str) -> torch.device:
    from ealign_plugin.distributed import choose_device

    try:
        device = torch.device(choose_device(name) if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device: {name!r} found; 'auto', 'cpu', 'cuda' or 'cuda:1' expected") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: {name!r} found, but torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "devices; give 'auto' or another"
        )
    return device


def _templates(cfg: HostConfig, path: Path) -> Templates:
    """How the data sets ask; all in the same words."""
    found = {
        name: Templates().changed(dict(section.get("templates") or {}))
        for name, section in cfg.datasets_cfg.items()
    }
    if len(set(found.values())) > 1:
        raise UserError(
            f"{path}: datasets {' and '.join(found)} have unlike templates, the same expected: a captioner "
            "asks in one way; take out all but one by a YAML of your own (config=)"
        )
    return next(iter(found.values()))


def _image_processor(cfg: HostConfig, path: Path) -> Any:
    """That of the first data set, for tests."""
    from lavis.common.registry import registry

    name, section = next(iter(cfg.datasets_cfg.items()))
    values = (section.get("vis_processor") or {}).get("eval")
    if values is None:
        raise UserError(f"{path}: datasets.{name}.vis_processor.eval: missing, expected the image processor")
    return registry.get_processor_class(values.name).from_config(values)


def _text_processor(cfg: HostConfig) -> Any:
    """That of the first data set's training."""
    from lavis.common.registry import registry

    section = next(iter(cfg.datasets_cfg.values()))
    values = (section.get("text_processor") or {}).get("train")
    return registry.get_processor_class(values.name).from_config(values) if values else fold_white_space


def _ner_name(cfg: HostConfig) -> str:
    """The spaCy model of the shards that the run learnt from, as far as it is known here."""
    from lavis.common.registry import registry

    from ealign_plugin.registered.builders import NewsBuilder

    for name, section in cfg.datasets_cfg.items():
        if isinstance(world := section.get("world"), Mapping):
            return world["ner"]
        builder = registry.get_builder_class(name)
        if issubclass(builder, NewsBuilder):
            with suppress(UserError):  # the shards need not be here
                folder = builder(section).folder()
                if isinstance(folder, Path):
                    return ShardIndex.load(folder).ner["name"]
    return DEFAULT_NER
