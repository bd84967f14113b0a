"""Running one rung, or finding that it is finished already."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer

from ealign_plugin.errors import UserError
from ealign_plugin.ladder.results import METRICS, Result, fingerprint, finished_result, keep_result
from ealign_plugin.ladder.rungs import Rung
from ealign_plugin.training.signals import STOPPING

Run = Callable[[Sequence[str]], int]
"""Runs a command and returns its exit code."""


def result_of(
    rung: Rung, folder: Path, out: Path, results: Mapping[str, Result], run: Run, heading: str
) -> Result:
    """What the rung left, run first where it is not finished.

    Args:
        rung: The rung.
        folder: Of the rung.
        out: Folder of all of them.
        results: Of the rungs whose weights it needs, by name.
        run: Runs a command.
        heading: Is printed.

    Raises:
        UserError: its process failed, or left no figures.
    """
    version = fingerprint(rung, out, results)
    result = finished_result(folder, version)
    typer.echo(f"\n{heading}" + (f" (finished already: {result.run})" if result else ""))
    return result or _run_rung(rung, folder, results, run, version)


def _run_rung(rung: Rung, folder: Path, results: Mapping[str, Result], run: Run, version: str) -> Result:
    finished = {path for path in run_folders(folder) if (path / METRICS).is_file()}  # others may resume
    code = run(command(rung, folder, results))
    made = [path for path in run_folders(folder) if path not in finished]
    if code or not made or not (made[-1] / METRICS).is_file():
        log = f"its log is {made[-1] / 'console.log'}" if made else "what it printed is above"
        raise UserError(
            f"rung {rung.name} ({rung.path}): ended with exit code {code}"
            f"{'' if code else ' and left no metrics.json'}; {log}; once that is mended, the same command "
            "goes on with this rung"
        )
    return keep_result(rung, folder, made[-1], version)


def command(rung: Rung, folder: Path, results: Mapping[str, Result]) -> list[str]:
    """The process of a rung.

    A checkpoint holds what was trained. So a rung that evaluates one also loads what that training began
    with.
    """
    from ealign_plugin.training.checkpoints.store import find_weights

    module, checkpoint = "lavis.train", []
    if rung.only_evaluates:
        module = "lavis.evaluate"
        checkpoint = ["--checkpoint", str(find_weights(results[rung.start].run))]
    values = [*rung.options, f"run.output_dir={quoted(folder)}", "run.resume=auto"]
    if rung.begin:
        weights = find_weights(results[rung.begin].run)
        values += ["model.load_finetuned=true", f"model.finetuned={quoted(weights)}"]
    return [sys.executable, "-m", module, "--cfg-path", str(rung.path), *checkpoint, "--options", *values]


def quoted(path: Path) -> str:
    """A path as a value of --options, which are read as YAML."""
    return json.dumps(str(path), ensure_ascii=False)


def run_process(command: Sequence[str]) -> int:
    """Run a command on this console and return its exit code; it gets the signals that ask us to stop."""
    sys.stdout.flush()
    with subprocess.Popen(command) as process:
        before = {
            number: signal.signal(number, lambda number, _: process.send_signal(number))
            for number in STOPPING
        }
        try:
            return process.wait()
        except BaseException:  # Ctrl-C, which it got too
            process.kill()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_folders(folder: Path) -> list[Path]:
    """The run folders <task>/<date>_<time> of a rung, the newest last."""
    folders = [path for path in folder.glob("*/*") if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=lambda path: (path.stat().st_mtime_ns, path.name))
