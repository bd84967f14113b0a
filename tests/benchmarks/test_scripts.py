"""Each script of projects/benchmarks runs on tiny data and prints the ratios that it is run for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from math import isfinite
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "projects" / "benchmarks"
RATIOS = {
    "prepare": ("prepare_with_photos_vs_pipe", "prepare_vs_pipe", "prepare_vs_plain_spacy"),
    "runner": ("runner_overhead", "checkpoint_stall"),
    "startup": ("pass_with_hook_vs_without", "import_both_vs_lavis", "import_ealign_vs_lavis"),
    "stream": ("stream_vs_raw", "resume_vs_reading"),
    "train_step": ("packed_vs_groups", "packed_vs_lavis", "packed_vs_padded"),
    "two_pass": (
        "pass1_vs_hf_loop",
        "pass1_vs_hf_batched",
        "two_pass_vs_hf_loop",
        "two_pass_vs_hf_batched",
    ),
}


def ratios(output: str) -> dict[str, float]:
    """``RATIO <name> <value>`` lines → name → value."""
    return {name: float(value) for name, value in re.findall(r"^RATIO (\S+) (\S+)$", output, re.MULTILINE)}


def test_every_script_is_tried():
    assert set(RATIOS) == {script.stem for script in FOLDER.glob("[a-z]*.py")}


@pytest.mark.parametrize("script", RATIOS)
def test_the_small_mode_prints_the_ratios_of_the_script(script, run_python, root):
    done = run_python(str(FOLDER / f"{script}.py"), "--small", env={"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-3000:]
    found = ratios(done.stdout)
    assert tuple(found) == RATIOS[script]
    assert all(isfinite(value) and value > 0 for value in found.values())


def test_a_script_that_fails_fails_make_bench(root, tmp_path):
    shutil.copy(root / "Makefile", tmp_path)
    hook = "ealign_plugin/host/startup/ealign_startup"
    for name in ("requirements.lock", "setup.cfg", "setup.py", "pyproject.toml", f"{hook}.py", f"{hook}.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "environment").touch()  # newer than what it is made from
    scripts = tmp_path / "projects" / "benchmarks"
    scripts.mkdir(parents=True)
    (scripts / "_options.py").write_text("raise SystemExit('a module for the others is not run')")
    (scripts / "a.py").write_text("print('a ran')")
    (scripts / "b.py").write_text("raise SystemExit('b failed')")
    (scripts / "c.py").write_text("print('c ran')")
    command = ["make", "bench", "STAMP=environment", f"PY={sys.executable}"]
    # `make test-latest` hands its variables down: they are not those of this one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "a ran" in done.stdout and "c ran" not in done.stdout
    assert "b failed" in done.stderr
