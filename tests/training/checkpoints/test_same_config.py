"""Is a checkpoint's config today's?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.manifest import Checkpoint, versions
from ealign_plugin.training.checkpoints.same_config import check_config

CONFIG = {
    "model": {"arch": "ealign_llava", "lora": {"r": 8}, "batching": "groups", "trainable": "lora"},
    "datasets": {"news": {"recipe": {"tasks": {"caption": 1}}, "build_info": {"images": {"storage": "/a"}}}},
    "run": {"init_lr": 1e-3, "output_dir": "a", "max_iters": 10},
}


def changed(key: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *path, last = key.split("/")
    section = config
    for name in path:
        section = section[name]
    section[last] = value
    return config


def checkpoint(config: dict, version: str | None = None) -> Checkpoint:
    here = versions()
    here |= {"ealign_plugin": version} if version else {}
    return Checkpoint(Path("iter_000001"), {"config": config, "versions": here})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model/lora/r",
            16,
            "model.lora.r: 8 when the checkpoint was saved, 16 now; set them back to resume",
        ),
        ("model/trainable", None, 'model.trainable: "lora" when the checkpoint was saved, nothing now'),
        ("datasets/news/recipe/tasks/entity", 2, "datasets.news.recipe.tasks.entity: nothing when .*, 2 now"),
    ],
)
def test_another_model_or_other_data_are_an_error(key, value, message):
    with pytest.raises(UserError, match=message):
        check_config(checkpoint(CONFIG), changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("run/init_lr", 0.01, ["run.init_lr: 0.001 when the checkpoint was saved, 0.01 now"]),
        ("run/output_dir", "b", []),
        (
            "model/batching",
            "packed",
            ['model.batching: "groups" when the checkpoint was saved, "packed" now'],
        ),
        ("model/new_key", [], []),
    ],
)
def test_other_differences_are_message(key, value, message):
    assert check_config(checkpoint(CONFIG), changed(key, value)) == message


def test_data_may_have_moved():
    moved = changed("datasets/news/build_info/images/storage", "/b")
    assert len(check_config(checkpoint(CONFIG), moved)) == 1


def test_a_key_that_another_version_did_not_know_is_no_error():
    later = changed("model/new_key", 3)
    assert len(check_config(checkpoint(CONFIG, version="0.0.1"), later)) == 1
    with pytest.raises(UserError, match="model.new_key: nothing when"):
        check_config(checkpoint(CONFIG), later)
