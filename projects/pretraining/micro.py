"""Pre-train the ``micro`` model on worlds of its own; the folder that it writes is one to start from.

    python projects/pretraining/micro.py --out output/pretraining

It is meant for a GPU, where a step takes 100 ms; on two CPU cores the longest take three seconds. What is
taught: `ealign_plugin.micronews.lessons`; no name, face or world of MicroNews' splits is in it (a test proves
it). The weights that the package ships, and the command that made them, are in
``ealign_plugin/configs/weights/micro``. Beside the photos that it draws first, the folder then holds

    log.jsonl           loss by kind of lesson; of held-out photos, the share of right answers: all that is
                        visible, what is shown and not, and all names right among one, two and three scenes
    state.safetensors   where it stands: an interrupted run goes on from there by the same command
    weights/            the model as `transformers` reads it; its sha256 is printed

The same seed on the same machine and device gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
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
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.images import open_image
from ealign_plugin.micronews.lessons import (
    STAGES,
    Lesson,
    Lessons,
    draw_articles,
    pretraining_world,
    stage_at,
)
from ealign_plugin.micronews.make import photo_file
from ealign_plugin.models.batching import Tokens, pad
from ealign_plugin.models.families import build_model
from ealign_plugin.models.loss import rows_of
from ealign_plugin.models.preprocessing import ImageProcessor
from ealign_plugin.models.weights.export import export

SIDE = 64  # of the photos, as the model reads them
WARM_UP = 100
SPREAD = (
    0.02  # of the language model's first weights: from 0.05, as in the YAML, lists are learnt more slowly
)
EVERY = 100  # steps between two lines of the log
SAVED = 250  # steps between two states
RECALLED = 2000  # steps between two examinations on held-out photos


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of photos, log and weights")
    parser.add_argument("--steps", type=int, default=4400, help="steps of the timetable (4400)")
    parser.add_argument("--until", type=int, help="stop after this step, and write its weights (the last)")
    parser.add_argument("--batch", type=int, default=256, help="lessons of a step (256)")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="largest learning rate (1.5e-3)")
    parser.add_argument("--articles", type=int, default=2500, help="articles whose photos are drawn (2500)")
    parser.add_argument("--asked", type=int, default=200, help="held-out answers of each kind (200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of worlds, lessons and weights (1)")
    parser.add_argument("--device", default="", help="cuda or cpu (cuda where there is one)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    return parser.parse_args()


class Photos(Dataset[np.ndarray]):
    """The photos of some articles, uint8 [SIDE, SIDE, 3]."""

    def __init__(self, articles: Sequence[Sequence[Any]], seed: str) -> None:
        self.scenes, self.seed = [scene for article in articles for scene in article], seed

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, number: int) -> np.ndarray:
        file = photo_file(self.scenes[number], random.Random(f"pretraining/{self.seed}/{number}"))
        photo = open_image(file, f"photo {number}", 2 * SIDE)
        return np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


class School:
    """Lessons about articles whose photos are drawn once.

    Args:
        name: ``train`` or ``held-out``.
        articles: Number of articles.
        seed: Of the world.
        folder: Where the photos are kept.
        workers: Processes that draw them.
    """

    def __init__(self, name: str, articles: int, seed: int, folder: Path, workers: int = 0) -> None:
        world = pretraining_world(seed)
        rng = random.Random(f"pretraining/{seed}/{name}")
        drawn = [article.scenes for article in draw_articles(world, articles, rng)]
        self.lessons = Lessons(drawn, world, Wording())
        path = folder / f"photos-{name}-{seed}-{articles}.npy"
        if not path.exists():
            photos = Photos(drawn, f"{seed}/{name}")
            loader = DataLoader(photos, batch_size=None, num_workers=workers, collate_fn=np.asarray)
            part = path.with_suffix(".part.npy")
            np.save(part, np.stack(list(tqdm(loader, f"Photos, {name}"))))
            part.rename(path)
        self.photos = np.load(path, allow_pickle=False)

    def batch(self, lessons: Sequence[Lesson]) -> dict[str, Any]:
        """Lessons as the model takes them, but for the photos: uint8 [B, SIDE, SIDE, 3]."""
        photos = [lesson.photo for lesson in lessons if lesson.photo is not None]
        return {
            "image": torch.from_numpy(self.photos[photos]),
            "instruction": [lesson.prompt.instruction for lesson in lessons],
            "question": [lesson.prompt.question for lesson in lessons],
            "target": [lesson.target for lesson in lessons],
            "task": [lesson.kind for lesson in lessons],
            "key": photos,
        }


class Timetable(Dataset[tuple[dict[str, Any], dict[str, Any]]]):
    """The lessons of each step: those without a photo, and those about one."""

    def __init__(self, school: School, options: argparse.Namespace, model: Any) -> None:
        self.school, self.options, self.model = school, options, model

    def __getitem__(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = random.Random(f"pretraining/{self.options.seed}/step/{step}")
        stage = stage_at(step, self.options.steps)
        drawn = self.school.lessons.batch(stage, self.options.batch, rng)
        texts = self.school.batch([lesson for lesson in drawn if lesson.photo is None])
        seen = self.school.batch([lesson for lesson in drawn if lesson.photo is not None])
        return tuple(batch | {"rows": rows_of(self.model, batch)} for batch in (texts, seen))

    def since(self, step: int) -> DataLoader[Any]:
        """The steps from this one on."""
        steps = range(step, self.options.until)
        return DataLoader(self, batch_size=None, sampler=steps, num_workers=self.options.workers)


class Training:
    """Model, optimiser and where they stand."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        torch.use_deterministic_algorithms(True)
        self.options, self.step = options, 0
        self.device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model: Any = build_model(
            {
                "arch": "ealign_instructblip",
                "model_type": "micro",
                "batching": "packed",
                "text_config": {"initializer_range": SPREAD},
            }
        )
        self.model = model.to(self.device)
        processor = ImageProcessor(SIDE)
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(3, 1, 1) for v in (processor.mean, processor.std)
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

    def learn(self, texts: dict[str, Any], seen: dict[str, Any]) -> dict[str, Tensor]:
        """One step; the mean loss of each kind of lesson, and the tokens that were read."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, figures = torch.zeros((), device=self.device), dict[str, Tensor]()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if count := len(texts["target"]):
                figures["loss_find"], tokens = self._recite(texts)
                loss, figures["tokens"] = loss + figures["loss_find"] * count, tokens
            if count := len(seen["target"]):
                output = self.model(seen | {"image": self.pixels(seen["image"])})
                loss = loss + output.pop("loss") * count
                output["tokens"] = output["tokens"] + figures.get("tokens", 0)
                figures |= output
        self.optimizer.zero_grad()
        (loss / (len(texts["target"]) + len(seen["target"]))).backward()
        torch.nn.utils.clip_grad_norm_(self.names.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: value.detach() for name, value in figures.items()}

    def _recite(self, texts: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The language model alone: mean over lessons of their tokens' mean loss, and the tokens read."""
        batch = pad(texts["rows"], self.model.tokenizer.pad_token_id, self.device)
        logits = self.model.language_model(input_ids=batch.ids, use_cache=False).logits[:, :-1]
        labels = batch.labels[:, 1:]
        losses = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
        return (losses.sum(1) / (labels >= 0).sum(1)).mean(), batch.mask.sum()

    def pixels(self, photos: Tensor) -> Tensor:
        """uint8 [B, SIDE, SIDE, 3] as the model takes them."""
        pixels = photos.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        return (pixels - self.mean) / self.std

    def save(self) -> None:
        tensors = {f"model/{name}": p.detach().clone() for name, p in self.names.items()}
        for name, parameter in self.names.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value.clone()
        metadata = {"step": str(self.step), "options": self._identity()}
        atomic_write(self.state, save(tensors, metadata))

    @torch.no_grad()
    def _resume(self) -> None:
        with safe_open(self.state, "pt", device=str(self.device)) as file:
            metadata = file.metadata()
            if metadata["options"] != self._identity():
                raise UserError(
                    f"{self.state}: it was made with {metadata['options']}, found {self._identity()}; set "
                    "them back, or name another --out"
                )
            self.step, held = int(metadata["step"]), set(file.keys())
            for name, parameter in self.names.items():
                parameter.copy_(file.get_tensor(f"model/{name}"))
                if f"step/{name}" not in held:  # nothing of it was learnt yet
                    continue
                self.optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")
                }

    def _identity(self) -> str:
        keys = ("steps", "batch", "rate", "articles", "seed")
        return json.dumps({key: getattr(self.options, key) for key in keys})

    @torch.no_grad()
    def recall(self, school: School, count: int) -> dict[str, float]:
        """Of held-out photos and articles: the share of the answers with all names right, and no other."""
        self.model.eval()
        figures = {}
        several = ((kind, scenes) for kind in ("find", "name", "caption") for scenes in (1, 2, 3))
        for kind, scenes in (("see", 1), ("match", 1), *several):
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
            answers = self._recited(batch) if kind == "find" else self._answered(batch)
            right = [
                meaning(kind, lesson.target) == meaning(kind, answer)
                for lesson, answer in zip(asked, answers, strict=True)
            ]
            figures[f"{kind}_{scenes}"] = round(sum(right) / len(right), 3)
        self.model.train()
        return figures

    def _answered(self, batch: dict[str, Any]) -> list[str]:
        samples = {"features": self.model.encode_images(self.pixels(batch["image"]))}
        samples |= {key: batch[key] for key in ("instruction", "question")}
        return self.model.generate(samples, num_beams=1, max_length=80)

    def _recited(self, batch: dict[str, Any]) -> list[str]:
        tokenizer = self.model.tokenizer
        rows = [Tokens(prompt) for prompt in self.model.prompts(batch["instruction"])]
        prompts = pad(rows, tokenizer.pad_token_id, self.device, left=True)
        written = self.model.language_model.generate(
            input_ids=prompts.ids,
            attention_mask=prompts.mask,
            max_new_tokens=100,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        answers = tokenizer.batch_decode(written[:, prompts.ids.shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def meaning(kind: str, answer: str) -> set[str]:
    """What must be right of an answer: whom it names, in a caption before the firm; else all of it."""
    if kind == "caption":
        answer = answer.split(" of ")[0].split(" in ")[0]
    return {answer} if kind in ("see", "match") else set(answer.split(" and "))


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # forked processes that tokenise would wait for ever
    options = parsed()
    options.until = min(options.until or options.steps, options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    train = School("train", options.articles, options.seed, options.out, options.workers)
    asked = min(150, options.articles)
    held_out = School("held-out", asked, options.seed, options.out, options.workers)
    training = Training(options)
    started, losses = time.monotonic(), dict[str, list[Tensor]]()
    steps = Timetable(train, options, training.model).since(training.step)
    bar = tqdm(steps, "Pre-training", initial=training.step, total=options.until, unit="step")
    for texts, seen in bar:
        for name, value in training.learn(texts, seen).items():
            losses.setdefault(name, []).append(value)
        ended = training.step == options.until
        if training.step % SAVED == 0 or ended:
            training.save()
        if training.step % EVERY and not ended:
            continue
        record: dict[str, Any] = {"step": training.step, "seconds": round(time.monotonic() - started)}
        record["tokens"] = int(sum(losses.pop("tokens")))  # since the last line
        record |= {
            name: round(float(sum(values)) / len(values), 4)
            for name, values in losses.items()
            if name.startswith("loss_")
        }
        losses.clear()
        if training.step % RECALLED == 0 or ended:
            record |= training.recall(held_out, options.asked)
        with open(options.out / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
        bar.write(json.dumps(record))
    weights = options.out / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    processor = ImageProcessor(SIDE)
    export(training.model.half().cpu(), weights, mean=processor.mean, std=processor.std)
    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    print(f"{weights}: sha256 of model.safetensors {digest}")


if __name__ == "__main__":
    sys.exit(run_and_report(main))
