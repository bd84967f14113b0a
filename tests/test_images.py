"""Photos of any kind become upright RGB on white; broken and huge ones are user errors."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (40, 20), "red")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_usual_formats_are_read(format):
    image = open_image(encoded(RED, format), "x")
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert image.getpixel((5, 5)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (RED.convert("CMYK"), "JPEG"),
        (RED.convert("L"), "JPEG"),
        (RED.quantize(4), "PNG"),
        (RED.quantize(4), "GIF"),
        (RED.convert("RGBA"), "PNG"),
        (RED.convert("LA"), "PNG"),
        (RED.convert("1"), "PNG"),
        (Image.fromarray(np.full((20, 40), 40_000, np.uint16)), "PNG"),
        (RED.convert("RGBA"), "WEBP"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_any_kind_of_picture_becomes_rgb(image, format):
    opened = open_image(encoded(image, format), "x")
    assert (opened.mode, opened.size) == ("RGB", (40, 20))


def test_cmyk_keeps_its_colours():
    assert open_image(encoded(RED.convert("CMYK"), "JPEG"), "x").getpixel((5, 5)) == pytest.approx(
        (255, 0, 0), abs=6
    )


@pytest.mark.filterwarnings("error")
def test_what_is_transparent_is_white():
    glass = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    assert open_image(encoded(glass, "PNG"), "x").getpixel((5, 5)) == (255, 255, 255)
    palette = RED.quantize(4)
    opened = open_image(encoded(palette, "PNG", transparency=bytes([0] * 4)), "x")
    assert opened.getpixel((5, 5)) == (255, 255, 255)


def test_a_photo_taken_on_its_side_is_turned_upright():
    lying = Image.new("RGB", (40, 20), "blue")
    lying.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees: what was left comes to lie on top
    upright = open_image(encoded(lying, "JPEG", exif=exif, quality=95), "x")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == pytest.approx((255, 0, 0), abs=8)
    assert upright.getpixel((10, 35)) == pytest.approx((0, 0, 255), abs=8)


def test_a_broken_exif_block_makes_no_broken_picture():
    assert open_image(encoded(RED, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"), "x").size == (40, 20)


def test_a_jpeg_may_be_decoded_small():
    big = encoded(Image.new("RGB", (800, 400), "red"), "JPEG")
    assert open_image(big, "x").size == (800, 400)
    assert open_image(big, "x", size=90).size == (200, 100)


def test_a_picture_is_read_from_a_file_too(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(RED, "PNG"))
    assert open_image(tmp_path / "a.png", "x").size == (40, 20)
    with pytest.raises(UserError, match="x: the picture cannot be read"):
        open_image(tmp_path / "b.png", "x")


def huge_png(width: int, height: int) -> bytes:
    """A valid header and one byte of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_a_huge_picture_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", None)  # whoever decodes now fails in another way
    with pytest.raises(UserError, match=r"x: the picture has 10000×5001 pixels, at most 50,000,000 are read"):
        open_image(huge_png(10_000, 5001), "x")
    with pytest.raises(UserError, match="x: the picture cannot be read"):
        open_image(huge_png(60_000, 60_000), "x")


def test_other_formats_are_not_even_tried():
    """Pillow knows fifty formats, some of them run Ghostscript."""
    with pytest.raises(UserError, match="no picture in a known format"):
        open_image(encoded(RED, "EPS"), "x")


WHOLE = [encoded(RED, format) for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(WHOLE), st.data())
def test_broken_files_are_user_errors_whatever_pillow_raises(content, data):
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert open_image(bytes(broken[: data.draw(st.integers(0, len(broken)))]), "x").mode == "RGB"
    except UserError as error:
        assert str(error).startswith("x: ")


# Cut-off pictures, where LAVIS has Pillow fill them up


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8))
PICTURES = {format: encoded(NOISE, format) for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}


@pytest.fixture(params=[False, True], ids=["strict", "as LAVIS sets it"])
def truncated_allowed(request, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    return request.param


@pytest.mark.parametrize("format", PICTURES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_off_picture_is_an_error(format, share, truncated_allowed):
    content = PICTURES[format]
    with pytest.raises(UserError, match="^x: "):
        open_image(content[: int(len(content) * share)], "x")
    assert open_image(content, "x").size == (160, 120)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is truncated_allowed


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_cut_off_picture_that_is_open_already_is_an_error(format, truncated_allowed):
    content = PICTURES[format]
    with (
        Image.open(io.BytesIO(content[: len(content) // 2])) as image,
        pytest.raises(UserError, match="^x: "),
    ):
        open_image(image, "x")
    with Image.open(io.BytesIO(content)) as image:
        assert open_image(image, "x").size == (160, 120)


def test_broken_data_are_an_error(truncated_allowed):
    broken = bytearray(PICTURES["PNG"])
    start = broken.index(b"IDAT") + 4
    broken[start : start + 2] = b"\xff\xff"  # no zlib data
    length = int.from_bytes(broken[start - 8 : start - 4], "big")
    broken[start + length : start + length + 4] = zlib.crc32(broken[start - 4 : start + length]).to_bytes(
        4, "big"
    )
    with pytest.raises(UserError, match="^x: the picture cannot be read"):
        open_image(bytes(broken), "x")


def test_eight_threads_see_cut_off_pictures_and_change_nothing(monkeypatch):
    """Half of them read cut-off pictures; meanwhile others rely on the global that LAVIS has set."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = PICTURES["JPEG"]
    pixels = open_image(whole, "x").tobytes()
    start = threading.Barrier(8)

    def work(number: int) -> list[bool]:
        start.wait()
        right = []
        for _ in range(40):
            if number % 2:
                right.append(open_image(whole, "x").tobytes() == pixels)
            else:
                with pytest.raises(UserError, match="cut off"):
                    open_image(whole[: len(whole) // 2], "x")
            right.append(ImageFile.LOAD_TRUNCATED_IMAGES is True)
            with Image.open(io.BytesIO(whole[: len(whole) // 2])) as image:
                image.load()  # another data set's picture: filled up, as LAVIS wants it
        return right

    with ThreadPoolExecutor(8) as threads:
        assert all(all(right) for right in threads.map(work, range(8)))


def test_what_is_used_of_pillow_is_still_there():
    """`images.py` relies on these; Pillow does not promise them."""
    for codec in ("jpeg", "zip", "gif", "raw", "packbits"):
        assert callable(getattr(Image.core, f"{codec}_decoder"))
    with Image.open(io.BytesIO(PICTURES["PNG"])) as image:
        assert image.tile[0][0] == "zip" and image.png.fp is image.fp
