"""Drawing in photo pixels: the sheet, its pen, and what colours need.

All coordinates are pixels of the 256 px photo, whatever the resolution of the sheet that is drawn on.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

SIDE = 256  # a photo is composed at this size and only then brought to the size asked for
BLEED = 8  # backdrops and layouts are drawn this much larger on each side, so that they can be shifted
FINE = 4  # sprites are drawn this much larger, then reduced: Pillow's shapes have jagged edges
WHITE, INK, GOLD = "#ffffff", "#1f1b2e", "#ffc928"

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


def mix(a: str, b: str, share: float) -> str:
    """Colour between ``a`` (share 0) and ``b`` (share 1), all as ``#rrggbb``."""
    pairs = ((int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in pairs)


def dark(colour: str, share: float = 0.2) -> str:
    return mix(colour, "#1b1030", share)


class Pen:
    """Draws on a transparent sheet in photo pixels, whatever the sheet's own resolution."""

    def __init__(self, width: int, height: int, origin: Point = (0, 0)) -> None:
        self.image = Image.new("RGBA", (width * FINE, height * FINE))
        self._draw, (self._x, self._y) = ImageDraw.Draw(self.image), origin

    def _xy(self, points: Sequence[Point]) -> list[Point]:
        return [((x + self._x) * FINE, (y + self._y) * FINE) for x, y in points]

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
        self._draw.rounded_rectangle(self._xy([(x0, y0), (x1, y1)]), radius * FINE, fill)

    def ring(self, x: float, y: float, r: float, fill: str, width: float) -> None:
        box = self._xy([(x - r, y - r), (x + r, y + r)])
        self._draw.ellipse(box, outline=fill, width=round(width * FINE))

    def arc(self, box: Sequence[float], start: int, end: int, fill: str, width: float) -> None:
        """Part of the oval in a box ``(x0, y0, x1, y1)``; degrees, clockwise from the right."""
        self._draw.arc(self._xy([(box[0], box[1]), (box[2], box[3])]), start, end, fill, round(width * FINE))

    def smile(self, x: float, y: float, rx: float, ry: float, fill: str) -> None:
        """Mouth: the lower half of an oval about ``(x, y)`` with a row of teeth."""
        box = self._xy([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.chord(box, 8, 172, fill)
        self.box(x - rx * 0.62, y + 2, x + rx * 0.62, y + 4.6, WHITE, 1.2)

    def line(self, points: Sequence[Point], fill: str, width: float) -> None:
        self._draw.line(self._xy(points), fill, round(width * FINE), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval(x, y, width / 2, width / 2, fill)

    def fade(self, top: str, bottom: str, y0: float = -BLEED, y1: float = SIDE + BLEED) -> None:
        """Fill the sheet, from one colour at ``y0`` to the other from ``y1`` on."""
        n = 48
        for i in range(n):
            y = y0 + (y1 - y0) * i / n
            self.box(-BLEED, y, SIDE + BLEED, SIDE + BLEED, mix(top, bottom, i / (n - 1)))

    def done(self) -> Image.Image:
        size = (self.image.width // FINE, self.image.height // FINE)
        return self.image.resize(size, Image.Resampling.BOX)
