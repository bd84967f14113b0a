"""All metadata is in setup.cfg. This file adds the start-up hook, whose folder only the interpreter knows."""

import os
import sys
import sysconfig

from setuptools import Distribution, setup

HOOK = "ealign_plugin/host/startup/ealign_startup"


class HookDistribution(Distribution):
    """An editable install skips data_files unless the distribution answers `has_data`."""

    has_data = Distribution.has_data_files


site_packages = os.path.relpath(sysconfig.get_path("purelib"), sysconfig.get_path("data"))

setup(
    distclass=HookDistribution,
    data_files=[(site_packages, [f"{HOOK}.pth", f"{HOOK}.py"])],
    # The folder above names the Python version, so a wheel must not be reused for another one.
    options={"bdist_wheel": {"python_tag": f"py{sys.version_info.major}{sys.version_info.minor}"}},
)
