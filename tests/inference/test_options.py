"""Options of an evaluation: values out of range are refused before any work."""

from __future__ import annotations

import pytest

from ealign_plugin.errors import UserError
from tests.inference.factories import evaluator


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"caption_loss": ["refined"]}, "run.caption_loss: 'refined' needs pass 1"),
        ({"valid_contexts": []}, "run.valid_contexts: at least one"),
        ({"contexts": ["haed"]}, "unknown context strategy 'haed'"),
        ({"contexts": []}, "run.contexts: at least one"),
        ({"controls": ["tf_idf"]}, "run.controls: unknown control 'tf_idf'; did you mean 'tfidf'"),
        ({"controls": ["twin_table"], "contexts": ["refined"]}, "changes the captions of 'head'; add it"),
        ({"protocol": "coco"}, "coco"),
        ({"context_words": 0}, "run.context_words: found 0, expected at least 1"),
        ({"usual_words": 501}, "run.usual_words: found 501, expected at most 500, a context's budget"),
        ({"context_tokens": 9, "usual_words": 10}, "run.usual_words: found 10, expected at most 9"),
        ({"usual_words": -1}, "run.usual_words: found -1, expected at least 0"),
        ({"threshold": -0.1}, "run.threshold: found -0.1, expected at least 0"),
        ({"repetition_penalty": 0}, "run.repetition_penalty: found 0, expected above 0"),
        ({"min_len": 65}, "run.min_len: found 65, expected at most run.max_len, 64"),
        ({"usual_context": "refined"}, "run.usual_context: 'refined' needs pass 1; choose another"),
        (
            {"usual_context": "haed"},
            "run.usual_context: unknown context strategy 'haed'; did you mean 'head'",
        ),
        ({"top_k": -1}, "run.top_k: found -1, expected at least 1"),
        ({"agg_metric": "cidre"}, "run.agg_metric: 'cidre' found; one of people_right, "),
        ({"metrics": ["entities"]}, "run.agg_metric: 'cider' found; one of entity_f1, "),
        ({"metrics": ["cidre"]}, "run.metrics: unknown metric 'cidre'; expected one of captions, entities, "),
    ],
)
def test_bad_run_values_are_refused_before_any_work(run, message):
    with pytest.raises(UserError, match=message):
        evaluator(run)
