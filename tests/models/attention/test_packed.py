"""Packed, padded and grouped batches: one arithmetic, three ways to run it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ealign_plugin.errors import UserError
from ealign_plugin.models import forwards
from ealign_plugin.models.attention import packed as packing
from ealign_plugin.models.batching import Tokens
from tests.models.attention.factories import MODES, UNLIKE, batch_of, losses_and_gradients, seeded


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
        assert alone["loss"].item() == pytest.approx(together[f"loss_{task}"].item(), rel=1e-6)


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
