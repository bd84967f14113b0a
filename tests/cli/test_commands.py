"""`lavis.train` and `lavis.evaluate` from the outside: exit codes, single lines, the way of a run."""

import pytest
import yaml
from lavis.common.registry import registry
from lavis.runners import RunnerBase
from torch.utils.data import DataLoader, IterableDataset

from ealign_plugin.cli import evaluate, train
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.errors import UserError
from ealign_plugin.host.compat import check_host, import_error, version_tuple

runs = []


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A run of LAVIS's own small parts, with a runner that notes what it was given."""
    monkeypatch.chdir(tmp_path)
    runs.clear()

    class Noted(RunnerBase):
        RUN_KEYS: dict[str, str] = {}

        def train(self):
            runs.append(self)

    class Task(registry.get_task_class("image_text_pretrain")):
        RUN_KEYS: dict[str, str] = {}

        def build_datasets(self, cfg):
            return {}

        def build_model(self, cfg):
            return None

    monkeypatch.setitem(registry.mapping["runner_name_mapping"], "noted", Noted)
    monkeypatch.setitem(registry.mapping["task_name_mapping"], "noted", Task)
    content = {
        "model": {"arch": "blip_caption", "model_type": "base_coco"},
        "datasets": {"coco_caption": {}},
        "run": {
            "task": "noted",
            "runner": "noted",
            "max_epoch": 1,
            "batch_size_train": 2,
            "batch_size_eval": 2,
        },
    }
    content["run"]["init_lr"] = 0.001
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return "run.yaml"


def test_a_run_gets_its_own_folder_under_the_working_directory(config, tmp_path):
    assert train.main(["--cfg-path", config]) == 0
    assert train.main(["--cfg-path", config]) == 0
    first, second = runs
    assert first.output_dir.parent == second.output_dir.parent == tmp_path / "output" / "noted"
    assert first.output_dir != second.output_dir


def test_the_saved_config_runs_again(config, tmp_path):
    assert train.main(["--cfg-path", config, "--options", "run.seed=7"]) == 0
    assert train.main(["--cfg-path", str(runs[0].output_dir / "config.yaml")]) == 0
    assert runs[1].config.run_cfg.seed == 7
    assert runs[1].output_dir.parent == runs[0].output_dir.parent


def test_evaluate_is_the_same_without_training(config, tmp_path):
    (tmp_path / "best.pth").touch()
    assert evaluate.main(["--cfg-path", config, "--checkpoint", "best.pth"]) == 0
    assert runs[0].evaluate_only is True
    assert runs[0].resume_ckpt_path == str(tmp_path / "best.pth")


def test_a_run_that_fails_early_leaves_no_folder(config, tmp_path, monkeypatch, capsys):
    def fail(self, cfg):
        raise UserError("shards: schema version 3 found, 1 expected")

    monkeypatch.setattr(registry.get_task_class("noted"), "build_datasets", fail)
    assert train.main(["--cfg-path", config]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: shards: schema version 3 found, 1 expected"
    assert list((tmp_path / "output" / "noted").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: python -m lavis.train: the following arguments are required: --cfg-path; see --help"),
        (["--cfg-path", "nope.yaml"], "error: nope.yaml: no such file, expected a YAML config"),
        (["--cfg-path", "rum.yaml"], "did you mean 'run.yaml'?"),
        (["--cfg-path", "."], "error: .: is a folder, expected a YAML file"),
        (["--cfg-path", "run.yaml", "--options", "run.seed"], "error: --options run.seed: no value found"),
        (["--cfg-path", "run.yaml", "--options", "run.sead=1"], "did you mean 'seed'?"),
        (
            ["--cfg-path", "run.yaml", "--options", "run.output_dir=run.yaml/x"],
            "error: run.yaml: run.output_dir: run.yaml/x: run.yaml is a file, expected a folder",
        ),
        (["--cfg-path", "run.yaml", "--options", "model.model_type=huge"], "unknown type 'huge'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(config, capsys, arguments, message):
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert runs == []


def test_a_missing_checkpoint_is_one_line(config, capsys):
    assert evaluate.main(["--cfg-path", config, "--checkpoint", "gone.pth"]) == 2
    assert "error: --checkpoint gone.pth: no such file" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_exit_code_130(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run_and_report(interrupt) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_in_a_data_worker_is_one_line_too(capsys):
    class Bad(IterableDataset):
        def __iter__(self):
            raise UserError("3 of 3 samples were bad; mend the shards")

    assert run_and_report(lambda: next(iter(DataLoader(Bad(), num_workers=1)))) == 2
    assert capsys.readouterr().err == "error: 3 of 3 samples were bad; mend the shards\n"


def test_a_defect_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_and_report(lambda: 1 / 0)


def test_other_processes_say_who_they_are(monkeypatch, capsys):
    def fail():
        raise UserError("bad")

    monkeypatch.setenv("RANK", "3")
    assert run_and_report(fail) == 2
    assert capsys.readouterr().err == "error: bad (rank 3)\n"


@pytest.mark.parametrize(("found", "said"), [(None, "not installed"), ("4.30.2", "4.30.2")])
def test_transformers_that_cannot_serve(monkeypatch, found, said):
    monkeypatch.setattr("ealign_plugin.host.compat.installed_version", lambda package: found)
    with pytest.raises(UserError, match=f"transformers: {said}, expected 4.31 or later"):
        check_host()


def test_versions_are_compared_by_number():
    assert version_tuple("4.100.0.dev0") > version_tuple("4.31") > version_tuple("4.9")


def test_an_import_error_of_lavis_is_one_line():
    message = str(import_error(ModuleNotFoundError("No module named 'decord'")))
    assert "cannot be imported: No module named 'decord'" in message and "\n" not in message
