"""The task ``ealign_news_captioning``: LAVIS's steps, each handed to an `Evaluator`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.host.registration import registered
from ealign_plugin.inference import options
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.own_selections import select_all
from ealign_plugin.inference.protocols import EvaluatedModel, EvaluationData
from ealign_plugin.inference.run_settings import checkpoint_files, plain_sections
from ealign_plugin.inference.threshold import check_threshold, settle_threshold
from ealign_plugin.inference.two_pass import TwoPasses
from ealign_plugin.inference.untrained import untrained_reading
from ealign_plugin.news import NewsSample
from ealign_plugin.validation import Range


@registered("task", "ealign_news_captioning")
class NewsCaptioning(BaseTask):
    """Trains captioning, sentence selection and entity selection by one loss; evaluates in two passes.

    Args:
        run: The ``run`` section; `RUN_KEYS` says what is read from it.

    Raises:
        UserError: a value of the section that no evaluation can have.
    """

    RUN_DEFAULTS: ClassVar[dict[str, Any]] = options.defaults()
    RUN_KEYS: ClassVar[dict[str, str]] = options.help_texts()
    RUN_RANGES: ClassVar[dict[str, Range]] = options.ranges()

    def __init__(self, run: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        plain = OmegaConf.to_container(OmegaConf.create(dict(run or {})), resolve=True)
        assert isinstance(plain, dict)
        self.evaluator = Evaluator(*options.from_run(plain))
        check_threshold(self.evaluator, plain)
        self.losses: dict[str, float] = {}
        self.config: DictConfig | None = None
        self.ner: dict[str, str] | None = None

    @classmethod
    def setup_task(cls, cfg: Any, **_: Any) -> NewsCaptioning:
        """LAVIS's way to build a task from the run's config."""
        task = cls(cfg.run_cfg)
        task.config = getattr(cfg, "config", None)
        return task

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        """LAVIS's way to build the data sets; which spaCy model annotated them is remembered."""
        datasets = super().build_datasets(cfg)
        parts = (part for splits in datasets.values() for part in splits.values())
        self.ner = next((dict(part.ner) for part in parts if hasattr(part, "ner")), None)
        return datasets

    def doubts(self, weights: Path | None) -> list[str]:
        """What a user should know of the config before the work begins, a line each.

        Args:
            weights: Those that are tested, where the run only tests.
        """
        return [] if self.config is None else untrained_reading(plain_sections(self.config), weights)

    @property
    def report(self) -> dict[str, Any]:
        """What the last test gave, as metrics.json has it."""
        return self.evaluator.report

    # Training

    def train_step(self, model: torch.nn.Module, samples: Mapping[str, Any]) -> Tensor:
        """The loss of a batch; ``self.losses`` keeps the loss of each task and the token count."""
        output = model(samples)
        self.losses = {name: value for name, value in output.items() if name != "loss"}
        return output["loss"]

    def checkpoint_files(self) -> dict[str, bytes]:
        """What a checkpoint carries so that nothing else is needed to caption; {} where it is not known."""
        return {} if self.config is None else checkpoint_files(self.config, self.ner)

    def select(
        self,
        model: EvaluatedModel,
        wording: Wording,
        batches: Iterable[tuple[Sequence[NewsSample], Tensor]],
    ) -> list[tuple[NewsSample, Selection]]:
        """What the model selects in photos of the training, by the options of a validation."""
        passes = TwoPasses(model, wording, options.for_validation(self.evaluator.options))
        return list(select_all(passes, batches))

    # Evaluation

    def prepare_test(
        self,
        model: EvaluatedModel,
        folder: Path | None,
        validation: tuple[EvaluationData, Iterable[Mapping[str, Any]]] | None,
    ) -> dict[str, bytes]:
        """Settle what ``run.threshold: auto`` leaves open until weights are tested; called in every process.

        Args:
            model: With these weights, in evaluation mode.
            folder: Of their checkpoint; None where they have none.
            validation: A split, and this process's batches of it; None where there is none.

        Returns:
            Files that the checkpoint is to hold from now on, in place of those of the same name.
        """
        choice = settle_threshold(self.evaluator, model, folder, validation)
        if choice is None or self.config is None:
            return {}
        return checkpoint_files(self.config, self.ner, choice)

    def before_evaluation(
        self, model: EvaluatedModel, dataset: EvaluationData, validates: bool = False, **_: Any
    ) -> None:
        """Start with a split; a test writes into the run's folder.

        Args:
            model: With the weights that are evaluated.
            dataset: The split.
            validates: See `Evaluator.start`.
        """
        self.evaluator.start(dataset, Path(registry.get_path("output_dir") or "."), validates=validates)

    def evaluation(
        self,
        model: EvaluatedModel,
        data_loader: Iterable[Mapping[str, Any]],
        cuda_enabled: bool = False,
    ) -> list[Record]:
        """Both passes over a split; a record a photo."""
        return self.evaluator.evaluate(model, data_loader)

    def valid_step(self, model: EvaluatedModel, samples: Mapping[str, Any]) -> list[Record]:
        """Both passes over a batch of `EvaluationSamples`."""
        return self.evaluator.evaluate_batch(model, samples)

    def after_evaluation(
        self, val_result: list[Record], split_name: str, epoch: Any, **_: Any
    ) -> dict[str, Any] | None:
        """Gather the records of all processes, measure them, and after a test write and print the report."""
        return self.evaluator.finish(val_result, split_name)
