"""One step of two processes is that of one process with all of the batch, wrapped this way or that."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip, Llava
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


# Two processes

Pair = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """``pair(function, ...)``: what it returns in each of two processes, which form a group."""
    meeting = tmp_path_factory.mktemp("pair") / "meeting"
    pools = [
        ProcessPoolExecutor(1, get_context("spawn"), initializer=meet, initargs=(rank, meeting))
        for rank in range(2)
    ]

    def run(function: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
        return [one.result(150) for one in [pool.submit(function, *args, **options) for pool in pools]]

    run(dist.get_rank)
    yield run
    for pool in pools:
        pool.shutdown()


def meet(rank: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=100)
    )


def gradients_of_half(kind: str, count: int, **changes: Any) -> dict[str, torch.Tensor]:
    """As LAVIS seeds them, the processes have other random weights before they are wrapped."""
    model = wrap(build(dist.get_rank(), **changes), kind, CPU)
    accumulate(model, batches(dist.get_rank(), 2, count), model, PLAIN)
    return gradients(model)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_with_half_the_batch_each_give_the_gradients_of_one(pair, kind, reduction, count):
    model = build(loss_reduction=reduction)
    model(samples())["loss"].backward()
    wanted = gradients(model)
    for found in pair(gradients_of_half, kind, count, loss_reduction=reduction):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_means_of_means_would_be_something_else():
    model = build(loss_reduction="token")
    accumulate(model, batches(0, 1, 2), lambda batch: {"loss": model(batch)["loss"]}, PLAIN)
    found = gradients(model)
    model = build(loss_reduction="token")
    accumulate(model, batches(0, 1, 2), model, PLAIN)
    other = (found[name] - value for name, value in gradients(model).items())
    assert max(difference.abs().max() for difference in other) > 1e-3


# Steps and evaluations


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


LORA = {"trainable": "lora", "lora": {"dropout": 0.0}}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("ddp", {"trainable": "connector+llm"}),
        ("fsdp", {}),
        ("fsdp", {"batching": "padded", "gradient_checkpointing": True}),
        ("fsdp", {"family": Llava, "trainable": "connector+llm"}),
        ("fsdp", {"trainable": "connector"}),
        ("fsdp", LORA),
    ],
)
def test_steps_and_evaluations_are_those_of_one_process(pair, kind, changes):
    model = build(**changes)
    frozen = {name: full(p) for name, p in model.named_parameters() if not p.requires_grad}
    before = answers(model, 1)
    norms = train(model, [samples()], PLAIN, steps=2)
    after = answers(model, 1)
    norms += train(model, [samples()], PLAIN, steps=1)
    for found in pair(steps_of_half, kind, False, **changes):
        torch.testing.assert_close(found[0], norms, rtol=1e-4, atol=0)
        torch.testing.assert_close(found[1], weights(model), rtol=0, atol=1e-5)
        for one, other in zip(found[2], (before, after), strict=True):
            torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=1e-4)
            assert one[2] == other[2]
        assert all(torch.equal(found[1][name], value) for name, value in frozen.items())


@pytest.mark.parametrize(
    ("amp", "param_dtype", "changes"),
    [
        ("bf16", None, {**LORA, "dtype": "bf16"}),
        ("bf16", None, {"trainable": "connector", "dtype": "bf16", "vision_dtype": "bf16"}),
        ("fp16", None, {"trainable": "connector"}),
        (False, torch.bfloat16, {}),
    ],
)
def test_half_precision_beside_full_precision_can_be_sharded(pair, amp, param_dtype, changes):
    model = build(**changes)
    norms = train(model, [samples()], PLAIN, steps=2)
    loss = answers(model, 1)[1]
    for found in pair(steps_of_half, "fsdp", amp, param_dtype, **changes):
        torch.testing.assert_close(found[0][:2], norms, rtol=0.05, atol=0)
        torch.testing.assert_close(found[2][1][1].float(), loss, rtol=0.02, atol=0)
        types = {name: value.dtype for name, value in found[1].items()}
        assert types == {name: value.dtype for name, value in model.named_parameters()}


def weights_not_here(kind: str) -> float:
    model = wrap(build(), kind, CPU)
    local = (getattr(parameter, "_local_tensor", parameter) for parameter in model.parameters())
    return sum(map(torch.numel, local)) / sum(map(torch.numel, build().parameters()))


def test_each_process_holds_its_share(pair):
    assert pair(weights_not_here, "ddp") == [1, 1]
    assert pair(weights_not_here, "fsdp") == pytest.approx([0.5, 0.5], abs=0.01)


# One process


def test_one_batch_in_one_process_is_plain_backward():
    model, plain = build(), build()
    output = plain(samples())
    output["loss"].backward()
    step = accumulate(model, [samples()], model, PLAIN)
    assert all(torch.equal(value, gradients(plain)[name]) for name, value in gradients(model).items())
    assert all(torch.equal(value, output[name]) for name, value in step.outputs[0].items())
    assert step[1:] == (output["weight"], False, False)
    assert not step.outputs[0]["loss"].requires_grad


@pytest.mark.parametrize("count", [2, 8])
def test_batches_of_one_process_are_one_batch(count):
    model, plain = build(), build()
    plain(samples())["loss"].backward()
    step = accumulate(model, batches(0, 1, count), model, PLAIN)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=0, atol=1e-6)
    assert len(step.outputs) == count and step.weight == len(LENGTHS)


def test_a_model_that_knows_no_weights_counts_batches():
    model = nn.Linear(3, 1, bias=False)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    step = accumulate(model, list(x), lambda batch: {"loss": model(batch).mean()}, PLAIN)
    torch.testing.assert_close(model.weight.grad[0], x.mean((0, 1)))
    assert step.weight == 2


def test_alone_a_model_is_only_moved():
    model = nn.Linear(3, 1)
    assert wrap(model, "fsdp", CPU) is model and type(model) is nn.Linear
    with unsharded(model) as plain:
        assert plain is model


# What processes tell each other


def told(kind: str, stop: tuple[bool, bool], losses: tuple[list[float], list[float]]) -> list[tuple]:
    rank = dist.get_rank()
    model = wrap(nn.Linear(1, 1), kind, CPU)
    own = [torch.tensor([[value]]) for value in losses[rank]]
    return accumulate(model, own, lambda x: {"loss": model(x).sum()}, PLAIN, stop=stop[rank])[1:]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("stop", "losses", "answer"),
    [
        ((False, False), ([1.0], [1.0]), (2, False, False)),
        ((False, True), ([1.0, 1.0], [1.0, 1.0]), (4, False, True)),
        ((False, False), ([math.nan, 1.0], [1.0, 1.0]), (4, True, False)),
        ((True, False), ([1.0], [math.inf]), (2, True, True)),
    ],
)
def test_all_hear_of_a_signal_and_of_a_loss_that_is_not_finite(pair, kind, stop, losses, answer):
    assert pair(told, kind, stop, losses) == [answer, answer]


# fp16


def overflow(kind: str) -> Any:
    """Two steps; in the first, gradients of the last process overflow, whose losses are finite."""
    rank, last = (dist.get_rank(), dist.get_world_size() - 1) if dist.is_initialized() else (0, 0)
    torch.manual_seed(0)
    model = wrap(nn.Linear(3, 4), kind, CPU)
    first = weights(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    precision = Precision("fp16", CPU)
    found = []
    for factor in (1e36 if rank == last else 0.1, 0.1):
        optimizer.zero_grad(set_to_none=True)
        loss = partial(lambda factor, x: {"loss": model(x).float().sum() * factor}, factor)
        step = accumulate(model, [torch.ones(2, 3)] * 2, loss, precision)
        done = precision.step(optimizer, model.parameters(), clip=1.0)
        same = all(torch.equal(value, first[name]) for name, value in weights(model).items())
        found.append((step.bad, done.skipped, same))
    return found, precision.state_dict()["scale"]


def test_a_step_that_overflows_fp16_is_skipped_by_all(pair):
    wanted = [(False, True, True), (False, False, False)], 2.0**15
    assert [overflow("ddp"), *pair(overflow, "ddp"), *pair(overflow, "fsdp")] == [wanted] * 5


def test_a_resumed_run_goes_on_with_its_scale():
    precision, other = Precision("fp16", CPU), Precision("fp16", CPU)
    precision.scaler.scale(torch.ones(1))
    precision.scaler.update(2.0**7)
    state = json.loads(json.dumps(precision.state_dict()))
    other.load_state_dict(state)
    assert other.scaler.get_scale() == 2.0**7
    other.load_state_dict(PLAIN.state_dict())  # of a run in another precision
    assert other.scaler.get_scale() == 2.0**7
    Precision(True, CPU).load_state_dict(state)


@pytest.mark.parametrize(
    ("amp", "dtype"),
    [
        *[(False, torch.float32), (None, torch.float32)],
        *[(True, torch.bfloat16), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
    ],
)
def test_forward_passes_compute_in_the_type_that_was_asked_for(amp, dtype):
    with Precision(amp, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


# Bad options


def refusal(kind: str, make: Callable[[], nn.Module]) -> str:
    try:
        wrap(make(), kind, CPU)
    except UserError as error:
        return str(error)
    return ""


def whole_numbers() -> nn.Module:
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(build, batching="groups"), "beside model.batching 'groups' and model.max_tokens None, by"),
        (partial(build, max_tokens=99), "beside model.batching 'packed' and model.max_tokens 99, by"),
        (whole_numbers, "beside model.quantize, whose 4-bit weights cannot be sharded; 'ddp' expected"),
    ],
)
def test_what_cannot_be_sharded(pair, make, message):
    for found in pair(refusal, "fsdp", make):
        assert found.startswith(f"run.parallel: 'fsdp' found {message}")
    assert pair(refusal, "ddp", make) == ["", ""]


def test_unknown_values():
    with pytest.raises(UserError, match="run.parallel: 'fsdp2' found; 'ddp' or 'fsdp' expected"):
        wrap(nn.Linear(1, 1), "fsdp2", CPU)
    with pytest.raises(UserError, match="run.amp: 'int8' found; false, true, 'bf16' or 'fp16' expected"):
        Precision("int8", CPU)
