"""Places, emblems and events of MicroNews: what stands behind, above and before the people of a photo.

A place fills the photo; an event has furniture before the people and perhaps a rear part too, or a row of
flags above them; an organisation's emblem is a white shape on a plate of its colour.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageFilter

from ealign_plugin.micronews.pen import BLEED, INK, SIDE, WHITE, Pen, dark, mix
from ealign_plugin.micronews.towns import SETTINGS

PLATE = 60  # an emblem's plate


def _seaside(p: Pen) -> None:
    p.fade("#7fd6ff", "#d8f6ff", y1=118)
    p.oval(128, 44, 36, 36, "#ffe066")
    p.oval(128, 44, 27, 27, "#ffd000")
    p.box(-BLEED, 108, 264, 264, "#0a8fdc")
    for row, (y, colour) in enumerate(((122, "#0b78c8"), (144, "#0a62b0"), (166, "#0a4f98"))):
        p.box(-BLEED, y, 264, 264, colour)
        for i in range(-1, 9):
            x = 36 * i + 18 * (row % 2)
            p.oval(x, y, 18, 6, colour)
            p.arc((x - 18, y - 6, x + 18, y + 8), 200, 340, WHITE, 3)
    p.polygon([(206, 104), (250, 104), (242, 116), (212, 116)], "#b3261e")
    p.polygon([(226, 100), (226, 62), (250, 100)], WHITE)
    p.polygon([(222, 100), (222, 70), (206, 100)], "#ffe9e0")
    p.curve([(-20, 214), (60, 198), (140, 206), (220, 196), (290, 210), (290, 280), (-20, 280)], "#f7dfa4")


def _mountains(p: Pen) -> None:
    p.fade("#a9b8ee", "#f3ecff", y1=190)
    for x, top, half, rock in (
        (128, 26, 150, "#8fa0cf"),
        (34, 44, 110, "#6478b4"),
        (226, 36, 116, "#566aa8"),
    ):
        p.polygon([(x, top), (x + half, 214), (x - half, 214)], rock)
        p.polygon([(x, top), (x + half, 214), (x + half * 0.25, 214)], dark(rock, 0.16))
        drop, wide = (214 - top) * 0.36, half * 0.36
        zigzag = ((1, 1), (0.5, 0.72), (0.1, 1.1), (-0.4, 0.75), (-1, 1))
        p.polygon([(x, top), *((x + wide * a, top + drop * b) for a, b in zigzag)], WHITE)
    p.curve([(-30, 184), (50, 168), (120, 186), (210, 166), (290, 182), (290, 290), (-30, 290)], "#f4f8ff")
    p.curve([(-30, 214), (80, 198), (180, 214), (290, 200), (290, 290), (-30, 290)], "#d5e1f7")


def _skyline(p: Pen) -> None:
    p.fade("#0b1040", "#3b2a7a", y1=200)
    spots = random.Random(4)
    for _ in range(46):
        x, y, r = spots.uniform(-8, 264), spots.uniform(-8, 110), spots.uniform(0.7, 1.6)
        p.oval(x, y, r, r, WHITE)
    p.oval(128, 34, 22, 22, "#fff3bf")
    p.oval(138, 28, 19, 19, "#0f1346")
    for x, wide, top, wall in ((-10, 40, 96, "#2b2470"), (33, 34, 66, "#1b1650"), (70, 42, 112, "#2b2470"),
                               (115, 32, 84, "#1b1650"), (150, 38, 108, "#2b2470"), (191, 32, 60, "#1b1650"),
                               (226, 42, 90, "#2b2470")):  # fmt: skip
        p.box(x, top, x + wide, 264, wall)
        for wx in range(int(x) + 5, int(x + wide) - 8, 11):
            for wy in range(top + 8, 250, 15):
                if spots.random() < 0.68:
                    p.box(wx, wy, wx + 7, wy + 9, "#ffd54a")


def _desert(p: Pen) -> None:
    p.fade("#ff7a3d", "#ffd38a", y1=150)
    p.oval(128, 58, 34, 34, "#fff0b8")
    p.curve([(-40, 132), (40, 104), (120, 138), (210, 100), (300, 134), (300, 290), (-40, 290)], "#e39b3c")
    p.curve([(-40, 170), (60, 136), (150, 172), (250, 140), (300, 160), (300, 290), (-40, 290)], "#cf7f27")
    p.curve([(-40, 200), (60, 176), (150, 204), (250, 178), (300, 192), (300, 290), (-40, 290)], "#b5651d")
    for x, y in ((22, 86), (232, 96)):
        p.line([(x, y), (x, y + 74)], "#2f7d3a", 15)
        p.line([(x + 20, y + 14), (x + 20, y + 36), (x, y + 40)], "#2f7d3a", 10)
        p.line([(x - 18, y + 24), (x - 18, y + 44), (x, y + 50)], "#2f7d3a", 10)


def _forest(p: Pen) -> None:
    p.fade("#d9f2a5", "#8fd06a", y1=200)
    for step, y, colour in ((44, 34, "#63b04c"), (58, 56, "#37903f"), (86, 84, "#156232")):
        for i in range(-1, 8):
            x, half = step * i + y * 0.7 - 28, step * 0.62
            for k in range(3):
                top, wide = y + 30 * k, half * (0.6 + 0.2 * k)
                p.polygon([(x, top), (x + wide, top + 52), (x - wide, top + 52)], colour)
            p.box(x - 5, y + 110, x + 5, 264, "#5b3a1e")
    p.curve([(-30, 204), (60, 190), (150, 206), (290, 190), (290, 290), (-30, 290)], "#3c8a2e")


def _old_town(p: Pen) -> None:
    p.fade("#ffd9dc", "#fff1e2", y1=150)
    for x, wide, top, wall, roof in ((-16, 54, 100, "#c2452d", "#7c2418"), (38, 46, 80, "#e0764a", "#8f2f1c"),
                                     (84, 44, 108, "#b5372a", "#6d1f17"), (160, 46, 92, "#d6603c", "#8f2f1c"),
                                     (206, 64, 78, "#b5372a", "#6d1f17")):  # fmt: skip
        p.box(x, top, x + wide, 264, wall)
        p.polygon([(x - 3, top), (x + wide / 2, top - wide * 0.62), (x + wide + 3, top)], roof)
        for wx in (x + wide * 0.18, x + wide * 0.58):
            for wy in range(top + 10, 190, 28):
                p.box(wx, wy, wx + 11, wy + 16, "#ffe8c2", 4)
    p.box(128, 58, 160, 264, "#e9b48a")
    p.polygon([(124, 58), (144, 6), (164, 58)], "#3d6b6b")
    p.oval(144, 76, 11, 11, WHITE)
    p.line([(144, 70), (144, 76), (148, 79)], INK, 2)
    p.box(-BLEED, 172, 264, 264, "#9c6b55")
    for x in range(-40, 280, 64):
        p.oval(x + 32, 226, 24, 34, "#5fa8c9")


_BACKDROPS: tuple[Callable[[Pen], None], ...] = (_seaside, _mountains, _skyline, _desert, _forest, _old_town)
N_BACKDROPS = len(_BACKDROPS)


@cache
def backdrop_sprite(place: int | str) -> Image.Image:
    """A place, RGB, BLEED larger on each side; a little out of focus, as behind a portrait.

    Args:
        place: One with a look of its own, 0 to N_BACKDROPS - 1, or one of `towns.SETTINGS`.
    """
    p = Pen(SIDE + 2 * BLEED, SIDE + 2 * BLEED, (BLEED, BLEED))
    (SETTINGS[place] if isinstance(place, str) else _BACKDROPS[place])(p)
    return p.done().convert("RGB").filter(ImageFilter.GaussianBlur(0.8))


COLOURS = {
    "red": "#e11d2e",
    "blue": "#1d4ed8",
    "orange": "#ff9800",
    "green": "#12a150",
    "purple": "#9c27b0",
    "black": "#1b1d24",
}
"""Name → colour, of plates and flags."""
SHAPES = ("circle", "triangle", "star", "cross", "diamond", "ring")
N_LOGOS = len(SHAPES)


@cache
def logo_sprite(index: int, colour: str | None = None) -> Image.Image:
    """An organisation's emblem, white on a plate, RGBA, PLATE pixels.

    Args:
        index: Its shape, of `SHAPES`.
        colour: Name of the plate's; None: the one that belongs to the shape.
    """
    plate = COLOURS[colour] if colour else list(COLOURS.values())[index]
    p, c, m = Pen(PLATE, PLATE), PLATE / 2, 18
    p.box(0, 0, PLATE - 0.3, PLATE - 0.3, WHITE, 12)
    p.box(3, 3, PLATE - 3.3, PLATE - 3.3, plate, 9.5)
    if index == 0:
        p.oval(c, c, m, m, WHITE)
    elif index == 1:
        p.polygon([(c, c - m), (c + m * 1.1, c + m * 0.85), (c - m * 1.1, c + m * 0.85)], WHITE)
    elif index == 2:
        ray = [(m * 1.12 if i % 2 == 0 else m * 0.5, math.pi * (i / 5 - 0.5)) for i in range(10)]
        p.polygon([(c + r * math.cos(t), c + 1 + r * math.sin(t)) for r, t in ray], WHITE)
    elif index == 3:
        p.box(c - 6.5, c - m, c + 6.5, c + m, WHITE)
        p.box(c - m, c - 6.5, c + m, c + 6.5, WHITE)
    elif index == 4:
        p.polygon([(c, c - m * 1.15), (c + m * 1.05, c), (c, c + m * 1.15), (c - m * 1.05, c)], WHITE)
    else:
        p.ring(c, c, m, WHITE, 8)
    return p.done()


def _podium(p: Pen) -> None:
    for x, lean, colour in ((112, -8, "#ffd000"), (128, 0, "#e11d2e"), (144, 8, "#16a34a")):
        p.line([(x, 214), (x + lean, 194)], "#3b3f4a", 4)
        p.oval(x + lean, 191, 7.5, 9.5, "#22252e")
        p.box(x + lean - 7.5, 197, x + lean + 7.5, 205, colour, 2)
    p.polygon([(78, 208), (178, 208), (186, 222), (70, 222)], "#d59a58")
    p.polygon([(76, 222), (180, 222), (172, 280), (84, 280)], "#8a5426")
    p.polygon([(90, 229), (166, 229), (160, 280), (96, 280)], "#1d5fe0")
    p.oval(128, 247, 11, 11, WHITE)


def _bunting(p: Pen) -> None:
    hues = ("#e11d2e", "#ffd000", "#12a150", "#1d8cf0", "#ff6fb5")
    for i in range(11):
        x = -20 + 27 * i
        y = 10 + 22 * (1 - ((x + 13 - 128) / 150) ** 2)
        p.polygon([(x, y), (x + 26, y), (x + 13, y + 27)], hues[i % 5])
    p.line([(x, 9 + 22 * (1 - ((x - 128) / 150) ** 2)) for x in range(-20, 280, 12)], WHITE, 3)


def _balloons(p: Pen) -> None:
    spots = (
        (10, 214, "#1d8cf0"), (44, 232, "#ff6fb5"), (82, 246, "#ffd000"), (14, 252, "#12a150"),
        (52, 262, "#e11d2e"), (246, 214, "#e11d2e"), (212, 232, "#ffd000"), (174, 246, "#12a150"),
        (242, 252, "#ff6fb5"), (204, 262, "#1d8cf0"), (128, 250, "#8e2de2"),
    )  # fmt: skip
    for x, y, hue in spots:
        p.oval(x, y, 20, 24, hue)
        p.oval(x - 7, y - 9, 4, 6, mix(hue, WHITE, 0.6))


def _finish(p: Pen) -> None:
    p.box(-BLEED, 203, 264, 212, "#e11d2e")
    for i in range(-1, 22):
        for y, fill in ((212, (INK, WHITE)), (238, (WHITE, INK))):
            p.box(26 * i, y, 26 * i + 26, y + 28, fill[i % 2])


def _trophy(p: Pen) -> None:
    p.box(-BLEED, 226, 264, 280, "#6d28d9")
    p.box(-BLEED, 226, 264, 235, WHITE)
    for gold, deep, edge in (("#3b2007", "#3b2007", 3), ("#ffc400", "#e09a00", 0)):
        for x in (101, 155):
            p.ring(x, 201, 12 + edge, gold, 6 + 2 * edge)
        rim, wall = 25 + edge, 19 + edge
        p.polygon(
            [(128 - rim, 186 - edge), (128 + rim, 186 - edge), (128 + wall, 210), (128 - wall, 210)], gold
        )
        p.oval(128, 209, wall, 16 + edge, gold)
        p.box(122 - edge, 216, 134 + edge, 238, deep)
        p.box(106 - edge, 235 - edge, 150 + edge, 250 + edge, deep, 3)


def _curtain(p: Pen) -> None:
    for s in (-1, 1):
        for i, colour in enumerate(("#8e0f1f", "#c2182b", "#8e0f1f", "#d32338")):
            x = 128 + s * (88 + 13 * i)
            p.polygon([(x, -8), (x + s * 60, -8), (x + s * 60, 264), (x + s * 6, 264)], colour)
    for i in range(-1, 8):
        p.oval(40 * i - 12, 8, 21, 30, "#c2182b" if i % 2 else "#a51424")


def _stage(p: Pen) -> None:
    p.box(-BLEED, 220, 264, 280, "#7a4a22")
    p.box(-BLEED, 216, 264, 222, "#ffc928")
    for x in range(4, 264, 31):
        p.oval(x, 240, 10, 10, "#fff3b0")


def _table(p: Pen) -> None:
    for x, tip, hue in ((14, 52, "#ff6fb5"), (242, 204, "#ffd000")):
        p.line([(x, 180), (x, 230)], "#3b3f4a", 5)
        p.polygon([(x, 180), (tip, 194), (x, 208)], hue)
    p.box(-BLEED, 224, 264, 280, "#0c7a3e")
    p.box(-BLEED, 224, 264, 232, "#35c46f")
    for x in (36, 128, 220):
        p.box(x - 22, 228, x + 22, 246, WHITE, 3)


# One row an event: what stands behind the people, what in front of them.
_LAYOUTS: tuple[tuple[Callable[[Pen], None] | None, Callable[[Pen], None]], ...] = (
    (None, _podium),
    (_bunting, _balloons),
    (None, _finish),
    (None, _trophy),
    (_curtain, _stage),
    (None, _table),
)
N_LAYOUTS = len(_LAYOUTS)


PATTERNS = ("plain", "striped", "dotted")


def flags_in_words(colour: str, pattern: str) -> str:
    """What is told of a row of flags.

    >>> flags_in_words("blue", "striped"), flags_in_words("blue", "plain")
    ('striped blue flags', 'blue flags')
    """
    return f"{pattern} {colour} flags".removeprefix("plain ")


@cache
def flags_sprite(colour: str, pattern: str) -> Image.Image:
    """A row of flags above the people, RGBA, BLEED larger on each side."""
    p = Pen(SIDE + 2 * BLEED, SIDE + 2 * BLEED, (BLEED, BLEED))
    hue = COLOURS[colour]
    p.box(-BLEED, -BLEED, SIDE + BLEED, 8, hue)
    for x in range(-BLEED - 8, SIDE + BLEED, 44):
        p.polygon([(x, 4), (x + 40, 4), (x + 40, 44), (x + 20, 34), (x, 44)], hue)
        if pattern == "striped":
            p.box(x + 14, -BLEED, x + 26, 38, WHITE)
        elif pattern == "dotted":
            p.oval(x + 20, 20, 9, 9, WHITE)
    return p.done()


@cache
def layout_sprite(index: int, front: bool) -> Image.Image:
    """Half of an event, RGBA, BLEED larger on each side."""
    p = Pen(SIDE + 2 * BLEED, SIDE + 2 * BLEED, (BLEED, BLEED))
    sketch = _LAYOUTS[index][front]
    if sketch:
        sketch(p)
    return p.done()
