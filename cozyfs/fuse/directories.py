"""Open directories: a listing that stays in order while entries come and go.

readdir's offsets count the names a handle has given out, in the order of their bytes; the names
themselves are kept, so that telldir and seekdir find their place again also when entries before
it are gone. A name that stays is given exactly once; one that comes or goes meanwhile may or may
not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cozyfs.values import Ino, Inode

PAGE = 256
"""Entries asked of the index at once: about what one readdir request holds."""


class DirectoryHandle:
    """One open directory."""

    __slots__ = ("_names", "ino")

    def __init__(self, ino: Ino) -> None:
        self.ino = ino
        self._names: list[bytes] = []

    def entries(
        self, offset: int, children: Callable[[Ino, bytes, int], list[tuple[bytes, Inode]]]
    ) -> Iterator[tuple[int, bytes, Inode]]:
        """``(offset after it, name, inode)`` from *offset* on. Offset 0 starts afresh."""
        if offset == 0:
            self._names.clear()
        offset = min(offset, len(self._names))
        after = self._names[offset - 1] if offset else b""
        del self._names[offset:]
        while page := children(self.ino, after, PAGE):
            for name, inode in page:
                self._names.append(name)
                offset += 1
                after = name
                yield offset, name, inode
