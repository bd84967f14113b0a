"""Weights from outside: folders of transformers, here or on a hub, and checkpoints of LAVIS.

::

    config.json                            what the model is           fetch(..., weights=False), read_config
    model*.safetensors                     its weights                 fetch, fill
    instruct_blip_*.pth, eva_vit_g.pth     LAVIS's InstructBLIP        fill_from_lavis, then fill for the LLM

Names and shapes are compared from the files' headers before a weight is read. A pickle can run code when it
is read: of transformers only safetensors are taken, and LAVIS's files go through torch's reader of tensors.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ealign_plugin.errors import UserError

DESCRIPTION = ["*.json", "*.model", "*.txt", "*.jinja"]  # config, tokenizers, processor
WEIGHTS = ["model*.safetensors"]
INDEX = "model.safetensors.index.json"
BY_TOKEN = ("embed_tokens.weight", "shared.weight", "lm_head.weight")  # a row for each token

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# Buffers that older versions saved and newer ones compute.
_COMPUTED = (".position_ids", ".rotary_emb.inv_freq", ".relative_position_index")

# Folders and hubs


def fetch(source: str, *, weights: bool = True, key: str = "model.weights") -> Path:
    """The folder that ``source`` names.

    Args:
        source: A folder, or ``owner/name`` (also ``owner/name@revision``) on the hub of huggingface_hub.
        weights: False downloads config and tokenizers only, so that they can be checked first.
        key: Name of the config key, for the message.

    Raises:
        UserError: there is no such folder, or the hub does not give it.
    """
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return folder
    if folder.is_file() or not _HUB_NAME.fullmatch(source):
        found = "is a file" if folder.is_file() else "no such folder"
        raise UserError(
            f"{key}: {source!r}: {found}; expected a folder with config.json and model.safetensors, or a hub "
            "id owner/name"
        )
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    patterns = DESCRIPTION + (WEIGHTS if weights else [])
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # each version of huggingface_hub reports through another network library
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{key}: {source!r}: no such folder here, and the hub does not give it ({reason[:200]}); correct "
            "the name, connect (unset HF_HUB_OFFLINE), log in if it is gated, or give a local folder"
        ) from None


def read_config(folder: Path, model_types: Collection[str]) -> dict[str, Any]:
    """The folder's ``config.json``.

    Args:
        folder: See `fetch`.
        model_types: transformers' names of the models that will do, such as ``{"instructblip"}``.

    Raises:
        UserError: it is missing, is no JSON, or is the config of another kind of model.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; expected a folder as transformers' save_pretrained writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); fetch the file again") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in model_types:
        raise UserError(
            f"{path}: model_type {kind!r} found, {' or '.join(sorted(model_types))} expected; name another "
            "folder or another model.arch"
        )
    return config


