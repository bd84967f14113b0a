"""A model's own selections as a file, from which a training draws what its test will read.

`ealign select` writes one, and so does a training that refreshes them (``run.own_selections``)::

    {"format": 1, "weights": "run/checkpoints/iter_001600", "photos": 2}
    {"key": "a1_0", "of": 12, "sentences": [2, 4], "scores": [0.91, 0.77], "names": ["Ana Ruiz"]}
    {"key": "a1_1", "of": 12, "sentences": [], "scores": [], "names": []}

``of`` is the number of sentences of the article, so that a file of other data is noticed. A recipe names the
file (``recipe.selections``) and the share of the selections that come from it (``recipe.own_share``). Photos
that it does not hold get a selection from the labels, as all others do (`noisy_oracle`). `cat` joins files.

Selections of articles that the model was trained on are better than those of a test. To cross-fit, train a
model on each half of the articles (``datasets.<name>.half``), and let each select for the other half.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_path
from ealign_plugin.news import NewsSample

FORMAT = 1
ADVICE = "write it again by `ealign select`"


@dataclass(frozen=True, slots=True)
class OwnSelections:
    """What a model selected, by photo.

    Args:
        where: The file, for messages.
        found: Key of the photo's sample → number of sentences of its article, and the selection.
        sha256: Of the file.
    """

    where: str
    found: Mapping[str, tuple[int, Selection]]
    sha256: str

    def of(self, sample: NewsSample) -> Selection | None:
        """The selection for this photo; None where the file holds none.

        Raises:
            UserError: it was made from an article with another number of sentences.
        """
        if sample.key not in self.found:
            return None
        sentences, selection = self.found[sample.key]
        if sentences != len(sample.sentences):
            raise UserError(
                f"{self.where}: {sample.key}: an article of {sentences} sentences found, "
                f"{len(sample.sentences)} expected; {ADVICE} from the shards of this training"
            )
        return selection


def write_selections(path: Path, weights: str, selections: Iterable[tuple[NewsSample, Selection]]) -> None:
    """Write the file whole or not at all.

    Args:
        path: Of the file.
        weights: What selected, for whoever reads the file.
        selections: Of each photo, with their scores.

    Raises:
        UserError: it cannot be written.
    """
    lines = [
        {
            "key": sample.key,
            "of": len(sample.sentences),
            "sentences": list(selection.sentences),
            "scores": [round(score, 6) for score in selection.scores or ()],
            "names": list(selection.entities),
        }
        for sample, selection in selections
    ]
    head = {"format": FORMAT, "weights": weights, "photos": len(lines)}
    with atomic_path(path) as part:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [head, *lines])
        part.write_text(text, encoding="utf-8")


def read_selections(path: str | Path) -> OwnSelections:
    """Read what `write_selections` wrote; a file that did not change since is not read again.

    Raises:
        UserError: no such file, or it is none of this kind.
    """
    path = Path(path).expanduser()
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}); {ADVICE}") from None
    return _read(path, changed)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> OwnSelections:
    try:
        content = path.read_bytes()
        lines = [json.loads(line) for line in content.splitlines()]
        formats = [line["format"] for line in lines if "format" in line]
        if set(formats) != {FORMAT}:
            raise UserError(f"{path}: format {formats} found, {FORMAT} expected; {ADVICE}")
        found = {
            str(line["key"]): (int(line["of"]), _selection(line)) for line in lines if "format" not in line
        }
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}); {ADVICE}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: a file of selections was expected ({error!r}); {ADVICE}") from None
    return OwnSelections(str(path), found, hashlib.sha256(content).hexdigest())


def _selection(line: Mapping[str, Any]) -> Selection:
    sentences = tuple(map(int, line["sentences"]))
    if not all(0 <= index < line["of"] for index in sentences):
        raise ValueError(f"{line['key']}: sentences {list(sentences)} of {line['of']}")
    return Selection(sentences, tuple(map(str, line["names"])), tuple(map(float, line["scores"])))


def half_of(sample: NewsSample) -> int:
    """Which half of the articles a sample belongs to, 0 or 1, by the sha256 of the article's id.

    All photos of an article are in one half; a sample without an id is an article of its own.
    """
    return hashlib.sha256((sample.article_id or sample.key).encode()).digest()[0] % 2
