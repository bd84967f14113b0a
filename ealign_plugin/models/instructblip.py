"""InstructBLIP (arXiv 2305.06500) on transformers' modules, as a `NewsModel`.

::

    image [3, H, W] ─ vision_model ─ patches [P, V] ─┐
                                                     ├─ qformer ─ [Q, F] ─ language_projection ─ [Q, D]
    question ─ tokens ───────────────────────────────┘                                            │
    instruction, target ─ tokens ─ embeddings [T, D] ─────────────────────────── [Q + T, D] ─ language_model

The language model is a LLaMA (Vicuna), or a T5 (Flan-T5), whose encoder reads image and instruction and whose
decoder writes the target. The submodules bear the names that transformers'
`InstructBlipForConditionalGeneration` gives them, so weights move between the two; the arithmetic between
them is ours, because the class's own `forward` changed its meaning over the versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.batching import Tokens, pad
from ealign_plugin.models.families import register_family
from ealign_plugin.models.language_model import check_length
from ealign_plugin.models.meta import give_memory, shapes_only
from ealign_plugin.models.section import CONFIGS, values
from ealign_plugin.models.tokenizers import frame_of, read_tokenizer, text_only
from ealign_plugin.models.weights import smol
from ealign_plugin.models.weights.export import IMAGE_TOKEN, image_options, plain_tokenizer
from ealign_plugin.models.weights.hub import fetch, load_tokenizer, read_config
from ealign_plugin.models.weights.lavis import lavis_files, load_lavis_weights_into
from ealign_plugin.models.weights.loading import load_weights_into

TYPES = ("micro", "smol", "vicuna7b", "vicuna13b", "flant5xl", "flant5xxl")


@register_family("ealign_instructblip")
class InstructBlip(NewsModel):
    """InstructBLIP for training and for two-pass captioning; see `NewsModel` for what a batch is.

    Args:
        config: transformers' `InstructBlipConfig`, or its fields ``vision_config``, ``qformer_config``,
            ``text_config``, ``num_query_tokens``.
        tokenizer: The language model's: a transformers tokenizer, or the path of a ``tokenizer.json`` with
            ``<s>``, ``</s>`` and ``<pad>``.
        qformer_tokenizer: The Q-Former's; None: the language model's.
        max_question_len: Longest text of the Q-Former in tokens.
        qformer_text: What the Q-Former reads: ``question``: a batch's ``question``, so that an image is read
            once for all sentences that are asked about; of a longer one the end is dropped. ``instruction``:
            all of the prompt, as InstructBLIP was trained; of a longer one the beginning is dropped, as in
            LAVIS.
        options: Of `NewsModel`.
    """

    PRETRAINED_MODEL_CONFIG_DICT = {
        name: str(CONFIGS / "models" / f"ealign_instructblip_{name}.yaml") for name in TYPES
    }
    PARTS = {
        "vision": ("vision_model",),
        "connector": ("qformer", "query_tokens", "language_projection"),
        "llm": ("language_model",),
    }
    PUBLISHED_AS = "InstructBlipForConditionalGeneration"
    SHAPE = ("vision_config", "qformer_config", "text_config", "num_query_tokens")
    OPTIONS = (*NewsModel.OPTIONS, "max_question_len", "qformer_text")

    def __init__(
        self,
        *,
        config: Any,
        tokenizer: Any,
        qformer_tokenizer: Any = None,
        max_question_len: int = 64,
        qformer_text: str = "question",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        from transformers import InstructBlipConfig, InstructBlipQFormerModel, InstructBlipVisionModel

        if qformer_text not in ("question", "instruction"):
            raise UserError(
                f"model.qformer_text: {qformer_text!r} found; 'question' or 'instruction' expected"
            )
        self.config = config if isinstance(config, InstructBlipConfig) else InstructBlipConfig(**config)
        self.tokenizer = read_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
        self.qformer_tokenizer = qformer_tokenizer or self.tokenizer
        self.frame, self.question_frame = frame_of(self.tokenizer), frame_of(self.qformer_tokenizer)
        self.reads, self.max_question_len = qformer_text, max_question_len
        self._check_config()
        self.vision_model = InstructBlipVisionModel(self.config.vision_config)
        self.qformer = InstructBlipQFormerModel(self.config.qformer_config)
        self.query_tokens = nn.Parameter(
            torch.randn(1, self.config.num_query_tokens, self.config.qformer_config.hidden_size)
            * self.config.qformer_config.initializer_range
        )
        self.language_projection = nn.Linear(
            self.config.qformer_config.hidden_size, self.config.text_config.hidden_size
        )
        self.language_model = self.build_language_model(self.config.text_config)
        self.set_precision()

    def _check_config(self) -> None:
        """Refuse what would fail later."""
        for part, tokenizer in (("text_config", self.tokenizer), ("qformer_config", self.qformer_tokenizer)):
            # transformers' processor adds <image>, which no text of ours is split into.
            words = 1 + max(index for word, index in tokenizer.get_vocab().items() if word != IMAGE_TOKEN)
            if (size := getattr(self.config, part).vocab_size) < words:
                raise UserError(
                    f"model.{part}.vocab_size: {size} found, at least {words} expected, the tokenizer's; "
                    "raise it or name another model.tokenizer"
                )
        if self.max_question_len > (places := self.config.qformer_config.max_position_embeddings):
            raise UserError(
                f"model.max_question_len: {self.max_question_len} found, at most "
                f"model.qformer_config.max_position_embeddings ({places}) expected; lower it"
            )
        check_length(self, self.config.num_query_tokens)

    @classmethod
    def load_pretrained(cls, section: Mapping[str, Any]) -> Self:
        """The model of a section with the weights that it starts from.

        ``pretrained`` names where weights and tokenizers come from: a folder or hub id of transformers,
        ``smol`` (two packages), or nothing: random weights. ``lavis_checkpoint``, with ``language_model`` and
        ``qformer_tokenizer``, goes before it.
        """
        if files := lavis_files(section):
            model = cls.without_weights(section)
            give_memory(model)
            if not load_lavis_weights_into(model, files):
                folder = fetch(section["language_model"], key="model.language_model")
                _fill_language_model(model.language_model, folder)
            return model
        if section.get("pretrained") == "smol":
            parts = smol.load()
            model = cls(
                config=values(section, cls.SHAPE),
                tokenizer=parts.tokenizer,
                qformer_tokenizer=parts.question_tokenizer,
                **values(section, cls.OPTIONS),
            )
            smol.fill(model, parts.weights)
            return model
        return super().load_pretrained(section)

    @classmethod
    def without_weights(cls, section: Mapping[str, Any]) -> Self:
        """The model of a section that names weights, on the meta device; no weights are fetched."""
        if lavis_files(section):
            parts = _lavis_parts(section)
        else:
            folder = fetch(section["pretrained"], weights=False, key="model.pretrained")
            parts = {
                "config": read_config(folder, {"instructblip"}),
                "tokenizer": text_only(load_tokenizer(folder)),
                "qformer_tokenizer": text_only(load_tokenizer(folder / "qformer_tokenizer")),
            }
        with shapes_only():
            return cls(**parts, **values(section, cls.OPTIONS))

    def processor(self, mean: Sequence[float], std: Sequence[float]) -> Any:
        """transformers' `InstructBlipProcessor`."""
        from transformers import BlipImageProcessor, InstructBlipProcessor

        return InstructBlipProcessor(
            image_processor=BlipImageProcessor(**image_options(self, mean, std)),
            tokenizer=plain_tokenizer(self.tokenizer),
            qformer_tokenizer=plain_tokenizer(self.qformer_tokenizer, side="right"),
            num_query_tokens=self.config.num_query_tokens,
        )

    def vision_features(self, images: Tensor) -> Tensor:
        return self.vision_model(pixel_values=images).last_hidden_state

    def image_tokens(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        batch = pad(self.questions(questions), self.qformer_tokenizer.pad_token_id, features.device)
        queries = self.query_tokens.expand(len(questions), -1, -1)
        output = self.qformer(
            input_ids=batch.ids,
            attention_mask=torch.cat([batch.mask.new_ones(queries.shape[:2]), batch.mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=features.to(queries.dtype),
            encoder_attention_mask=features.new_ones(features.shape[:2], dtype=torch.long),
        )[0]
        return self.language_projection(output[:, : queries.shape[1]])

    def questions(self, texts: Sequence[str]) -> list[Tokens]:
        """What the Q-Former reads of each text."""
        head, tail = self.question_frame
        room = self.max_question_len - len(head) - len(tail)
        distinct = list(dict.fromkeys(texts))  # most of a batch ask the same
        found = self.qformer_tokenizer(distinct, add_special_tokens=False)["input_ids"]
        if self.reads == "instruction":
            found = [ids[max(0, len(ids) - room) :] for ids in found]
        tokens = {text: [*head, *ids[:room], *tail] for text, ids in zip(distinct, found, strict=True)}
        return [Tokens(tokens[text]) for text in texts]


def _lavis_parts(section: Mapping[str, Any]) -> dict[str, Any]:
    """Config and tokenizers of the model that LAVIS builds from the folder of its language model.

    A LLaMA gets a token ``[PAD]``, and a text begins with ``</s>``; a T5's activation is the exact GELU.
    Source: LAVIS's blip2_vicuna_instruct.py and blip2_t5_instruct.py; the published conversion does the same.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import InstructBlipConfig

    from ealign_plugin.models.cost.shapes import shape_of

    shape = shape_of(section)
    folder = fetch(section["language_model"], weights=False, key="model.language_model")
    own = read_config(folder, {shape["text_config"]["model_type"]})
    config = InstructBlipConfig(**shape | {"text_config": shape["text_config"] | own})
    text, tokenizer = config.text_config, load_tokenizer(folder)
    if text.is_encoder_decoder:
        text.dense_act_fn = "gelu"
    else:
        ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
        tokenizer.add_special_tokens({"pad_token": "[PAD]"} | ends)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="</s> $A", special_tokens=[("</s>", tokenizer.eos_token_id)]
        )
        text.vocab_size = max(text.vocab_size, len(tokenizer))
    questions = load_tokenizer(
        fetch(section["qformer_tokenizer"], weights=False, key="model.qformer_tokenizer")
    )
    questions.add_special_tokens({"bos_token": "[DEC]"})
    return {"config": config, "tokenizer": text_only(tokenizer), "qformer_tokenizer": text_only(questions)}


@torch.no_grad()
def _fill_language_model(model: Any, folder: Path) -> None:
    """Copy a language model's weights; where the folder lacks the row of ``[PAD]``, it is zeros.

    LAVIS draws that row at random around zero; it is never read, and its logit is 0.
    """
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight[-1].zero_()
    load_weights_into(model, folder, added_tokens=0 if model.config.is_encoder_decoder else 1)
