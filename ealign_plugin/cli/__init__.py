"""The command line: ``ealign`` and its subcommands, ``lavis.train``, ``lavis.evaluate``."""
