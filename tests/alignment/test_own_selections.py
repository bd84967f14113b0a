"""A model's own selections in a file: written, read, joined, drawn from, refused where they do not fit."""

import json
import random

import pytest

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.own_selections import half_of, read_selections, write_selections
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.alignment.tasks import TASKS
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from tests.alignment.articles import STORM, article
from tests.messages import message_of

OWN = Selection((1, 3), ("Bo Lind",), (0.6, 0.9))
"""What a model selects of `STORM`, wrongly."""
WORDING = Wording(Templates(caption="Read {context} Write:"))


@pytest.fixture
def file(tmp_path):
    write_selections(tmp_path / "own.jsonl", "run/checkpoints/best", [(STORM, OWN)])
    return tmp_path / "own.jsonl"


def test_what_is_written_is_read_again(file):
    assert read_selections(file).of(STORM) == OWN
    head, line = map(json.loads, file.read_text().splitlines())
    assert head == {"format": 1, "weights": "run/checkpoints/best", "photos": 1}
    assert line == {"key": "a", "of": 6, "sentences": [1, 3], "scores": [0.6, 0.9], "names": ["Bo Lind"]}


def test_of_a_photo_that_the_file_does_not_hold_nothing_is_known(file):
    other = NewsSample(key="b", split="train", caption="", paragraphs=())
    assert read_selections(file).of(other) is None


def test_files_are_joined_as_text(file, tmp_path):
    other = NewsSample(key="b", split="train", caption="", paragraphs=())
    write_selections(tmp_path / "more.jsonl", "other", [(other, Selection(scores=()))])
    (tmp_path / "all.jsonl").write_text(file.read_text() + (tmp_path / "more.jsonl").read_text())
    both = read_selections(tmp_path / "all.jsonl")
    assert both.of(STORM) == OWN and both.of(other) == Selection(scores=())


def test_a_file_that_was_written_again_is_read_again(file):
    assert read_selections(file) is read_selections(file)
    before = read_selections(file)
    write_selections(file, "later", [(STORM, Selection((2,), scores=(1.0,)))])
    assert read_selections(file).of(STORM) == Selection((2,), scores=(1.0,))
    assert read_selections(file).sha256 != before.sha256


# Drawn in training


def read(file, share, words=30, draws=50, **options):
    """The contexts of a caption of `STORM`, over many draws."""
    recipe = TaskMixture(selections=str(file), own_share=share, miss=0, extra=0, **options)
    return [
        TASKS["caption"].examples(STORM, recipe, WORDING, Budget(words), random.Random(seed))[0].instruction
        for seed in range(draws)
    ]


def test_a_share_of_the_contexts_is_made_of_the_models_own_selections(file):
    own, right = "Read Bo Lind left Bergen. Nobody came, not even Bo Lind. Write:", "Read Ana Ruiz’s talk"
    assert set(read(file, 1)) == {own}
    assert all(text.startswith(right) for text in read(file, 0))
    mixed = read(file, 0.5)
    assert 15 <= mixed.count(own) <= 35 and all(t == own or t.startswith(right) for t in mixed)


def test_over_budget_the_best_scored_of_them_is_read(file):
    assert set(read(file, 1, words=6)) == {"Read Nobody came, not even Bo Lind. Write:"}


def test_their_names_are_listed_right_or_wrong(file):
    texts = read(file, 1, contexts={"supplemented": 1}, words=40)
    assert all(text.endswith("Names: Bo Lind. Write:") for text in texts)


def test_other_photos_are_selected_for_by_their_labels(file):
    other = article("[Oslo/GPE]", "Rain.", "[Oslo/GPE] slept.")
    recipe = TaskMixture(selections=str(file), own_share=1, extra=0)
    other = NewsSample(**{name: getattr(other, name) for name in other.__slots__} | {"key": "b"})
    (example,) = TASKS["caption"].examples(other, recipe, WORDING, Budget(9), random.Random(1))
    assert example.instruction == "Read Oslo slept. Write:"


def test_the_identity_of_a_recipe_holds_the_files_content_and_not_its_place(file, tmp_path):
    (tmp_path / "copy.jsonl").write_bytes(file.read_bytes())
    recipe, copy = TaskMixture(selections=str(file)), TaskMixture(selections=str(tmp_path / "copy.jsonl"))
    assert recipe.identity(80) == copy.identity(80)
    write_selections(file, "later", [(STORM, Selection(scores=()))])
    assert recipe.identity(80) != copy.identity(80)
    assert TaskMixture(own_share=0.2).identity(80) == TaskMixture().identity(80)


# Halves of the articles


def test_the_photos_of_an_article_are_in_one_half():
    def sample(number, photo):
        return NewsSample(
            key=f"{number}_{photo}", split="train", caption="", paragraphs=(), article_id=str(number)
        )

    halves = [half_of(sample(number, 0)) for number in range(400)]
    assert halves == [half_of(sample(number, 1)) for number in range(400)]
    assert 160 < sum(halves) < 240 and set(halves) == {0, 1}
    assert half_of(STORM) == half_of(STORM)  # without an id the photo's key stands for it


# Errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it cannot be read (No such file or directory)"),
        ("", "format [] found, 1 expected"),
        ('{"format": 2}', "format [2] found, 1 expected"),
        ('{"format": 1}\n{"key": "a"}', "a file of selections was expected (KeyError('of'))"),
        ("no JSON", "a file of selections was expected (JSONDecodeError"),
        ("[1]", "format [] found, 1 expected"),
        ("1", "a file of selections was expected (TypeError"),
        (
            '{"format": 1}\n{"key": "a", "of": 2, "sentences": [2], "scores": [0.5], "names": []}',
            "a: sentences [2] of 2",
        ),
        (
            '{"format": 1}\n{"key": "a", "of": 2, "sentences": [1], "scores": [], "names": []}',
            "a score of each of 1 sentences was expected, found 0",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    if content is not None:
        path.write_text(content)
    found = message_of(lambda: read_selections(path))
    assert found.startswith(f"{path}: ") and message in found
    assert found.endswith("write it again by `ealign select`")


def test_selections_of_other_data_are_refused(file):
    other = article("", "Rain.")
    with pytest.raises(UserError, match="own.jsonl: a: an article of 6 sentences found, 1 expected"):
        read_selections(file).of(other)


def test_a_recipe_that_names_no_file_as_text_is_refused():
    with pytest.raises(UserError, match="^recipe.selections: a file was expected, found 3$"):
        TaskMixture(selections=3)
