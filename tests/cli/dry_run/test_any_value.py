"""Any value of any key of ``run`` or of a data set: a plan, or one message and code 2; never a traceback."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ealign_plugin.host.run_keys import run_defaults
from ealign_plugin.validation import as_yaml

KEYS = sorted(
    {"init_lr", "max_iters", "max_epoch", "batch_size_train", "batch_size_eval", "iters_per_inner_epoch"}
    | set(run_defaults({"task": "ealign_news_captioning", "runner": "ealign_runner"}))
)
OF_DATA = (
    "batch_size",
    "seed",
    "shuffle_shards",
    "max_skipped",
    "half",
    "limit",
    "other_image",
    "splits",
    "phases",
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.floats(width=32),
    st.sampled_from(["", "auto", "train", "head", "nan", "x y", "ä"]),
    st.lists(st.sampled_from(["train", "val", "head", "none", 1, None]), max_size=2),
    st.dictionaries(
        st.sampled_from(["train", "val", "llm", "x"]), st.sampled_from([-1, 0, 1, 0.5, None, "x"]), max_size=2
    ),
)
PLACES = [f"run.{key}" for key in KEYS] + [f"datasets.ealign_micronews.{key}" for key in OF_DATA]


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(place="run.seed", value=-5)
@example(place="run.beta2", value=1.5)
@example(place="run.repetition_penalty", value=0)
@example(place="run.test_splits", value=None)
@example(place="datasets.ealign_micronews.limit", value={"tset": 10})
@example(place="datasets.ealign_micronews.limit", value={"val": "x"})
@example(place="datasets.ealign_micronews.limit", value=None)
@example(place="run.lrs", value={"llm": -1})
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_a_plan_or_one_message(dry, place, value):
    report = dry(f"{place}={as_yaml(value)}")
    assert report.code in (0, 2)
    assert "Traceback" not in report.error + report.plan
    if report.code == 2:
        assert report.error.count("error: ") == 1 and place.split(".")[-1] in report.error
    else:
        assert "Nothing was run" in report.plan
