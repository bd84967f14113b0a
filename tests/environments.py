"""Environments with ealign-plugin installed as users install it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "output", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
)


def site_packages(python: Path) -> Path:
    return next(python.parents[1].glob("lib/python*/site-packages"))


def pip(python: Path, *args: str) -> str:
    """This environment's pip working on another one."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *args]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def bare_venv(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """``bare_venv(packages)`` -> python of a venv that also sees that folder's packages, not their hooks."""

    def make(packages: Path) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        python = folder / "bin" / "python"
        (site_packages(python) / "parent.pth").write_text(f"{packages}\n")
        return python

    return make


@pytest.fixture(scope="session")
def parent_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


@pytest.fixture(scope="session")
def install(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], None]:
    """``install(python, mode)`` from a copy of this checkout, as 'regular' or 'editable'."""
    numbers = count()

    def run(python: Path, mode: str) -> None:
        copy = tmp_path_factory.mktemp("checkout") / f"copy{next(numbers)}"
        shutil.copytree(root, copy, ignore=LEFT_OUT)
        source = ["-e", str(copy)] if mode == "editable" else [str(copy)]
        pip(python, "install", "--no-deps", "--no-build-isolation", "--no-index", *source)

    return run


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``pip wheel`` makes of a copy of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(root, folder / "copy", ignore=LEFT_OUT)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    pip(Path(sys.executable), "wheel", *options, str(folder / "copy"))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(
    bare_venv: Callable[[Path], Path], install: Callable[[Path, str], None], parent_packages: Path
) -> Callable[[str], Path]:
    """``installed("regular")`` or ``installed("editable")`` -> its python; made once a session."""
    made: dict[str, Path] = {}

    def get(mode: str) -> Path:
        if mode not in made:
            made[mode] = bare_venv(parent_packages)
            install(made[mode], mode)
        return made[mode]

    return get
