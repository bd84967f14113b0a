"""Which sentences the controls read, on small articles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.inference.controls.articles import SplitArticles
from ealign_plugin.inference.controls.sentences import ORDERS, as_much_as, with_other_scenes
from ealign_plugin.news import Entity, NewsSample
from tests.factories import news_sample
from tests.inference.factories import Split

ARTICLES = SplitArticles(Split())


def article(*texts: str, **fields) -> NewsSample:
    """A sentence a paragraph; words in capitals are people's names."""
    return NewsSample.from_json(
        {
            **NewsSample(key="a", split="test", caption="", paragraphs=texts).to_json(),
            "sentences": [
                {
                    "paragraph": number,
                    "start": 0,
                    "end": len(text),
                    "entities": [
                        [text.index(word), text.index(word) + len(word), "PERSON"]
                        for word in text.strip(".").split()
                        if word.isupper()
                    ],
                }
                for number, text in enumerate(texts)
            ],
            **fields,
        }
    )


NAMES = article("It rained.", "ANA met LEO there.", "ANA and ANA and ANA.", "The dog saw EVA.")


def order(control: str, sample: NewsSample, articles: SplitArticles = ARTICLES) -> list[int]:
    return list(ORDERS[control](sample, articles))


def test_most_names_first_counts_each_name_once():
    assert order("most_names", NAMES) == [1, 2, 3, 0]


def test_random_sentences_are_the_same_for_the_same_photo_only():
    many = article(*(f"Sentence {number}." for number in range(20)))
    assert order("random_sentences", many) == order("random_sentences", many)
    assert sorted(order("random_sentences", many)) == list(range(20))
    assert order("random_sentences", many) != order("random_sentences", replace(many, key="b"))


def test_tfidf_prefers_words_of_the_headline_that_are_rare_in_the_split():
    sample = article("The mayor spoke in rain.", "A flood hit us all.", headline="The flood, said the mayor")
    others = [article(f"The mayor spoke {number} times.", key=f"k{number}") for number in range(9)]
    common = SplitArticles(Split(sample, *others))
    assert order("tfidf", sample, common) == [1, 0]
    rare = [article(f"A flood came {number} times.", key=f"k{number}") for number in range(9)]
    assert order("tfidf", sample, SplitArticles(Split(sample, *rare))) == [0, 1]


def test_without_a_headline_tfidf_is_the_head():
    assert order("tfidf", NAMES, SplitArticles(Split(NAMES))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("words", "sentences"),
    [(0, ()), (3, (0,)), (4, (1,)), (6, (0, 1)), (9, (1, 2)), (11, (0, 1, 2)), (99, (0, 1, 2, 3))],
)
def test_as_many_words_are_filled_and_what_does_not_fit_is_passed_over(words, sentences):
    context = as_much_as(" x" * words, NAMES, [1, 2, 0, 3], Budget(500))
    assert context.sentences == sentences
    assert len(context.text.split()) <= words


def test_a_part_of_the_usual_contexts_own_plays_no_role():
    budget = Budget(500, usual_least=250)
    assert as_much_as("1 2 3 4", NAMES, [1, 2, 0, 3], budget).sentences == (1,)


def test_where_no_sentence_is_so_short_the_most_wanted_is_cut():
    assert as_much_as("x", NAMES, [1, 2, 0, 3], Budget(500)).text == "ANA"


def test_a_sentence_that_stands_twice_is_read_once():
    twice = article("ANA spoke here.", "Ana  spoke HERE.", "It rained.")
    assert as_much_as("1 2 3 4 5 6 7 8", twice, [0, 1, 2], Budget(500)).sentences == (0, 2)


# Another scene


def test_the_sentences_of_another_photo_join_the_oracles_in_article_order():
    one, other = news_sample(0, 0), news_sample(0, 1)
    context = with_other_scenes(other, [one], Budget(500), 1)
    assert context.text == "Ruiz spoke in Oslo. Weber came to Cairo."


def test_both_scenes_take_turns_where_the_budget_is_small():
    texts = ("ANA sat.", "ANA ran.", "LEO sat.", "LEO ran.", "It rained.")
    ana, leo = (
        replace(article(*texts, key=name, caption=name), caption_entities=(Entity(name, "PERSON", 0),))
        for name in ("ANA", "LEO")
    )
    assert with_other_scenes(ana, [leo], Budget(4), 1).text == "ANA sat. LEO sat."
    assert with_other_scenes(ana, [leo], Budget(6), 1).text == "ANA sat. ANA ran. LEO sat."


def test_three_scenes_take_turns_and_random_sentences_stand_for_those_that_are_missing():
    texts = ("ANA sat.", "LEO sat.", "EVA sat.", "It rained.", "It snowed.", "ANA ran.")
    ana, leo, eva = (
        replace(article(*texts, key=name, caption=name), caption_entities=(Entity(name, "PERSON", 0),))
        for name in ("ANA", "LEO", "EVA")
    )
    two = with_other_scenes(ana, [leo, leo, eva], Budget(500), 2)  # a photo of the same people is no other
    assert two.text == "ANA sat. LEO sat. EVA sat. ANA ran."
    assert with_other_scenes(ana, [leo, eva], Budget(6), 2).text == "ANA sat. LEO sat. EVA sat."
    three = with_other_scenes(ana, [leo, eva], Budget(500), 3)
    assert three.text == "ANA sat. LEO sat. EVA sat. It rained. It snowed. ANA ran."


def test_an_article_of_one_scene_gives_as_many_random_sentences():
    alone = news_sample(0, 0)
    for others in ([], [alone]):  # the other photo may show the same people
        context = with_other_scenes(alone, others, Budget(500), 1)
        assert len(context.sentences) == 2 and 0 in context.sentences


def test_others_are_those_of_the_same_article_in_order_of_keys_from_the_photo_on():
    samples = [news_sample(number, photo) for number in (0, 1) for photo in (1, 0)]
    third = replace(news_sample(0), key="train000_2")
    articles = SplitArticles(Split(third, *samples))
    assert [other.key for other in articles.others(samples[0])] == ["train000_2", "train000_0"]
    assert [other.key for other in articles.others(samples[2])] == ["train001_0"]
