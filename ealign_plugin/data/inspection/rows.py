"""What `inspect_shards` found, as rows of printable text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "words_per_caption": "words per caption",
    "words_per_sentence": "words per sentence",
    "words_per_article": "words per article",
    "sentences_per_article": "sentences per article",
    "photos_per_article": "photos per article",
    "positive_sentences_per_sample": "positive sentences per photo's article",
    "negative_sentences_per_sample": "negative sentences per photo's article",
    "photo_width_pixels": "photo width, pixels",
    "photo_height_pixels": "photo height, pixels",
    "photo_short_side_pixels": "photo's short side, pixels",
    "photo_file_kibibytes": "photo file, KiB",
}


WITHOUT = {
    "article": "samples without article",
    "caption_entities": "captions without entities",
    "visual_caption_entities": "captions without visual entities",
    "positive_sentences": "samples without positive sentences",
}


WAYS = {"as_text": "as text", "as_entity": "as entities"}


LEAKS = {
    "article": "articles",
    "caption": "captions",
    "photo_bytes": "photos, same file",
    "photo_look": "photos, same look",
}


SUMMARY = ("mean", "p5", "median", "p95", "max")


MOST_TYPES = 25


Row = list[str]


def printable(text: str) -> str:
    """The text on one line, without what a terminal would obey or could not encode."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: float | None) -> str:
    """'1,400', '15.6', or a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """'36.3 %', or a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def parts(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of each split by its name, and of all where there are several."""
    splits = {printable(split): found for split, found in figures["splits"].items()}
    return splits if len(splits) == 1 else {**splits, "all": figures["all"]}


def overview(figures: Mapping[str, Any]) -> list[Row]:
    """One row for each figure that is one number: its title, and a cell for each of the `parts`."""
    columns = list(parts(figures).values())

    def row(title: str, show: Any, *path: str) -> Row:
        cells = []
        for value in columns:
            for key in path:
                value = value[key]
            cells.append(show(value))
        return [title, *cells]

    rows = [row("samples", number, "samples"), row("articles", number, "articles")]
    if any(column["bad_samples"] for column in columns):
        rows.insert(1, ["bad samples", *(number(sum(c["bad_samples"].values())) for c in columns)])
    rows += [
        row(title, percent, "shares_of_samples_without", name)
        for name, title in WITHOUT.items()
        if name != "article" or any(c["shares_of_samples_without"]["article"] for c in columns)
    ]
    rows.append(row("caption entities", number, "caption_entities"))
    for way, how in WAYS.items():
        shares = ("shares_of_caption_entities", way)
        rows.append(row(f"… in the article, {how}", percent, *shares, "in_article"))
        rows += [
            row(f"    in its first {words} words", percent, *shares, "in_first_words", words)
            for words in figures["all"]["shares_of_caption_entities"][way]["in_first_words"]
        ]
        rows.append(row("    in its positive sentences", percent, *shares, "in_positive_sentences"))
    return rows


def distributions(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of: what is counted, the split, and the figures of `SUMMARY`."""
    rows = []
    for name, title in TITLES.items():
        found = [(split, part["distributions"][name]) for split, part in parts(figures).items()]
        for position, (split, values) in enumerate((s, v) for s, v in found if v["count"]):
            rows.append([title if position == 0 else "", split, *(number(values[key]) for key in SUMMARY)])
    return rows


def entity_types(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of: label, how many in captions, in articles, and the share of the captions' in the article."""
    found = figures["all"]["entities_by_type"]
    return [
        [
            printable(label[:40]),
            number(row["in_captions"]),
            number(row["in_articles"]),
            percent(row["share_of_captions_in_article_as_text"]),
        ]
        for label, row in list(found.items())[:MOST_TYPES]
    ]


def photo_sizes(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of: width × height, photos, share of all photos."""
    total = figures["all"]["distributions"]["photo_width_pixels"]["count"]
    return [
        [
            f"{row['width_pixels']} × {row['height_pixels']}",
            number(row["photos"]),
            percent(row["photos"] / total),
        ]
        for row in figures["all"]["most_common_photo_sizes"]
    ]


def bad_samples(figures: Mapping[str, Any]) -> list[Row]:
    """Rows of: how many, why; shards that break off last."""
    rows = [[number(count), printable(why)] for why, count in figures["all"]["bad_samples"].items()]
    return rows[:MOST_TYPES] + [["shard", printable(why)] for why in figures["unreadable_shards"]]


def leaks(result: Mapping[str, Any]) -> list[Row]:
    """One row for each two splits: how many articles, captions and photos they share; headings first."""
    pairs: dict[str, dict[str, str]] = {}
    for row in result["leaks"]:
        between = f"{printable(row['first'])} – {printable(row['second'])}"
        pairs.setdefault(between, {})[LEAKS[row["kind"]]] = number(row["shared"])
    headings = ["shared between", *next(iter(pairs.values()), {})]
    return [headings, *([between, *counts.values()] for between, counts in pairs.items())]


def leak_notes(result: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """For what is shared: a line that says how much, and pairs of keys as examples."""
    return [
        (
            f"{printable(row['first'])} – {printable(row['second'])}: {number(row['shared'])} "
            f"{LEAKS[row['kind']]}, in {number(row['samples_in_first'])} "
            f"and {number(row['samples_in_second'])} samples",
            [[printable(key) for key in pair] for pair in row["examples"]],
        )
        for row in result["leaks"]
        if row["shared"]
    ]
