"""A run's YAML: every mistake is named, all of them at once, before anything is built."""

from pathlib import Path

import pytest
import yaml
from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from lavis.models.base_model import BaseModel
from lavis.runners import RunnerIter
from lavis.tasks.base_task import BaseTask

from ealign_plugin.errors import UserError
from ealign_plugin.host.config import load_config
from ealign_plugin.host.config_checks import key_problems
from ealign_plugin.models import Llava
from ealign_plugin.registered.models import join
from ealign_plugin.registry import Registry

MODEL_YAML = (
    "model: {arch: tiny_model, width: 4, rate: 0.5, name: x, on: true, extra: {}, nested: {sizes: [1, 2]}}"
)
DATA_YAML = (
    "datasets: {tiny_data: {data_type: images, size: 8, vis_processor: {train: {name: blip_caption}}}}"
)


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch, tmp_path):
    """A model, a data set, a task and a runner that count as ours, with a default YAML each."""
    (tmp_path / "model.yaml").write_text(MODEL_YAML)
    (tmp_path / "data.yaml").write_text(DATA_YAML)

    class Model(BaseModel):
        PRETRAINED_MODEL_CONFIG_DICT = {"micro": str(tmp_path / "model.yaml")}
        CONFIG_KEYS = {"spare": "allowed beside the default YAML's keys"}

    class Builder(BaseDatasetBuilder):
        DATASET_CONFIG_DICT = {"default": str(tmp_path / "data.yaml")}

    class Task(BaseTask):
        RUN_KEYS = {"contexts": "contexts of pass 2"}

    class Runner(RunnerIter):
        RUN_KEYS = {"clip": "gradient norm"}
        RUN_DEFAULTS = {"iters_per_inner_epoch": 10, "clip": 1.0}

    for cls, kind in ((Model, "model"), (Builder, "builder"), (Task, "task"), (Runner, "runner")):
        cls.__module__ = "ealign_plugin.tests"
        name = "tiny_data" if kind == "builder" else f"tiny_{kind}"
        monkeypatch.setitem(registry.mapping[f"{kind}_name_mapping"], name, cls)


@pytest.fixture
def write(tmp_path):
    """``write(model={...}, datasets={...}, run={...})`` -> path of a good config with these changes."""

    def make(**changes) -> Path:
        config = {
            "model": {"arch": "tiny_model", "model_type": "micro"},
            "datasets": {"tiny_data": {}},
            "run": {
                "task": "tiny_task",
                "runner": "tiny_runner",
                "max_iters": 3,
                "batch_size_train": 2,
                "batch_size_eval": 2,
                "init_lr": 0.001,
            },
        }
        for root, change in changes.items():
            config[root] = {**config.get(root, {}), **change}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return make


def test_defaults_come_from_host_task_runner_and_yaml(write):
    cfg = load_config(write(model={"width": 8}))
    assert (cfg.model_cfg.width, cfg.model_cfg.rate) == (8, 0.5)
    assert cfg.datasets_cfg.tiny_data.size == 8
    assert (cfg.run_cfg.clip, cfg.run_cfg.iters_per_inner_epoch) == (1.0, 10)
    assert (cfg.run_cfg.device, cfg.run_cfg.seed, cfg.run_cfg.evaluate) == ("auto", 42, False)


@pytest.mark.parametrize("options", [["run.seed=7", "model.width=5"], ["run.seed", "7", "model.width", "5"]])
def test_options_replace_the_yaml_in_both_of_laviss_forms(write, options):
    cfg = load_config(write(), options)
    assert (cfg.run_cfg.seed, cfg.model_cfg.width) == (7, 5)


MISTAKES = [
    ({"runn": {}}, "runn: unknown key 'runn'; did you mean 'run'?"),
    ({"run": {"max_itres": 1}}, "run.max_itres: unknown key 'max_itres'; did you mean 'max_iters'?"),
    ({"run": {"task": "tiny_tusk"}}, "run.task: unknown name 'tiny_tusk'; did you mean 'tiny_task'?"),
    ({"run": {"runner": "tiny_runer"}}, "run.runner: unknown name 'tiny_runer'; did you mean 'tiny_runner'?"),
    ({"run": {"lr_sched": "linear_warmup_cosin_lr"}}, "did you mean 'linear_warmup_cosine_lr'?"),
    ({"run": {"seed": "many"}}, "run.seed: found 'many', expected a whole number"),
    ({"run": {"max_iters": True}}, "run.max_iters: found True, expected a whole number"),
    ({"run": {"max_iters": None}}, "run.max_iters: missing, expected a whole number"),
    ({"run": {"clip": "high"}}, "run.clip: found 'high', expected a number"),
    ({"run": {"amp": "yes please"}}, "run.amp: found 'yes please', expected true or false"),
    ({"run": {"device": "tpu"}}, "run.device: found 'tpu', expected auto, cpu or cuda"),
    ({"run": {"train_dataset_ratios": {"tiny": 1}}}, "unknown data set 'tiny'; did you mean 'tiny_data'?"),
    ({"run": {"plugins": ["no_such_plugin"]}}, "run.plugins: module 'no_such_plugin' cannot be imported"),
    ({"run": {"plugins": "one"}}, "run.plugins: found 'one', expected a list of module names"),
    ({"run": {"seed": "${run.sed}"}}, "Interpolation key 'run.sed' not found"),
    ({"model": {"arch": "tiny_modle"}}, "model.arch: unknown model 'tiny_modle'; did you mean 'tiny_model'?"),
    ({"model": {"arch": "x"}}, "model.arch: unknown model 'x'; expected one of albef_classification, "),
    ({"model": {"model_type": "micra"}}, "model.model_type: unknown type 'micra'; did you mean 'micro'?"),
    ({"model": {"widht": 4}}, "model.widht: unknown key 'widht'; did you mean 'width'?"),
    ({"model": {"width": "four"}}, "model.width: found 'four', expected a whole number"),
    ({"model": {"nested": {"size": 1}}}, "model.nested.size: unknown key 'size'; did you mean 'sizes'?"),
    ({"model": {"nested": {"sizes": 1}}}, "model.nested.sizes: found 1, expected a list"),
    (
        {"datasets": {"tiny_date": {}}},
        "datasets.tiny_date: unknown data set 'tiny_date'; did you mean 'tiny_data'?",
    ),
    (
        {"datasets": {"tiny_data": {"type": "big"}}},
        "datasets.tiny_data.type: unknown type 'big'; expected one of default",
    ),
    (
        {"datasets": {"tiny_data": {"sise": 1}}},
        "datasets.tiny_data.sise: unknown key 'sise'; did you mean 'size'?",
    ),
    (
        {"datasets": {"tiny_data": {"vis_processor": {"eval": {"name": "blip_captoin"}}}}},
        "datasets.tiny_data.vis_processor.eval.name: unknown processor 'blip_captoin'",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message[:45] for _, message in MISTAKES])
