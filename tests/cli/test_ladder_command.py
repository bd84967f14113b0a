"""``ealign ladder``: the shipped ladders, and what the command runs, skips, runs again and prints."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD
from typer.testing import CliRunner

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli.app import app as cli
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.errors import UserError
from ealign_plugin.ladder.climb import climb, run_process
from ealign_plugin.ladder.rungs import chosen, read_rungs
from ealign_plugin.training.checkpoints.store import CheckpointStore

# arXiv 2402.19404 v5, NYTimes800k: BLEU-4, METEOR, ROUGE-L, CIDEr, entity precision and recall, times 100.
PAPER = {
    "osft": (10.05, 13.63, 25.45, 75.95, 27.39, 30.37),
    "base": (10.88, 14.09, 26.60, 82.70, 29.22, 31.32),
    "sent_cap": (10.92, 14.08, 26.68, 83.60, 29.42, 31.45),
    "ent_cap": (10.97, 14.20, 26.87, 84.28, 29.26, 31.58),
    "sent_ent_cap": (10.80, 14.08, 26.80, 84.45, 29.15, 31.45),
    "eama": (11.03, 14.22, 27.15, 87.00, 29.79, 32.24),
    "base_full": (10.76, 13.84, 26.18, 83.17, 27.71, 30.03),
    "base_long": (10.60, 13.80, 26.28, 81.75, 28.95, 30.57),
    "align_long": (10.75, 14.00, 26.70, 83.50, 29.25, 31.16),
    "base_oracle_sentences": (11.24, 14.50, 27.70, 87.56, 33.42, 34.80),
    "base_oracle_entities": (11.63, 14.76, 27.90, 90.44, 32.04, 34.24),
    "base_oracles": (11.89, 15.07, 28.79, 94.27, 35.71, 37.10),
}
ALIGNED = {"sent_cap": {"sentence"}, "ent_cap": {"entity"}}


# The shipped ladders


@pytest.fixture(scope="module", params=["micro", "vicuna7b"])
def shipped(request, root) -> dict:
    rungs = read_rungs(root / "projects" / "ealign" / "ladder" / request.param, [])
    return {rung.name: rung for rung in rungs}


def test_every_row_of_the_paper_is_a_rung_with_its_figures(shipped):
    assert [name for name in shipped if name != "pretrained"] == list(PAPER)
    for name, row in PAPER.items():
        published = shipped[name].published
        keys = ("bleu4", "meteor", "rouge", "cider", "entity_precision", "entity_recall")
        assert tuple(published[key] for key in keys) == row


def test_the_rungs_differ_in_what_the_paper_varies(shipped):
    def context(name: str) -> tuple[str, int]:
        run = shipped[name].config["run"]
        return run["contexts"][0], run["context_words"]

    local, words = context("base")
    assert all(context(name) == (local, words) for name in ("osft", "sent_cap", "ent_cap", "sent_ent_cap"))
    assert context("base_full")[0] == "full"
    longer = context("eama")[1]
    assert longer > words
    assert context("base_long") == context("align_long") == (local, longer)  # a control of equal budget
    assert context("eama")[0] == "supplemented"
    assert [context(name) for name in list(PAPER)[-3:]] == [
        ("oracle_sentences", longer),
        ("oracle_entities", longer),
        ("oracle", longer),
    ]
    evaluated = {name: rung.start for name, rung in shipped.items() if rung.only_evaluates}
    assert evaluated["eama"] == "sent_ent_cap"
    assert {evaluated[name] for name in list(PAPER)[-3:]} == {"base"}
    for rung in shipped.values():
        for option in ("trainable", "lora"):  # else the weights would not fit what evaluates them
            if rung.only_evaluates:
                assert rung.config["model"].get(option) == shipped[rung.start].config["model"].get(option)


def test_the_recipe_of_every_trained_rung_can_be_streamed(shipped):
    for name, rung in shipped.items():
        if rung.only_evaluates:
            continue
        (section,) = rung.config["datasets"].values()
        recipe = TaskMixture().changed(section["recipe"])
        TaskMixer(recipe, Wording(), batch_size=rung.config["run"]["batch_size_train"])
        tasks = {task for task, share in recipe.tasks.items() if share} - {"caption"}
        both = {"sentence", "entity"} if name in ("sent_ent_cap", "align_long") else set()
        assert tasks == ALIGNED.get(name, both), name


def test_osft_trains_less_than_base(shipped):
    assert shipped["osft"].config["model"]["trainable"] == "connector"
    assert shipped["base"].config["model"]["trainable"] == "connector+llm"


# The command, on three rungs that no process runs

BASE = """
model: {arch: ealign_instructblip, model_type: micro}
datasets: {ealign_micronews: {}}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  max_iters: 10
  iters_per_inner_epoch: 10
  batch_size_train: 4
  batch_size_eval: 4
  init_lr: 1.0e-3
  contexts: [head]
