"""The micro model with random weights, and a batch of unlike examples."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model

from ealign_plugin.models import InstructBlip
from tests.factories import TEXTS, micro_batch, micro_model


@pytest.fixture(scope="session")
def model() -> InstructBlip:
    """In eval mode. Whoever changes an attribute does it by monkeypatch."""
    torch.manual_seed(0)
    return load_model("ealign_instructblip", "micro", is_eval=True)


@pytest.fixture
def samples() -> dict[str, Any]:
    return micro_batch()


def take(samples: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Some rows of a batch."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
        for name, value in samples.items()
    }


@pytest.fixture
def rows_of() -> Callable[[dict[str, Any], list[int]], dict[str, Any]]:
    return take


# What a hub gives


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``hub_folder("llama")`` or ``("t5")``: a tiny InstructBLIP with random weights and its processor,
    written by transformers, with tokenizers as different as a LLaMA's, a T5's and a BERT's."""

    @cache
    def write(kind: str) -> Path:
        from transformers import (
            BlipImageProcessor,
            InstructBlipConfig,
            InstructBlipForConditionalGeneration,
            InstructBlipProcessor,
        )

        folder = tmp_path_factory.mktemp(kind)
        special = {"llama": "<s> $A", "t5": "$A </s>"}
        processor = InstructBlipProcessor(
            BlipImageProcessor(size={"height": 32, "width": 32}),
            bytes_tokenizer(special[kind]),
            words_tokenizer(),
            num_query_tokens=4,
        )
        image = processor.tokenizer.convert_tokens_to_ids("<image>")
        sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
        vocab = {"vocab_size": len(processor.tokenizer), "pad_token_id": 0}
        torch.manual_seed(3)
        config = InstructBlipConfig(
            vision_config={**sizes, "image_size": 32, "patch_size": 16},
            qformer_config={
                **sizes,
                "vocab_size": len(processor.qformer_tokenizer),
                "encoder_hidden_size": 32,
                "cross_attention_frequency": 1,
                "max_position_embeddings": 128,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            text_config={
                "llama": {
                    **{**sizes, **vocab, "model_type": "llama", "num_key_value_heads": 2},
                    **{"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 512},
                },
                "t5": {
                    **{**vocab, "model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4},
                    **{"num_layers": 2, "eos_token_id": 2, "decoder_start_token_id": 0, "dropout_rate": 0.0},
                    **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
                },
            }[kind],
            num_query_tokens=4,
            image_token_index=image,
        )
        model = InstructBlipForConditionalGeneration(config)
        for parameter in model.parameters():  # some begin as zeros, and how others do depends on the version
            if parameter.ndim > 1:
                parameter.data.normal_(std=0.12)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return write


def bytes_tokenizer(frame: str) -> Any:
    """A byte-level BPE of the texts above; ``frame`` is what it puts around one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(pair) for pair in TEXTS], trainer)
    ids = [("<s>", 1), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", truncation_side="left"
    )


def words_tokenizer() -> Any:
    """A BERT's: lower case, WordPiece, ``[CLS] text [SEP]``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=names, show_progress=False)
    backend.train_from_iterator([" ".join(pair) for pair in TEXTS], trainer)
    ids = [("[CLS]", 1), ("[SEP]", 2)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


@pytest.fixture
def push(model: InstructBlip) -> Iterator[Callable[[int, float], None]]:
    """``push(token_id, logit)`` adds to the language model's logit of a token until the test ends."""
    handles = []

    def add(token: int, logit: float) -> None:
        bias = torch.zeros(model.config.text_config.vocab_size)
        bias[token] = logit
        handles.append(model.language_model.lm_head.register_forward_hook(lambda _, __, out: out + bias))

    yield add
    for handle in handles:
        handle.remove()


@pytest.fixture
def new_model() -> Callable[[], Any]:
    """``new_model()``: a micro model of one's own; every call builds the same."""
    return micro_model
