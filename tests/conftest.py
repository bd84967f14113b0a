"""Shared by all tests: few threads, no network, caches of their own."""

import os

# Before torch is imported. Tests run small tensors, on machines with two cores, several processes at a time.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

import ealign_plugin  # noqa: E402, F401  the start-up finder, in an environment without the hook

ROOT = Path(__file__).resolve().parents[1]

pytest_plugins = ["tests.environments", "tests.process_pair"]


# Fixtures that start an interpreter of their own, which imports torch, transformers and LAVIS: seconds each.
STARTS_A_PROCESS = {"run_python", "process_pair"}
# Files whose tests run whole commands, or several processes; their parts are tested in other files too.
RUNS_COMMANDS = {
    "cli/test_prepare_command.py",
    "data/prepare/test_annotate.py",
    "data/prepare/test_engines.py",
    "data/prepare/test_pipeline.py",
    "ladder/test_run.py",
    "ladder/test_seeds.py",
    "ladder/test_tuning.py",
    "training/checkpoints/test_two_processes.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark ``process`` whatever starts processes, by its fixtures or its file."""
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        if file in RUNS_COMMANDS or STARTS_A_PROCESS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EALIGN_CACHE for this session: nothing is read from or left in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EALIGN_CACHE"] = str(folder)
    return folder


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """``run_python("-c", code, env={...})``: a fresh interpreter in an empty folder, output as text."""

    def run(
        *args: str,
        python: str | Path = sys.executable,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(python), *args],
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
