"""Packed, padded and grouped batches: one arithmetic, three ways to run it."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip, forwards
from ealign_plugin.models.attention import interface, rows
from ealign_plugin.models.attention import packed as packing
from ealign_plugin.models.batching import Tokens

CONFIG = OmegaConf.load(InstructBlip.default_config_path("micro")).model
CONFIG.text_config.num_key_value_heads = 2  # two query heads share a key head
CONFIG.text_config.num_hidden_layers = 2
MODES = ("groups", "padded", "packed")
WORDS = "The mayor spoke in the harbour of Oslo where police had closed two streets".split()


@pytest.fixture(scope="module")
def models() -> dict[str, InstructBlip]:
    """The same weights, run in the three ways."""
    return {mode: seeded(batching=mode) for mode in MODES}


def seeded(**changes: Any) -> InstructBlip:
    torch.manual_seed(0)
    return InstructBlip.from_config(OmegaConf.merge(CONFIG, changes)).eval()


def batch_of(lengths: list[tuple[int, int]]) -> dict[str, Any]:
    """Examples with so many words of instruction and of target."""

    def text(count: int) -> str:
        return " ".join(WORDS[i * count % len(WORDS)] for i in range(count))

    return {
        "image": torch.randn(len(lengths), 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        "instruction": [text(words) for words, _ in lengths],
        "target": [text(words) for _, words in lengths],
        "question": ["Who?"] * len(lengths),
        "task": [f"{number:02}" for number in range(len(lengths))],
    }


UNLIKE = [(90, 12), (4, 1), (11, 0), (0, 3), (30, 2), (4, 7)]


def losses_and_gradients(model: InstructBlip, samples: dict[str, Any]) -> tuple[Any, Any]:
    model.zero_grad()
    output = model(samples)
    output["loss"].backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}


class Calls:
    """How often a module ran, and on how many tokens (padding included)."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.tokens: list[int] = []
        self.handle = module.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, _: Any, args: Any, options: Any) -> None:
        hidden = args[0] if args else options.get("hidden_states", options.get("inputs_embeds"))
        self.tokens.append(hidden.shape[:2].numel())

    def __enter__(self) -> list[int]:
        return self.tokens

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()


# The pack


@given(st.lists(st.integers(1, 40), max_size=20), st.none() | st.integers(1, 60))
def test_every_row_is_in_one_forward_of_bounded_size(lengths, most):
    groups = packing.bins(lengths, most)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert most is None or len(group) == 1 or sum(lengths[index] for index in group) <= most


def test_rows_lie_end_to_end_with_their_image_tokens():
    before, images = torch.tensor([[7.0]]), torch.tensor([[[1.0], [1.0]], [[2.0], [2.0]]])
    rows = [Tokens([10, 11], [12, 13]), Tokens([14], [15])]
    texts = torch.tensor([[float(token)] for row in rows for token in row.prompt + row.target])
    packed = packing.pack(before, images, texts, rows)
    assert packed.embeds[0, :, 0].tolist() == [7, 1, 1, 10, 11, 12, 13, 7, 2, 2, 14, 15]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]]
    assert packed.lengths == (7, 5)
    assert packed.embeds[0, packed.places, 0].tolist() == [11, 12, 14]  # each predicts the next one
    assert (packed.labels.tolist(), packed.owner.tolist()) == ([12, 13, 15], [0, 0, 1])


# Equality


@settings(
    derandomize=True,
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), min_size=1, max_size=6))
def test_the_three_ways_give_the_same_losses_and_gradients(models, lengths):
    samples = batch_of(lengths)
    wanted = losses_and_gradients(models["groups"], samples)
    for mode in ("padded", "packed"):
        torch.testing.assert_close(losses_and_gradients(models[mode], samples), wanted, rtol=0, atol=1e-5)


