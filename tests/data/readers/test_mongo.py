"""Dumps of MongoDB: the same documents out of every kind, and no damage that passes unseen."""

from __future__ import annotations

import functools
import gzip
import math
import random
from datetime import UTC, datetime
from itertools import islice

import bson
import mongomock
import pymongo
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import mongo
from ealign_plugin.data.readers.source import BadRecord, Skipped, Source
from ealign_plugin.errors import UserError
from tests.data.readers.mongo_files import (
    MAGIC,
    TERMINATOR,
    archive,
    block,
    encoded,
    write_archive,
    write_folder,
)

# Boxes are what nobody asks for; they begin first and end last.
DUMP = {
    "press": {
        "boxes": [{"_id": number, "values": [0.5] * 20} for number in range(9)],
        "articles": [{"_id": f"a{number}", "text": "Ruiz in Oslo " * 9} for number in range(5)],
        "splits": [{"_id": "a0_0", "split": "train"}, {"_id": "a1_0", "split": "test"}],
    }
}
ARTICLES = [("articles", document) for document in DUMP["press"]["articles"]]
SPLITS = [("splits", document) for document in DUMP["press"]["splits"]]


def read(location, *collections, images=None, database="press"):
    source = Source(str(location), images=images)
    return list(mongo.documents(source, collections or ("articles",), database=database))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("per_block", [1, 2, 100])
def test_an_archive_gives_the_documents_of_the_collections_asked_for(tmp_path, zipped, per_block):
    # The name says nothing: gzip and archives are known by their first bytes.
    path = write_archive(tmp_path / "dump.bson", DUMP, zipped=zipped, per_block=per_block)
    assert read(path) == ARTICLES
    both = read(path, "articles", "splits")
    assert [item for item in both if item[0] == "articles"] == ARTICLES
    assert [item for item in both if item[0] == "splits"] == SPLITS
    if per_block == 1:
        assert [collection for collection, _ in both][:4] == ["articles", "splits"] * 2


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["", "press", "press/splits"])
def test_a_dump_folder_its_database_and_one_file_of_it_give_the_same(tmp_path, zipped, place):
    write_folder(tmp_path / "dump", DUMP, zipped=zipped)
    end = (".bson.gz" if zipped else ".bson") if "/" in place else ""
    assert read(tmp_path / "dump" / (place + end), "articles", "splits") == ARTICLES + SPLITS


def test_a_live_database_gives_the_same_sorted_by_id(monkeypatch):
    store = mongomock.MongoClient()
    for name, documents in DUMP["press"].items():
        store["press"][name].insert_many(random.Random(1).sample(documents, len(documents)))
    seen = {}

    def client(url, **options):
        seen.update(options)
        return mongomock.MongoClient(url, _store=store._store)

    monkeypatch.setattr("pymongo.MongoClient", client)
    assert read("mongodb://localhost/press", "articles", "splits", images="photos") == ARTICLES + SPLITS
    assert seen["serverSelectionTimeoutMS"] == 5000

    with pytest.raises(UserError, match="^mongodb://localhost/press: faces expected, found press.articles, "):
        read("mongodb://localhost/press", "faces", images="photos")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mongodb://me:secret@localhost", "mongodb://localhost: the URL names no database; write mongodb://"),
        ("mongodb://me:secret@localhost/?w=1", "the URL names no database"),
        (
            "mongodb://me:secret@localhost:port/press",
            "mongodb://localhost:port/press: the database cannot be",
        ),
        ("mongodb://me:secret@[::1/press", "the database cannot be read .Invalid IPv6 URL"),
    ],
)
def test_a_url_that_is_wrong_is_one_error_that_hides_the_password(url, message):
    with pytest.raises(UserError, match=message) as failed:
        read(url, images="photos")
    assert "secret" not in str(failed.value)


def test_a_live_database_needs_a_folder_of_photos():
    with pytest.raises(UserError, match="the database holds no photos; name their folder with --images"):
        read("mongodb://localhost/press")


def test_a_server_that_does_not_answer_is_one_error(monkeypatch):
    real = pymongo.MongoClient
    monkeypatch.setattr(
        "pymongo.MongoClient",
        lambda url, **options: real(url, **{**options, "serverSelectionTimeoutMS": 50}),
    )
    with pytest.raises(
        UserError, match="the database cannot be read .*refused.*; see that the server runs"
    ) as e:
        read("mongodb://127.0.0.1:1/press", images="photos")
    assert "Topology" not in str(e.value)


def test_documents_come_before_the_archive_is_read_to_its_end(tmp_path):
    noise = random.Random(0).randbytes
    articles = [{"_id": number, "photo": noise(50_000)} for number in range(40)]
    path = write_archive(tmp_path / "dump.gz", {"press": {"articles": articles}}, zipped=True)
    source = Source(str(path))
    shares = [source.share for _ in mongo.documents(source, ["articles"], database="press")]
    assert 0 < shares[0] < 0.5 < shares[-1] <= 1
    assert shares == sorted(shares)

    source = Source(str(path))
    assert len(list(islice(mongo.documents(source, ["articles"], database="press", count=False), 3))) == 3
    assert source.share == 0


