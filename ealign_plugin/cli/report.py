"""What `inspect_shards` found, as rows of text, and as one HTML page with plots and sample cards.

Everything here may hold strings from strangers (labels, keys, captions): rows are made printable, the page
is escaped by Jinja2, and plots stand in it as pictures, which cannot run anything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.entities import fold
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.shards.copying import find_caption_entities
from ealign_plugin.shards.images import open_image
from ealign_plugin.shards.index import ShardIndex
from ealign_plugin.shards.inspect import raw_samples
from ealign_plugin.shards.stream import decode_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
CARDS = 6
_BLUE, _ORANGE, _GREY = "#2f6fb3", "#d9822b", "#8a94a3"

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


def page(result: Mapping[str, Any], index: ShardIndex) -> bytes:
    """The HTML page: one file, no script, nothing from the network; UTF-8.

    Args:
        result: What `inspect_shards` found.
        index: Where the sample cards are taken from, where photos may be opened.
    """
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(template).render(
        result=result,
        sets=[
            {
                "figures": result[name],
                "parts": list(parts(result[name])),
                "overview": overview(result[name]),
                "distributions": distributions(result[name]),
                "distributions_of_all": [
                    [title, *cells] for title, _, *cells in distributions({**result[name], "splits": {}})
                ],
                "entity_types": entity_types(result[name]),
                "photo_sizes": photo_sizes(result[name]),
                "bad_samples": bad_samples(result[name]),
                "plots": list(plots(result[name])),
            }
            for name in ("set", "other")
            if name in result
        ],
        cards=list(cards(index)) if result["options"]["photos_opened"] else [],
        leaks=leaks(result),
        leak_notes=leak_notes(result),
        number=number,
        percent=percent,
        summary=SUMMARY,
    )
    return html.encode("utf-8", "replace")


def cards(index: ShardIndex) -> Iterator[dict[str, Any]]:
    """A few samples of every split, each of another article, with a small photo."""
    for split, shards in index.shards.items():
        articles: set[tuple[str, ...]] = set()
        for raw in raw_samples(shards, []):
            if len(articles) >= max(1, CARDS // len(index.shards)):
                break
            try:
                sample = decode_record(raw)
                if sample.paragraphs not in articles:
                    photo = _thumbnail(raw.image, raw.key)
                    articles.add(sample.paragraphs)
                    yield {"split": split, "sample": sample, "photo": photo, **_marked(sample)}
            except UserError:  # counted among the bad samples
                continue


def _thumbnail(jpeg: bytes, key: str) -> str:
    image = open_image(jpeg, key, 480)
    image.thumbnail((480, 360))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return _data_url("image/jpeg", buffer.getvalue())


def _marked(sample: NewsSample) -> dict[str, Any]:
    """The caption in pieces (text, label of the entity or '', is it in the article), and its positives."""
    positive = sentence_labels(sample)
    found = find_caption_entities(sample, fold(" ".join(sample.paragraphs)), positive)
    pieces: list[tuple[str, str, bool]] = []
    at = 0
    for entity, where in sorted(zip(sample.caption_entities, found, strict=True), key=lambda p: p[0].start):
        if entity.start >= at:  # spans may overlap in the shards of others
            pieces.append((sample.caption[at : entity.start], "", False))
            pieces.append((entity.text, entity.label, where.words[0] is not None))
            at = entity.end
    pieces.append((sample.caption[at:], "", False))
    sentences = [s.text for s, is_positive in zip(sample.sentences, positive, strict=True) if is_positive]
    return {"pieces": pieces, "positive_sentences": sentences}


def plots(figures: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The plots of one set, as data URLs, with a title and what they mean."""
    found = figures["all"]["distributions"]
    for name, meaning in (
        ("words_per_caption", "How long the captions are that the model learns to write."),
        ("words_per_sentence", "How long the sentences are that pass 1 judges one by one."),
        ("words_per_article", "How much text a context must choose from."),
    ):
        if found[name]["count"]:
            yield _plot(TITLES[name].capitalize(), meaning, lambda ax, v=found[name]: _histogram(ax, v))
    if figures["all"]["entities_by_type"]:
        yield _plot(
            "Entity types",
            "What kinds of names stand in captions and in articles, as shares of all entities there.",
            lambda ax: _types(ax, figures["all"]["entities_by_type"]),
        )
    if figures["all"]["caption_entities"]:
        yield _plot(
            "Caption entities within the first N words",
            "What a model can copy that reads only so much; dashed: the whole article, the ceiling.",
            lambda ax: _curve(ax, figures["all"]["shares_of_caption_entities"]),
        )
    if found["positive_sentences_per_sample"]["count"]:
        yield _plot(
            "Positive and negative sentences",
            "How many sentences of an article share a visual entity with the caption, and how many none.",
            lambda ax: _positives(ax, found),
        )
    if found["photo_short_side_pixels"]["count"]:
        yield _plot(
            "Photo sizes",
            "Width and height as the files' headers tell them.",
            lambda ax: _sizes(ax, found),
        )
        yield _plot(
            "Photo files",
            "How many KiB a photo takes in its shard: what a training step reads.",
            lambda ax: _histogram(ax, found["photo_file_kibibytes"]),
        )


