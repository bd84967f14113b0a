"""What a finished rung leaves, and whether that still is what its YAML asks for.

::

    <out>/seed42/<rung>/<task>/<date>_<time>/   its run, with metrics.json and environment.json
    <out>/seed42/<rung>/done.json   {"fingerprint": …, "run": …, "revision": …, "config_sha256": …,
                                     "figures": {"cider": 3.48, …}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write, read_json
from ealign_plugin.host.environment import NAME as ENVIRONMENT
from ealign_plugin.ladder.rungs import FIGURES, Rung

DONE, METRICS = "done.json", "metrics.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished rung left.

    Args:
        run: Folder of its run.
        figures: Of its context; fractions.
        revision: Git revision of the code that ran, or name and version of the package outside of a checkout.
        config_sha256: See `config_sha256`.
    """

    run: Path
    figures: Mapping[str, Any]
    revision: str
    config_sha256: str


def config_sha256(rung: Rung) -> str:
    """SHA-256 of the resolved config, as JSON with sorted keys, without the folder of the runs."""
    run = {key: value for key, value in rung.config["run"].items() if key != "output_dir"}
    return _sha256({**rung.config, "run": run})


def fingerprint(rung: Rung, out: Path, results: Mapping[str, Result]) -> str:
    """Changes with whatever the figures depend on: the config, and the runs that the weights come from.

    Args:
        rung: The rung.
        out: Folder that the runs lie in.
        results: Of the rung that it starts from, by name.
    """
    start = str(results[rung.start].run.relative_to(out)) if rung.start else ""
    return _sha256([config_sha256(rung), start])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def finished_result(folder: Path, version: str) -> Result | None:
    """What a rung left in its folder, if it ended with this fingerprint and its run is still there."""
    try:
        record = read_json(folder / DONE)
        run = folder / record["run"]
        if record["fingerprint"] == version and (run / METRICS).is_file():
            return Result(run, record["figures"], record["revision"], record["config_sha256"])
    except (UserError, KeyError, TypeError):
        pass
    return None


def keep_result(rung: Rung, folder: Path, run: Path, version: str) -> Result:
    """Read what a run left, and write it down as the rung's.

    Args:
        rung: The rung.
        folder: Of the rung.
        run: Folder of its run, in that.
        version: See `fingerprint`.

    Raises:
        UserError: the run's files cannot be read, or hold no figures of the rung's context.
    """
    result = Result(run, figures_of(run / METRICS, rung), revision_of(run), config_sha256(rung))
    record = {
        "fingerprint": version,
        "run": str(run.relative_to(folder)),
        "revision": result.revision,
        "config_sha256": result.config_sha256,
        "figures": result.figures,
    }
    atomic_write(folder / DONE, (json.dumps(record, indent=1) + "\n").encode())
    return result


def figures_of(metrics: Path, rung: Rung) -> dict[str, Any]:
    """The figures of a run's test, fractions; `sentence_auc` is None where no sentence was judged.

    Raises:
        UserError: the file cannot be read, or holds none of the rung's context.
    """
    context = rung.config["run"]["contexts"][0]
    record = read_json(metrics, advice="run the rung again")
    try:
        test = record["test"]
        row = test["contexts"][context]
        figures = {key: row.get(key) for key in dict.fromkeys((*FIGURES, rung.figure))}
        return figures | {"sentence_auc": (test.get("selection") or {}).get("sentence_auc")}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{metrics}: no figures of the context {context!r} found, expected test.contexts.{context}; set "
            "run.test_splits, and run.task to ealign_news_captioning"
        ) from None


def revision_of(run: Path) -> str:
    """What ran: a git revision, or the package's version outside of a checkout.

    Raises:
        UserError: the run's environment.json cannot be read.
    """
    environment = read_json(run / ENVIRONMENT, advice="run the rung again")
    version = environment.get("packages", {}).get("ealign-plugin", "of unknown version")
    return environment.get("revision") or f"ealign-plugin {version}"
