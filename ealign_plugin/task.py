"""The task ``ealign_news_captioning``: three tasks to train, two passes to evaluate.

Evaluation of a batch of photos (EAMA, arXiv 2402.19404, section 4)::

    pass 1   every sentence of the article against the photo → P(yes) → selected sentences
             the selected sentences → list of names; names that the article does not tell are dropped
    pass 2   a context for each strategy in run.contexts     → caption

Image features are computed once and serve both passes and all contexts. With ``run.shuffled_images`` the
main context is captioned once more from another article's photo: whoever then still names the right people
never looked at the picture.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from lavis.common.registry import registry
from lavis.datasets.data_utils import apply_to_sample
from lavis.tasks.base_task import BaseTask
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from ealign_plugin.alignment.context import NEED_SELECTION, build_context, check_strategy
from ealign_plugin.alignment.instructions import Templates
from ealign_plugin.alignment.selection import (
    Selection,
    in_article,
    parse_entities,
    select_sentences,
    sentence_labels,
    shared_entities,
)
from ealign_plugin.entities import NamedEntityRecognizer, entity_key, entity_keys, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.evaluation import (
    all_named,
    auc,
    evaluate,
    find_java,
    format_table,
    get_protocol,
    list_f1,
)
from ealign_plugin.host.registration import registered
from ealign_plugin.news import NewsSample
from ealign_plugin.shards.write import write_whole

SHUFFLED = " (images shuffled)"
LOSS = "caption_loss/"
TABLE = (
    "context",
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
        "caption_loss": [],
        "context_words": 100,
        "threshold": 0.5,
        "top_k": None,
        "select_words": None,
        "protocol": "tell",
        "shuffled_images": False,
        "num_beams": 5,
        "max_len": 64,
        "min_len": 1,
        "repetition_penalty": 1.0,
        "length_penalty": 1.0,
        "show_samples": 3,
    }
    RUN_KEYS = {
        "contexts": "context strategies that the test compares; the caption of each is scored",
        "valid_contexts": "the same for validation; the CIDEr of the first picks the best checkpoint; none "
        "where caption_loss is enough",
        "caption_loss": "contexts that need no pass 1, in which the loss of the references is measured",
        "context_words": "word budget of every context",
        "threshold": "a sentence is selected when P(yes) is at least this",
        "top_k": "most sentences that are selected; null: no limit",
        "select_words": "most words of the selected sentences, the best first; null: no limit",
        "protocol": "named scoring protocol (ealign_plugin.evaluation)",
        "shuffled_images": "also caption each article from another one's photo (other_image in the data set)",
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
        get_protocol(self.run["protocol"])
        for name in ("context_words", "top_k", "select_words"):
            if self.run[name] is not None and self.run[name] < 1:
                raise UserError(f"run.{name}: at least 1 was expected, found {self.run[name]}")
        self.losses: dict[str, float] = {}
        self.report: dict[str, Any] = {}
        self._ner: NamedEntityRecognizer | None = None
        self._templates = Templates()
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
        self._templates = dataset.templates
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
    ) -> list[dict[str, Any]]:
        """Both passes over a split; one record a photo and context."""
        device = next(model.parameters()).device
        records: list[dict[str, Any]] = []
        for batch in tqdm(data_loader, "Evaluation", unit="batch", disable=not is_main_process()):
            records += self.valid_step(model, apply_to_sample(lambda x: x.to(device), batch))
        return records

    def valid_step(self, model: Any, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Both passes over a batch: ``image`` [B, 3, H, W] and a list ``sample``."""
        contexts = self.run["contexts" if self._full else "valid_contexts"]
        records = self._caption_losses(model, samples["image"], samples["sample"])
        if contexts:
            records += self._two_passes(model, samples["image"], samples["sample"], contexts)
        if self._full and self.run["shuffled_images"]:
            if "other_image" not in samples:
                raise UserError(
                    "run.shuffled_images: the data set gives no other_image; set its other_image: true"
                )
            others = self._two_passes(
                model, samples["other_image"], samples["sample"], [main_context(contexts)]
            )
            records += [{**record, "context": record["context"] + SHUFFLED} for record in others]
        return records

    def _caption_losses(
        self, model: Any, images: Tensor, samples: Sequence[NewsSample]
    ) -> list[dict[str, Any]]:
        """Of each photo and context in ``run.caption_loss``: the mean loss of the reference's tokens."""
        records = []
        for context in self.run["caption_loss"]:
            read = [self._context(sample, context, Selection())[0] for sample in samples]
            prompts = [self._templates.caption_prompt(text) for text in read]
            output = model(
                {
                    "image": images,
                    "instruction": [instruction for instruction, _ in prompts],
                    "question": [question for _, question in prompts],
                    "target": [sample.caption for sample in samples],
                    "task": [str(i) for i in range(len(samples))],  # so that each photo has a loss of its own
                }
            )
            for i, sample in enumerate(samples):
                value = float(output[f"loss_{i}"])
                records.append({"key": sample.key, "context": f"{LOSS}{context}", "loss": value})
        return records

    def _two_passes(
        self, model: Any, images: Tensor, samples: Sequence[NewsSample], contexts: Sequence[str]
    ) -> list[dict[str, Any]]:
        features = model.encode_images(images)
        scores = [self._score(model, features[i : i + 1], sample) for i, sample in enumerate(samples)]
        chosen = [self._select(row, sample) for row, sample in zip(scores, samples, strict=True)]
        read = [self._context(s, "refined", Selection(c)) for s, c in zip(samples, chosen, strict=True)]
        answers = self._generate(model, features, [self._templates.entity_prompt(text) for text, _ in read])
        listed = [parse_entities(answer, self._templates.separator) for answer in answers]
        names = [in_article(sample, row) for sample, row in zip(samples, listed, strict=True)]
        records = []
        for strategy in contexts:
            read = [
                self._context(s, strategy, Selection(c, n))
                for s, c, n in zip(samples, chosen, names, strict=True)
            ]
            captions = self._generate(
                model, features, [self._templates.caption_prompt(text) for text, _ in read]
            )
            for i, sample in enumerate(samples):
                records.append(
                    {
                        "key": sample.key,
                        "context": strategy,
                        "reference": sample.caption,
                        "caption": captions[i],
                        "context_text": read[i][0],
                        "context_sentences": read[i][1],
                        "selected": [
                            {"index": j, "score": round(scores[i][j], 4), "text": sample.sentences[j].text}
                            for j in chosen[i]
                        ],
                        "entities": list(names[i]),
                        "invented": [name for name in listed[i] if name not in names[i]],
                        "_sample": sample,
                        "_scores": scores[i],
                    }
                )
        return records

    def _score(self, model: Any, features: Tensor, sample: NewsSample) -> list[float]:
        """P(yes) of each sentence of the article."""
        before, after = self._templates.sentence_parts()
        log = model.score(
            features,
            before,
            [sentence.text + after for sentence in sample.sentences],
            [self._templates.yes, self._templates.no],
            question=self._templates.sentence_prompt("")[1],
        )
        return log.softmax(-1)[:, 0].tolist()

    def _select(self, scores: Sequence[float], sample: NewsSample) -> tuple[int, ...]:
        words = self.run["select_words"]
        return select_sentences(
            scores,
            threshold=self.run["threshold"],
            top_k=self.run["top_k"],
            words=words,
            texts=[sentence.text for sentence in sample.sentences] if words else None,
        )

    def _context(self, sample: NewsSample, strategy: str, selection: Selection) -> tuple[str, list[int]]:
        context = build_context(
            sample,
            strategy,
            words=self.run["context_words"],
            selection=selection,
            names_label=self._templates.names_label,
            separator=self._templates.separator,
        )
        return context.text, list(context.sentences)

    def _generate(self, model: Any, features: Tensor, prompts: Sequence[tuple[str, str]]) -> list[str]:
        return model.generate(
            {
                "features": features,
                "instruction": [instruction for instruction, _ in prompts],
                "question": [question for _, question in prompts],
            },
            num_beams=self.run["num_beams"],
            max_length=self.run["max_len"],
            min_length=self.run["min_len"],
            repetition_penalty=self.run["repetition_penalty"],
            length_penalty=self.run["length_penalty"],
        )

    # Figures

    def after_evaluation(
        self, val_result: list[dict[str, Any]], split_name: str, epoch: Any, **_: Any
    ) -> dict[str, Any] | None:
        """Gather the records of all ranks, score them, and after a test write and print what came out.

        Returns:
            Flat metrics with ``agg_metrics`` on the main rank, None on the others.
        """
        records = _gather(val_result)
        if not is_main_process():
            return None
        if not records:
            raise UserError(
                f"split {split_name!r}: it holds no sample; evaluate another or make the shards again"
            )
        losses = _mean_losses(record for record in records if "loss" in record)
        records = [record for record in records if "loss" not in record]
        if losses:
            logging.info("%s", ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        if not records:
            return {"agg_metrics": -next(iter(losses.values())), **losses}
        names = list(dict.fromkeys(record["context"] for record in records))
        meteor = None if self._full and find_java() else False
        rows = {name: self._figures([r for r in records if r["context"] == name], meteor) for name in names}
        main = names[0] if not self._full else main_context(names)
        report = {
            "split": split_name,
            "samples": sum(record["context"] == names[0] for record in records),
            "ner": {"name": self._ner.name, "version": self._ner.version} if self._ner else {},
            "selection": self._selection_figures([r for r in records if r["context"] == names[0]]),
            "contexts": rows,
            **losses,
        }
        if self._full:
            self.report = report
            self._write(records, rows, report, meteor)
        flat = {f"{name}/{key}": value for name, row in rows.items() for key, value in row.items()}
        return {"agg_metrics": rows[main]["cider"], **report["selection"], **flat, **losses}

    def _figures(self, records: Sequence[Mapping[str, Any]], meteor: bool | None) -> dict[str, Any]:
        assert self._ner is not None
        captions = [record["caption"] for record in records]
        references = [record["_sample"].caption_entities for record in records]
        found = self._ner.entities(captions)
        figures = evaluate(
            self.run["protocol"],
            [record["reference"] for record in records],
            captions,
            references,
            found,
            meteor=meteor,
        )
        return {**figures, "people_right": all_named(references, found, "PERSON")}

    @staticmethod
    def _selection_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """How good pass 1 was: AUC of sentence selection, and F1 of the list of names."""
        scores: list[float] = []
        labels: list[bool] = []
        hard: list[bool] = []
        for record in records:
            sample = record["_sample"]
            scores += record["_scores"]
            labels += (own := sentence_labels(sample))
            hard += [
                label or bool(entity_keys(sentence.entities, visual=True))
                for label, sentence in zip(own, sample.sentences, strict=True)
            ]
        kept = [i for i, keep in enumerate(hard) if keep]
        precision, recall, f1 = list_f1(
            [[entity_key(name) for name in record["entities"]] for record in records],
            [[entity_key(name) for name in shared_entities(record["_sample"])] for record in records],
        )
        return {
            "sentence_auc": auc(scores, labels),
            "sentence_auc_hard": auc([scores[i] for i in kept], [labels[i] for i in kept]),
            "entity_list_precision": precision,
            "entity_list_recall": recall,
            "entity_list_f1": f1,
            "entity_list_invented": sum(len(record["invented"]) for record in records),
        }

    def _write(
        self,
        records: Sequence[Mapping[str, Any]],
        rows: Mapping[str, Mapping[str, Any]],
        report: Mapping[str, Any],
        meteor: bool | None,
    ) -> None:
        folder = Path(registry.get_path("output_dir"))
        lines = [
            json.dumps({k: v for k, v in record.items() if not k.startswith("_")}, ensure_ascii=False)
            for record in records
        ]
        write_whole(folder / "predictions.jsonl", "".join(line + "\n" for line in lines).encode())
        columns = [c for c in TABLE if c != "meteor" or meteor is None]
        table = format_table([{"context": name, **row} for name, row in rows.items()], columns)
        selection = report["selection"]
        text = [
            f"{report['samples']} photos of the split {report['split']!r}, "
            f"protocol {self.run['protocol']!r}, ×100:",
            "",
            table,
            "",
            f"Pass 1: AUC of sentence selection {_three(selection['sentence_auc_hard'])} against hard "
            f"negatives, {_three(selection['sentence_auc'])} against all; "
            f"F1 of the list of names {_three(selection['entity_list_f1'])} "
            f"({selection['entity_list_invented']} names that no article tells were dropped)",
        ]
        if meteor is False:
            text.append("METEOR is left out: it needs Java, and there is none on the PATH.")
        text += self._in_words(records, list(rows))
        write_whole(folder / "report.txt", ("\n".join(text) + "\n").encode())
        print("\n" + "\n".join(text), flush=True)

    def _in_words(self, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
        text: list[str] = []
        keys = list(dict.fromkeys(record["key"] for record in records))
        step = max(1, len(keys) // max(1, self.run["show_samples"]))
        for key in keys[::step][: self.run["show_samples"]]:
            own = {record["context"]: record for record in records if record["key"] == key}
            first = own[names[0]]
            text += ["", key, f"  reference: {first['reference']}", "  pass 1 selected:"]
            text += [f"    P(yes) {s['score']:.2f}  {s['text']}" for s in first["selected"]] or [
                "    nothing"
            ]
            text.append(f"  names: {', '.join(first['entities']) or 'none'}")
            text += [f"  {name}: {own[name]['caption']}" for name in names]
        return text


def main_context(contexts: Sequence[str]) -> str:
    """The context that stands for a run: ``refined`` where it is evaluated, else the first."""
    return "refined" if "refined" in contexts else contexts[0]


def _mean_losses(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over the photos, by context."""
    values: dict[str, list[float]] = {}
    for record in records:
        values.setdefault(record["context"], []).append(record["loss"])
    return {name: sum(row) / len(row) for name, row in values.items()}


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _gather(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all ranks in the order of the split, each photo and context once."""
    if get_world_size() == 1:
        return records
    parts: list[list[dict[str, Any]]] = [[] for _ in range(get_world_size())]
    torch.distributed.all_gather_object(parts, records)
    if get_rank() != 0:
        return []
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        for record in part:
            merged.setdefault((record["key"], record["context"]), record)
    return sorted(merged.values(), key=lambda record: record["key"])
