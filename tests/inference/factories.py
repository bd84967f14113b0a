"""Stand-ins for a model and a split, evaluations of them, and the files of a run that captions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import ealign_plugin
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.options import from_run
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.models import InstructBlip
from ealign_plugin.news import Entity, NewsSample, Sentence
from ealign_plugin.training.checkpoints.store import CheckpointStore


def sample(key: str = "a_0") -> NewsSample:
    maria, rain = "Maria Keller spoke in Oslo on 3 May.", "It rained."
    return NewsSample(
        key=key,
        split="test",
        caption="Maria Keller in Oslo on 3 May.",
        caption_entities=(
            Entity("Maria Keller", "PERSON", 0),
            Entity("Oslo", "GPE", 16),
            Entity("3 May", "DATE", 24),
        ),
        paragraphs=(f"{rain} {maria}",),
        sentences=(
            Sentence(rain, 0, 0),
            Sentence(
                maria,
                0,
                11,
                (Entity("Maria Keller", "PERSON", 0), Entity("Oslo", "GPE", 22), Entity("3 May", "DATE", 30)),
            ),
        ),
    )


class Oracle:
    """A stand-in for a model that reads perfectly and copies the end of what it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.images_encoded = 0

    device = torch.device("cpu")
    longest_prompt = 10_000  # characters

    def parameters(self):
        yield torch.zeros(1)

    def count_tokens(self, text):
        return len(text.split())

    def remaining(self, texts):
        return [text[-self.longest_prompt :] for text in texts]

    def encode_images(self, images):
        self.images_encoded += len(images)
        return images.flatten(1)[:, None]

    def score(self, features, prefix, candidates, answers, question):
        self.asked += [prefix + candidate for candidate in candidates]
        yes = torch.tensor([float("Maria" in candidate) for candidate in candidates])
        return torch.stack([yes, 1 - yes], dim=1).clamp(1e-6).log()

    def generate(self, samples, **_):
        answers = []
        for instruction in samples["instruction"]:
            listing = instruction.endswith("news photo:") and "List" in instruction
            answers.append(
                "Maria Keller; Bergen; Oslo; 3 May" if listing else "Maria Keller in Oslo on 3 May."
            )
        return answers


class Split:
    """A stand-in for `EvaluationSamples` of so many samples."""

    split, ner, wording = "test", {"name": "en_core_web_sm", "version": "3.8.0"}, Wording()
    tasks = ("caption", "sentence", "entity")
    training = TrainingNames()

    def __init__(self, *samples: NewsSample) -> None:
        self.samples, self.left_out = samples, set()

    def __len__(self):
        return len(self.samples)

    def sample(self, index):
        return self.samples[index]

    def identity(self):
        return {"samples": [sample.key for sample in self.samples]}

    def leave_out(self, indexes):
        self.left_out = set(indexes)

    def training_names(self, folder):
        return self.training

    def batches(self, size=2, **more):
        """As the loader would give them."""
        for start in range(0, len(self), size):
            rows = [i for i in range(start, min(start + size, len(self))) if i not in self.left_out]
            own = {"index": rows, "key": [self.samples[i].key for i in rows], "errors": []}
            own["sample"] = [self.samples[i] for i in rows]
            images = {name: value.expand(len(rows), -1, -1, -1) for name, value in more.items()}
            yield {**own, "image": torch.zeros(len(rows), 3, 4, 4), **images}


class Validation(Split):
    split = "val"


def evaluator(run=()) -> Evaluator:
    return Evaluator(*from_run(dict(run)))


def evaluate(folder, model, split, batches=None, **run):
    """Both passes over a split: the evaluator, its records, its figures."""
    one = evaluator(run)
    one.start(split, folder)
    records = one.evaluate(model, split.batches() if batches is None else batches)
    return one, records, one.finish(records, split.split)


RUN = """
model:
  arch: ealign_instructblip
  model_type: micro
  num_query_tokens: 4
  max_txt_len: 96
  vision_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}
  qformer_config: {hidden_size: 32, encoder_hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}
  text_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2}
datasets:
  ealign_micronews:
    templates: {caption: "Write a caption. {context}"}
    vis_processor:
      eval: {name: ealign_image, image_size: 64, mean: [0.1, 0.2, 0.3]}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  max_iters: 1
  iters_per_inner_epoch: 1
  batch_size_train: 4
  batch_size_eval: 4
  init_lr: 1.0e-3
  contexts: [oracle, head, refined]
  context_words: 30
  max_len: 8
  num_beams: 2
"""
ARTICLES = [
    "Ana Ruiz spoke in Oslo. It rained all day.\n\nThe mayor left early. Nobody knew why.",
    "The match ended. Leo Brandt scored twice in Turin. He was\ntired.\n\n\nThe crowd sang.",
    "",
    "One sentence only.",
]


def save(run: Path, model: InstructBlip, iters: int, metric: float = 0.5) -> None:
    """A checkpoint of the run, beside those that it has."""
    store = CheckpointStore(run / "checkpoints", keep_last=9)
    optimizer = torch.optim.SGD(model.parameters())
    store.save(model, optimizer, iters=iters, metric=metric, values={}, per_rank={}, manifest={})


def from_checkpoint(path: Path, ner: NamedEntityRecognizer, **options: Any) -> ealign_plugin.NewsCaptioner:
    return ealign_plugin.NewsCaptioner.from_checkpoint(path, device="cpu", ner=ner, **options)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