"""
RUNGS = {
    "1_first": "ladder: {label: The first}",
    "2_second": "ladder: {label: The second, start: first, published: {cider: 82.7}}\nrun: {seed: 2}",
    "10_third": "ladder: {label: The third, start: second, published: {cider: 87.0}}\n"
    "run: {evaluate: true, contexts: [oracle]}",
    "11_fourth": "ladder: {label: The fourth}\nrun: {seed: 4}",
}


class Runs:
    """Stands for the processes: leaves what they leave, remembers the commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.fail: set[str] = set()
        self.again: dict[str, Path] = {}  # where a rung goes on
        self.code = 1
        self.taken = 0

    def __call__(self, command) -> int:
        self.commands.append(list(command))
        name = self.names[-1]
        values = OmegaConf.from_dotlist(command[command.index("--options") + 1 :])
        folder = Path(values.run.output_dir) / "ealign_news_captioning" / f"run{len(self.commands):03}"
        folder = self.again.get(name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.log").write_text("")
        if name in self.fail:
            return self.code
        net = nn.Linear(1, 1)
        options = {"metric": 0.5, "values": {}, "per_rank": {}, "manifest": {}}
        CheckpointStore(folder / "checkpoints").save(net, SGD(net.parameters()), iters=1, **options)
        figures = {"cider": len(self.commands) / 10, "people_right": 0.5, "bleu4": None}
        test = {
            "contexts": {"head": figures, "oracle": figures},
            "selection": {"sentence_auc": 0.75 if name == "third" else None},
        }
        (folder / "metrics.json").write_text(json.dumps({"test": test}))
        return 0

    @property
    def names(self) -> list[str]:
        stems = [Path(command[command.index("--cfg-path") + 1]).stem for command in self.commands]
        return [stem.partition("_")[2] for stem in stems]

    def take(self) -> list[str]:
        """The rungs run since the last call."""
        names = self.names[self.taken :]
        self.taken = len(self.commands)
        return names


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "my ladder"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE)
    for name, text in RUNGS.items():
        (folder / f"{name}.yaml").write_text(f"base: base.yaml\n{text}\n")
    return folder


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def start(folder, tmp_path, runs):
    """``start(only=[...], options=[...])`` -> the rungs that were run."""

    def run(only=(), options=()) -> list[str]:
        rungs = read_rungs(folder, options)
        climb(rungs, chosen(rungs, only), tmp_path / "out", options, runs)
        return runs.take()

    return run


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_rungs_run_in_the_order_of_their_numbers_under_a_heading(start, capsys):
    assert start() == ["first", "second", "third", "fourth"]
    assert "2 of 4: second — The second\n" in capsys.readouterr().out


def test_a_rung_starts_from_the_best_weights_of_another_or_evaluates_them(start, runs, tmp_path, folder):
    start(options=["run.seed=1"])
    first, second, third, _ = runs.commands
    weights = "ealign_news_captioning/run00{}/checkpoints/iter_000001/weights.safetensors"
    best = {
        name: tmp_path / "out" / name / weights.format(number)
        for number, name in enumerate(("first", "second"), 1)
    }
    output = f'run.output_dir="{tmp_path}/out/%s"'
    auto = "run.resume=auto"
    assert first[1:] == [
        *("-m", "lavis.train", "--cfg-path", str(folder / "1_first.yaml")),
        *("--options", "run.seed=1", output % "first", auto),
    ]
    begin = ["model.load_finetuned=true", f'model.finetuned="{best["first"]}"']
    assert second[1:] == [
        *("-m", "lavis.train", "--cfg-path", str(folder / "2_second.yaml")),
        *("--options", "run.seed=1", output % "second", auto, *begin),
    ]
    # What the second did not train is not in its checkpoint: the third needs what the second began with.
    assert third[1:] == [
        *("-m", "lavis.evaluate", "--cfg-path", str(folder / "10_third.yaml")),
        *("--checkpoint", str(best["second"])),
        *("--options", "run.seed=1", output % "third", auto, *begin),
    ]


