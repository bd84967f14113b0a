"""Silences what third parties print about themselves and a user can do nothing about."""

from __future__ import annotations

import os
import sys
import warnings

# Modules, as regular expressions, whose warnings are meant for their own authors.
NOISY = "|".join(
    [
        *("timm", "fairscale", "lavis", "transformers", "huggingface_hub", "webdataset", "torchvision"),
        *("spacy", "thinc", "weasel", "pycocoevalcap"),
        *(r"torch\.cuda\.amp", r"torch\.jit", r"torch\.library", r"torch\.utils"),
    ]
)


def silence_third_party_warnings() -> None:
    """Call before LAVIS is imported. Warnings of our own code and of the user's stay."""
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({NOISY})(\..*)?$")
    warnings.filterwarnings("ignore", message=r".*torch\.cuda\.amp\..*")
    warnings.filterwarnings("ignore", message=r".*pin_memory.*no accelerator.*")
    warnings.filterwarnings("ignore", message=r".*pkg_resources.*")
    # FSDP2 of a layer whose output is a view, and torch's checkpoint reader in a process alone.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module.*view.*")
    warnings.filterwarnings("ignore", message=r"torch\.distributed is disabled.*")
    # Loaders fork after tokenizers were used; without this they print a paragraph a worker.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():  # a progress bar in a log file is one line each time it moves
        os.environ.setdefault("TQDM_MININTERVAL", "10")
