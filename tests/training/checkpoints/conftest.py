"""The checkpoints of one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ealign_plugin.training.checkpoints.store import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")
