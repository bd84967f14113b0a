"""Running the rungs that are not finished."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer

from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write, read_json
from ealign_plugin.ladder.rungs import DONE, METRICS, Result, Rung
from ealign_plugin.ladder.table import as_json, figures_of, write_table


def run_rungs(
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
        version = fingerprint(rung, out, results)
        result = finished_result(out / rung.name, version)
        if rung.name in names:
            heading = f"{names.index(rung.name) + 1} of {len(names)}: {rung.name} — {rung.label}"
            typer.echo(f"\n{heading}" + (f" (finished already: {result.run})" if result else ""))
            result = result or run_rung(rung, rungs, results, out, options, run, version)
        if result:
            results[rung.name] = result
    write_table(rungs, results, out)


def fingerprint(rung: Rung, out: Path, results: Mapping[str, Result]) -> str:
    """Changes with whatever the figures depend on: the config, and the runs that the weights come from."""
    run = {key: value for key, value in rung.config["run"].items() if key != "output_dir"}
    start = str(results[rung.start].run.relative_to(out)) if rung.start else ""
    text = json.dumps([{**rung.config, "run": run}, start], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def finished_result(folder: Path, version: str) -> Result | None:
    """What a rung left in its folder, if it ended with this fingerprint and its run is still there."""
    try:
        record = read_json(folder / DONE)
        run = folder / record["run"]
        if record["fingerprint"] == version and (run / METRICS).is_file():
            return Result(run, record["figures"])
    except (UserError, KeyError, TypeError):
        pass
    return None


def run_rung(
    rung: Rung,
    rungs: Sequence[Rung],
    results: Mapping[str, Result],
    out: Path,
    options: Sequence[str],
    run: Callable[[Sequence[str]], int],
    version: str,
) -> Result:
    """Run one rung and write down what it left.

    Args:
        rung: The rung.
        rungs: All, in order.
        results: Those that are finished, by name.
        out: Folder of the ladder.
        options: ``a.b=c`` each.
        run: Runs a command and returns its exit code.
        version: See `fingerprint`.

    Raises:
        UserError: its process failed, or left no figures.
    """
    folder = out / rung.name
    finished = {path for path in run_folders(folder) if (path / METRICS).is_file()}  # others may resume
    code = run(command(rung, rungs, results, folder, options))
    made = [path for path in run_folders(folder) if path not in finished]
    if code or not made or not (made[-1] / METRICS).is_file():
        log = f"its log is {made[-1] / 'console.log'}" if made else "what it printed is above"
        raise UserError(
            f"rung {rung.name} ({rung.path}): ended with exit code {code}"
            f"{'' if code else ' and left no metrics.json'}; {log}; once that is mended, the same command "
            "goes on with this rung"
        )
    result = Result(made[-1], figures_of(made[-1] / METRICS, rung))
    record = {
        "fingerprint": version,
        "run": str(made[-1].relative_to(folder)),
        "figures": result.figures,
    }
    atomic_write(folder / DONE, as_json(record))
    return result


def command(
    rung: Rung, rungs: Sequence[Rung], results: Mapping[str, Result], folder: Path, options: Sequence[str]
) -> list[str]:
    """The process of a rung.

    A checkpoint holds what was trained. So a rung that evaluates one also loads what that training began
    with.
    """
    from ealign_plugin.training.checkpoints.store import find_weights

    starts = {one.name: one.start for one in rungs}
    module, checkpoint, begin = "lavis.train", [], rung.start
    if rung.only_evaluates:
        module, begin = "lavis.evaluate", starts[rung.start]
        checkpoint = ["--checkpoint", str(find_weights(results[rung.start].run))]
    values = [*options, f"run.output_dir={quoted(folder)}", "run.resume=auto"]
    if begin:
        values += ["model.load_finetuned=true", f"model.finetuned={quoted(find_weights(results[begin].run))}"]
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
    folders = [path for path in folder.glob("*/*") if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=lambda path: (path.stat().st_mtime_ns, path.name))
