"""``ealign train`` and ``python -m lavis.train``: check everything, then run what a YAML says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ealign_plugin.cli.command_line import Command, parse
from ealign_plugin.cli.exit_codes import run_and_report
from ealign_plugin.cli.third_party import silence_third_party_warnings
from ealign_plugin.host.run_config import load_run_config


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Train and test; returns 0, 2 after bad input (one line on stderr), 130 after Ctrl-C."""
    return run_command("train", argv, prog)


def run_command(command: Command, argv: Sequence[str] | None, prog: str | None = None) -> int:
    """Train or evaluate.

    Args:
        command: Which of the two.
        argv: The arguments; None: the process's own.
        prog: What the user typed in front of them; None: ``python -m lavis.<command>``.

    Returns:
        The process's exit code.
    """
    silence_third_party_warnings()
    return run_and_report(lambda: run(command, argv, prog))


def run(command: Command, argv: Sequence[str] | None, prog: str | None = None) -> None:
    args = parse(command, argv, prog)
    cfg = load_run_config(args.cfg_path, args.options)
    if command == "evaluate":
        cfg.run_cfg.evaluate = True
    if args.checkpoint:
        cfg.run_cfg.resume_ckpt_path = str(Path(args.checkpoint).resolve())  # `latest` may move
    if args.dry_run:
        from ealign_plugin.cli.dry_run import dry_run

        dry_run(cfg, args.cfg_path)
        return
    from ealign_plugin.host.run import run_config

    run_config(cfg)


if __name__ == "__main__":
    sys.exit(main())
