"""One training step in this process, and the same one shared by two: models, batches, steps, answers."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.base import NewsModel
from ealign_plugin.training.accumulation import accumulate
from ealign_plugin.training.optimizer import parameter_groups
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.sharding import unsharded, wrap

CPU = torch.device("cpu")
PLAIN = Precision(False, CPU)
WORDS = "The mayor spoke in the harbour of Oslo where police had closed two streets".split()
# Words of instruction and target; the halves, and the quarters of a half, have unlike numbers of tokens.
LENGTHS = [(30, 9), (4, 1), (11, 0), (0, 6), (9, 2), (4, 1), (7, 0), (12, 1)]


def samples(rows: range = range(len(LENGTHS))) -> dict[str, Any]:
    def text(count: int) -> str:
        return " ".join(WORDS[i * count % len(WORDS)] for i in range(count))

    images = torch.randn(len(LENGTHS), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {
        "image": images[list(rows)],
        "instruction": [text(LENGTHS[row][0]) for row in rows],
        "target": [text(LENGTHS[row][1]) for row in rows],
        "question": ["Who?" for _ in rows],
        "task": ["ab"[row % 2] for row in rows],
    }


def batches(process: int, processes: int, count: int) -> list[dict[str, Any]]:
    """``count`` batches for one of the processes, which share all samples."""
    size = len(LENGTHS) // processes // count
    start = process * size * count
    return [samples(range(start + i * size, start + (i + 1) * size)) for i in range(count)]


def build(seed: int = 0, family: type[NewsModel] = InstructBlip, **changes: Any) -> NewsModel:
    torch.manual_seed(seed)
    config = OmegaConf.load(family.default_config_path("micro")).model
    return family.from_config(OmegaConf.merge(config, {"batching": "packed"}, changes))


def full(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    named = [(name.removeprefix("module."), parameter) for name, parameter in model.named_parameters()]
    return {name: full(parameter.grad) for name, parameter in named if parameter.grad is not None}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): full(value) for name, value in model.named_parameters()}


LORA = {"trainable": "lora", "lora": {"dropout": 0.0}}


def steps_of_half(kind: str, amp: bool | str, param_dtype: torch.dtype | None = None, **changes: Any) -> Any:
    """An evaluation, two steps, an evaluation, a step; their norms, the weights, the answers."""
    model = wrap(build(dist.get_rank(), **changes), kind, CPU, param_dtype=param_dtype)
    own = batches(dist.get_rank(), 2, 2)
    with unsharded(model) as plain:
        before = answers(plain, calls=1 + dist.get_rank())
    norms = train(model, own, Precision(amp, CPU), steps=2)
    with unsharded(model) as plain:
        after = answers(plain, calls=2 - dist.get_rank())
    norms += train(model, own, Precision(amp, CPU), steps=1)
    return norms, weights(model), (before, after)


def train(model: nn.Module, own: list[Any], precision: Precision, steps: int) -> list[torch.Tensor]:
    unwrapped = model.module if hasattr(model, "module") else model
    # With the usual eps the first steps are the gradients' signs, and the smallest differences decide.
    optimizer = torch.optim.AdamW(parameter_groups(unwrapped, 1e-3, 0.05), lr=1e-3, eps=1e-3, fused=True)
    norms = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        step = accumulate(model, own, model, precision)
        done = precision.step(optimizer, model.parameters(), clip=0.5)
        assert not (step.bad or step.stop or done.skipped)
        norms.append(done.norm)
    return norms


@torch.no_grad()
def answers(model: NewsModel, calls: int) -> Any:
    """Scores, texts, a loss; how often is up to each process."""
    model.eval()
    for _ in range(calls):
        features = model.encode_images(samples()["image"][:1])
        scores = model.score(features, "Is it", [" so?", " so late?"], ["yes", "no it is not"])
        texts = model.generate(samples(range(3)), num_beams=2, max_length=4)
        loss = model(samples())["loss"]
    return scores, loss, texts
