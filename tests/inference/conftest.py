"""An environment without Java, and a captioner with random weights from the files of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import spacy
import torch
from omegaconf import OmegaConf
from PIL import Image

import ealign_plugin
from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.host.config import load_config
from ealign_plugin.models import InstructBlip
from ealign_plugin.registered.task import NewsCaptioning
from tests.inference.factories import RUN, save


@pytest.fixture
def without_java(monkeypatch):
    """METEOR takes seconds."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As lavis.train leaves one: the resolved config and the best weights, here random ones."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "user.yaml").write_text(RUN)
    cfg = load_config(folder / "user.yaml")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg.config, resolve=True))
    torch.manual_seed(3)
    model = InstructBlip.from_config(cfg.model_cfg)
    save(folder, model, iters=400)
    return folder


@pytest.fixture(scope="session")
def ner() -> NamedEntityRecognizer:
    """Sentences end at full stops; made at once, where a trained pipeline takes a second."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return NamedEntityRecognizer(nlp, "blank", "0")


@pytest.fixture(scope="session")
def captioner(run_folder, ner) -> ealign_plugin.NewsCaptioner:
    return ealign_plugin.NewsCaptioner.from_checkpoint(run_folder, device="cpu", ner=ner, threshold=None)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Four of plain colour, of different sizes."""
    colours = ("red", "green", "blue", "white")
    return [Image.new("RGB", (80 + 10 * number, 70), colour) for number, colour in enumerate(colours)]


@pytest.fixture(scope="session")
def checkpoint(run_folder, tmp_path_factory) -> Path:
    """One checkpoint's folder alone, as a run of today writes it."""
    task = NewsCaptioning.setup_task(load_config(run_folder / "user.yaml"))
    source = run_folder / "checkpoints" / "iter_000400"
    folder = shutil.copytree(source, tmp_path_factory.mktemp("elsewhere") / "iter_000400")
    for name, content in task.checkpoint_files().items():
        (folder / name).write_bytes(content)
    return folder
