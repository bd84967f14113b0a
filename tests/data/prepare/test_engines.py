"""Processes that make shards: the same bytes for any number of them, and what happens where one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ealign_plugin.data.prepare import engines
from ealign_plugin.data.prepare.annotate import ShardMaker
from ealign_plugin.data.prepare.plan import plan
from ealign_plugin.data.readers import jsonl
from ealign_plugin.data.readers.source import Source
from ealign_plugin.errors import UserError
from tests.data.prepare.factories import files, job, run

# ----------------------------------------------------------------------------- the same whatever happens


def test_the_bytes_do_not_depend_on_the_number_of_processes(source, undisturbed, tmp_path):
    run(source, tmp_path / "out", processes=2)
    assert files(tmp_path / "out") == files(undisturbed)


def test_processes_end_with_a_parent_that_was_killed(source, tmp_path):
    code = f"""
import multiprocessing, os, sys
from ealign_plugin.data.prepare.engines import start_worker
from ealign_plugin.data.prepare.annotate import Job, ShardMaker
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    job = Job(source="jsonl", location="x", out={str(tmp_path)!r})
    state = (ShardMaker, job, context.Value("Q", 0))
    with ProcessPoolExecutor(1, context, initializer=start_worker, initargs=state) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), 9)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


# ---------------------------------------------------------------------------------------------- bad input


class Dies(ShardMaker):
    """Ends its process as the kernel does when memory runs out."""

    def __call__(self, part):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_one_clear_error(source, tmp_path):
    part = next(plan(jsonl.read(Source(str(source))), samples_per_shard=4))
    with pytest.raises(UserError, match="a process was killed, .* lower --processes"):
        list(engines.local(job(source, tmp_path / "out"), [part] * 4, 2, lambda _: None, Dies))
