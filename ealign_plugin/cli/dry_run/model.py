"""The model of a dry run: built on the meta device; of weights and checkpoints only the headers are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ealign_plugin.cli.dry_run.problems import collected
from ealign_plugin.cli.dry_run.table import first_names, format_bytes
from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered_class
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.cost.shapes import STAND_IN
from ealign_plugin.models.instructblip import lavis_files
from ealign_plugin.models.meta import shapes_only
from ealign_plugin.models.section import CONFIGS, plain, values
from ealign_plugin.models.weights import smol
from ealign_plugin.models.weights.checkpoint import check_metadata
from ealign_plugin.models.weights.hub import fetch, shards
from ealign_plugin.models.weights.loading import match_names
from ealign_plugin.training.checkpoints.store import weights_of
from ealign_plugin.training.optimizer import parameter_groups

Shapes = dict[str, tuple[int, ...]]


def check_model(cfg: DictConfig, run: Mapping[str, Any], problems: list[str]) -> tuple[NewsModel | None, str]:
    """The model on the meta device, ready to be trained, and where its weights come from.

    None where it is of another package, or cannot be built; the reason is then among the problems, as are
    weights and checkpoints that do not fit.
    """
    cls = registered_class("model", cfg.arch)
    if not issubclass(cls, NewsModel):
        return None, "of another package; it is not looked into"
    model, origin = None, ""
    with collected(problems):
        model = on_meta(cls, cfg)
        with collected(problems):
            origin = check_weights_of(model, cfg)
        with torch.device("meta"):  # LoRA's weights too
            model.set_up({**cfg, "quantize": None, "load_finetuned": False})
        for key, path in checkpoints(cfg, run):
            with collected(problems):
                check_checkpoint(model, key, path)
                origin += f"; then {path}"
        if not run["evaluate"]:
            with collected(problems):
                parameter_groups(model, float(run["init_lr"]), float(run["weight_decay"]), run.get("lrs"))
    return model, origin


def on_meta(cls: Any, cfg: DictConfig) -> NewsModel:
    """`from_config` without its weights.

    Raises:
        UserError: an impossible option; no such folder, config or tokenizer.
    """
    if cfg.get("lavis_checkpoint") or cfg.get("pretrained") and cfg.pretrained != "smol":
        return cls.without_weights(plain(cfg))
    tokenizer = STAND_IN  # type smol's comes out of a large file
    if not cfg.get("pretrained"):
        tokenizer = CONFIGS / "tokenizers" / cfg.tokenizer / "tokenizer.json"
    with shapes_only():
        section = plain(cfg)
        return cls(config=values(section, cls.SHAPE), tokenizer=tokenizer, **values(section, cls.OPTIONS))


def check_weights_of(model: NewsModel, cfg: DictConfig) -> str:
    """Where the weights come from, in words, once they are there and fit.

    Args:
        model: Before `NewsModel.set_up`: LoRA is in no published weights.
        cfg: The section ``model``.

    Raises:
        UserError: weights are missing, broken, or of another model.
    """
    if files := lavis_files(cfg):
        return f"weights of LAVIS: {', '.join(map(str, files))}; language model of {cfg.language_model}"
    if not cfg.get("pretrained"):
        return "random weights"
    if cfg.pretrained == "smol":
        smol.package_file(*smol.LLM_FILE)
        smol.package_file(*smol.BERT_FOLDER, "model.safetensors")
        return "weights of the packages of type smol; image encoder and cross-attention random"
    folder = fetch(cfg.pretrained, weights=False, key="model.pretrained")
    if Path(cfg.pretrained).expanduser().is_dir() or has_weights(folder):
        shapes = {name: shape for path in shards(folder) for name, shape in read_header(path)[0].items()}
        note = "which fit"
    else:
        shapes, missing = hub_shapes(cfg.pretrained)
        note = f"which fit; {format_bytes(missing)} will be downloaded"
    match_names(model, shapes, f"model.pretrained: {cfg.pretrained}")
    return f"weights of {cfg.pretrained}, {note}"


def has_weights(folder: Path) -> bool:
    try:
        return bool(shards(folder))
    except UserError:
        return False


def read_header(path: Path) -> tuple[Shapes, dict[str, str]]:
    """Names, shapes and metadata of a safetensors file; its tensors are not read.

    Raises:
        UserError: it is none, or breaks off.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: it is no safetensors file ({error}); fetch it again") from None


def hub_shapes(source: str) -> tuple[Shapes, int]:
    """Names and shapes of a hub's weights, and their bytes; only headers are fetched.

    Raises:
        UserError: the hub does not give them.
    """
    from huggingface_hub import get_safetensors_metadata

    name, _, revision = source.partition("@")
    try:
        files = get_safetensors_metadata(name, revision=revision or None).files_metadata.values()
    except Exception as error:  # each version of huggingface_hub reports through another network library
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"model.pretrained: {source!r}: its weights are not here, and the hub does not give them "
            f"({reason[:200]}); connect (unset HF_HUB_OFFLINE), log in if it is gated, or give a local folder"
        ) from None
    tensors = {key: info for file in files for key, info in file.tensors.items()}
    missing = sum(info.data_offsets[1] - info.data_offsets[0] for info in tensors.values())
    return {key: tuple(info.shape) for key, info in tensors.items()}, missing


def checkpoints(cfg: DictConfig, run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Config key and path of what is loaded after the pretrained weights, in that order."""
    found = []
    if cfg.get("load_finetuned"):
        found.append(("model.finetuned", str(cfg.get("finetuned") or "")))
    if path := run.get("resume_ckpt_path"):
        found.append(("run.resume_ckpt_path", str(path)))
    return found


def check_checkpoint(model: NewsModel, key: str, path: str) -> None:
    """Refuse what `NewsModel.load_checkpoint` would refuse, by the read_header alone.

    Raises:
        UserError: no such file, no safetensors, or a checkpoint of another recipe or model.
    """
    resumed = key == "run.resume_ckpt_path"
    if not path or not (Path(path).exists() if resumed else Path(path).is_file()):
        raise UserError(f"{key}: {path!r}: no such file, expected a checkpoint of a training run")
    shapes, metadata = read_header(weights_of(path) if resumed else Path(path))
    if model.recipe:
        check_metadata(path, metadata, model.recipe)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wrong = {
        "missing": sorted(set(model.trainable_state()) - set(shapes)),
        "unknown": sorted(set(shapes) - set(own)),
        "of another shape": [name for name in shapes if name in own and shapes[name] != own[name]],
    }
    if any(wrong.values()):
        found = "; ".join(
            f"{len(names)} {what}: {first_names(names)}" for what, names in wrong.items() if names
        )
        raise UserError(
            f"{key}: {path}: weights of another model ({found}); use the model.model_type it was trained with"
        )
