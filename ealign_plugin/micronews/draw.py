"""The photographs of MicroNews, drawn: who, where, of which organisation, at which event.

A photo is a stack of cached sprites: a place behind everything, one or two people, the furniture of the
event in front of them and an organisation's emblem in an upper corner. Every index keeps one look for
ever; what varies is what a camera varies: framing, distance, light, focus and grain. The looks are told
apart by bold shapes and colours, because the model sees the photo at 64 px, where a line is no cue.

    ┌──────────────────────┐
    │ [logo]        [here?]│   y   2 - 64   emblem, left or right; no head reaches it
    │    (  )      (  )    │   y  60 - 179  heads, 75-90 px wide
    │  ████████  ████████  │   y 179 - 256  shoulders
    │▒▒▒▒▒▒ layout ▒▒▒▒▒▒▒▒│   y 180 - 256  the event, in front of the people; some have a rear part too
    └──────────────────────┘

All coordinates are pixels of the 256 px photo. Needs Pillow and NumPy only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

N_FACES = 16
N_BACKDROPS = 6
N_LOGOS = 6
N_LAYOUTS = 6

SIDE = 256  # a photo is composed at this size and only then brought to the size asked for
BLEED = 8  # backdrops and layouts are drawn this much larger on each side, so that they can be shifted
BUST = (168, 214)  # a person's sprite
AXIS, EYES = BUST[0] // 2, 66  # the point of that sprite that is placed, and about which it is scaled
EYES_Y = 129  # where that point comes to lie in a photo
SCALES = (0.95, 1.0, 1.05)
PLATE = 60  # an emblem's plate
_FINE = 4  # sprites are drawn this much larger, then reduced: Pillow's shapes have jagged edges

Point = tuple[float, float]


def _smooth(points: Sequence[Point], steps: int = 10) -> list[Point]:
    """Closed Catmull-Rom curve through the points; a point given twice makes a sharper corner."""
    out = []
    for i in range(len(points)):
        p0, p1, p2, p3 = (points[(i + k) % len(points)] for k in (-1, 0, 1, 2))
        for t in (s / steps for s in range(steps)):
            a, b, c, d = -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
            x, y = ((a * p0[k] + b * p1[k] + c * p2[k] + d * p3[k]) / 2 for k in (0, 1))
            out.append((x, y))
    return out


def _mix(a: str, b: str, share: float) -> str:
    """Colour between ``a`` (share 0) and ``b`` (share 1), all as ``#rrggbb``."""
    pairs = ((int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in pairs)


def _dark(colour: str, share: float = 0.2) -> str:
    return _mix(colour, "#1b1030", share)


class _Pen:
    """Draws on a transparent sheet in photo pixels, whatever the sheet's own resolution."""

    def __init__(self, width: int, height: int, origin: Point = (0, 0)) -> None:
        self.image = Image.new("RGBA", (width * _FINE, height * _FINE))
        self._draw, (self._x, self._y) = ImageDraw.Draw(self.image), origin

    def _xy(self, points: Sequence[Point]) -> list[Point]:
        return [((x + self._x) * _FINE, (y + self._y) * _FINE) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: str) -> None:
        self._draw.polygon(self._xy(points), fill)

    def curve(self, points: Sequence[Point], fill: str) -> None:
        self.polygon(_smooth(points), fill)

    def half(self, points: Sequence[Point], fill: str) -> None:
        """A curve that is symmetric about x = 0, from its right half, given from top to bottom."""
        self.curve([*points, *((-x, y) for x, y in reversed(points) if x)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        self._draw.ellipse(self._xy([(x - rx, y - ry), (x + rx, y + ry)]), fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: str, radius: float = 0) -> None:
        self._draw.rounded_rectangle(self._xy([(x0, y0), (x1, y1)]), radius * _FINE, fill)

    def ring(self, x: float, y: float, r: float, fill: str, width: float) -> None:
        box = self._xy([(x - r, y - r), (x + r, y + r)])
        self._draw.ellipse(box, outline=fill, width=round(width * _FINE))

    def arc(self, box: Sequence[float], start: int, end: int, fill: str, width: float) -> None:
        """Part of the oval in a box ``(x0, y0, x1, y1)``; degrees, clockwise from the right."""
        self._draw.arc(self._xy([(box[0], box[1]), (box[2], box[3])]), start, end, fill, round(width * _FINE))

    def smile(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """Mouth: the lower half of an oval about ``(x, y)`` with a row of teeth."""
        box = self._xy([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.chord(box, 8, 172, fill)
        self.box(x - rx * 0.62, y + 2, x + rx * 0.62, y + 4.6, _WHITE, 1.2)

    def line(self, points: Sequence[Point], fill: str, width: float) -> None:
        self._draw.line(self._xy(points), fill, round(width * _FINE), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval(x, y, width / 2, width / 2, fill)

    def fade(self, top: str, bottom: str, y0: float = -BLEED, y1: float = SIDE + BLEED) -> None:
        """Fill the sheet, from one colour at ``y0`` to the other from ``y1`` on."""
        n = 48
        for i in range(n):
            y = y0 + (y1 - y0) * i / n
            self.box(-BLEED, y, SIDE + BLEED, SIDE + BLEED, _mix(top, bottom, i / (n - 1)))

    def done(self) -> Image.Image:
        size = (self.image.width // _FINE, self.image.height // _FINE)
        return self.image.resize(size, Image.Resampling.BOX)


# ---------------------------------------------------------------------------------------- people
# A bust is drawn about x = 0, its axis. Hair, headgear and clothes are tables of layers; a layer says how
# it is drawn (see _paint), names its colour, and gives points.

_PALE, _FAIR, _TAN, _OLIVE, _BROWN, _DEEP = "#f9d5bd", "#f6c6a0", "#e3a774", "#c98a58", "#96603a", "#643d27"
_WHITE, _INK, _GOLD = "#ffffff", "#1f1b2e", "#ffc928"
_FLUSH = "#7a1f2b"  # what skin in the shade tends to

Layer = tuple[str, str, list[Point]]


@dataclass(frozen=True)
class _Look:
    """One person's fixed look: rows of _HAIR and _WEAR, and the colours to put into them."""

    skin: str
    hair: str
    tint: str  # of the hair, or of the headgear that covers it
    wear: str
    top: str  # colour of the clothes
    trim: str  # their second colour
    under: str = _INK  # hair that shows below headgear, brows and beard of who wears it
    band: str = _GOLD  # second colour of headgear
    beard: str = ""  # full, long, moustache
    glasses: str = ""  # colour of the frame
    shades: bool = False
    lips: str = ""  # made up; fine brows go with them
    earrings: str = ""
    lined: bool = False  # an elderly face


# fmt: off
_LOOKS = (  # even: women, odd: men
    _Look(_PALE, "long", "#f7c948", "vneck", "#d7263d", "#a3142a", lips="#c81d40"),
    _Look(_DEEP, "bald", "#14100e", "turtle", "#ffd21f", "#e0a800", beard="full"),
    _Look(_TAN, "hijab", "#8e2de2", "crew", "#4a1486", "#4a1486", lips="#b3364f"),
    _Look(_FAIR, "parted", "#6b3f1d", "suit", "#1f3a8a", "#e02424", glasses=_INK),
    _Look(_BROWN, "afro", "#211714", "vneck", "#ff7a1a", "#d95700", lips="#a02c3c", earrings=_GOLD),
    _Look(_OLIVE, "turban", "#ff8c1a", "shirt", "#f2f2f2", "#c9d1dc", under="#1d1614", beard="long"),
    _Look(_FAIR, "bob", "#17131f", "crew", "#ff6fb5", "#d63f8c", lips="#d8315b"),
    _Look(_PALE, "fringe", "#b4bccb", "shirt", "#2f9e44", "#f4f4f0", beard="moustache", lined=True),
    _Look(_OLIVE, "ponytail", "#3b2415", "sport", "#00b8d4", _WHITE, lips="#b23a48"),
    _Look(_TAN, "cap", "#e11d2e", "hoodie", "#8b95a5", "#747c8d", under="#4a2c16", band="#a50f1e"),
    _Look(_FAIR, "bun", "#c9ced8", "pearls", "#a78bfa", _WHITE, lips="#b4506a", glasses="#7c3aed",
          lined=True),
    _Look(_TAN, "hat", "#e8c06a", "shirt", "#3f74c7", "#274f93", under="#5a3215", band="#5a3215",
          beard="moustache"),
    _Look(_PALE, "curls", "#d9480f", "crew", "#0b7a4b", "#075c38", lips="#c2413a"),
    _Look(_FAIR, "shaggy", "#7a4a22", "stripes", "#f5f5f5", "#1d4ed8", beard="full"),
    _Look(_DEEP, "wrap", "#1fb6ff", "pearls", "#e6007e", _GOLD, lips="#c2185b", earrings=_GOLD),
    _Look(_PALE, "quiff", "#2563ff", "jacket", "#23232b", "#f5f5f5", shades=True),
)

_HEADGEAR = ("hijab", "turban", "wrap", "cap", "hat")

# Layers behind the head and before it.
_HAIR: dict[str, tuple[list[Layer], list[Layer]]] = {
    "bald": ([], []),
    "long": (
        [("half", "back", [(0, 10), (28, 18), (42, 50), (43, 92), (52, 130), (48, 158), (26, 160),
                           (14, 120)])],
        [("curve", "tint", [(-38, 74), (-40, 44), (-28, 20), (0, 11), (28, 20), (40, 46), (38, 76), (30, 54),
                            (12, 32), (12, 32), (-6, 46), (-30, 54)])]),
    "parted": (
        [("half", "back", [(0, 14), (26, 20), (38, 48), (37, 68), (16, 70)])],
        [("curve", "tint", [(-37, 66), (-40, 40), (-30, 18), (-14, 12), (12, 10), (32, 20), (40, 42),
                            (37, 66), (31, 50), (28, 42), (2, 42), (-18, 32), (-18, 32), (-30, 48)])]),
    "fringe": ([("half", "back", [(28, 36), (44, 44), (52, 62), (47, 84), (36, 88), (28, 60)])], []),
    "bob": (
        [("half", "back", [(0, 8), (32, 16), (48, 52), (49, 96), (42, 116), (20, 116)])],
        [("half", "tint", [(0, 8), (28, 15), (44, 46), (45, 92), (35, 96), (33, 62), (28, 52), (28, 52),
                           (0, 51)])]),
    "curls": ([("half", "back", [(0, 14), (32, 24), (44, 60), (44, 104), (0, 108)]),
               ("beads", "tint", [(0, 82), (43, 36), (13, 9), (-0.4, 0.4)]),
               ("beads", "tint", [(0, 82), (43, 36), (13, 9), (0.6, 1.4)])],
              [("beads", "tint", [(0, 56), (42, 29), (13, 11), (-0.12, 1.12)])]),
    "afro": (
        [("half", "back", [(0, 8), (36, 20), (52, 56), (42, 92), (20, 104)]),
         ("beads", "tint", [(0, 55), (43, 38), (13, 17), (-0.3, 1.3)])],
        [("half", "tint", [(0, 12), (24, 22), (40, 52), (33, 62), (22, 42), (0, 36)])]),
    "bun": (
        [("half", "back", [(0, 4), (14, 8), (18, 20), (12, 30), (0, 32)]),
         ("half", "back", [(0, 17), (28, 25), (39, 56), (34, 74), (0, 70)])],
        [("half", "tint", [(0, 17), (26, 23), (40, 52), (36, 70), (26, 48), (0, 32), (0, 32)])]),
    "ponytail": (
        [("curve", "back", [(22, 22), (48, 18), (62, 44), (58, 84), (66, 120), (48, 124), (40, 92),
                            (42, 60)]),
         ("half", "back", [(0, 13), (28, 22), (38, 54), (34, 70), (0, 70)])],
        [("curve", "tint", [(-37, 70), (-38, 42), (-24, 20), (0, 13), (26, 21), (38, 46), (37, 70), (28, 50),
                            (8, 38), (-14, 34), (-28, 50)])]),
    "shaggy": (
        [("half", "back", [(0, 11), (30, 18), (44, 52), (46, 96), (50, 124), (30, 132), (16, 120)])],
        [("half", "tint", [(0, 18), (0, 18), (20, 11), (36, 26), (43, 58), (38, 90), (31, 66), (20, 44),
                           (0, 30), (0, 30)])]),
    "quiff": (
        [("half", "back", [(0, 20), (28, 26), (37, 52), (35, 66), (0, 66)])],
        [("curve", "tint", [(-37, 64), (-40, 42), (-34, 20), (-14, 8), (14, 4), (44, 8), (42, 34), (37, 64),
                            (30, 46), (10, 40), (-12, 42), (-30, 46)])]),
    "cap": (
        [("half", "under", [(38, 50), (40, 74), (32, 80), (26, 56)])],
        [("half", "tint", [(0, 8), (26, 13), (40, 36), (39, 54), (0, 54)]),
         ("curve", "band", [(-42, 50), (0, 42), (42, 50), (52, 60), (0, 55), (-52, 60)]),
         ("oval", "white", [(0, 29), (12, 11)])]),
    "hat": (
        [("half", "under", [(36, 50), (40, 74), (32, 80), (26, 56)])],
        [("half", "tint", [(0, 6), (24, 6), (32, 22), (36, 44), (0, 46)]),
         ("half", "band", [(0, 32), (33, 30), (37, 44), (0, 46)]),
         ("half", "light", [(0, 41), (40, 39), (66, 44), (56, 55), (0, 52)])]),
    "hijab": (
        [("half", "back", [(0, 8), (28, 14), (46, 48), (44, 92), (54, 128), (40, 152), (0, 166)])],
        [("half", "tint", [(0, 8), (28, 14), (44, 46), (42, 84), (32, 106), (32, 106), (33, 60),
                           (22, 34), (0, 28)]),
         ("half", "tint", [(0, 106), (20, 102), (42, 84), (52, 122), (38, 148), (0, 164)]),
         ("curve", "back", [(-26, 116), (0, 128), (32, 112), (44, 118), (0, 142), (-32, 124)]),
         ("half", "under", [(0, 24), (20, 29), (30, 46), (20, 37), (0, 32)])]),
    "turban": (
        [],
        [("half", "tint", [(0, 5), (28, 10), (47, 36), (42, 58), (26, 50), (0, 38)]),
         ("curve", "back", [(-43, 58), (-46, 36), (-26, 24), (12, 30), (36, 52), (8, 46), (-20, 50)]),
         ("curve", "light", [(-46, 44), (-32, 14), (0, 7), (32, 14), (0, 22), (-26, 34)])]),
    "wrap": (
        [],
        [("curve", "tint", [(-42, 56), (-48, 30), (-32, 8), (4, 4), (36, 8), (50, 30), (42, 56), (20, 42),
                            (-20, 42)]),
         ("curve", "band", [(-44, 48), (-46, 36), (0, 26), (46, 36), (44, 50), (0, 38)]),
         ("curve", "band", [(10, 24), (28, 2), (52, 2), (60, 20), (44, 36), (22, 34)]),
         ("curve", "tint", [(18, 24), (32, 12), (46, 12), (42, 24), (30, 29)])]),
}

_CREW: Layer = ("oval", "skin", [(0, 124), (24, 13)])
_WEAR: dict[str, list[Layer]] = {
    "crew": [_CREW],
    "pearls": [_CREW, ("beads", "trim", [(0, 126), (29, -20), (4.6, 9), (0.06, 0.94)])],
    "vneck": [("shape", "skin", [(-22, 118), (22, 118), (0, 158)]),
              ("pair", "trim", [(26, 122), (18, 122), (-2, 156), (0, 166)])],
    "turtle": [("shape", "trim", [(-21, 110), (21, 110), (24, 134), (-24, 134)])],
    "suit": [("shape", "white", [(-26, 122), (26, 122), (0, 196)]),
             ("shape", "trim", [(-6, 130), (6, 130), (10, 190), (0, 204), (-10, 190)]),
             ("pair", "lapel", [(24, 118), (44, 132), (30, 160), (0, 204)])],
    "jacket": [("shape", "white", [(-26, 122), (26, 122), (0, 196)]),
               ("pair", "lapel", [(24, 118), (44, 132), (30, 160), (0, 204)])],
    "shirt": [("shape", "skin", [(-18, 120), (18, 120), (0, 146)]),
              ("pair", "trim", [(14, 116), (32, 126), (22, 150), (0, 144)]),
              ("pair", "trim", [(0, 146), (1.5, 146), (1.5, 214), (0, 214)])],
    "hoodie": [("half", "trim", [(0, 128), (26, 114), (38, 128), (24, 150), (0, 156)]),
               ("oval", "skin", [(0, 128), (22, 12)]),
               ("pair", "white", [(12, 148), (16, 148), (17, 180), (13, 180)])],
    "stripes": [("pair", "trim", [(0, 141), (58, 141), (68, 154), (0, 154)]),
                ("pair", "trim", [(0, 167), (74, 167), (76, 180), (0, 180)]),
                ("pair", "trim", [(0, 193), (77, 193), (78, 206), (0, 206)]), _CREW],
    "sport": [("oval", "skin", [(0, 124), (26, 16)]),
              ("pair", "trim", [(34, 126), (48, 130), (54, 214), (38, 214)])],
}
# fmt: on


def _paint(p: _Pen, layers: Sequence[Layer], colours: dict[str, str]) -> None:
    """Draw layers in turn.

    shape: a polygon; pair: one and its mirror image; curve: a smooth outline; half: the right half of a
    smooth outline; oval: centre, radii; beads: centre and radii of the oval they lie on, (radius of a
    bead, how many), (first, last angle in units of pi, against the clock from the right).
    """
    for how, colour, points in layers:
        fill = colours[colour]
        if how == "shape":
            p.polygon(points, fill)
        elif how == "pair":
            p.polygon(points, fill)
            p.polygon([(-x, y) for x, y in points], fill)
        elif how == "curve":
            p.curve(points, fill)
        elif how == "half":
            p.half(points, fill)
        elif how == "oval":
            (x, y), (rx, ry) = points
            p.oval(x, y, rx, ry, fill)
        else:
            (x, y), (rx, ry), (r, n), (first, last) = points
            for i in range(int(n)):
                turn = math.pi * (first + (last - first) * i / (n - 1))
                p.oval(x + rx * math.cos(turn), y - ry * math.sin(turn), r, r, fill)


def _face(p: _Pen, look: _Look, hair: str) -> None:
    skin, shade = look.skin, _mix(look.skin, _FLUSH, 0.22)
    for s in (-1, 1):
        if look.hair != "hijab":
            p.oval(s * 37, 70, 7, 10, _mix(skin, shade, 0.45))
        if look.earrings:
            p.oval(s * 40, 87, 6.5, 6.5, look.earrings)
    p.half([(0, 21), (22, 28), (35, 54), (33, 82), (20, 104), (0, 112)], skin)
    if look.beard in ("full", "long"):
        drop = 134 if look.beard == "long" else 118
        p.half([(0, 90), (16, 84), (28, 78), (35, 62), (35, 88), (23, drop / 2 + 51), (0, drop)], hair)
    for s in (-1, 1):
        if look.beard in ("", "moustache"):
            p.oval(s * 22, 85, 7, 4.5, _mix(skin, "#f0506e", 0.16))
        if look.lined:
            p.line([(s * 14, 88), (s * 18, 95)], shade, 1.8)
        if look.shades:
            p.box(s * 17 - 14, 57, s * 17 + 14, 78, _INK, 8)
            p.line([(s * 17 - 6, 62), (s * 17 - 1, 62)], "#8b93b8", 2.4)
            continue
        x = s * 15.5
        p.oval(x, 67, 6.4, 5, _WHITE)
        p.oval(x, 67, 4.3, 4.8, "#241a1f")
        p.oval(x + 1.5, 65, 1.5, 1.5, _WHITE)
        p.arc((x - 7.4, 61, x + 7.4, 76), 195, 345, "#241a1f", 2)
        p.arc((x - 11, 52, x + 11, 72), 222, 318, _dark(hair, 0.35), 2.8 if look.lips else 4.2)
        if look.glasses:
            p.ring(s * 17, 67, 14.5, look.glasses, 4)
    if look.glasses or look.shades:
        p.line([(-4, 64), (4, 64)], look.glasses or _INK, 4)
    p.curve([(-4, 80), (0, 71), (4, 80), (0, 83)], shade)
    if look.beard:
        p.half(
            [(0, 84), (11, 84), (25, 95), (12, 97), (0, 93)],
            hair if look.beard == "moustache" else _dark(hair),
        )
    p.smile(0, 92, 12, 11, look.lips or "#8f2f35")


@cache
def _bust(face: int) -> Image.Image:
    """One person from the hat to the elbows, RGBA, BUST at four times the photo's resolution."""
    p, look = _Pen(*BUST, (AXIS, 0)), _LOOKS[face]
    back, front = _HAIR[look.hair]
    colours = {
        "skin": look.skin, "trim": look.trim, "lapel": _mix(look.top, _WHITE, 0.16), "white": _WHITE,
        "tint": look.tint, "back": _dark(look.tint, 0.14), "light": _mix(look.tint, _WHITE, 0.2),
        "under": look.under, "band": look.band,
    }  # fmt: skip
    _paint(p, back, colours)
    p.box(-18, 92, 18, 134, look.skin, 6)
    p.half([(0, 124), (22, 128), (56, 138), (74, 166), (80, 230), (0, 230)], look.top)
    _paint(p, _WEAR[look.wear], colours)
    if look.wear != "turtle":
        p.half([(0, 100), (17, 100), (17, 108), (0, 124)], _mix(look.skin, _FLUSH, 0.22))
    _face(p, look, look.under if look.hair in _HEADGEAR else look.tint)
    _paint(p, front, colours)
    return p.image


@cache
def _person(face: int, scale: float) -> Image.Image:
    """A bust at photo resolution with a soft shadow, which sets it off from a backdrop of its own colour."""
    size = (round(BUST[0] * scale), round(BUST[1] * scale))
    bust = _bust(face).resize(size, Image.Resampling.LANCZOS)
    shadow = Image.new("RGBA", size, "#140c28")
    shadow.putalpha(bust.getchannel("A").filter(ImageFilter.GaussianBlur(4)).point(lambda a: a * 2 // 5))
    return Image.alpha_composite(shadow, bust)


# ------------------------------------------------------------------------- places, emblems, events


def _seaside(p: _Pen) -> None:
    p.fade("#7fd6ff", "#d8f6ff", y1=118)
    p.oval(128, 44, 36, 36, "#ffe066")
    p.oval(128, 44, 27, 27, "#ffd000")
    p.box(-BLEED, 108, 264, 264, "#0a8fdc")
    for row, (y, colour) in enumerate(((122, "#0b78c8"), (144, "#0a62b0"), (166, "#0a4f98"))):
        p.box(-BLEED, y, 264, 264, colour)
        for i in range(-1, 9):
            x = 36 * i + 18 * (row % 2)
            p.oval(x, y, 18, 6, colour)
            p.arc((x - 18, y - 6, x + 18, y + 8), 200, 340, _WHITE, 3)
    p.polygon([(206, 104), (250, 104), (242, 116), (212, 116)], "#b3261e")
    p.polygon([(226, 100), (226, 62), (250, 100)], _WHITE)
    p.polygon([(222, 100), (222, 70), (206, 100)], "#ffe9e0")
    p.curve([(-20, 214), (60, 198), (140, 206), (220, 196), (290, 210), (290, 280), (-20, 280)], "#f7dfa4")


def _mountains(p: _Pen) -> None:
    p.fade("#a9b8ee", "#f3ecff", y1=190)
    for x, top, half, rock in (
        (128, 26, 150, "#8fa0cf"),
        (34, 44, 110, "#6478b4"),
        (226, 36, 116, "#566aa8"),
    ):
        p.polygon([(x, top), (x + half, 214), (x - half, 214)], rock)
        p.polygon([(x, top), (x + half, 214), (x + half * 0.25, 214)], _dark(rock, 0.16))
        drop, wide = (214 - top) * 0.36, half * 0.36
        zigzag = ((1, 1), (0.5, 0.72), (0.1, 1.1), (-0.4, 0.75), (-1, 1))
        p.polygon([(x, top), *((x + wide * a, top + drop * b) for a, b in zigzag)], _WHITE)
    p.curve([(-30, 184), (50, 168), (120, 186), (210, 166), (290, 182), (290, 290), (-30, 290)], "#f4f8ff")
    p.curve([(-30, 214), (80, 198), (180, 214), (290, 200), (290, 290), (-30, 290)], "#d5e1f7")


def _skyline(p: _Pen) -> None:
    p.fade("#0b1040", "#3b2a7a", y1=200)
    spots = random.Random(4)
    for _ in range(46):
        x, y, r = spots.uniform(-8, 264), spots.uniform(-8, 110), spots.uniform(0.7, 1.6)
        p.oval(x, y, r, r, _WHITE)
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


def _desert(p: _Pen) -> None:
    p.fade("#ff7a3d", "#ffd38a", y1=150)
    p.oval(128, 58, 34, 34, "#fff0b8")
    p.curve([(-40, 132), (40, 104), (120, 138), (210, 100), (300, 134), (300, 290), (-40, 290)], "#e39b3c")
    p.curve([(-40, 170), (60, 136), (150, 172), (250, 140), (300, 160), (300, 290), (-40, 290)], "#cf7f27")
    p.curve([(-40, 200), (60, 176), (150, 204), (250, 178), (300, 192), (300, 290), (-40, 290)], "#b5651d")
    for x, y in ((22, 86), (232, 96)):
        p.line([(x, y), (x, y + 74)], "#2f7d3a", 15)
        p.line([(x + 20, y + 14), (x + 20, y + 36), (x, y + 40)], "#2f7d3a", 10)
        p.line([(x - 18, y + 24), (x - 18, y + 44), (x, y + 50)], "#2f7d3a", 10)


def _forest(p: _Pen) -> None:
    p.fade("#d9f2a5", "#8fd06a", y1=200)
    for step, y, colour in ((44, 34, "#63b04c"), (58, 56, "#37903f"), (86, 84, "#156232")):
        for i in range(-1, 8):
            x, half = step * i + y * 0.7 - 28, step * 0.62
            for k in range(3):
                top, wide = y + 30 * k, half * (0.6 + 0.2 * k)
                p.polygon([(x, top), (x + wide, top + 52), (x - wide, top + 52)], colour)
            p.box(x - 5, y + 110, x + 5, 264, "#5b3a1e")
    p.curve([(-30, 204), (60, 190), (150, 206), (290, 190), (290, 290), (-30, 290)], "#3c8a2e")


def _old_town(p: _Pen) -> None:
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
    p.oval(144, 76, 11, 11, _WHITE)
    p.line([(144, 70), (144, 76), (148, 79)], _INK, 2)
    p.box(-BLEED, 172, 264, 264, "#9c6b55")
    for x in range(-40, 280, 64):
        p.oval(x + 32, 226, 24, 34, "#5fa8c9")


_BACKDROPS: tuple[Callable[[_Pen], None], ...] = (_seaside, _mountains, _skyline, _desert, _forest, _old_town)


@cache
def _backdrop(index: int) -> Image.Image:
    """A place, RGB, BLEED larger on each side; a little out of focus, as behind a portrait."""
    p = _Pen(SIDE + 2 * BLEED, SIDE + 2 * BLEED, (BLEED, BLEED))
    _BACKDROPS[index](p)
    return p.done().convert("RGB").filter(ImageFilter.GaussianBlur(0.8))


_PLATES = ("#e11d2e", "#1d4ed8", "#ff9800", "#12a150", "#9c27b0", "#1b1d24")


@cache
def _logo(index: int) -> Image.Image:
    """An organisation's emblem, white on a plate of its colour, RGBA, PLATE pixels."""
    p, c, m = _Pen(PLATE, PLATE), PLATE / 2, 18
    p.box(0, 0, PLATE - 0.3, PLATE - 0.3, _WHITE, 12)
    p.box(3, 3, PLATE - 3.3, PLATE - 3.3, _PLATES[index], 9.5)
    if index == 0:
        p.oval(c, c, m, m, _WHITE)
    elif index == 1:
        p.polygon([(c, c - m), (c + m * 1.1, c + m * 0.85), (c - m * 1.1, c + m * 0.85)], _WHITE)
    elif index == 2:
        ray = [(m * 1.12 if i % 2 == 0 else m * 0.5, math.pi * (i / 5 - 0.5)) for i in range(10)]
        p.polygon([(c + r * math.cos(t), c + 1 + r * math.sin(t)) for r, t in ray], _WHITE)
    elif index == 3:
        p.box(c - 6.5, c - m, c + 6.5, c + m, _WHITE)
        p.box(c - m, c - 6.5, c + m, c + 6.5, _WHITE)
    elif index == 4:
        p.polygon([(c, c - m * 1.15), (c + m * 1.05, c), (c, c + m * 1.15), (c - m * 1.05, c)], _WHITE)
    else:
        p.ring(c, c, m, _WHITE, 8)
    return p.done()


def _podium(p: _Pen) -> None:
    for x, lean, colour in ((112, -8, "#ffd000"), (128, 0, "#e11d2e"), (144, 8, "#16a34a")):
        p.line([(x, 214), (x + lean, 194)], "#3b3f4a", 4)
        p.oval(x + lean, 191, 7.5, 9.5, "#22252e")
        p.box(x + lean - 7.5, 197, x + lean + 7.5, 205, colour, 2)
    p.polygon([(78, 208), (178, 208), (186, 222), (70, 222)], "#d59a58")
    p.polygon([(76, 222), (180, 222), (172, 280), (84, 280)], "#8a5426")
    p.polygon([(90, 229), (166, 229), (160, 280), (96, 280)], "#1d5fe0")
    p.oval(128, 247, 11, 11, _WHITE)


def _bunting(p: _Pen) -> None:
    hues = ("#e11d2e", "#ffd000", "#12a150", "#1d8cf0", "#ff6fb5")
    for i in range(11):
        x = -20 + 27 * i
        y = 10 + 22 * (1 - ((x + 13 - 128) / 150) ** 2)
        p.polygon([(x, y), (x + 26, y), (x + 13, y + 27)], hues[i % 5])
    p.line([(x, 9 + 22 * (1 - ((x - 128) / 150) ** 2)) for x in range(-20, 280, 12)], _WHITE, 3)


def _balloons(p: _Pen) -> None:
    spots = (
        (10, 214, "#1d8cf0"), (44, 232, "#ff6fb5"), (82, 246, "#ffd000"), (14, 252, "#12a150"),
        (52, 262, "#e11d2e"), (246, 214, "#e11d2e"), (212, 232, "#ffd000"), (174, 246, "#12a150"),
        (242, 252, "#ff6fb5"), (204, 262, "#1d8cf0"), (128, 250, "#8e2de2"),
    )  # fmt: skip
    for x, y, hue in spots:
        p.oval(x, y, 20, 24, hue)
        p.oval(x - 7, y - 9, 4, 6, _mix(hue, _WHITE, 0.6))


def _finish(p: _Pen) -> None:
    p.box(-BLEED, 203, 264, 212, "#e11d2e")
    for i in range(-1, 22):
        for y, fill in ((212, (_INK, _WHITE)), (238, (_WHITE, _INK))):
            p.box(26 * i, y, 26 * i + 26, y + 28, fill[i % 2])


def _trophy(p: _Pen) -> None:
    p.box(-BLEED, 226, 264, 280, "#6d28d9")
    p.box(-BLEED, 226, 264, 235, _WHITE)
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


def _curtain(p: _Pen) -> None:
    for s in (-1, 1):
        for i, colour in enumerate(("#8e0f1f", "#c2182b", "#8e0f1f", "#d32338")):
            x = 128 + s * (88 + 13 * i)
            p.polygon([(x, -8), (x + s * 60, -8), (x + s * 60, 264), (x + s * 6, 264)], colour)
    for i in range(-1, 8):
        p.oval(40 * i - 12, 8, 21, 30, "#c2182b" if i % 2 else "#a51424")


def _stage(p: _Pen) -> None:
    p.box(-BLEED, 220, 264, 280, "#7a4a22")
    p.box(-BLEED, 216, 264, 222, "#ffc928")
    for x in range(4, 264, 31):
        p.oval(x, 240, 10, 10, "#fff3b0")


def _table(p: _Pen) -> None:
    for x, tip, hue in ((14, 52, "#ff6fb5"), (242, 204, "#ffd000")):
        p.line([(x, 180), (x, 230)], "#3b3f4a", 5)
        p.polygon([(x, 180), (tip, 194), (x, 208)], hue)
    p.box(-BLEED, 224, 264, 280, "#0c7a3e")
    p.box(-BLEED, 224, 264, 232, "#35c46f")
    for x in (36, 128, 220):
        p.box(x - 22, 228, x + 22, 246, _WHITE, 3)


# One row an event: what stands behind the people, what in front of them.
_LAYOUTS: tuple[tuple[Callable[[_Pen], None] | None, Callable[[_Pen], None]], ...] = (
    (None, _podium),
    (_bunting, _balloons),
    (None, _finish),
    (None, _trophy),
    (_curtain, _stage),
    (None, _table),
)


@cache
def _layout(index: int, front: bool) -> Image.Image:
    """Half of an event, RGBA, BLEED larger on each side."""
    p = _Pen(SIDE + 2 * BLEED, SIDE + 2 * BLEED, (BLEED, BLEED))
    sketch = _LAYOUTS[index][front]
    if sketch:
        sketch(p)
    return p.done()


# ----------------------------------------------------------------------------------- the photo


@cache
def _grain() -> np.ndarray:
    """Film grain to cut from, int16 ``[2 SIDE, 2 SIDE, 1]``: the same for all photos, moved about."""
    return np.random.default_rng(7).normal(0, 2.5, (2 * SIDE, 2 * SIDE, 1)).round().astype(np.int16)


def _camera(photo: Image.Image, rng: random.Random) -> Image.Image:
    """What differs from shot to shot: focus, light and its warmth, grain."""
    photo = photo.filter(ImageFilter.BoxBlur(rng.uniform(0, 0.5)))
    light, warmth = rng.uniform(0.88, 1.1), rng.uniform(-0.04, 0.04)
    x, y = rng.randrange(SIDE), rng.randrange(SIDE)
    gains = [light * (1 + warmth), light, light * (1 - warmth)]
    photo = photo.point([min(255, round(v * g)) for g in gains for v in range(256)])
    pixels = np.asarray(photo, np.int16) + _grain()[y : y + SIDE, x : x + SIDE]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _check(name: str, value: int, n: int) -> None:
    if not 0 <= value < n:
        raise ValueError(f"{name}: {value} found, an index of 0 to {n - 1} expected")


def draw_face(face: int, size: int = 128) -> Image.Image:
    """Portrait of one person, RGBA ``size`` x ``size`` on a transparent ground (contact sheets, docs).

    Raises:
        ValueError: ``face`` is not in 0 to N_FACES - 1.
    """
    _check("face", face, N_FACES)
    edge = 160 * _FINE
    left = AXIS * _FINE - edge // 2
    return _bust(face).crop((left, 0, left + edge, edge)).resize((size, size), Image.Resampling.LANCZOS)


def draw_photo(
    *, faces: Sequence[int], backdrop: int, logo: int, layout: int, rng: random.Random, size: int = SIDE
) -> Image.Image:
    """One press photo, RGB ``size`` x ``size``.

    Args:
        faces: one person, or two different ones from left to right; 0 to N_FACES - 1.
        backdrop: the place; 0 to N_BACKDROPS - 1.
        logo: the organisation, its emblem in an upper corner; 0 to N_LOGOS - 1.
        layout: the event; 0 to N_LAYOUTS - 1.
        rng: source of all variation. Equal states give equal photos; what is drawn from it depends
            on the number of people only, so two scenes can be shown under one camera.
        size: side in pixels; other sizes than SIDE are resampled.

    Raises:
        ValueError: an index out of range, one person twice, or not one or two people.

    Example:
        >>> draw_photo(faces=[3, 7], backdrop=0, logo=2, layout=0, rng=random.Random(1)).size
        (256, 256)
    """
    if len(faces) not in (1, 2) or len(set(faces)) != len(faces):
        raise ValueError(f"faces: {list(faces)} found, one or two different people expected")
    for face in faces:
        _check("faces", face, N_FACES)
    _check("backdrop", backdrop, N_BACKDROPS)
    _check("logo", logo, N_LOGOS)
    _check("layout", layout, N_LAYOUTS)

    x, y = rng.randint(0, 2 * BLEED), rng.randint(0, 2 * BLEED)
    photo = _backdrop(backdrop).crop((x, y, x + SIDE, y + SIDE))
    shift = (rng.randint(-4, 4) - BLEED, rng.randint(-3, 3) - BLEED)
    photo.paste(_layout(layout, False), shift, _layout(layout, False))
    middles, jitter = ((SIDE // 2,), 10) if len(faces) == 1 else ((74, 182), 6)
    for face, middle in zip(faces, middles, strict=True):
        scale = rng.choice(SCALES)
        person = _person(face, scale)
        left = middle + rng.randint(-jitter, jitter) - round(AXIS * scale)
        photo.paste(person, (left, EYES_Y + rng.randint(-2, 2) - round(EYES * scale)), person)
    photo.paste(_layout(layout, True), shift, _layout(layout, True))
    corner = rng.choice((3, SIDE - PLATE - 3))
    photo.paste(_logo(logo), (corner + rng.randint(-2, 2), 3 + rng.randint(-1, 1)), _logo(logo))
    photo = _camera(photo, rng)
    return photo if size == SIDE else photo.resize((size, size), Image.Resampling.LANCZOS)
