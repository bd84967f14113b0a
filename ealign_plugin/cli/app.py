"""The command ``ealign``: one file per subcommand, registered here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

import typer

from ealign_plugin.cli import evaluate, train
from ealign_plugin.cli.estimate import estimate
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.cli.export import export
from ealign_plugin.cli.inspect import inspect
from ealign_plugin.cli.ladder import ladder
from ealign_plugin.cli.list import list_registered
from ealign_plugin.cli.prepare import prepare
from ealign_plugin.cli.select import select
from ealign_plugin.cli.third_party import silence_third_party_warnings

app = typer.Typer(
    name="ealign",
    help="News photos, their articles and the right names: data and models for LAVIS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

# Read by the parser that lavis.train and lavis.evaluate have, so that all options are the same.
AS_THEY_ARE = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


@app.command("train", context_settings=AS_THEY_ARE, add_help_option=False)
def train_command(context: typer.Context) -> None:
    """Train and test a model as a YAML says; the same as python -m lavis.train."""
    raise typer.Exit(train.main(context.args, prog="ealign train"))


@app.command("evaluate", context_settings=AS_THEY_ARE, add_help_option=False)
def evaluate_command(context: typer.Context) -> None:
    """Test a model as a YAML says, without training; the same as python -m lavis.evaluate."""
    raise typer.Exit(evaluate.main(context.args, prog="ealign evaluate"))


def add(command: Callable[..., None], name: str | None = None) -> None:
    """Register a subcommand: a user error is one line and code 2, Ctrl-C one line and 130."""

    @wraps(command)
    def run(*args: object, **options: object) -> None:
        raise typer.Exit(run_and_report(lambda: command(*args, **options)))

    app.command(name)(run)


for command in (prepare, inspect, estimate, export, select, ladder):
    add(command)
add(list_registered, "list")


def main() -> None:
    """Entry point of the console script."""
    silence_third_party_warnings()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    app()
