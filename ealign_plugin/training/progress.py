"""The progress bar of a training."""

from __future__ import annotations

import resource
from collections.abc import Mapping

import torch
from tqdm import tqdm

from ealign_plugin.distributed import rank


def progress_bar(total: int, done: int) -> tqdm[None]:
    """A bar over iterations; of several processes only the first shows it."""
    return tqdm(total=total, initial=done, desc="Training", unit="step", disable=rank() > 0)


def progress_line(
    means: Mapping[str, float], *, tokens_per_second: float, waiting: float, device: torch.device
) -> str:
    """Losses, speed, share of time that data were waited for, memory: what stands behind the bar.

    Args:
        means: Of the iterations since the last line: ``loss``, ``loss_<task>``, ``tokens``.
        tokens_per_second: 0 where the model counts none.
        waiting: Share of the time, 0 to 1.
        device: Of the model; on the CPU the memory is the process's.

    Example:
        >>> progress_line({"loss": 2.5}, tokens_per_second=900, waiting=0.1, device=torch.device("cpu"))
        'loss 2.500, 900 tokens/s, data wait 10%, 1.3 GiB'
    """
    parts = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in means.items() if name != "tokens"]
    if tokens_per_second:
        parts.append(f"{tokens_per_second:.0f} tokens/s")
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return ", ".join([*parts, f"data wait {waiting:.0%}", f"{memory:.1f} GiB"])
