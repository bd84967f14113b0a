"""`ealign_plugin.NewsCaptioner`: captions of one photo, of many, and of articles of all kinds."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.inference.results import Caption
from tests.inference.factories import ARTICLES, from_checkpoint, png
from tests.messages import message_of

# One photo


def test_a_caption_comes_with_what_both_passes_found(captioner, photos):
    result = captioner(photos[0], ARTICLES[0], context="supplemented")
    assert isinstance(result, Caption) and str(result) == result.caption != ""
    assert [(s.text, s.paragraph) for s in result.sentences] == [
        ("Ana Ruiz spoke in Oslo.", 0),
        ("It rained all day.", 0),
        ("The mayor left early.", 1),
        ("Nobody knew why.", 1),
    ]
    assert all(0 < sentence.score < 1 for sentence in result.sentences)
    assert result.selected == result.sentences  # threshold=None
    assert result.context.startswith("Ana Ruiz spoke in Oslo. It rained all day. The mayor")
    assert result.error == ""


def test_the_scores_are_the_models_own(captioner, photos):
    result = captioner(photos[1], ARTICLES[1])
    model, wording = captioner.model, captioner.wording
    answers = [wording.templates.yes, wording.templates.no]
    features = model.encode_images(captioner.image_processor(photos[1])[None])
    for sentence in result.sentences:
        prompt, question = wording.sentence(sentence.text)
        log = model.score(features, prompt, [""], answers, question=question)
        assert sentence.score == pytest.approx(log.softmax(-1)[0, 0].item(), abs=1e-5)


def test_pass_1_runs_only_where_it_is_needed(captioner, photos, monkeypatch):
    monkeypatch.setattr(captioner.model, "score", None)  # whoever calls it fails
    result = captioner(photos[0], ARTICLES[0], context="head")
    assert result.caption and result.sentences == () and result.context.endswith("Nobody knew why.")
    monkeypatch.undo()
    scored = captioner(photos[0], ARTICLES[0], context="head", scores=True)
    assert len(scored.sentences) == 4 and (scored.caption, scored.context) == (result.caption, result.context)


def test_the_usual_context_is_read_where_nothing_is_selected(run_folder, ner, photos):
    options = {"usual_context": "around_image", "threshold": 1.1}
    captioner = from_checkpoint(run_folder, ner, **options)
    result = captioner(photos[0], ARTICLES[0], headline="Storm", image_position=1)
    assert result.context.startswith("Storm Ana Ruiz spoke in Oslo.")
    with pytest.raises(UserError, match="run.usual_context: 'oracle' reads the reference caption"):
        from_checkpoint(run_folder, ner, usual_context="oracle")


# Many photos


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_a_stream_gives_what_single_calls_give(captioner, photos, batch_size):
    pairs = [(photos[i % 4], ARTICLES[j]) for i, j in enumerate([0, 0, 1, 2, 3, 1])]
    together = list(captioner.stream(iter(pairs), batch_size=batch_size))
    assert len(together) == len(pairs)
    for result, (photo, article) in zip(together, pairs, strict=True):
        alone = captioner(photo, article)
        assert (result.caption, result.context, result.entities, result.hallucinated_names) == (
            (alone.caption, alone.context, alone.entities, alone.hallucinated_names)
        )
        assert [s.text for s in result.sentences] == [s.text for s in alone.sentences]
        for one, other in zip(result.sentences, alone.sentences, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5) and one.selected == other.selected


def test_a_stream_reads_a_batch_at_a_time(captioner, photos):
    read = []

    def pairs():
        for number in range(7):
            read.append(number)
            yield photos[0], ARTICLES[0]

    results = captioner.stream(pairs(), batch_size=3)
    assert read == []
    next(results)
    assert read == [0, 1, 2]
    assert len(list(results)) == 6


def test_photos_of_a_batch_are_encoded_together_and_articles_read_once(captioner, photos, monkeypatch):
    sizes: list[int] = []
    texts: list[str] = []
    encode, pipe = captioner.model.encode_images, captioner.ner.nlp.pipe

    def counted(stream: Any, **options: Any) -> Any:
        stream = list(stream)
        texts.extend(stream)
        return pipe(stream, **options)

    monkeypatch.setattr(
        captioner.model, "encode_images", lambda images: sizes.append(len(images)) or encode(images)
    )
    monkeypatch.setattr(captioner.ner.nlp, "pipe", counted)
    article = ARTICLES[1] + " They sang again."  # which no other test has read
    list(captioner.stream([(photos[0], article)] * 5, batch_size=2))
    assert sizes == [2, 2, 1]
    assert texts.count("The crowd sang. They sang again.") == 1


def test_a_bad_pair_is_named_or_keeps_its_place(captioner, photos, tmp_path):
    (tmp_path / "cut.png").write_bytes(png(photos[0])[:60])
    bad = {
        "image": (b"no picture", ARTICLES[0]),
        "cut.png": (tmp_path / "cut.png", ARTICLES[0]),
        "none.jpg": (tmp_path / "none.jpg", ARTICLES[0]),
        "found int": (7, ARTICLES[0]),
        "found NoneType": (photos[0], None),
        "paragraph 1 is no text, found int": (photos[0], ["A.", 5]),
        "found bytes": (photos[0], b"An article."),
        "no Unicode text": (photos[0], "Ana \ud800 spoke."),
        "(image, article)": photos[0],
    }
    good = (photos[0], ARTICLES[0])
    for words, pair in bad.items():
        message = message_of(list, captioner.stream([good, pair]))
        assert message.startswith("pair 1") and words in message
    pairs = [pair for one in bad.values() for pair in (one, good)]
    results = list(captioner.stream(pairs, batch_size=4, on_error="skip"))
    assert [result.error == "" for result in results] == [False, True] * len(bad)
    assert all(bool(result.caption) != bool(result.error) for result in results)
    alone = captioner(*good)
    assert {result.caption for result in results[1::2]} == {alone.caption}
    for words, result in zip(bad, results[::2], strict=True):
        assert words in result.error


def test_a_stream_of_bad_pairs_only(captioner):
    results = list(captioner.stream([(b"", "A."), (b"", "B.")], on_error="skip"))
    assert ["pair 0" in results[0].error, "pair 1" in results[1].error] == [True, True]
    assert list(captioner.stream([])) == []


def test_wrong_arguments_are_told_before_the_first_pair(captioner, photos):
    assert "batch_size 0" in message_of(captioner.stream, [], batch_size=0)
    assert "on_error 'ignore'" in message_of(captioner.stream, [], on_error="ignore")
    assert "unknown context strategy 'refind'" in message_of(captioner.stream, [], "refind")
    assert "unknown context strategy 'refind'" in message_of(captioner, photos[0], "A.", context="refind")
    assert "reads the reference caption" in message_of(captioner, photos[0], "A.", context="oracle")


# Articles of all kinds


def test_an_empty_article_is_captioned_without_context(captioner, photos):
    for article in ("", " \n\n ", []):
        result = captioner(photos[0], article)
        assert result.caption and (result.sentences, result.context, result.entities) == ((), "", ())


def test_an_article_of_one_sentence(captioner, photos):
    result = captioner(photos[0], "Ana Ruiz spoke in Oslo.")
    assert [s.text for s in result.selected] == ["Ana Ruiz spoke in Oslo."]
    assert result.context == "Ana Ruiz spoke in Oslo."


@pytest.mark.parametrize("article", ["no full stop " * 400, "word" * 3000], ids=["a line", "a word"])
def test_a_sentence_longer_than_the_model_reads(captioner, photos, article):
    for context in ("refined", "full", "head"):
        assert captioner(photos[0], article, context=context).caption


def test_three_thousand_sentences(captioner, photos):
    article = "\n\n".join(f"Speaker {n} came to Oslo. It was day {n} of the talks." for n in range(1500))
    start = time.perf_counter()
    result = captioner(photos[0], article)
    assert len(result.sentences) == 3000
    assert len(result.context.split()) <= 30
    assert time.perf_counter() - start < 10


# Threads


def test_eight_threads_give_what_single_calls_give(captioner, photos):
    pairs = [(photos[i % 4], ARTICLES[j]) for i, j in enumerate([0, 0, 1, 2, 3, 1, 0, 3] * 3)]
    single = [captioner(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: captioner(*pair), pairs))
        streams = list(pool.map(lambda _: list(captioner.stream(pairs[:4], batch_size=1)), range(8)))
    assert together == single
    assert streams == [single[:4]] * 8
