"""Caption metrics against pycocoevalcap called by hand, and in the cases that break scorers."""

import math
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.meteor import meteor as meteor_package
from pycocoevalcap.rouge.rouge import Rouge

from ealign_plugin.errors import UserError
from ealign_plugin.metrics import meteor
from ealign_plugin.metrics.captions import find_java, score_captions, score_each

REFERENCES = [
    "Ana Ruiz, 41, speaks in Oslo on Monday.",
    "Protesters march — peacefully — through Lyon.",
    "José Müller's team won the cup in 2019.",
    "The mayor\nof Bergen opens a bridge.",
    "…",
    "A fan waves a flag after the final.",
]
CANDIDATES = [
    "Ana Ruiz spoke in Oslo on Monday",
    "Protesters walk peacefully — in Lyon",
    "Jose Müller’s team wins the cup ||| in 2019.",
    "The mayor of\nBergen opened the bridge\r\n",
    "A crowd",
    "",
]
# The same without [^\w\s]: written out, so that the tests do not repeat the code.
PLAIN_REFERENCES = [
    "Ana Ruiz 41 speaks in Oslo on Monday",
    "Protesters march  peacefully  through Lyon",
    "José Müllers team won the cup in 2019",
    "The mayor\nof Bergen opens a bridge",
    "",
    "A fan waves a flag after the final",
]
PLAIN_CANDIDATES = [
    "Ana Ruiz spoke in Oslo on Monday",
    "Protesters walk peacefully  in Lyon",
    "Jose Müllers team wins the cup  in 2019",
    "The mayor of\nBergen opened the bridge\r\n",
    "A crowd",
    "",
]
WORDS = st.sampled_from(["Ana", "Oslo", "the", "in", "mayor", "flag", "waves", "2019"])
CAPTION = st.lists(WORDS, min_size=4, max_size=9).map(" ".join)


def fake_java(folder, monkeypatch, script):
    """Put a `java` of our own on an otherwise empty PATH."""
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_bleu_rouge_and_cider_are_pycocoevalcaps_on_captions_without_punctuation():
    bleu, cider, rouge = BleuScorer(n=4), CiderScorer(n=4, sigma=6.0), Rouge()
    for reference, candidate in zip(PLAIN_REFERENCES, PLAIN_CANDIDATES, strict=True):
        bleu += (candidate, [reference])
        cider += (candidate, [reference])
    rouges = [rouge.calc_score([c], [r]) for r, c in zip(PLAIN_REFERENCES, PLAIN_CANDIDATES, strict=True)]

    scores = score_captions(REFERENCES, CANDIDATES, meteor=False)

    assert [scores[f"bleu{n}"] for n in (1, 2, 3, 4)] == bleu.compute_score(option="closest")[0]
    assert scores["cider"] == pytest.approx(cider.compute_score()[0], rel=1e-12)
    assert scores["rouge"] == pytest.approx(sum(rouges) / len(rouges), rel=1e-12)
    assert 0.3 < scores["bleu1"] < 0.9 and scores["cider"] > 1


@pytest.mark.skipif(find_java() is None, reason="METEOR needs Java")
def test_meteor_is_the_last_line_over_two_files_in_any_locale_and_folder_and_set(tmp_path, monkeypatch):
    package = Path(meteor_package.__file__).parent
    for name, captions in (("references", PLAIN_REFERENCES), ("candidates", PLAIN_CANDIDATES)):
        lines = (caption.replace("\n", "").replace("\r", "") + "\n" for caption in captions)
        (tmp_path / name).write_text("".join(lines), encoding="utf-8", newline="")
    files = [find_java(), "-Xmx2G", "-jar", package / meteor_package.METEOR_JAR, "candidates", "references"]
    files += ["-l", "en", "-norm", "-q", "-a", package / "data" / "paraphrase-en.gz"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    # Started here, so that the two load at once.
    run = subprocess.Popen(files, cwd=tmp_path, env=environment, stdout=subprocess.PIPE)

    copy = tmp_path / "mes données"
    shutil.copytree(package, copy)
    monkeypatch.setattr(meteor_package, "__file__", str(copy / "meteor.py"))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    assert score_captions(["Ana in Oslo"], ["Ana in Oslo"], meteor=True)["meteor"] == 1
    measured = score_captions(REFERENCES, CANDIDATES, meteor=True)["meteor"]
    assert measured == float(run.communicate()[0])


def test_bleu_of_one_caption_by_hand():
    # "a b c d e" / "a b c d f": 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours; equal lengths.
    scores = score_captions(["a b c d e"], ["a b c d f"], meteor=False)
    assert scores["bleu4"] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, abs=1e-6)


def test_a_short_corpus_pays_the_brevity_penalty_once():
    scores = score_captions(["a b c d e", "f g"], ["a b c", "f g"], meteor=False)
    assert scores["bleu1"] == pytest.approx(math.exp(1 - 7 / 5), abs=1e-6)


