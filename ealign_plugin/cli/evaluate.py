"""``ealign evaluate`` and ``python -m lavis.evaluate``: test a model as a YAML says, without training."""

from __future__ import annotations

from collections.abc import Sequence

from ealign_plugin.cli.train import run_command


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Like `ealign_plugin.cli.train.main`, with ``run.evaluate: true`` and ``--checkpoint``'s weights."""
    return run_command("evaluate", argv, prog)


if __name__ == "__main__":
    raise SystemExit(main())
