"""Whatever a kill leaves of a journal, what it gives back was written whole, and it can be added to."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.errors import UserError
from ealign_plugin.inference.journal import Journal

BATCHES = st.lists(
    st.lists(st.fixed_dictionaries({"index": st.integers(0, 99), "caption": st.text()}), min_size=1),
    max_size=5,
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(batches=BATCHES, cut=st.integers(0, 400), more=BATCHES)
def test_cut_off_anywhere_it_gives_whole_batches_and_goes_on(tmp_path_factory, batches, cut, more):
    folder = tmp_path_factory.mktemp("journal")
    for batch in batches:
        Journal(folder, 0, {"seed": 1}).add(batch)
    path = folder / "rank0.jsonl"
    if batches:
        path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut)])
    kept = Journal(folder, 0, {"seed": 1}).read()
    whole = [[record for batch in batches[:count] for record in batch] for count in range(len(batches) + 1)]
    assert kept in whole
    if not cut:
        assert kept == whole[-1]
    again = Journal(folder, 0, {"seed": 1})
    for batch in more:
        again.add(batch)
    assert Journal(folder, 0, {"seed": 1}).read() == kept + [record for batch in more for record in batch]


def test_processes_write_files_of_their_own_and_read_those_of_all(tmp_path):
    for rank in (0, 1):
        Journal(tmp_path, rank, {}).add([{"index": rank}])
    assert Journal(tmp_path, 5, {}).read() == [{"index": 0}, {"index": 1}]


def test_records_of_another_identity_are_written_over(tmp_path, caplog):
    Journal(tmp_path, 0, {"weights": "a"}).add([{"index": 0}])
    other = Journal(tmp_path, 0, {"weights": "b"})
    assert other.read() == []
    assert "rank0.jsonl: of another evaluation" in caplog.text
    other.add([{"index": 1}])
    assert Journal(tmp_path, 0, {"weights": "b"}).read() == [{"index": 1}]


def test_an_identity_is_compared_as_json(tmp_path):
    Journal(tmp_path, 0, {"size": (1, 2)}).add([{"index": 0}])
    assert Journal(tmp_path, 0, {"size": [1, 2]}).read() == [{"index": 0}]


def test_a_broken_line_in_the_middle_counts_as_none(tmp_path):
    (tmp_path / "rank0.jsonl").write_text(json.dumps({"identity": {}}) + "\n[{]\n[]\n")
    assert Journal(tmp_path, 0, {}).read() == []


def test_removed_it_leaves_nothing_and_may_be_removed_again(tmp_path):
    journal = Journal(tmp_path / "evaluation-test", 0, {})
    journal.add([{"index": 0}])
    journal.remove()
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "evaluation-test").write_text("a file stands in the way")
    with pytest.raises(UserError, match="rank0.jsonl: it cannot be written .*; make room there; the same"):
        Journal(tmp_path / "evaluation-test", 0, {}).add([{"index": 0}])
