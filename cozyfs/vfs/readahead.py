"""What one open handle is likely to read next, and whether what it read was right.

Both classes are plain state machines: they decide, `cozyfs.vfs.files` acts.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_WINDOW = 1 << 20
LARGEST_WINDOW = 16 << 20
CHUNK = 2 << 20
"""Bytes a ranged GET of read-ahead brings; several are in flight."""

EARLY = 4 << 20
"""Bytes by which a read may overtake the one before it and still be hashed."""

SLACK = 1 << 20
"""Bytes around the expected position that still count as sequential: the kernel sends several
reads of one sequential reader at once, and they arrive in any order."""


class ReadAhead:
    """Doubles its window while reads are sequential; a jump closes it."""

    __slots__ = ("_ahead", "_expected", "_window")

    def __init__(self) -> None:
        self._expected = 0
        self._window = 0
        self._ahead = 0

    def advance(self, start: int, stop: int, size: int, limit: int) -> Iterator[tuple[int, int]]:
        """After a read of ``[start, stop)`` of *size* bytes: the ranges to fetch now, given that
        a window may take *limit* bytes. A consumer that stops early is asked again next time."""
        if abs(start - self._expected) > SLACK:
            self._expected, self._window, self._ahead = stop, 0, stop
            return
        self._expected = max(self._expected, stop)
        self._ahead = max(self._ahead, stop)
        if stop >= size or size <= FIRST_WINDOW or self._ahead - stop > self._window // 2:
            return
        # Extended only when half of it is used up, so that GETs stay large however small the
        # reads are.
        self._window = min(self._window * 2 or FIRST_WINDOW, LARGEST_WINDOW, limit)
        target = min(stop + self._window, size)
        while self._ahead < target:
            end = min(self._ahead + CHUNK, target)
            yield self._ahead, end
            self._ahead = end


class SequentialHash:
    """MD5 of a content that one handle reads from its first byte to its last.

    Feed it what was read. Reads that arrive a little early wait for those before them; a real
    jump ends the attempt (``alive`` turns false), as random readers have nothing to verify."""

    __slots__ = ("_early", "_hash", "_pending", "_position", "alive", "pending_size")

    def __init__(self) -> None:
        self._hash = hashlib.md5()
        self._position = 0
        self._early: dict[int, bytes] = {}
        self._pending: list[bytes] = []
        self.pending_size = 0
        self.alive = True

    def feed(self, start: int, data: bytes) -> None:
        if not self.alive:
            return
        if not 0 <= start - self._position <= EARLY:
            self.alive = False
            self._pending.clear()
            self._early.clear()
            return
        self._early[start] = data
        while (chunk := self._early.pop(self._position, None)) is not None and chunk:
            self._pending.append(chunk)
            self.pending_size += len(chunk)
            self._position += len(chunk)

    def complete(self, size: int) -> bool:
        """Whether every byte up to *size* was fed."""
        return self.alive and self._position == size

    def take(self) -> list[bytes]:
        """The bytes not yet hashed, for :meth:`update` in a thread."""
        taken, self._pending, self.pending_size = self._pending, [], 0
        return taken

    def update(self, chunks: list[bytes]) -> bytes:
        """The digest with *chunks* added."""
        for chunk in chunks:
            self._hash.update(chunk)
        return self._hash.digest()
