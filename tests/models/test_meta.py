"""Models without memory, in one thread while others build models with it."""

from threading import Barrier, Thread

from torch import nn

from ealign_plugin.models import Llava
from ealign_plugin.models.meta import build_on_meta, give_memory, shapes_only
from ealign_plugin.models.section import defaults_of


def test_parameters_are_on_the_meta_device_inside_and_buffers_hold_values():
    with shapes_only():
        norm = nn.BatchNorm1d(3)
        with shapes_only():
            pass
        inner = nn.Linear(2, 2)
    assert norm.weight.is_meta and inner.weight.is_meta and not norm.running_var.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_another_thread_gets_memory():
    inside, done = Barrier(2), Barrier(2)
    made: list[nn.Linear] = []

    def build() -> None:
        inside.wait()
        made.append(nn.Linear(2, 2))
        done.wait()

    thread = Thread(target=build)
    thread.start()
    with shapes_only():
        inside.wait()
        done.wait()
        mine = nn.Linear(2, 2)
    thread.join()
    assert mine.weight.is_meta and not made[0].weight.is_meta


def test_an_error_inside_ends_it():
    try:
        with shapes_only():
            raise KeyError
    except KeyError:
        pass
    assert not nn.Linear(2, 2).weight.is_meta


def test_what_gets_memory_stays_tied():
    with shapes_only():
        pair = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        pair[1].weight = pair[0].weight
    give_memory(pair)
    assert pair[0].weight is pair[1].weight and not pair[0].weight.is_meta


def test_a_section_s_model_has_the_shapes_of_the_real_one():
    section = defaults_of(Llava.PRETRAINED_MODEL_CONFIG_DICT, "micro")
    shapes = {name: value.shape for name, value in build_on_meta(Llava, section).state_dict().items()}
    assert shapes == {name: value.shape for name, value in Llava.from_config(section).state_dict().items()}
    assert all(parameter.is_meta for parameter in build_on_meta(Llava, section).parameters())