def test_a_mistake_is_one_line(write, change, message):
    path = write(**change)
    with pytest.raises(UserError) as caught:
        load_config(path)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert text.startswith(str(path)) or text.startswith("run.plugins")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"extra": {"anything": 1}, "spare": 2, "pretrained": "weights.pth"}},
        {"model": {"rate": 1, "name": None}},
        {"run": {"contexts": ["head"], "clip": 0.5, "plugins": ["json"]}},
        {"datasets": {"tiny_data": {"vis_processor": {"train": {"name": "blip_caption", "image_size": 9}}}}},
    ],
)
def test_what_is_allowed(write, change):
    load_config(write(**change))


@pytest.fixture
def sparse_family(monkeypatch, tmp_path):
    """A family of another package whose default YAML names few of the keys that the family reads."""
    monkeypatch.setitem(registry.mapping, "model_name_mapping", dict(registry.mapping["model_name_mapping"]))
    (tmp_path / "sparse.yaml").write_text("model: {arch: sparse, model_type: micro, tokenizer: micro}")

    class Sparse(Llava):
        PRETRAINED_MODEL_CONFIG_DICT = {"micro": str(tmp_path / "sparse.yaml")}
        OPTIONS = (*Llava.OPTIONS, "patience")

    families = Registry("model family")
    families.subscribe(join)
    families.register("sparse", Sparse)
    return "sparse"


def test_keys_that_a_family_reads_need_not_stand_in_its_yaml(write, sparse_family):
    read = {"batching": "packed", "patience": 3, "vision_config": {"image_size": 64}}
    cfg = load_config(write(model={"arch": sparse_family, **read}))
    assert {key: cfg.model_cfg[key] for key in read} == read


def test_other_keys_of_a_family_are_unknown(write, sparse_family):
    with pytest.raises(UserError, match="model.patiense: unknown key 'patiense'; did you mean 'patience'"):
        load_config(write(model={"arch": sparse_family, "patiense": 3}))


def test_all_problems_come_at_once(write):
    path = write(run={"max_itres": 1, "seed": "many"}, model={"widht": 4})
    with pytest.raises(UserError) as caught:
        load_config(path)
    first, *others = str(caught.value).splitlines()
    assert first == f"{path}: 3 problems"
    assert [line.split(":")[0].strip() for line in others] == ["run.max_itres", "run.seed", "model.widht"]


def test_evaluation_needs_no_training_values(write):
    path = write(run={"evaluate": True, "init_lr": None, "batch_size_train": None, "test_splits": ["test"]})
    assert load_config(path).run_cfg.evaluate is True


def test_a_foreign_task_may_read_keys_of_its_own(write, monkeypatch):
    foreign = type("Task", (BaseTask,), {"__module__": "elsewhere"})
    monkeypatch.setitem(registry.mapping["task_name_mapping"], "foreign", foreign)
    load_config(write(run={"task": "foreign", "its_own_key": 1}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1, 2\n", "not readable as YAML"),
        ("- a\n- b\n", "found ListConfig, expected the mappings"),
        ("model: {arch: tiny_model}\nrun: {}\n", "datasets: found nothing, expected a mapping"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_missing_file_suggests_its_neighbour(write, tmp_path):
    write()
    with pytest.raises(
        UserError, match=r"runs.yaml: no such file.*did you mean 'run.yaml'\?; relative paths start"
    ):
        load_config(tmp_path / "runs.yaml")


def test_an_open_mapping_takes_anything_and_a_closed_one_does_not():
    assert key_problems("model", {"extra": {"a": 1}}, {"extra": {}}) == []
    assert key_problems("model", {"extra": {"a": 1}}, {"extra": {"b": 1}}) != []


def test_the_saved_config_can_be_run_again(write, tmp_path):
    from omegaconf import OmegaConf

    cfg = load_config(write())
    OmegaConf.save(cfg.config, tmp_path / "again.yaml", resolve=True)
    assert load_config(tmp_path / "again.yaml").config == cfg.config
