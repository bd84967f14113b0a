"""Two passes on the micro model with random weights: whatever article comes, a caption comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lavis.models import load_model

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from ealign_plugin.inference.options import InferenceOptions
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.answers import fitting
from ealign_plugin.news import NewsSample, Sentence

LONG = "The mayor of Oslo met " + "and the minister of Bergen met " * 300 + "them."
ARTICLES = {
    "one sentence": ["It rained in Oslo."],
    "empty": [],
    "one line without full stops": [LONG],
    "a sentence that is longer than the context among others": ["It rained.", LONG, "Ana Ruiz came."],
    "one word that is longer than the context": ["x" * 4000],
    "nothing but marks": ["—", "…"],
    "repeated sentences": ["Ana Ruiz came."] * 5,
}


def sample(texts: list[str], key: str = "a") -> NewsSample:
    starts = [sum(len(text) + 1 for text in texts[:i]) for i in range(len(texts))]
    return NewsSample(
        key=key,
        split="test",
        caption="Ana Ruiz in Oslo.",
        paragraphs=(" ".join(texts),),
        sentences=tuple(Sentence(text, 0, start) for text, start in zip(texts, starts, strict=True)),
    )


@pytest.fixture(scope="module")
def model() -> InstructBlip:
    torch.manual_seed(0)
    return load_model("ealign_instructblip", "micro", is_eval=True)


@pytest.fixture(scope="module")
def features(model):
    with torch.no_grad():
        return model.encode_images(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def passes(model, **options) -> TwoPasses:
    return TwoPasses(model, Wording(), InferenceOptions(**{"num_beams": 2, "max_len": 6, **options}))


@pytest.mark.parametrize("article", ARTICLES)
@pytest.mark.parametrize("threshold", [0.0, 1.1], ids=["all selected", "none selected"])
def test_whatever_the_article_a_caption_comes_out(model, features, article, threshold):
    two, one = passes(model, threshold=threshold, context_words=20), sample(ARTICLES[article])
    first = two.select(features, [one])[0]
    assert len(first.scores) == len(one.sentences)
    assert all(0 <= score <= 1 for score in first.scores)
    for strategy in ("head", "full", "refined", "supplemented", "oracle", "none"):
        context = two.context(one, strategy, first)
        assert len(context.text.split()) <= 20 or strategy == "full"
        assert bool(context.text) == (bool(one.sentences) and strategy != "none")  # falls back to the head
        assert isinstance(two.captions(features, [context.text])[0], str)


def test_three_thousand_sentences(model, features):
    texts = [f"Number {i} came to Oslo." for i in range(3000)]
    first = passes(model, threshold=0.0, select_words=30, context_words=30).select(features, [sample(texts)])
    assert len(first[0].scores) == 3000
    assert len(first[0].selection.sentences) == 6  # of five words each


def test_an_over_long_sentence_keeps_the_question_in_front(model, features):
    before, after = Wording().sentence_parts()
    fitted = fitting(model, before, [LONG + after, "It rained." + after])
    assert fitted[1] == "It rained." + after
    prompt = model.prompts([before + fitted[0]])[0]
    assert len(prompt) <= model.max_txt_len
    assert (
        model.tokenizer.decode(prompt, skip_special_tokens=True).lstrip().startswith("Is this sentence about")
    )
    assert fitted[0].endswith("met them." + after)


def test_selections_are_those_of_each_photo_alone(model):
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        features = model.encode_images(images)
    samples = [sample(texts) for texts in (["Ana Ruiz came.", "It rained."], [], ["Oslo slept."])]
    two = passes(model, threshold=0.0)
    together = two.select(features, samples)
    for i, one in enumerate(samples):
        alone = two.select(features[i : i + 1], [one])[0]
        assert torch.allclose(torch.tensor(alone.scores), torch.tensor(together[i].scores), atol=1e-6)
        assert (alone.selection, alone.hallucinated_names) == (
            together[i].selection,
            together[i].hallucinated_names,
        )


def test_repeated_sentences_are_selected_once(model, features):
    first = passes(model, threshold=0.0).select(features, [sample(["Ana came."] * 3 + ["It rained."])])[0]
    assert first.selection.sentences == (0, 3)


def test_a_selection_carries_its_scores(model, features):
    first = passes(model, threshold=0.0).select(features, [sample(["Ana came.", "It rained.", "Bo left."])])[
        0
    ]
    assert first.selection.sentences == (0, 1, 2) and first.selection.scores == first.scores


def test_over_budget_the_best_scored_sentence_is_read(model):
    one = sample([f"{name} b c d e f g h." for name in "ABC"])
    first = FirstPass(selection=Selection((0, 1, 2), scores=(0.51, 0.52, 0.99)))
    assert passes(model, context_words=20).context(one, "refined", first).sentences == (1, 2)
    assert passes(model, context_words=9).context(one, "refined", first).sentences == (2,)


def test_what_is_selected_joins_the_usual_context_of_the_options(model):
    one = replace(sample(["It rained.", "Ana Ruiz came."]), headline="Storm", image_position=0)
    two, first = passes(model, context_words=9, usual_context="around_image", usual_words=3), FirstPass()
    assert two.context(one, "refined", first).text == "Storm It rained. Ana Ruiz came."
    added = FirstPass(selection=Selection((1,), ("Ana",)))
    assert two.context(one, "supplemented", added).text == "Storm It rained. Ana Ruiz came. Names: Ana."


def test_a_budget_of_tokens_counts_the_models_tokens(model, features):
    two = passes(model, context_tokens=16)
    texts = ["It rained in Oslo.", "Ana Ruiz came.", "Nobody left the Netherlands on Wednesday."]
    context = two.context(sample(texts), "head")
    assert context.sentences == (0, 1)
    assert len(model.ids([context.text])[0]) <= 16 < len(model.ids([" ".join(texts)])[0])


def test_without_pass_one_there_is_nothing_to_refine(model):
    with pytest.raises(UserError, match="'refined' needs a selection from pass 1"):
        passes(model).context(sample(["It rained."]), "refined")
    assert passes(model).context(sample(["It rained."]), "refined", FirstPass()).text == "It rained."


@pytest.mark.parametrize("name", ["context_words", "context_tokens", "top_k", "select_words", "max_len"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(UserError, match=f"run.{name}: found 0, expected at least 1"):
        InferenceOptions(**{name: 0})