def test_a_finished_ladder_only_prints_its_table_again(start, tmp_path, capsys):
    start()
    table = (tmp_path / "out" / "ladder.txt").read_bytes()
    capsys.readouterr()
    assert start() == []
    assert (tmp_path / "out" / "ladder.txt").read_bytes() == table
    assert table.decode().splitlines()[2] in capsys.readouterr().out


def test_a_changed_rung_runs_again_with_those_that_start_from_it(start, folder):
    start()
    edit(folder / "2_second.yaml", "seed: 2", "seed: 3")
    assert start() == ["second", "third"]
    edit(folder / "11_fourth.yaml", "seed: 4", "seed: 5")
    assert start() == ["fourth"]
    edit(folder / "base.yaml", "max_iters: 10", "max_iters: 20")
    assert start() == ["first", "second", "third", "fourth"]
    assert start(options=["run.init_lr=0.1"]) == ["first", "second", "third", "fourth"]


def test_another_label_or_published_figure_runs_nothing(start, folder):
    start()
    edit(folder / "2_second.yaml", "label: The second", "label: Number two")
    edit(folder / "2_second.yaml", "82.7", "82.8")
    assert start() == []


def test_weights_made_anew_make_what_starts_from_them_anew(start, tmp_path):
    start()
    shutil.rmtree(tmp_path / "out" / "second")
    assert start() == ["second", "third"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": 1}', "\x00"])
def test_a_spoilt_record_counts_as_not_finished(start, tmp_path, content):
    start()
    (tmp_path / "out" / "fourth" / "done.json").write_text(content)
    assert start() == ["fourth"]


def test_a_failing_rung_stops_the_ladder_and_the_same_command_goes_on(start, runs, folder, tmp_path):
    runs.fail = {"second"}
    with pytest.raises(UserError) as caught:
        start()
    log = tmp_path / "out" / "second" / "ealign_news_captioning" / "run002" / "console.log"
    assert str(caught.value) == (
        f"rung second ({folder / '2_second.yaml'}): ended with exit code 1; its log is {log}; once that is "
        "mended, the same command goes on with this rung"
    )
    assert runs.take() == ["first", "second"]
    assert not (tmp_path / "out" / "ladder.txt").exists()
    runs.fail = set()
    assert start() == ["second", "third", "fourth"]


def test_a_rung_without_figures_is_a_failure(start, runs):
    runs.fail, runs.code = {"first"}, 0
    with pytest.raises(UserError, match="rung first .*exit code 0 and left no metrics.json; its log is"):
        start()


def test_only_runs_what_is_named_and_what_it_starts_from(start, tmp_path):
    assert start(only=["third"]) == ["first", "second", "third"]
    rows = (tmp_path / "out" / "ladder.txt").read_text().splitlines()
    assert rows[5].split("|")[3:-1] == [f"{'-':>{len(cell) - 1}} " for cell in rows[5].split("|")[3:-1]]
    assert start(only=["fourth"]) == ["fourth"]
    assert "40.00" in (tmp_path / "out" / "ladder.txt").read_text().splitlines()[5]
    with pytest.raises(UserError, match="--only: unknown rung 'thrid'; did you mean 'third'?"):
        start(only=["thrid"])


def test_the_table_and_its_json(start, tmp_path):
    start()
    lines = (tmp_path / "out" / "ladder.txt").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    third = dict(zip(cells[0], cells[4], strict=True))
    assert third == {
        "rung": "The third",
        "context": "oracle, 100 words",
        "people right": "50.00",
        **dict.fromkeys(("entity P", "entity R", "entity F1", "BLEU-4", "METEOR", "ROUGE-L"), "-"),
        "CIDEr": "30.00",
        "sentence AUC": "75.00",
        "published CIDEr (NYTimes800k)": "87.00",
    }
    assert [row[-2:] for row in cells[2:]] == [["-", "-"], ["-", "82.70"], ["75.00", "87.00"], ["-", "-"]]
    assert "cited" in lines[-1]
    record = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [rung["rung"] for rung in record["rungs"]] == ["first", "second", "third", "fourth"]
    assert record["rungs"][2]["published"] == {"cider": 0.87}
    assert (record["rungs"][2]["figures"]["cider"], record["rungs"][2]["figures"]["sentence_auc"]) == (
        0.3,
        0.75,
    )
    assert (tmp_path / "out" / record["rungs"][2]["run"] / "metrics.json").is_file()


MISTAKES = [
    ("ladder: {label: Four, start: frist}", "unknown earlier rung 'frist'; did you mean 'first'?"),
    ("ladder: {label: Four, start: third}", "'third' only evaluates and has no weights.*evaluates, 'second'"),
    ("ladder: {label: Four, start: fourth}", "unknown earlier rung 'fourth'"),
    ("ladder: {start: first}", "ladder: found {'start': 'first'}, expected {label: TEXT"),
    ("ladder: [1]", "ladder: found "),
    ("ladder: {label: Four, pubished: {}}", "unknown key 'pubished'; did you mean 'published'?"),
    (
        "ladder: {label: Four, published: {cidre: 1}}",
        "ladder.published.cidre: found 1, expected numbers under",
    ),
    ("ladder: {label: Four, published: {cider: high}}", "ladder.published.cider: found 'high'"),
    ("ladder: {label: Four, published: [1]}", r"ladder.published: found \[1\], expected a mapping"),
    ("ladder: {label: Four}\nrun: {contexts: [head, full]}", "run.contexts: found .* one context expected"),
    ("ladder: {label: Four}\nrun: {evaluate: true}", "ladder.start: missing, the rung whose weights"),
    ("ladder: {label: Four}\nrun: {max_itres: 1}", "run.max_itres: unknown key"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message[:30] for _, message in MISTAKES])
def test_a_mistake_in_the_last_rung_is_told_before_the_first_is_run(start, folder, runs, text, message):
    path = folder / "11_fourth.yaml"
    path.write_text(f"base: base.yaml\n{text}\n")
    with pytest.raises(UserError, match=message) as caught:
        start()
    assert str(caught.value).startswith(str(path))
    assert runs.commands == []


def test_two_rungs_of_one_name_and_a_folder_without_rungs(folder, tmp_path):
    (folder / "12_first.yaml").write_text("base: base.yaml\nladder: {label: Again}\n")
    with pytest.raises(UserError, match="12_first.yaml: a second rung 'first' beside .*1_first.yaml"):
        read_rungs(folder, [])
    with pytest.raises(UserError, match="no rungs found, expected a folder of YAMLs"):
        read_rungs(tmp_path / "nowhere", [])


def test_the_command_as_a_user_types_it(folder, tmp_path, monkeypatch, runs):
    monkeypatch.setattr(sys.modules["ealign_plugin.cli.ladder"], "run_process", runs)
    monkeypatch.chdir(tmp_path)
    words = ["ladder", str(folder), "--only", "second", "--options", "run.max_iters=5", "run.seed=9"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert runs.names == ["first", "second"]
    assert runs.commands[0][6:8] == ["run.max_iters=5", "run.seed=9"]
    assert (tmp_path / "output" / "ladder" / "my ladder" / "ladder.json").is_file()


def test_the_exit_code_of_a_real_process_is_passed_on():
    assert run_process([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_a_rung_that_was_interrupted_may_end_in_the_folder_that_it_began(start, runs, tmp_path):
    runs.fail = {"second"}
    with pytest.raises(UserError, match="rung second"):
        start()
    (begun,) = (tmp_path / "out" / "second").glob("*/run*")
    runs.fail, runs.again = set(), {"second": begun}
    assert start() == ["first", "second", "second", "third", "fourth"]
    done = json.loads((tmp_path / "out" / "second" / "done.json").read_text())
    assert done["run"] == str(begun.relative_to(tmp_path / "out" / "second"))
