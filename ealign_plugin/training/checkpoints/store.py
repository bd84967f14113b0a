"""The checkpoints of a run: writing them, keeping the best ones, finding one, reading it back."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ealign_plugin.distributed import all_gather_object, rank, run_on_all_ranks, run_on_first_rank, world_size
from ealign_plugin.errors import UserError
from ealign_plugin.files import PART, atomic_write, cannot_write
from ealign_plugin.training.checkpoints.manifest import (
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
    check_names_of_files,
    file_rows,
    read_checkpoint,
    versions,
    write_manifest,
)
from ealign_plugin.training.checkpoints.optimizer_state import optimizer_state, read_state, set_optimizer
from ealign_plugin.training.checkpoints.tensors import (
    load_tensors_into,
    load_weights,
    sync_to_disk,
    trained_state,
    whole_tensors,
    write_shards,
    write_tensors,
)

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


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
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        """Write a checkpoint, then remove those that need not be kept. Collective.

        Args:
            model: The model itself, not DistributedDataParallel around it; FSDP2 (`fully_shard`) is fine.
            optimizer: Of the model's parameters.
            iters: Iterations done.
            metric: Of a validation of these very weights; higher is better; None: there was none.
            values: JSON values that all processes share: scheduler, scaler, best metric.
            per_rank: JSON values of this process: random states, position in its stream.
            manifest: ``config`` (JSON values), ``data``, ``revision``; see `Checkpoint`.
            sharded: Each process writes its part of the optimiser; for FSDP, on a disk that all share.
            files: Name → content of small files to lie beside the weights; the manifest names them too.

        Raises:
            ValueError: ``files`` has a name that is no plain name of a file, or that a checkpoint uses.
            UserError: it cannot be written. All processes raise it, the earlier checkpoints stay as they
                were and nothing else is left behind.
        """
        check_names_of_files(files)
        weights = whole_tensors(trained_state(model))
        tensors, state = optimizer_state(model, optimizer)
        if not sharded:
            tensors = whole_tensors(tensors)
        state |= {"values": dict(values), "ranks": all_gather_object(dict(per_rank))}
        record = {
            **{"config": {}, "data": None, "revision": None},
            **manifest,
            **{"format": FORMAT, "iters": iters, "versions": versions(), "world_size": world_size()},
            "metric": metric if metric is not None and math.isfinite(metric) else None,
            "sharded": sharded,
            "files": {},
        }

        def write(part: Path) -> None:
            write_tensors(part / WEIGHTS, weights, getattr(model, "recipe", None) or None)
            if not sharded:
                write_tensors(part / OPTIMIZER, tensors)
            atomic_write(part / STATE, json.dumps(state).encode())
            for name, content in files.items():
                atomic_write(part / name, content)
            self._finish(part, record)

        part: Path | None = None
        try:
            part = folder = run_on_first_rank(lambda: self._begin(iters))
            if sharded:
                record["files"] |= write_shards(folder, tensors)
            run_on_first_rank(lambda: write(folder))
        except UserError as error:
            if part is not None and rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
            raise UserError(f"checkpoint of iteration {iters}: {error}") from None

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole; what is broken is passed over with a warning. Collective."""
        return run_on_first_rank(lambda: _first_whole(self._by_age()))

    def best(self) -> Checkpoint | None:
        """The one of highest metric that is whole; of equal ones the first. Collective."""
        return run_on_first_rank(lambda: _first_whole(_by_metric(self._by_age())))

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
        state, tensors = run_on_all_ranks(lambda: read_state(checkpoint, model, optimizer))
        load_weights(checkpoint.weights, model)
        load_tensors_into(tensors, SHARDS if sharded else OPTIMIZER, folder)
        run_on_all_ranks(lambda: set_optimizer(model, optimizer, state, tensors))
        return state["values"], state["ranks"]

    def replace_files(self, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
        """Write small files into a checkpoint, in place of those of the same name. Collective.

        At every moment the checkpoint is whole: its manifest names the files of either before or after, or
        leaves them out.

        Args:
            checkpoint: One that is whole.
            files: As of `save`.

        Raises:
            ValueError: as of `save`.
            UserError: they cannot be written.
        """
        check_names_of_files(files)
        run_on_first_rank(lambda: _replace_files(checkpoint, files))

    # On the first process only

    def _by_age(self, log: bool = True) -> list[Checkpoint]:
        """All with a manifest, the newest first."""
        checkpoints = []
        for folder in sorted(self.folder.glob("iter_*")):
            if NAME.fullmatch(folder.name):
                try:
                    checkpoints.append(read_checkpoint(folder))
                except UserError as error:
                    if log:
                        logging.warning("%s", error)
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.manifest["number"], reverse=True)

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
            raise cannot_write(self.folder, error) from None
        return part

    def _finish(self, part: Path, record: dict[str, Any]) -> None:
        """Write the manifest and give the folder its name."""
        try:
            names = sorted(path.name for path in part.iterdir() if path.is_file())
            record["files"] |= file_rows(part, names)
            record["number"] = 1 + max((c.manifest["number"] for c in self._by_age(log=False)), default=0)
            write_manifest(part, record)
            sync_to_disk(part)
            target = part.with_name(part.name.removesuffix(PART))
            os.rename(part, target)
        except OSError as error:
            raise cannot_write(part, error) from None
        self._tidy(target.name)

    def _tidy(self, newest: str) -> None:
        """Links, and what can go; the checkpoint is there by now, so failures are only logged."""
        try:
            sync_to_disk(self.folder)  # only what the disk keeps takes the place of others
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


