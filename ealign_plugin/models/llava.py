"""LLaVA 1.5 (arXiv 2310.03744) on transformers' modules, as a `NewsModel`.

::

    image [3, H, W] ─ vision_tower ─ patches [P, V] ─ multi_modal_projector ─ [P, D]
                                                                                │
    "USER: " [k, D] ──────────────────────────────────── [k + P + T, D] ─ language_model
    "\\n", instruction, " ASSISTANT:", target [T, D] ─────────────┘

The image tokens are the patches of the vision tower's last layer but one, whatever the question. The
submodules bear the names that transformers' `LlavaForConditionalGeneration` gives them, so weights move
between the two; texts become the tokens that its `LlavaProcessor` makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.families import register_family
from ealign_plugin.models.language_model import check_length
from ealign_plugin.models.meta import shapes_only
from ealign_plugin.models.section import CONFIGS, values
from ealign_plugin.models.tokenizers import end_of, read_tokenizer, text_only
from ealign_plugin.models.weights import hub as weights
from ealign_plugin.models.weights.export import IMAGE_TOKEN, image_options, plain_tokenizer

TYPES = ("micro", "llava1.5_7b", "llava1.5_13b")
BEFORE, AFTER = "USER: ", "\n{} ASSISTANT:"  # the image stands between


@register_family("ealign_llava")
class Llava(NewsModel):
    """LLaVA for training and for two-pass captioning; see `NewsModel` for what a batch is.

    ``USER:`` and ``ASSISTANT:`` are put around image and instruction here. ``max_txt_len`` counts what
    follows the image, " ASSISTANT:" included.

    Args:
        config: transformers' `LlavaConfig`, or its fields ``vision_config`` (a CLIP's), ``text_config``,
            ``vision_feature_layer``, ``vision_feature_select_strategy``, ``projector_hidden_act``.
        tokenizer: A transformers tokenizer, or the path of a ``tokenizer.json`` with ``<s>``, ``</s>`` and
            ``<pad>``.
        options: Of `NewsModel`.
    """

    PRETRAINED_MODEL_CONFIG_DICT = {
        name: str(CONFIGS / "models" / f"ealign_llava_{name.removeprefix('llava')}.yaml") for name in TYPES
    }
    PARTS = {
        "vision": ("vision_tower",),
        "connector": ("multi_modal_projector",),
        "llm": ("language_model",),
    }
    PUBLISHED_AS = "LlavaForConditionalGeneration"
    SHAPE = (
        *("vision_config", "text_config", "projector_hidden_act"),
        *("vision_feature_layer", "vision_feature_select_strategy"),
    )

    def __init__(self, *, config: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(**options)
        from transformers import CLIPVisionModel, LlavaConfig
        from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

        self.config = config if isinstance(config, LlavaConfig) else LlavaConfig(**config)
        self.tokenizer = read_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
        self.reads = "nothing"
        self._read_frame()
        self._check_config()
        self.vision_tower = CLIPVisionModel(self.config.vision_config)
        self.multi_modal_projector = LlavaMultiModalProjector(self.config)
        self.language_model = self.build_language_model(self.config.text_config)
        self.set_precision()

    def _read_frame(self) -> None:
        """What the processor's tokenizer makes of the prompt around the image, which it reads as a token.

        Tokenizers differ in whether a text that follows a token begins as one that stands alone does, with
        "▁": ``lead`` tokens of the latter are replaced by ``begin``.
        """
        plain = plain_tokenizer(self.tokenizer)
        plain.add_tokens([IMAGE_TOKEN], special_tokens=True)
        image = plain.convert_tokens_to_ids(IMAGE_TOKEN)
        texts = [BEFORE + IMAGE_TOKEN + AFTER.format(word) for word in "a7"]
        letter, digit = plain(texts)["input_ids"]
        place = letter.index(image)
        self.before, letter, digit = letter[:place], letter[place + 1 :], digit[place + 1 :]
        (alone,) = self.ids([AFTER.format("a")])
        same = _shared(letter[::-1], alone[::-1])
        self.begin, self.lead = letter[: len(letter) - same], len(alone) - same
        self.newline = letter[: _shared(letter, digit)]

    def _check_config(self) -> None:
        """Refuse what would fail later."""
        vision = self.config.vision_config
        if vision.model_type != "clip_vision_model":
            raise UserError(
                f"model.vision_config.model_type: {vision.model_type!r} found, 'clip_vision_model' expected, "
                "LLaVA 1.5's; name another folder"
            )
        words = 1 + max(index for word, index in self.tokenizer.get_vocab().items() if word != IMAGE_TOKEN)
        if (size := self.config.text_config.vocab_size) < words:
            raise UserError(
                f"model.text_config.vocab_size: {size} found, at least {words} expected, the tokenizer's; "
                "raise it or name another model.tokenizer"
            )
        if (least := len(self.framed([""])[0])) >= self.max_txt_len:
            raise UserError(
                f"model.max_txt_len: {self.max_txt_len} found; more than {least} expected, the tokens "
                "around the instruction; raise it"
            )
        whole = self.config.vision_feature_select_strategy == "full"
        check_length(self, (vision.image_size // vision.patch_size) ** 2 + whole)

    @classmethod
    def without_weights(cls, section: Mapping[str, Any]) -> Self:
        """The model of a folder or hub id, its parameters on the meta device; no weights are fetched."""
        folder = weights.fetch(section["pretrained"], weights=False, key="model.pretrained")
        config = weights.read_config(folder, {"llava"})
        tokenizer = text_only(weights.load_tokenizer(folder))
        with shapes_only():
            return cls(config=config, tokenizer=tokenizer, **values(section, cls.OPTIONS))

    def processor(self, mean: Sequence[float], std: Sequence[float]) -> Any:
        """transformers' `LlavaProcessor`."""
        from transformers import CLIPImageProcessor, LlavaProcessor

        tokenizer = plain_tokenizer(self.tokenizer)
        tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
        return LlavaProcessor(
            image_processor=CLIPImageProcessor(**image_options(self, mean, std), do_center_crop=False),
            tokenizer=tokenizer,
            patch_size=self.config.vision_config.patch_size,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            image_token=IMAGE_TOKEN,
            num_additional_image_tokens=1,  # CLIP's class token
        )

    def unread(self) -> list[nn.Module]:
        """Of the vision tower: the last layers, and the norm behind them."""
        tower = getattr(self.vision_tower, "vision_model", self.vision_tower)  # transformers 4 has one inside
        layers = tower.encoder.layers
        last = max(range(len(layers) + 1)[index] for index in self._feature_layers())
        return [*layers[last:], tower.post_layernorm]

    def _feature_layers(self) -> list[int]:
        layer = self.config.vision_feature_layer
        return [layer] if isinstance(layer, int) else list(layer)

    def vision_features(self, images: Tensor) -> Tensor:
        states = self.vision_tower(pixel_values=images, output_hidden_states=True).hidden_states
        features = torch.cat([states[index] for index in self._feature_layers()], dim=-1)
        whole = self.config.vision_feature_select_strategy == "full"
        return features if whole else features[:, 1:]  # the first is CLIP's class token

    def image_tokens(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        return self.multi_modal_projector(features.to(self.multi_modal_projector.linear_1.weight.dtype))

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids after the image tokens: newline, the end of each text, " ASSISTANT:"."""
        room, rows = self.max_txt_len - len(self.newline), self.framed(texts)
        return [ids if len(ids) <= self.max_txt_len else [*self.newline, *ids[-room:]] for ids in rows]

    def framed(self, texts: Sequence[str]) -> list[list[int]]:
        """`prompts` without their limit."""
        rows = self.ids([AFTER.format(text) for text in texts])
        return [[*self.begin, *ids[self.lead :]] for ids in rows]

    def remaining(self, texts: Sequence[str]) -> list[str]:
        """Of each text the end that `prompts` leaves."""
        room, before = self.max_txt_len - len(self.newline), AFTER.index("{")
        rest = []
        for text, ids in zip(texts, self.framed(texts), strict=True):
            whole = AFTER.format(text)
            dropped = len(whole) - len(end_of(self.tokenizer, whole, room)) - before
            rest.append(text[max(0, dropped) :] if len(ids) > self.max_txt_len else text)
        return rest


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the beginning that both have."""
    pairs = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
