"""The drawn newsroom: what a picture must tell, and that it tells it at the 64 px that the model sees."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from PIL import Image

from ealign_plugin.micronews import draw

SCENE = {"faces": (3,), "backdrop": 1, "logo": 2, "layout": 0}


def photo(seed: int = 0, **changes) -> Image.Image:
    """The scene above, with changes, under the camera of a seed."""
    return draw.draw_photo(**{**SCENE, **changes}, rng=random.Random(seed))


def pixels(image: Image.Image, side: int | None = None) -> np.ndarray:
    """RGB as float ``[side, side, 3]``, at the model's resolution if one is given."""
    image = image.convert("RGB")
    return np.asarray(image.resize((side, side)) if side else image, float)


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, in grey levels of 0-255."""
    return float(np.abs(a - b).mean())


def test_equal_seeds_give_equal_photos_and_other_seeds_other_ones():
    random.seed(1)
    first = photo(5, faces=(3, 8))
    random.seed(2)
    assert photo(5, faces=(3, 8)).tobytes() == first.tobytes()
    assert photo(6, faces=(3, 8)).tobytes() != first.tobytes()


def test_the_global_random_state_is_left_alone():
    state = random.getstate(), np.random.get_state()[1].tobytes()
    photo(0)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == state


@pytest.mark.parametrize(
    ("what", "n"),
    [("backdrop", draw.N_BACKDROPS), ("logo", draw.N_LOGOS), ("layout", draw.N_LAYOUTS)],
)
def test_every_place_emblem_and_event_is_another_picture_at_64_px(what, n):
    small = [pixels(photo(**{what: i}), 64) for i in range(n)]
    # An emblem fills one 64th of the photo, hence a lower bound than for a place.
    bound = {"backdrop": 30, "logo": 1.2, "layout": 12}[what]
    assert min(gap(a, b) for a, b in itertools.combinations(small, 2)) > bound


def test_faces_differ_at_64_px():
    """Heads alone, without the clothes: a head is about 25 px wide there."""
    heads = []
    for face in range(draw.N_FACES):
        grey = Image.new("RGBA", (160, 160), "#808080")
        grey.alpha_composite(draw.draw_face(face, 160))
        heads.append(pixels(grey.crop((30, 0, 130, 120)), 25))
    assert min(gap(a, b) for a, b in itertools.combinations(heads, 2)) > 15


def test_a_person_looks_the_same_in_every_photo():
    """One face under all scenes is nearer to itself than to any other face under the same scenes."""
    box = (92, 84, 164, 168)
    rng = random.Random(0)
    scenes = [(rng.randrange(6), rng.randrange(6), rng.randrange(1000)) for _ in range(4)]
    faces = {
        face: np.mean(
            [pixels(photo(s, faces=(face,), backdrop=b, layout=t).crop(box), 18) for b, t, s in scenes], 0
        )
        for face in range(draw.N_FACES)
    }
    for face in faces:
        seen = pixels(photo(4711, faces=(face,), backdrop=5, layout=3).crop(box), 18)
        assert min(faces, key=lambda other: gap(faces[other], seen)) == face


def test_the_first_person_stands_on_the_left():
    def head(image: Image.Image, left: int) -> np.ndarray:
        return pixels(image.crop((left + 40, 84, left + 110, 168)))

    ab, ba = photo(0, faces=(1, 2)), photo(0, faces=(2, 1))
    assert gap(head(ab, 0), head(ab, 108)) > 20
    assert gap(head(ab, 0), head(ba, 0)) > 20
    assert gap(head(ab, 0), head(photo(0, faces=(1, 9)), 0)) < 3  # whoever stands on the right


@pytest.mark.parametrize("seed", range(12))
def test_no_head_reaches_the_emblem(seed):
    """Neighbours with the tallest headgear leave the upper band, which holds the emblem, as it is."""
    top = (0, 0, 256, 56)
    bald_and_tall = [photo(seed, faces=faces).crop(top) for faces in ((1, 7), (11, 14), (4, 5), (14, 11))]
    assert len({image.tobytes() for image in bald_and_tall}) == 1


def test_no_event_hides_a_face():
    face = (100, 92, 156, 164)
    views = [pixels(photo(3, layout=layout).crop(face)) for layout in range(draw.N_LAYOUTS)]
    assert max(gap(views[0], view) for view in views) < 1


def test_the_size_is_what_was_asked_for():
    assert (photo().mode, photo().size) == ("RGB", (256, 256))
    small = draw.draw_photo(**SCENE, rng=random.Random(0), size=64)
    assert (small.mode, small.size) == ("RGB", (64, 64))
    face = draw.draw_face(0, 96)
    assert (face.mode, face.size) == ("RGBA", (96, 96))
    assert face.getpixel((0, 0))[3] == 0  # transparent beside the head


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faces": ()}, "one or two different people"),
        ({"faces": (1, 2, 3)}, "one or two different people"),
        ({"faces": (4, 4)}, "one or two different people"),
        ({"faces": (0, 16)}, "faces: 16 found"),
        ({"faces": (-1,)}, "faces: -1 found"),
        ({"backdrop": 6}, "backdrop: 6 found"),
        ({"logo": -1}, "logo: -1 found"),
        ({"layout": 6}, "layout: 6 found"),
    ],
)
def test_impossible_scenes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        photo(**changes)


@pytest.mark.parametrize("face", [-1, draw.N_FACES])
def test_a_face_that_does_not_exist_is_refused(face):
    with pytest.raises(ValueError, match=f"face: {face} found"):
        draw.draw_face(face)
