"""The shipped ladders compare like with like: captions, steps, tries, budgets."""

import json
from copy import deepcopy

from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import TASKS
from ealign_plugin.data.streams.mixing import TaskMixer, task_quota
from ealign_plugin.inference.untrained import untrained_reading
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_weights
from tests.ladder.factories import recipe_of


def compared(shipped) -> dict:
    """The rungs that are trained, without the one that they start from."""
    return {name: rung for name, rung in shipped.items() if not rung.only_evaluates}


def quotas(config) -> set[tuple[int, int]]:
    """Captions, and all examples, of each of the first steps."""
    mixer = TaskMixer(recipe_of(config), Wording(), batch_size=config["run"]["batch_size_train"])
    carry_over = dict.fromkeys(TASKS, 0.0)
    made = [task_quota(mixer.recipe_at(step), mixer.batch_size, carry_over) for step in range(10)]
    return {(quota["caption"], sum(quota.values())) for quota in made}


def test_every_rung_learns_from_as_many_captions_a_step_in_each_of_its_tries(shipped):
    ((captions, _),) = quotas(shipped["base"].config)
    ((_, whole),) = quotas(shipped["eama"].config)
    for name, rung in compared(shipped).items():
        for values in ({}, *rung.tries):
            changes = OmegaConf.from_dotlist([f"{key}={json.dumps(value)}" for key, value in values.items()])
            config = OmegaConf.to_container(OmegaConf.merge(rung.config, changes))
            ((here, all_here),) = quotas(config)
            if name == "base_compute":  # as many examples as EAMA, all of them captions
                assert here == all_here == whole > captions
            else:
                assert here == captions, (name, values)
    for name in ("sent_ent_cap", "placebo"):
        assert quotas(shipped[name].config) == {(captions, whole)}


def test_every_rung_takes_as_many_steps_and_may_be_tried_as_often(shipped):
    for key in ("max_iters", "warmup_steps", "accum_grad_iters", "seed"):
        assert len({rung.config["run"].get(key) for rung in compared(shipped).values()}) == 1
    assert len({len(rung.tries) for rung in compared(shipped).values()}) == 1
    assert len(shipped["base"].tries) >= 3


def test_the_placebo_is_eama_but_for_its_labels(shipped):
    config = deepcopy(shipped["placebo"].config)
    (section,) = config["datasets"].values()
    assert section["recipe"].pop("permute_labels") is True
    (section,) = (eama := deepcopy(shipped["eama"].config))["datasets"].values()
    assert section["recipe"].pop("permute_labels") is False
    assert config == eama
    assert shipped["placebo"].tries == shipped["eama"].tries


def test_the_threshold_of_every_second_pass_is_chosen_on_validation(shipped):
    for rung in shipped.values():
        if rung.config["run"]["contexts"] == ["supplemented"]:
            assert rung.config["run"]["threshold"] == "auto"
            assert rung.config["run"]["valid_splits"] == ["val"]


def test_the_oracles_read_in_training_what_eama_does(shipped):
    eama, base = (shipped[name].config for name in ("eama", "base_oracle_sentences"))
    for key in ("contexts", "miss", "extra", "extra_names"):
        assert getattr(recipe_of(base), key) == getattr(recipe_of(eama), key)
    for key in ("context_words", "usual_context", "usual_words"):
        assert base["run"][key] == eama["run"][key]
    assert {task for task, share in recipe_of(base).tasks.items() if share} == {"caption"}


def test_only_the_longer_local_contexts_read_more_at_test_than_in_training(shipped, tmp_path):
    net = nn.Linear(1, 1)
    for name, rung in shipped.items():
        weights = None
        if rung.only_evaluates:
            saved = {"values": {}, "per_rank": {}, "manifest": {"config": shipped[rung.start].config}}
            store = CheckpointStore(tmp_path / name)
            store.save(net, SGD(net.parameters()), iters=1, metric=None, **saved)
            weights = find_weights(tmp_path / name)
        lines = untrained_reading(rung.config, weights)
        if name in ("base_long", "align_long"):
            (line,) = lines  # the run's log says it, and the rung runs
            assert line.startswith(f"run.context_words: found {rung.config['run']['context_words']}")
        else:
            assert lines == [], name
