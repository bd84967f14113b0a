"""The command ``ealign``: one file per subcommand, registered here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

import typer

from ealign_plugin.cli.estimate import estimate
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.cli.export import export
from ealign_plugin.cli.inspect import inspect
from ealign_plugin.cli.ladder import ladder
from ealign_plugin.cli.prepare import prepare
from ealign_plugin.cli.third_party import silence_third_party_warnings

app = typer.Typer(
    name="ealign",
    help="News photos, their articles and the right names: data and models for LAVIS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def add(command: Callable[..., None]) -> None:
    """Register a subcommand: a user error is one line and code 2, Ctrl-C one line and 130."""

    @wraps(command)
    def run(*args: object, **options: object) -> None:
        raise typer.Exit(run_and_report(lambda: command(*args, **options)))

    app.command()(run)


for command in (prepare, inspect, estimate, export, ladder):
    add(command)


def main() -> None:
    """Entry point of the console script."""
    silence_third_party_warnings()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    app()
