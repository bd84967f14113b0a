"""Checkpoints of a run: folders that are whole or absent, and without a pickle in them.

::

    <run folder>/checkpoints/
        iter_000400/              never changed once it has this name
            manifest.json         what it is, and bytes and SHA-256 of the other files
            weights.safetensors   the trained weights, whole, with the model's recipe as metadata
            optimizer.safetensors the optimiser's tensors, "<parameter>/<key>"; or, sharded:
            shards/*.safetensors  the same, each process its part (torch.distributed.checkpoint)
            state.json            everything else: groups of the optimiser, values, what each process adds
        last -> iter_000400       the newest
        best -> iter_000200       the one with the highest metric

A checkpoint is written as ``iter_000400.part``, synced to the disk, and renamed. One that is deleted becomes
``iter_000400.trash`` first. A process that is killed leaves one of these two, which no reader takes for a
checkpoint and which the next `CheckpointStore.save` removes. The links are for people: what is newest or
best is read from the manifests.

Methods and functions that say so are collective: all processes of the default group call them.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import logging
import math
import os
import platform
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.shards.write import PART, whole, write_whole

T = TypeVar("T")

FORMAT = 1
FOLDER, MANIFEST, WEIGHTS = "checkpoints", "manifest.json", "weights.safetensors"
OPTIMIZER, SHARDS, STATE = "optimizer.safetensors", "shards", "state.json"
TRASH = ".trash"
NAME = re.compile(r"iter_\d{6,}(-\d+)?")
MAX_JSON_BYTES = 64 << 20
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and what its manifest says.

    The manifest holds ``format``, ``number`` (1 for a run's first, 2 for the next, whatever the iteration),
    ``iters``, ``metric`` (None: none was measured), ``versions``, ``world_size``, ``sharded``, ``files``
    (path → bytes, sha256), and what the caller added: ``config``, ``data``, ``revision``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def iters(self) -> int:
        """Iterations done."""
        return self.manifest["iters"]

    @property
    def metric(self) -> float | None:
        """Higher is better."""
        return self.manifest["metric"]

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compare files with the manifest: these, or all.

        Raises:
            UserError: a file is missing or has changed.
        """
        files = self.manifest["files"]
        names = list(files if names is None else names)
        for name in names:
            path, size = self.folder / name, files[name]["bytes"]
            if not path.is_file():
                raise UserError(f"{path}: the file is missing; use another checkpoint")
            if path.stat().st_size != size:
                raise UserError(
                    f"{path}: {path.stat().st_size} bytes found, {size} expected by {MANIFEST}; use another "
                    "checkpoint"
                )
        try:
            rows = _rows(self.folder, names)
        except OSError as error:
            raise UserError(
                f"{self.folder}: its files cannot be read ({error.strerror}); use another checkpoint"
            ) from None
        for name, row in rows.items():
            if row["sha256"] != files[name]["sha256"]:
                raise UserError(
                    f"{self.folder / name}: its SHA-256 is not the one in {MANIFEST}, the file was damaged "
                    "or changed; use another checkpoint"
                )


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: The run's ``checkpoints`` folder; made by the first `save`.
        keep_last: So many of the newest stay.
        keep_best: So many with the highest metric stay, too.

    Raises:
        UserError: one of the two is below 1.
    """

    def __init__(self, folder: Path, keep_last: int = 1, keep_best: int = 1) -> None:
        for key, value in (("keep_last", keep_last), ("keep_best", keep_best)):
            if value < 1:
                raise UserError(f"run.{key}: {value} found; at least 1 expected")
        self.folder, self.keep_last, self.keep_best = Path(folder), keep_last, keep_best

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        iters: int,
        metric: float | None,
        values: Mapping[str, Any],
        per_rank: Mapping[str, Any],
        manifest: Mapping[str, Any],
        sharded: bool = False,
    ) -> None:
        """Write a checkpoint, then remove those that need not be kept. Collective.

        Args:
            model: The model itself, not DistributedDataParallel around it; FSDP2 (`fully_shard`) is fine.
            optimizer: Of the model's parameters.
            iters: Iterations done.
            metric: Of a validation of these very weights; higher is better; None: there was none.
            values: JSON values that all processes share: scheduler, scaler, best metric.
            per_rank: JSON values of this process: random states, place in its stream.
            manifest: ``config`` (JSON values), ``data``, ``revision``; see `Checkpoint`.
            sharded: Each process writes its part of the optimiser; for FSDP, on a disk that all share.

        Raises:
            UserError: it cannot be written. All processes raise it, the earlier checkpoints stay as they
                were and nothing else is left behind.
        """
        weights = _gathered(_trained(model))
        tensors, state = _optimizer_state(model, optimizer)
        if not sharded:
            tensors = _gathered(tensors)
        state |= {"values": dict(values), "ranks": _of_all(dict(per_rank))}
        record = {
            **{"config": {}, "data": None, "revision": None},
            **manifest,
            **{"format": FORMAT, "iters": iters, "versions": _versions(), "world_size": _world_size()},
            "metric": metric if metric is not None and math.isfinite(metric) else None,
            "sharded": sharded,
            "files": {},
        }

        def write(part: Path) -> None:
            _write_tensors(part / WEIGHTS, weights, getattr(model, "recipe", None) or None)
            if not sharded:
                _write_tensors(part / OPTIMIZER, tensors)
            write_whole(part / STATE, json.dumps(state).encode())
            self._finish(part, record)

        part: Path | None = None
        try:
            part = folder = _from_first(lambda: self._begin(iters))
            if sharded:
                record["files"] |= _write_shards(folder, tensors)
            _from_first(lambda: write(folder))
        except UserError as error:
            if part is not None and _rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
            raise UserError(f"checkpoint of iteration {iters}: {error}") from None

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole; what is broken is passed over with a warning. Collective."""
        return _from_first(lambda: _first_whole(self._by_age()))

    def best(self) -> Checkpoint | None:
        """The one of highest metric that is whole; of equal ones the first. Collective."""
        return _from_first(lambda: _first_whole(_by_metric(self._by_age())))

    def load(
        self, checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Put a checkpoint back into model and optimiser. Collective.

        It need not have been written by as many processes, nor by a model that was sharded like this one.

        Returns:
            ``values``, and the ``per_rank`` of each process that wrote it.

        Raises:
            UserError: it belongs to another model or optimiser. All processes raise it; model and optimiser
                may have been changed by then.
        """
        folder, sharded = checkpoint.folder, checkpoint.manifest["sharded"]
        state, tensors = _everywhere(lambda: _read_state(checkpoint, model, optimizer))
        load_weights(checkpoint.weights, model)
        _fill(tensors, SHARDS if sharded else OPTIMIZER, folder)
        _everywhere(lambda: _set_optimizer(model, optimizer, state, tensors))
        return state["values"], state["ranks"]

    # On the first process only

    def _by_age(self, log: bool = True) -> list[Checkpoint]:
        """All with a manifest, the newest first."""
        found = []
        for folder in sorted(self.folder.glob("iter_*")):
            if NAME.fullmatch(folder.name):
                try:
                    found.append(_read(folder))
                except UserError as error:
                    if log:
                        logging.warning("%s", error)
        return sorted(found, key=lambda checkpoint: checkpoint.manifest["number"], reverse=True)

    def _begin(self, iters: int) -> Path:
        """Make room; returns the folder to write to."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (*self.folder.glob(f"*{PART}"), *self.folder.glob(f"*{TRASH}")):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            name, again = f"iter_{iters:06d}", 2
            # A run that went back to an older checkpoint passes here a second time.
            while (self.folder / name).exists():
                name, again = f"iter_{iters:06d}-{again}", again + 1
            part = self.folder / f"{name}{PART}"
            part.mkdir()
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        return part

    def _finish(self, part: Path, record: dict[str, Any]) -> None:
        """Write the manifest and give the folder its name."""
        try:
            names = sorted(path.name for path in part.iterdir() if path.is_file())
            record["files"] |= _rows(part, names)
            record["number"] = 1 + max((c.manifest["number"] for c in self._by_age(log=False)), default=0)
            write_whole(part / MANIFEST, (json.dumps(record, indent=1) + "\n").encode())
            _sync(part)
            target = part.with_name(part.name.removesuffix(PART))
            os.rename(part, target)
        except OSError as error:
            raise _unwritable(part, error) from None
        self._tidy(target.name)

    def _tidy(self, newest: str) -> None:
        """Links, and what can go; the checkpoint is there by now, so failures are only told."""
        try:
            _sync(self.folder)  # only what the disk keeps takes the place of others
            by_age = self._by_age(log=False)
            best = _by_metric(by_age)
            self._link("last", newest)
            if best:
                self._link("best", best[0].folder.name)
            links = [self.folder / name for name in ("last", "best")]
            kept = {os.readlink(link) for link in links if link.is_symlink()}
            kept |= {c.folder.name for c in (*by_age[: self.keep_last], *best[: self.keep_best])}
            for checkpoint in by_age:
                if checkpoint.folder.name not in kept:
                    trash = checkpoint.folder.with_name(checkpoint.folder.name + TRASH)
                    os.rename(checkpoint.folder, trash)
                    shutil.rmtree(trash)
        except OSError as error:
            logging.warning(
                "%s: old checkpoints or the links cannot be brought up to date (%s)", self.folder, error
            )

    def _link(self, name: str, target: str) -> None:
        link = self.folder / name
        if link.is_symlink() and os.readlink(link) == target:
            return
        new = self.folder / f".{name}{PART}"
        new.unlink(missing_ok=True)
        os.symlink(target, new)
        os.replace(new, link)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into the model, which may be sharded. Collective.

    Raises:
        UserError: they belong to another model, or the file cannot be read.
    """
    if any(_is_sharded(parameter) for parameter in model.parameters()):
        _fill(_trained(model), path.name, path.parent)
    else:
        _everywhere(lambda: model.load_checkpoint(path))


def find(path: str | Path, *, best: bool = False) -> Checkpoint:
    """The whole checkpoint that a user means. Collective.

    Args:
        path: A run's folder or its ``checkpoints`` (the newest in it), one checkpoint's folder, a link
            ``last`` or ``best`` to it, or a file in it.
        best: Of a run take the one with the highest metric, where one was measured.

    Raises:
        UserError: there is none, or the one that was named is broken.
    """
    return _from_first(lambda: _found(path, best, None))


def weights_of(path: str | Path) -> Path:
    """The .safetensors file that a user means: itself, or that of a checkpoint; of a run's the best.

    See `find`; but only the weights have to be whole, and each process looks by itself.

    Raises:
        UserError: there are none.
    """
    given = Path(path).expanduser()
    if given.suffix == ".safetensors" and given.is_file():
        return given
    return _found(given, True, [WEIGHTS]).weights


# Keys of a config that may differ from the checkpoint's: how it is computed, where things are.
FREE = (
    *("model.attn_implementation", "model.batching", "model.compile", "model.gradient_checkpointing"),
    *("model.max_tokens", "model.padding_waste", "model.pretrained", "model.load_pretrained"),
    *("model.finetuned", "model.load_finetuned"),
    *(
        "datasets.*.build_info.*",
        "datasets.*.splits",
        "datasets.*.limit",
        "datasets.*.limit.*",
        "datasets.*.max_skipped",
    ),
    *("datasets.*.other_image", "datasets.*_processor.eval*"),
    "run.*",
)
# Of these nobody needs to hear.
SILENT = (
    *("run.output_dir", "run.resume*", "run.device", "run.gpu", "run.rank", "run.world_size", "run.dist*"),
    *("run.log_freq", "run.evaluate", "run.num_workers"),
)


def check_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[str]:
    """Compare the config of a checkpoint with today's.

    Model and data must be the same, but for how they are computed and where they are (`FREE`).

    Args:
        checkpoint: Its manifest has the ``config``.
        config: Today's as plain JSON values: ``model``, ``datasets``, ``run``.

    Returns:
        Differences that do no harm, to be told: "run.init_lr: 0.001 when the checkpoint was saved, 0.01 now".

    Raises:
        UserError: model or data differ; the first keys, what they were and are.
    """
    before, now = (dict(_leaves(json.loads(json.dumps(c)))) for c in (checkpoint.manifest["config"], config))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key) and not _fits(key, SILENT)]
    told = {
        key: f"{key}: {_short(before.get(key))} when the checkpoint was saved, {_short(now.get(key))} now"
        for key in keys
    }
    # Another version may know keys that this one doesn't; they had their default then.
    same = checkpoint.manifest["versions"].get("ealign_plugin") == _versions()["ealign_plugin"]
    wrong = [key for key in keys if not _fits(key, FREE) and (same or (key in before and key in now))]
    if wrong:
        more = f" ({len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(
            f"{checkpoint.folder}: a checkpoint of another config: "
            f"{'; '.join(told[key] for key in wrong[:3])}{more}; set them back to resume, or start anew from "
            "its weights (model.load_finetuned: true and "
            f"model.finetuned: {checkpoint.weights})"
        )
    return list(told.values())


def pack_rng() -> dict[str, Any]:
    """The states of all random generators of this process as JSON values; see `unpack_rng`."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    kind, array, position, has_gauss, cached = legacy
    packed: dict[str, Any] = {
        "torch": _encoded(torch.get_rng_state()),
        "python": [version, list(words), gauss],
        "numpy": [kind, array.tolist(), position, has_gauss, cached],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        packed["cuda"] = _encoded(torch.cuda.get_rng_state())
    return packed


def unpack_rng(packed: Mapping[str, Any]) -> None:
    """Set the random generators; that of the GPU where both had one.

    Raises:
        UserError: these are no states of theirs.
    """
    try:
        version, words, gauss = packed["python"]
        random.setstate((version, tuple(words), gauss))
        kind, array, *rest = packed["numpy"]
        np.random.set_state((kind, np.array(array, dtype=np.uint32), *rest))
        torch.set_rng_state(_decoded(packed["torch"]))
        if "cuda" in packed and torch.cuda.is_available():
            torch.cuda.set_rng_state(_decoded(packed["cuda"]))
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"checkpoint, {STATE}: the random states cannot be read ({error}); use another checkpoint"
        ) from None


# Reading


def _read(folder: Path) -> Checkpoint:
    """Raises UserError where the manifest is missing, torn, or of another format."""
    path = folder / MANIFEST
    manifest = _read_json(path)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {manifest.get('format')!r} found, {FORMAT} expected; update ealign-plugin or "
            "use another checkpoint"
        )
    files = manifest.get("files") or {}
    fits = (
        all(_is(manifest.get(key), int) for key in ("iters", "number", "world_size"))
        and (manifest.get("metric") is None or _is(manifest["metric"], int | float))
        and all(isinstance(manifest.get(key), dict) for key in ("config", "versions", "files"))
        and isinstance(manifest.get("sharded"), bool)
        and all(_is_row(name, row) for name, row in files.items())
        and {WEIGHTS, STATE} <= set(files)
    )
    if not fits:
        raise UserError(f"{path}: it is no manifest of a checkpoint; use another checkpoint")
    return Checkpoint(folder, manifest)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_row(name: str, row: Any) -> bool:
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return (
        inside and isinstance(row, dict) and _is(row.get("bytes"), int) and isinstance(row.get("sha256"), str)
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {size:,} bytes found, at most {MAX_JSON_BYTES:,} expected")
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); use another checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: it is no JSON ({error}); use another checkpoint") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: a JSON object expected; use another checkpoint")
    return record


