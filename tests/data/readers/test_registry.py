"""Readers by name, and those of other packages."""

from __future__ import annotations

import pytest

from ealign_plugin.data.readers import READERS, register_reader
from ealign_plugin.data.readers.source import ReadSample, Source
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample


def test_the_public_sets_are_registered_in_the_order_of_the_help():
    assert list(READERS)[:6] == ["goodnews", "nytimes800k", "visualnews", "vacnic", "llava", "jsonl"]
    assert all(reader.files and callable(reader.read) for _, reader in READERS.items())


def test_another_package_adds_a_reader(tmp_path):
    @register_reader("test_herald", files="a text file of captions")
    def read(source):
        """The Herald's captions."""
        for number, line in enumerate(source.path.read_text().splitlines()):
            sample = NewsSample(key=f"h{number}", split="train", caption=line, paragraphs=())
            yield ReadSample(sample, source.image(f"{number}.jpg"))

    (tmp_path / "a.txt").write_text("Ana.\nBo.\n")
    found = list(READERS["test_herald"].read(Source(str(tmp_path / "a.txt"))))
    assert [item.sample.caption for item in found] == ["Ana.", "Bo."]
    assert READERS["test_herald"].__doc__ == "The Herald's captions."


def test_a_taken_name_is_refused():
    with pytest.raises(UserError, match="reader 'jsonl': registered by ealign_plugin.data.readers.jsonl"):
        register_reader("jsonl", files="")(lambda source: iter(()))
