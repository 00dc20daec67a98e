"""The piece table: which source every byte of a draft comes from.

A table is a sorted list of segments that cover ``[0, size)`` without gaps. Sources are the
object a draft started from, memory, the draft's staging file, parts already sent, and holes.
Nothing here does I/O; whoever drops a segment of memory gives its bytes back to the pool by
looking at :attr:`PieceTable.memory` before and after.

Invariants: segments are not empty, adjoin, and start at 0; a MEMORY segment owns its buffer
alone and the buffer is exactly as long as the segment, so ``memory`` is what is really held.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(enum.Enum):
    """Where a segment's bytes are."""

    BASE = "base"  # in the base object, at ``offset``
    MEMORY = "memory"  # in ``data``
    STAGED = "staged"  # in the staging file, at the segment's own start
    SENT = "sent"  # in parts of the running multipart upload; not readable until it is complete
    HOLE = "hole"  # zeros that nobody wrote


class Segment:
    """``[start, stop)`` of the draft. Mutable, owned by its table."""

    __slots__ = ("data", "kind", "offset", "start", "stop")

    def __init__(
        self,
        start: int,
        stop: int,
        kind: Kind,
        offset: int = 0,
        data: bytes | bytearray = b"",
    ) -> None:
        self.start = start
        self.stop = stop
        self.kind = kind
        self.offset = offset
        self.data = data

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.start}-{self.stop}>"

    def __len__(self) -> int:
        return self.stop - self.start


COALESCE_LIMIT = 1 << 20
"""Bytes up to which small sequential writes share one buffer."""

SMALL_WRITE = 64 << 10
"""Bytes below which a write is copied into its neighbour instead of kept as a segment."""


class PieceTable:
    """See the module. All offsets and sizes in bytes."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._starts: list[int] = []
        self.memory = 0
        """Bytes held by MEMORY segments."""

    @property
    def size(self) -> int:
        return self._segments[-1].stop if self._segments else 0

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def has(self, kind: Kind) -> bool:
        return any(s.kind is kind for s in self._segments)

    def append(self, length: int, kind: Kind, offset: int = 0) -> None:
        """Lengthen by one segment without data of its own (BASE, STAGED, SENT, HOLE)."""
        if length > 0:
            size = self.size
            self._insert(len(self._segments), [Segment(size, size + length, kind, offset)])

    # ---- changes

    def write(self, start: int, data: bytes | bytearray) -> None:
        """Put *data* at *start*; a gap before it becomes a HOLE. Takes *data* over."""
        stop = start + len(data)
        if start == stop:
            return
        size = self.size
        if start > size:
            self.append(start - size, Kind.HOLE)
        elif (start < size and self._overwrite(start, stop, data)) or (
            start == size and self._extend(data)
        ):
            return
        self._replace(start, stop, [Segment(start, stop, Kind.MEMORY, 0, data)])

    def mark(self, start: int, stop: int, kind: Kind, offset: int = 0) -> None:
        """Say that ``[start, stop)`` now comes from *kind*, dropping what it came from."""
        if start < stop:
            self._replace(start, stop, [Segment(start, stop, kind, offset)])

    def resize(self, size: int) -> None:
        """Cut, or lengthen with a hole."""
        old = self.size
        if size > old:
            self.append(size - old, Kind.HOLE)
        elif size < old:
            self._replace(size, old, [])

    def clear(self) -> None:
        self._segments.clear()
        self._starts.clear()
        self.memory = 0

    # ---- looking

    def slice(self, start: int, stop: int) -> list[tuple[int, int, Segment]]:
        """The segments that ``[start, stop)`` touches, each with the part of the range in it."""
        stop = min(stop, self.size)
        if start >= stop:
            return []
        index = bisect_right(self._starts, start) - 1
        found = []
        while start < stop:
            segment = self._segments[index]
            end = min(stop, segment.stop)
            found.append((start, end, segment))
            start = end
            index += 1
        return found

    # ---- inside

    def _extend(self, data: bytes | bytearray) -> bool:
        """Add a small sequential write to the last buffer."""
        if not self._segments or len(data) >= SMALL_WRITE:
            return False
        last = self._segments[-1]
        if last.kind is not Kind.MEMORY or len(last.data) + len(data) > COALESCE_LIMIT:
            return False
        if not isinstance(last.data, bytearray):
            last.data = bytearray(last.data)
        try:
            last.data += data
        except BufferError:
            # A body of a failed upload still looks at it; leave that one its bytes.
            last.data = last.data + data
        last.stop += len(data)
        self.memory += len(data)
        return True

    def _overwrite(self, start: int, stop: int, data: bytes | bytearray) -> bool:
        """Change bytes inside one buffer in place."""
        segment = self._segments[bisect_right(self._starts, start) - 1]
        if segment.kind is not Kind.MEMORY or stop > segment.stop:
            return False
        if start == segment.start and stop == segment.stop:
            segment.data = data
            return True
        if not isinstance(segment.data, bytearray):
            segment.data = bytearray(segment.data)
        segment.data[start - segment.start : stop - segment.start] = data
        return True

    def _replace(self, start: int, stop: int, new: list[Segment]) -> None:
        """Put *new*, which covers ``[start, stop)`` or nothing at the end, in place of it."""
        segments = self._segments
        first = max(bisect_right(self._starts, start) - 1, 0)
        if first < len(segments) and segments[first].stop <= start:
            first += 1
        last = first
        keep: list[Segment] = []
        tail: list[Segment] = []
        while last < len(segments) and segments[last].start < stop:
            old = segments[last]
            if old.start < start:
                keep.append(self._cut(old, old.start, start))
            if old.stop > stop:
                tail.append(self._cut(old, stop, old.stop))
            if old.kind is Kind.MEMORY:
                self.memory -= len(old.data)
            last += 1
        del segments[first:last]
        del self._starts[first:last]
        self._insert(first, keep + new + tail)

    def _insert(self, index: int, new: list[Segment]) -> None:
        new = self._joined(index, new)
        self._segments[index:index] = new
        self._starts[index:index] = [s.start for s in new]
        self.memory += sum(len(s.data) for s in new if s.kind is Kind.MEMORY)

    def _joined(self, index: int, new: list[Segment]) -> list[Segment]:
        """*new* without the head that simply continues the segment before *index*."""
        before = self._segments[index - 1] if index else None
        out: list[Segment] = []
        for segment in new:
            previous = out[-1] if out else before
            if previous is not None and _continues(previous, segment):
                previous.stop = segment.stop
            else:
                out.append(segment)
        return out

    @staticmethod
    def _cut(segment: Segment, start: int, stop: int) -> Segment:
        """A copy of the part ``[start, stop)``; memory is copied so that no part of a buffer
        stays alive unaccounted."""
        skip = start - segment.start
        data = segment.data[skip : stop - segment.start] if segment.kind is Kind.MEMORY else b""
        return Segment(start, stop, segment.kind, segment.offset + skip, data)


def _continues(a: Segment, b: Segment) -> bool:
    if a.kind is not b.kind or a.kind is Kind.MEMORY or a.stop != b.start:
        return False
    return a.kind is not Kind.BASE or a.offset + (a.stop - a.start) == b.offset
