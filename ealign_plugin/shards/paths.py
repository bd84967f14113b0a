"""Where files lie: on this machine, or at any URL that fsspec opens."""

from __future__ import annotations

import re

from upath import UPath

from ealign_plugin.errors import UserError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def as_path(location: str) -> UPath:
    """A path of this machine, made absolute, or an fsspec URL.

    Raises:
        UserError: fsspec cannot open URLs of this scheme here.
    """
    location = location.removeprefix("file://")
    try:
        if not SCHEME.match(location):
            return UPath(location).expanduser().absolute()
        path = UPath(location)
        path.fs  # noqa: B018  a missing package is told here, not at the first file
        return path
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{location}: URLs of this kind cannot be opened ({error}); pip install what fsspec needs for "
            "them, or use a local path"
        ) from None
