"""Data extents of a sparse content: which logical ranges its object holds, back to back.

The object of a content with large holes is the concatenation of its data extents; the index
remembers where each belongs. The same list, JSON ``[[start, length], ...]``, follows the data as
the object's trailer, so that the object can be read without the index.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_HOLE = 1 << 20
"""Bytes: shorter holes are stored as zeros."""

MIN_SAVED = 16 << 20
"""Bytes of holes from which on a content is stored sparse. Below, plain bytes are worth more:
any S3 tool can read them."""

MAX_EXTENTS = 4096
"""More would make the row in the index too heavy; such a content is stored dense."""


class Extent(NamedTuple):
    """``length`` bytes at logical offset ``start``."""

    start: int
    length: int


def encode(extents: Sequence[Extent]) -> bytes:
    return json.dumps([list(e) for e in extents], separators=(",", ":")).encode()


@lru_cache(maxsize=64)  # asked for by every read of the file
def decode(blob: bytes) -> tuple[Extent, ...]:
    return tuple(Extent(*pair) for pair in json.loads(blob))


def located(extents: bytes | None, size: int) -> list[tuple[int, int, int | None]]:
    """``(start, stop, offset in the object or None for a hole)`` over ``[0, size)``."""
    if extents is None:
        return [(0, size, 0)] if size else []
    found: list[tuple[int, int, int | None]] = []
    position = offset = 0
    for start, length in decode(extents):
        if start > position:
            found.append((position, start, None))
        found.append((start, start + length, offset))
        offset += length
        position = start + length
    if position < size:
        found.append((position, size, None))
    return found


def of_data(ranges: Iterable[tuple[int, int]]) -> list[Extent]:
    """Extents for sorted, disjoint data ranges, joining those less than MIN_HOLE apart."""
    joined: list[list[int]] = []
    for start, stop in ranges:
        if joined and start - joined[-1][1] < MIN_HOLE:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    return [Extent(start, stop - start) for start, stop in joined]


def worth_it(extents: Sequence[Extent], size: int) -> bool:
    """Whether leaving the holes out saves enough and can be described."""
    saved = size - sum(e.length for e in extents)
    return saved >= MIN_SAVED and len(extents) <= MAX_EXTENTS
