"""What each process has removed lately, by directory: what makes a tree in the trash of `rm -r`.

`rm -r` removes names one by one, and a directory when nothing is left in it. Only then it is
known that what was removed from it before belongs together. Kept in memory, since it is of use
for the moments that such a removal takes: what is not remembered lies in the trash one by one.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from cachetools import TTLCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cozyfs.values import Ino, Inode

LIFETIME_S = 600.0
"""Since the last removal by that process from that directory."""

MOST_ITEMS = 200_000
"""Over all directories; 8 bytes each."""

SAVED_WEIGHT = 100
"""Items that one saved inode counts as: it takes about a kilobyte."""


class Saved(NamedTuple):
    """What was removed without going into the trash, to come back with its directory."""

    name: bytes
    inode: Inode
    xattrs: list[tuple[bytes, bytes]]
    fields: dict[str, Any]


class Removed:
    """From one directory, by one process."""

    __slots__ = ("changed_ns", "inos", "mtime_ns", "saved")

    def __init__(self, mtime_ns: int) -> None:
        self.mtime_ns = mtime_ns
        """Of the directory before the first removal."""
        self.changed_ns = mtime_ns
        """Of the directory after the last one: another now means that others changed it."""
        self.inos = array("q")
        """Of what went into the trash, in that order."""
        self.saved: list[Saved] = []

    def weight(self) -> int:
        return 1 + len(self.inos) + SAVED_WEIGHT * len(self.saved)


class Memory:
    """Keys are (process, directory, path of the directory): once it was renamed, what had been
    removed from it before is not taken for a part of it."""

    def __init__(self) -> None:
        self._removed: TTLCache[tuple[int, Ino, bytes], Removed] = TTLCache(
            MOST_ITEMS, LIFETIME_S, getsizeof=Removed.weight
        )

    def add(
        self,
        pid: int,
        directory: Inode,
        path: bytes,
        now_ns: int,
        *,
        ino: Ino | None = None,
        saved: Saved | None = None,
    ) -> None:
        """Something was removed from *directory*, which is as it was just before: it went into
        the trash as *ino*, or is *saved*, or neither."""
        key = (pid, directory.ino, path)
        removed = self._removed.get(key)
        if removed is None:
            removed = Removed(directory.mtime_ns)
        elif removed.changed_ns != directory.mtime_ns:
            removed.mtime_ns = directory.mtime_ns
        removed.changed_ns = now_ns
        if ino is not None:
            removed.inos.append(ino)
        if saved is not None:
            removed.saved.append(saved)
        if removed.weight() > MOST_ITEMS:
            removed.saved.clear()
            del removed.inos[: MOST_ITEMS // 10]
        self._removed[key] = removed  # stored again: the cache weighs it, and its time starts anew

    def get(self, pid: int, directory: Ino, path: bytes) -> Removed | None:
        """What that process removed from it."""
        return self._removed.get((pid, directory, path))

    def saved(self) -> Iterator[Saved]:
        """All that may still come back."""
        return (saved for removed in self._removed.values() for saved in removed.saved)

    def forget(self, pid: int, directory: Ino, path: bytes) -> None:
        """The directory is gone."""
        self._removed.pop((pid, directory, path), None)
