"""What the object of a draft holds: which slices of its table, and what follows them.

A dense content is all of it. A content with large holes is its data extents back to back, then
their list as a trailer (`cozyfs.vfs.extents`). Nothing here does I/O, or looks at the table again
once the layout was made: it holds until the table changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cozyfs.vfs import extents
from cozyfs.vfs.pieces import Kind

if TYPE_CHECKING:
    from cozyfs.vfs.parts import Slice
    from cozyfs.vfs.pieces import PieceTable


@dataclass(frozen=True, slots=True)
class Layout:
    """*slices* laid end to end, then *trailer*."""

    slices: list[Slice]
    trailer: bytes  # empty for a dense content, never for a sparse one

    @classmethod
    def of(cls, table: PieceTable) -> Layout:
        """Sparse where that is worth it."""
        slices = table.slice(0, table.size)
        data = extents.of_data(
            (start, stop) for start, stop, segment in slices if segment.kind is not Kind.HOLE
        )
        if not extents.worth_it(data, table.size):
            return cls(slices, b"")
        slices = [s for e in data for s in table.slice(e.start, e.start + e.length)]
        return cls(slices, extents.encode(data))

    def window(self, offset: int, length: int) -> Layout:
        """What lies at ``[offset, offset + length)`` of the object."""
        wanted: list[Slice] = []
        position = 0
        for start, stop, segment in self.slices:
            first = max(offset - position, 0)
            last = min(offset + length - position, stop - start)
            if first < last:
                wanted.append((start + first, start + last, segment))
            position += stop - start
        first, last = max(offset - position, 0), max(offset + length - position, 0)
        return Layout(wanted, self.trailer[first:last])
