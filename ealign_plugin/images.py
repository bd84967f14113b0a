"""Photos from anywhere: opened without trusting them, and normalised for the shards."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ealign_plugin.errors import UserError

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded."""


_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


def open_image(
    content: bytes | str | os.PathLike[str] | Image.Image, name: str, size: int | None = None
) -> Image.Image:
    """Open a picture as RGB, upright, on white; its size is read from the header before it is decoded.

    Args:
        content: The file's bytes, or its path; or a picture that is open already, which stays as it is.
        name: How an error calls it.
        size: A JPEG may be decoded at a fraction of its size, no smaller than this; whole where None.

    Raises:
        UserError: it is no picture, is cut off, or is larger than `MAX_PIXELS`.
    """
    try:
        with _opened(content) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{name}: the picture has {image.width}×{image.height} pixels, "
                    f"at most {MAX_PIXELS:,} are read; make it smaller"
                )
            if size is not None and image is not content:
                image.draft("RGB", (size, size))
            with _cut_off_is_an_error():
                image.load()
            if image is content:
                image = image.copy()
            with suppress(Exception):  # a broken EXIF block makes no broken picture
                ImageOps.exif_transpose(image, in_place=True)
            if image.has_transparency_data:
                ground = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
            return image.convert("RGB")
    except UserError:
        raise
    except UnidentifiedImageError:  # Pillow's own message tells an address in memory
        raise UserError(f"{name}: it is no picture in a known format") from None
    except Exception as error:  # of whatever type: struct.error, TypeError ... escape Pillow on broken files
        raise UserError(f"{name}: the picture cannot be read ({error})") from None


def _opened(
    content: bytes | str | os.PathLike[str] | Image.Image,
) -> AbstractContextManager[Image.Image]:
    if isinstance(content, Image.Image):
        return nullcontext(content)
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return Image.open(source, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))


@contextmanager
def _cut_off_is_an_error() -> Iterator[None]:
    """LAVIS tells Pillow, for the whole process, to fill cut-off pictures up with grey."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def normalised(content: bytes, name: str, *, short_side: int | None = None, quality: int = 90) -> bytes:
    """A picture of any kind → the bytes of an upright RGB JPEG file.

    A JPEG file that is all this already stays as it is: encoding it again would only blur it.

    Args:
        content: The file's bytes.
        name: How an error calls it.
        short_side: Pictures whose shorter side has more pixels are made smaller; None leaves sizes alone.
        quality: JPEG quality from 1 to 95, where it is encoded.

    Raises:
        UserError: it is no picture, is cut off, or is larger than `MAX_PIXELS`.
    """
    # Twice the size is left to the resampling filter, which is sharper than the decoder's.
    image = open_image(content, name, 2 * short_side if short_side else None)
    with Image.open(io.BytesIO(content)) as header:
        too_large = short_side is not None and min(header.size) > short_side
        if header.format == "JPEG" and header.mode == "RGB" and _upright(header) and not too_large:
            return content
    if short_side is not None and min(image.size) > short_side:
        scale = short_side / min(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:  # a broken EXIF block: nobody will turn the picture
        return True
