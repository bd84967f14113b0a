"""The command line of lavis.train and lavis.evaluate, and what it can tell before LAVIS is imported.

LAVIS and torch take seconds to import, and ``python -m lavis.train`` imports them before our `main` runs. So
the start-up hook calls `preflight` first: a wrong option, a missing file or a missing LAVIS is told at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ealign_plugin.cli.console import guarded
from ealign_plugin.cli.quiet import quiet
from ealign_plugin.errors import UserError
from ealign_plugin.host.compat import check_host, import_error
from ealign_plugin.host.config_file import read_config

EPILOG = {
    "lavis.train": """examples:
  python -m lavis.train --cfg-path projects/ealign/train.yaml
  python -m lavis.train --cfg-path my.yaml --options run.max_iters=20 run.device=cpu
  python -m lavis.train --cfg-path my.yaml --dry-run
  python -m torch.distributed.run --nproc-per-node 2 -m lavis.train --cfg-path my.yaml

Each run writes into a folder of its own: <run.output_dir, default ./output>/<task>/<date>_<time>.
The device is cuda where there is one, else cpu; run.device says otherwise.
Plugins are found by the entry-point group lavis.plugins and by run.plugins: [module, ...].""",
    "lavis.evaluate": """examples:
  python -m lavis.evaluate --cfg-path projects/ealign/train.yaml --checkpoint output/.../checkpoints/best
  python -m lavis.evaluate --cfg-path my.yaml --options run.test_splits=[val]

Without --checkpoint the weights are those that the YAML's model section names.""",
}


PURPOSE = {
    "lavis.train": "Train and test a model of LAVIS or of a plugin, as a YAML says.",
    "lavis.evaluate": "Test a model of LAVIS or of a plugin, as a YAML says, without training.",
}


class Parser(argparse.ArgumentParser):
    """argparse prints its usage and two lines; a user error here is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see --help")


def parse(command: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Attributes ``cfg_path``, ``options`` (list of str), ``checkpoint`` (or None) and ``dry_run``."""
    parser = Parser(
        prog=f"python -m {command}",
        description=PURPOSE[command],
        epilog=EPILOG[command],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cfg-path", required=True, help="YAML with the sections model, datasets and run")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="values that replace the YAML's, by dotted key",
    )
    parser.set_defaults(checkpoint=None, dry_run=False)
    if command == "lavis.train":
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="check config, weights and data, print what the run would do and what it needs, and stop",
        )
    if command == "lavis.evaluate":
        parser.add_argument(
            "--checkpoint", help="a training run's folder, or a checkpoint in it, whose weights are tested"
        )
    args = parser.parse_args(argv)
    if args.checkpoint and not Path(args.checkpoint).exists():
        raise UserError(
            f"--checkpoint {args.checkpoint}: no such file, expected a checkpoint of a training run"
        )
    return args


def preflight(command: str) -> None:
    """Everything about this call that can be wrong and shows without LAVIS; exits with 2 if something is."""

    def check() -> None:
        args = parse(command)
        check_host()
        read_config(args.cfg_path, args.options)

    quiet()
    exit_unless_zero(guarded(check))


def or_exit(load_lavis: Callable[[], None], join: Callable[[], None]) -> None:
    """Import LAVIS and register; exits with 2 and one line if a user can help it, with 130 after Ctrl-C."""

    def load() -> None:
        try:
            load_lavis()
        except ImportError as error:
            raise import_error(error) from error
        join()

    exit_unless_zero(guarded(load))


def exit_unless_zero(code: int) -> None:
    if code:
        sys.exit(code)
