"""Errors as a user reads them."""

from typing import Any

import pytest

from ealign_plugin.errors import UserError


def message_of(call: Any, *args: Any, **options: Any) -> str:
    """The one clear line of the UserError that the call raises."""
    with pytest.raises(UserError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
