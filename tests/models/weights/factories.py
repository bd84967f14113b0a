"""Modules with random weights, ours and LAVIS's, and how their weights are compared and rewritten."""

from functools import partial
from typing import Any

import torch
import yaml
from lavis.models import load_model
from lavis.models.blip2_models.Qformer import BertLMHeadModel, BertPreTrainedModel
from lavis.models.eva_vit import VisionTransformer
from torch import nn
from transformers import BertConfig

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.cost.shapes import shape_of
from ealign_plugin.models.meta import STAND_IN

WITH_T5 = "ealign_instructblip with T5"
T5 = {
    **{"model_type": "t5", "vocab_size": 1920, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2},
    **{"num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0},
    **{"tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0},
}


def micro(family: str) -> Any:
    """Type ``micro`` of a family, with random weights."""
    torch.manual_seed(11)
    if family != WITH_T5:
        return load_model(family, "micro", is_eval=True)
    with open(InstructBlip.PRETRAINED_MODEL_CONFIG_DICT["micro"], encoding="utf-8") as file:
        shape = shape_of(yaml.safe_load(file)["model"])
    return InstructBlip(config=shape | {"text_config": T5}, tokenizer=STAND_IN).eval()


def randomised(module: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """Biases and norms too: what is zero or one at first would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        value.data = torch.randn(value.shape, generator=generator) * scale
    return module.eval()


def equal(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


# Else transformers 5 does not build the host's Q-Former.
BertPreTrainedModel.all_tied_weights_keys = {}


class Lavis(nn.Module):
    """The host's InstructBLIP up to the language model, built as `Blip2Base` builds it, small."""

    def __init__(self, config: Any, image_size: int, text_layers: bool = True) -> None:
        super().__init__()
        vision, qformer = config.vision_config, config.qformer_config
        self.visual_encoder = VisionTransformer(
            img_size=image_size,
            patch_size=vision.patch_size,
            use_mean_pooling=False,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=vision.intermediate_size / vision.hidden_size,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.ln_vision = nn.LayerNorm(vision.hidden_size)
        bert = BertConfig(
            vocab_size=qformer.vocab_size,
            hidden_size=qformer.hidden_size,
            num_hidden_layers=qformer.num_hidden_layers,
            num_attention_heads=qformer.num_attention_heads,
            intermediate_size=qformer.intermediate_size,
            max_position_embeddings=qformer.max_position_embeddings,
        )
        bert.encoder_width = vision.hidden_size
        bert.add_cross_attention = True
        bert.cross_attention_freq = qformer.cross_attention_frequency
        bert.query_length = config.num_query_tokens
        self.Qformer = BertLMHeadModel(bert)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, qformer.hidden_size))
        self.llm_proj = nn.Linear(qformer.hidden_size, config.text_config.hidden_size)

    @torch.no_grad()
    def image_tokens(self, images: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As `Blip2VicunaInstruct.forward` of LAVIS's repository computes them."""
        features = self.ln_vision(self.visual_encoder(images))
        queries = self.query_tokens.expand(len(images), -1, -1)
        output = self.Qformer.bert(
            ids,
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=mask.new_ones(features.shape[:2]),
            return_dict=True,
        )
        return self.llm_proj(output.last_hidden_state[:, : queries.shape[1]])