def test_rouge_counts_the_empty_word_that_a_lone_dash_leaves():
    # "Oslo  May" splits into Oslo, "", May: the longest common subsequence is 2 of 3 and 2 of 2.
    precision, recall = 1.0, 2 / 3
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert score_each(["Oslo — May", "x"], ["Oslo May", "x"])[0]["rouge"] == pytest.approx(expected)


def test_case_matters():
    assert score_captions(["Oslo"], ["oslo"], meteor=False)["rouge"] == 0


def test_empty_candidates_score_zero():
    scores = score_captions(["Ana in Oslo", "Bo in Lyon"], ["", "..."], meteor=False)
    assert scores == {
        "bleu1": 0, "bleu2": 0, "bleu3": 0, "bleu4": 0, "rouge": 0, "cider": 0, "meteor": None,
    }  # fmt: skip


@given(st.lists(CAPTION, min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_perfect_captions_reach_one(captions):
    scores = score_captions(captions, captions, meteor=False)
    for name in ("bleu1", "bleu4", "rouge"):
        assert scores[name] == pytest.approx(1, abs=1e-6)


@given(st.lists(st.tuples(CAPTION, CAPTION), min_size=2, max_size=6), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_samples_does_not_matter(pairs, chance: random.Random):
    shuffled = chance.sample(pairs, len(pairs))
    scores, again = (score_captions(*zip(*order, strict=True), meteor=False) for order in (pairs, shuffled))
    assert again == pytest.approx(scores, abs=1e-9)


@given(st.lists(st.tuples(CAPTION, CAPTION), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_means_of_each_are_the_values_of_all(pairs):
    references, candidates = zip(*pairs, strict=True)
    each = score_each(references, candidates)
    scores = score_captions(references, candidates, meteor=False)
    for name in ("rouge", "cider"):
        assert sum(item[name] for item in each) / len(each) == pytest.approx(scores[name])


def test_without_java_meteor_is_left_out_and_said_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert score_captions(["Ana in Oslo"], ["Ana"])["meteor"] is None
    assert "no `java` is on the PATH: it is left out" in caplog.text


def test_without_java_meteor_cannot_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no `java` is on the PATH; install a Java runtime"):
        score_captions(["Ana in Oslo"], ["Ana"], meteor=True)


BROKEN_JAVA = "echo 0.25 >&2; echo 'java.lang.OutOfMemoryError: Java heap space' >&2; exit 3"


def test_a_failing_java_is_told_in_one_line(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, BROKEN_JAVA)
    with pytest.raises(
        UserError, match=r"ended with code 3 and no score \(java.lang.OutOfMemoryError"
    ) as error:
        score_captions(["Ana in Oslo"], ["Ana"], meteor=True)
    assert "\n" not in str(error.value)


def test_a_failing_java_does_not_cost_the_other_metrics(tmp_path, monkeypatch, caplog):
    fake_java(tmp_path, monkeypatch, BROKEN_JAVA)
    scores = score_captions(["Ana in Oslo"], ["Ana in Oslo"])
    assert scores["meteor"] is None and scores["rouge"] == 1
    assert "OutOfMemoryError" in caplog.text


def test_a_java_that_is_no_program_is_told(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, "")
    (tmp_path / "java").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match="METEOR could not start"):
        score_captions(["Ana in Oslo"], ["Ana"], meteor=True)


COUNTS_LINES = """
echo started >> "$0.log"
lines=0
while IFS= read -r line; do
  case "$line" in
    SCORE*) lines=$((lines + 1)); echo 1 2 ;;
    EVAL*) i=0; while [ $i -lt $lines ]; do echo 0.5; i=$((i + 1)); done; echo $lines; lines=0 ;;
  esac
done
"""


def test_meteor_is_started_once_and_gets_one_line_a_caption_and_leaves_nothing(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, COUNTS_LINES)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert score_captions(REFERENCES, CANDIDATES, meteor=True)["meteor"] == len(REFERENCES)
    assert score_captions(REFERENCES[:2], CANDIDATES[:2], meteor=True)["meteor"] == 2
    assert (tmp_path / "java.log").read_text() == "started\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["java", "java.log"]


def test_meteor_that_was_killed_is_started_again(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, COUNTS_LINES)
    assert score_captions(["a"], ["a"], meteor=True)["meteor"] == 1
    scorer = meteor._scorer(find_java(), Path(meteor_package.__file__).with_name(meteor_package.METEOR_JAR))
    scorer.process.kill()
    scorer.process.wait()
    with pytest.raises(UserError, match="ended with code -9 and no score"):
        score_captions(["a"], ["a"], meteor=True)
    assert score_captions(["a"], ["a"], meteor=True)["meteor"] == 1


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(UserError, match="2 reference captions but 1 candidate captions"):
        score_captions(["a", "b"], ["a"], meteor=False)


@pytest.mark.parametrize("references", [[], ["", "..."]])
def test_a_set_without_reference_words_is_refused(references):
    with pytest.raises(UserError, match=f"none of the {len(references)} reference captions holds a word"):
        score_captions(references, references, meteor=False)
