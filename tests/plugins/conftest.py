"""The packages of docs/how-to, installed as a user installs them, into a folder of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))

# The tests of a package run beside the installed package, in an interpreter of their own: what they register
# would be seen by all other tests here.
collect_ignore_glob = ["*/test_*.py"]


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which all packages are installed; on PYTHONPATH, their entry points are found."""
    sources = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:  # a copy: building leaves files beside the source
        shutil.copytree(FOLDER / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [*pip, *how, *(str(sources / name) for name in PACKAGES)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target
