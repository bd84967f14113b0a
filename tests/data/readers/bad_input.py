"""What careless and hostile sources hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

ESCAPES = ["../x", "a/../../x", "/etc/passwd", "\\\\host\\x", "C:\\x", "C:x", "..\\x", "a\0b", "", "."]
"""Paths that lead out of their folder, or nowhere."""

REFUSED_URLS = [
    "file:///etc/passwd",
    "local://x",
    "memory://x",
    "simplecache::file://x",
    "zip://x::http://y/z",
]

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["http://[", "../x", "train"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def altered(record: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """The record with fields missing or of any value, or any value in its place."""
    fields = {name: st.just(value) | ANY_JSON for name, value in record.items()}
    return st.fixed_dictionaries({}, optional=fields) | ANY_JSON
