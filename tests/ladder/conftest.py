"""A ladder of four rungs that no process runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import SGD

from ealign_plugin.ladder.ladder import run_ladder
from ealign_plugin.ladder.rungs import read_rungs
from ealign_plugin.training.checkpoints.store import CheckpointStore

BASE = """
model: {arch: ealign_instructblip, model_type: micro}
datasets: {ealign_micronews: {}}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  max_iters: 10
  iters_per_inner_epoch: 10
  batch_size_train: 4
  batch_size_eval: 4
  init_lr: 1.0e-3
  contexts: [head]
"""
RUNGS = {
    "1_first": "ladder: {label: The first}",
    "2_second": "ladder: {label: The second, start: first, published: {cider: 82.7}}\nrun: {seed: 2}",
    "10_third": "ladder: {label: The third, start: second, published: {cider: 87.0}}\n"
    "run: {evaluate: true, contexts: [oracle]}",
    "11_fourth": "ladder: {label: The fourth}\nrun: {seed: 4}",
}


class Runs:
    """Stands for the processes: leaves what they leave, remembers the commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fail: set[str] = set()
        self.again: dict[str, Path] = {}  # where a rung goes on
        self.code = 1
        self.revision: str | None = "4f2a"
        self.quality: Callable[[str, DictConfig], float] | None = None  # entity F1, by rung and values
        self.taken = 0

    def __call__(self, command) -> int:
        self.commands.append(list(command))
        name = self.names[-1]
        values = OmegaConf.from_dotlist(command[command.index("--options") + 1 :])
        folder = Path(values.run.output_dir) / "ealign_news_captioning" / f"run{len(self.commands):03}"
        folder = self.again.get(name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.log").write_text("")
        if name in self.fail:
            return self.code
        net = nn.Linear(1, 1)
        options = {"metric": 0.5, "values": {}, "per_rank": {}, "manifest": {}}
        CheckpointStore(folder / "checkpoints").save(net, SGD(net.parameters()), iters=1, **options)
        figures = {"cider": len(self.commands) / 10, "people_right": 0.5, "bleu4": None}
        if self.quality:
            figures["entity_f1"] = self.quality(name, values)
        test = {
            "contexts": {"head": figures, "oracle": figures},
            "selection": {"sentence_auc": 0.75 if name == "third" else None},
        }
        (folder / "metrics.json").write_text(json.dumps({"test": test}))
        environment = {"revision": self.revision, "packages": {"ealign-plugin": "0.1.0"}}
        (folder / "environment.json").write_text(json.dumps(environment))
        return 0

    @property
    def names(self) -> list[str]:
        stems = [Path(command[command.index("--cfg-path") + 1]).stem for command in self.commands]
        return [stem.partition("_")[2] for stem in stems]

    def take(self) -> list[str]:
        """The rungs run since the last call."""
        names = self.names[self.taken :]
        self.taken = len(self.commands)
        return names


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "my ladder"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE)
    for name, text in RUNGS.items():
        (folder / f"{name}.yaml").write_text(f"base: base.yaml\n{text}\n")
    return folder


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def start(folder, tmp_path, runs):
    """``start(only=[...], options=[...])`` -> the rungs that were run."""

    def run(**options) -> list[str]:
        run_ladder(folder, tmp_path / "out", runs, **options)
        return runs.take()

    return run


@pytest.fixture(scope="package", params=["micro", "vicuna7b"])
def shipped(request, root) -> dict:
    """The rungs of a ladder under ``projects``, by name."""
    rungs = read_rungs(root / "projects" / "ealign" / "ladder" / request.param, [])
    return {rung.name: rung for rung in rungs}
