"""What the runner costs beside the training itself, on the CPU.

    runner       ealign_plugin.registered.runner.EalignRunner: schedule, data state, means, log, bar, signals
    bare loop    forward, backward, clipping, step

Both train the model of projects/ealign/train_closed.yaml on the same batches of MicroNews, which are ready in
memory, in turns of two steps, so that a busy machine slows them alike; the runner writes a log line in each
turn, 25 times as often as in a real run. What counts is the median of the ratios of neighbouring turns. The
two have to end in the same weights, bit for bit, else the benchmark fails.

Then: how long the training stands still for a checkpoint (trained weights and the optimiser's state, synced
to the disk), and which share of the time that is where one is written every ``iters_per_inner_epoch`` steps.
The first run makes a small MicroNews in the cache (seconds). Run it with the environment's Python:
python projects/benchmarks/runner.py
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _options import read_options  # the file beside this one
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ealign_plugin.cli.third_party import silence_third_party_warnings

silence_third_party_warnings()
from lavis import tasks  # noqa: E402

from ealign_plugin.data.streams.batches import TrainingBatches  # noqa: E402
from ealign_plugin.host.config import load_config  # noqa: E402
from ealign_plugin.host.plugins import load_installed  # noqa: E402
from ealign_plugin.registered.runner import EalignRunner  # noqa: E402
from ealign_plugin.training.loaders import training_loader  # noqa: E402
from ealign_plugin.training.progress import progress_bar  # noqa: E402

CONFIG = Path(__file__).parents[1] / "ealign" / "train_closed.yaml"
BATCHES = 8
OPTIONS = (
    "datasets.ealign_micronews.world.articles={train: 12, val: 2, test: 4}",
    "datasets.ealign_micronews.phases=[]",  # the mix of the longer part of the training
    "run.device=cpu",
    "run.num_workers=0",
    "run.warmup_steps=0",
    "run.min_lr=1.5e-3",  # the rate stays the same: the bare loop has no schedule
)


class Ready(IterableDataset):
    """Batches that are in memory, again and again."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return itertools.cycle(self.batches)


def build(folder: Path, number: int) -> tuple[EalignRunner, list[dict[str, Any]]]:
    """The runner of train_closed.yaml, and as many of its batches, which it reads in this order."""
    load_installed()
    cfg = load_config(CONFIG, (*OPTIONS, f"run.output_dir={folder}"))
    torch.manual_seed(int(cfg.run_cfg.seed))
    task = tasks.setup_task(cfg)
    datasets = task.build_datasets(cfg)
    runner = EalignRunner(cfg, task, task.build_model(cfg), datasets, "run")
    loader = training_loader(
        datasets["ealign_micronews"]["train"], batch_size=int(cfg.run_cfg.batch_size_train), workers=0
    )
    batches = list(itertools.islice(loader, number))
    ready = DataLoader(Ready(batches), batch_size=None, collate_fn=dict)
    runner._dataloaders = {"train": TrainingBatches({"ready": ready})}
    return runner, batches


def bare_loop(runner: EalignRunner, batches: list[dict[str, Any]]) -> tuple[nn.Module, Callable[[int], None]]:
    """A copy of the runner's model, and what trains it for so many steps."""
    model, clip = copy.deepcopy(runner.model).train(), float(runner.config.run_cfg.clip_grad_norm)
    names = {parameter: name for name, parameter in runner.model.named_parameters()}
    mine = dict(model.named_parameters())
    groups = [
        {**group, "params": [mine[names[parameter]] for parameter in group["params"]]}
        for group in runner.optimizer.param_groups
    ]
    optimizer, endless = torch.optim.AdamW(groups, fused=True), itertools.cycle(batches)

    def train(steps: int) -> None:
        for batch in itertools.islice(endless, steps):
            optimizer.zero_grad(set_to_none=True)
            model(batch)["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()

    return model, train


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each of the two")
    parser.add_argument("--checkpoints", type=int, default=7, help="that are written; the median counts")
    options = read_options(parser, rounds=1, checkpoints=1)
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere:
        runner, batches = build(Path(scratch), BATCHES)
        copied, train = bare_loop(runner, batches)
        loop = runner.training_loop()
        with contextlib.redirect_stderr(nowhere):
            bar = progress_bar(runner.max_iters, done=0)
        ways: dict[str, Callable[[], object]] = {
            "runner": lambda: loop.train_until(runner.state.iters + options.steps, bar),
            "bare loop": lambda: train(options.steps),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            for way in list(ways)[:: 1 if turn % 2 else -1]:
                torch.manual_seed(turn)  # of dropout
                elapsed = seconds(ways[way])
                if turn:  # the first turn warms up
                    taken[way].append(elapsed / options.steps)
        pairs = zip(runner.model.parameters(), copied.parameters(), strict=True)
        if not all(torch.equal(*pair) for pair in pairs):
            raise SystemExit("the runner trained other weights than the bare loop")
        stalls = [seconds(loop.checkpoints.save) for _ in range(options.checkpoints)]
        size = sum(file.stat().st_size for file in (runner.store.folder / "last").iterdir())

    step, every = statistics.median(taken["runner"]), runner.iters_per_inner_epoch
    stall = statistics.median(stalls)
    count = sum(parameter.numel() for parameter in copied.parameters() if parameter.requires_grad) / 1e6
    print(
        f"cpu ({torch.get_num_threads()} threads), {count:.1f} million trained parameters, batches of "
        f"{len(batches[0]['key'])}, torch {torch.__version__}"
    )
    for way, times in taken.items():
        print(f"{way:12} {statistics.median(times) * 1000:7.1f} ms a step")
    print(f"{'checkpoint':12} {stall * 1000:7.1f} ms for {size / 1e6:.0f} MB, one every {every} steps")
    ratios = [runner / bare for runner, bare in zip(*taken.values(), strict=True)]
    print(f"RATIO runner_overhead {statistics.median(ratios):.3f}")
    print(f"RATIO checkpoint_stall {stall / (every * step + stall):.5f}")


if __name__ == "__main__":
    main()
