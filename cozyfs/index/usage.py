"""How much an index holds: counted by one scan, then kept in step with every change.

Plain arithmetic on inodes. Who calls it, and when, is in `cozyfs.index.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from stat import S_ISREG
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cozyfs.values import Inode

SCAN = """
    SELECT count(*),
           coalesce(sum(mode & 0xF000 = 0x8000), 0),
           coalesce(sum(iif(mode & 0xF000 = 0x8000, size, 0)), 0),
           coalesce(sum(iif(mode & 0xF000 = 0x8000, stored, 0)), 0)
    FROM inodes
"""
"""One row, in the order of :class:`Usage`. 0x8000 is S_IFREG."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Removed inodes that are still open count until they are dropped, as in ``df``."""

    inodes: int
    files: int  # regular files
    file_bytes: int  # logical
    stored_bytes: int  # of their objects


class UsageCounter:
    """Mutable counterpart of :class:`Usage`, with one step back."""

    __slots__ = ("_counts", "_marked")

    def __init__(self, counts: tuple[int, int, int, int]) -> None:
        self._counts = counts
        self._marked = counts

    @property
    def usage(self) -> Usage:
        return Usage(*self._counts)

    def count(self, old: Inode | None, new: Inode | None) -> None:
        """*old* became *new*; None: there was, or is, no such row."""
        inodes, files, file_bytes, stored_bytes = self._counts
        if old is not None:
            inodes -= 1
            if S_ISREG(old.mode):
                files -= 1
                file_bytes -= old.size
                stored_bytes -= old.stored
        if new is not None:
            inodes += 1
            if S_ISREG(new.mode):
                files += 1
                file_bytes += new.size
                stored_bytes += new.stored
        self._counts = (inodes, files, file_bytes, stored_bytes)

    def mark(self) -> None:
        self._marked = self._counts

    def back_to_mark(self) -> None:
        self._counts = self._marked