def _first_whole(checkpoints: Iterable[Checkpoint], names: Sequence[str] | None = None) -> Checkpoint | None:
    for checkpoint in checkpoints:
        try:
            checkpoint.check(names)
        except UserError as error:
            logging.warning("%s; passing over the checkpoint of iteration %d", error, checkpoint.iters)
        else:
            return checkpoint
    return None


def _by_metric(by_age: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those with a metric, the highest first, of equal ones the older first."""
    measured = [checkpoint for checkpoint in reversed(by_age) if checkpoint.metric is not None]
    return sorted(measured, key=lambda checkpoint: checkpoint.metric or 0.0, reverse=True)


def _found(path: str | Path, best: bool, names: Sequence[str] | None) -> Checkpoint:
    given = Path(path).expanduser()
    folder = given.resolve()
    if not folder.exists():
        raise UserError(f"checkpoint {str(path)!r}: no such file or folder; give a run's folder or {_KINDS}")
    if folder.is_file():
        folder = folder.parent
    if folder.name == SHARDS and (folder.parent / MANIFEST).is_file():
        folder = folder.parent
    if (folder / MANIFEST).is_file() or NAME.fullmatch(folder.name):
        checkpoint = _read(folder)
        checkpoint.check(names)
        return checkpoint
    if given.is_file():
        raise UserError(
            f"checkpoint {str(path)!r}: a file without {MANIFEST} beside it; to resume give {_KINDS}; to "
            "start from weights alone set model.load_finetuned: true and model.finetuned"
        )
    for place in (folder, folder / FOLDER):
        checkpoints = CheckpointStore(place)._by_age()
        first = _by_metric(checkpoints) if best else []
        chosen = _first_whole([*first, *(c for c in checkpoints if c not in first)], names)
        if chosen:
            return chosen
    raise UserError(f"checkpoint {str(path)!r}: no whole checkpoint in it; give a run's folder or {_KINDS}")


_KINDS = f"a folder in its {FOLDER}: last, best or one of iter_*"


def _read_state(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What state.json holds, and tensors to be filled with the optimiser's state."""
    path = checkpoint.folder / STATE
    state = _read_json(path)
    parameters = dict(model.named_parameters())
    try:
        before = [sorted(group["params"]) for group in state["groups"]]
        shapes = {name: (DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in state["tensors"].items()}
        owners = {name.rpartition("/")[0] for name in (*shapes, *state["plain"])}
        size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values())
        if not isinstance(state["values"], dict) or not isinstance(state["ranks"], list):
            raise TypeError("values or ranks")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: it is no state of a checkpoint ({error}); use another checkpoint") from None
    now = [sorted(group["params"]) for group in _groups(model, optimizer)]
    for number, (then, today) in enumerate(zip(before, now, strict=False)):
        if then != today:
            name = sorted(set(then) ^ set(today))[0]
            raise UserError(
                f"{path}: group {number} of the optimiser has {len(then)} parameters in the checkpoint, "
                f"{len(today)} now; the first that differs is {name}; set model.trainable and run.lrs back, "
                "or start anew from the weights (model.load_finetuned and model.finetuned)"
            )
    if len(before) != len(now):
        raise UserError(
            f"{path}: {len(before)} groups of the optimiser in the checkpoint, {len(now)} now; set "
            "model.trainable and run.lrs back"
        )
    if not owners <= {name for group in now for name in group}:
        raise UserError(
            f"{path}: it has the state of parameters that are not trained; use another checkpoint"
        )
    if size > sum(row["bytes"] for row in checkpoint.manifest["files"].values()):
        raise UserError(
            f"{path}: tensors of {size:,} bytes expected, the files are smaller; use another checkpoint"
        )
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        parameter = parameters[name.rpartition("/")[0]]
        like = tuple(parameter.shape) == shape
        tensors[name] = (
            torch.empty_like(parameter, dtype=dtype, requires_grad=False)
            if like
            else torch.empty(shape, dtype=dtype)
        )
    return state, tensors


def _fill(tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    """Read tensors from a file, or from shards, in place. Collective."""
    if not tensors:
        return
    if name != SHARDS and not any(map(_is_sharded, tensors.values())):
        _everywhere(lambda: _fill_from_file(tensors, folder / name))
        return
    checkpoint = _distributed_checkpoint()
    # A file beside the wanted one does no harm: names are looked up among those of all files.
    place = folder / SHARDS if name == SHARDS else folder
    try:
        reader = checkpoint.HuggingFaceStorageReader(str(place))
        checkpoint.load(tensors, storage_reader=reader)
    except (checkpoint.CheckpointException, SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / name}: it does not fit the model ({_cause(error)}); use another checkpoint"
        ) from None


def _fill_from_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for name, tensor in tensors.items():
                found = file.get_tensor(name)
                if found.shape != tensor.shape:
                    raise UserError(f"{path}: {name} is {list(found.shape)}, {list(tensor.shape)} expected")
                tensor.copy_(found)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); use another checkpoint") from None


