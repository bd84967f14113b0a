"""Draw docs/architecture.svg: the rooms of the package, floor by floor, and how news becomes captions.

The words come from docs/architecture.toml; floors, and which rooms may import torch and LAVIS, come from
tests/test_walls.py, so that the picture shows what is enforced. Run it with the environment's Python, or by
``make docs``: python docs/make_architecture.py [--out FILE.svg|FILE.png]
"""

from __future__ import annotations

import argparse
import hashlib
import runpy
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "architecture.toml"
WALLS = ROOT / "tests" / "test_walls.py"

INK, SOFT = "#1d2733", "#56636f"
COLOURS = {  # kind of room → (what the key says, fill, border)
    "plain": ("plain Python", "#e4f2e3", "#5a9a5b"),
    "torch": ("may import torch", "#e2edf9", "#5486bd"),
    "lavis": ("may import LAVIS", "#fdebd5", "#d18a35"),
}
PAPER = ("", "#f6f7f8", "#8a949e")  # a step of the data flow

# Inches. Text of 13 points stays readable where the picture is shown 400 pixels wide.
WIDTH, EDGE, GAP = 8.0, 0.22, 0.16
HEIGHT = {"room": 1.0, "low": 0.78, "step": 0.96}
NAME, TEXT = 15, 12.5


def read_source() -> dict[str, Any]:
    """The words of the picture, and the walls: ``rooms``, ``titles``, ``flow``, ``floors``, ``kinds``.

    Raises:
        SystemExit: A room of the walls' test has no words.
    """
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    walls = runpy.run_path(str(WALLS))
    source["floors"] = [list(floor) for floor in walls["FLOORS"]]
    rooms = [room for floor in source["floors"] for room in floor]
    if missing := set(rooms) - set(source["rooms"]):
        raise SystemExit(f"{SOURCE}: [rooms] has no words for {', '.join(sorted(missing))}")
    source["kinds"] = {
        room: "lavis"
        if room in walls["MAY_IMPORT_LAVIS"]
        else "plain"
        if room in walls["WITHOUT_TORCH"]
        else "torch"
        for room in rooms
    }
    return source


def digest(source: dict[str, Any]) -> str:
    """Identifies a source and this script; the picture carries it, so that a test can tell an old picture."""
    return hashlib.sha256((repr(source) + Path(__file__).read_text(encoding="utf-8")).encode()).hexdigest()[
        :16
    ]


def box(axes: Axes, x: float, y: float, width: float, height: float, colour: tuple[str, str, str]) -> None:
    _, fill, border = colour
    style = "round,pad=0,rounding_size=0.09"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, style, facecolor=fill, edgecolor=border, linewidth=1.4)
    )


def room(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    colour: tuple[str, str, str],
    name: str,
    text: str,
) -> None:
    """A box with a name in bold and at most two lines of text."""
    box(axes, x, y, width, height, colour)
    lines = textwrap.wrap(text, int(width / 0.098))
    center = x + width / 2
    top = y + height / 2 + 0.115 * len(lines)
    axes.text(center, top, name, size=NAME, weight="bold", color=INK, ha="center", va="center")
    for number, line in enumerate(lines):
        axes.text(center, top - 0.27 - 0.21 * number, line, size=TEXT, color=INK, ha="center", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=17, color=SOFT, linewidth=1.8, shrinkA=0, shrinkB=0
        )
    )


def row(names: list[str], width: float) -> list[tuple[str, float, float]]:
    """(name, x, width) of boxes that fill a row."""
    each = (width - GAP * (len(names) - 1)) / len(names)
    return [(name, EDGE + number * (each + GAP), each) for number, name in enumerate(names)]


def draw(source: dict[str, Any]) -> pyplot.Figure:
    """The whole picture, from the top floor down, the data flow below it."""
    titles, kinds, words = source.get("titles", {}), source["kinds"], source["rooms"]
    rows = [("low" if len(floor) == 1 else "room", floor) for floor in reversed(source["floors"][1:])]
    ground = source["floors"][0]
    half = (len(ground) + 1) // 2
    rows += [("low", ground[half:]), ("low", ground[:half])]
    steps = [source["flow"][start : start + 3] for start in range(0, len(source["flow"]), 3)]
    heights = sum(HEIGHT[kind] + GAP for kind, _ in rows)
    total = 1.12 + heights + 0.86 + len(steps) * (HEIGHT["step"] + 0.34)

    figure = pyplot.figure(figsize=(WIDTH, total))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, total))
    axes.axis("off")
    inner = WIDTH - 2 * EDGE

    y = total - 0.36
    axes.text(EDGE, y, source["title"], size=20, weight="bold", color=INK, va="center")
    y -= 0.4
    axes.text(EDGE, y, source["rule"], size=TEXT + 0.5, color=SOFT, va="center")
    y -= 0.36
    for kind, names in rows:
        y -= HEIGHT[kind]
        for name, x, width in row(names, inner):
            room(axes, x, y, width, HEIGHT[kind], COLOURS[kinds[name]], titles.get(name, name), words[name])
        y -= GAP

    # The key of the colours.
    y -= 0.1
    x = EDGE
    for label, fill, border in COLOURS.values():
        style = "round,pad=0,rounding_size=0.04"
        axes.add_patch(
            FancyBboxPatch((x, y - 0.1), 0.24, 0.2, style, facecolor=fill, edgecolor=border, linewidth=1.2)
        )
        axes.text(x + 0.34, y, label, size=TEXT, color=SOFT, va="center")
        x += 2.52

    y -= 0.62
    axes.text(EDGE, y, "From news to captions", size=20, weight="bold", color=INK, va="center")
    y -= 0.34
    each = (inner - 2 * 0.42) / 3
    height = HEIGHT["step"]
    for number, line in enumerate(steps):
        y -= height
        rightwards = number % 2 == 0
        for place, step in enumerate(line):
            column = place if rightwards else 2 - place
            x = EDGE + column * (each + 0.42)
            room(axes, x, y, each, height, PAPER, step["title"], step["text"])
            if place < len(line) - 1:
                middle = y + height / 2
                ends = (x + each + 0.05, x + each + 0.38) if rightwards else (x - 0.05, x - 0.38)
                arrow(axes, (ends[0], middle), (ends[1], middle))
            elif number < len(steps) - 1:
                arrow(axes, (x + each / 2, y - 0.03), (x + each / 2, y - 0.33))
        y -= 0.36
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "architecture.svg", help="an SVG or PNG file"
    )
    out = parser.parse_args().out
    source = read_source()
    matplotlib.rcParams.update({"svg.hashsalt": "ealign", "font.family": "DejaVu Sans"})
    figure = draw(source)
    if out.suffix == ".svg":
        figure.savefig(out, metadata={"Date": None, "Description": f"source {digest(source)}"})
    else:
        figure.savefig(out, dpi=100)
    print(f"{out} drawn from {SOURCE.relative_to(ROOT)} and {WALLS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
