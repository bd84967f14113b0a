"""The photographs of MicroNews: who, where, of which organisation, at which event.

A photo is a stack of cached sprites: a place behind everything, one or two people, the furniture of the
event in front of them and an organisation's emblem in an upper corner. Every index keeps one look for
ever; what varies is what a camera varies: framing, distance, light, focus and grain. The looks differ
by bold shapes and colours, because the model sees the photo at 64 px, where a line is no cue.

    ┌──────────────────────┐
    │ [logo]        [here?]│   y   2 - 64   emblem, left or right; no head reaches it
    │    (  )      (  )    │   y  60 - 179  heads, 75-90 px wide
    │  ████████  ████████  │   y 179 - 256  shoulders
    │▒▒▒▒▒▒ layout ▒▒▒▒▒▒▒▒│   y 180 - 256  the event, in front of the people; some have a rear part too
    └──────────────────────┘

All coordinates are pixels of the 256 px photo. Needs Pillow and NumPy only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial

import numpy as np
from PIL import Image, ImageFilter

from ealign_plugin.micronews.pen import BLEED, FINE, SIDE
from ealign_plugin.micronews.people import AXIS, EYES, LOOKS, N_FACES, bust, sprite
from ealign_plugin.micronews.scenery import (
    N_BACKDROPS,
    N_LAYOUTS,
    N_LOGOS,
    PLATE,
    backdrop_sprite,
    flags_sprite,
    layout_sprite,
    logo_sprite,
)
from ealign_plugin.micronews.scenes import Scene
from ealign_plugin.micronews.strangers import ROLES, Appearance, stranger

EYES_Y = 129  # where a person's eyes come to lie
SCALES = (0.95, 1.0, 1.05)


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
    edge = 160 * FINE
    left = AXIS * FINE - edge // 2
    return _face(face).crop((left, 0, left + edge, edge)).resize((size, size), Image.Resampling.LANCZOS)


def draw_photo(
    *, faces: Sequence[int], backdrop: int, logo: int, layout: int, rng: random.Random, size: int = SIDE
) -> Image.Image:
    """One press photo of the closed world, RGB ``size`` x ``size``.

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
    return _compose(
        [partial(person, face) for face in faces],
        backdrop_sprite(backdrop),
        logo_sprite(logo),
        (layout_sprite(layout, False), layout_sprite(layout, True)),
        rng,
        size,
    )


def draw_scene(scene: Scene, rng: random.Random, size: int = SIDE) -> Image.Image:
    """One press photo of the open world, RGB ``size`` x ``size``.

    Args:
        scene: What it shows.
        rng: Source of all variation.
        size: Side in pixels.
    """
    event = scene.event.look
    layers: tuple[Image.Image, Image.Image | None]
    if isinstance(event, int):
        layers = layout_sprite(event, False), layout_sprite(event, True)
    else:
        layers = flags_sprite(*event), None
    return _compose(
        [partial(person, someone.look) for someone in scene.people],
        backdrop_sprite(scene.place.look),
        logo_sprite(*scene.org.look),
        layers,
        rng,
        size,
        raised=OPEN_RAISED,
    )


@lru_cache(maxsize=1024)
def person(who: int | tuple[Appearance, int], scale: float) -> Image.Image:
    """A bust at photo resolution with its shadow: a face, or a stranger's appearance and variant."""
    if isinstance(who, int):
        return sprite(_face(who), scale)
    return sprite(bust(stranger(*who), ROLES[who[0].role][2]), scale)


@cache
def _face(face: int) -> Image.Image:
    return bust(LOOKS[face])


OPEN_RAISED = 15
"""So many pixels higher do people stand in the open world, so that furniture does not hide their clothes."""


def _compose(
    people: Sequence[Callable[[float], Image.Image]],
    backdrop: Image.Image,
    emblem: Image.Image,
    event: tuple[Image.Image, Image.Image | None],
    rng: random.Random,
    size: int,
    raised: int = 0,
) -> Image.Image:
    """Put the sprites together, and take the photo.

    Args:
        people: Of each one, scale → sprite.
        backdrop: The place.
        emblem: The organisation.
        event: What stands behind the people, and what before them.
        rng: Source of all variation.
        size: Side in pixels.
        raised: People stand so much higher, furniture so much lower.
    """
    x, y = rng.randint(0, 2 * BLEED), rng.randint(0, 2 * BLEED)
    photo = backdrop.crop((x, y, x + SIDE, y + SIDE))
    shift = (rng.randint(-4, 4) - BLEED, rng.randint(-3, 3) - BLEED)
    rear, front = event
    photo.paste(rear, shift, rear)
    middles, jitter = ((SIDE // 2,), 10) if len(people) == 1 else ((74, 182), 6)
    for someone, middle in zip(people, middles, strict=True):
        scale = rng.choice(SCALES)
        drawn = someone(scale)
        left = middle + rng.randint(-jitter, jitter) - round(AXIS * scale)
        photo.paste(drawn, (left, EYES_Y - raised + rng.randint(-2, 2) - round(EYES * scale)), drawn)
    if front:
        photo.paste(front, (shift[0], shift[1] + raised), front)
    corner = rng.choice((3, SIDE - PLATE - 3))
    photo.paste(emblem, (corner + rng.randint(-2, 2), 3 + rng.randint(-1, 1)), emblem)
    photo = _camera(photo, rng)
    return photo if size == SIDE else photo.resize((size, size), Image.Resampling.LANCZOS)
