"""A test that reads more than the training did is told so before the work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ealign_plugin.inference.untrained import untrained_reading
from ealign_plugin.training.checkpoints.store import CheckpointStore


def config(trained: dict[str, float], *, phases=(), model=(), data=(), **run: Any) -> dict[str, Any]:
    """A run whose captions are trained in these contexts, and which tests `head` and validates `refined`."""
    section = {"recipe": {"contexts": trained}, "phases": list(phases), **dict(data)}
    tested = {"contexts": ["head"], "test_splits": ["test"], "valid_splits": ["val"], "context_words": 80}
    return {"model": dict(model), "datasets": {"ealign_news": section}, "run": {**tested, **run}}


@pytest.fixture
def trained(tmp_path: Path):
    """``trained(config, "base")``: the weights of a checkpoint of that run."""

    def save(values: dict[str, Any], name: str) -> Path:
        model = torch.nn.Linear(1, 1)
        store = CheckpointStore(tmp_path / name)
        optimizer = torch.optim.SGD(model.parameters())
        manifest = {"config": values}
        store.save(model, optimizer, iters=1, metric=None, values={}, per_rank={}, manifest=manifest)
        return store.folder / "last" / "weights.safetensors"

    return save


def test_what_no_context_of_the_training_shows_is_named_with_its_key():
    (line,) = untrained_reading(config({"refined": 0.9, "head": 0.1}, contexts=["head", "full"]))
    assert line == (
        "run.contexts: found full, which reads more than the budget; no caption of the training did "
        "(datasets.<name>.recipe.contexts, phases included: head, refined); give full a share there, or "
        "leave it out here"
    )


@pytest.mark.parametrize(
    ("trained", "tested", "told"),
    [
        ({"refined": 1}, ["head", "refined", "oracle_sentences", "none"], []),
        ({"supplemented": 1}, ["supplemented", "oracle", "refined"], []),
        ({"refined": 1}, ["supplemented"], ["a list of names"]),
        ({"head": 1}, ["around_image"], ["the headline"]),
        ({"full": 1}, ["full", "head"], []),
        ({"none": 1}, ["none"], []),
        ({"none": 1}, ["full"], ["more than the budget and sentences of the article"]),
    ],
)
def test_only_what_is_more_is_told(trained, tested, told):
    lines = untrained_reading(config(trained, contexts=tested, valid_splits=[]))
    assert [line.split("which reads ")[1].split(";")[0] for line in lines] == told


def test_any_phase_and_any_data_set_may_have_trained_it():
    assert untrained_reading(config({"none": 1}, contexts=["head"])) != []
    phases = [{"until": 5, "contexts": {"head": 1}}]
    assert untrained_reading(config({"none": 1}, phases=phases)) == []
    no_caption = [{"until": 5, "contexts": {"head": 1}, "tasks": {"sentence": 1}}]
    assert untrained_reading(config({"none": 1}, phases=no_caption)) != []
    two = config({"none": 1})
    two["datasets"]["ealign_goodnews"] = config({"refined": 1})["datasets"]["ealign_news"]
    assert untrained_reading(two) == []
    two["datasets"]["ealign_goodnews"]["splits"] = ["val", "test"]  # it trains nothing
    assert untrained_reading(two) != []


def test_a_validation_and_the_losses_of_captions_count_as_far_as_they_are_run():
    untrained = config({"none": 1}, contexts=["none"], caption_loss=["head"])
    keys = [line.split(":")[0] for line in untrained_reading(untrained)]
    assert keys == ["run.caption_loss", "run.valid_contexts"]
    untrained["run"] |= {"valid_splits": [], "test_splits": []}
    assert untrained_reading(untrained) == []


def test_weights_that_are_only_tested_are_held_against_their_own_training(trained):
    weights = trained(config({"refined": 1}), "run")
    assert untrained_reading(config({"full": 1}), weights) == []
    (line,) = untrained_reading(config({"full": 1}, contexts=["full"]), weights)
    assert "found full, which reads more than the budget" in line
    (line,) = untrained_reading(config({"refined": 1}, context_words=160), weights)
    assert line.startswith(
        "run.context_words: found 160, the training read at most 80; train with the longer"
    )
    assert untrained_reading(config({"refined": 1}, context_words=40), weights) == []


def test_what_the_training_before_read_counts_too(trained):
    before = trained(config({"full": 1}, context_words=200), "base")
    after = trained(config({"head": 1}, model={"load_finetuned": True, "finetuned": str(before)}), "tuned")
    assert untrained_reading(config({"head": 1}, contexts=["full"], context_words=200), after) == []
    assert len(untrained_reading(config({"head": 1}, contexts=["full"], context_words=201), after)) == 1


def test_a_supplement_shows_what_its_usual_context_shows(trained):
    over_photo = config({"supplemented": 1}, usual_context="around_image", contexts=["around_image"])
    assert untrained_reading(over_photo) == []
    over_head = trained(config({"supplemented": 1}), "run")
    (line,) = untrained_reading(
        config({}, usual_context="around_image", contexts=["supplemented"]), over_head
    )
    assert "found supplemented, which reads the headline" in line
    over_photo["run"]["usual_context"] = "of_another_package"
    assert untrained_reading(config({}, contexts=["full"]), trained(over_photo, "strange")) == []


def test_where_it_is_not_known_nothing_is_told(tmp_path):
    foreign = config({}, contexts=["full"])
    foreign["datasets"] = {"coco_caption": {}}
    assert untrained_reading(foreign) == []
    assert untrained_reading(config({}, contexts=["full"]), tmp_path / "weights.safetensors") == []
    assert untrained_reading(config({"of_another_package": 1}, contexts=["full"])) == []