def _plot(title: str, meaning: str, draw: Any) -> dict[str, str]:
    """Draw one plot, without a display and without touching matplotlib's global state."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.hashsalt": "ealign",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": "#c9d0da",
        "axes.labelcolor": "#4a5568",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#e9edf2",
        "text.parse_math": False,  # a label may hold dollar signs
        "xtick.color": "#4a5568",
        "ytick.color": "#4a5568",
        "legend.frameon": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return {"title": title, "meaning": meaning, "url": _data_url("image/svg+xml", buffer.getvalue())}


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _histogram(ax: Axes, values: Mapping[str, Any], color: str = _BLUE, label: str = "") -> None:
    """A filled outline; several with labels share the axes, one alone shows its median."""
    from matplotlib.ticker import MaxNLocator

    bins = values["histogram"]
    width, counts = bins["bin_width"], bins["counts"]
    edges = [bins["first"] + place * width - 0.5 for place in range(len(counts) + 1)]
    shares = [100 * count / values["count"] for count in counts]
    ax.stairs(shares, edges, fill=True, color=color, alpha=0.35)
    ax.stairs(shares, edges, color=color, linewidth=1.2, label=label or None)
    middle, reach = (edges[0] + edges[-1]) / 2, max(4 * width, (edges[-1] - edges[0]) * 0.54)
    if not label:
        ax.set_xlim(max(-0.5, middle - reach), middle + reach)  # one narrow bin alone is no wall
        ax.axvline(values["median"], color=_ORANGE, linewidth=1.5, label=f"median {number(values['median'])}")
    ax.set_ylabel("% of all")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.grid(visible=False, axis="x")
    _legend(ax)


def _legend(ax: Axes) -> None:
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)


def _types(ax: Axes, types: Mapping[str, Mapping[str, int]]) -> None:
    shown = list(types.items())[:12][::-1]
    places = range(len(shown))
    for name, color, offset in (("in_captions", _ORANGE, 0.2), ("in_articles", _BLUE, -0.2)):
        total = sum(row[name] for row in types.values()) or 1
        shares = [100 * row[name] / total for _, row in shown]
        ax.barh([p + offset for p in places], shares, 0.38, color=color, label=name.replace("_", " "))
    ax.set_yticks(list(places), [printable(label[:20]) for label, _ in shown], fontsize=7)
    ax.set_xlabel("% of the entities there")
    ax.grid(visible=False, axis="y")
    _legend(ax)


def _curve(ax: Axes, shares: Mapping[str, Mapping[str, Any]]) -> None:
    # The wide line stays visible where both are equal.
    for (way, how), color, width in zip(WAYS.items(), (_BLUE, _ORANGE), (4, 1.3), strict=True):
        points = sorted((int(words), 100 * share) for words, share in shares[way]["in_first_words"].items())
        ax.plot(
            *zip((0, 0.0), *points, strict=True),
            color=color,
            linewidth=width,
            marker="o",
            markersize=width + 2,
            label=how,
        )
        ax.axhline(100 * shares[way]["in_article"], color=color, linestyle="--", linewidth=width / 1.5)
    ax.set(xlabel="first N words", ylabel="% of caption entities", ylim=(0, 105), xlim=(0, None))
    _legend(ax)


def _positives(ax: Axes, found: Mapping[str, Any]) -> None:
    _histogram(ax, found["negative_sentences_per_sample"], _GREY, "negative")
    _histogram(ax, found["positive_sentences_per_sample"], _BLUE, "positive")
    ax.set_xlabel("sentences per article")


def _sizes(ax: Axes, found: Mapping[str, Any]) -> None:
    _histogram(ax, found["photo_width_pixels"], _BLUE, "width")
    _histogram(ax, found["photo_height_pixels"], _ORANGE, "height")
    ax.set_xlim(0, 1.1 * ax.get_xlim()[1])
    ax.set_xlabel("pixels")