def test_tokens_in_front_of_the_image_are_read_in_every_way(models, rows_of, monkeypatch):
    """As LLaVA's "USER: "."""
    samples, results = batch_of(UNLIKE), []
    plain = models["groups"](samples)
    for model in models.values():
        monkeypatch.setattr(model, "before", [5, 6])
        features = model.encode_images(samples["image"][:1])
        scores = [
            model.score(features, "Is it", [" so?", ""], answers) for answers in (["a", "b"], ["yes a"])
        ]
        results.append((losses_and_gradients(model, samples), scores))
        texts = model.generate(samples, max_length=4)
        assert texts == [model.generate(rows_of(samples, [row]), max_length=4)[0] for row in range(6)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-5)
    output = results[0][0][0]
    assert output["tokens"] == plain["tokens"] + 2 * len(UNLIKE)
    assert (output["loss"] - plain["loss"]).abs() > 1e-4


def test_they_run_as_they_say(models):
    samples = batch_of(UNLIKE)
    sizes = {}
    for mode, model in models.items():
        with Calls(model.language_model.model) as sizes[mode]:
            model(samples)
    tokens = int(models["packed"](samples)["tokens"]) + 8 * len(UNLIKE)
    assert sizes["packed"] == [tokens]
    assert len(sizes["padded"]) == 1 and sizes["padded"][0] > 2 * tokens
    assert len(sizes["groups"]) > 1 and tokens <= sum(sizes["groups"]) < sizes["padded"][0]


def test_the_loss_of_an_example_does_not_depend_on_its_neighbours(models, rows_of):
    samples = batch_of(UNLIKE)
    together = models["packed"](samples)
    for row, task in enumerate(samples["task"]):
        alone = models["packed"](rows_of(samples, [row]))
        assert alone["loss"].item() == pytest.approx(together[f"loss_{task}"].item(), abs=1e-6)


@pytest.mark.parametrize("most", [1, 60, 150])
@pytest.mark.parametrize("mode", ["groups", "packed"])
def test_a_token_budget_splits_a_batch_and_changes_nothing(models, monkeypatch, mode, most):
    samples = batch_of(UNLIKE)
    wanted = losses_and_gradients(models["packed"], samples)
    model = models[mode]
    monkeypatch.setattr(model, "max_tokens", most)
    with Calls(model.language_model.model) as sizes:
        found = losses_and_gradients(model, samples)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    texts = zip(model.prompts(samples["instruction"]), model.targets(samples["target"]), strict=True)
    lengths = [8 + len(prompt) + len(target) for prompt, target in texts]
    assert len(sizes) > 1
    # What is over the limit is a single example that is.
    assert sorted(size for size in sizes if size > most) == sorted(n for n in lengths if n > most)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_checkpointing_computes_layers_twice_and_the_same(models, mode):
    samples = batch_of(UNLIKE)
    wanted = losses_and_gradients(models[mode], samples)
    model = seeded(batching=mode, gradient_checkpointing=True).train()
    with Calls(model.language_model.model.layers[0].mlp) as calls:
        found = losses_and_gradients(model, samples)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    with Calls(models[mode].language_model.model.layers[0].mlp) as once:
        models[mode](samples)
    assert len(calls) == 2 * len(once)


def test_under_bfloat16_autocast_it_stays_close(models):
    samples = batch_of(UNLIKE)
    plain, _ = losses_and_gradients(models["packed"], samples)
    with torch.autocast("cpu", torch.bfloat16):
        half, gradients = losses_and_gradients(models["packed"], samples)
        groups, _ = losses_and_gradients(models["groups"], samples)
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)
    torch.testing.assert_close(half, groups, rtol=0.02, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_language_model_in_bfloat16(models):
    model = seeded(batching="packed")
    model.language_model.bfloat16()
    samples = batch_of(UNLIKE)
    torch.testing.assert_close(model(samples)["loss"], models["groups"](samples)["loss"], rtol=0.02, atol=0)


@pytest.mark.parametrize("answers", [["yes", "no"], ["Ana Lopez", ""]])
def test_scores_and_answers_are_those_of_groups(models, answers):
    samples = batch_of(UNLIKE)
    scores, texts = [], []
    for mode in ("groups", "packed"):
        features = models[mode].encode_images(samples["image"][:1])
        scores.append(models[mode].score(features, "Is it", [" so?", ""], answers, batch_tokens=60))
        texts.append(models[mode].generate(samples, num_beams=2, max_length=6))
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)
    assert texts[0] == texts[1]


