"""Photos and articles as users have them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import spacy
from PIL import Image

from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.errors import UserError
from ealign_plugin.inference.inputs import SentenceFinder, read_article, read_photo
from ealign_plugin.news import NewsSample, Sentence


@pytest.fixture
def ner() -> NamedEntityRecognizer:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return NamedEntityRecognizer(nlp, "blank", "0")


def article(*paragraphs: str) -> NewsSample:
    return NewsSample(key="a", split="test", caption="", paragraphs=paragraphs)


def test_paragraphs_stand_between_blank_lines_and_are_folded():
    read = read_article("Ana\nspoke. \n \n\n  It  rained.\n", "article", max_characters=99)
    assert read.paragraphs == ("Ana spoke.", "It rained.")
    listed = read_article(["Ana.", " ", "Bo."], "article", image_position=2, max_characters=99)
    assert (listed.paragraphs, listed.image_position) == (("Ana.", "", "Bo."), 2)


def test_what_is_no_article_or_photo_is_refused():
    with pytest.raises(UserError, match="pair 3: text or a list of paragraphs was expected, found int"):
        read_article(7, "pair 3", max_characters=99)
    with pytest.raises(UserError, match="paragraph 0 has 4 characters, at most 3 are read"):
        read_article("Ana.", "article", max_characters=3)
    with pytest.raises(UserError, match="image: a PIL picture, or a file's path or bytes, was expected"):
        read_photo(7, "image")
    assert read_photo(Image.new("L", (8, 4)), "image").mode == "RGB"


def test_each_article_is_read_once_and_the_oldest_is_forgotten(ner, monkeypatch):
    read: list[str] = []
    pipe = ner.nlp.pipe

    def counted(texts, **options):
        texts = list(texts)
        read.extend(texts)
        return pipe(texts, **options)

    monkeypatch.setattr(ner.nlp, "pipe", counted)
    find = SentenceFinder(ner, remembered=2)
    one, two, three = article("One. And one."), article("Two."), article("Three.")
    assert [s.text for s in find([one, one])[0].sentences] == ["One.", "And one."]
    find([two, one])
    find([three])  # two is forgotten: one was asked for after it
    find([one])
    assert read == ["One. And one.", "Two.", "Three."]
    find([two])
    assert read[-1] == "Two."


def test_more_articles_at_once_than_are_remembered(ner):
    samples = [article(f"Number {i}.") for i in range(5)]
    found = SentenceFinder(ner, remembered=1)(samples)
    assert [sample.sentences[0].text for sample in found] == [f"Number {i}." for i in range(5)]


def test_sentences_that_are_there_stay(ner):
    sample = NewsSample(
        key="a", split="test", caption="", paragraphs=("Ana spoke.",), sentences=(Sentence("Ana", 0, 0),)
    )
    assert SentenceFinder(ner)([sample]) == [sample]


def test_threads_share_it(ner):
    find = SentenceFinder(ner, remembered=3)
    texts = [f"Speaker {i % 7} came. It rained {i % 7} days." for i in range(70)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: find([article(text)])[0].sentences, texts))
    assert [[s.text for s in sentences] for sentences in found] == [
        [f"Speaker {i % 7} came.", f"It rained {i % 7} days."] for i in range(70)
    ]
