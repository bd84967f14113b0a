"""Each package of docs/how-to is installed, passes its own tests and is used in a run."""

from __future__ import annotations

import os

import pytest

from tests.plugins.conftest import FOLDER, PACKAGES

pytestmark = pytest.mark.process


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tests_of_a_package_pass_beside_the_installed_one(package, plugins, run_python, root):
    tests = FOLDER / package / f"test_{package}.py"
    copy = plugins.parent / tests.name  # beside its source the module would be found there
    copy.write_text(tests.read_text(encoding="utf-8"), encoding="utf-8")
    path = os.pathsep.join([str(plugins), str(root)])
    done = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(copy), env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
