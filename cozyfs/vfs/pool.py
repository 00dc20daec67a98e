"""The accounted memory of drafts: one budget for the whole mount, not a limit per file.

Used on the event loop only. Nothing waits here: a draft that gets no memory sends parts, or
moves to its staging file (see :mod:`cozyfs.vfs.draft`), and both give bytes back.
"""

from __future__ import annotations


class MemoryPool:
    """``limit`` bytes to share."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def try_reserve(self, size: int) -> bool:
        """Take *size* bytes if they are there."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def reserve(self, size: int) -> None:
        """Take *size* bytes in any case: for bytes that exist already."""
        self.used += size

    def release(self, size: int) -> None:
        self.used -= size