def test_what_stands_behind_the_collections_asked_for_is_not_read(tmp_path):
    end = WHOLE.index(block("press", "splits", [], complete=True))
    path = tmp_path / "dump"
    path.write_bytes(WHOLE[: end + 200] + b"\xff" * 100)
    assert read(path, "splits") == SPLITS
    path.write_bytes(WHOLE[: end - 200] + b"\xff" * 100)
    with pytest.raises(UserError):
        read(path, "splits")


WHOLE = archive(DUMP)
ZIPPED = gzip.compress(WHOLE, mtime=0)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(cut=st.integers(0, len(WHOLE) - 1))
@example(cut=0)
@example(cut=4)
@example(cut=WHOLE.index(TERMINATOR) + 4)
def test_an_archive_cut_off_anywhere_is_an_error(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "dump"
    path.write_bytes(WHOLE[:cut])
    with pytest.raises(UserError, match="cut off at byte|no dump of MongoDB"):
        read(path, "boxes", "articles", "splits")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_an_archive_cut_off_behind_what_was_asked_for_is_whole_and_else_an_error(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "dump"
    path.write_bytes(WHOLE[:cut])
    end = WHOLE.index(block("press", "articles", [], complete=True)) + len(
        block("press", "articles", [], complete=True)
    )
    if cut >= end:
        assert read(path) == ARTICLES
    else:
        with pytest.raises(UserError):
            read(path)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(cut=st.integers(0, len(ZIPPED) - 1))
def test_a_zipped_archive_cut_off_anywhere_is_an_error(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "dump.gz"
    path.write_bytes(ZIPPED[:cut])
    with pytest.raises(UserError, match="cut off at byte|no dump of MongoDB"):
        read(path, "boxes", "articles", "splits")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(at=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), zipped=st.booleans())
def test_a_changed_byte_is_an_error_a_skipped_document_or_a_change_in_one(
    tmp_path_factory, at, value, zipped
):
    whole = bytearray(ZIPPED if zipped else WHOLE)
    whole[at % len(whole)] = value
    path = tmp_path_factory.mktemp("changed") / "dump"
    path.write_bytes(whole)
    try:
        found = read(path)
    except UserError:
        return
    assert all(isinstance(item, Skipped) or item[0] == "articles" for item in found)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_a_plain_file_cut_off_inside_a_document_is_an_error(tmp_path_factory, data):
    content = b"".join(map(encoded, DUMP["press"]["articles"]))
    size = len(encoded(DUMP["press"]["articles"][0]))
    cut = data.draw(st.integers(1, len(content) - 1).filter(lambda cut: cut % size))
    path = tmp_path_factory.mktemp("cut") / "articles.bson"
    path.write_bytes(content[:cut])
    with pytest.raises(
        UserError, match=f"articles.bson: the file is cut off at byte {cut}, .*fetch it again"
    ):
        read(path)


def test_a_zipped_plain_file_cut_off_is_an_error(tmp_path):
    path = write_folder(tmp_path, DUMP, zipped=True) / "press" / "articles.bson.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off at byte"):
        read(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"_id": "a0"}', "7b 22 5f 69"),
        (b"", "an empty file"),
        (gzip.compress(b"no archive"), "6e 6f 20 61"),
        (MAGIC[::-1] + WHOLE[4:], "81 99 e2 6d"),
    ],
)
def test_a_file_that_is_no_dump_is_told_by_its_first_bytes(tmp_path, content, found):
    path = tmp_path / "dump.gz"
    path.write_bytes(content)
    message = f"dump.gz: no dump of MongoDB .an archive begins with 6d e2 99 81, found {found}.; give what"
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="dump.gz: no such file; correct the path"):
        read(tmp_path / "dump.gz")


def test_a_document_that_claims_a_wrong_size_is_refused_before_it_is_read(tmp_path):
    for size in (0, 4, mongo.MAX_DOCUMENT + 1, 2**31):
        wrong = size.to_bytes(4, "little") + b"\0" * 20
        path = write_archive(tmp_path / "dump", {"press": {"articles": [wrong]}})
        with pytest.raises(
            UserError, match=f"damaged at byte .* document of {size:,} bytes, 5 to 16,793,600 were"
        ):
            read(path)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (TERMINATOR, b"", "a header without the name of a collection: missing field: db"),
        (TERMINATOR, TERMINATOR * 2, "a terminator instead of a block's header"),
        (MAGIC, MAGIC + TERMINATOR, "a terminator instead of the archive's header"),
        (b"collection\0\x06\0\0\0boxes", b"collectiom\0\x06\0\0\0boxes", "missing field: collection"),
        (b"\x02collection\0\x06\0\0\0boxes", b"\xeecollection\0\x06\0\0\0boxes", "a header without the name"),
    ],
)
def test_a_broken_frame_is_an_error_that_says_where(tmp_path, old, new, found):
    path = tmp_path / "dump"
    path.write_bytes(WHOLE.replace(old, new, 1))
    with pytest.raises(
        UserError, match=rf"dump: the dump is damaged at byte [\d,]+ .*{found}.*fetch the file again"
    ):
        read(path)


