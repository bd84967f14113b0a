"""Where parts become shards: in this process, in processes of this machine, or on a Ray cluster.

An engine is a function ``engine(job, parts, processes, ticked) -> Iterator[Result]``. It takes parts lazily,
gives their results in any order, and calls ``ticked`` with the number of samples done since the last call.
``processes`` 0 means one per core, of the machine or of the cluster. A `ShardMaker` in each process does the
work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any

from ealign_plugin.data.prepare.annotate import Job, Result, ShardMaker
from ealign_plugin.data.prepare.plan import Part
from ealign_plugin.errors import UserError

Ticked = Callable[[int], None]


def local(
    job: Job, parts: Iterable[Part], processes: int, ticked: Ticked, maker: type[ShardMaker] = ShardMaker
) -> Iterator[Result]:
    """Processes of this machine; with one process, this one."""
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        yield from map(maker(job, lambda: ticked(1)), parts)
        return
    # Not forked: the parent may hold threads, and what they lock.
    context = multiprocessing.get_context("spawn")
    done = context.Value("Q", 0)
    seen = 0
    source = iter(parts)
    with ProcessPoolExecutor(
        processes, context, initializer=start_worker, initargs=(maker, job, done)
    ) as pool:
        try:
            running: set[Future[Result]] = set()
            while True:
                # A part holds its texts in memory: no more of them than keep all processes busy.
                running |= {pool.submit(_make, part) for part in islice(source, 2 * processes - len(running))}
                if not running:
                    break
                finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                if done.value > seen:
                    ticked(done.value - seen)
                    seen = done.value
                yield from (future.result() for future in finished)
        except BrokenProcessPool:
            raise UserError(
                "a process was killed, probably because memory ran out; lower --processes or "
                "--samples-per-shard and run the same command again, it goes on after the last whole shard"
            ) from None
        except BaseException:  # whatever it is, nobody waits for minutes of work that nobody wants
            for child in multiprocessing.active_children():
                child.kill()
            raise


_maker: Any = None


def start_worker(maker: type[ShardMaker], job: Job, done: Any) -> None:
    """Make a process ready to work."""
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def tick() -> None:
        with done.get_lock():
            done.value += 1

    _maker = maker(job, tick)


def _end_with_the_parent() -> None:
    """A parent that was killed tells nobody: its children would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _make(part: Part) -> Result:
    return _maker(part)


def on_ray(job: Job, parts: Iterable[Part], processes: int, ticked: Ticked) -> Iterator[Result]:
    """Actors of Ray Data, ``processes`` of them, on the cluster that RAY_ADDRESS names, one that runs on this
    machine, or else a new local one. All nodes must reach the source's photos and the output folder.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; pip install 'ealign-plugin[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="warning")
    processes = processes or int(ray.cluster_resources().get("CPU", 1))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    source = iter(parts)
    # The texts of a whole data set do not fit into the driver: window by window.
    while window := list(islice(source, 16 * processes)):
        rows = ray.data.from_items([{"part": part} for part in window], override_num_blocks=len(window))
        made = rows.map(_RayMaker, fn_constructor_args=(job,), concurrency=min(processes, len(window)))
        sizes = {part.name: len(part.items) for part in window}
        for row in made.iter_rows():
            ticked(sizes[row["result"].name])
            yield row["result"]


class _RayMaker:
    """A `ShardMaker` as Ray Data wants it: row in, row out."""

    def __init__(self, job: Job) -> None:
        self.maker = ShardMaker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": self.maker(row["part"])}


ENGINES: dict[str, Callable[[Job, Iterable[Part], int, Ticked], Iterator[Result]]] = {
    "local": local,
    "ray": on_ray,
}
