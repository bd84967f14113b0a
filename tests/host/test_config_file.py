"""A run's YAML laid over others: the root key ``base``."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import read_config

BASE = """
model: {arch: tiny, width: 4}
datasets: {tiny: {}}
run: {max_iters: 100, contexts: [head, refined], warmup_steps: "${run.max_iters}"}
"""


@pytest.fixture
def write(tmp_path):
    """``write("sub/a.yaml", text)`` -> the path."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


def test_a_value_or_a_list_replaces_and_a_mapping_completes(write):
    write("base.yaml", BASE)
    config = read_config(
        write("a.yaml", "base: base.yaml\nmodel: {width: 8}\nrun: {contexts: [full], seed: 7}\n")
    )
    assert OmegaConf.to_container(config, resolve=True) == {
        "model": {"arch": "tiny", "width": 8},
        "datasets": {"tiny": {}},
        "run": {"max_iters": 100, "contexts": ["full"], "warmup_steps": 100, "seed": 7},
    }


def test_an_interpolation_of_the_base_follows_what_is_laid_over_it(write):
    write("base.yaml", BASE)
    path = write("a.yaml", "base: base.yaml\nrun: {max_iters: 5}\n")
    assert read_config(path).run.warmup_steps == 5
    assert read_config(path, ["run.max_iters=3"]).run.warmup_steps == 3


def test_options_come_last(write):
    write("base.yaml", BASE)
    path = write("a.yaml", "base: base.yaml\nmodel: {width: 8}\n")
    assert read_config(path, ["model.width=16"]).model.width == 16


def test_a_base_is_relative_to_the_file_that_names_it_and_has_bases_in_turn(write, monkeypatch, tmp_path):
    write("base.yaml", BASE)
    write("models/wide.yaml", "base: ../base.yaml\nmodel: {width: 64, depth: 2}\n")
    path = write("runs/a.yaml", "base: ../models/wide.yaml\nmodel: {depth: 3}\n")
    monkeypatch.chdir(tmp_path / "runs")
    for given in (path, "a.yaml"):
        assert read_config(given).model == {"arch": "tiny", "width": 64, "depth": 3}


def test_of_several_bases_the_later_lies_over_the_earlier(write):
    write("base.yaml", BASE)
    write("wide.yaml", "model: {width: 64}\nrun: {max_iters: 9}\n")
    path = write("a.yaml", "base: [base.yaml, wide.yaml]\nrun: {max_iters: 1}\n")
    config = read_config(path)
    assert (config.model.arch, config.model.width, config.run.max_iters) == ("tiny", 64, 1)


def test_two_files_may_share_a_base(write):
    write("base.yaml", BASE)
    write("one.yaml", "base: base.yaml\nmodel: {width: 1}\n")
    write("two.yaml", "base: base.yaml\nrun: {seed: 2}\n")
    config = read_config(write("a.yaml", "base: [one.yaml, two.yaml]\n"))
    assert (config.model.width, config.run.seed) == (4, 2)  # two.yaml brings base.yaml's 4 again


LOOPS = {
    "a.yaml": ("base: a.yaml\n", None),
    "b.yaml": ("base: b.yaml\n", "base: [deep/../a.yaml]\n"),
}


@pytest.mark.parametrize(("own", "other"), LOOPS.values(), ids=["itself", "through another"])
def test_a_loop_is_told_with_the_way_round(write, tmp_path, own, other):
    (tmp_path / "deep").mkdir()
    path = write("a.yaml", own)
    if other:
        write("b.yaml", other)
    with pytest.raises(UserError, match="would be its own base") as caught:
        read_config(path)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / ("b.yaml" if other else "a.yaml")))
    assert text.count("a.yaml") >= 2 and " → " in text and "\n" not in text


def test_a_missing_base_is_told_with_both_files_and_its_neighbour(write, tmp_path):
    write("base.yaml", BASE)
    path = write("a.yaml", "base: bsae.yaml\n")
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: base: {tmp_path / 'bsae.yaml'}: no such file, expected a YAML config; "
        f"did you mean 'base.yaml'?; relative paths start at {tmp_path}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base:\n", "base: found None, expected the path of a YAML or a list of them"),
        ("base: []\n", "base: found [], expected the path"),
        ("base: 3\n", "base: found 3, expected the path"),
        ("base: {a: b.yaml}\n", "base: found {'a': 'b.yaml'}, expected the path"),
        ("base: .\n", "is a folder, expected a YAML file"),
        ("base: broken.yaml\n", "broken.yaml: not readable as YAML"),
        ("base: list.yaml\n", "list.yaml: found ListConfig, expected the mappings"),
        ("base: base.yaml\nrun: null\n", "run: found nothing, expected a mapping"),
        ("base: base.yaml\nrunn: {}\n", "runn: unknown key 'runn'; did you mean 'run'?"),
        ("model: {}\n", "datasets: found nothing, expected a mapping"),
    ],
)
def test_a_mistake_is_told(write, text, message):
    write("base.yaml", BASE)
    write("broken.yaml", "model: [1, 2\n")
    write("list.yaml", "- 1\n")
    with pytest.raises(UserError) as caught:
        read_config(write("a.yaml", text))
    assert message in str(caught.value)


def test_the_saved_config_of_a_layered_one_stands_alone(root, tmp_path):
    from ealign_plugin.host.config import load_config
    from ealign_plugin.host.plugins import load_installed

    load_installed()
    cfg = load_config(root / "projects" / "ealign" / "ladder" / "micro" / "07_eama.yaml", ["run.seed=7"])
    OmegaConf.save(cfg.config, tmp_path / "again.yaml", resolve=True)
    again = load_config(tmp_path / "again.yaml")
    assert again.config == cfg.config
    assert not {"base", "ladder"} & set(again.config)
    assert (again.run_cfg.contexts, again.run_cfg.seed) == (["supplemented"], 7)
