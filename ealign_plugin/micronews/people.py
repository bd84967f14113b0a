"""The people of MicroNews: sixteen who keep one look for ever (even numbers are women, odd ones men), and how
anybody is drawn.

A bust is drawn about x = 0, its axis. Hair, headgear and clothes are tables of layers; a layer says how
it is drawn (see `_paint`), names its colour, and gives points. The looks differ by bold shapes
and colours, because the model sees a head at about 25 px, where a line is no cue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFilter

from ealign_plugin.micronews.pen import GOLD, INK, WHITE, Pen, Point, dark, mix

BUST = (168, 214)  # a person's sprite
AXIS, EYES = BUST[0] // 2, 66  # the point of that sprite that is placed, and about which it is scaled

SKINS = ("#f9d5bd", "#f6c6a0", "#e3a774", "#c98a58", "#96603a", "#643d27")
_PALE, _FAIR, _TAN, _OLIVE, _BROWN, _DEEP = SKINS
_FLUSH = "#7a1f2b"  # what skin in the shade tends to

Layer = tuple[str, str, list[Point]]


@dataclass(frozen=True)
class Look:
    """How a person looks: rows of _HAIR and _WEAR, and the colours to put into them."""

    skin: str
    hair: str
    tint: str  # of the hair, or of the headgear that covers it
    wear: str
    top: str  # colour of the clothes
    trim: str  # their second colour
    under: str = INK  # hair that shows below headgear, brows and beard of who wears it
    band: str = GOLD  # second colour of headgear
    beard: str = ""  # full, long, moustache
    glasses: str = ""  # colour of the frame
    shades: bool = False
    lips: str = ""  # made up; fine brows go with them
    earrings: str = ""
    lined: bool = False  # an elderly face


# fmt: off
LOOKS = (
    Look(_PALE, "long", "#f7c948", "vneck", "#d7263d", "#a3142a", lips="#c81d40"),
    Look(_DEEP, "bald", "#14100e", "turtle", "#ffd21f", "#e0a800", beard="full"),
    Look(_TAN, "hijab", "#8e2de2", "crew", "#4a1486", "#4a1486", lips="#b3364f"),
    Look(_FAIR, "parted", "#6b3f1d", "suit", "#1f3a8a", "#e02424", glasses=INK),
    Look(_BROWN, "afro", "#211714", "vneck", "#ff7a1a", "#d95700", lips="#a02c3c", earrings=GOLD),
    Look(_OLIVE, "turban", "#ff8c1a", "shirt", "#f2f2f2", "#c9d1dc", under="#1d1614", beard="long"),
    Look(_FAIR, "bob", "#17131f", "crew", "#ff6fb5", "#d63f8c", lips="#d8315b"),
    Look(_PALE, "fringe", "#b4bccb", "shirt", "#2f9e44", "#f4f4f0", beard="moustache", lined=True),
    Look(_OLIVE, "ponytail", "#3b2415", "sport", "#00b8d4", WHITE, lips="#b23a48"),
    Look(_TAN, "cap", "#e11d2e", "hoodie", "#8b95a5", "#747c8d", under="#4a2c16", band="#a50f1e"),
    Look(_FAIR, "bun", "#c9ced8", "pearls", "#a78bfa", WHITE, lips="#b4506a", glasses="#7c3aed",
          lined=True),
    Look(_TAN, "hat", "#e8c06a", "shirt", "#3f74c7", "#274f93", under="#5a3215", band="#5a3215",
          beard="moustache"),
    Look(_PALE, "curls", "#d9480f", "crew", "#0b7a4b", "#075c38", lips="#c2413a"),
    Look(_FAIR, "shaggy", "#7a4a22", "stripes", "#f5f5f5", "#1d4ed8", beard="full"),
    Look(_DEEP, "wrap", "#1fb6ff", "pearls", "#e6007e", GOLD, lips="#c2185b", earrings=GOLD),
    Look(_PALE, "quiff", "#2563ff", "jacket", "#23232b", "#f5f5f5", shades=True),
)

N_FACES = len(LOOKS)

_HEADGEAR = ("hijab", "turban", "wrap", "cap", "hat", "long cap", "short cap")

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
    "short cap": (
        [("half", "under", [(40, 44), (47, 74), (36, 92), (24, 56)])],
        [("half", "tint", [(0, 6), (28, 10), (44, 30), (45, 46), (0, 46)]),
         ("curve", "band", [(-48, 42), (0, 36), (48, 42), (56, 52), (0, 48), (-56, 52)])]),
    "long cap": (
        [("half", "under", [(0, 10), (28, 18), (44, 50), (46, 92), (54, 130), (50, 158), (26, 160),
                            (14, 120)])],
        [("half", "tint", [(0, 6), (28, 10), (44, 30), (45, 46), (0, 46)]),
         ("curve", "band", [(-48, 42), (0, 36), (48, 42), (56, 52), (0, 48), (-56, 52)])]),
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


def _paint(p: Pen, layers: Sequence[Layer], colours: dict[str, str]) -> None:
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


def _face(p: Pen, look: Look, hair: str) -> None:
    skin, shade = look.skin, mix(look.skin, _FLUSH, 0.22)
    for s in (-1, 1):
        if look.hair != "hijab":
            p.oval(s * 37, 70, 7, 10, mix(skin, shade, 0.45))
        if look.earrings:
            p.oval(s * 40, 87, 6.5, 6.5, look.earrings)
    p.half([(0, 21), (22, 28), (35, 54), (33, 82), (20, 104), (0, 112)], skin)
    if look.beard in ("full", "long"):
        drop = 134 if look.beard == "long" else 118
        p.half([(0, 90), (16, 84), (28, 78), (35, 62), (35, 88), (23, drop / 2 + 51), (0, drop)], hair)
    for s in (-1, 1):
        if look.beard in ("", "moustache"):
            p.oval(s * 22, 85, 7, 4.5, mix(skin, "#f0506e", 0.16))
        if look.lined:
            p.line([(s * 14, 88), (s * 18, 95)], shade, 1.8)
        if look.shades:
            p.box(s * 17 - 14, 57, s * 17 + 14, 78, INK, 8)
            p.line([(s * 17 - 6, 62), (s * 17 - 1, 62)], "#8b93b8", 2.4)
            continue
        x = s * 15.5
        p.oval(x, 67, 6.4, 5, WHITE)
        p.oval(x, 67, 4.3, 4.8, "#241a1f")
        p.oval(x + 1.5, 65, 1.5, 1.5, WHITE)
        p.arc((x - 7.4, 61, x + 7.4, 76), 195, 345, "#241a1f", 2)
        p.arc((x - 11, 52, x + 11, 72), 222, 318, dark(hair, 0.35), 2.8 if look.lips else 4.2)
        if look.glasses:
            p.ring(s * 17, 67, 14.5, look.glasses, 4)
    if look.glasses or look.shades:
        p.line([(-4, 64), (4, 64)], look.glasses or INK, 4)
    p.curve([(-4, 80), (0, 71), (4, 80), (0, 83)], shade)
    if look.beard:
        p.half(
            [(0, 84), (11, 84), (25, 95), (12, 97), (0, 93)],
            hair if look.beard == "moustache" else dark(hair),
        )
    p.smile(0, 92, 12, 11, look.lips or "#8f2f35")


def bust(look: Look, clothes: Sequence[Layer] | None = None) -> Image.Image:
    """One person from the hat to the elbows, RGBA, BUST at four times the photo's resolution.

    Args:
        look: Who it is.
        clothes: What is drawn on the clothes, where the look's ``wear`` is none of those above.
    """
    p = Pen(*BUST, (AXIS, 0))
    back, front = _HAIR[look.hair]
    colours = {
        "skin": look.skin, "trim": look.trim, "lapel": mix(look.top, WHITE, 0.16), "white": WHITE,
        "tint": look.tint, "back": dark(look.tint, 0.14), "light": mix(look.tint, WHITE, 0.2),
        "under": look.under, "band": look.band,
    }  # fmt: skip
    _paint(p, back, colours)
    p.box(-18, 92, 18, 134, look.skin, 6)
    p.half([(0, 124), (22, 128), (56, 138), (74, 166), (80, 230), (0, 230)], look.top)
    _paint(p, _WEAR[look.wear] if clothes is None else clothes, colours)
    if look.wear != "turtle":
        p.half([(0, 100), (17, 100), (17, 108), (0, 124)], mix(look.skin, _FLUSH, 0.22))
    _face(p, look, look.under if look.hair in _HEADGEAR else look.tint)
    _paint(p, front, colours)
    return p.image


def sprite(drawn: Image.Image, scale: float) -> Image.Image:
    """A bust at photo resolution with a soft shadow, which sets it off from a backdrop of its own colour."""
    size = (round(BUST[0] * scale), round(BUST[1] * scale))
    small = drawn.resize(size, Image.Resampling.LANCZOS)
    shadow = Image.new("RGBA", size, "#140c28")
    shadow.putalpha(small.getchannel("A").filter(ImageFilter.GaussianBlur(4)).point(lambda a: a * 2 // 5))
    return Image.alpha_composite(shadow, small)
