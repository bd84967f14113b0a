"""What the model promises a trainer, a task and a LAVIS user; its arithmetic is tested in test_parity.py."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model, load_model_and_preprocess, model_zoo
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.image_tokens import image_tokens_of
from ealign_plugin.registered.processors import ImageProcessor, TextProcessor
from tests.models.factories import outputs_of_generate

CONFIG = OmegaConf.load(InstructBlip.default_config_path("micro")).model


def build(**changes: Any) -> InstructBlip:
    """A micro model whose config differs in these dotted keys."""
    config = CONFIG.copy()
    for name, value in changes.items():
        OmegaConf.update(config, name.replace("__", "."), value)
    return InstructBlip.from_config(config).eval()


def message_of(call: Any, *args: Any, **options: Any) -> str:
    """The one clear line of a UserError."""
    with pytest.raises(UserError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Loss


def test_the_loss_of_an_example_does_not_depend_on_its_neighbours(model, samples, rows_of):
    together = model(samples)
    for row, task in enumerate(samples["task"]):
        alone = model(rows_of(samples, [row]))
        assert alone["loss"].item() == pytest.approx(together[f"loss_{task}"].item(), abs=1e-6)


def test_the_loss_depends_on_image_question_and_instruction(model, samples, rows_of):
    loss = model(samples)["loss_a"]
    others = [
        {**samples, "image": samples["image"].flip(0)},
        {**samples, "question": ["Where?"] * 4},
        {**samples, "instruction": ["Write."] * 4, "question": samples["instruction"]},
    ]
    for other in others:
        assert abs(model(other)["loss_a"] - loss) > 1e-4


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("waste", [0.0, 0.15])
def test_padding_waste_changes_neither_loss_nor_gradients(model, samples, monkeypatch, reduction, waste):
    monkeypatch.setattr(model, "loss_reduction", reduction)
    losses, gradients = [], []
    for padding_waste in (waste, 1.0):
        monkeypatch.setattr(model, "padding_waste", padding_waste)
        model.zero_grad()
        output = model(samples)
        output["loss"].backward()
        losses.append(output)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)
    # The Q-Former's last layer transforms the question once more for nobody: only the queries are read.
    still = {name for name, gradient in gradients[0].items() if not gradient.any()}
    assert all(name.startswith("qformer.encoder.layer.1.") for name in still)


def test_loss_reductions_by_hand(model, samples, monkeypatch):
    lengths = [
        len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in samples["target"]
    ]
    each = [model(samples)[f"loss_{task}"].item() for task in samples["task"]]
    assert len(set(lengths)) > 1
    monkeypatch.setattr(model, "loss_reduction", "token")
    by_token = sum(loss * n for loss, n in zip(each, lengths, strict=True)) / sum(lengths)
    assert model(samples)["loss"].item() == pytest.approx(by_token, abs=1e-5)
    monkeypatch.setattr(model, "loss_reduction", "example")
    assert model(samples)["loss"].item() == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_the_loss_of_a_task_is_the_mean_over_its_tokens(model, samples, rows_of, monkeypatch):
    monkeypatch.setattr(model, "loss_reduction", "token")
    samples["task"] = ["caption", "entity", "sentence", "entity"]
    output = model(samples)
    assert set(output) == {"loss", "tokens", "weight", "loss_caption", "loss_entity", "loss_sentence"}
    entities = model(rows_of(samples, [1, 3]))["loss"]
    assert output["loss_entity"].item() == pytest.approx(entities.item(), abs=1e-6)
    assert output["loss"].requires_grad and not output["loss_entity"].requires_grad


def test_tokens_counts_prompts_and_targets(model, samples):
    texts = samples["instruction"] + samples["target"]
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # One more a row at the beginning of the prompt and one at the end of the target.
    assert model(samples)["tokens"].item() == sum(map(len, ids)) + 2 * len(samples["target"])


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


def test_bfloat16_autocast_keeps_sums_in_float32(model, samples):
    plain = model(samples)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(samples)
    assert {value.dtype for value in half.values()} == {torch.float32}
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)
    half["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.zero_grad()


def test_an_image_of_another_size_is_refused(model):
    assert "32×48 pixels found, 64×64 expected" in message_of(model.encode_images, torch.zeros(1, 3, 32, 48))


# Long texts


def ids_read(model: InstructBlip, module: str, samples: dict[str, Any]) -> list[int]:
    """The token ids that reach a text embedding for a batch of one."""
    seen = []
    with (
        model.get_submodule(module).register_forward_hook(lambda _, args, __: seen.append(args[0])),
        torch.no_grad(),
    ):
        model(samples)
    ((row,),) = [batch.tolist() for batch in seen]
    return row


def test_a_long_instruction_keeps_its_end_and_a_long_target_its_beginning(
    model, samples, rows_of, monkeypatch
):
    monkeypatch.setattr(model, "max_txt_len", 10)
    monkeypatch.setattr(model, "max_output_txt_len", 6)
    instruction, target = (
        model.tokenizer(samples[name][0], add_special_tokens=False)["input_ids"]
        for name in ("instruction", "target")
    )
    read = ids_read(model, "language_model.model.embed_tokens", rows_of(samples, [0]))
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    assert read == [bos, *instruction[-9:], *target[:5], eos]


def test_a_long_question_keeps_its_beginning(model, samples, rows_of, monkeypatch):
    monkeypatch.setattr(model, "max_question_len", 7)
    question = model.tokenizer(samples["instruction"][0], add_special_tokens=False)["input_ids"]
    read = ids_read(model, "qformer.embeddings.word_embeddings", rows_of(samples, [0]))
    assert read == [model.tokenizer.bos_token_id, *question[:6]]


@pytest.mark.parametrize("words", [0, 1, 5000])
def test_texts_of_any_length_give_a_loss(model, samples, words):
    text = " ".join(["Oslo"] * words)
    long = {"image": samples["image"][:1], "instruction": [text], "target": [text]}
    output = model(long)
    assert output["loss"].isfinite()
    assert output["tokens"] <= model.max_txt_len + model.max_output_txt_len


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


# Weights


@pytest.fixture
def checkpoint(model: InstructBlip, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(model.trainable_state(), path)
    return path


def test_weights_survive_a_file(model, samples, checkpoint):
    torch.manual_seed(9)
    other = build()
    wanted = model(samples)["loss"]
    assert abs(other(samples)["loss"] - wanted) > 1e-3
    other.load_checkpoint(checkpoint)
    assert other(samples)["loss"] == wanted
    features = model.encode_images(samples["image"][:1])
    assert other.score(features, "a", ["b"], ["c"]).equal(model.score(features, "a", ["b"], ["c"]))


def test_tied_weights_are_saved_once_and_stay_tied(model, checkpoint):
    assert set(model.state_dict()) - set(load_file(checkpoint)) == {"language_model.lm_head.weight"}
    other = build()
    other.load_checkpoint(checkpoint)
    assert other.language_model.lm_head.weight is other.language_model.get_input_embeddings().weight


def test_untied_weights_are_all_saved(tmp_path):
    model = build(text_config__tie_word_embeddings=False)
    save_file(model.trainable_state(), tmp_path / "weights.safetensors")
    assert set(load_file(tmp_path / "weights.safetensors")) == set(model.state_dict())
    model.load_checkpoint(tmp_path / "weights.safetensors")


def test_finetuned_weights_from_the_config_and_from_load_model(model, samples, checkpoint):
    wanted = model(samples)["loss"]
    torch.manual_seed(9)
    assert build(load_finetuned=True, finetuned=str(checkpoint))(samples)["loss"] == wanted
    given = load_model("ealign_instructblip", "micro", is_eval=True, checkpoint=str(checkpoint))
    assert given(samples)["loss"] == wanted


def test_a_missing_checkpoint(model, tmp_path):
    path = tmp_path / "none.safetensors"
    assert message_of(model.load_checkpoint, path).startswith(f"checkpoint '{path}': no such file; ")
    assert message_of(model.load_checkpoint, tmp_path).startswith(f"checkpoint '{tmp_path}': no such file; ")
    assert message_of(build, load_finetuned=True).startswith("checkpoint '': no such file; ")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_is_refused_and_never_unpickled(model, tmp_path, dump):
    path, trap = tmp_path / "model.safetensors", tmp_path / "exploded"
    with open(path, "wb") as file:
        dump({"model": Bomb(trap)}, file)
    assert f"{path}: it is no safetensors file" in message_of(model.load_checkpoint, path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_a_file_of_something_else(model, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert f"{path}: it is no safetensors file" in message_of(model.load_checkpoint, path)


def test_a_file_cut_off(model, checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert f"{checkpoint}: it is no safetensors file" in message_of(model.load_checkpoint, checkpoint)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"text_config__num_hidden_layers": 2}, "0 missing, 9 unknown, 0 of another shape"),
        ({"text_config__num_hidden_layers": 4}, "9 missing, 0 unknown, 0 of another shape"),
        ({"num_query_tokens": 4}, "1 of another shape; the first is query_tokens"),
    ],
)
def test_a_checkpoint_of_another_size_changes_nothing(checkpoint, changes, found):
    other = build(**changes)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    message = message_of(other.load_checkpoint, checkpoint)
    assert message.startswith(f"{checkpoint}: weights of another model or size (") and found in message
    torch.testing.assert_close(dict(other.state_dict()), before, rtol=0, atol=0)


def test_a_checkpoint_of_another_model(model, tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    message = message_of(model.load_checkpoint, tmp_path / "resnet.safetensors")
    assert "1 unknown" in message and "conv1.weight" in message


# LAVIS, and bad configs


def test_lavis_lists_and_loads_it():
    types = ["micro", "smol", "vicuna7b", "vicuna13b", "flant5xl", "flant5xxl"]
    assert dict(model_zoo)["ealign_instructblip"] == types
    model, images, texts = load_model_and_preprocess("ealign_instructblip", "micro", is_eval=True)
    assert isinstance(model, InstructBlip) and not model.training
    assert {split: type(processor) for split, processor in images.items()} == dict.fromkeys(
        ("train", "eval"), ImageProcessor
    )
    assert {type(processor) for processor in texts.values()} == {TextProcessor}
    picture = images["eval"](Image.new("L", (300, 200), 90))
    answers = model.generate({"image": picture[None], "prompt": texts["eval"]("Who \n is it?")}, max_length=3)
    assert [type(answer) for answer in answers] == [str]


def test_an_unknown_type_is_an_error_that_lists_what_there_is():
    with pytest.raises(UserError, match="unknown model type 'giant'; expected one of flant5xl, flant5xxl"):
        load_model("ealign_instructblip", "giant")


def test_the_config_reaches_the_model(model):
    assert (model.max_txt_len, model.max_output_txt_len, model.max_question_len) == (512, 64, 64)
    assert (model.loss_reduction, model.padding_waste) == ("example", 0.15)
    assert (model.batching, model.max_tokens, model.reads) == ("groups", None, "question")
    assert build(num_query_tokens=3, max_txt_len=99).max_txt_len == 99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_reduction": "sum"}, "model.loss_reduction: 'sum' found; 'token' or 'example' expected"),
        ({"max_question_len": 200}, "model.max_question_len: 200 found, at most"),
        (
            {"text_config__vocab_size": 1000},
            "model.text_config.vocab_size: 1000 found, at least 1279",
        ),
        ({"qformer_config__vocab_size": 9}, "model.qformer_config.vocab_size: 9 found"),
        ({"tokenizer": "nano"}, "model.tokenizer: "),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(changes, message):
    assert message_of(build, **changes).startswith(message)
