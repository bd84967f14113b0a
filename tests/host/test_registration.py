"""Everything of ours is registered once both packages are imported, in whichever order."""

import pytest
from lavis.common.registry import registry

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered

REPORT = """
from lavis.common.registry import registry
from lavis.datasets.builders import dataset_zoo
from lavis.models import model_zoo
print(
    "ealign_instructblip" in registry.list_models(),
    "ealign_instructblip" in dict(model_zoo),
    "ealign_micronews" in dataset_zoo.get_names(),
    "ealign_news_captioning" in registry.list_tasks(),
    "ealign_runner" in registry.list_runners(),
)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import ealign_plugin, lavis",
        "import ealign_plugin.registered.task",
        "import ealign_plugin.models",
        "import ealign_plugin, lavis, importlib; importlib.reload(ealign_plugin)",
        "import ealign_plugin, lavis, importlib as i; import ealign_plugin.registered.task as t; i.reload(t)",
    ],
)
def test_registered_after(imports, run_python):
    done = run_python("-c", imports + REPORT)
    assert done.stdout.split() == ["True"] * 5, done.stderr


def test_lavis_first_then_ours(run_python):
    """Needs the start-up hook where torchvision must be mended, so the finder is put there by hand."""
    finder = (
        "import sys; from ealign_plugin.host.startup import ealign_startup; del sys.modules['ealign_plugin']"
    )
    done = run_python("-c", finder + "\nimport lavis\nimport ealign_plugin" + REPORT)
    assert done.stdout.split() == ["True"] * 5, done.stderr


def test_importing_alone_is_silent_and_light(run_python, tmp_path):
    done = run_python(
        "-c", "import sys, ealign_plugin; print({'lavis', 'torch', 'transformers'} & {*sys.modules})"
    )
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
    assert list(tmp_path.iterdir()) == []


def make_schedule(module: str) -> type:
    return type("Schedule", (), {"__module__": module, "__qualname__": "Schedule"})


def test_a_reload_replaces_the_older_class(monkeypatch):
    monkeypatch.setitem(registry.mapping, "lr_scheduler_name_mapping", {})
    older, newer = (
        make_schedule("ealign_plugin.registered.schedules"),
        make_schedule("ealign_plugin.registered.schedules"),
    )
    registered("lr_scheduler", "ealign_test")(older)
    registered("lr_scheduler", "ealign_test")(newer)
    assert registry.get_lr_scheduler_class("ealign_test") is newer


def test_a_name_that_another_package_holds_is_an_error(monkeypatch):
    monkeypatch.setitem(
        registry.mapping, "lr_scheduler_name_mapping", {"ealign_test": make_schedule("other.package")}
    )
    with pytest.raises(UserError, match="lr_scheduler name 'ealign_test' is held by other.package.Schedule"):
        registered("lr_scheduler", "ealign_test")(make_schedule("ealign_plugin.registered.schedules"))
