"""torch's unstable interfaces are where `torch_interfaces` expects them; a torch that moves one fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from ealign_plugin.training.torch_interfaces import (
    is_sharded,
    load_shards,
    local_tensor,
    multiply_in_place,
    save_shards,
    shard_modules,
    shards_of_rank,
    weights_gathered,
    whole_tensor,
)

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of one: what is sharded over it goes the same ways through torch."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    shard_modules([*model, model], lambda module: None, CPU, None)
    return model


def test_a_sharded_model_holds_sharded_tensors_whose_parts_and_whole_can_be_read(group):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weight = sharded_model()[0].weight
    assert is_sharded(weight) and not is_sharded(plain[0].weight)
    assert torch.equal(whole_tensor(weight), plain[0].weight)
    assert torch.equal(local_tensor(weight), plain[0].weight)  # the part of one process is all
    assert not is_sharded(local_tensor(weight))
    assert whole_tensor(plain[0].weight) is plain[0].weight


def test_preparing_comes_before_sharding_and_inner_modules_first(group):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    seen = []
    shard_modules([*model, model], lambda m: seen.append([is_sharded(p) for p in m.parameters()]), CPU, None)
    assert seen == [[False] * 2, [False] * 2, [True] * 4]


def test_the_model_is_the_root_whatever_runs_first(group):
    """FSDP refuses a forward of the outer module where an inner one ran before it and became the root."""
    model = sharded_model()
    model[1](torch.ones(1, 4))
    model(torch.ones(1, 3)).sum().backward()
    assert is_sharded(model[0].weight.grad)


def test_inside_weights_are_gathered_and_afterwards_sharded_again(group):
    model = sharded_model()
    with weights_gathered(model):
        assert not any(map(is_sharded, model.parameters()))
        model[1](torch.ones(1, 4))
        assert not any(map(is_sharded, model.parameters()))
    assert all(map(is_sharded, model.parameters()))
    model(torch.ones(1, 3)).sum().backward()
    assert all(is_sharded(parameter.grad) for parameter in model.parameters())


def test_a_model_that_is_not_sharded_stays_as_it_is():
    model = nn.Linear(1, 1)
    with weights_gathered(model):
        assert model(torch.ones(1, 1)).shape == (1, 1)


def test_tensors_are_multiplied_where_they_are():
    tensors = [torch.ones(2), torch.full((1, 3), 2.0)]
    multiply_in_place(tensors, torch.tensor(0.5))
    assert [each.tolist() for each in tensors] == [[0.5, 0.5], [[1.0, 1.0, 1.0]]]


def test_shards_are_safetensors_files_named_by_rank_and_come_back(tmp_path):
    tensors = {"a/step": torch.tensor(3.0), "a/exp_avg": torch.arange(6.0).reshape(2, 3)}
    save_shards(tensors, tmp_path)
    (path,) = shards_of_rank(tmp_path, 0)
    assert path.name == "shard-00001-model-00001-of-00001.safetensors"
    assert shards_of_rank(tmp_path, 1) == []
    assert set(load_file(path)) == set(tensors)
    again = {name: torch.zeros_like(value) for name, value in tensors.items()}
    load_shards(again, tmp_path)
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    "wanted", [{"b": torch.zeros(1)}, {"a": torch.zeros(2, 2)}], ids=["missing name", "other shape"]
)
def test_shards_that_do_not_fit_are_one_line(tmp_path, wanted):
    save_shards({"a": torch.zeros(3)}, tmp_path)
    with pytest.raises(OSError) as error:
        load_shards(wanted, tmp_path)
    assert str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:
        save_shards({"a": torch.zeros(3)}, tmp_path / "file" / "shards")
    assert str(error.value) and "\n" not in str(error.value)


def test_fsdp_marks_a_model_so_that_generate_would_wait_for_other_processes(group):
    """Why calls of ``generate`` say ``synced_gpus=False``; tests/training/test_parallel.py calls them so."""
    from transformers.integrations.fsdp import is_fsdp_managed_module

    assert is_fsdp_managed_module(sharded_model())
