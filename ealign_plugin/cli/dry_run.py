"""``python -m lavis.train --dry-run``: what a run would do and need, and everything that would stop it.

The model is built on the meta device, of weights and checkpoints only the headers are read, of shards the
index and the sizes. Nothing is made: no run folder, no MicroNews, no CUDA context; of a model on a hub its
configs and tokenizers are fetched, and the headers of its weights where these are not here yet.

It stands on the top floor because it asks models, data and runner alike; `lavis.train` calls it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ealign_plugin.alignment.tasks import TASKS
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.streams.batches import check_weights
from ealign_plugin.data.streams.mixing import TaskMixer, task_quota
from ealign_plugin.distributed import find_rank_info
from ealign_plugin.entities import load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered_class
from ealign_plugin.host.run import build_task, counts_steps
from ealign_plugin.micronews.make import PHOTOS_PER_ARTICLE, RECIPE, existing
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.cost.estimate import Estimate, estimate
from ealign_plugin.models.cost.shapes import STAND_IN, parameters, reading_of
from ealign_plugin.models.instructblip import lavis_files
from ealign_plugin.models.meta import shapes_only
from ealign_plugin.models.section import CONFIGS, plain, values
from ealign_plugin.models.weights import smol
from ealign_plugin.models.weights.checkpoint import check_metadata
from ealign_plugin.models.weights.hub import fetch, shards
from ealign_plugin.models.weights.loading import match_names
from ealign_plugin.registered.builders import MicroNewsBuilder, NewsBuilder
from ealign_plugin.registered.task import NewsCaptioning
from ealign_plugin.training.checkpoints.store import weights_of
from ealign_plugin.training.optimizer import parameter_groups
from ealign_plugin.validation import raise_all

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig

Rows = list[tuple[str, str]]
Shapes = dict[str, tuple[int, ...]]


@dataclass
class DataSet:
    """A data set of the run.

    Args:
        name: Of its builder.
        builder: None for one of another package, which is not looked into.
        place: Where it is, or what becomes of it.
        samples: Photos of each split that is used, as far as they are known.
        ner: The model that found its entities, with its version.
    """

    name: str
    builder: NewsBuilder | None = None
    place: str = "of another package; it is not looked into"
    samples: dict[str, int] = field(default_factory=dict)
    ner: str = ""


def dry_run(cfg: HostConfig, cfg_path: str | Path) -> None:
    """Check everything and print the plan; of several processes the first one does.

    Args:
        cfg: The checked config, before a process group is joined.
        cfg_path: Its file, for the message.

    Raises:
        UserError: with every problem found, one line each.
    """
    place = find_rank_info(os.environ)
    if place and place.rank:
        return
    processes = place.world_size if place else 1
    run: dict[str, Any] = OmegaConf.to_container(cfg.run_cfg, resolve=True)
    problems: list[str] = []
    with collected(problems):
        build_task(cfg)
    model, origin = model_of(cfg.model_cfg, run, problems)
    sets = [data_set(name, section, problems) for name, section in cfg.datasets_cfg.items()]
    problems += run_problems(run, sets)
    if model is not None:
        problems += size_problems(model, sets)
    raise_all(cfg_path, problems)

    rows = [("model", f"{cfg.model_cfg.arch}, type {cfg.model_cfg.model_type}"), ("", origin)]
    if model is not None:
        rows += [("", parts_in_words(model))]
    rows += [row for one in sets for row in data_rows(one)]
    if not run["evaluate"]:
        rows += training_rows(run, sets, processes)
    rows += evaluation_rows(run, sets)
    rows += [("device", device_in_words(run["device"], processes))]
    if model is not None:
        needs = estimate_of(model, cfg.model_cfg, run, processes)
        rows += [("memory", memory_in_words(needs, run))]
        if not run["evaluate"]:
            learnt = sum(needs.trained.values())
            rows += [("checkpoint", f"{size(4 * learnt)}, and {size(8 * learnt)} beside it to resume")]
    folder = (Path.cwd() / Path(run["output_dir"]).expanduser() / run["task"]).absolute()
    rows += [("output", f"{folder}/<date>_<time>")]
    show(str(cfg_path), rows)


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """A UserError inside becomes one of the problems."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


# Model


def model_of(cfg: DictConfig, run: Mapping[str, Any], problems: list[str]) -> tuple[NewsModel | None, str]:
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
            origin = origin_of(model, cfg)
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


def origin_of(model: NewsModel, cfg: DictConfig) -> str:
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
        shapes = {name: shape for path in shards(folder) for name, shape in header(path)[0].items()}
        note = "which fit"
    else:
        shapes, missing = hub_shapes(cfg.pretrained)
        note = f"which fit; {size(missing)} will be downloaded"
    match_names(model, shapes, f"model.pretrained: {cfg.pretrained}")
    return f"weights of {cfg.pretrained}, {note}"


def has_weights(folder: Path) -> bool:
    try:
        return bool(shards(folder))
    except UserError:
        return False


