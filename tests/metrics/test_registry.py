"""Metrics that other packages add, and the order in which those of this one stand."""

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.metrics import METRICS, CaptionSet, evaluate, format_table, register_metric
from ealign_plugin.metrics.registry import check_figure, chosen_metrics, measure, ordered
from ealign_plugin.news import Entity

ANA, OSLO = Entity("Ana Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 12)


def caption_set(**changes) -> CaptionSet:
    values = {
        "references": ["Ana Ruiz in Oslo.", "Rain."],
        "captions": ["Ana Ruiz in Oslo", ""],
        "reference_entities": [(ANA, OSLO), ()],
        "caption_entities": [(ANA, OSLO), ()],
        "contexts": ["Ana Ruiz spoke.", "It rained."],
    }
    return CaptionSet(**{**values, **changes})


@pytest.fixture
def registration(monkeypatch):
    """`register_metric`, whose registrations end with the test."""
    before = METRICS.items()
    yield register_metric
    for name in set(METRICS) - {name for name, _ in before}:
        METRICS.unregister(name)


def test_a_metric_of_another_package_is_measured_and_has_a_column(registration):
    @registration("empty", heading="nothing said")
    def empty(captions: CaptionSet) -> float:
        return sum(not caption for caption in captions.captions) / len(captions.captions)

    metrics = chosen_metrics(None)
    figures = measure(caption_set(), metrics, skipped=["meteor"])
    assert figures["empty"] == 0.5 and list(figures)[-1] == "empty"
    heading = METRICS["empty"].headings
    assert format_table([figures], ["empty"], headings=heading).splitlines()[0] == "| nothing said |"


def test_figures_of_the_built_in_metrics_stand_in_the_order_of_metrics_json():
    figures = measure(caption_set(), chosen_metrics(None), skipped=["meteor"])
    labels = ("entity", "person", "org", "gpe", "date")
    assert list(figures) == [
        *("protocol", "samples"),
        *(f"{label}_{ratio}" for label in labels for ratio in ("precision", "recall", "f1")),
        *("bleu1", "bleu2", "bleu3", "bleu4", "rouge", "cider", "meteor"),
        *("words", "type_token_ratio", "reference_words", "reference_type_token_ratio"),
        *("people_right", "names_held"),
    ]
    assert (figures["people_right"], figures["names_held"], figures["meteor"]) == (1.0, 0.5, None)


def test_columns_of_the_built_in_metrics_stand_in_the_order_of_the_table():
    columns = [column for metric in chosen_metrics(None) for column in metric.columns]
    assert ordered(columns) == [
        *("names_held", "people_right", "entity_f1", "person_f1", "org_f1", "gpe_f1", "date_f1"),
        *("bleu4", "rouge", "cider", "meteor"),
    ]


def test_captions_of_any_origin_are_scored_without_contexts():
    one = caption_set(contexts=())
    figures = measure(one, chosen_metrics(["names_held", "people"]))
    assert figures == {"protocol": "tell", "samples": 2, "people_right": 1.0, "names_held": None}
    whole = evaluate(
        "tell", one.references, one.captions, one.reference_entities, one.caption_entities, meteor=False
    )
    assert whole["entity_f1"] == 1.0 and whole["meteor"] is None


def test_an_unknown_metric_or_figure_lists_what_there_is():
    with pytest.raises(UserError, match="run.metrics: unknown metric 'entitys'; did you mean 'entities'"):
        chosen_metrics(["entitys"])
    with pytest.raises(UserError, match="expected one of captions, entities, meteor, names_held, people"):
        chosen_metrics(["x"])
    with pytest.raises(
        UserError, match="run.agg_metric: 'cidre' found; one of people_right, entity_f1, .*cider"
    ):
        check_figure("cidre", chosen_metrics(None))
    assert check_figure("cider", chosen_metrics(None)) == "cider"
    for figure in ("meteor", "names_held"):  # of a test only; not of the captions
        with pytest.raises(UserError, match="run.agg_metric"):
            check_figure(figure, chosen_metrics(None))


def test_what_was_not_declared_is_one_clear_error(registration):
    @registration("two", figures=("a", "b"))
    def two(captions: CaptionSet) -> dict:
        return {"a": 1.0, "c": 2.0}

    with pytest.raises(UserError, match="metric 'two': found the figures a, c, expected a, b"):
        measure(caption_set(), chosen_metrics(["two"]))

    @registration("text")
    def text(captions: CaptionSet) -> str:
        return "good"

    with pytest.raises(UserError, match="metric 'text': text is str, expected a number or None"):
        measure(caption_set(), chosen_metrics(["text"]))


def test_names_are_free_once(registration):
    with pytest.raises(
        UserError, match="metric 'mine' of .*: the metric 'captions' of .* has a figure 'cider'"
    ):
        registration("mine", figures=("cider",))(lambda captions: {"cider": 1.0})
    with pytest.raises(
        UserError, match="metric 'people': registered by ealign_plugin.metrics.builtin.people"
    ):
        registration("people", figures=("people_right",))(lambda captions: 1.0)


def test_rows_must_belong_together():
    with pytest.raises(UserError, match="2 reference captions but 1 candidate captions"):
        caption_set(captions=[""])
