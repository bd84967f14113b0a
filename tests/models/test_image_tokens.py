"""Image tokens: made once for all examples of a batch that share an image, or an image and a question."""

import torch

from ealign_plugin.models.image_tokens import image_tokens_of
from tests.messages import message_of


def test_an_image_is_encoded_once_for_all_its_examples(model, samples):
    samples["image"][2] = samples["image"][0]
    plain = model(samples)
    sizes: list[int] = []
    with model.vision_model.register_forward_hook(
        lambda *call: sizes.append(len(call[-1].last_hidden_state))
    ):
        keyed = model({**samples, "key": ["p", "q", "p", "r"]})
    assert sizes == [3]
    torch.testing.assert_close(keyed, plain, rtol=0, atol=1e-6)


def test_gradients_of_shared_images_are_added_up_in_one_order(model, samples):
    """On a CPU, what [...] selects is added up by threads that race; it shows once in thousands of steps."""
    shared = {**samples, "key": ["a", "a", "b", "a"]}
    assert image_tokens_of(model, shared).grad_fn.name().startswith("IndexSelect")


def test_an_image_is_read_once_for_each_question(model, samples):
    samples["image"][1:] = samples["image"][0]
    samples["question"] = ["Who?", "Where?", "Who?", "Who?"]
    plain = model(samples)
    sizes: list[int] = []
    with model.qformer.register_forward_hook(lambda *call: sizes.append(len(call[-1].last_hidden_state))):
        keyed = model({**samples, "key": ["p", "p", "p", "p"]})
    assert sizes == [2]
    torch.testing.assert_close(keyed, plain, rtol=0, atol=1e-6)


def test_image_tokens_that_read_nothing_are_made_once_for_all_questions(model, samples, monkeypatch):
    monkeypatch.setattr(model, "reads", "nothing")
    samples["image"][1:] = samples["image"][0]
    sizes: list[int] = []
    with model.qformer.register_forward_hook(lambda *call: sizes.append(len(call[-1].last_hidden_state))):
        model({**samples, "key": ["p", "p", "p", "p"], "question": ["Who?", "Where?", "Why?", ""]})
    assert sizes == [1]


def test_an_image_of_another_size_is_refused(model):
    assert "32×48 pixels found, 64×64 expected" in message_of(model.encode_images, torch.zeros(1, 3, 32, 48))
