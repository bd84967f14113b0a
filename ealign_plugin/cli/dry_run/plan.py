"""The plan of a run in words: model, data, training, evaluation, device and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ealign_plugin.cli.dry_run.data import DataSet, samples_read
from ealign_plugin.cli.dry_run.table import Rows, count_in_words, format_bytes, in_millions
from ealign_plugin.data.streams.batches import check_weights
from ealign_plugin.host.run import counts_steps
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.cost.estimate import Estimate
from ealign_plugin.models.cost.shapes import parameters


def describe_parts(model: NewsModel) -> str:
    total, trained = parameters(model)
    parts = ", ".join(
        f"{part} {in_millions(total[part])} ({'trained' if trained[part] else 'frozen'})" for part in total
    )
    everything, learnt = in_millions(sum(total.values())), in_millions(sum(trained.values()))
    return f"{everything} M parameters, {learnt} M trained: {parts}"


def describe_memory(needs: Estimate, run: Mapping[str, Any]) -> str:
    if run["evaluate"]:
        weights = format_bytes(needs.memory["weights"])
        return f"{weights} of weights in each process, and what a forward pass takes"
    parts = ", ".join(f"{name} {format_bytes(count)}" for name, count in needs.memory.items() if count)
    read = needs.reading
    longest = f"{read.queries} image, {read.prompt} prompt and {read.target} target tokens"
    return (
        f"about {format_bytes(sum(needs.memory.values()))} in each process at most: {parts} "
        f"({run['batch_size_train']} examples of {longest})"
    )


def data_rows(found: DataSet) -> Rows:
    rows = [("data", f"{found.name}: {found.location}")]
    if found.samples:
        counts = ", ".join(f"{split} {count:,}" for split, count in found.samples.items())
        rows.append(("", f"photos: {counts}; entities by {found.ner}"))
    return rows


def training_rows(run: Mapping[str, Any], sets: Sequence[DataSet], processes: int) -> Rows:
    accumulated, batch = int(run.get("accum_grad_iters") or 1), int(run["batch_size_train"])
    together = batch * accumulated * processes
    factors = f"({batch} × {accumulated} accumulated × {count_in_words(processes, 'process', 'processes')})"
    rate = ("rate", describe_rate(run))
    if not counts_steps(run["runner"]):
        return [("training", f"{run['max_epoch']} epochs in batches of {together} examples {factors}"), rate]
    steps = int(run["max_iters"])
    rows = [("training", f"{steps:,} steps × {together} examples {factors} = {steps * together:,}")]
    train = {one.name: one for one in sets if one.builder is None or one.samples.get("train")}
    shares = check_weights(train, run.get("train_dataset_ratios"))
    for name, one in train.items():
        if one.builder is None or not shares[name]:
            continue
        batches = steps * accumulated * shares[name] / sum(shares.values())
        mixer = one.builder.mixer
        read = processes * samples_read(mixer, round(batches * batch / mixer.batch_size))
        photos = one.samples["train"]
        half = one.builder.datasets.half
        if half is not None:
            photos = max(1, photos // 2)
        rows.append(
            (
                "",
                f"{name}: about {read:,} samples read, {read / photos:.1f} epochs of {photos:,} photos"
                + ("" if half is None else f", about half of all (half {half})"),
            )
        )
    if first := run.get("own_selections_from"):
        each = f"after step {first:,} and every {run['own_selections_every']:,} steps"
        rows.append(("", f"the model's own selections in {run['own_selections_photos']:,} photos {each}"))
    return [*rows, rate]


def describe_rate(run: Mapping[str, Any]) -> str:
    peak, warmup = float(run["init_lr"]), int(run.get("warmup_steps") or 0)
    text = f"{run['lr_sched']}: "
    if warmup:
        start = run.get("warmup_lr")
        start = float(start) if start is not None and start >= 0 else peak / warmup
        text += f"from {start:.2g} up to {peak:.2g} in {warmup:,} steps, then down to {run['min_lr']:.2g}"
    else:
        text += f"from {peak:.2g} down to {run['min_lr']:.2g}"
    own = [f"{part} {rate / peak:.3g} times that" for part, rate in (run.get("lrs") or {}).items()]
    return "; ".join([text, *own])


def evaluation_rows(run: Mapping[str, Any], sets: Sequence[DataSet]) -> Rows:
    def photos(splits: Sequence[str]) -> str:
        counts = [sum(one.samples.get(split, 0) for one in sets) for split in splits]
        return " and ".join(
            f"{count:,} photos of {split}" if count else split
            for split, count in zip(splits, counts, strict=True)
        )

    rows: Rows = []
    valid, test = run["valid_splits"] or [], run["test_splits"] or []
    if valid and not run["evaluate"]:
        times = bool(run.get("validate_at_start"))
        if counts_steps(run["runner"]):
            times += math.ceil(run["max_iters"] / run["iters_per_inner_epoch"])
        else:
            times += run["max_epoch"]
        what = describe_contexts(run.get("valid_contexts") or [], run.get("caption_loss") or [])
        rows.append(("validation", f"{count_in_words(times, 'time', 'times')}: {photos(valid)}{what}"))
    if test:
        contexts = [*(run.get("contexts") or [])]
        if contexts:
            alias = ["other_photo"] * bool(run.get("shuffled_images"))
            controls = dict.fromkeys([*(run.get("controls") or []), *alias])
            contexts += ["images shuffled" if name == "other_photo" else name for name in controls]
        what = describe_contexts(contexts, run.get("caption_loss") or [])
        rows.append(("test", photos(test) + what))
    return rows


def describe_contexts(contexts: Sequence[str], losses: Sequence[str]) -> str:
    """' × 2 contexts (head, refined); losses in oracle', or '' for a task without them."""
    text = (
        f" × {count_in_words(len(contexts), 'context', 'contexts')} ({', '.join(contexts)})"
        if contexts
        else ""
    )
    return text + (f"; losses in {', '.join(losses)}" if losses else "")


def describe_device(device: str, processes: int) -> str:
    """Only asks whether there is a GPU; nothing is put on it."""
    here = torch.cuda.is_available()
    if device == "cuda" and not here:
        return "cuda, which this machine has not: start the run where there is one"
    if device == "auto":
        device = "cuda" if here else "cpu, because there is no CUDA device here"
    return f"{device}; {count_in_words(processes, 'process', 'processes')}"
