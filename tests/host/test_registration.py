"""Everything of ours is registered once both packages are imported, in whichever order."""

from types import SimpleNamespace

import pytest
from lavis.common.registry import registry
from lavis.models import model_zoo

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import (
    RUN_PATHS,
    current_run,
    forget_run_paths,
    refresh_catalogues,
    registered,
    registered_class,
    registered_names,
    registered_path,
    set_configuration,
    set_path,
)

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


def test_laviss_registry_is_the_one_that_our_code_was_written_for():
    """`ealign_plugin.host.registration` reads and changes these; of another LAVIS it has to be read again."""
    from importlib.metadata import version

    from ealign_plugin.host.compat import LAVIS_VERSION

    assert version("salesforce-lavis") == LAVIS_VERSION
    for kind in ("builder", "task", "processor", "model", "lr_scheduler", "runner"):
        classes = registry.mapping[f"{kind}_name_mapping"]
        assert classes and all(type(name) is str and isinstance(cls, type) for name, cls in classes.items())
        assert callable(getattr(registry, f"register_{kind}"))
    assert isinstance(registry.mapping["paths"], dict) and isinstance(registry.mapping["state"], dict)


def test_catalogues_list_what_was_registered_since_lavis_was_imported(monkeypatch):
    classes = dict(registry.mapping["model_name_mapping"])
    classes["ealign_test_model"] = type("M", (), {"PRETRAINED_MODEL_CONFIG_DICT": {"tiny": ""}})
    monkeypatch.setitem(registry.mapping, "model_name_mapping", classes)
    refresh_catalogues()
    assert "ealign_test_model" in dict(model_zoo)
    monkeypatch.undo()
    refresh_catalogues()
    assert "ealign_test_model" not in dict(model_zoo)


def test_the_config_and_folders_of_a_run_are_kept_by_lavis(monkeypatch):
    monkeypatch.setitem(registry.mapping, "state", dict(registry.mapping["state"]))
    monkeypatch.setitem(registry.mapping, "paths", dict(registry.mapping["paths"]))
    set_configuration(SimpleNamespace(run_cfg={"seed": 7}))
    assert current_run() == registry.get("configuration").run_cfg == {"seed": 7}
    for name in RUN_PATHS:
        set_path(name, f"/{name}")
    assert registered_path("output_dir") == registry.get_path("output_dir") == "/output_dir"
    forget_run_paths()
    assert all(registered_path(name) is None for name in RUN_PATHS)


def test_classes_and_names_by_kind():
    assert registered_class("builder", "ealign_news") is registry.get_builder_class("ealign_news")
    assert registered_class("task", "no_such_task") is None
    assert registered_names("runner") == registry.list_runners()
