"""The start-up hook's finder and what it mends."""

import sys

import pytest
import torch
from transformers import modeling_utils, pytorch_utils

from ealign_plugin.host.startup import ealign_startup as startup


def finders():
    return [finder for finder in sys.meta_path if type(finder).__name__ == "HostFinder"]


def test_installing_twice_leaves_one_finder():
    before = finders()
    startup.install()
    assert finders() == before and len(before) == 1


def test_the_finder_leaves_other_names_alone():
    assert startup.HostFinder().find_spec("json") is None


@pytest.mark.parametrize("command", startup.COMMANDS)
def test_the_commands_are_modules_with_a_main(command, run_python):
    done = run_python("-c", f"import ealign_plugin; from {command} import main; print(main.__module__)")
    assert done.stdout.strip() == command.replace("lavis", "ealign_plugin.cli"), done.stderr


def test_torchvision_imports_beside_this_torch(run_python):
    """On a torch without CUDA beside a torchvision built for CUDA this fails without the hook."""
    done = run_python("-c", "import ealign_plugin, torchvision; print(torchvision.extension.__name__)")
    assert done.returncode == 0, done.stderr


def test_the_loader_keeps_its_class_and_data(run_python):
    code = (
        "import ealign_plugin, lavis, pkgutil\n"
        "print(type(lavis.__loader__).__name__, len(pkgutil.get_data('lavis', 'configs/default.yaml')) > 0)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "SourceFileLoader True", done.stderr


def test_names_that_transformers_dropped_come_back(monkeypatch):
    names = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
    for name in names:
        monkeypatch.delattr(modeling_utils, name, raising=False)
    monkeypatch.delattr(pytorch_utils, "find_pruneable_heads_and_indices", raising=False)
    monkeypatch.setitem(sys.modules, "transformers.utils.model_parallel_utils", None)
    startup.mend_transformers()
    from transformers.utils.model_parallel_utils import get_device_map

    assert all(callable(getattr(modeling_utils, name)) for name in names)
    assert pytorch_utils.find_pruneable_heads_and_indices is startup.find_pruneable_heads_and_indices
    assert get_device_map is startup.get_device_map


def test_pruning_head_1_of_3_after_head_0_is_gone():
    """Head 1 of the original four is number 0 of the three left; each has two rows."""
    heads, rows = startup.find_pruneable_heads_and_indices({0, 1}, 3, 2, {0})
    assert heads == {1}
    assert torch.equal(rows, torch.tensor([2, 3, 4, 5]))


def test_a_device_map_places_every_block_once():
    device_map = startup.get_device_map(5, [0, 1])
    assert device_map == {0: [0, 1, 2], 1: [3, 4]}
    startup.assert_device_map(device_map, 5)
    with pytest.raises(ValueError, match="expected each of 0..5 once"):
        startup.assert_device_map(device_map, 6)