def test_a_broken_gzip_is_an_error(tmp_path):
    path = tmp_path / "dump"
    damaged = bytearray(ZIPPED)
    damaged[-6] ^= 1  # its checksum
    for content in (damaged, ZIPPED[:10] + b"\xff" * 50, ZIPPED + b"more", b"\x1f\x8b\x07" + ZIPPED[3:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="dump: its gzip is damaged .*; fetch the file again"):
            read(path, "boxes", "articles", "splits")


def test_an_archives_terminator_in_a_plain_file_is_an_error(tmp_path):
    (tmp_path / "articles.bson").write_bytes(encoded({"_id": 1}) + TERMINATOR)
    with pytest.raises(UserError, match="an archive's terminator in a plain .bson file"):
        read(tmp_path)


def test_a_document_that_cannot_be_decoded_is_skipped_and_the_next_ones_are_read(tmp_path):
    good = DUMP["press"]["articles"]
    latin = encoded({"_id": "b", "text": "Malmö"}).replace("ö".encode(), b"\xf6\xf6")
    deep = b"\x05\0\0\0\0"
    for _ in range(3000):
        deep = (len(deep) + 8).to_bytes(4, "little") + b"\x03a\0" + deep + b"\0"
    unended = encoded({"_id": "c"})[:-1] + b"\x01"
    documents = [good[0], latin, deep, unended, good[1]]
    path = write_archive(tmp_path / "dump", {"press": {"articles": documents}}, per_block=9)
    first, *skipped, last = read(path)
    assert (first, last) == (ARTICLES[0], ARTICLES[1])
    assert [(item.cause, item.detail != "") for item in skipped] == [("document is no valid BSON", True)] * 3
    assert skipped[0].key == f"articles, byte {path.read_bytes().index(latin)}"


def test_a_missing_collection_is_an_error_that_lists_what_is_there(tmp_path):
    path = write_archive(tmp_path / "dump", DUMP)
    with pytest.raises(
        UserError, match="dump: faces expected, found press.articles, press.boxes, press.splits; "
    ):
        read(path, "faces")
    write_folder(tmp_path / "folder", DUMP)
    with pytest.raises(
        UserError, match="folder: articles.bson and faces.bson expected, found press.articles.bson;"
    ):
        read(tmp_path / "folder", "articles", "faces")
    with pytest.raises(UserError, match="press: faces.bson expected, found none of it"):
        read(tmp_path / "folder" / "press", "faces")


def test_of_several_databases_the_one_of_the_data_set_is_read(tmp_path):
    two = {"press": DUMP["press"], "other": {"articles": [{"_id": "x"}]}, "admin": {"system": []}}
    for path in (write_archive(tmp_path / "dump", two), write_folder(tmp_path / "folder", two)):
        assert read(path) == ARTICLES
        assert read(path, database="other") == [("articles", {"_id": "x"})]
        assert read(path, "splits", database="another") == SPLITS
        with pytest.raises(UserError, match=r"several databases \(other, press\); dump one of them"):
            read(path, database="another")


def test_times_have_a_zone_and_code_is_not_run(tmp_path):
    document = {
        "_id": bson.ObjectId("0123456789abcdef01234567"),
        "at": datetime(2019, 5, 1, 12, tzinfo=UTC),
        "never": bson.datetime_ms.DatetimeMS(10**17),
        "code": bson.Code("quit()", {"a": 1}),
    }
    path = write_archive(tmp_path / "dump", {"press": {"articles": [document]}})
    ((_, found),) = read(path)
    assert found == document
    assert mongo.json_value(found["at"]) == "2019-05-01T12:00:00+00:00"
    assert mongo.identifier(found) == "0123456789abcdef01234567"
    with pytest.raises(BadRecord):
        mongo.identifier(found, "code_name")


def test_json_values_keep_jsons_types_and_refuse_the_rest():
    value = {"a": [1, bson.Int64(2), 0.5, True, None, "x", {"b": bson.ObjectId("0" * 24)}], "n": math.nan}
    assert mongo.json_value(value) == {"a": [1, 2, 0.5, True, None, "x", {"b": "0" * 24}], "n": None}
    assert type(mongo.json_value(bson.Int64(2))) is int
    for wrong in (b"bytes", bson.Regex("a"), functools.reduce(lambda inner, _: [inner], range(33), [])):
        with pytest.raises(BadRecord, match="value that JSON cannot hold"):
            mongo.json_value(wrong)


def test_text_at_reads_a_field_of_a_field_and_takes_nothing_else_for_text():
    record = {"headline": {"main": " Storm\n over  Oslo "}, "other": ["x"], "number": 3}
    assert mongo.text_at(record, "headline", "main") == "Storm over Oslo"
    assert [
        mongo.text_at(record, *path) for path in (("headline",), ("other", "x"), ("number",), ("no",))
    ] == [""] * 4
