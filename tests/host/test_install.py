"""Both ways of installing serve `python -m lavis.train` from any folder, and leave nothing behind."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

MODES = ["regular", "editable"]
HOOK_FILES = {"ealign_startup.pth", "ealign_startup.py"}


def files_of_ours(python: Path) -> set[str]:
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    return {entry.name for entry in packages.iterdir() if "ealign" in entry.name}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("command", ["lavis.train", "lavis.evaluate"])
def test_help_from_another_folder(mode, command, installed, run_python):
    done = run_python("-m", command, "--help", python=installed(mode))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m {command} --cfg-path" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_torchrun_reaches_the_command(mode, installed, run_python):
    done = run_python("-m", "torch.distributed.run", "-m", "lavis.train", "--help", python=installed(mode))
    assert done.returncode == 0, done.stderr
    assert "python -m lavis.train --cfg-path" in done.stdout


@pytest.mark.parametrize("mode", MODES)
def test_an_unrelated_start_loads_only_the_hook(mode, installed, run_python):
    code = (
        "import sys; print([name for name in sys.modules if 'ealign' in name or name in ('torch', 'lavis')])"
    )
    assert run_python("-c", code, python=installed(mode)).stdout.strip() == "['ealign_startup']"


@pytest.mark.parametrize("mode", MODES)
def test_the_entry_point_is_declared(mode, installed, run_python):
    code = "from importlib.metadata import entry_points; print(*entry_points(group='lavis.plugins'))"
    assert "value='ealign_plugin'" in run_python("-c", code, python=installed(mode)).stdout


def test_a_regular_install_brings_configs_and_types(installed):
    packages = next(installed("regular").parents[1].glob("lib/python*/site-packages"))
    assert (packages / "ealign_plugin" / "py.typed").is_file()
    assert list((packages / "ealign_plugin" / "configs").rglob("*.yaml"))


def test_a_wheel_holds_every_file_of_the_package(wheel, root):
    """Code, configs, tokenizers, page template, font, start-up hook: all that the package has."""
    package = root / "ealign_plugin"
    files = {
        str(path.relative_to(root))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {Path(name).suffix for name in files} >= {".py", ".yaml", ".json", ".html", ".pth", ".typed"}
    assert files - names == set()
    assert {Path(name).name for name in names} >= HOOK_FILES


def test_the_metadata_names_the_system_and_the_entry_points(wheel):
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        (points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        fields, entry_points = archive.read(metadata).decode(), archive.read(points).decode()
    assert "Classifier: Operating System :: POSIX :: Linux" in fields and "OS Independent" not in fields
    assert "ealign = ealign_plugin.cli.app:main" in entry_points
    assert "[lavis.plugins]\nealign = ealign_plugin" in entry_points


@pytest.mark.parametrize("mode", MODES)
def test_uninstall_leaves_nothing(mode, bare_venv, install, parent_packages):
    python = bare_venv(parent_packages)
    install(python, mode)
    assert files_of_ours(python) >= HOOK_FILES
    command = [sys.executable, "-m", "pip", "--python", str(python), "uninstall", "--yes", "ealign-plugin"]
    subprocess.run(command, check=True, capture_output=True)
    assert files_of_ours(python) == set()


def without(packages: Path, folder: Path, *prefixes: str) -> Path:
    """A folder of links to all that is in ``packages`` but names with these prefixes."""
    folder.mkdir()
    for entry in packages.iterdir():
        if not entry.name.lower().startswith(prefixes):
            (folder / entry.name).symlink_to(entry)
    return folder


def test_lavis_missing_is_one_line(bare_venv, install, parent_packages, tmp_path, run_python):
    python = bare_venv(
        without(parent_packages, tmp_path / "packages", "lavis", "salesforce", "ealign", "__editable")
    )
    install(python, "regular")
    done = run_python("-m", "lavis.train", "--cfg-path", "any.yaml", python=python)
    assert done.returncode == 2
    assert done.stderr.startswith("error: LAVIS: not installed") and done.stderr.count("\n") == 1
    assert "pip install --no-deps salesforce-lavis==1.0.2" in done.stderr
    assert run_python("-c", "import ealign_plugin", python=python).returncode == 0


def test_a_transformers_that_cannot_serve_is_one_line(
    bare_venv, install, parent_packages, tmp_path, run_python
):
    packages = without(parent_packages, tmp_path / "packages", "transformers", "ealign", "__editable")
    metadata = packages / "transformers-4.26.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.26.1\n")
    python = bare_venv(packages)
    install(python, "regular")
    done = run_python("-m", "lavis.train", "--cfg-path", "any.yaml", python=python)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: transformers: 4.26.1, expected 4.31") and done.stderr.count("\n") == 1
    )
