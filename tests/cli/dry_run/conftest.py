"""Dry runs of the shipped config with changes, and the shards and weights that they look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ealign_plugin.cli import train
from ealign_plugin.entities import DEFAULT_NER
from tests.cli.dry_run.factories import Report, files, news
from tests.factories import plain_jpeg, write_shards


@pytest.fixture
def dry(root: Path, tmp_path: Path, own_cache: Path, monkeypatch: Any, capsys: Any) -> Callable[..., Report]:
    """``dry("run.max_iters=5", data={...}, model={...})``: train_closed.yaml with these changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*options: str, data: dict | None = None, model: dict | None = None) -> Report:
        config = yaml.safe_load((root / "projects" / "ealign" / "train_closed.yaml").read_text())
        config["datasets"], config["model"] = data or config["datasets"], model or config["model"]
        config["run"]["shuffled_images"] = data is None
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        before = files(tmp_path, own_cache)
        code = train.main(["--cfg-path", "run.yaml", "--dry-run", "--options", "run.device=cpu", *options])
        assert files(tmp_path, own_cache) == before
        assert not torch.cuda.is_initialized()
        said = capsys.readouterr()
        return Report(code, " ".join(said.out.split()), said.err)

    return run


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., dict]:
    """``shards("one", train=3, test=2)``: a folder with so many photos, one shard each; its section."""

    def write(folder: str, **counts: int) -> dict:
        pairs = {
            split: [(news(key=f"{split}{number}", split=split), plain_jpeg()) for number in range(count)]
            for split, count in counts.items()
        }
        write_shards(tmp_path / folder, pairs, ner=DEFAULT_NER, samples_per_shard=1)
        sizes = {kind: {"name": "ealign_image", "image_size": 64} for kind in ("train", "eval")}
        return {
            "build_info": {"images": {"storage": folder}},
            "vis_processor": sizes,
            "splits": list(counts),
        }

    return write
