"""Evaluation of a split: both passes over its photos, and what they are worth.

Image features are computed once and serve both passes and all contexts. Controls (``run.controls``) caption
the main context once more under other conditions: whoever still names the right people from another article's
photo never looked at the picture. A test keeps a journal as it goes (`ealign_plugin.inference.journal`):
after an interruption the same command continues from there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ealign_plugin.alignment.contexts import CONTEXTS
from ealign_plugin.alignment.tasks import AlignmentTask
from ealign_plugin.distributed import all_gather_object, rank, run_on_first_rank
from ealign_plugin.entities import NamedEntityRecognizer, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.inference.asked_tasks import TaskResults, ask_tasks, other_tasks, score_tasks
from ealign_plugin.inference.controls.articles import SplitArticles
from ealign_plugin.inference.controls.renaming import Renaming
from ealign_plugin.inference.controls.run import SplitControls
from ealign_plugin.inference.figures import caption_figures, mean_losses, selection_figures
from ealign_plugin.inference.intervals import add_intervals
from ealign_plugin.inference.journal import Journal, Record
from ealign_plugin.inference.options import EvaluationOptions, InferenceOptions, for_validation
from ealign_plugin.inference.passes import write_first_pass, write_strategy
from ealign_plugin.inference.protocols import EvaluatedModel, EvaluationData
from ealign_plugin.inference.records import Row, merge_records, rows_by_context
from ealign_plugin.inference.report import photos, prediction_lines, report_text
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses, main_context
from ealign_plugin.metrics.protocols import get_protocol
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import NewsSample


class Evaluator:
    """Evaluates one split after the other: `start`, `evaluate`, `finish`.

    ::

        evaluator.start(split, folder)                    which samples, where the journal lies
        records = evaluator.evaluate(model, batches)      a record a photo, of this process
        figures = evaluator.finish(records, "test")       of all processes, on the first one

    Args:
        options: How the two passes select, read and write.
        plan: What is compared and measured.
        ner: Finds the entities of the captions; None: the model that annotated the split is loaded.
    """

    def __init__(
        self,
        options: InferenceOptions,
        plan: EvaluationOptions,
        ner: NamedEntityRecognizer | None = None,
    ) -> None:
        self.options, self.plan, self.ner = options, plan, ner
        self.report: dict[str, Any] = {}
        """Of the last test, as metrics.json has it."""
        self.threshold_choice: Mapping[str, Any] | None = None
        """How the threshold was chosen (`ealign_plugin.inference.threshold`); None where it wasn't."""
        self._data: EvaluationData | None = None
        self._validates = False
        self._folder = Path()
        self._journal: Journal | None = None
        self._tasks: list[AlignmentTask] = []
        self._training: TrainingNames | None = None
        self._controls: SplitControls | None = None

    @property
    def data(self) -> EvaluationData:
        """The split that is evaluated."""
        if self._data is None:
            raise RuntimeError("an evaluation begins with start()")
        return self._data

    @property
    def is_test(self) -> bool:
        """Whether the split is tested; a validation is cheaper and writes nothing."""
        return self.data.split in self.plan.test_splits and not self._validates

    def start(self, data: EvaluationData, folder: Path, *, validates: bool = False) -> None:
        """Ask as the training asked, and find entities by the model that annotated the samples.

        Args:
            data: The split.
            folder: Where a test writes its files.
            validates: The training goes on after it, also where the split is one that is tested.

        Raises:
            UserError: the spaCy model is not installed.
        """
        self._data, self._folder, self._journal = data, folder, None
        self._validates = validates
        self._training = self._controls = None
        self._tasks = other_tasks(data.tasks) if self.is_test else []
        if self.ner is None or self.ner.name != data.ner["name"]:
            self.ner = load_ner(data.ner["name"])
        if self.ner.version != data.ner["version"]:
            logging.warning(
                "The shards were annotated by %s %s, here is version %s: scores move with it",
                data.ner["name"],
                data.ner["version"],
                self.ner.version,
            )

    # Records

    @torch.no_grad()
    def evaluate(self, model: EvaluatedModel, batches: Iterable[Mapping[str, Any]]) -> list[Record]:
        """Both passes over this process's batches; what an interrupted test recorded is not done again.

        Args:
            model: In evaluation mode.
            batches: As `EvaluationSamples.collater` makes them.

        Returns:
            A record a photo; on the first process also those of the interrupted test.

        Raises:
            UserError: too many photos cannot be read, or the journal cannot be written.
        """
        device = model.device
        records: list[Record] = []
        if self.is_test:
            self._training = self._read_training_names()
            self._controls = self._prepare_controls()
            journal = Journal(self._folder / f"evaluation-{self.data.split}", rank(), self._identity(model))
            known = merge_records(all_gather_object(journal.read()))
            if known:
                logging.info("Going on with an evaluation: %d of %d photos", len(known), len(self.data))
            self.data.leave_out(known)
            records = list(known.values()) if rank() == 0 else []
            self._journal = journal
        unreadable = 0
        for batch in tqdm(batches, "Evaluation", unit="batch", disable=rank() != 0):
            moved = {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            new = self.evaluate_batch(model, moved)
            unreadable += sum("error" in record for record in new)
            self._check_skipped(unreadable, new)
            if self._journal and new:
                self._journal.add(new)
            records += new
        return records

    def evaluate_batch(self, model: EvaluatedModel, batch: Mapping[str, Any]) -> list[Record]:
        """Both passes over one batch.

        Args:
            model: In evaluation mode.
            batch: ``index``, ``key`` and ``sample`` (lists), ``image`` [B, 3, H, W] and, where controls need
                them, ``other_image``, on the model's device; ``errors``: records of unreadable photos.
        """
        unreadable = [dict(record) for record in batch["errors"]]
        if not batch["sample"]:
            return unreadable
        contexts = self.plan.contexts if self.is_test else self.plan.valid_contexts
        if self._controls:
            self._controls.check(batch)
        records: list[Record] = [
            {"index": index, "key": key} for index, key in zip(batch["index"], batch["key"], strict=True)
        ]
        samples = batch["sample"]
        options = self.options if self.is_test else for_validation(self.options)
        passes = TwoPasses(model, self.data.wording, options)
        self._measure_losses(model, passes, batch["image"], samples, records)
        if contexts:
            features = model.encode_images(batch["image"])
            first = [FirstPass() for _ in samples]
            if self.is_test or any(CONTEXTS[name].needs_selection for name in contexts):
                first = write_first_pass(passes, features, samples, records)
            for strategy in contexts:
                write_strategy(passes, features, samples, strategy, first, records)
            ask_tasks(passes, self._tasks, features, samples, records)
            if self._controls:
                self._controls.write(model, passes, batch, features, first, records)
        return records + unreadable

    def _measure_losses(
        self,
        model: EvaluatedModel,
        passes: TwoPasses,
        images: Tensor,
        samples: Sequence[NewsSample],
        records: Sequence[Record],
    ) -> None:
        """Of each photo and context in ``caption_loss``: the mean loss of the reference's tokens."""
        for context in self.plan.caption_loss:
            for record, loss in zip(records, passes.losses(model, images, samples, context), strict=True):
                record.setdefault("losses", {})[context] = loss

    def _check_skipped(self, unreadable: int, new: Sequence[Record]) -> None:
        for record in new:
            if "error" in record:
                logging.warning("a photo is left out: %s", record["error"])
        if unreadable > max(20, self.plan.max_skipped * len(self.data)):
            raise UserError(
                f"{photos(unreadable)} of {self.data.split!r} could not be read, at most "
                f"{self.plan.max_skipped:.0%} may be; the last: {new[-1].get('error', '')}; mend the "
                "shards or raise run.max_skipped"
            )

    def _read_training_names(self) -> TrainingNames | None:
        """The names that the training held, where they are asked for."""
        if not self.plan.subsets and "renamed" not in self.plan.controls:
            return None
        return run_on_first_rank(lambda: self.data.training_names(self._folder))

    def _prepare_controls(self) -> SplitControls | None:
        if not self.plan.controls:
            return None
        assert self.ner is not None
        return SplitControls(
            self.plan.controls,
            main_context(self.plan.contexts),
            SplitArticles(self.data),
            self.ner,
            Renaming(self._training) if self._training and "renamed" in self.plan.controls else None,
        )

    def _identity(self, model: EvaluatedModel) -> dict[str, Any]:
        """What must be the same for an evaluation to continue."""
        plan = {name: getattr(self.plan, name) for name in ("contexts", "caption_loss", "controls")}
        tasks = {"tasks": [task.name for task in self._tasks]} if self._tasks else {}
        return {
            "weights": fingerprint(model.parameters()),
            "run": {**asdict(self.options), **plan, **tasks},
            "samples": self.data.identity(),
        }

    # Figures

    def finish(self, records: Sequence[Record], split: str) -> dict[str, Any] | None:
        """Gather the records of all processes and measure them; after a test, write and print the report.

        Args:
            records: Of this process.
            split: Name of the split, for messages.

        Returns:
            On the first process flat figures (``<context>/<figure>``, those of pass 1, losses) with
            ``agg_metrics``, which picks the best checkpoint; None on the others.

        Raises:
            UserError: no photo could be read, or the files cannot be written.
        """
        merged = merge_records(all_gather_object(list(records)))
        if rank() != 0:
            return None
        read = [merged[index] for index in sorted(merged) if "error" not in merged[index]]
        unreadable = [merged[index] for index in sorted(merged) if "error" in merged[index]]
        if not read:
            reason = (
                f"none of its {len(unreadable)} photos could be read" if unreadable else "it holds no sample"
            )
            raise UserError(f"split {split!r}: {reason}; evaluate another or make the shards again")
        losses = mean_losses(read)
        if losses:
            logging.info("%s", ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        rows = self._rows(read)
        if not rows:
            return {"agg_metrics": -next(iter(losses.values())), **losses}
        tasks = score_tasks(self._tasks, read, self.data.wording, self.data.sample)
        unavailable = self._unavailable()
        figures = self._figures(rows, unavailable)
        selection = selection_figures(next(iter(rows.values())))
        main = main_context(list(rows)) if self.is_test else next(iter(rows))
        if self.is_test:
            assert self.ner is not None
            protocol = get_protocol(self.plan.protocol)
            self.report = {
                "split": split,
                "samples": len(read),
                "skipped": len(unreadable),
                "articles": add_intervals(
                    figures, rows, main, protocol, self._training if self.plan.subsets else None
                ),
                "main_context": main,
                "ner": {"name": self.ner.name, "version": self.ner.version},
                "threshold": self.options.threshold,
                **({"threshold_choice": self.threshold_choice} if self.threshold_choice else {}),
                "selection": selection,
                "contexts": figures,
                **losses,
                **tasks.flat(),
            }
            self._write(rows, tasks, unreadable, unavailable)
            if self._journal:
                self._journal.remove()
        flat = {f"{name}/{key}": value for name, row in figures.items() for key, value in row.items()}
        best_by = figures[main][self.plan.agg_metric]
        return {
            "agg_metrics": 0.0 if best_by is None else best_by,
            **selection,
            **flat,
            **losses,
            **tasks.flat(),
        }

    def _rows(self, records: Sequence[Record]) -> dict[str, list[Row]]:
        """For each row of the table a `Row` a photo."""
        if self._controls is None:
            return rows_by_context(records, self.data.sample)
        rows = rows_by_context(records, self.data.sample, self._controls.renamed)
        self._controls.tag_references(rows.get("renamed", ()))
        return rows

    def _unavailable(self) -> dict[str, str]:
        """Of a test, by metric: why it cannot be measured here."""
        if not self.is_test:
            return {}
        reasons = {metric.name: metric.unavailable() for metric in self.plan.chosen_metrics()}
        return {name: reason for name, reason in reasons.items() if reason}

    def _figures(
        self, rows: Mapping[str, Sequence[Row]], unavailable: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """By context."""
        assert self.ner is not None
        metrics, protocol = self.plan.chosen_metrics(), get_protocol(self.plan.protocol)
        slow = [metric.name for metric in metrics if metric.test_only]
        quick = set(self.plan.controls if self.is_test else rows)
        return {
            name: caption_figures(
                row, self.ner, protocol, metrics, skipped=[*unavailable, *slow * (name in quick)]
            )
            for name, row in rows.items()
        }

    def _write(
        self,
        rows: Mapping[str, Sequence[Row]],
        tasks: TaskResults,
        unreadable: Sequence[Record],
        unavailable: Mapping[str, str],
    ) -> None:
        """report.txt, on the terminal too, and predictions.jsonl."""
        ending = f"_{self.report['split']}" if len(self.plan.test_splits) > 1 else ""
        atomic_write(
            self._folder / f"predictions{ending}.jsonl", prediction_lines(rows, tasks.lines, unreadable)
        )
        text = report_text(
            self.report,
            rows,
            self.plan.chosen_metrics(),
            protocol=self.plan.protocol,
            unavailable=unavailable,
            tasks=tasks.figures,
            unreadable=unreadable,
            show_samples=self.plan.show_samples,
        )
        atomic_write(self._folder / f"report{ending}.txt", text.encode())
        print("\n" + text, end="", flush=True)


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """The same for the same weights, and hardly ever for others: made of sums and norms of all tensors."""
    digest = hashlib.sha256()
    for parameter in parameters:
        values = parameter.detach()
        both = [values.sum(dtype=torch.float64), torch.linalg.vector_norm(values, dtype=torch.float64)]
        for value in both:
            # A sharded tensor has a value of its own on each process; full_tensor adds them up.
            digest.update(float(getattr(value, "full_tensor", lambda v=value: v)()).hex().encode())
    return digest.hexdigest()[:16]
