"""The task ``ealign_news_captioning``: three tasks to train, two passes to evaluate.

Evaluation of a batch of photos is `ealign_plugin.inference.two_pass`; image features are computed once and
serve both passes and all contexts. With ``run.shuffled_images`` the main context is captioned once more from
another
article's photo: whoever then still names the right people never looked at the picture.

A test keeps a journal of what it found out, a line a batch (`ealign_plugin.inference.journal`): after an
interruption the same command goes on from there. A photo's record in it::

    {"index": 7, "key": "a_0",                       its place in the split
     "first": {"scores": …, "selected": …, "entities": …, "invented": …},      where pass 1 ran
     "captions": {"refined": {"caption": …, "context_text": …, "context_sentences": …}},
     "losses": {"oracle": 1.2},                      of run.caption_loss
     "shuffled": {"first": …, "captions": …}}        from another photo
    {"index": 8, "key": "b_0", "error": "…"}         it could not be read
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank, is_main_process
from lavis.common.registry import registry
from lavis.datasets.data_utils import apply_to_sample
from lavis.tasks.base_task import BaseTask
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from ealign_plugin.alignment.contexts import NEED_SELECTION, check_strategy
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import sentence_labels, shared_entities
from ealign_plugin.distributed import all_gather_object
from ealign_plugin.entities import NamedEntityRecognizer, entity_key, entity_keys, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.host.registration import registered
from ealign_plugin.inference.journal import Journal, Record
from ealign_plugin.inference.two_pass import (
    OPTIONS,
    FirstPass,
    InferenceOptions,
    TwoPasses,
    main_context,
)
from ealign_plugin.metrics.builtin import evaluate
from ealign_plugin.metrics.captions import find_java, score_each
from ealign_plugin.metrics.entities import all_named, entity_scores, names_held
from ealign_plugin.metrics.protocols import get_protocol
from ealign_plugin.metrics.ranking import auc, average_precision, list_f1
from ealign_plugin.metrics.tables import format_table
from ealign_plugin.news import NewsSample

SHUFFLED = " (images shuffled)"


LOSS = "caption_loss/"


TABLE = (
    "context",
    "names_held",
    "people_right",
    "entity_f1",
    "person_f1",
    "org_f1",
    "gpe_f1",
    "date_f1",
    "bleu4",
    "rouge",
    "cider",
    "meteor",
)


AGG_METRICS = tuple(name for name in TABLE if name not in ("context", "names_held", "meteor"))


@registered("task", "ealign_news_captioning")
class NewsCaptioning(BaseTask):
    """Trains captioning, sentence selection and entity selection by one loss; evaluates in two passes.

    Args:
        run: The ``run`` section; `RUN_KEYS` says what is read from it.
    """

    RUN_DEFAULTS = {
        "test_splits": ["test"],
        "contexts": ["head", "refined", "supplemented", "oracle"],
        "valid_contexts": ["refined"],
        "agg_metric": "cider",
        "caption_loss": [],
        "context_words": 100,
        "context_tokens": None,
        "threshold": 0.5,
        "top_k": None,
        "select_words": None,
        "protocol": "tell",
        "shuffled_images": False,
        "max_skipped": 0.05,
        "num_beams": 5,
        "max_len": 64,
        "min_len": 1,
        "repetition_penalty": 1.0,
        "length_penalty": 1.0,
        "show_samples": 3,
    }
    RUN_KEYS = {
        "contexts": "context strategies that the test compares; the caption of each is scored",
        "valid_contexts": "the same for validation, where pass 1 runs only if one needs it; none where "
        "caption_loss is enough",
        "agg_metric": "the figure of the main context (validation: the first) that picks the best checkpoint",
        "caption_loss": "contexts that need no pass 1, in which the loss of the references is measured",
        "context_words": "word budget of every context",
        "context_tokens": "budget in tokens of the language model instead; null: words count",
        "threshold": "a sentence is selected when P(yes) is at least this; null: each may be",
        "top_k": "most sentences that are selected; null: no limit",
        "select_words": "most words of the selected sentences, the best first; null: no limit",
        "protocol": "named scoring protocol (ealign_plugin.metrics)",
        "shuffled_images": "also caption each article from another one's photo (other_image in the data set)",
        "max_skipped": "largest share of a split's photos that may be unreadable before an evaluation stops",
        "repetition_penalty": "divides the logits of tokens already written",
        "length_penalty": "exponent of the length in beam search",
        "show_samples": "samples that are printed in words after the test",
    }

    def __init__(self, run: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.run: dict[str, Any] = {**self.RUN_DEFAULTS, **(run or {})}
        for name in ("contexts", "valid_contexts", "caption_loss"):
            enough = name == "caption_loss" or (name == "valid_contexts" and self.run["caption_loss"])
            if not self.run[name] and not enough:
                raise UserError(f"run.{name}: at least one context strategy was expected, found none")
            for strategy in self.run[name]:
                check_strategy(strategy)
                if name == "caption_loss" and strategy in NEED_SELECTION:
                    raise UserError(f"run.caption_loss: {strategy!r} needs pass 1; choose another context")
        if self.run["agg_metric"] not in AGG_METRICS:
            raise UserError(
                f"run.agg_metric: {self.run['agg_metric']!r} found; one of {', '.join(AGG_METRICS)} expected"
            )
        get_protocol(self.run["protocol"])
        self.options = InferenceOptions(**{name: self.run[name] for name in OPTIONS})
        self.losses: dict[str, float] = {}
        self.report: dict[str, Any] = {}
        self._ner: NamedEntityRecognizer | None = None
        self._dataset: Any = None
        self._journal: Journal | None = None
        self._wording = Wording()
        self._full = True

    @classmethod
    def setup_task(cls, cfg: DictConfig, **_: Any) -> NewsCaptioning:
        """LAVIS's way to build a task from the run's config."""
        return cls(cfg.run_cfg)

    # Training

    def train_step(self, model: torch.nn.Module, samples: Mapping[str, Any]) -> Tensor:
        """The loss of a batch; ``self.losses`` keeps the loss of each task and the token count."""
        output = model(samples)
        self.losses = {name: value for name, value in output.items() if name != "loss"}
        return output["loss"]

    # Evaluation

    def before_evaluation(self, model: torch.nn.Module, dataset: Any, **_: Any) -> None:
        """Ask as the training asked, and find entities by the model that annotated the shards."""
        self._dataset, self._wording = dataset, dataset.wording
        if self._ner is None or self._ner.name != dataset.ner["name"]:
            self._ner = load_ner(dataset.ner["name"])
        if self._ner.version != dataset.ner["version"]:
            logging.warning(
                "The shards were annotated by %s %s, here is version %s: scores move with it",
                dataset.ner["name"],
                dataset.ner["version"],
                self._ner.version,
            )
        self._full = dataset.split in self.run["test_splits"]

    @torch.no_grad()
    def evaluation(
        self, model: torch.nn.Module, data_loader: Any, cuda_enabled: bool = False
    ) -> list[Record]:
        """Both passes over a split; a record a photo. A test that was interrupted goes on."""
        device = next(model.parameters()).device
        records: list[Record] = []
        journal = None
        if self._full:
            journal = self._journal = Journal(self._folder(), get_rank(), self._identity(model))
            known = _merged(all_gather_object(journal.read()))
            if known:
                logging.info("Going on with an evaluation: %d of %d photos", len(known), len(self._dataset))
            self._dataset.leave_out(known)
            records = list(known.values()) if is_main_process() else []
        bad = 0
        for batch in tqdm(data_loader, "Evaluation", unit="batch", disable=not is_main_process()):
            new = self.valid_step(model, apply_to_sample(lambda x: x.to(device), batch))
            bad += sum("error" in record for record in new)
            self._check_skipped(bad, new)
            if journal and new:
                journal.add(new)
            records += new
        return records

    def _check_skipped(self, bad: int, new: Sequence[Record]) -> None:
        for record in new:
            if "error" in record:
                logging.warning("a photo is left out: %s", record["error"])
        if bad > max(20, self.run["max_skipped"] * len(self._dataset)):
            raise UserError(
                f"{_photos(bad)} of {self._dataset.split!r} could not be read, at most "
                f"{self.run['max_skipped']:.0%} may be; the last: {new[-1].get('error', '')}; mend the "
                "shards or raise run.max_skipped"
            )

    def valid_step(self, model: Any, samples: Mapping[str, Any]) -> list[Record]:
        """Both passes over a batch of `EvaluationSamples`: ``image`` [B, 3, H, W] and lists."""
        broken = [dict(record) for record in samples["errors"]]
        if not samples["sample"]:
            return broken
        contexts = list(self.run["contexts" if self._full else "valid_contexts"])
        records = [
            {"index": index, "key": key} for index, key in zip(samples["index"], samples["key"], strict=True)
        ]
        found = [(records, samples["image"], contexts)]
        if self._full and self.run["shuffled_images"]:
            if "other_image" not in samples:
                raise UserError(
                    "run.shuffled_images: the data set gives no other_image; set its other_image: true"
                )
            others: list[Record] = [{} for _ in records]
            found.append((others, samples["other_image"], [main_context(contexts)]))
            for record, other in zip(records, others, strict=True):
                record["shuffled"] = other
        self._caption_losses(model, samples["image"], samples["sample"], records)
        for rows, images, strategies in found:
            if strategies:
                self._two_passes(model, images, samples["sample"], strategies, rows)
        return records + broken

    def _caption_losses(
        self, model: Any, images: Tensor, samples: Sequence[NewsSample], records: Sequence[Record]
    ) -> None:
        """Of each photo and context in ``run.caption_loss``: the mean loss of the reference's tokens."""
        passes = TwoPasses(model, self._wording, self.options)
        for context in self.run["caption_loss"]:
            read = [passes.context(sample, context).text for sample in samples]
            prompts = [self._wording.caption(text) for text in read]
            output = model(
                {
                    "image": images,
                    "instruction": [prompt.instruction for prompt in prompts],
                    "question": [prompt.question for prompt in prompts],
                    "target": [self._wording.text(sample.caption) for sample in samples],
                    "task": [str(i) for i in range(len(samples))],  # so that each photo has a loss of its own
                }
            )
            for i, record in enumerate(records):
                record.setdefault("losses", {})[context] = float(output[f"loss_{i}"])

    def _two_passes(
        self,
        model: Any,
        images: Tensor,
        samples: Sequence[NewsSample],
        contexts: Sequence[str],
        records: Sequence[Record],
    ) -> None:
        """Write what both passes give into the photos' records."""
        passes = TwoPasses(model, self._wording, self.options)
        features = model.encode_images(images)
        first: list[FirstPass] = [FirstPass() for _ in samples]
        if self._full or NEED_SELECTION & set(contexts):
            first = passes.select(features, samples)
            for record, one in zip(records, first, strict=True):
                record["first"] = {
                    "scores": [round(score, 6) for score in one.scores],
                    "selected": list(one.selection.sentences),
                    "entities": list(one.selection.entities),
                    "invented": list(one.invented),
                }
        for strategy in contexts:
            read = [passes.context(s, strategy, one) for s, one in zip(samples, first, strict=True)]
            captions = passes.captions(features, [context.text for context in read])
            for record, context, caption in zip(records, read, captions, strict=True):
                record.setdefault("captions", {})[strategy] = {
                    "caption": caption,
                    "context_text": context.text,
                    "context_sentences": list(context.sentences),
                }

    def _folder(self) -> Path:
        """Of the journal."""
        return Path(registry.get_path("output_dir")) / f"evaluation-{self._dataset.split}"

    def _identity(self, model: torch.nn.Module) -> dict[str, Any]:
        """What must be the same for an evaluation to go on."""
        run = OmegaConf.to_container(OmegaConf.create(self.run), resolve=True)
        assert isinstance(run, dict)
        keys = (*OPTIONS, "contexts", "caption_loss", "shuffled_images")
        return {
            "weights": fingerprint(model),
            "run": {key: run[key] for key in keys},
            "samples": self._dataset.identity(),
        }

    # Figures

    def after_evaluation(
        self, val_result: list[Record], split_name: str, epoch: Any, **_: Any
    ) -> dict[str, Any] | None:
        """Gather the records of all ranks, score them, and after a test write and print what came out.

        Returns:
            Flat metrics with ``agg_metrics`` on the main rank, None on the others.
        """
        merged = _merged(all_gather_object(val_result))
        if not is_main_process():
            return None
        records = [merged[index] for index in sorted(merged) if "error" not in merged[index]]
        broken = [merged[index] for index in sorted(merged) if "error" in merged[index]]
        if not records:
            told = f"none of its {len(broken)} photos could be read" if broken else "it holds no sample"
            raise UserError(f"split {split_name!r}: {told}; evaluate another or make the shards again")
        losses = _mean_losses(records)
        if losses:
            logging.info("%s", ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        rows = self._rows(records)
        if not rows:
            return {"agg_metrics": -next(iter(losses.values())), **losses}
        meteor = None if self._full and find_java() else False
        figures = {name: self._figures(own, meteor) for name, own in rows.items()}
        selection = self._selection_figures(next(iter(rows.values())))
        main = next(iter(rows)) if not self._full else main_context(list(rows))
        report = {
            "split": split_name,
            "samples": len(records),
            "skipped": len(broken),
            "ner": {"name": self._ner.name, "version": self._ner.version} if self._ner else {},
            "selection": selection,
            "contexts": figures,
            **losses,
        }
        if self._full:
            self.report = report
            self._write(rows, broken, report, meteor)
            if self._journal:
                self._journal.remove()
        flat = {f"{name}/{key}": value for name, row in figures.items() for key, value in row.items()}
        agg = figures[main][self.run["agg_metric"]]
        return {"agg_metrics": 0.0 if agg is None else agg, **selection, **flat, **losses}

    def _rows(self, records: Sequence[Record]) -> dict[str, list[Row]]:
        """For each context a row a photo."""
        rows: dict[str, list[Row]] = {}
        for record in records:
            sample = self._dataset.sample(record["index"])
            for ending, own in (("", record), (SHUFFLED, record.get("shuffled", {}))):
                for name, caption in own.get("captions", {}).items():
                    rows.setdefault(name + ending, []).append(Row(sample, own.get("first"), caption))
        return rows

    def _figures(self, rows: Sequence[Row], meteor: bool | None) -> dict[str, Any]:
        """The figures of one context, and of each photo its own, which stay in the rows."""
        assert self._ner is not None
        captions = [row.caption["caption"] for row in rows]
        references = [row.sample.caption for row in rows]
        wanted = [row.sample.caption_entities for row in rows]
        found = self._ner.entities(captions)
        figures = evaluate(self.run["protocol"], references, captions, wanted, found, meteor=meteor)
        protocol = get_protocol(self.run["protocol"])
        for row, each, right, named in zip(
            rows, score_each(references, captions), wanted, found, strict=True
        ):
            names = entity_scores([right], [named], match_label=protocol.match_label, fold=protocol.fold)
            row.metrics = {
                **each,
                "entity_precision": names.precision,
                "entity_recall": names.recall,
                "people_right": all_named([right], [named]),
            }
        return {
            **figures,
            "people_right": all_named(wanted, found),
            "names_held": names_held(wanted, [row.caption["context_text"] for row in rows]),
        }

    @staticmethod
    def _selection_figures(rows: Sequence[Row]) -> dict[str, Any]:
        """How good pass 1 was: ranking and choice of the sentences, and the list of names; {} without it."""
        pairs = [(row.sample, row.first) for row in rows if row.first]
        if not pairs:
            return {}
        scores = [score for _, first in pairs for score in first["scores"]]
        own = [sentence_labels(sample) for sample, _ in pairs]
        labels = [label for row in own for label in row]
        kept = [
            i
            for i, (label, sentence) in enumerate(
                zip(labels, (s for sample, _ in pairs for s in sample.sentences), strict=True)
            )
            if label or entity_keys(sentence.entities, visual=True)
        ]
        chosen = list_f1(
            [first["selected"] for _, first in pairs],
            [[i for i, label in enumerate(row) if label] for row in own],
        )
        listed = list_f1(
            [[entity_key(name) for name in first["entities"]] for _, first in pairs],
            [[entity_key(name) for name in shared_entities(sample)] for sample, _ in pairs],
        )
        ratios = ("precision", "recall", "f1")
        return {
            "sentence_auc": auc(scores, labels),
            "sentence_auc_hard": auc([scores[i] for i in kept], [labels[i] for i in kept]),
            "sentence_ap": average_precision(scores, labels),
            **{f"sentence_{name}": value for name, value in zip(ratios, chosen, strict=True)},
            **{f"entity_list_{name}": value for name, value in zip(ratios, listed, strict=True)},
            "entity_list_invented": sum(len(first["invented"]) for _, first in pairs),
        }

    def _write(
        self,
        rows: Mapping[str, Sequence[Row]],
        broken: Sequence[Record],
        report: Mapping[str, Any],
        meteor: bool | None,
    ) -> None:
        folder = Path(registry.get_path("output_dir"))
        several = f"_{report['split']}" if len(self.run["test_splits"]) > 1 else ""
        photos = zip(*rows.values(), strict=True)
        lines = [row.line(name) for photo in photos for name, row in zip(rows, photo, strict=True)]
        lines += [{"key": record["key"], "error": record["error"]} for record in broken]
        atomic_write(
            folder / f"predictions{several}.jsonl",
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(),
        )
        columns = [c for c in TABLE if c != "meteor" or meteor is None]
        figures = report["contexts"]
        text = [
            f"{_photos(report['samples'])} of the split {report['split']!r}, "
            f"protocol {self.run['protocol']!r}, ×100:",
            "",
            format_table([{"context": name, **row} for name, row in figures.items()], columns),
            "",
            *_pass_one_in_words(report["selection"]),
            "names held: share of the reference captions' names that stand in what pass 2 reads.",
        ]
        if broken:
            text.append(
                f"{_photos(len(broken))} could not be read (not in the figures); the first: "
                f"{broken[0]['error']}"
            )
        if meteor is False:
            text.append("METEOR is left out: it needs Java, and there is none on the PATH.")
        text += self._in_words(rows)
        atomic_write(folder / f"report{several}.txt", ("\n".join(text) + "\n").encode())
        print("\n" + "\n".join(text), flush=True)

    def _in_words(self, rows: Mapping[str, Sequence[Row]]) -> list[str]:
        text: list[str] = []
        first_rows = next(iter(rows.values()))
        step = max(1, len(first_rows) // max(1, self.run["show_samples"]))
        for number in range(0, len(first_rows), step)[: self.run["show_samples"]]:
            row = first_rows[number]
            text += ["", row.sample.key, f"  reference: {row.sample.caption}"]
            if row.first:
                chosen = [f"    P(yes) {s['score']:.2f}  {s['text']}" for s in row.selected()]
                text += ["  pass 1 selected:", *(chosen or ["    nothing"])]
                text.append(f"  names: {', '.join(row.first['entities']) or 'none'}")
            text += [f"  {name}: {own[number].caption['caption']}" for name, own in rows.items()]
        return text


@dataclass
class Row:
    """One photo in one context: its sample, what pass 1 said (None where it didn't run), its caption."""

    sample: NewsSample
    first: Mapping[str, Any] | None
    caption: Mapping[str, Any]
    metrics: dict[str, float | None] = field(default_factory=dict)

    def selected(self) -> list[dict[str, Any]]:
        """The sentences that pass 1 chose, with their scores."""
        assert self.first is not None
        return [
            {"index": i, "score": round(self.first["scores"][i], 4), "text": self.sample.sentences[i].text}
            for i in self.first["selected"]
        ]

    def line(self, context: str) -> dict[str, Any]:
        """Its line in predictions.jsonl."""
        line = {
            "key": self.sample.key,
            "context": context,
            "reference": self.sample.caption,
            **self.caption,
        }
        if self.first:
            line |= {
                "selected": self.selected(),
                "entities": self.first["entities"],
                "invented": self.first["invented"],
            }
        return {**line, "metrics": self.metrics}


def _photos(count: int) -> str:
    return f"{count} photo{'s' * (count != 1)}"


def fingerprint(model: torch.nn.Module) -> str:
    """The same for the same weights, and hardly ever for others: sums and norms of all tensors."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        values = parameter.detach()
        both = [values.sum(dtype=torch.float64), torch.linalg.vector_norm(values, dtype=torch.float64)]
        for value in both:
            digest.update(float(getattr(value, "full_tensor", lambda v=value: v)()).hex().encode())
    return digest.hexdigest()[:16]


def _mean_losses(records: Sequence[Record]) -> dict[str, float]:
    """Mean over the photos, by context."""
    values: dict[str, list[float]] = {}
    for record in records:
        for name, loss in record.get("losses", {}).items():
            values.setdefault(f"{LOSS}{name}", []).append(loss)
    return {name: sum(row) / len(row) for name, row in values.items()}


def _pass_one_in_words(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return []

    def three(name: str) -> str:
        value = figures[name]
        return "undefined" if value is None else f"{value:.3f}"

    return [
        f"Pass 1, sentences: AUC {three('sentence_auc_hard')} against hard negatives, "
        f"{three('sentence_auc')} against all; average precision {three('sentence_ap')}; the selected ones "
        f"have precision {three('sentence_precision')}, recall {three('sentence_recall')}",
        f"Pass 1, names: precision {three('entity_list_precision')}, recall {three('entity_list_recall')}, "
        f"F1 {three('entity_list_f1')}; {figures['entity_list_invented']} names that no article tells were "
        "dropped",
    ]


def _merged(parts: Sequence[Sequence[Record]]) -> dict[int, Record]:
    """The records of all processes by their place in the split, each photo once."""
    merged: dict[int, Record] = {}
    for part in parts:
        for record in part:
            merged.setdefault(record["index"], record)
    return merged
