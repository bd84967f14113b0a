"""Entity metrics by hand, and the symmetries that they must have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.entities import EntityScores, entity_scores, fold_text
from ealign_plugin.news import Entity


def entities(*pairs):
    """``"Oslo/GPE"`` ... as entities; their place in the text does not matter here."""
    return tuple(Entity(*pair.split("/"), start=7 * i) for i, pair in enumerate(pairs))


ENTITY = st.builds(
    Entity, st.sampled_from(["Oslo", "Ana", "UN"]), st.sampled_from(["GPE", "PERSON"]), st.just(0)
)
PAIRS = st.lists(st.tuples(st.lists(ENTITY, max_size=4), st.lists(ENTITY, max_size=4)), max_size=5)


def test_every_repeat_counts_if_the_other_side_has_it_once():
    scores = entity_scores(
        [entities("Oslo/GPE", "Oslo/GPE", "Ana Ruiz/PERSON")],
        [entities("Bergen/GPE", "Oslo/GPE")],
    )
    assert scores == EntityScores(reference_hits=2, reference_count=3, candidate_hits=1, candidate_count=2)
    assert (scores.precision, scores.recall) == (1 / 2, 2 / 3)
    assert scores.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_hits_are_summed_over_photos_and_never_cross_them():
    scores = entity_scores(
        [entities("Oslo/GPE"), entities("Ana/PERSON", "Bo/PERSON", "UN/ORG")],
        [entities("Oslo/GPE"), entities("Oslo/GPE")],
    )
    assert (scores.precision, scores.recall) == (1 / 2, 1 / 4)


def test_text_and_label_must_be_equal():
    reference = [entities("Washington/PERSON", "Oslo/GPE")]
    candidate = [entities("Washington/GPE", "oslo/GPE")]
    assert entity_scores(reference, candidate).f1 == 0
    assert entity_scores(reference, candidate, match_label=False).recall == 1 / 2
    assert entity_scores(reference, candidate, fold=True).recall == 1 / 2
    assert entity_scores(reference, candidate, match_label=False, fold=True).f1 == 1


def test_labels_choose_entities_on_both_sides():
    reference = [entities("Washington/PERSON", "Oslo/GPE")]
    candidate = [entities("Washington/GPE", "Oslo/GPE")]
    person = entity_scores(reference, candidate, ("PERSON",), match_label=False)
    assert (person.precision, person.recall, person.f1) == (None, 0, 0)
    assert entity_scores(reference, candidate, ("GPE", "DATE")).precision == 1 / 2


def test_nothing_on_either_side_is_undefined():
    scores = entity_scores([()], [()])
    assert (scores.precision, scores.recall, scores.f1) == (None, None, None)


@given(PAIRS)
def test_swapping_the_sides_swaps_precision_and_recall(pairs):
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = entity_scores(left, right), entity_scores(right, left)
    assert (one.precision, one.recall, one.f1) == (other.recall, other.precision, other.f1)


@given(PAIRS)
def test_looser_matching_never_loses_a_hit(pairs):
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    strict, loose = entity_scores(left, right), entity_scores(left, right, match_label=False, fold=True)
    assert loose.reference_hits >= strict.reference_hits and loose.reference_count == strict.reference_count


@given(PAIRS)
def test_labels_share_out_hits_and_counts(pairs):
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    whole = entity_scores(left, right)
    parts = [entity_scores(left, right, (label,)) for label in ("GPE", "PERSON")]
    assert whole.candidate_hits == sum(part.candidate_hits for part in parts)
    assert whole.candidate_count == sum(part.candidate_count for part in parts)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("José", "jose"),
        ("Jose\u0301", "jose"),
        ("BJØRN’S", "bjorn's"),
        ("Łódź–Straße", "lodz-strasse"),
        ("İzmir", "izmir"),
        ("Осло", "осло"),
    ],
)
def test_folding(text, folded):
    assert fold_text(text) == folded


def test_different_numbers_of_photos_are_refused():
    with pytest.raises(UserError, match="entities of 1 reference captions but of 2 candidate captions"):
        entity_scores([()], [(), ()])
