"""Reading the command line of a benchmark, with ``--small``."""

from __future__ import annotations

import argparse
from typing import Any


def read_options(parser: argparse.ArgumentParser, **small: Any) -> argparse.Namespace:
    """Parse the command line; with ``--small`` the options have these other defaults.

    Args:
        parser: Parser with the options of the script.
        small: Option → its default in the small mode. What the user names still wins.

    Raises:
        SystemExit: The command line is wrong, or asks for help.
    """
    parser.add_argument(
        "--small",
        action="store_true",
        help="a trial of seconds on tiny data, to see that the script works; its figures say nothing",
    )
    if parser.parse_known_args()[0].small:
        parser.set_defaults(**small)
    return parser.parse_args()
