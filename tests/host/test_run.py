"""What a run's config holds when LAVIS's runners read it."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ealign_plugin.distributed import RankInfo
from ealign_plugin.host.run import write_rank_info


@pytest.mark.parametrize(
    ("device", "info", "written"),
    [
        ("cpu", None, {"distributed": False, "rank": 0, "world_size": 1, "gpu": None}),
        ("cuda", None, {"distributed": False, "rank": 0, "world_size": 1, "gpu": 0}),
        ("cpu", RankInfo(3, 4, 1), {"distributed": True, "rank": 3, "world_size": 4, "gpu": None}),
        ("cuda", RankInfo(3, 4, 1), {"distributed": True, "rank": 3, "world_size": 4, "gpu": 1}),
        ("cpu", RankInfo(0, 1, 0), {"distributed": True, "rank": 0, "world_size": 1, "gpu": None}),
    ],
)
def test_rank_info_is_written_where_lavis_looks(device, info, written):
    run = OmegaConf.create({"device": device})
    write_rank_info(run, info)
    assert dict(run) == {"device": device, **written}
