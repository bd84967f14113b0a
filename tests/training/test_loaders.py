"""DataLoaders of a run."""

from __future__ import annotations

import pytest

from ealign_plugin.training.loaders import RankSampler


@pytest.mark.parametrize(("samples", "ranks"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_ranks_share_a_split_without_padding(samples, ranks):
    parts = [list(RankSampler(range(samples), rank, ranks)) for rank in range(ranks)]
    assert sorted(sum(parts, [])) == list(range(samples))
