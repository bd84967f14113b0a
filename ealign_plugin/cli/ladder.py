"""``ealign ladder``: the rungs of an ablation, one after another, and one table of all of them.

A folder of YAMLs, a rung each, in the order of their numbers::

    base.yaml             what they share; no number, no rung
    02_base.yaml          base: base.yaml
                          ladder: {label: Base, start: pretrained, published: {cider: 82.70}}
    06_eama.yaml          ladder: {label: EAMA, start: sent_ent_cap}
                          run: {evaluate: true, contexts: [supplemented]}

A rung is trained from the weights of its ``start``, or, with ``run.evaluate``, evaluates them. It leaves
``<out>/<rung>/done.json`` at its end, and is not run again while that fits its YAML and its start.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from omegaconf import OmegaConf

from ealign_plugin.cli.export import loaded
from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import dotlist, read_config, unknown

FIGURES = (
    "people_right",
    "entity_precision",
    "entity_recall",
    "entity_f1",
    "bleu4",
    "meteor",
    "rouge",
    "cider",
)
PUBLISHED = ("bleu4", "meteor", "rouge", "cider", "entity_precision", "entity_recall")
PUBLISHED_CIDER = "published CIDEr (NYTimes800k)"
SOURCE = "EAMA v5 (arXiv 2402.19404), NYTimes800k"
DONE, METRICS = "done.json", "metrics.json"


@dataclass(frozen=True, slots=True)
class Rung:
    """One YAML of a ladder.

    Args:
        name: The file's without number and ending.
        path: The file.
        label: Its row in the table.
        start: The rung whose weights it begins with or evaluates; empty: those of the model's config.
        published: Figures of the paper, times 100, as printed there.
        config: The whole config, checked, with all defaults.
    """

    name: str
    path: Path
    label: str
    start: str
    published: Mapping[str, float]
    config: Mapping[str, Any]

    @property
    def only_evaluates(self) -> bool:
        return bool(self.config["run"]["evaluate"])

    @property
    def context(self) -> str:
        """'head, 80 words': what the captions of the test are written from."""
        strategy = self.config["run"]["contexts"][0]
        return (
            strategy
            if strategy in ("none", "full")
            else f"{strategy}, {self.config['run']['context_words']} words"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished rung left: its run's folder and its figures, fractions."""

    run: Path
    figures: Mapping[str, Any]


def ladder(
    folder: Annotated[Path, typer.Argument(help="Folder of the rungs' YAMLs.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; left out: output/ladder/<FOLDER>.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="RUNG", help="Run this rung, and those whose weights it needs; repeatable."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Values that replace those of every rung, by dotted key."),
    ] = None,
    more_options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
) -> None:
    """Run every rung of an ablation ladder and print one table.

    A finished rung is not run again, so an interrupted ladder goes on by the same command; a changed YAML
    is run anew, and so are the rungs that start from its weights.

    \b
    Examples:
      ealign ladder projects/ealign/ladder/micro
      ealign ladder projects/ealign/ladder/micro --only base --only eama
      ealign ladder projects/ealign/ladder/micro --out output/seed7 --options run.seed=7
    """
    changes = dotlist([*(options or []), *(more_options or [])])  # --options a=1 b=2, as lavis.train has it
    rungs = read_rungs(folder, changes)
    out = (out or Path("output", "ladder", folder.resolve().name)).absolute()
    climb(rungs, chosen(rungs, only or []), out, changes, run_process)


# The rungs


def read_rungs(folder: Path, options: Sequence[str]) -> list[Rung]:
    """All rungs in order, each checked: a mistake in the last one is told before the first is run.

    Raises:
        UserError: no folder of rungs, or something in one of them is wrong.
    """
    files = []
    for path in folder.glob("*.yaml"):
        if parts := re.fullmatch(r"(\d+)_(.+)", path.stem):
            files.append((int(parts[1]), parts[2], path))
    if not files:
        raise UserError(
            f"{folder}: no rungs found, expected a folder of YAMLs named by number and name, e.g. "
            "02_base.yaml; give projects/ealign/ladder/micro or a folder of your own"
        )
    rungs: list[Rung] = []
    for _, _, path in sorted(files):
        read_config(path, options)  # a bad file is told before the imports of `loaded` take their seconds
    for _, name, path in sorted(files):
        rungs.append(read_rung(name, path, options, rungs))
    return rungs


