"""Caption metrics: BLEU, ROUGE-L, CIDEr and METEOR as the scorer of Transform and Tell computes them.

One reference a photo. Punctuation goes on both sides, case stays, words are what whitespace separates::

    "Ana Ruiz, 41, in Oslo." -> "Ana Ruiz 41 in Oslo"
    "Oslo — in May"          -> "Oslo  in May"          (two spaces: ROUGE sees an empty word between them)

All values are fractions: BLEU, ROUGE and METEOR lie in 0–1, CIDEr in 0–10. Papers print them times 100.
Source: repository alasdairtran/transform-and-tell, scripts/compute_metrics.py; the formulas themselves are
pycocoevalcap's.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence

from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.meteor import meteor_score

log = logging.getLogger(__name__)


PUNCTUATION = re.compile(r"[^\w\s]")


NO_JAVA = "METEOR needs Java, and no `java` is on the PATH"


def score_captions(
    references: Sequence[str], candidates: Sequence[str], *, meteor: bool | None = None
) -> dict[str, float | None]:
    """Score one candidate caption against one reference caption a photo, over a whole set.

    CIDEr takes its document frequencies from `references`: a value on a part of a test set cannot be
    compared with one on the whole, and on a set of one caption it is 0.

    Args:
        references: The raw reference captions.
        candidates: The generated captions, in the same order; an empty one is scored like any other.
        meteor: True asks for METEOR, False leaves it out, None computes it where Java can run it.

    Returns:
        ``bleu1`` ... ``bleu4`` (of the corpus), ``rouge`` and ``cider`` (means over captions) and
        ``meteor`` (METEOR 1.5's system-level score); ``meteor`` is None where it was left out.

    Raises:
        UserError: no captions, lists of different lengths, references without a single word, or
            ``meteor=True`` where Java is missing or fails.
    """
    references, candidates = _words_only(references, candidates)
    bleu = BleuScorer(n=4)
    for reference, candidate in zip(references, candidates, strict=True):
        bleu += (candidate, [reference])
    bleus, _ = bleu.compute_score(option="closest")
    each = _each(references, candidates)
    return {
        **{f"bleu{n}": float(value) for n, value in enumerate(bleus, start=1)},
        "rouge": sum(scores["rouge"] for scores in each) / len(each),
        "cider": sum(scores["cider"] for scores in each) / len(each),
        "meteor": _meteor_or_none(references, candidates, meteor),
    }


def score_each(references: Sequence[str], candidates: Sequence[str]) -> list[dict[str, float]]:
    """``{"rouge": ..., "cider": ...}`` of each caption; their means are `score_captions`' values.

    Arguments and errors are those of `score_captions`.
    """
    return _each(*_words_only(references, candidates))


def find_java() -> str | None:
    """Path of the ``java`` that would run METEOR; None where the PATH has none."""
    return shutil.which("java")


def _words_only(references: Sequence[str], candidates: Sequence[str]) -> tuple[list[str], list[str]]:
    if len(references) != len(candidates):
        raise UserError(
            f"{len(references)} reference captions but {len(candidates)} candidate captions: "
            "one candidate is expected for each reference, in the same order"
        )
    plain = [PUNCTUATION.sub("", reference) for reference in references]
    if not any(text.strip() for text in plain):
        raise UserError(
            f"none of the {len(references)} reference captions holds a word, so nothing can be scored; "
            "check that the split is not empty and that its captions were read"
        )
    return plain, [PUNCTUATION.sub("", candidate) for candidate in candidates]


def _each(references: list[str], candidates: list[str]) -> list[dict[str, float]]:
    rouge, cider = Rouge(), CiderScorer(n=4, sigma=6.0)
    rouges = []
    for reference, candidate in zip(references, candidates, strict=True):
        rouges.append(rouge.calc_score([candidate], [reference]))
        cider += (candidate, [reference])
    _, ciders = cider.compute_score()
    return [{"rouge": float(r), "cider": float(c)} for r, c in zip(rouges, ciders, strict=True)]


def score_meteor(references: Sequence[str], candidates: Sequence[str]) -> float | None:
    """METEOR 1.5's score of the whole set; None, with a warning, where Java is missing or fails.

    Raises:
        UserError: as `score_captions`.
    """
    return _meteor_or_none(*_words_only(references, candidates), None)


def _meteor_or_none(references: list[str], candidates: list[str], wanted: bool | None) -> float | None:
    if wanted is False:
        return None
    java = find_java()
    if java is None and wanted:
        raise UserError(f"{NO_JAVA}; install a Java runtime (8 or later), or leave METEOR out")
    if java is None:
        log.warning("%s: it is left out", NO_JAVA)
        return None
    try:
        return meteor_score(java, references, candidates)
    except UserError as error:
        if wanted:
            raise
        log.warning("%s: it is left out", error)
        return None
