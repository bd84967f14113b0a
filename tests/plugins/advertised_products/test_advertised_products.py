"""The products that a photo shows are learnt, asked and scored; a photo without products is left alone."""

from __future__ import annotations

import random

from advertised_products import AdvertisedProducts

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import TASKS, TaskOptions
from ealign_plugin.news import NewsSample

TASK = TASKS["products"]
WORDING, BUDGET = Wording(), Budget(80)


def advertisement(*shown: str, products: tuple[str, ...] = ("Solana Cola", "Kivu Water")) -> NewsSample:
    """A sample whose source lists products."""
    extra = {"products": list(products), "shown": list(shown)}
    return NewsSample(key="ad0_0", split="train", caption="Drinks.", paragraphs=("Drinks.",), extra=extra)


def test_the_list_is_asked_about_and_the_shown_products_are_the_answer():
    (example,) = TASK.examples(advertisement("Kivu Water"), TaskOptions(), WORDING, BUDGET, random.Random(1))
    assert example.task == "products" and example.target == "Kivu Water"
    assert example.question == "Products: Which of them does this advertisement show? Answer:"
    assert "Solana Cola" in example.instruction and "Kivu Water" in example.instruction


def test_the_test_asks_what_the_training_asks():
    prompt = TASK.ask(advertisement("Kivu Water"), WORDING, BUDGET)
    assert prompt.instruction == (
        "Products: Solana Cola; Kivu Water Which of them does this advertisement show? Answer:"
    )


def test_a_news_photo_gives_no_example_and_no_question():
    news = NewsSample(key="a0_0", split="train", caption="Ana Ruiz.", paragraphs=("Ana Ruiz.",))
    assert TASK.examples(news, TaskOptions(), WORDING, BUDGET, random.Random(1)) == []
    assert TASK.ask(news, WORDING, BUDGET) is None


def test_answers_are_parsed_and_scored():
    answers = [TASK.parse(answer, WORDING) for answer in ("Kivu Water; Solana Cola", "Solana Cola", "")]
    assert answers == [["Kivu Water", "Solana Cola"], ["Solana Cola"], []]
    samples = [advertisement("Kivu Water"), advertisement("Solana Cola"), advertisement("Kivu Water")]
    assert TASK.score(samples, answers) == {"precision": 2 / 3, "recall": 2 / 3}
    assert isinstance(TASK, AdvertisedProducts)
