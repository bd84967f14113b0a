"""Photos of any kind become upright RGB on white; broken and huge ones are user errors."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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
