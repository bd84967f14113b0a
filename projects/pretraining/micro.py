"""Pre-train the ``micro`` model on worlds of its own; the folder that it writes is one to start from.

    python projects/pretraining/micro.py --out output/pretraining

It takes about three quarters of an hour on two cores; docs/micronews.md says what is reached by then. What is
taught: `ealign_plugin.micronews.lessons`; no name, face or world of MicroNews' splits is in it (a test proves
it). Beside the photos that it draws first, the folder then holds

    log.jsonl           loss by kind of lesson; of held-out photos, the share of right answers: all that is
                        visible, and all names right among one, two and three scenes
    state.safetensors   where it stands: an interrupted run goes on from there by the same command
    weights/            the model as `transformers` reads it; its sha256 is printed

The same seed on the same machine and number of threads gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from tqdm import tqdm

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.images import open_image
from ealign_plugin.micronews.lessons import STAGES, Lesson, Lessons, draw_articles, pretraining_world
from ealign_plugin.micronews.make import photo_file
from ealign_plugin.models.families import build_model
from ealign_plugin.models.preprocessing import ImageProcessor
from ealign_plugin.models.weights.export import export

SIDE = 64  # of the photos, as the model reads them
WARM_UP = 100
SPREAD = (
    0.02  # of the language model's first weights: from 0.05, as in the YAML, lists are learnt more slowly
)
EVERY = 100  # steps between two lines of the log
SAVED = 500  # steps between two states
RECENT = 0.95  # of the loss that a stage ends by is that of the steps before
STANDS = ("step", "stage", "begun", "recent")  # what a state says of a training beside its tensors


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of photos, log and weights")
    parser.add_argument("--steps", type=int, default=5000, help="steps (5000)")
    parser.add_argument("--batch", type=int, default=48, help="lessons of a step (48)")
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate (2e-3)")
    parser.add_argument("--articles", type=int, default=2000, help="articles whose photos are drawn (2000)")
    parser.add_argument("--asked", type=int, default=80, help="held-out answers of each kind (80)")
    parser.add_argument("--seed", type=int, default=1, help="seed of worlds, lessons and weights (1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (2)")
    return parser.parse_args()


class School:
    """Lessons about articles whose photos are drawn once.

    Args:
        name: ``train`` or ``held-out``.
        articles: Number of articles.
        seed: Of the world.
        folder: Where the photos are kept.
    """

    def __init__(self, name: str, articles: int, seed: int, folder: Path) -> None:
        world = pretraining_world(seed)
        rng = random.Random(f"pretraining/{seed}/{name}")
        drawn = [article.scenes for article in draw_articles(world, articles, rng)]
        self.lessons = Lessons(drawn, world, Wording())
        self.photos = self._photos(drawn, folder / f"photos-{name}-{seed}-{articles}.npy", f"{seed}/{name}")
        processor = ImageProcessor(SIDE)
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (processor.mean, processor.std))

    def _photos(self, articles: Sequence[Sequence[Any]], path: Path, seed: str) -> np.ndarray:
        """uint8 [N, SIDE, SIDE, 3]."""
        scenes = [scene for article in articles for scene in article]
        if path.exists():
            return np.load(path, allow_pickle=False)
        photos = np.zeros((len(scenes), SIDE, SIDE, 3), np.uint8)
        for number, scene in enumerate(tqdm(scenes, f"Photos, {path.stem.split('-')[1]}")):
            file = photo_file(scene, random.Random(f"pretraining/{seed}/{number}"))
            photo = open_image(file, f"photo {number}", 2 * SIDE)
            photos[number] = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        part = path.with_suffix(".part.npy")
        np.save(part, photos)
        part.rename(path)
        return photos

    def batch(self, lessons: Sequence[Lesson]) -> dict[str, Any]:
        """The lessons as the model takes them."""
        chosen = torch.from_numpy(self.photos[[lesson.photo for lesson in lessons]])
        pixels = chosen.permute(0, 3, 1, 2).float() / 255
        return {
            "image": (pixels - self.mean) / self.std,
            "instruction": [lesson.prompt.instruction for lesson in lessons],
            "question": [lesson.prompt.question for lesson in lessons],
            "target": [lesson.target for lesson in lessons],
            "task": [lesson.kind for lesson in lessons],
            "key": [lesson.photo for lesson in lessons],
        }


class Training:
    """Model, optimiser and where they stand."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.options, self.step = options, 0
        self.stage, self.begun = 0, 0
        self.recent: float | None = None  # loss of the lesson that the stage ends by, a running mean
        self.model: Any = build_model(
            {
                "arch": "ealign_instructblip",
                "model_type": "micro",
                "batching": "packed",
                "text_config": {"initializer_range": SPREAD},
            }
        )
        self.names = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        groups = [
            {"params": [p for p in self.names.values() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in self.names.values() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98))
        self.state = options.out / "state.safetensors"
        if self.state.exists():
            self._resume()

    def rate(self) -> float:
        part = self.step / self.options.steps
        warm = min(1.0, (self.step + 1) / WARM_UP)
        return self.options.rate * warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * part)))

    def learn(self, school: School) -> dict[str, float]:
        """One step; the mean loss of each kind of lesson, and the tokens that were read."""
        rng = random.Random(f"pretraining/{self.options.seed}/step/{self.step}")
        stage = STAGES[self.stage]
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        output = self.model(school.batch(school.lessons.batch(stage, self.options.batch, rng)))
        self.optimizer.zero_grad()
        output["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.names.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        figures = {name: float(value.detach()) for name, value in output.items() if name != "loss"}
        self._grow(figures)
        return figures

    def _grow(self, figures: dict[str, float]) -> None:
        """Begin the next stage where this one is mastered, or has had its time."""
        stage, length = STAGES[self.stage], self.step - self.begun
        kind, enough = stage.mastered
        if (loss := figures.get(f"loss_{kind}")) is not None:
            self.recent = loss if self.recent is None else RECENT * self.recent + (1 - RECENT) * loss
        mastered = self.recent is not None and length > 1 / (1 - RECENT) and self.recent < enough
        if self.stage + 1 < len(STAGES) and (mastered or length >= stage.at_most * self.options.steps):
            self.stage, self.begun, self.recent = self.stage + 1, self.step, None

    def save(self) -> None:
        tensors = {f"model/{name}": p.detach().clone() for name, p in self.names.items()}
        for name, parameter in self.names.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value.clone()
        stands = {key: getattr(self, key) for key in STANDS}
        metadata = {"stands": json.dumps(stands), "options": self._identity()}
        atomic_write(self.state, save(tensors, metadata))

    @torch.no_grad()
    def _resume(self) -> None:
        with safe_open(self.state, "pt") as file:
            metadata = file.metadata()
            if metadata["options"] != self._identity():
                raise UserError(
                    f"{self.state}: it was made with {metadata['options']}, found {self._identity()}; set "
                    "them back, or name another --out"
                )
            for key, value in json.loads(metadata["stands"]).items():
                setattr(self, key, value)
            for name, parameter in self.names.items():
                parameter.copy_(file.get_tensor(f"model/{name}"))
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")
                }

    def _identity(self) -> str:
        keys = ("steps", "batch", "rate", "articles", "seed", "threads")
        return json.dumps({key: getattr(self.options, key) for key in keys})

    @torch.no_grad()
    def recall(self, school: School, count: int) -> dict[str, float]:
        """Of held-out photos and articles: the share of the answers with all names right, and no other."""
        self.model.eval()
        figures = {}
        several = ((kind, scenes) for kind in ("find", "name", "caption") for scenes in (1, 2, 3))
        for kind, scenes in (("see", 1), *several):
            stage = replace(
                STAGES[-1],
                shares={kind: 1.0},
                scenes=(scenes, scenes),
                pairs=(2 * scenes, 2 * scenes),
                brief=float(kind == "name"),
                after=0.0,
            )
            asked = school.lessons.batch(stage, count, random.Random(f"recall/{kind}/{scenes}"))
            batch = school.batch(asked)
            samples = {"features": self.model.encode_images(batch["image"])}
            samples |= {key: batch[key] for key in ("instruction", "question")}
            answers = self.model.generate(samples, num_beams=1, max_length=80)
            right = [
                meaning(kind, lesson.target) == meaning(kind, answer)
                for lesson, answer in zip(asked, answers, strict=True)
            ]
            figures[f"{kind}_{scenes}"] = round(sum(right) / len(right), 3)
        self.model.train()
        return figures


