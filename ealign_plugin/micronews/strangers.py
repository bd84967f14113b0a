"""How strangers look: a role by its clothes, hair of some colour, and perhaps glasses, a cap or a beard.

These are the words by which an article describes a person whom nobody knows::

    Appearance(role="judge", hair="red", extra="glasses", woman=True)   the red-haired, bespectacled judge

What is described can be seen at 64 px: clothes differ by colour and pattern, hair by colour. Style of the
hair and skin vary and are never described.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from ealign_plugin.micronews.pen import GOLD, INK, WHITE, Point
from ealign_plugin.micronews.people import SKINS, Layer, Look


class Appearance(NamedTuple):
    """What is visible of a stranger, as far as words describe it.

    Args:
        role: One of `ROLES`; it is told from the clothes.
        hair: One of `HAIR`.
        extra: One of `EXTRAS`, or nothing.
        woman: Long hair, and no beard.
    """

    role: str
    hair: str
    extra: str = ""
    woman: bool = False


HAIR = {"black": "#17131f", "fair": "#f7c948", "red": "#d9480f", "white": "#e4e8f0", "pink": "#ff5fb0"}
"""Name of a colour of hair → the colour."""

EXTRAS = {"glasses": "bespectacled", "cap": "blue-capped", "beard": "bearded"}
"""What somebody may wear besides → the adjective that tells it."""

_STYLES = {True: ("long", "bob", "ponytail"), False: ("parted", "quiff", "shaggy")}
_CREW: Layer = ("oval", "skin", [(0, 124), (24, 13)])


def _layers(how: str, shapes: Sequence[list[Point]]) -> list[Layer]:
    return [(how, "trim", points) for points in shapes]


def _bands(*tops: float, height: float = 13) -> list[Layer]:
    return [
        ("pair", "trim", [(0, y), (60 + (y - 130) / 4, y), (66 + (y - 130) / 4, y + height), (0, y + height)])
        for y in tops
    ]


def _strips(*lefts: float, width: float = 12) -> list[Layer]:
    return [("pair", "trim", [(x, 126), (x + width, 128), (x + width, 230), (x, 230)]) for x in lefts]


# fmt: off
ROLES: dict[str, tuple[str, str, list[Layer]]] = {
    "goalkeeper": ("#0fb84b", "#0b5d2a", [*_strips(8, 34, 60), _CREW]),
    "cook": ("#ffffff", INK, [("shape", "trim", [(-20, 114), (20, 114), (0, 140)]),
             *_layers("pair", [[(12, y), (20, y), (20, y + 8), (12, y + 8)] for y in (146, 164, 182, 200)])]),
    "judge": ("#16121f", WHITE, [("shape", "trim", [(-20, 118), (20, 118), (16, 176), (-16, 176)])]),
    "nurse": ("#6fd3ff", "#e11d2e", [_CREW, ("shape", "white", [(20, 142), (56, 142), (56, 178), (20, 178)]),
              ("shape", "trim", [(33, 144), (43, 144), (43, 176), (33, 176)]),
              ("shape", "trim", [(22, 155), (54, 155), (54, 165), (22, 165)])]),
    "firefighter": ("#1c2440", "#e8ff1a", [*_bands(142, 172, 202), _CREW]),
    "sailor": ("#f4f7ff", "#17409c", [("pair", "trim", [(6, 116), (46, 124), (40, 156), (0, 176), (0, 150)]),
               *_bands(192, 214, height=9)]),
    "farmer": ("#e07b1f", "#2a5bb0", [_CREW, ("half", "trim", [(0, 160), (38, 160), (44, 232), (0, 232)]),
               ("pair", "trim", [(24, 124), (36, 127), (36, 166), (24, 166)])]),
    "jockey": ("#ff2e63", "#ffe14d", [("shape", "trim", [(-56, 139), (0, 124), (0, 170), (-75, 170)]),
               ("shape", "trim", [(0, 170), (75, 170), (80, 232), (0, 232)]), _CREW]),
    "painter": ("#c9b8ff", "#7a3ff2", [_CREW, *_layers("oval", [[(x, y), (r, r)] for x, y, r in (
                (-38, 150, 13), (28, 160, 15), (-8, 186, 14), (52, 198, 13), (-54, 192, 12))])]),
    "astronaut": ("#d7dce5", "#ff6a00", [("half", "trim", [(0, 110), (30, 112), (36, 130), (0, 138)]),
                  ("shape", "lapel", [(-30, 152), (30, 152), (30, 196), (-30, 196)]),
                  ("shape", "trim", [(-22, 158), (-4, 158), (-4, 172), (-22, 172)])]),
    "soldier": ("#7d8a3c", "#3e4a1f", [_CREW, *_layers("oval", [[(x, y), (17, 10)] for x, y in (
                (-44, 146), (10, 152), (50, 160), (-24, 172), (28, 186), (-56, 194), (-4, 204),
                (58, 210))])]),
    "cyclist": ("#ffd400", "#1247d6", [*_bands(156, height=34), _CREW]),
}
"""Role → colour of the clothes, their second colour, and what is drawn on them."""
# fmt: on


def stranger(appearance: Appearance, variant: int = 0) -> Look:
    """A look of this appearance.

    Args:
        appearance: What words describe.
        variant: Chooses skin and style of the hair, which they do not; any number.
    """
    top, trim, _ = ROLES[appearance.role]
    rng = random.Random(f"{appearance}/{variant}")
    colour = HAIR[appearance.hair]
    style = rng.choice(_STYLES[appearance.woman])
    if appearance.extra == "cap":
        style = "long cap" if appearance.woman else "short cap"
    return Look(
        skin=rng.choice(SKINS),
        hair=style,
        tint="#1657d9" if appearance.extra == "cap" else colour,
        wear=appearance.role,
        top=top,
        trim=trim,
        under=colour,
        band="#0c2f80",
        beard="full" if appearance.extra == "beard" else "",
        glasses=INK if appearance.extra == "glasses" else "",
        lips="#c2303f" if appearance.woman else "",
        earrings=GOLD if appearance.woman and rng.random() < 0.5 else "",
    )


def describe(appearance: Appearance, features: tuple[str, ...]) -> str:
    """A description without article: the adjectives of these features, and the role.

    >>> describe(Appearance("judge", "red", "glasses"), ("hair", "extra"))
    'red-haired, bespectacled judge'
    """
    words = {"hair": f"{appearance.hair}-haired", "extra": EXTRAS.get(appearance.extra, "")}
    adjectives = ", ".join(words[feature] for feature in features)
    return f"{adjectives} {appearance.role}".strip()