def read_rung(name: str, path: Path, options: Sequence[str], earlier: Sequence[Rung]) -> Rung:
    """One rung.

    Raises:
        UserError: its section ``ladder`` is wrong, or its test has not one context.
    """
    given = read_config(path, options).get("ladder")
    section = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    if not isinstance(section, dict) or not isinstance(section.get("label"), str):
        raise UserError(
            f"{path}: ladder: found {section!r}, expected {{label: TEXT, start: RUNG, published: {{}}}}"
        )
    for key in section:
        if key not in ("label", "start", "published"):
            raise UserError(f"{path}: {unknown(f'ladder.{key}', key, ('label', 'start', 'published'))}")
    published = section.get("published") or {}
    if not isinstance(published, dict):
        raise UserError(f"{path}: ladder.published: found {published!r}, expected a mapping of figures")
    for key, value in published.items():
        if key not in PUBLISHED or isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"{path}: ladder.published.{key}: found {value!r}, expected numbers under "
                f"{', '.join(PUBLISHED)}"
            )
    start = section.get("start") or ""
    before = {rung.name: rung for rung in earlier}
    if name in before:
        raise UserError(f"{path}: a second rung {name!r} beside {before[name].path}; rename one of them")
    if start and start not in before:
        raise UserError(f"{path}: {unknown('ladder.start', start, before, 'earlier rung')}")
    if start and before[start].only_evaluates:
        raise UserError(
            f"{path}: ladder.start: {start!r} only evaluates and has no weights of its own; name the rung "
            f"that it evaluates, {before[start].start!r}"
        )
    config = OmegaConf.to_container(loaded(path, options).config, resolve=True)
    contexts = config["run"].get("contexts")
    if not isinstance(contexts, list) or len(contexts) != 1:
        raise UserError(f"{path}: run.contexts: found {contexts!r}, one context expected: a rung is one row")
    rung = Rung(name, path, section["label"], start, published, config)
    if rung.only_evaluates and not start:
        raise UserError(f"{path}: ladder.start: missing, the rung whose weights are evaluated was expected")
    return rung


def chosen(rungs: Sequence[Rung], only: Sequence[str]) -> list[Rung]:
    """The rungs that are named and those that they start from; all where none is named.

    Raises:
        UserError: a name that no rung has.
    """
    if not only:
        return list(rungs)
    by_name = {rung.name: rung for rung in rungs}
    wanted, names = set(), list(only)
    while names:
        name = names.pop()
        if name not in by_name:
            raise UserError(unknown("--only", name, by_name, "rung"))
        wanted.add(name)
        if start := by_name[name].start:
            names.append(start)
    return [rung for rung in rungs if rung.name in wanted]


# Running them


def climb(
    rungs: Sequence[Rung],
    wanted: Sequence[Rung],
    out: Path,
    options: Sequence[str],
    run: Callable[[Sequence[str]], int],
) -> None:
    """Run the wanted rungs that are not finished, then print and write the table of all.

    Args:
        rungs: All, in order.
        wanted: Those to run, with their starts.
        out: Absolute path of a folder; each rung gets one in it.
        options: ``a.b=c`` each.
        run: Runs a command and returns its exit code.

    Raises:
        UserError: a rung failed; those after it are not run.
    """
    results: dict[str, Result] = {}
    names = [rung.name for rung in wanted]
    for rung in rungs:
        if rung.start and rung.start not in results:
            continue
        print_of = fingerprint(rung, out, results)
        found = finished(out / rung.name, print_of)
        if rung.name in names:
            heading = f"{names.index(rung.name) + 1} of {len(names)}: {rung.name} — {rung.label}"
            typer.echo(f"\n{heading}" + (f" (finished already: {found.run})" if found else ""))
            found = found or run_rung(rung, rungs, results, out, options, run, print_of)
        if found:
            results[rung.name] = found
    write_table(rungs, results, out)


