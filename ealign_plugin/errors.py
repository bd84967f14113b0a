"""The one exception that a user can cause.

Programs that start here (``python -m lavis.train``, ``python -m lavis.evaluate``) print its message as
one line and exit with code 2, without a traceback. Anything else that is raised is a defect of ours.
"""

from __future__ import annotations


class UserError(Exception):
    """Bad input: the message says where, what was found, what was expected and what to do.

    Example:
        >>> str(UserError("shards/index.json: schema version 3 found, 1 expected; update ealign-plugin"))
        'shards/index.json: schema version 3 found, 1 expected; update ealign-plugin'
    """
