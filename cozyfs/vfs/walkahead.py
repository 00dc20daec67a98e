"""Fetching the next small files of a directory for a reader that walks it in order.

`cp -r`, `grep -r`, `tar` and a photo viewer open files in the order readdir gave them, which is
the order of names. Reading one small file is one round trip, so what makes such a walk fast is
that the next files are under way before they are asked for. Decides only; `cozyfs.vfs.files`
fetches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

if TYPE_CHECKING:
    from cozyfs.index import Index
    from cozyfs.values import Ino, Inode

SMALL = 256 << 10
"""Bytes: larger files are read ahead within themselves."""

NEAR = 8
"""Entries by which a walk may jump and still be one: sub-directories and large files between."""

FIRST_RUN = 2
LONGEST_RUN = 32
"""Files fetched ahead at most, doubling as the walk goes on."""

_DIRECTORIES = 64
"""Walks followed at once."""


class _Walk(NamedTuple):
    """Where a reader is in a directory: the name it opened last, how many files are to be
    ahead of it, and the last name that was asked for."""

    name: bytes
    run: int
    asked: bytes


class WalkAhead:
    """Follows the walks of all readers, by directory."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._walks: LRUCache[Ino, _Walk] = LRUCache(_DIRECTORIES)

    def opened(self, inode: Inode) -> list[Inode]:
        """*inode* was opened for reading: which files to fetch now, in order."""
        if inode.size > SMALL:
            return []
        places = self._index.entries_of(inode.ino)
        if len(places) != 1:
            return []  # several names: no telling which was meant
        parent, name = places[0]
        walk = self._walks.get(parent)
        if walk is None or not self._follows(parent, walk, name):
            self._walks[parent] = _Walk(name, 0, name)
            return []
        run = min(walk.run * 2 or FIRST_RUN, LONGEST_RUN)
        ahead = self._index.children(parent, name, run)
        wanted = [i for n, i in ahead if n > walk.asked and _fetchable(i)]
        self._walks[parent] = _Walk(name, run, max(walk.asked, ahead[-1][0]) if ahead else name)
        return wanted

    def _follows(self, parent: Ino, walk: _Walk, name: bytes) -> bool:
        if name <= walk.name:
            return False
        near = self._index.children(parent, walk.name, NEAR)
        return bool(near) and name <= near[-1][0]


def _fetchable(inode: Inode) -> bool:
    return inode.internal_id is not None and inode.extents is None and 0 < inode.size <= SMALL
