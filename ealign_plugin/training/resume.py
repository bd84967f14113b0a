"""Saving a run into checkpoints and going on from one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.distributed import rank, world_size
from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.manifest import Checkpoint
from ealign_plugin.training.checkpoints.rng import pack_rng, unpack_rng
from ealign_plugin.training.checkpoints.same_config import check_config
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_checkpoint
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.run_state import RunState


def no_files() -> dict[str, bytes]:
    """The default of `RunCheckpoints.files`."""
    return {}


@dataclass
class RunCheckpoints:
    """All that a run consists of, into checkpoints and back; a resumed run is the same, bit for bit.

    Its methods are collective: all processes call them.

    Args:
        store: The run's checkpoints.
        model: The model itself, without DistributedDataParallel around it.
        optimizer: Of its parameters.
        batches: The training data; where they stand is a part of a checkpoint.
        precision: Of the run.
        state: How far the run is; `restore` changes it.
        config: The run's config as plain JSON values: ``model``, ``datasets``, ``run``.
        revision: Of the code, for the manifest.
        sharded: Each process writes its part of the optimiser's state; for FSDP.
        files: Called at each save: name → content of small files that a checkpoint is to hold too.
    """

    store: CheckpointStore
    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: TrainingBatches
    precision: Precision
    state: RunState
    config: Mapping[str, Any]
    revision: str | None = None
    sharded: bool = False
    files: Callable[[], Mapping[str, bytes]] = field(default=no_files)

    def save(self, metric: float | None = None) -> None:
        """Save what a resumed run needs.

        Args:
            metric: Of a validation of these very weights.

        Raises:
            UserError: it cannot be written.
        """
        self.store.save(
            self.model,
            self.optimizer,
            iters=self.state.iters,
            metric=metric,
            values={**self.state.to_json(), "scaler": self.precision.state_dict()},
            per_rank={"rng": pack_rng(), "stream": self.batches.state()},
            manifest={
                "config": self.config,
                "data": self.batches.identity_hash(),
                "revision": self.revision,
            },
            sharded=self.sharded,
            files=self.files(),
        )

    def find(self, path: str | Path | None, *, newest_of_run: bool = False) -> Checkpoint | None:
        """The checkpoint to go on from; None: the run begins anew.

        Args:
            path: ``run.resume_ckpt_path``.
            newest_of_run: ``run.resume: auto``: the newest in the run's own folder, where there is one,
                goes before ``path``.

        Raises:
            UserError: there is no checkpoint at ``path``.
        """
        checkpoint = self.store.newest() if newest_of_run else None
        if checkpoint is None and path:
            checkpoint = find_checkpoint(path)
        if checkpoint is None and newest_of_run:
            if any(self.store.folder.glob("iter_*")):
                logging.warning("%s: no whole checkpoint in it, the run begins anew", self.store.folder)
            else:
                logging.info("run.resume: auto: no checkpoint of this config was found, the run begins anew")
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: weights, optimiser, random generators, data, scale, `state`.

        Raises:
            UserError: it belongs to another model, other data or another config.
        """
        for difference in check_config(checkpoint, self.config):
            if rank() == 0:
                logging.warning("%s", difference)
        values, ranks = self.store.load(checkpoint, self.model, self.optimizer)
        if "stream" not in ranks[0]:
            raise UserError(
                f"{checkpoint.folder}: the position in the training data is missing in it; start anew from "
                f"its weights by model.load_finetuned: true and model.finetuned: {checkpoint.weights}"
            )
        self.batches.resume([row["stream"] for row in ranks], rank())
        if len(ranks) == world_size():
            unpack_rng(ranks[rank()]["rng"])
        self.precision.load_state_dict(values["scaler"])
        same_run = checkpoint.folder.parent.resolve() == self.store.folder.resolve()
        self.state.restore(checkpoint.iters, values, same_run=same_run)
        logging.info("Going on after iteration %d, with %s", self.state.iters, checkpoint.folder)
