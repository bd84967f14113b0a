"""Photos from anywhere: opened without trusting them, and normalised for the shards."""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

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
            _load_whole(image)
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
    except UnidentifiedImageError:  # Pillow's message holds an address in memory
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


def _load_whole(image: Image.Image) -> None:
    """Decode a picture; one that is cut off or broken is an error, whatever LOAD_TRUNCATED_IMAGES says.

    LAVIS has Pillow fill such pictures up with grey, by a global that other threads read at the same time:
    it is left alone. Instead this picture's file refuses to be read behind its end, and its decoder raises
    what it would report. Written for Pillow 13 (10 and later have the same), of whose open pictures the
    attributes ``tile``, ``fp`` and ``png`` are used.

    Raises:
        OSError: the picture is cut off or broken.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        image.load()  # it is decoded already
        return
    image.tile = [
        tile._replace(codec_name=_STRICT.get(tile.codec_name, tile.codec_name)) for tile in image.tile
    ]
    file = image.fp
    guarded: Any = _WholeFile(file)
    image.fp = guarded
    chunks = getattr(image, "png", None)  # a PNG's chunks are read by an object of its own
    if chunks is not None:
        chunks.fp = guarded
    try:
        image.load()
    finally:
        if image.fp is guarded:
            image.fp = file


class _WholeFile:
    """A file whose end is an error: a decoder that reads on needs more than there is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        if not content and size:
            raise OSError("the file is cut off")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _StrictDecoder:
    """One of Pillow's decoders, which raises an error where Pillow's would report its code."""

    def __init__(self, codec: str, mode: str, *args: Any) -> None:
        self._decoder = getattr(Image.core, f"{codec}_decoder")(mode, *args)

    def decode(self, content: bytes) -> tuple[int, int]:
        consumed, code = self._decoder.decode(content)
        if consumed < 0 and code < 0:
            raise OSError(f"its data are broken, decoder error {code}")
        return consumed, code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


# Names beside Pillow's own: pictures that others open are decoded as ever.
_STRICT = {codec: f"ealign_strict_{codec}" for codec in ("jpeg", "zip", "gif", "raw", "packbits")}
for _codec, _name in _STRICT.items():
    Image.register_decoder(_name, partial(_StrictDecoder, _codec))  # type: ignore[arg-type]


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
