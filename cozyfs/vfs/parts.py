"""How a changed large file becomes parts: clean ranges copied on the server, dirty ones sent.

Pure planning, no I/O. S3's rules: every part but the last has at least 5 MiB, none has more
than 5 GiB, there are at most 10,000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cozyfs.store.base import MAX_PARTS, MIN_PART_SIZE
from cozyfs.vfs.pieces import Kind, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGEST_COPY = 1 << 30
"""Bytes of one copied part. Far below the limit of 5 GiB: copies run side by side."""

LARGEST_SEND = 32 << 20
"""Bytes of one sent part, since clean bytes in it are held in memory while it is sent."""

WORTH_COPYING = 16 << 20
"""Bytes of clean ranges from which on copying beats sending the whole in one PUT."""

Slice = tuple[int, int, Segment]


class Copy(NamedTuple):
    """A part made on the server from ``[start, stop)`` of the base object."""

    start: int
    stop: int


class Send(NamedTuple):
    """A part that travels, put together from slices of the table."""

    slices: list[Slice]

    @property
    def size(self) -> int:
        return sum(stop - start for start, stop, _ in self.slices)


def plan(slices: Iterable[Slice]) -> list[Copy | Send] | None:
    """Parts for the slices, in order; None when copying is not worth it or would take more
    parts than there may be."""
    parts: list[Copy | Send] = []
    pending: list[Slice] = []
    copied = 0
    for start, stop, segment in slices:
        if segment.kind is not Kind.BASE:
            pending.append((start, stop, segment))
            continue
        # A part of dirty bytes that is too short is filled up with clean ones.
        waiting = sum(b - a for a, b, _ in pending)
        fill = max(MIN_PART_SIZE - waiting, 0) if waiting else 0
        if stop - start - fill < MIN_PART_SIZE:
            pending.append((start, stop, segment))
            continue
        if fill:
            pending.append((start, start + fill, segment))
        parts.extend(_sends(pending))
        pending = []
        offset = segment.offset + (start + fill - segment.start)
        parts.extend(_copies(offset, offset + stop - start - fill))
        copied += stop - start - fill
    parts.extend(_sends(pending))
    if copied < WORTH_COPYING or len(parts) > MAX_PARTS:
        return None
    return parts


def _copies(start: int, stop: int) -> Iterator[Copy]:
    """Equal shares, so that none falls below the least part size."""
    count = -(-(stop - start) // LARGEST_COPY)
    for i in range(count):
        yield Copy(start + (stop - start) * i // count, start + (stop - start) * (i + 1) // count)


def _sends(slices: list[Slice]) -> Iterator[Send]:
    """Parts of about LARGEST_SEND; the last takes the rest, so that only the very last part of
    a plan can be short."""
    total = sum(stop - start for start, stop, _ in slices)
    count = max(total // LARGEST_SEND, 1) if total else 0
    cuts = [total * (i + 1) // count for i in range(count)]
    current: list[Slice] = []
    position = 0
    for start, stop, segment in slices:
        while cuts and position + (stop - start) >= cuts[0]:
            cut = start + cuts.pop(0) - position
            position += cut - start
            current.append((start, cut, segment))
            yield Send(current)
            current = []
            start = cut
        if start < stop:
            current.append((start, stop, segment))
            position += stop - start