def find_checkpoint(path: str | Path, *, best: bool = False) -> Checkpoint:
    """The whole checkpoint that a user means. Collective.

    Args:
        path: A run's folder or its ``checkpoints`` (the newest in it), one checkpoint's folder, a link
            ``last`` or ``best`` to it, or a file in it.
        best: Of a run take the one with the highest metric, where one was measured.

    Raises:
        UserError: there is none, or the one that was named is broken.
    """
    return run_on_first_rank(lambda: _find(path, best, None))


def find_weights(path: str | Path) -> Path:
    """The .safetensors file that a user means: itself, or that of a checkpoint; of a run's the best.

    See `find_checkpoint`; but only the weights have to be whole, and each process looks by itself.

    Raises:
        UserError: there are none.
    """
    named = Path(path).expanduser()
    if named.suffix == ".safetensors" and named.is_file():
        return named
    return _find(named, True, [WEIGHTS]).weights


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


def _replace_files(checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
    folder, manifest = checkpoint.folder, checkpoint.manifest
    others = {name: row for name, row in manifest["files"].items() if name not in files}
    write_manifest(folder, {**manifest, "files": others})
    for name, content in files.items():
        atomic_write(folder / name, content)
    write_manifest(folder, {**manifest, "files": others | file_rows(folder, list(files))})


def _by_metric(by_age: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those with a metric, the highest first, of equal ones the older first.

    Of an iteration the newest: the older one was broken when the run went on before it.
    """
    measured = {c.iters: c for c in reversed(by_age) if c.metric is not None}
    return sorted(measured.values(), key=lambda checkpoint: checkpoint.metric or 0.0, reverse=True)


def _find(path: str | Path, best: bool, names: Sequence[str] | None) -> Checkpoint:
    named = Path(path).expanduser()
    folder = named.resolve()
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
    if named.is_file():
        raise UserError(
            f"checkpoint {str(path)!r}: a file without {MANIFEST} beside it; to resume give {_KINDS}; to "
            "start from weights alone set model.load_finetuned: true and model.finetuned"
        )
    for parent in (folder, folder / FOLDER):
        checkpoints = CheckpointStore(parent)._by_age()
        first = _by_metric(checkpoints) if best else []
        chosen = _first_whole([*first, *(c for c in checkpoints if c not in first)], names)
        if chosen:
            return chosen
    raise UserError(f"checkpoint {str(path)!r}: no whole checkpoint in it; give a run's folder or {_KINDS}")


_KINDS = f"a folder in its {FOLDER}: last, best or one of iter_*"
