"""The checkpoints of a run: written, kept, found and read back."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ealign_plugin.checkpoints.manifest import (
    DTYPES,
    FOLDER,
    FORMAT,
    MANIFEST,
    NAME,
    OPTIMIZER,
    SHARDS,
    STATE,
    TRASH,
    WEIGHTS,
    Checkpoint,
    file_rows,
    read_checkpoint,
    read_json,
    versions,
)
from ealign_plugin.errors import UserError
from ealign_plugin.host.distributed import everywhere, from_first, gathered, rank, world_size
from ealign_plugin.shards.write import PART, whole, write_whole


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
        weights = _whole_tensors(_trained(model))
        tensors, state = _optimizer_state(model, optimizer)
        if not sharded:
            tensors = _whole_tensors(tensors)
        state |= {"values": dict(values), "ranks": gathered(dict(per_rank))}
        record = {
            **{"config": {}, "data": None, "revision": None},
            **manifest,
            **{"format": FORMAT, "iters": iters, "versions": versions(), "world_size": world_size()},
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
            part = folder = from_first(lambda: self._begin(iters))
            if sharded:
                record["files"] |= _write_shards(folder, tensors)
            from_first(lambda: write(folder))
        except UserError as error:
            if part is not None and rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
            raise UserError(f"checkpoint of iteration {iters}: {error}") from None

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole; what is broken is passed over with a warning. Collective."""
        return from_first(lambda: _first_whole(self._by_age()))

    def best(self) -> Checkpoint | None:
        """The one of highest metric that is whole; of equal ones the first. Collective."""
        return from_first(lambda: _first_whole(_by_metric(self._by_age())))

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
        state, tensors = everywhere(lambda: _read_state(checkpoint, model, optimizer))
        load_weights(checkpoint.weights, model)
        _fill(tensors, SHARDS if sharded else OPTIMIZER, folder)
        everywhere(lambda: _set_optimizer(model, optimizer, state, tensors))
        return state["values"], state["ranks"]

    # On the first process only

    def _by_age(self, log: bool = True) -> list[Checkpoint]:
        """All with a manifest, the newest first."""
        found = []
        for folder in sorted(self.folder.glob("iter_*")):
            if NAME.fullmatch(folder.name):
                try:
                    found.append(read_checkpoint(folder))
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
            record["files"] |= file_rows(part, names)
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
        everywhere(lambda: model.load_checkpoint(path))


def find(path: str | Path, *, best: bool = False) -> Checkpoint:
    """The whole checkpoint that a user means. Collective.

    Args:
        path: A run's folder or its ``checkpoints`` (the newest in it), one checkpoint's folder, a link
            ``last`` or ``best`` to it, or a file in it.
        best: Of a run take the one with the highest metric, where one was measured.

    Raises:
        UserError: there is none, or the one that was named is broken.
    """
    return from_first(lambda: _found(path, best, None))


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


# Reading


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
    """Those with a metric, the highest first, of equal ones the older first.

    Of an iteration the newest: the older one was broken when the run went on before it.
    """
    measured = {c.iters: c for c in reversed(by_age) if c.metric is not None}
    return sorted(measured.values(), key=lambda checkpoint: checkpoint.metric or 0.0, reverse=True)


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
        checkpoint = read_checkpoint(folder)
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
    state = read_json(path)
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
        everywhere(lambda: _fill_from_file(tensors, folder / name))
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
        # Today's options hold: whoever changed a rate on the way wants it.
        groups.append({**before, **group, "params": [numbers[name] for name in group["params"]]})
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


def _whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the first process whole tensors on the CPU, on others nothing. Collective."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if _is_sharded(tensor) else tensor
        if rank() == 0:
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
                f"{part}: process {rank()} on {platform.node()} does not see it; set run.output_dir to "
                "a folder that all machines share"
            )

    everywhere(look)
    try:
        writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        checkpoint.save(tensors, storage_writer=writer)
    except checkpoint.CheckpointException as error:
        raise UserError(
            f"{folder}: it cannot be written ({_cause(error)}); make room or choose another folder"
        ) from None

    def rows() -> dict[str, dict[str, Any]]:
        try:
            if rank() == 0:
                _sync(folder)
            own = sorted(path.name for path in folder.glob(f"shard-{rank() + 1:05d}-*"))
            return file_rows(part, [f"{SHARDS}/{name}" for name in own])
        except OSError as error:
            raise _unwritable(folder, error) from None

    return {name: row for own in gathered(everywhere(rows)) for name, row in own.items()}


def _distributed_checkpoint() -> Any:
    import torch.distributed.checkpoint as checkpoint  # takes a second

    if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
        raise UserError(
            f"torch {torch.__version__}: too old for sharded checkpoints; update it (2.13 will do)"
        )
    return checkpoint


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
