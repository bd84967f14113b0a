"""What is left of a run that stopped because a loss was not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ealign_plugin.distributed import all_gather_object, rank
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write

NAME = "bad_batch.json"


def report_bad_batches(
    folder: Path,
    iteration: int,
    batches: Sequence[Mapping[str, Any]],
    losses: Sequence[Mapping[str, float]],
) -> UserError:
    """Write ``bad_batch.json``: which samples were in the batches of a loss that is not finite. Collective.

    Args:
        folder: The run's.
        iteration: Iterations done before this one.
        batches: Of this process; ``key`` lists the keys of the samples.
        losses: Of each batch; ``loss`` among them.

    Returns:
        What all processes are to raise; it names the first samples.
    """
    bad = [
        {"loss": str(values["loss"]), "keys": sorted(set(batch.get("key", [])))}
        for batch, values in zip(batches, losses, strict=True)
        if not math.isfinite(values["loss"])
    ]
    of_all = [{"rank": number, **row} for number, rows in enumerate(all_gather_object(bad)) for row in rows]
    path = folder / NAME
    if rank() == 0:
        text = json.dumps({"iteration": iteration, "batches": of_all}, indent=1)
        atomic_write(path, (text + "\n").encode())
    return UserError(
        f"iteration {iteration}: the loss is {of_all[0]['loss']}; lower run.init_lr or look at the "
        f"samples {', '.join(of_all[0]['keys'][:5])} (all of the batch are in {path})"
    )
