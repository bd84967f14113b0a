"""The names of the controls, as ``run.controls`` lists them, and what each does."""

from __future__ import annotations

from collections.abc import Mapping

CONTROLS: Mapping[str, str] = {
    "random_sentences": "random sentences, as many words as the main context of this photo holds",
    "most_names": "the sentences with the most names, as many words",
    "tfidf": "the sentences nearest to the headline by TF-IDF, as many words",
    "renamed": "every person has a new name that the training never held, in article and reference",
    "other_photo_pass1": "pass 1 sees another article's photo, pass 2 the right one",
    "other_photo_pass2": "pass 1 sees the right photo, pass 2 another article's",
    "other_photo": "both passes see another article's photo (the row 'images shuffled')",
    "blank_photo": "both passes see a grey picture",
    "twin_table": "no model: in the captions of 'head', people whom the article does not name are "
    "replaced by those whom it names",
    "oracle_other_scene": "the sentences that the reference would select, and those of another photo of the "
    "article, or as many random ones",
    "oracle_2_other_scenes": "likewise with two other photos",
    "oracle_3_other_scenes": "likewise with three",
}
"""Name → what it does, in the order in which they are listed."""

OTHER_SCENES = {"oracle_other_scene": 1, "oracle_2_other_scenes": 2, "oracle_3_other_scenes": 3}
"""Their number of other photos."""

OF_ANOTHER_PHOTO = ("other_photo_pass1", "other_photo_pass2", "other_photo")
"""They need another article's photo: ``other_image`` of the data set."""

SHUFFLED = " (images shuffled)"
"""Ends the name of the main context in the row of ``other_photo``."""


def row_name(control: str, main: str) -> str:
    """The row of a control in the table, where ``main`` is the main context.

    >>> row_name("other_photo", "refined"), row_name("tfidf", "refined")
    ('refined (images shuffled)', 'tfidf')
    """
    return main + SHUFFLED if control == "other_photo" else control
