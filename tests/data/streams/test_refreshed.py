"""Which batch draws from which file: never from one that is not written yet."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.streams.refreshed import RefreshedSelections


def files_of(**options) -> RefreshedSelections:
    return RefreshedSelections(folder=Path("run"), name="news", photos=9, **options)


def test_a_file_is_read_from_a_batch_on_that_is_fixed_in_advance():
    files = files_of(first=4, every=2, ahead=3)
    assert [files.path_of(batch) for batch in range(7)] == 7 * [None]
    read = [files.path_of(batch) for batch in range(7, 12)]
    assert read == [files.path(step) for step in (4, 4, 6, 6, 8)]
    assert files.path(4) == Path("run/selections-news-000004.jsonl")


def test_a_step_may_use_several_batches():
    files = files_of(first=2, every=1, batches_per_step=3)
    assert [files.due(batches) for batches in range(4, 11)] == [None, None, 2, 2, 2, 3, 3]


def test_a_checkpoint_needs_the_files_of_the_batches_that_were_read_ahead_and_of_the_next():
    files = files_of(first=4, every=2, ahead=3)
    assert files.still_read(3) == []
    assert files.still_read(4) == [files.path(4)]
    assert files.still_read(8) == [files.path(step) for step in (4, 6, 8)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    first=st.integers(1, 12),
    every=st.integers(1, 5),
    accumulated=st.integers(1, 4),
    prefetched=st.integers(0, 6),
    mine=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_no_batch_is_drawn_before_its_file_is_written(first, every, accumulated, prefetched, mine):
    """Batches come from this data set or from another; the loader asks for more as soon as it gave one."""
    files = files_of(
        first=first, every=every, batches_per_step=accumulated, ahead=prefetched + accumulated - 1
    )
    written, delivered, drawn = set[Path](), 0, 0
    for step in range(len(mine) // accumulated):
        for from_this in mine[step * accumulated : (step + 1) * accumulated]:
            if from_this:
                delivered += 1
                while drawn < delivered + prefetched:
                    assert files.path_of(drawn) in {None, *written}
                    drawn += 1
        if (due := files.due(delivered)) is not None:
            written.add(files.path(due))
        assert set(files.still_read(delivered)) <= written
