"""New names for people: consistent, and unknown to the training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.new_names import LAST, WOMEN
from ealign_plugin.inference.controls.renaming import Renaming
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import Entity, NewsSample, Sentence

RENAMING = Renaming(TrainingNames())


def tagged(text: str, **labels: str) -> tuple[Entity, ...]:
    """Entities by text (_ for a space), wherever the text holds them."""
    found = []
    for name, label in labels.items():
        shown = name.replace("_", " ")
        start = text.find(shown)
        while start >= 0:
            found.append(Entity(shown, label, start))
            start = text.find(shown, start + 1)
    return tuple(sorted(found, key=lambda entity: entity.start))


def sample(*sentences: tuple[str, dict[str, str]], caption: str = "", **labels: str) -> NewsSample:
    """One paragraph of these sentences with their entities; the labels are those of the caption."""
    found, paragraph = [], ""
    for text, entities in sentences:
        found.append(Sentence(text, 0, len(paragraph), tagged(text, **entities)))
        paragraph += text + " "
    return NewsSample(
        key="a_0",
        split="test",
        article_id="a",
        caption=caption,
        caption_entities=tagged(caption, **labels),
        paragraphs=(paragraph.strip(),),
        sentences=tuple(found),
    )


MARIA = sample(
    ("Maria Keller’s aunt came to Oslo.", {"Maria_Keller": "PERSON", "Oslo": "GPE"}),
    ("Mrs. Keller met Omar Keller.", {"Keller": "PERSON", "Omar_Keller": "PERSON"}),
    ("Later Maria left, and Keller stayed.", {}),
    caption="Maria Keller in Oslo.",
    Maria_Keller="PERSON",
    Oslo="GPE",
)


def words(text: str) -> list[str]:
    return text.replace(".", "").replace(",", "").replace("’s", "").split()


def test_a_name_is_the_same_new_one_everywhere_alone_too():
    new = RENAMING(MARIA)
    maria, keller = words(new.caption)[:2]
    omar = words(new.sentences[1].text)[3]
    assert maria in WOMEN and keller in LAST and omar not in WOMEN
    assert new.paragraphs == (
        f"{maria} {keller}’s aunt came to Oslo. Mrs. {keller} met {omar} {keller}. "
        f"Later {maria} left, and {keller} stayed.",
    )
    assert not {"Maria", "Keller", "Omar"} & {maria, keller, omar}


def test_entities_and_sentences_stay_spans_of_their_texts():
    new = RENAMING(MARIA)
    assert NewsSample.from_json(new.to_json()) == new  # spans are read from the texts
    assert [entity.label for entity in new.caption_entities] == ["PERSON", "GPE"]
    assert new.caption_entities[0].text == " ".join(words(new.caption)[:2])
    old = [[entity.label for entity in sentence.entities] for sentence in MARIA.sentences]
    assert [[entity.label for entity in sentence.entities] for sentence in new.sentences] == old


def test_the_photos_of_an_article_share_the_new_names():
    other = replace(
        MARIA,
        key="a_1",
        caption="Eva Lund and Maria Keller.",
        caption_entities=tagged("Eva Lund and Maria Keller.", Eva_Lund="PERSON", Maria_Keller="PERSON"),
    )
    assert RENAMING(other).paragraphs == RENAMING(MARIA).paragraphs
    assert "Eva" not in RENAMING(other).caption and "Lund" not in RENAMING(other).caption
    elsewhere = replace(MARIA, article_id="b")
    assert RENAMING(elsewhere).paragraphs != RENAMING(MARIA).paragraphs


def test_no_new_last_name_stands_in_the_training():
    training = TrainingNames(words=frozenset(name.lower() for name in LAST[1:]))
    assert words(Renaming(training)(MARIA).caption)[1] == LAST[0]
    with pytest.raises(UserError, match="'renamed' needs a last name that the training never held"):
        Renaming(TrainingNames(words=frozenset(name.lower() for name in LAST)))


@pytest.mark.parametrize(
    ("text", "labels", "kept"),
    [
        ("Ana Stone founded Stone House.", {"Ana_Stone": "PERSON", "Stone_House": "FAC"}, "Stone House"),
        ("Will Ford spoke. Will it rain?", {"Will_Ford": "PERSON"}, "Will it rain?"),
        ("Volvo won. Volvo paid.", {"Volvo": "ORG"}, "Volvo won. Volvo paid."),
    ],
)
def test_words_that_are_no_persons_name_stay(text, labels, kept):
    first, _, second = text.partition(". ")
    sentences = [(first + ".", labels), (second, labels)] if second else [(text, labels)]
    assert kept in RENAMING(sample(*sentences)).paragraphs[0]


def test_names_are_found_where_they_were_not_tagged_and_capitals_stay_capitals():
    new = RENAMING(
        sample(("Ana Ruiz spoke.", {"Ana_Ruiz": "PERSON"}), ("Nobody saw Ana Ruiz.", {"Ana_Ruiz": "ORG"}),
               ("Then Ana Ruiz left.", {"Ana_Ruiz": "PERSON"}))
    )  # fmt: skip
    assert "Ruiz" not in new.paragraphs[0] and "Ana" not in new.paragraphs[0]
    loud = RENAMING(sample(("ANA RUIZ spoke.", {"ANA_RUIZ": "PERSON"}))).paragraphs[0]
    assert loud.split()[:2] == loud.upper().split()[:2] and "RUIZ" not in loud


def test_initials_particles_and_titles_stay():
    text = "Dr. John F. van Dyke Jr. spoke."
    new = RENAMING(sample((text, {"Dr._John_F._van_Dyke_Jr.": "PERSON"}))).paragraphs[0].split()
    assert (new[0], new[2], new[3], new[5]) == ("Dr.", "F.", "van", "Jr.")
    assert new[1] != "John" and new[4] in LAST


def test_the_data_set_may_give_the_new_names():
    given = replace(MARIA, extra={"new_names": {"Maria Keller": "Zoe Quist"}})
    assert RENAMING(given).caption == "Zoe Quist in Oslo."
    assert "Mrs. Quist met" in RENAMING(given).paragraphs[0]
    with pytest.raises(UserError, match="'Maria Keller' → 'Zoe' found, a name of as many words expected"):
        RENAMING(replace(MARIA, extra={"new_names": {"Maria Keller": "Zoe"}}))


def test_who_is_named_by_one_word_is_renamed_where_that_is_tagged():
    new = RENAMING(sample(("Pele scored.", {"Pele": "PERSON"}), ("So Pele won.", {"Pele": "PERSON"})))
    first, second = new.paragraphs[0].split()[0], new.paragraphs[0].split()[3]
    assert first == second and first in LAST
