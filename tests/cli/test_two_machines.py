"""Two machines, a process on each, train the micro model together: torchrun's agents of two nodes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.interruption]

SMALL = [
    "datasets.ealign_micronews.world.articles.train=12",
    "datasets.ealign_micronews.world.articles.val=2",
    "datasets.ealign_micronews.world.articles.test=3",
    "datasets.ealign_micronews.world.articles.test_known=0",
    "run.max_iters=4",
    "run.iters_per_inner_epoch=2",
    "run.warmup_steps=2",
    "run.batch_size_train=16",
    "run.batch_size_eval=6",
    "run.log_freq=1",
    "run.num_workers=0",
    "run.max_len=8",
    "run.test_splits=[test]",
    "run.contexts=[head,refined,supplemented,oracle]",
    "run.usual_context=head",
    "run.controls=[other_photo]",
    "run.subsets=false",
]
ADDRESSES = ("10.213.54.1", "10.213.54.2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ip(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *args], capture_output=True, text=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces with an address each, joined by a cable; nothing else can be reached."""
    if not shutil.which("ip"):
        pytest.skip("network namespaces need the command ip")
    names = [f"ealign{os.getpid()}{side}" for side in "ab"]
    ends = [f"name cable netns {name}" for name in names]
    cable = f"link add {ends[0]} type veth peer {ends[1]}".split()
    try:
        for step in (["netns", "add", names[0]], ["netns", "add", names[1]], cable):
            if (done := ip(*step)).returncode:
                pytest.skip(f"no network namespaces here: ip {' '.join(step)}: {done.stderr.strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            for step in (
                ["addr", "add", f"{address}/24", "dev", "cable"],
                ["link", "set", "lo", "up"],
                ["link", "set", "cable", "up"],
            ):
                done = ip("-n", name, *step)
                assert done.returncode == 0, f"ip -n {name} {' '.join(step)}: {done.stderr}"
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def agent(python: Path, root: Path, node: int, address: str, port: int, output: Path) -> list[str]:
    """torchrun's command on one of the two machines."""
    nodes = ["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"]
    meet = ["--master-addr", address, "--master-port", str(port)]
    config = str(root / "projects" / "ealign" / "train.yaml")
    options = [*SMALL, f'run.output_dir="{output}"']
    launcher = [str(python), "-m", "torch.distributed.run", *nodes, *meet]
    return [*launcher, "-m", "lavis.train", "--cfg-path", config, "--options", *options]


def train_together(commands: list[list[str]], folder: Path, **env: str) -> Path:
    """Start each in a directory of its own; returns the run's folder."""
    homes = [folder / f"machine{number}" for number in range(len(commands))]
    logs = [home.with_suffix(".log") for home in homes]
    processes = []
    for command, home, log in zip(commands, homes, logs, strict=True):
        home.mkdir()
        with log.open("w") as file:
            # Without a PATH no Java is found: METEOR takes ten seconds for each context.
            own = {**os.environ, "PATH": "", **env}
            processes.append(subprocess.Popen(command, cwd=home, env=own, stdout=file, stderr=file))
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break  # one has failed, and the other may wait for it
            time.sleep(0.2)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    for process, home, log in zip(processes, homes, logs, strict=True):
        assert process.returncode == 0, log.read_text()[-3000:]
        assert not list(home.iterdir())  # all is where run.output_dir says
    (run,) = (folder / "shared" / "ealign_news_captioning").glob("2*")
    return run


def check(run: Path) -> None:
    """One run, each test photo captioned once, each machine at its own place of the data."""
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len({(record["key"], record["context"]) for record in records}) == len(records) == 12 * 5
    lines = [json.loads(line) for line in (run / "log.txt").read_text().splitlines()]
    assert [line["iters"] for line in lines if line["split"] == "step"] == [1, 2, 3, 4]
    state = json.loads((run / "checkpoints/last/state.json").read_text())
    streams = [rank["stream"] for rank in state["ranks"]]
    assert len(streams) == len(set(streams)) == 2


def test_two_agents_on_one_address(installed, root, tmp_path):
    port = free_port()
    commands = [
        agent(installed("editable"), root, node, "127.0.0.1", port, tmp_path / "shared") for node in (0, 1)
    ]
    check(train_together(commands, tmp_path))


def test_two_agents_in_networks_of_their_own(namespaces, installed, root, tmp_path):
    """Nothing but the cable joins them: whoever meets by the loopback or by a host's name fails here."""
    commands = [
        [
            *(str(shutil.which("ip")), "netns", "exec", name),
            *agent(installed("editable"), root, node, ADDRESSES[0], 29500, tmp_path / "shared"),
        ]
        for node, name in enumerate(namespaces)
    ]
    # Gloo takes the address that the machine's name leads to, which may be the loopback's.
    check(train_together(commands, tmp_path, GLOO_SOCKET_IFNAME="cable"))
