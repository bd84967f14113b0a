"""How prompts are worded: what is asked in training is asked at test, whatever templates and data hold."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import build_context, context_budget
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Templates, Wording, fold_white_space
from ealign_plugin.alignment.selection import parse_entities
from ealign_plugin.alignment.tasks import TASKS, Example
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample, Sentence
from tests.alignment.articles import ARTICLES, STORM, article

TEMPLATES = Templates(
    caption="Read {context} Write:", sentence="Is it? {sentence} Say:", entity="Read {context} Names?"
)
SPACE = st.sampled_from(["", " ", "  ", "\n", "\n\n", " \n", "\t"])
WORDS = st.sampled_from(["", "Read", "Write the caption:", "ÄPFEL {0} %s \\1", "What?"])


def templates_with(mark: str) -> st.SearchStrategy[str]:
    """A mark with words and white space of every kind around it."""
    return st.tuples(WORDS, SPACE, st.just(mark), SPACE, WORDS).map("".join)


def wordings() -> st.SearchStrategy[Wording]:
    templates = st.builds(
        Templates,
        caption=templates_with("{context}"),
        sentence=templates_with("{sentence}"),
        entity=templates_with("{context}"),
        separator=st.sampled_from(["; ", "\n", ", ", " / ", "|"]),
        names_label=st.sampled_from(["Names:", "", " Who:\n"]),
    )
    return st.builds(Wording, templates, st.sampled_from([fold_white_space, str.lower, str.upper, str]))


def examples(
    sample: NewsSample, task: str, mixture: TaskMixture, wording: Wording, seed: int = 1, words: int = 20
) -> list[Example]:
    """The training examples of a sample, as the stream makes them."""
    budget = context_budget(wording, words=words)
    return TASKS[task].examples(wording.sample(sample), mixture, wording, budget, random.Random(1))


TEXTS = st.text("ab \n\tÄ.{}\\$", max_size=12)


# Wording


@given(wordings(), TEXTS)
def test_question_is_the_instruction_of_nothing(wording, text):
    for prompt in (wording.caption, wording.entity):
        assert prompt(text).question == prompt("").instruction == prompt("").question
    assert wording.sentence(text).question == wording.sentence("").question


@given(wordings(), TEXTS.filter(str.strip))
def test_template_and_text_stand_in_the_instruction_as_they_are(wording, text):
    for prompt, template in (
        (wording.caption, wording.templates.caption),
        (wording.entity, wording.templates.entity),
        (wording.sentence, wording.templates.sentence),
    ):
        before, _, after = re.split(r"(\{context\}|\{sentence\})", template)
        assert prompt(text).instruction == before + text + after


@given(st.text(max_size=20), wordings())
def test_the_parts_of_the_sentence_prompt_make_it_up(sentence, wording):
    """Pass 1 scores before + sentence + after; the training read the whole prompt."""
    before, after = wording.sentence_parts()
    assert wording.sentence(sentence).instruction == before + sentence + after


@pytest.mark.parametrize(
    ("template", "instruction"),
    [
        ("Article: {context} Write:", "Article: Write:"),
        ("Article:\n{context}\nWrite:", "Article:\nWrite:"),
        ("Article: {context}\n\nWrite:", "Article:\n\nWrite:"),
        ("Article:\n{context} Write:", "Article:\nWrite:"),
        ("Article:  {context} Write:", "Article:  Write:"),
        ("({context})", "()"),
        ("{context} Write:", "Write:"),
        ("Write: {context}", "Write:"),
        ("{context}", ""),
    ],
)
def test_an_empty_context_leaves_one_gap(template, instruction):
    wording = Wording(Templates(caption=template))
    assert wording.caption("") == wording.caption(" ") == (instruction, instruction)


def test_marks_in_the_text_are_left_as_they_are():
    assert Wording(TEMPLATES).caption("a {context} {sentence} {0}") == (
        "Read a {context} {sentence} {0} Write:",
        "Read Write:",
    )


def test_names_that_are_divided_by_line_breaks_stay_names():
    """Learnt was "Ana Ruiz Oslo" as one name: the text processor folded the separator."""
    wording = Wording(Templates(separator="\n"))
    sample = article("[Ana Ruiz/PERSON] in [Oslo/GPE].", "[Ana  Ruiz/PERSON] left [Oslo/GPE].", "Rain.")
    mixture = TaskMixture(contexts={"oracle": 1})
    (entity,) = examples(sample, "entity", mixture, wording, words=40)
    assert entity.target == "Ana Ruiz\nOslo"
    assert parse_entities(entity.target, wording.templates.separator) == ("Ana Ruiz", "Oslo")
    (caption,) = examples(sample, "caption", mixture, wording, words=40)
    assert "Ana Ruiz left Oslo. Names: Ana Ruiz\nOslo. Write the caption" in caption.instruction


def test_line_breaks_of_a_template_are_learnt():
    wording = Wording(replace(TEMPLATES, caption="Read\n\n{context}\n\nWrite:"))
    mixture = TaskMixture(miss=0, extra=0)
    (made,) = examples(STORM, "caption", mixture, wording)
    assert made.instruction == "Read\n\nAna Ruiz’s talk began. OSLO slept.\n\nWrite:"


def test_a_text_processor_acts_on_all_texts_of_the_data_and_on_nothing_else():
    wording = Wording(TEMPLATES, str.lower)
    mixture = TaskMixture(miss=0, extra=0, contexts={"oracle": 1})
    made = [e for task in mixture.tasks for e in examples(STORM, task, mixture, wording)]
    assert [(e.instruction, e.target) for e in made if e.task != "sentence"] == [
        (
            "Read ana ruiz’s talk began. oslo slept. Names: monday; ana ruiz; oslo. Write:",
            "ana ruiz in oslo on monday.",
        ),
        ("Read ana ruiz’s talk began. oslo slept. Names?", "ana ruiz; oslo"),
    ]
    before, after = wording.sentence_parts()
    asked = [e.instruction.removeprefix(before).removesuffix(after) for e in made if e.task == "sentence"]
    texts = {sentence.text.lower() for sentence in STORM.sentences} | {STORM.caption.lower()}
    assert set(asked) <= texts
    assert {e.target for e in made if e.task == "sentence"} == {"yes", "no"}


def test_an_entity_of_which_nothing_is_left_is_no_entity():
    """Else all names in other letters would be one and the same, the empty one."""
    letters = Wording(text_processor=lambda text: text.encode("ascii", "ignore").decode())
    sample = article("[東京/GPE].", "[大阪/GPE] rained.", "[Oslo/GPE].")
    made = letters.sample(sample)
    assert [sentence.entities for sentence in made.sentences] == [(), (Entity("Oslo", "GPE", 0),)]
    assert made.caption_entities == ()


def test_a_sample_is_processed_and_keeps_its_sentences():
    sample = NewsSample(
        key="a",
        split="test",
        caption="A  b",
        headline="C\nd",
        paragraphs=("E  f. …",),
        sentences=(Sentence("E  f.", 0, 0), Sentence("…", 0, 6)),
    )
    made = Wording(text_processor=lambda text: fold_white_space(text).strip("…")).sample(sample)
    assert (made.caption, made.headline, made.paragraphs) == ("A b", "C d", ("E f. ",))
    assert [sentence.text for sentence in made.sentences] == ["E f.", ""]
    assert build_context(made, "full", context_budget(Wording(), words=9)).text == "E f."


@given(ARTICLES, wordings(), st.sampled_from(["head", "full", "none", "oracle"]), st.integers(1, 40))
def test_training_asks_what_the_test_asks(sample, wording, strategy, words):
    """The instruction of a training example, from the parts that pass 2 calls."""
    mixture = TaskMixture(contexts={strategy: 1})
    (made,) = examples(sample, "caption", mixture, wording, words=words)
    read = build_context(wording.sample(sample), strategy, context_budget(wording, words=words))
    assert (made.instruction, made.question) == wording.caption(read.text)
    assert made.target == wording.text(sample.caption)


# Templates


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (
            "caption",
            "Write the caption:",
            "{context} was expected once in the text, found 'Write the caption:'",
        ),
        ("caption", "{sentence} Write:", "{context} was expected once"),
        ("entity", "", "{context} was expected once in the text, found ''"),
        ("sentence", "{context}?", "{sentence} was expected once"),
        ("sentence", "{sentence} and {sentence}?", "{sentence} was expected once"),
        ("sentence", None, "text was expected, found None"),
        ("yes", True, "text was expected, found True"),  # YAML's yes without quotes
        ("separator", " ", "a mark between names was expected, found ' '"),
        ("separator", "", "a mark between names was expected, found ''"),
    ],
)
def test_a_template_that_cannot_work_is_named(name, value, found):
    with pytest.raises(UserError) as caught:
        Templates(**{name: value})
    assert str(caught.value).startswith(f"templates.{name}: {found}")


@pytest.mark.parametrize("answers", [{"yes": "no"}, {"no": "yes"}, {"yes": ""}, {"no": " "}])
def test_two_answers_are_needed(answers):
    with pytest.raises(UserError, match="^templates.yes and no: two answers were expected"):
        Templates(**answers)
