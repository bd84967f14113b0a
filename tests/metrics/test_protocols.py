"""What a named protocol reports."""

import json

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.builtin import evaluate
from ealign_plugin.metrics.protocols import get_protocol
from ealign_plugin.news import Entity

REFERENCES = ["José Ruiz speaks in Oslo.", "Fans of Lyon on May 3"]
CANDIDATES = ["Jose Ruiz speaks in Oslo", "Fans in Lyon"]
REFERENCE_ENTITIES = [
    (Entity("José Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 20)),
    (Entity("Lyon", "ORG", 8), Entity("May 3", "DATE", 16)),
]
CANDIDATE_ENTITIES = [
    (Entity("Jose Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 20)),
    (Entity("Lyon", "GPE", 8),),
]


def run(protocol, **changes):
    arguments = [REFERENCES, CANDIDATES, REFERENCE_ENTITIES, CANDIDATE_ENTITIES]
    return evaluate(protocol, *arguments, meteor=False, **changes)


def test_tell_reports_every_figure():
    figures = run("tell")
    assert figures["protocol"] == "tell" and figures["samples"] == 2
    assert (figures["entity_precision"], figures["entity_recall"]) == (1 / 3, 1 / 4)
    assert (figures["gpe_precision"], figures["gpe_recall"]) == (1 / 2, 1)
    assert (figures["person_f1"], figures["org_f1"], figures["date_recall"]) == (0, 0, 0)
    assert figures["date_precision"] is None and figures["meteor"] is None
    assert (figures["words"], figures["reference_words"]) == (4, 5.5)
    assert {"bleu1", "bleu4", "rouge", "cider", "type_token_ratio"} <= figures.keys()


def test_vacnic_folds_text_and_ignores_the_label_over_all_only():
    tell, vacnic = run("tell"), run("vacnic")
    assert (vacnic["entity_precision"], vacnic["entity_recall"]) == (1, 3 / 4)
    assert (vacnic["person_f1"], vacnic["org_f1"]) == (1, 0)
    for name in ("bleu4", "rouge", "cider", "gpe_f1"):
        assert vacnic[name] == tell[name]


def test_figures_are_plain_json():
    figures = run(get_protocol("tell"))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(UserError, match="'coco' is not known; expected one of tell, vacnic"):
        run("coco")


def test_entities_must_belong_to_the_captions():
    with pytest.raises(UserError, match="2 captions but entities of 1"):
        evaluate("tell", REFERENCES, CANDIDATES, REFERENCE_ENTITIES[:1], CANDIDATE_ENTITIES[:1], meteor=False)
    with pytest.raises(UserError, match="entities of 2 reference captions but of 1 candidate captions"):
        evaluate("tell", REFERENCES, CANDIDATES, REFERENCE_ENTITIES, CANDIDATE_ENTITIES[:1], meteor=False)