def test_weights_bear_the_same_names(models):
    assert len({tuple(model.state_dict()) for model in models.values()}) == 1


# Memory


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for item in output if isinstance(output, tuple | list) else [output]:
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.numel())
        return output


def test_no_mask_of_the_whole_pack_is_made():
    """4000 tokens of rows of 500: nothing is as large as [T, T], not even as 1/8 of it."""
    model = seeded(batching="packed", max_output_txt_len=8)
    samples = batch_of([(520, 3)] * 8)
    with Largest() as largest:
        output = model(samples)
        output["loss"].backward()
    tokens = int(output["tokens"]) + 8 * 8
    assert tokens > 4000
    assert 4000 * 128 <= largest.elements <= tokens * tokens / 8


# Kernels and versions


def reference(q: Any, k: Any, v: Any, starts: torch.Tensor, longest: int, scaling: float) -> torch.Tensor:
    """Stands in for a GPU's kernel: [T, H, d] and offsets, by softmax of each row's products."""
    bounds = starts.tolist()
    assert starts.dtype == torch.int32 and longest == max(b - a for a, b in pairwise(bounds))
    rows = []
    for a, b in pairwise(bounds):
        weights = torch.einsum("qhd,khd->hqk", q[a:b], k[a:b]) * scaling
        weights = weights.masked_fill(torch.ones(b - a, b - a).triu(1).bool(), -torch.inf)
        rows.append(torch.einsum("hqk,khd->qhd", weights.softmax(-1), v[a:b]))
    return torch.cat(rows)


