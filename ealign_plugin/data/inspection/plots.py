"""The plots of an inspection, as pictures in data URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ealign_plugin.data.inspection.rows import TITLES, WAYS, number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_BLUE, _ORANGE, _GREY = "#2f6fb3", "#d9822b", "#8a94a3"


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
    return {"title": title, "meaning": meaning, "url": data_url("image/svg+xml", buffer.getvalue())}


def data_url(kind: str, content: bytes) -> str:
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
