"""The command line that ``ealign train``, ``ealign evaluate``, ``lavis.train`` and ``lavis.evaluate`` share.

LAVIS and torch take seconds to import, and ``python -m lavis.train`` imports them before our `main` runs. So
the start-up hook calls `preflight` first: a wrong option, a missing file or a missing LAVIS is
reported at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.cli.third_party import silence_third_party_warnings
from ealign_plugin.errors import UserError
from ealign_plugin.host.compat import check_host, import_error
from ealign_plugin.host.config_file import read_config

Command = Literal["train", "evaluate"]

PURPOSE = {
    "train": "Train and test a model of LAVIS or of a plugin, as a YAML says.",
    "evaluate": "Test a model of LAVIS or of a plugin, as a YAML says, without training.",
}

EPILOG = {
    "train": """examples:
  {prog} --cfg-path projects/ealign/train.yaml
  {prog} --cfg-path my.yaml --options run.max_iters=20 run.device=cpu
  {prog} --cfg-path my.yaml --dry-run
  python -m torch.distributed.run --nproc-per-node 2 -m lavis.train --cfg-path my.yaml

Each run writes into a folder of its own: <run.output_dir, default ./output>/<task>/<date>_<time>.
The device is cuda where there is one, else cpu; run.device says otherwise.
`ealign list options` prints what a YAML may set, `ealign list options run.KEY` one of them.
Plugins are found by the entry-point group lavis.plugins and by run.plugins: [module, ...].
`ealign train` and `python -m lavis.train` are the same command.""",
    "evaluate": """examples:
  {prog} --cfg-path projects/ealign/train.yaml --checkpoint output/.../checkpoints/best
  {prog} --cfg-path my.yaml --options run.test_splits=[val]

Without --checkpoint the weights are those that the YAML's model section names.
`ealign evaluate` and `python -m lavis.evaluate` are the same command.""",
}


class Parser(argparse.ArgumentParser):
    """argparse prints its usage and two lines; a user error here is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see --help")


def parse(command: Command, argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the arguments of a command.

    Args:
        command: What is done.
        argv: The arguments; None: the process's own.
        prog: What the user typed in front of them, for help and messages; None: ``python -m lavis.…``.

    Returns:
        Attributes ``cfg_path``, ``options`` (list of str), ``checkpoint`` (or None) and ``dry_run``.

    Raises:
        UserError: an unknown option, no YAML, or a checkpoint that does not exist.
    """
    prog = prog or f"python -m lavis.{command}"
    parser = Parser(
        prog=prog,
        description=PURPOSE[command],
        epilog=EPILOG[command].format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="the same as --cfg-path FILE")
    parser.add_argument(
        "--cfg-path", metavar="FILE", help="YAML with the sections model, datasets and run; required"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values that replace the YAML's, by dotted key",
    )
    parser.set_defaults(checkpoint=None, dry_run=False)
    if command == "train":
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="check config, weights and data, print what the run would do and what it needs, and stop",
        )
    else:
        parser.add_argument(
            "--checkpoint", help="a training run's folder, or a checkpoint in it, whose weights are tested"
        )
    args = parser.parse_args(argv)
    if args.file and args.cfg_path:
        parser.error(f"FILE {args.file} and --cfg-path {args.cfg_path}: one of the two is expected")
    args.cfg_path = args.cfg_path or args.file
    if not args.cfg_path:
        parser.error("the following arguments are required: --cfg-path")
    if args.checkpoint and not Path(args.checkpoint).exists():
        raise UserError(
            f"--checkpoint {args.checkpoint}: no such file, expected a checkpoint of a training run"
        )
    return args


def preflight(module: str) -> None:
    """Find everything about this call that can be wrong without LAVIS; exit with 2 if something is.

    Args:
        module: ``lavis.train`` or ``lavis.evaluate``, which ``python -m`` is about to run.
    """

    def check() -> None:
        args = parse(command_of(module))
        check_host()
        read_config(args.cfg_path, args.options)

    silence_third_party_warnings()
    exit_unless_zero(run_and_report(check))


def import_or_exit(load_lavis: Callable[[], None], register: Callable[[], None]) -> None:
    """Import LAVIS and register; exit with 2 and one line where a user can help it, with 130 after Ctrl-C."""

    def load() -> None:
        try:
            load_lavis()
        except ImportError as error:
            raise import_error(error) from error
        register()

    exit_unless_zero(run_and_report(load))


def command_of(module: str) -> Command:
    """'lavis.evaluate' -> 'evaluate'"""
    return "evaluate" if module.endswith(".evaluate") else "train"


def exit_unless_zero(code: int) -> None:
    """Exit the process with this code where it is not 0."""
    if code:
        sys.exit(code)
