"""The shipped ladders, and what can be wrong with a rung."""

import pytest

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.errors import UserError
from ealign_plugin.ladder.rungs import read_rungs
from tests.ladder.factories import recipe_of

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
OURS = ("base_compute", "placebo")
ALIGNED = {"sent_cap": {"sentence"}, "ent_cap": {"entity"}}


def test_every_row_of_the_paper_is_a_rung_with_its_figures(shipped):
    assert [name for name in shipped if name not in OURS] == list(PAPER)
    for name, row in PAPER.items():
        published = shipped[name].published
        keys = ("bleu4", "meteor", "rouge", "cider", "entity_precision", "entity_recall")
        assert tuple(published[key] for key in keys) == row
    assert not any(shipped[name].published for name in OURS if name in shipped)


def test_the_rungs_differ_in_what_the_paper_varies(shipped):
    def context(name: str) -> tuple[str, int]:
        run = shipped[name].config["run"]
        return run["contexts"][0], run["context_words"]

    local, words = context("base")
    assert local == "around_image" == shipped["base"].config["run"]["usual_context"]
    assert all(context(name) == (local, words) for name in ("osft", "sent_cap", "ent_cap", "sent_ent_cap"))
    assert context("base_full")[0] == "full"
    longer = context("eama")[1]
    assert longer > words
    assert context("base_long") == context("align_long") == (local, longer)  # a control of equal budget
    assert context("eama") == context("placebo") == ("supplemented", longer)
    assert [context(name) for name in list(PAPER)[-3:]] == [
        ("supplemented_oracle_sentences", longer),
        ("oracle_entities", longer),
        ("supplemented_oracle", longer),
    ]
    assert {name: rung.start for name, rung in shipped.items() if rung.only_evaluates} == {
        "base_long": "base",
        "align_long": "sent_ent_cap",
        "base_oracle_entities": "base_oracle_sentences",
        "base_oracles": "base_oracle_sentences",
    }
    for rung in shipped.values():
        for option in ("trainable", "lora"):  # else the weights would not fit what evaluates them
            if rung.only_evaluates:
                assert rung.config["model"].get(option) == shipped[rung.start].config["model"].get(option)


def test_the_recipe_of_every_trained_rung_can_be_streamed(shipped):
    for name, rung in shipped.items():
        if rung.only_evaluates:
            continue
        recipe = recipe_of(rung.config)
        TaskMixer(recipe, Wording(), batch_size=rung.config["run"]["batch_size_train"])
        tasks = {task for task, share in recipe.tasks.items() if share} - {"caption"}
        both = {"sentence", "entity"} if name in ("sent_ent_cap", "eama", "placebo") else set()
        assert tasks == ALIGNED.get(name, both), name


def test_osft_trains_less_than_base(shipped):
    assert shipped["osft"].config["model"]["trainable"] == "connector"
    assert shipped["base"].config["model"]["trainable"] == "connector+llm"


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
    ("ladder: {label: Four, tries: {run.init_lr: 1}}", "ladder.tries: found {.*}, expected a list of values"),
    ("ladder: {label: Four, tries: [1]}", r"ladder.tries: found \[1\], expected a list of values"),
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
