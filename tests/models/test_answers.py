"""Scores of answers, and answers written by beams or by sampling, with the micro model."""

from typing import Any

import pytest
import torch

from ealign_plugin.models import InstructBlip
from tests.models.factories import outputs_of_generate

# Score


def test_without_candidates_or_answers_there_are_no_scores(model, samples):
    features = model.encode_images(samples["image"][:1])
    assert model.score(features, "Is it so?", [], ["yes", "no"]).shape == (0, 2)
    assert model.score(features, "Is it so?", ["It is."], []).shape == (1, 0)


@pytest.mark.parametrize("batch_tokens", [1, 16_384])
def test_an_empty_answer_is_certain(model, samples, batch_tokens):
    features = model.encode_images(samples["image"][:1])
    scores = model.score(features, "Is it so?", ["It is.", "No."], ["", "yes"], batch_tokens=batch_tokens)
    assert scores[:, 0].tolist() == [0, 0]
    assert (scores[:, 1] < 0).all()


def test_batch_tokens_bounds_a_forward(model, samples):
    sizes: list[int] = []
    candidates = [f" {n} came." + " The mayor left." * (3 + n % 2) for n in range(11)]
    with model.language_model.model.register_forward_hook(
        lambda *call: sizes.append(call[-1].last_hidden_state.shape[:2].numel())
    ):
        model.score(
            model.encode_images(samples["image"][:1]), "So?", candidates, ["y", "n"], batch_tokens=150
        )
    assert max(sizes) <= 150
    assert 1 < len(sizes) < len(candidates)


# Generate


def lengths_written(model: InstructBlip, samples: Any, **options: Any) -> list[int]:
    """New tokens of each answer, those that end a row not counted."""
    stop = (model.tokenizer.eos_token_id, model.tokenizer.pad_token_id)
    with outputs_of_generate(model) as outputs:
        model.generate(samples, **options)
    return [sum(token not in stop for token in row) for output in outputs for row in output.tolist()]


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 5}, {"num_beams": 3, "num_captions": 2}])
def test_a_batch_gives_what_its_members_give_alone(model, samples, rows_of, options):
    samples["instruction"][0] *= 3  # so long that it runs by itself
    samples = rows_of(samples, [3, 1, 0, 2])
    together = model.generate(samples, max_length=10, **options)
    alone = [
        answer
        for row in range(4)
        for answer in model.generate(rows_of(samples, [row]), max_length=10, **options)
    ]
    assert together == alone
    assert len(set(together)) > 1


def test_features_do_for_images(model, samples):
    wanted = model.generate(samples, num_beams=1, max_length=10)
    features = {"features": model.encode_images(samples["image"]), "instruction": samples["instruction"]}
    assert model.generate(features, num_beams=1, max_length=10) == wanted


def test_lavis_s_prompt(model, samples):
    """One string for all, a list, or none."""
    images = samples["image"][:2]
    one = model.generate({"image": images, "prompt": "Who?"}, num_beams=1, max_length=6)
    each = model.generate({"image": images, "instruction": ["Who?", "Who?"]}, num_beams=1, max_length=6)
    assert one == each
    none = model.generate({"image": images}, num_beams=1, max_length=6)
    assert len(none) == 2 and none != one


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 4}, {"use_nucleus_sampling": True}])
def test_min_and_max_length_count_new_tokens(model, samples, push, options):
    push(model.tokenizer.eos_token_id, 60.0)  # it would stop at once
    assert lengths_written(model, samples, min_length=7, **options) == [7] * 4
    push(model.tokenizer.eos_token_id, -120.0)  # it would never stop
    assert lengths_written(model, samples, max_length=9, **options) == [9] * 4


def test_num_captions(model, samples, rows_of):
    """Those of an example stand together, the best beam first."""
    several = model.generate(samples, num_beams=4, num_captions=3, max_length=8)
    assert len(several) == 12
    assert several[::3] == model.generate(samples, num_beams=4, max_length=8)
    assert all(len(set(several[i : i + 3])) == 3 for i in range(0, 12, 3))
    assert len(model.generate(samples, use_nucleus_sampling=True, num_captions=3, max_length=8)) == 12


def test_repetition_penalty(model, samples):
    asked = {**samples, "instruction": ["Who?"] * 4}
    with outputs_of_generate(model) as ids:
        for penalty in (1.0, 50.0):
            model.generate(asked, num_beams=1, max_length=16, repetition_penalty=penalty)
    free, penalised = ([len(set(row)) for row in batch.tolist()] for batch in ids)
    assert max(free) < 16
    assert penalised == [16] * 4


def test_length_penalty_favours_long_answers(model, samples, push):
    push(model.tokenizer.eos_token_id, 3.0)
    short, long = (
        lengths_written(model, samples, num_beams=5, max_length=20, length_penalty=penalty)[-4:]
        for penalty in (-5.0, 5.0)
    )
    assert all(a <= b for a, b in zip(short, long, strict=True)) and sum(short) < sum(long)


def sample(model: InstructBlip, samples: dict[str, Any], seed: int, **options: Any) -> list[str]:
    torch.manual_seed(seed)
    return model.generate(samples, use_nucleus_sampling=True, max_length=8, **options)


def test_nucleus_sampling_follows_the_seed(model, samples):
    assert sample(model, samples, 1) == sample(model, samples, 1)
    assert sample(model, samples, 1) != sample(model, samples, 2)


def test_a_narrow_nucleus_or_no_temperature_is_greedy(model, samples):
    greedy = model.generate(samples, num_beams=1, max_length=8)
    assert sample(model, samples, 1, top_p=1e-6) == greedy
    assert sample(model, samples, 1, temperature=1e-6) == greedy


def test_the_nucleus_alone_bounds_the_choice(model, samples, rows_of):
    """transformers' top_k of 50 stays out of it."""
    torch.manual_seed(0)
    answers = model.generate(
        rows_of(samples, [0]),
        use_nucleus_sampling=True,
        top_p=1.0,
        temperature=50.0,
        max_length=1,
        num_captions=300,
    )
    assert len(set(answers)) > 100
