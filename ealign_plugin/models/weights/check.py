"""Whether the weights of a run are there and fit its model, before a tensor is read or fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ealign_plugin.errors import UserError
from ealign_plugin.models.weights import smol
from ealign_plugin.models.weights.checkpoint import check_fit
from ealign_plugin.models.weights.headers import read_header
from ealign_plugin.models.weights.hub import fetch, has_weights, hub_shapes, shards
from ealign_plugin.models.weights.lavis import lavis_files
from ealign_plugin.models.weights.loading import match_names

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


class Origin(NamedTuple):
    """Where a model's weights come from, in words, and the bytes that are to be downloaded for it."""

    text: str
    download: int = 0


def origin_of(model: NewsModel, section: Mapping[str, Any]) -> Origin:
    """Where the weights come from, once they are there and fit.

    Args:
        model: On the meta device, before `NewsModel.set_up`: LoRA is in no published weights.
        section: ``model`` of a config.

    Raises:
        UserError: weights are missing, broken, or of another model.
    """
    if files := lavis_files(section):
        names = ", ".join(map(str, files))
        return Origin(f"weights of LAVIS: {names}; language model of {section['language_model']}")
    source = section.get("pretrained")
    if not source:
        return Origin("random weights")
    if source == "smol":
        smol.package_file(*smol.LLM_FILE)
        smol.package_file(*smol.BERT_FOLDER, "model.safetensors")
        return Origin("weights of the packages of type smol; image encoder and cross-attention random")
    folder, download = fetch(source, weights=False, key="model.pretrained"), 0
    if Path(source).expanduser().is_dir() or has_weights(folder):
        shapes = {name: shape for path in shards(folder) for name, shape in read_header(path).shapes.items()}
    else:
        shapes, download = hub_shapes(source)
    match_names(model, shapes, f"model.pretrained: {source}")
    return Origin(f"weights of {source}, which fit", download)


def checkpoints(section: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Config key and path of what is loaded after the pretrained weights, in that order.

    >>> checkpoints({"load_finetuned": True, "finetuned": "best.safetensors"}, {"resume_ckpt_path": None})
    [('model.finetuned', 'best.safetensors')]
    """
    found = []
    if section.get("load_finetuned"):
        found.append(("model.finetuned", str(section.get("finetuned") or "")))
    if path := run.get("resume_ckpt_path"):
        found.append(("run.resume_ckpt_path", str(path)))
    return found


def check_checkpoint(model: NewsModel, key: str, path: str, weights: Path) -> None:
    """Refuse what `NewsModel.load_checkpoint` would refuse, by the header alone.

    Args:
        model: After `NewsModel.set_up`; works on the meta device too.
        key: Config key of the checkpoint, for the message.
        path: As the config has it.
        weights: The safetensors file that it stands for: of a checkpoint's folder, the one inside.

    Raises:
        UserError: no such file, no safetensors, or a checkpoint of another recipe or model.
    """
    if not path or not weights.is_file():
        raise UserError(f"{key}: {path!r}: no such file, expected a checkpoint of a training run")
    check_fit(model, read_header(weights), f"{key}: {path}")