def _set_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    names = [name for group in _groups(model, optimizer) for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *saved["plain"].items()):
        parameter, _, key = name.rpartition("/")
        state.setdefault(numbers[parameter], {})[key] = value
    groups = []
    for before, group in zip(saved["groups"], _groups(model, optimizer), strict=True):
        # JSON knows no tuples; AdamW's betas are one.
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in before.items()}
        groups.append({**values, "params": [numbers[name] for name in group["params"]]})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


# Writing


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return model.trainable_state() if hasattr(model, "trainable_state") else model.state_dict()


def _groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups with names instead of parameters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]


def _optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors "<parameter>/<key>", and the rest as JSON values; without gradients so far there is nothing."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                kept: dict[str, Any] = tensors if isinstance(value, Tensor) else plain
                kept[f"{names[parameter]}/{key}"] = value
    shapes = {n: (str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in tensors.items()}
    return tensors, {"groups": _groups(model, optimizer), "plain": plain, "tensors": shapes}


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the first process whole tensors on the CPU, on others nothing. Collective."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if _is_sharded(tensor) else tensor
        if _rank() == 0:
            found[name] = full.detach().cpu().contiguous()
    return found


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # DTensor, which has moved between modules of torch


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    with whole(path) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None
        _sync(part)


def _write_shards(part: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Each process its part; returns the rows for the manifest. Collective."""
    checkpoint, folder = _distributed_checkpoint(), part / SHARDS

    def look() -> None:
        if not part.is_dir():
            raise UserError(
                f"{part}: process {_rank()} on {platform.node()} does not see it; set run.output_dir to a "
                "folder that all machines share"
            )

    _everywhere(look)
    try:
        writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        checkpoint.save(tensors, storage_writer=writer)
    except checkpoint.CheckpointException as error:
        raise UserError(
            f"{folder}: it cannot be written ({_cause(error)}); make room or choose another folder"
        ) from None

    def rows() -> dict[str, dict[str, Any]]:
        try:
            if _rank() == 0:
                _sync(folder)
            own = sorted(path.name for path in folder.glob(f"shard-{_rank() + 1:05d}-*"))
            return _rows(part, [f"{SHARDS}/{name}" for name in own])
        except OSError as error:
            raise _unwritable(folder, error) from None

    return {name: row for own in _of_all(_everywhere(rows)) for name, row in own.items()}


def _distributed_checkpoint() -> Any:
    import torch.distributed.checkpoint as checkpoint  # takes a second

    if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
        raise UserError(
            f"torch {torch.__version__}: too old for sharded checkpoints; update it (2.13 will do)"
        )
    return checkpoint


def _rows(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of files."""

    def row(name: str) -> dict[str, Any]:
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(names, pool.map(row, names), strict=True))


def _sync(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: it cannot be written ({error.strerror or error}); make room or choose another folder"
    )


def _cause(error: BaseException) -> str:
    """One line; of an exception that stands for those of several processes the first."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    return str(getattr(error, "strerror", None) or error or type(error).__name__).split("\n")[0][:200]


def _versions() -> dict[str, str | None]:
    def known(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = {name: known(name.replace("_", "-")) for name in ("ealign_plugin", "torch", "transformers")}
    return {**packages, "python": platform.python_version()}


def _encoded(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decoded(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)


# Configs


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key → value; lists are values, and what is empty is as good as missing."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif values not in (None, [], ""):
        yield key, values


def _fits(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


# Processes


def _rank() -> int:
    return dist.get_rank() if _world_size() > 1 else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _of_all(value: T) -> list[T]:
    """The value of each process."""
    values = [value] * _world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def _everywhere(work: Callable[[], T]) -> T:
    """Work on every process; where it fails on one, all of them raise, so that none waits for another."""
    try:
        result, failure = work(), None
    except Exception as error:
        failure = error
    messages = _of_all(None if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    for message in messages:
        if message is not None:
            raise UserError(message)
    return result


def _from_first(work: Callable[[], T]) -> T:
    """The result of the first process, the only one that works."""
    result = _everywhere(lambda: work() if _rank() == 0 else None)
    return _of_all(result)[0]  # type: ignore[return-value]
