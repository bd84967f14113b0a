"""``python -m ealign_plugin.cli``: the command ``ealign`` where its script is not on the path."""

from ealign_plugin.cli.app import main

main()
