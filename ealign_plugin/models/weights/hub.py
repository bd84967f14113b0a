"""Folders of transformers, on this machine or on a hub: the one file that meets huggingface_hub (0.26 to 2).

Of huggingface_hub it uses ``snapshot_download`` and ``get_safetensors_metadata``, both public; a test asks
for their arguments by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.files import read_json
from ealign_plugin.models.weights.headers import Shapes
from ealign_plugin.validation import in_one_line

DESCRIPTION = ["*.json", "*.model", "*.txt", "*.jinja"]  # config, tokenizers, processor


WEIGHTS = ["model*.safetensors"]


INDEX = "model.safetensors.index.json"


_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


SHIPPED = {"micro": Path(__file__).parents[2] / "configs" / "weights" / "micro"}
"""Name → folder of weights that the package ships; ``./micro`` names a folder of the user's."""


# Folders and hubs


def fetch(source: str, *, weights: bool = True, key: str = "model.weights") -> Path:
    """The folder that ``source`` names.

    Args:
        source: A name of `SHIPPED`, a folder, or ``owner/name`` (also ``owner/name@revision``) on the hub of
            huggingface_hub.
        weights: False downloads config and tokenizers only, so that they can be checked first.
        key: Name of the config key, for the message.

    Raises:
        UserError: there is no such folder, or the hub does not give it.
    """
    if source in SHIPPED:
        return SHIPPED[source]
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return folder
    if folder.is_file() or not _HUB_NAME.fullmatch(source):
        found = "is a file" if folder.is_file() else "no such folder"
        raise UserError(
            f"{key}: {source!r}: {found}; expected a folder with config.json and model.safetensors, a hub id "
            f"owner/name, or {' or '.join(map(repr, SHIPPED))}, which the package ships"
        )
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    patterns = DESCRIPTION + (WEIGHTS if weights else [])
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # each version of huggingface_hub reports through another network library
        raise UserError(
            f"{key}: {source!r}: no such folder here, and the hub does not give it ({_reason(error)}); "
            "correct the name, connect (unset HF_HUB_OFFLINE), log in if it is gated, or give a local folder"
        ) from None


def has_weights(folder: Path) -> bool:
    """Whether the weights lie in the folder of `fetch`, whole."""
    try:
        return bool(shards(folder))
    except UserError:
        return False


def hub_shapes(source: str, key: str = "model.pretrained") -> tuple[Shapes, int]:
    """Names and shapes of a hub's weights, and their bytes; only headers are fetched.

    Args:
        source: See `fetch`.
        key: Name of the config key, for the message.

    Raises:
        UserError: the hub does not give them.
    """
    from huggingface_hub import get_safetensors_metadata

    name, _, revision = source.partition("@")
    try:
        files = get_safetensors_metadata(name, revision=revision or None).files_metadata.values()
    except Exception as error:  # each version of huggingface_hub reports through another network library
        raise UserError(
            f"{key}: {source!r}: its weights are not here, and the hub does not give them "
            f"({_reason(error)}); connect (unset HF_HUB_OFFLINE), log in if it is gated, or give a local "
            "folder"
        ) from None
    tensors = {name: info for file in files for name, info in file.tensors.items()}
    size = sum(info.data_offsets[1] - info.data_offsets[0] for info in tensors.values())
    return {name: tuple(info.shape) for name, info in tensors.items()}, size


def _reason(error: Exception) -> str:
    return in_one_line(error)[:200] or type(error).__name__


def read_config(folder: Path, model_types: Collection[str]) -> dict[str, Any]:
    """The folder's ``config.json``.

    Args:
        folder: See `fetch`.
        model_types: transformers' names of the models that will do, such as ``{"instructblip"}``.

    Raises:
        UserError: it is missing, is no JSON object, or is the config of another kind of model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder as transformers' save_pretrained writes it")
    config = read_json(path, advice="fetch the file again")
    if (kind := config.get("model_type")) not in model_types:
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
        raise UserError(
            f"{folder}: it holds no tokenizer ({_reason(error)}); expected tokenizer.json or tokenizer.model "
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