def header(path: Path) -> tuple[Shapes, dict[str, str]]:
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
    """Refuse what `NewsModel.load_checkpoint` would refuse, by the header alone.

    Raises:
        UserError: no such file, no safetensors, or a checkpoint of another recipe or model.
    """
    resumed = key == "run.resume_ckpt_path"
    if not path or not (Path(path).exists() if resumed else Path(path).is_file()):
        raise UserError(f"{key}: {path!r}: no such file, expected a checkpoint of a training run")
    shapes, metadata = header(weights_of(path) if resumed else Path(path))
    if model.recipe:
        check_metadata(path, metadata, model.recipe)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wrong = {
        "missing": sorted(set(model.trainable_state()) - set(shapes)),
        "unknown": sorted(set(shapes) - set(own)),
        "of another shape": [name for name in shapes if name in own and shapes[name] != own[name]],
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(names)} {what}: {few(names)}" for what, names in wrong.items() if names)
        raise UserError(
            f"{key}: {path}: weights of another model ({found}); use the model.model_type it was trained with"
        )


def parts_in_words(model: NewsModel) -> str:
    total, trained = parameters(model)
    parts = ", ".join(
        f"{part} {millions(total[part])} ({'trained' if trained[part] else 'frozen'})" for part in total
    )
    return (
        f"{millions(sum(total.values()))} M parameters, {millions(sum(trained.values()))} M trained: {parts}"
    )


def estimate_of(model: Any, cfg: DictConfig, run: Mapping[str, Any], processes: int) -> Estimate:
    """As ``ealign estimate``: the longest examples that the model takes."""
    reading = reading_of(
        model.config,
        question=getattr(model, "max_question_len", 0),
        prompt=len(model.before) + model.max_txt_len,
        target=model.max_output_txt_len,
    )
    return estimate(
        model,
        reading,
        batch=int(run.get("batch_size_train") or 1),
        amp=run.get("amp") not in (None, False, "false"),
        gradient_checkpointing=bool(cfg.get("gradient_checkpointing")),
        eager=cfg.get("attn_implementation") == "eager",
        quantized=bool(cfg.get("quantize")),
        gpus=processes,
        sharded=run.get("parallel") == "fsdp",
    )


def memory_in_words(needs: Estimate, run: Mapping[str, Any]) -> str:
    if run["evaluate"]:
        return f"{size(needs.memory['weights'])} of weights in each process, and what a forward pass takes"
    parts = ", ".join(f"{name} {size(count)}" for name, count in needs.memory.items() if count)
    read = needs.reading
    longest = f"{read.queries} image, {read.prompt} prompt and {read.target} target tokens"
    return (
        f"about {size(sum(needs.memory.values()))} in each process at most: {parts} "
        f"({run['batch_size_train']} examples of {longest})"
    )


# Data


def data_set(name: str, section: DictConfig, problems: list[str]) -> DataSet:
    """What a data set holds; whatever is wrong with it is among the problems."""
    cls = registered_class("builder", name)
    if not issubclass(cls, NewsBuilder):
        return DataSet(name)
    builder = cls(section)
    found = DataSet(name, builder)
    with collected(problems):
        builder.mixer  # noqa: B018  reads recipe, phases and templates
    with collected(problems):
        builder.build_processors()
    with collected(problems):
        splits = builder.splits
        if isinstance(builder, MicroNewsBuilder):
            read_micronews(builder, found)
        else:
            index = ShardIndex.load(builder.folder())
            found.place, found.ner = str(index.folder), index.ner["name"]
            found.samples = {split: index.samples(split) for split in index.shards}
            load_ner(found.ner)
        limits = builder.config.get("limit") or {}
        found.samples = {
            split: min(count, limits.get(split) or count) if split != "train" else count
            for split, count in found.samples.items()
            if split in splits
        }
    return found


def read_micronews(builder: MicroNewsBuilder, found: DataSet) -> None:
    """What there is of it, or what would be made."""
    world, folder = builder.config.world, builder.folder().resolve()
    ner = load_ner(world.ner)
    found.ner = ner.name
    options = {"recipe": RECIPE, "articles": dict(world.articles), "seed": world.seed, "size": world.size}
    made = existing(folder, options, {"name": ner.name, "version": ner.version})
    found.place = str(folder) if made else f"{folder}: will be made (about a minute)"
    found.samples = {split: PHOTOS_PER_ARTICLE * count for split, count in world.articles.items()}


def data_rows(found: DataSet) -> Rows:
    rows = [("data", f"{found.name}: {found.place}")]
    if found.samples:
        counts = ", ".join(f"{split} {count:,}" for split, count in found.samples.items())
        rows.append(("", f"photos: {counts}; entities by {found.ner}"))
    return rows


