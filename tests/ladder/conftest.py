"""A ladder of four rungs that no process runs."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD

from ealign_plugin.ladder.run import run_rungs
from ealign_plugin.ladder.rungs import read_rungs, select_rungs
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
        test = {
            "contexts": {"head": figures, "oracle": figures},
            "selection": {"sentence_auc": 0.75 if name == "third" else None},
        }
        (folder / "metrics.json").write_text(json.dumps({"test": test}))
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

    def run(only=(), options=()) -> list[str]:
        rungs = read_rungs(folder, options)
        run_rungs(rungs, select_rungs(rungs, only), tmp_path / "out", options, runs)
        return runs.take()

    return run