def fingerprint(rung: Rung, out: Path, results: Mapping[str, Result]) -> str:
    """Changes with whatever the figures depend on: the config, and the runs that the weights come from."""
    run = {key: value for key, value in rung.config["run"].items() if key != "output_dir"}
    start = str(results[rung.start].run.relative_to(out)) if rung.start else ""
    text = json.dumps([{**rung.config, "run": run}, start], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def finished(folder: Path, fingerprint: str) -> Result | None:
    """What the rung left there, if it ended with this fingerprint and its run is still there."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        run = folder / done["run"]
        if done["fingerprint"] == fingerprint and (run / METRICS).is_file():
            return Result(run, done["figures"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def run_rung(
    rung: Rung,
    rungs: Sequence[Rung],
    results: Mapping[str, Result],
    out: Path,
    options: Sequence[str],
    run: Callable[[Sequence[str]], int],
    fingerprint: str,
) -> Result:
    from ealign_plugin.shards.write import write_whole

    folder = out / rung.name
    before = {path for path in run_folders(folder) if (path / METRICS).is_file()}  # others go on
    code = run(command(rung, rungs, results, folder, options))
    made = [path for path in run_folders(folder) if path not in before]
    if code or not made or not (made[-1] / METRICS).is_file():
        log = f"its log is {made[-1] / 'console.log'}" if made else "what it printed stands above"
        raise UserError(
            f"rung {rung.name} ({rung.path}): ended with exit code {code}"
            f"{'' if code else ' and left no metrics.json'}; {log}; once that is mended, the same command "
            "goes on with this rung"
        )
    result = Result(made[-1], figures_of(made[-1] / METRICS, rung))
    done = {
        "fingerprint": fingerprint,
        "run": str(made[-1].relative_to(folder)),
        "figures": result.figures,
    }
    write_whole(folder / DONE, as_json(done))
    return result


def command(
    rung: Rung, rungs: Sequence[Rung], results: Mapping[str, Result], folder: Path, options: Sequence[str]
) -> list[str]:
    """The process of a rung.

    A checkpoint holds what was trained. So a rung that evaluates one also loads what that training began
    with.
    """
    from ealign_plugin.checkpoints import weights_of  # imports torch

    starts = {one.name: one.start for one in rungs}
    module, checkpoint, begin = "lavis.train", [], rung.start
    if rung.only_evaluates:
        module, begin = "lavis.evaluate", starts[rung.start]
        checkpoint = ["--checkpoint", str(weights_of(results[rung.start].run))]
    values = [*options, f"run.output_dir={quoted(folder)}", "run.resume=auto"]
    if begin:
        values += ["model.load_finetuned=true", f"model.finetuned={quoted(weights_of(results[begin].run))}"]
    return [sys.executable, "-m", module, "--cfg-path", str(rung.path), *checkpoint, "--options", *values]


def quoted(path: Path) -> str:
    """A path as a value of --options, which are read as YAML."""
    return json.dumps(str(path), ensure_ascii=False)


def run_process(command: Sequence[str]) -> int:
    """Run a command on this console and return its exit code."""
    sys.stdout.flush()
    return subprocess.run(command).returncode


def run_folders(folder: Path) -> list[Path]:
    """The run folders <task>/<date>_<time> of a rung, the newest last."""
    found = [path for path in folder.glob("*/*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


# The table


def figures_of(metrics: Path, rung: Rung) -> dict[str, Any]:
    """The figures of a run's test, fractions; `sentence_auc` is None where no sentence was judged.

    Raises:
        UserError: the file holds none of the rung's context.
    """
    context = rung.config["run"]["contexts"][0]
    try:
        test = json.loads(metrics.read_text(encoding="utf-8"))["test"]
        row = test["contexts"][context]
        figures = {key: row.get(key) for key in FIGURES}
        return figures | {"sentence_auc": (test.get("selection") or {}).get("sentence_auc")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{metrics}: no figures of the context {context!r} found, expected test.contexts.{context}; set "
            "run.test_splits, and run.task to ealign_news_captioning"
        ) from None


def table_of(rungs: Sequence[Rung], results: Mapping[str, Result]) -> str:
    """One row a rung, in order; dashes where it was not run."""
    from ealign_plugin.evaluation import format_table

    rows = []
    for rung in rungs:
        row: dict[str, Any] = {"rung": rung.label, "context": rung.context}
        if rung.name in results:
            figures = results[rung.name].figures
            row |= {key: figures.get(key) for key in FIGURES}
            row["sentence AUC"] = figures.get("sentence_auc")
        if "cider" in rung.published:
            row[PUBLISHED_CIDER] = rung.published["cider"] / 100
        rows.append(row)
    columns = ["rung", "context", *FIGURES, "sentence AUC", PUBLISHED_CIDER]
    return format_table(rows, columns, decimals=2)


def write_table(rungs: Sequence[Rung], results: Mapping[str, Result], out: Path) -> None:
    """Print the table, and write ladder.txt and ladder.json."""
    from ealign_plugin.shards.write import write_whole

    text = (
        f"{table_of(rungs, results)}\n\nAll ×100. Published: {SOURCE}, cited; figures of another data set or "
        "model are not comparable with it.\n"
    )
    record = {
        "published": SOURCE,
        "rungs": [
            {
                "rung": rung.name,
                "label": rung.label,
                "context": rung.context,
                "run": str(results[rung.name].run.relative_to(out)) if rung.name in results else None,
                "figures": results[rung.name].figures if rung.name in results else None,
                "published": {key: value / 100 for key, value in rung.published.items()},
            }
            for rung in rungs
        ],
    }
    write_whole(out / "ladder.json", as_json(record))
    write_whole(out / "ladder.txt", text.encode())
    typer.echo(f"\n{text}\nThe table is in {out / 'ladder.txt'}")


def as_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
