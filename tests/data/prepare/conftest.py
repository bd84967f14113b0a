"""A source of news, and the shards that one process makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.prepare.factories import run, write_source


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """12 articles with two photos each, every fourth in the test split; not to be changed by tests."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def undisturbed(source, tmp_path_factory) -> Path:
    """What one process makes of it; not to be changed by tests."""
    out = tmp_path_factory.mktemp("shards") / "out"
    run(source, out)
    return out
