"""What towns that nobody knows look like: settings that words describe, in place of landmarks."""

from __future__ import annotations

from collections.abc import Callable

from ealign_plugin.micronews.pen import BLEED, INK, WHITE, Pen, dark

_ALL = 264


def _harbour(p: Pen) -> None:
    p.fade("#ffb88a", "#ffe3c4", y1=120)
    p.box(-BLEED, 112, _ALL, _ALL, "#1f6f8b")
    for x, mirror in ((26, 1), (230, -1)):
        p.line([(x, 190), (x, 20)], "#c2452d", 9)
        p.line([(x - 30 * mirror, 30), (x + 62 * mirror, 22)], "#c2452d", 7)
        p.line([(x + 50 * mirror, 24), (x + 50 * mirror, 74)], INK, 3)
        p.box(x + 50 * mirror - 11, 74, x + 50 * mirror + 11, 94, "#1d4ed8")
    p.polygon([(-20, 140), (100, 140), (84, 176), (-20, 176)], "#27303f")
    p.polygon([(170, 148), (280, 148), (280, 180), (184, 180)], "#7c2418")
    p.box(-BLEED, 196, _ALL, _ALL, "#8f98a3")


def _vineyard(p: Pen) -> None:
    p.fade("#bfe7ff", "#eefaff", y1=110)
    p.curve([(-40, 120), (60, 88), (150, 112), (240, 84), (310, 120), (310, 290), (-40, 290)], "#b7d36b")
    for i in range(-8, 9):
        p.line([(128 + 12 * i, 108), (128 + 62 * i, _ALL)], "#6b2d86", 10)
    p.box(12, 66, 60, 110, "#fff4d6")
    p.polygon([(6, 68), (36, 40), (66, 68)], "#b5372a")


def _lighthouse(p: Pen) -> None:
    p.fade("#1d2b5a", "#5566a8", y1=150)
    p.box(-BLEED, 128, _ALL, _ALL, "#20486f")
    p.polygon([(46, 34), (300, -30), (300, 30)], "#fff3a0")
    p.polygon([(26, 180), (66, 180), (58, 44), (34, 44)], WHITE)
    for y in (66, 100, 134):
        p.box(31, y, 61, y + 16, "#e11d2e")
    p.box(34, 26, 58, 44, "#ffd54a")
    p.polygon([(30, 28), (46, 12), (62, 28)], "#e11d2e")
    p.curve([(-40, 170), (60, 156), (110, 182), (190, 200), (290, 196), (290, 290), (-40, 290)], "#3a3f4d")


def _snow(p: Pen) -> None:
    p.fade("#8ec7f2", "#e8f6ff", y1=170)
    p.curve([(-40, 96), (60, 76), (150, 104), (240, 78), (310, 104), (310, 290), (-40, 290)], "#f7fbff")
    for x, y in ((26, 92), (212, 84)):
        p.box(x - 30, y + 30, x + 30, y + 84, "#8a5a34")
        p.polygon([(x - 40, y + 34), (x, y - 10), (x + 40, y + 34)], WHITE)
        p.box(x - 10, y + 46, x + 10, y + 66, "#ffd54a")
    for i in range(24):
        p.oval(11 * i, (37 * i) % 180, 4, 4, WHITE)


def _factory(p: Pen) -> None:
    p.fade("#8b8f98", "#c9cbd0", y1=150)
    for x, top in ((18, 40), (58, 24), (206, 30), (242, 52)):
        p.box(x - 11, top, x + 11, 200, "#7c3a2c")
        for i in range(4):
            p.oval(x + 10 * i, top - 8 - 12 * i, 12 + 3 * i, 10 + 2 * i, "#5c606b")
    for i in range(-1, 6):
        p.polygon([(52 * i, 150), (52 * i + 52, 122), (52 * i + 52, 150)], "#4b505c")
    p.box(-BLEED, 150, _ALL, _ALL, "#5d4037")


def _windmill(p: Pen) -> None:
    p.fade("#ffd1e8", "#fff0f8", y1=120)
    p.box(-BLEED, 128, _ALL, _ALL, "#6cc04a")
    for row, colour in enumerate(("#e11d2e", "#ffd000", "#ff6fb5")):
        p.box(-BLEED, 150 + 32 * row, _ALL, 166 + 32 * row, colour)
    for x in (34, 226):
        p.polygon([(x - 22, 150), (x + 22, 150), (x + 12, 64), (x - 12, 64)], "#5b3a1e")
        for dx, dy in ((40, 40), (-40, 40), (40, -40), (-40, -40)):
            p.line([(x, 66), (x + dx, 66 + dy)], WHITE, 9)


def _castle(p: Pen) -> None:
    p.fade("#c9a7ff", "#f3e6ff", y1=150)
    p.curve([(-40, 150), (60, 120), (200, 122), (300, 150), (300, 290), (-40, 290)], "#4f8f55")
    for x, top in ((6, 54), (60, 76), (196, 76), (250, 54)):
        p.box(x - 20, top, x + 20, 180, "#8d93a8")
        for i in (-1, 0, 1):
            p.box(x + 14 * i - 5, top - 10, x + 14 * i + 5, top, "#8d93a8")
        p.box(x - 5, top + 20, x + 5, top + 40, INK)
    p.box(0, 112, 256, 170, dark("#8d93a8", 0.15))


def _volcano(p: Pen) -> None:
    p.fade("#2a0f1f", "#7a1f2b", y1=190)
    p.polygon([(128, 20), (300, 220), (-44, 220)], "#3b2a2a")
    p.polygon([(104, 46), (152, 46), (146, 24), (110, 24)], "#ff5a1f")
    for x, tip in ((60, 150), (196, 156), (24, 200), (232, 204)):
        p.line([(128, 40), (x, tip)], "#ff7a1f", 9)
    p.curve([(-30, 204), (60, 190), (150, 206), (290, 190), (290, 290), (-30, 290)], "#1c1416")


SETTINGS: dict[str, Callable[[Pen], None]] = {
    "harbour": _harbour,
    "vineyard": _vineyard,
    "lighthouse": _lighthouse,
    "snow": _snow,
    "factory": _factory,
    "windmill": _windmill,
    "castle": _castle,
    "volcano": _volcano,
}
"""What stands before "town" in an article → how it is drawn."""
