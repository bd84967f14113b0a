"""Photos and articles as users have them: files, bytes, pictures, texts, paragraphs, samples."""

import io
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from ealign_plugin.errors import UserError
from ealign_plugin.inference.inputs import SentenceFinder, read_article, read_photo
from ealign_plugin.news import NewsSample, Sentence
from tests.inference.factories import ARTICLES, png
from tests.messages import message_of


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


# One photo


def test_an_article_is_text_or_paragraphs_or_a_sample(captioner, photos):
    paragraphs = ["Ana Ruiz spoke in Oslo. It rained all day.", "The mayor left early. Nobody knew why."]
    sample = NewsSample(key="a", split="test", caption="", paragraphs=tuple(paragraphs))
    results = [captioner(photos[0], article) for article in (ARTICLES[0], paragraphs, sample)]
    assert results[0] == results[1] == results[2]


def test_a_sample_that_has_sentences_keeps_them(captioner, photos):
    sentence = Sentence("Ana spoke", 0, 0)
    sample = NewsSample(
        key="a", split="test", caption="", paragraphs=("Ana spoke in Oslo.",), sentences=(sentence,)
    )
    assert [s.text for s in captioner(photos[0], sample).sentences] == ["Ana spoke"]


def test_headline_and_place_are_read_around_the_image(captioner, photos):
    result = captioner(
        photos[0], ARTICLES[0], context="around_image", headline="Rain in Oslo", image_position=1
    )
    assert result.context.startswith("Rain in Oslo Ana Ruiz spoke")
    message = message_of(captioner, photos[0], ARTICLES[0], image_position=3)
    assert "image_position 3 found, the article has 2 paragraphs" in message


def test_a_photo_is_a_picture_or_a_path_or_bytes(captioner, photos, tmp_path):
    photos[0].save(tmp_path / "a.png")
    given = [photos[0], tmp_path / "a.png", str(tmp_path / "a.png"), png(photos[0])]
    results = [captioner(image, ARTICLES[0]) for image in given]
    assert all(result == results[0] for result in results)


def test_a_picture_is_read_like_its_file(photos):
    """Turned by EXIF, and transparent."""
    turned, glass = io.BytesIO(), Image.new("RGBA", (70, 70), (255, 0, 0, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = photos[0].copy()
    halves.paste("black", (0, 0, 40, 70))
    halves.save(turned, "PNG", exif=exif)

    def picture_of(photo):
        return list(read_photo(photo, "a").getdata())

    for content in (turned.getvalue(), png(glass)):
        picture = Image.open(io.BytesIO(content))
        assert picture_of(picture) == picture_of(content)
    assert picture_of(turned.getvalue()) != picture_of(halves)


def test_a_picture_of_too_many_pixels_is_refused(captioner, photos, monkeypatch):
    monkeypatch.setattr("ealign_plugin.images.MAX_PIXELS", 80 * 70 - 1)
    for image in (photos[0], png(photos[0])):
        message = message_of(captioner, image, ARTICLES[0])
        assert message.startswith("image: the picture has 80×70 pixels, at most 5,599")


def test_a_picture_that_breaks_off_while_it_is_decoded(captioner, photos, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)  # as LAVIS does
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    lazy = Image.open(io.BytesIO(png(noise)[:200]))
    assert "image: the picture cannot be read" in message_of(captioner, lazy, ARTICLES[0])


# Articles of all kinds


def test_a_paragraph_longer_than_spacy_reads_is_an_error(captioner, photos, monkeypatch):
    monkeypatch.setattr(captioner.ner.nlp, "max_length", 20)
    message = message_of(captioner, photos[0], "Short.\n\n" + "x" * 21)
    assert "paragraph 1 has 21 characters, at most 20" in message
