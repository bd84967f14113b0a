"""What we know about the versions we live beside."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

from ealign_plugin.errors import UserError

LAVIS_VERSION = "1.0.2"
# InstructBLIP came with 4.31. Tried with the whole of LAVIS: 4.51.3 as it is; 4.57.6 and 5.23.0 (`make
# test-latest`) with the names that the start-up hook gives back.
TRANSFORMERS_MINIMUM = (4, 31)
TRANSFORMERS_LOCKED = "4.51.3"
REMEDY = "pip install --no-deps -r requirements.lock"


def check_host() -> None:
    """Before LAVIS is imported, and without importing anything large.

    Raises:
        UserError: LAVIS is missing, or transformers is missing or too old.
    """
    if find_spec("lavis") is None:
        raise UserError(
            f"LAVIS: not installed, expected salesforce-lavis {LAVIS_VERSION}; run "
            f"`pip install --no-deps salesforce-lavis=={LAVIS_VERSION}`, or `{REMEDY}` for all it imports"
        )
    found = installed_version("transformers")
    wanted = ".".join(map(str, TRANSFORMERS_MINIMUM))
    if found is None or version_tuple(found) < TRANSFORMERS_MINIMUM:
        raise UserError(
            f"transformers: {found or 'not installed'}, expected {wanted} or later, the first with "
            "InstructBLIP; run "
            f"`pip install --no-deps transformers=={TRANSFORMERS_LOCKED}` (LAVIS's own <4.27 can be ignored)"
        )


def import_lavis() -> None:
    """Import the whole of LAVIS, which takes seconds.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import lavis  # noqa: F401
    except ImportError as error:
        raise import_error(error) from error


def import_error(error: ImportError) -> UserError:
    """One line for a LAVIS that is there but cannot be imported."""
    beside = f"transformers {installed_version('transformers')}, torch {installed_version('torch')}"
    found = " ".join(str(error).split())
    return UserError(
        f"LAVIS {installed_version('salesforce-lavis') or ''} beside {beside} cannot be imported: {found}; "
        f"expected the versions of requirements.lock; run `{REMEDY}`"
    )


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_tuple(version: str) -> tuple[int, ...]:
    """'4.51.3.dev0' -> (4, 51, 3): the leading numbers, which is all that is compared here."""
    release = re.split(r"[^\d.]", version, maxsplit=1)[0]
    return tuple(int(number) for number in release.split(".") if number)