def test_a_variable_length_kernel_takes_the_place_of_the_rows(models, monkeypatch):
    samples = batch_of(UNLIKE)
    wanted = losses_and_gradients(models["packed"], samples)
    calls = []
    monkeypatch.setattr(rows, "half_precision", lambda query: query.dtype)
    monkeypatch.setattr(rows, "kernel_for", lambda device: lambda *args: calls.append(1) or reference(*args))
    found = losses_and_gradients(models["packed"], samples)
    assert len(calls) == 2  # layers
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def flash_attn_varlen_func(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """The arguments of flash_attn's function of this name."""
    assert cu_seqlens_q is cu_seqlens_k and max_seqlen_q == max_seqlen_k and causal and not dropout_p
    return reference(q, k, v, cu_seqlens_q, max_seqlen_q, softmax_scale or 0)


def varlen_attn(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """The arguments of torch's function of this name, from 2.11 on."""
    assert cu_seq_q is cu_seq_k and max_q == max_k and window_size == (-1, 0)
    return reference(query, key, value, cu_seq_q, max_q, scale or 0)


@pytest.mark.parametrize(
    ("module", "function", "kernel"),
    [
        ("flash_attn", flash_attn_varlen_func, rows.flash_kernel),
        ("torch.nn.attention.varlen", varlen_attn, rows.torch_kernel),
    ],
)
def test_kernels_are_called_by_their_own_argument_names(monkeypatch, module, function, kernel):
    stand_in = ModuleType(module)
    setattr(stand_in, function.__name__, function)
    monkeypatch.setitem(sys.modules, module, stand_in)
    kernel.cache_clear()
    q, k, v = torch.randn(3, 9, 2, 8)
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    found = kernel()(q, k, v, starts, 5, 0.3)
    kernel.cache_clear()
    torch.testing.assert_close(found, reference(q, k, v, starts, 5, 0.3))


def test_torch_s_kernel_takes_such_a_call():
    """Its shapes only: it runs on GPUs."""
    rows.torch_kernel.cache_clear()
    kernel = rows.torch_kernel()
    if kernel is None:
        pytest.skip("this torch has no such kernel")
    q, k, v = torch.empty(3, 9, 2, 8, device="meta", dtype=torch.bfloat16)
    starts = torch.empty(3, device="meta", dtype=torch.int32)
    assert kernel(q, k, v, starts, 5, 0.3).shape == (9, 2, 8)


def test_half_precision_is_known_from_the_tensor_or_from_autocast():
    query = torch.zeros(1)
    assert rows.half_precision(query) is None
    assert rows.half_precision(query.bfloat16()) == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert rows.half_precision(query) == torch.bfloat16
    assert rows.kernel_for(query.device) is None


@pytest.fixture
def light_compiler(monkeypatch) -> Iterator[list[str]]:
    """torch.compile that traces, but generates no code; notes what it compiles."""
    calls: list[str] = []
    real = torch.compile

    def light(function: Any, **options: Any) -> Any:
        compiled = real(function, backend="eager", **options)
        return lambda module, **inputs: calls.append(type(module).__name__) or compiled(module, **inputs)

    forwards.compiled_call.cache_clear()
    monkeypatch.setattr(torch, "compile", light)
    yield calls
    forwards.compiled_call.cache_clear()


def test_torch_compile_changes_nothing_and_leaves_writing_alone(models, light_compiler):
    model = seeded(batching="packed", compile=True)
    samples = batch_of(UNLIKE[1:4])
    found, wanted = (losses_and_gradients(each, samples) for each in (model, models["packed"]))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert model.generate(samples, max_length=3) == models["packed"].generate(samples, max_length=3)
    assert light_compiler == ["LlamaModel"]
    assert list(model.state_dict()) == list(models["packed"].state_dict())


def test_layers_that_lose_the_row_lengths_are_caught():
    query = torch.zeros(1, 4, 6, 8)
    with pytest.raises(RuntimeError, match="Identity does not hand row_lengths on"):
        interface.attention(torch.nn.Identity(), query, query, query, torch.zeros(1, 1, 1, 1))


class Older(ModuleType):
    """transformers as it was before attention could be registered."""

    def __getattr__(self, name: str) -> Any:
        if name == "AttentionInterface":
            raise AttributeError(name)
        return getattr(transformers, name)


@contextmanager
def old_transformers(monkeypatch) -> Iterator[None]:
    """Inside, models are built as with that version."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", Older("transformers"))
        forget_the_version()
        yield
    forget_the_version()


def forget_the_version() -> None:
    for once in (interface.register, packing.can_pack):
        once.cache_clear()


def test_without_a_place_for_our_attention_it_says_so_once_and_groups(models, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING), old_transformers(monkeypatch):
        ours = [seeded(batching="packed") for _ in range(2)]
    assert [model.batching for model in ours] == ["groups", "groups"]
    assert [record.getMessage() for record in caplog.records if record.name == packing.__name__] == [
        "model.batching: packed needs transformers 4.51 or later; batching in groups instead"
    ]
    samples = batch_of(UNLIKE)
    torch.testing.assert_close(ours[0](samples), models["groups"](samples), rtol=0, atol=1e-6)
    assert not interface.can_share(ours[0].language_model)
    features = ours[0].encode_images(samples["image"][:1])
    asked = (features, "Is it", [" so?", ""], ["yes", "no"])
    torch.testing.assert_close(ours[0].score(*asked), models["groups"].score(*asked), rtol=0, atol=1e-5)
    assert ours[0].generate(samples, max_length=4) == models["groups"].generate(samples, max_length=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batching": "sorted"}, "model.batching: 'sorted' found; one of groups, packed, padded expected"),
        (
            {"batching": "packed", "attn_implementation": "eager"},
            "model.attn_implementation: 'eager' found beside model.batching packed; 'sdpa' or null expected",
        ),
        ({"attn_implementation": "fast"}, "model.attn_implementation: 'fast' found, which transformers"),
        ({"max_tokens": 0}, "model.max_tokens: 0 found; at least 1 expected"),
        (
            {"batching": "packed", "text_config": {"model_type": "bloom"}},
            "model.batching: 'packed' found, which transformers refuses for a bloom here (",
        ),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(UserError) as error:
        seeded(**changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
