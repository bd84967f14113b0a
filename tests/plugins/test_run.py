"""One run that uses all packages at once: their data set, task, context, metric and model family."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.plugins.conftest import PACKAGES

pytestmark = [pytest.mark.slow, pytest.mark.process]

PEOPLE = ("Ana Ruiz", "Simon Wagner", "Fatima Moreau", "Kevin Park")
CITIES = ("Oslo", "Nairobi", "Lisbon", "Chicago")
DRINKS = {"Solana Cola": "darkred", "Kivu Water": "lightblue", "Tarn Juice": "orange"}


def make_advertisements(folder: Path) -> Path:
    """Photos in the colour of the advertised drink, and a table that lists all drinks."""
    (folder / "images").mkdir()
    with open(folder / "catalogue.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "caption", "article", "split", "products", "shown"])
        for split, number in (("train", 24), ("val", 4), ("test", 6)):
            for index in range(number):
                key, drink = f"{split}{index}_0", list(DRINKS)[index % 3]
                person, other, city = PEOPLE[index % 4], PEOPLE[(index + 1) % 4], CITIES[index // 2 % 4]
                Image.new("RGB", (96, 96), DRINKS[drink]).save(folder / "images" / f"{key}.jpg")
                article = (
                    f"It rained all day. {other} stayed at home in Paris.\n"
                    f"{person} came to {city} on Monday. Many people were there."
                )
                caption = f"{person} in {city}."
                table.writerow([key, f"{key}.jpg", caption, article, split, ";".join(DRINKS), drink])
    return folder


CONFIG = """
model: {{arch: patch_llama, model_type: micro}}
datasets:
  product_catalogue:
    vis_processor:
      train: {{name: ealign_image, image_size: 64}}
      eval: {{name: ealign_image, image_size: 64}}
    recipe: {{contexts: {{lead_and_selected: 1}}}}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  seed: 1
  device: cpu
  num_workers: 0
  output_dir: {output}
  max_iters: 6
  iters_per_inner_epoch: 3
  batch_size_train: 14
  batch_size_eval: 6
  init_lr: 1.0e-3
  min_lr: 1.0e-4
  warmup_steps: 2
  weight_decay: 0.05
  log_freq: 2
  train_splits: [train]
  valid_splits: [val]
  test_splits: [test]
  contexts: [head, lead_and_selected]
  context_words: 20
  num_beams: 1
  max_len: 8
"""


@pytest.fixture(scope="module")
def run_folder(plugins, root, tmp_path_factory) -> Path:
    """What a training of six steps left."""
    folder = tmp_path_factory.mktemp("run")
    path = os.pathsep.join([str(plugins), str(root)])

    def ealign(*arguments: object) -> None:
        command = ["-m", *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "EALIGN_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]

    (folder / "source").mkdir()
    source = make_advertisements(folder / "source")
    ealign(
        "ealign_plugin.cli",
        "prepare",
        "product_catalogue",
        source,
        "--out",
        folder / "cache" / "product_catalogue",
    )
    config = folder / "advertisements.yaml"
    config.write_text(CONFIG.format(output=folder / "output"), encoding="utf-8")
    ealign("lavis.train", "--cfg-path", config)
    return max((folder / "output" / "ealign_news_captioning").glob("2*"))


def test_the_task_is_learnt_in_every_batch_and_asked_at_test(run_folder):
    lines = [json.loads(line) for line in (run_folder / "log.txt").read_text().splitlines()]
    steps = [line for line in lines if line["split"] == "step"]
    assert steps and all("loss_products" in step for step in steps)
    test = json.loads((run_folder / "metrics.json").read_text())["test"]
    assert {"tasks/products/precision", "tasks/products/recall"} <= set(test)
    assert 0 <= test["tasks/products/recall"] <= 1


def test_the_context_is_read(run_folder):
    records = [json.loads(line) for line in (run_folder / "predictions.jsonl").read_text().splitlines()]
    read = [record["context_text"] for record in records if record.get("context") == "lead_and_selected"]
    assert len(read) == 6 and all(text.startswith("It rained all day.") for text in read)


def test_the_metric_is_a_figure_and_a_column(run_folder):
    contexts = json.loads((run_folder / "metrics.json").read_text())["test"]["contexts"]
    assert all("unsupported_names" in figures for figures in contexts.values())
    report = (run_folder / "report.txt").read_text()
    assert "unsupported: share of the captions' names" in report


def test_the_weights_are_those_of_the_family(run_folder):
    config = (run_folder / "config.yaml").read_text()
    assert "arch: patch_llama" in config
    assert (run_folder / "checkpoints" / "best" / "weights.safetensors").exists()
    assert "patch_llama" in PACKAGES