def meaning(kind: str, answer: str) -> set[str]:
    """What must be right of an answer: whom it names, in a caption before the firm; else all of it."""
    if kind == "caption":
        answer = answer.split(" of ")[0].split(" in ")[0]
    return {answer} if kind == "see" else set(answer.split(" and "))


def main() -> None:
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    train = School("train", options.articles, options.seed, options.out)
    held_out = School("held-out", min(150, options.articles), options.seed, options.out)
    training = Training(options)
    started, losses, tokens = time.monotonic(), dict[str, list[float]](), 0.0
    bar = tqdm(total=options.steps, initial=training.step, desc="Pre-training", unit="step")
    while training.step < options.steps:
        figures = training.learn(train)
        tokens += figures.pop("tokens")
        for name, value in figures.items():
            losses.setdefault(name, []).append(value)
        bar.update()
        ended = training.step == options.steps
        if training.step % EVERY and not ended:
            continue
        record: dict[str, Any] = {
            "step": training.step,
            "stage": training.stage,
            "seconds": round(time.monotonic() - started),
        }
        record |= {"tokens": int(tokens)} | {
            name: round(sum(values) / len(values), 4)
            for name, values in losses.items()
            if name.startswith("loss_")
        }
        losses.clear()
        if training.step % SAVED == 0 or ended:
            record |= training.recall(held_out, options.asked)
            training.save()
        with open(options.out / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
        bar.write(json.dumps(record))
    bar.close()
    weights = options.out / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    processor = ImageProcessor(SIDE)
    export(training.model.half(), weights, mean=processor.mean, std=processor.std)
    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    print(f"{weights}: sha256 of model.safetensors {digest}")


if __name__ == "__main__":
    sys.exit(run_and_report(main))
