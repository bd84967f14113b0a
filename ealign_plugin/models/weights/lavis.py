"""InstructBLIP's weights from LAVIS's own files."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ealign_plugin.errors import UserError
from ealign_plugin.models.weights.loading import copy_weights, match_names

if TYPE_CHECKING:
    from ealign_plugin.models.instructblip import InstructBlip

# LAVIS

_LAVIS = (
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("Qformer.bert.embeddings.LayerNorm.", "qformer.embeddings.layernorm."),
    ("Qformer.bert.", "qformer."),
    ("llm_proj.", "language_projection."),
    ("t5_proj.", "language_projection."),
    ("llm_model.", "language_model."),
    ("t5_model.", "language_model."),
)


_LAVIS_INSIDE = (
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".attention.self.", ".attention.attention."),
    (".crossattention.self.", ".crossattention.attention."),
)


_BARE_VIT = ("blocks.", "cls_token", "pos_embed", "patch_embed.")


_POSITIONS = "vision_model.embeddings.position_embedding"


def lavis_files(section: Mapping[str, Any]) -> list[Path]:
    """The files of ``model.lavis_checkpoint``; none where a model comes from elsewhere.

    Raises:
        UserError: a file is missing, or it is given without ``language_model`` or the other way round.
    """
    files = [Path(name).expanduser() for name in section.get("lavis_checkpoint") or ()]
    if files and not section.get("language_model"):
        raise UserError(
            "model.language_model: nothing found beside model.lavis_checkpoint; the folder or hub id of the "
            "language model expected (Vicuna v1.1 or Flan-T5), which LAVIS's files leave out"
        )
    if not files and section.get("language_model"):
        raise UserError(
            f"model.language_model: {section['language_model']!r} found without model.lavis_checkpoint, "
            "LAVIS's own files; give these too, or leave it empty: model.pretrained holds its language model"
        )
    if missing := [str(path) for path in files if not path.is_file()]:
        raise UserError(
            f"model.lavis_checkpoint: {', '.join(missing)}: no such file; give the paths of LAVIS's .pth "
            "files, fetched from its model zoo"
        )
    return files


def load_lavis_weights_into(model: InstructBlip, files: Sequence[Path]) -> bool:
    """Copy InstructBLIP's weights from LAVIS's own files into a model with transformers' names.

    The language model is filled too where the files hold it; else it keeps what it holds. Position
    embeddings of another image size are interpolated, as LAVIS does. LAVIS's last LayerNorm of the image
    encoder adds 1e-5 to the variance, transformers' 1e-6, as in the published conversion.

    Args:
        model: Its submodules are those of transformers' `InstructBlipForConditionalGeneration`.
        files: LAVIS's checkpoint, and ``eva_vit_g.pth`` where that leaves out the image encoder; later
            files win.

    Returns:
        Whether the language model was filled too.

    Raises:
        UserError: a file is missing or holds more than tensors; or the weights are another model's or
            another size's. The model is then unchanged.
    """
    layers = model.vision_model.config.num_hidden_layers
    weights: dict[str, Tensor] = {}
    for path in files:
        weights |= lavis_state(read_tensors(path), vit_layers=layers)
    if (given := weights.get(_POSITIONS)) is not None:
        weights[_POSITIONS] = interpolated(given, model.vision_model.config)
    hint = "use the model.model_type that it was made for"
    if "vision_model.embeddings.class_embedding" not in weights:
        hint = "it holds no image encoder: give LAVIS's eva_vit_g.pth beside it"
    whole = any(name.startswith("language_model.") for name in weights)
    without = [] if whole else ["language_model"]
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    where = " + ".join(map(str, files))
    names = match_names(model, shapes, where, without=without, hint=hint)
    copy_weights(model, names, weights.__getitem__)
    return whole


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ``torch.save``: ``{"model": {name: tensor}}`` or ``{name: tensor}``.

    Raises:
        UserError: no such file, or it holds anything that is neither a tensor nor plain data.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file; give the path of LAVIS's .pth file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{path}: not a file of tensors alone ({''.join(reason)[:200]}); only what torch.load reads with "
            "weights_only=True is read, anything else could run code"
        ) from None
    state = content.get("model", content) if isinstance(content, dict) else None
    tensors = {name: value for name, value in (state or {}).items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: no weights found; expected {{'model': {{name: tensor}}}} as LAVIS saves it")
    return tensors


def lavis_state(state: Mapping[str, Tensor], *, vit_layers: int) -> dict[str, Tensor]:
    """LAVIS's names → transformers' `InstructBlipForConditionalGeneration`'s.

    ::

        visual_encoder.blocks.3.attn.{qkv.weight, q_bias, v_bias}  vision_model.encoder.layers.3.self_attn.qkv
        Qformer.bert.encoder.layer.3.attention.self.query          qformer.encoder.layer.3.attention.attention
        llm_proj                                                   language_projection

    Args:
        state: Of a whole model, or of the image encoder alone (``eva_vit_g.pth``, whose last block, of 40,
            LAVIS leaves out, and its classifier).
        vit_layers: Blocks that are kept of an image encoder alone.

    Returns:
        Names without a counterpart are returned as they are.
    """
    bare = not any(name.startswith(("visual_encoder.", "Qformer.")) for name in state) and any(
        name.startswith(_BARE_VIT) for name in state
    )
    if bare:
        last = f"blocks.{vit_layers}."
        state = {
            f"visual_encoder.{name}": value
            for name, value in state.items()
            if name.startswith(_BARE_VIT) and not name.startswith(last)
        }
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("Qformer.cls.") or name.endswith(".attn.v_bias"):
            continue
        if name.endswith(".attn.q_bias"):  # one bias for the three; the keys have none
            values = state[name.removesuffix("q_bias") + "v_bias"]
            name = name.removesuffix("q_bias") + "qkv.bias"
            value = torch.cat([value, torch.zeros_like(values), values])
        renamed[_transformers_name(name)] = value
    return renamed


def _transformers_name(name: str) -> str:
    for theirs, ours in _LAVIS:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    if name.startswith("language_model."):
        return name
    for theirs, ours in _LAVIS_INSIDE:
        name = name.replace(theirs, ours)
    return name


def interpolated(positions: Tensor, vision_config: Any) -> Tensor:
    """Position embeddings [1, 1 + n², D] for the config's grid of patches: bicubic; the first stays.

    Source: ``interpolate_pos_embed`` of LAVIS's eva_vit.py.
    """
    old = math.isqrt(positions.shape[1] - 1)
    new = vision_config.image_size // vision_config.patch_size
    if old == new or old * old != positions.shape[1] - 1:  # the latter is told as another shape
        return positions
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
