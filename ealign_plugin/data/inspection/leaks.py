"""What two splits share: articles, captions, and photos, by 64-bit hashes of every sample."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

LEAKS = ("article", "caption", "photo_bytes", "photo_look")
"""Equal folded text, equal folded text, the same file, and pictures that look alike (the same file too)."""


EXAMPLES = 20


LOOK_BITS = 3
"""Pictures look alike when at most so many bits of their `difference_hash` differ: a photo and its resized,
recompressed copy differ in 0 to 3, other photos in some 8 to 40."""


_PLAIN_BITS = 8  # a hash with fewer ones, or fewer zeros, says as good as nothing


_CHUNK = 1 << 20


_BIT_COUNT = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


@dataclass
class Prints:
    """Key and hashes of every sample of a split, in the order of `LEAKS`; a hash of 0 is none."""

    keys: list[str] = field(default_factory=list)
    hashes: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("Q") for _ in LEAKS))

    def add(self, key: str, hashes: Sequence[int]) -> None:
        self.keys.append(key)
        for column, value in zip(self.hashes, hashes, strict=True):
            column.append(value)


def text_hash(text: str) -> int:
    """64 bits of the text's sha256; 0 for an empty one."""
    # JSON can hold halves of characters.
    return bytes_hash(text.encode("utf-8", "surrogatepass"))


def bytes_hash(content: bytes) -> int:
    """64 bits of the sha256; 0 for nothing."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") if content else 0


def difference_hash(image: Image.Image) -> int:
    """64 bits: is each of 8 × 9 grey fields lighter than the one on its left?

    0 for a picture in which (almost) none or all are: one colour, a plain gradient.
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    bits = int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
    return bits if _PLAIN_BITS <= bits.bit_count() <= 64 - _PLAIN_BITS else 0


def leak(kind: str, first: tuple[str, Prints], second: tuple[str, Prints]) -> dict[str, Any]:
    """What two splits share of one of the `LEAKS`, as JSON values.

    ``shared`` counts distinct texts or photos of the second, ``samples_in_...`` the samples that have them;
    ``examples`` are pairs of keys, one for each of the first so many shared ones.

    Args:
        kind: One of `LEAKS`.
        first: Name and hashes of a split.
        second: Of the other.
    """
    (first_name, ones), (second_name, others) = first, second
    column = LEAKS.index(kind)
    a, b = (np.frombuffer(side.hashes[column], np.uint64) for side in (ones, others))
    values = [np.unique(side[side != 0]) for side in (a, b)]
    in_a, in_b = alike(*values, bits=LOOK_BITS if kind == "photo_look" else 0)
    mates = dict(zip(in_b.tolist(), in_a.tolist(), strict=True))
    found, places = np.unique(b, return_index=True)
    shared = sorted(places[np.isin(found, in_b)].tolist())
    return {
        "kind": kind,
        "first": first_name,
        "second": second_name,
        "shared": len(shared),
        "samples_in_first": int(np.isin(a, in_a).sum()),
        "samples_in_second": int(np.isin(b, in_b).sum()),
        "examples": [
            [ones.keys[np.flatnonzero(a == np.uint64(mates[int(b[place])]))[0]], others.keys[place]]
            for place in shared[:EXAMPLES]
        ],
    }


def alike(a: np.ndarray, b: np.ndarray, *, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of hashes that differ in at most so many bits, as two lists of equal length.

    Hashes that differ in at most 3 bits are equal in one of their four 16-bit parts; a pair that is equal
    in several is listed as often.

    Args:
        a: Distinct hashes, uint64 [A].
        b: Distinct hashes, uint64 [B].
        bits: 0 to 3.
    """
    if bits == 0:
        same = np.intersect1d(a, b)
        return same, same
    pairs = [(a[:0], b[:0])]
    for shift in np.arange(0, 64, 16, dtype=np.uint64):
        part_a, part_b = ((side >> shift).astype(np.uint16) for side in (a, b))
        order = np.argsort(part_a, kind="stable")
        start, stop = (np.searchsorted(part_a[order], part_b, side) for side in ("left", "right"))
        ends = np.cumsum(stop - start)
        for chunk in np.split(np.arange(len(b)), np.flatnonzero(np.diff(ends // _CHUNK)) + 1):
            counts = (stop - start)[chunk]
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            ones = a[order[np.repeat(start[chunk], counts) + within]]
            others = np.repeat(b[chunk], counts)
            near = _BIT_COUNT[(ones ^ others).view(np.uint16)].reshape(-1, 4).sum(1) <= bits
            pairs.append((ones[near], others[near]))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