def load_tokenizer(folder: Path) -> Any:
    """transformers' fast tokenizer of a folder; InstructBLIP's Q-Former's lies in ``qformer_tokenizer``.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder}: it holds no tokenizer ({reason[:200]}); expected tokenizer.json or tokenizer.model "
            "beside tokenizer_config.json"
        ) from None


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        UserError: there are none, only pickles, or fewer than the index names.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{index}: no index of weights ({type(error).__name__}: {error}); fetch it again"
            ) from None
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
                raise UserError(f"{index}: it names {name!r}, which is missing there; fetch the folder again")
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickled = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
    if pickled:
        raise UserError(
            f"{folder}: only pickled weights found ({pickled[0]}), safetensors expected, because reading a "
            "pickle can run code; convert it where you trust it: load it with transformers' from_pretrained "
            "and write it with save_pretrained(folder, safe_serialization=True)"
        )
    raise UserError(f"{folder}: no model.safetensors and no {INDEX} found; name a folder with weights")


# Filling a model


def fill(model: nn.Module, folder: Path, *, without: Sequence[str] = (), added_tokens: int = 0) -> None:
    """Copy a folder's weights into a model, a tensor at a time; the model keeps its precision and device.

    Args:
        model: Its parameters hold memory (not on the meta device), and LoRA is not in it yet.
        folder: With safetensors.
        without: Submodules that keep what they hold.
        added_tokens: The model's vocabulary may be so many tokens larger than the folder's; their
            embeddings keep what they hold.

    Raises:
        UserError: see `shards`; or the weights are another model's or another size's. The model is then
            unchanged.
    """
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        origin: dict[str, Any] = {}
        for path in shards(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise UserError(f"{path}: it is no safetensors file ({error}); fetch it again") from None
            origin |= dict.fromkeys(file.keys(), file)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in origin.items()}
        names = place(model, shapes, str(folder), without=without, added_tokens=added_tokens)
        _copy(model, names, lambda name: origin[name].get_tensor(name))


def place(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
    *,
    without: Sequence[str] = (),
    added_tokens: int = 0,
    hint: str = "name the model.model_type that they were made for",
) -> dict[str, str]:
    """Which of the model's weights each given weight fills.

    Args:
        model: What is to be filled; works on the meta device too.
        shapes: Name and shape of each given weight, named as any version of transformers does.
        where: The origin, for the message.
        without: Submodules left out.
        added_tokens: See `fill`.
        hint: The end of the message.

    Returns:
        Given name → the model's name.

    Raises:
        UserError: weights are missing, unknown, or of another shape.
    """
    own = model.state_dict(keep_vars=True)
    left_out = tuple(name + "." for name in without)
    names, unknown, other = {}, [], []
    for name, shape in shapes.items():
        if name.endswith(_COMPUTED):
            continue
        target = next((spelling for spelling in _spellings(name) if spelling in own), None)
        if target is None:
            if not any((spelling + ".").startswith(left_out) for spelling in _spellings(name)):
                unknown.append(name)
        elif target.startswith(left_out):
            continue
        elif _fits(target, shape, tuple(own[target].shape), added_tokens):
            names[name] = target
        else:
            other.append(f"{name} {list(shape)} where {list(own[target].shape)} is expected")
    filled = {id(own[target]) for target in names.values()}  # tied weights are one object
    wrong = [text.split()[0] for text in other]
    covered = {target for name in wrong for target in _spellings(name)}
    missing = [
        name
        for name, value in own.items()
        if id(value) not in filled
        and name not in covered
        and not name.startswith(left_out)
        and not name.endswith(_COMPUTED)
    ]
    if unknown or other or missing:
        raise UserError(
            f"{where}: weights of another model or size ({len(missing)} missing, {len(unknown)} unknown, "
            f"{len(other)} of another shape; the first is {(other + missing + unknown)[0]}); {hint}"
        )
    return names


def _spellings(name: str) -> Iterator[str]:
    """The name as it stands, and as other versions of transformers write it.

    >>> list(_spellings("model.language_model.layers.0.mlp.up_proj.weight"))[1]
    'language_model.model.layers.0.mlp.up_proj.weight'
    """
    for base in dict.fromkeys([name, name.removeprefix("model."), "model." + name, "language_model." + name]):
        yield base
        for shorter, longer in (
            ("language_model.", "language_model.model."),
            ("model.language_model.", "language_model.model."),
            ("vision_tower.", "vision_tower.vision_model."),
        ):
            if base.startswith(longer):
                yield shorter + base.removeprefix(longer)
            elif base.startswith(shorter):
                yield longer + base.removeprefix(shorter)
    if name.startswith("language_model.lm_head."):
        yield name.removeprefix("language_model.")


def _fits(name: str, given: tuple[int, ...], wanted: tuple[int, ...], added_tokens: int) -> bool:
    if given == wanted:
        return True
    return name.endswith(BY_TOKEN) and given[1:] == wanted[1:] and 0 < wanted[0] - given[0] <= added_tokens


@torch.no_grad()
def _copy(model: nn.Module, names: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
    """Fill the model's weights, a tensor at a time.

    Args:
        model: See `fill`.
        names: See `place`.
        read: Given name → tensor.
    """
    _untie(model, names, read)
    own = model.state_dict()
    for name, target in names.items():
        value = read(name)
        (own[target][: len(value)] if value.ndim else own[target]).copy_(value)


def _untie(model: nn.Module, names: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
    """Give the head weights of its own where it is tied to the embeddings, and given otherwise.

    transformers 5 ties every T5; Flan-T5's head is another than its embeddings.
    """
    own = model.state_dict(keep_vars=True)
    for name, target in names.items():
        if not target.endswith("lm_head.weight"):
            continue
        twins = [twin for twin, other in names.items() if other != target and own[other] is own[target]]
        if twins and not torch.equal(read(name), read(twins[0])):
            weight = nn.Parameter(own[target].detach().clone(), own[target].requires_grad)
            model.get_submodule(target.removesuffix(".weight")).weight = weight


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


def fill_from_lavis(model: nn.Module, files: Sequence[Path]) -> bool:
    """Copy InstructBLIP's weights from LAVIS's own files into a model with transformers' names.

    The language model is filled too where the files hold it; else it keeps what it holds. Position
    embeddings of another image size are interpolated, as LAVIS does. LAVIS's last LayerNorm of the image
    encoder adds 1e-5 to the variance, transformers' 1e-6, as in the published conversion.

    Args:
        model: With the submodules of transformers' `InstructBlipForConditionalGeneration`.
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
    names = place(model, shapes, where, without=without, hint=hint)
    _copy(model, names, weights.__getitem__)
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