def run_problems(run: Mapping[str, Any], sets: Sequence[DataSet]) -> list[str]:
    """What ``run`` asks of the data sets and they do not give."""
    problems: list[str] = []
    ours = [one for one in sets if one.builder is not None]
    train = [one.name for one in sets if one.builder is None or "train" in one.samples]
    known = all(one.samples for one in sets)  # else a split may be in what could not be read
    if not run["evaluate"] and known and not train:
        problems.append("datasets: none of them has the split 'train'; add one that has, or set run.evaluate")
    if not run["evaluate"] and known and train:
        with collected(problems):
            check_weights(dict.fromkeys(train), run.get("train_dataset_ratios"))
    if not run["evaluate"] and ours and not counts_steps(run["runner"]):
        problems.append(
            f"run.runner: {run['runner']} found, which counts epochs of data that end; the stream of "
            f"{ours[0].name} is endless: ealign_runner or runner_iter expected"
        )
    for key in ("valid_splits", "test_splits"):
        for split in run[key] or ():
            names = [one.name for one in sets if one.samples.get(split)]
            if not names and known:
                problems.append(f"run.{key}: no data set has photos of the split {split!r}")
            if len(names) > 1:
                problems.append(
                    f"run.{key}: {split!r} found in {', '.join(names)}, one data set expected; leave it "
                    f"out of the others by datasets.{names[-1]}.splits"
                )
    if issubclass(registered_class("task", run["task"]), NewsCaptioning) and run["shuffled_images"]:
        problems += [
            f"run.shuffled_images: true found, and datasets.{one.name}.other_image is false; set it to true"
            for one in ours
            if any(split in one.samples for split in run["test_splits"] or ())
            and one.builder
            and not one.builder.config.get("other_image")
        ]
    return problems


def size_problems(model: NewsModel, sets: Sequence[DataSet]) -> list[str]:
    """Pictures of another size than the model's."""
    expected = model.config.vision_config.image_size
    return [
        f"datasets.{one.name}.vis_processor.{kind}.image_size: {found} found, {expected} expected, as the "
        "model's"
        for one in sets
        for kind, processor in (one.builder.vis_processors.items() if one.builder else ())
        if (found := getattr(processor, "image_size", expected)) != expected
    ]


# The run


def training_rows(run: Mapping[str, Any], sets: Sequence[DataSet], processes: int) -> Rows:
    accumulated, batch = int(run.get("accum_grad_iters") or 1), int(run["batch_size_train"])
    together = batch * accumulated * processes
    factors = f"({batch} × {accumulated} accumulated × {count_of(processes, 'process', 'processes')})"
    rate = ("rate", rate_in_words(run))
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
        looks = processes * visits(mixer, round(batches * batch / mixer.batch_size))
        photos = one.samples["train"]
        rows.append(("", f"{name}: about {looks:,} visits, {looks / photos:.1f} epochs of {photos:,} photos"))
    return [*rows, rate]


def visits(mixer: TaskMixer, batches: int) -> int:
    """About how many samples the stream visits for so many batches, where each can give every task.

    Of each phase the first hundred batches are counted. A visit gives a caption, a list of names and the
    sentences of one visit, as far as the batch still lacks them.
    """
    bounds = sorted({0, batches, *(phase["until"] for phase in mixer.phases if phase["until"] < batches)})
    total = 0.0
    for first, last in pairwise(bounds):
        recipe, owed, counted = mixer.recipe_at(first), dict.fromkeys(TASKS, 0.0), min(100, last - first)
        gives = {name: task.examples_at_once(recipe) for name, task in TASKS.items()}
        seen = 0
        for _ in range(counted):
            quota = task_quota(recipe, mixer.batch_size, owed)
            seen += max(math.ceil(quota[task] / gives[task]) for task in TASKS)
        total += seen * (last - first) / counted
    return round(total)


def rate_in_words(run: Mapping[str, Any]) -> str:
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
        what = contexts_in_words(run.get("valid_contexts") or [], run.get("caption_loss") or [])
        rows.append(("validation", f"{count_of(times, 'time', 'times')}: {photos(valid)}{what}"))
    if test:
        contexts = [*(run.get("contexts") or [])]
        contexts += ["images shuffled"] * bool(contexts and run.get("shuffled_images"))
        what = contexts_in_words(contexts, run.get("caption_loss") or [])
        rows.append(("test", photos(test) + what))
    return rows


def contexts_in_words(contexts: Sequence[str], losses: Sequence[str]) -> str:
    """' × 2 contexts (head, refined); losses in oracle', or '' for a task without them."""
    text = f" × {count_of(len(contexts), 'context', 'contexts')} ({', '.join(contexts)})" if contexts else ""
    return text + (f"; losses in {', '.join(losses)}" if losses else "")


def device_in_words(device: str, processes: int) -> str:
    """Only asks whether there is a GPU; nothing is put on it."""
    here = torch.cuda.is_available()
    if device == "cuda" and not here:
        return "cuda, which this machine has not: start the run where there is one"
    if device == "auto":
        device = "cuda" if here else "cpu, because there is no CUDA device here"
    return f"{device}; {count_of(processes, 'process', 'processes')}"


# Words


def show(title: str, rows: Rows) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    console = Console(highlight=False, markup=False)
    console.print(f"{title}: what the run would do\n")
    console.print(table)
    console.print("\nNothing was run; leave out --dry-run to start.")


def few(names: Sequence[str], most: int = 3) -> str:
    """'a, b, c and 9 more'"""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def size(count: float) -> str:
    """'3.5 MiB', '26.1 GiB'"""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def count_of(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
