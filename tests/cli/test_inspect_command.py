"""``ealign inspect`` as a user meets it: text, JSON, and a page that is safe to open."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from ealign_plugin.cli.inspect import WIDTH, inspect
from ealign_plugin.data.shards.write import write_index
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample, Sentence
from tests.factories import plain_jpeg, write_shards

HOSTILE = "<script>alert(1)</script> {{ 7*7 }} \x1b[31m$\\frac{$ -->"
LABEL = "PERSON$<b>\x1b[31m\nnext"


def sample(split: str, number: int) -> tuple[NewsSample, bytes]:
    caption = f"Ana {number} met {HOSTILE}"
    one = NewsSample(
        key=f"{split}{number}<i>",
        split=split,
        caption=caption,
        caption_entities=(Entity("Ana", LABEL, 0), Entity("script", "ORG", caption.index("script"))),
        paragraphs=(f"Ana {number} spoke.",),
        sentences=(Sentence(f"Ana {number} spoke.", 0, 0, (Entity("Ana", LABEL, 0),)),),
    )
    return one, plain_jpeg(640, 360, (number, 90, 120))


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Four training samples, two for validation with the same numbers and so the same texts and photos."""
    folder = tmp_path_factory.mktemp("hostile")
    sizes = {"train": 4, "val": 2}
    samples = {split: [sample(split, number) for number in range(count)] for split, count in sizes.items()}
    write_shards(folder, samples, source=HOSTILE + "\ud800")
    return folder


def run(*words: object) -> Result:
    app = typer.Typer()
    app.command()(inspect)
    return CliRunner().invoke(app, [str(word) for word in words])


def figures(result: Result, title: str) -> list[str]:
    """The cells behind a row's title in the printed tables."""
    lines = (" ".join(line.split()) for line in result.stdout.splitlines())
    return next(line for line in lines if line.startswith(title)).removeprefix(title).split()


@pytest.fixture(scope="session")
def result(shards) -> Result:
    return run(shards)


def test_the_text_tells_the_figures_of_every_split_and_of_all(result):
    assert result.exit_code == 0, result.output
    assert figures(result, "samples ") == ["4", "2", "6"]
    assert figures(result, "articles ") == ["4", "2", "4"]  # those of val are in train too
    assert figures(result, "caption entities ") == ["8", "4", "12"]
    assert figures(result, "… in the article, as text") == ["50.0", "%"] * 3
    assert figures(result, "in its first 100 words") == ["50.0", "%"] * 3
    assert figures(result, "640 × 360") == ["6", "100.0", "%"]
    assert figures(result, "train – val ") == ["2", "2", "1", "0"]  # photos of nearly one colour have no look
    assert "train – val: 2 captions, in 2 and 2 samples\n    train0<i> = val0<i>\n" in result.stdout


def test_piped_text_is_plain_and_at_most_a_hundred_columns_wide(result):
    assert "\x1b" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= WIDTH


def test_the_numbers_of_words_are_an_option(shards):
    result = run(shards, "--words", "500,1")
    assert figures(result, "in its first 1 words") == ["50.0", "%"] * 3
    assert "first 100 words" not in result.stdout


def test_json_holds_what_the_text_rounds(shards, tmp_path):
    file = tmp_path / "new" / "figures.json"
    assert run(shards, "--json", file, "--limit", 1).exit_code == 0
    found = json.loads(file.read_text())
    assert set(found) == {"options", "set", "leaks"}
    assert found["options"] == {
        "first_words": [50, 100, 200, 500],
        "limit_per_split": 1,
        "photos_opened": True,
    }
    assert found["set"]["splits"]["train"]["samples"] == 1


def test_two_folders_are_compared(shards, tmp_path):
    file = tmp_path / "figures.json"
    result = run(shards, "--other", shards, "--no-photos", "--json", file)
    assert "train – other train" in result.stdout
    shared = {
        (row["first"], row["second"]): row["shared"]
        for row in json.loads(file.read_text())["leaks"]
        if row["kind"] == "article"
    }
    assert shared == {
        ("train", "val"): 2,
        ("train", "other train"): 4,
        ("train", "other val"): 2,
        ("val", "other train"): 2,
        ("val", "other val"): 2,
    }


def test_verify_tells_that_all_shards_are_as_they_were_written(shards):
    assert f"2 shards of {shards} have the sha256" in run(shards, "--verify").stdout.replace("\n", " ")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def images(self) -> list[str]:
        return [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]


@pytest.fixture(scope="session")
def html(shards, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("page") / "page.html"
    result = run(shards, "--html", file)
    assert result.exit_code == 0, result.output
    return file.read_text(encoding="utf-8")


def test_strings_from_strangers_are_text_on_the_page(html):
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "i", "iframe", "object", "link"}
    assert "<script>alert(1)</script> {{ 7*7 }}" in re.sub("ORG(?=>)", "", page.text)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_the_page_needs_nothing_but_itself(html):
    page = Page(html)
    assert all(url.startswith("data:image/") for url in page.images())
    assert not [attrs for _, attrs in page.tags if {"href", "action", "srcset"} & attrs.keys()]
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


def test_the_page_shows_plots_samples_and_leaks(html):
    page = Page(html)
    kinds = [url.partition(";")[0] for url in page.images()]
    assert kinds.count("data:image/svg+xml") == 8
    assert kinds.count("data:image/jpeg") == 5  # three cards for train, two samples in val
    assert "in the article" in page.text
    assert "train – val: 2 captions, in 2 and 2 samples" in page.text
    assert [tag for tag, _ in page.tags].count("mark") == 2 + 2 * 5  # two in the legend


def test_the_same_shards_give_the_same_page(shards, html, tmp_path):
    run(shards, "--html", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_without_photos_the_page_has_plots_only(shards, tmp_path):
    run(shards, "--no-photos", "--html", tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.images()) == 6


def test_a_page_of_nothing_can_be_made(tmp_path):
    write_index(tmp_path, {"val": []}, source="none", ner={"name": "none", "version": "1"}, options={})
    result = run(tmp_path, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_matplotlib_is_loaded_for_a_page_only(run_python, shards):
    code = "import sys; from ealign_plugin.cli.inspect import inspect as i; i(sys.argv[1], no_photos=True)"
    done = run_python("-c", f"{code}; sys.exit('matplotlib' in sys.modules)", str(shards))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--words", "50,many"], r"--words '50,many': numbers of words from 1 on were expected"),
        (["--words", "0"], r"--words '0'"),
        (["--html", "."], r"--html \.: this is a folder"),
        (["--other", "nowhere"], r"nowhere: no such folder of shards"),
    ],
)
def test_bad_options_are_told_before_anything_is_read(shards, options, message):
    result = run(shards, *options)
    assert isinstance(result.exception, UserError)
    assert re.search(message, str(result.exception))
    assert result.stdout == ""


def test_a_changed_shard_is_told_by_verify_only(shards, tmp_path):
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = bytearray((tmp_path / "val-000000.tar").read_bytes())
    changed[-1] = 1  # behind the end of the archive
    (tmp_path / "val-000000.tar").write_bytes(changed)
    assert run(tmp_path).exit_code == 0
    result = run(tmp_path, "--verify")
    assert isinstance(result.exception, UserError)
    assert "1 of 2 shards differ" in str(result.exception)
