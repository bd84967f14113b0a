"""What CHANGELOG.md says about where names are now."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec

import pytest

from tests.docs.documents import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MOVED = re.findall(r"^\| (`.+) \| (`.+) \|$", CHANGELOG, re.MULTILINE)
OLD = sorted({re.findall(r"`([\w.]+)`", old)[0] for old, _ in MOVED})
NEW = sorted({name for _, new in MOVED for name in re.findall(r"`([\w.]+)`", new)})


def exists(name: str) -> bool:
    """Is there a module of this name below the package, or something in a module?"""
    module, _, attribute = f"ealign_plugin.{name}".rpartition(".")
    try:
        if (spec := find_spec(f"{module}.{attribute}")) is not None:
            return spec.origin is not None  # a folder in which git left byte code alone is no module
        return hasattr(import_module(module), attribute)
    except ModuleNotFoundError:  # the name above is no package
        try:
            return hasattr(import_module(module), attribute)
        except ModuleNotFoundError:
            return False


@pytest.mark.parametrize("name", NEW)
def test_a_new_name_exists(name):
    assert exists(name)


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_is_gone(name):
    assert not exists(name)
