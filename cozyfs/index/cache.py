"""What the index remembers of its tables: inodes by number, and directories as they are listed.

Invariant: whatever is in here equals what a SELECT on the writing connection would answer at the
same moment, inside a transaction as well as outside. `cozyfs.index.rows` keeps it: each write goes
to SQLite first and here second, and an undone transaction clears everything. So nothing here
has a time to live. Both parts are bounded, counted in entries, least recently used goes first.

Measured on two busy cores, 40,000 files in 80 directories, without and with the cache: get 10 and
1 us, lookup in a listed directory 12 and 3, of a missing name 26 and 11, a page of 500 children
1,600 and 250 the second time, make 100 and 90. The price: a first lookup 13 and 17, a first page
1,700 and 1,900, twice that while Python's cyclic garbage collector walks what is remembered (a
process with a large cache does well to raise `gc.set_threshold`). A cache of single names besides
would gain little: the kernel has its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cozyfs.values import Ino, Inode

MAX_LISTING = 10_000
"""Names. Larger directories are always read from SQLite, page by page: one that is listed once
must not push out everything else."""

GROUP_BITS = 4
"""Inodes are kept in groups of 16 neighbouring numbers, since files that were made together are
listed together: a page then costs a few operations of the LRU cache instead of one per file, each
as slow as fetching the row. Larger groups waste more where the accesses are scattered."""


class Listing:
    """The first names of a directory in order, or all of them when *complete*.

    Holds numbers, not inodes: an attribute changes without touching any listing.
    """

    __slots__ = ("complete", "inos", "names")

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        self.names: list[bytes] = []
        self.inos: dict[bytes, Ino] = {}

    def __len__(self) -> int:
        return len(self.names)

    def page(self, after: bytes, limit: int) -> list[bytes] | None:
        """At most *limit* names greater than *after* (from the start if empty); None when the
        page reaches beyond what is known."""
        start = bisect_right(self.names, after) if after else 0
        page = self.names[start : start + limit]
        if len(page) < limit and not self.complete:
            return None
        return page

    def add(self, name: bytes, ino: Ino) -> None:
        if name in self.inos:
            self.inos[name] = ino
        elif self.complete or (self.names and name < self.names[-1]):
            insort(self.names, name)
            self.inos[name] = ino

    def remove(self, name: bytes) -> None:
        if self.inos.pop(name, None) is not None:
            del self.names[bisect_left(self.names, name)]


class Cache:
    """*size*: at most so many inodes, and so many names in listings. 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self._groups: LRUCache[int, dict[Ino, Inode]] = LRUCache(size >> GROUP_BITS)
        self._keeps_inodes = self._groups.maxsize > 0
        self._listings: LRUCache[Ino, Listing] = LRUCache(size, getsizeof=_weight)

    def clear(self) -> None:
        self._groups.clear()
        self._listings.clear()

    # ---- inodes

    def inode(self, ino: Ino) -> Inode | None:
        try:
            return self._groups[ino >> GROUP_BITS].get(ino)
        except KeyError:
            return None

    def keep(self, inode: Inode) -> None:
        if self._keeps_inodes:
            self._group(inode.ino >> GROUP_BITS)[inode.ino] = inode

    def forget(self, ino: Ino) -> None:
        if self.inode(ino) is not None:
            del self._groups[ino >> GROUP_BITS][ino]
        self._listings.pop(ino, None)

    def forget_listing(self, parent: Ino) -> None:
        self._listings.pop(parent, None)

    def _group(self, key: int) -> dict[Ino, Inode]:
        try:
            return self._groups[key]
        except KeyError:
            group: dict[Ino, Inode] = {}
            self._groups[key] = group
            return group

    # ---- directories

    def child(self, parent: Ino, name: bytes) -> Ino | None:
        """The number behind a name; None: look into the table, unless :meth:`is_complete`."""
        listing = self._listings.get(parent)
        return None if listing is None else listing.inos.get(name)

    def is_complete(self, parent: Ino) -> bool:
        """Whether a name that :meth:`child` does not find does not exist."""
        listing = self._listings.get(parent)
        return listing is not None and listing.complete

    def children(self, parent: Ino, after: bytes, limit: int) -> list[tuple[bytes, Inode]] | None:
        """A page as `Index.children` returns it; None: ask the table."""
        listing = self._listings.get(parent)
        names = None if listing is None else listing.page(after, limit)
        if listing is None or names is None:
            return None
        page: list[tuple[bytes, Inode]] = []
        key, group = -1, {}
        for name in names:
            ino = listing.inos[name]
            if ino >> GROUP_BITS != key:
                key = ino >> GROUP_BITS
                group = self._groups.get(key, {})
            inode = group.get(ino)
            if inode is None:
                return None
            page.append((name, inode))
        return page

    def keep_page(
        self, parent: Ino, after: bytes, limit: int, page: Sequence[tuple[bytes, Inode]]
    ) -> None:
        """*page* is what the table answered. Pages read one after the other become a listing."""
        listing = None if not after else self._listings.get(parent)
        if not after:
            listing = Listing(complete=False)
        elif listing is None or not listing.names or listing.names[-1] != after:
            # Not the next page. Of a listing that is there already (some of its inodes had been
            # pushed out), the inodes are worth keeping.
            if listing is not None and after in listing.inos:
                self._keep_inodes(page)
            return
        assert listing is not None
        for name, inode in page:
            listing.names.append(name)
            listing.inos[name] = inode.ino
        listing.complete = len(page) < limit
        if self._keep_listing(parent, listing):
            self._keep_inodes(page)

    def keep_new_directory(self, ino: Ino) -> None:
        self._keep_listing(ino, Listing(complete=True))

    def entry_added(self, parent: Ino, name: bytes, ino: Ino) -> None:
        """Also for a name that points elsewhere now."""
        listing = self._listings.get(parent)
        if listing is not None:
            listing.add(name, ino)
            self._keep_listing(parent, listing)

    def entry_removed(self, parent: Ino, name: bytes) -> None:
        listing = self._listings.get(parent)
        if listing is not None:
            listing.remove(name)
            self._keep_listing(parent, listing)

    def _keep_listing(self, parent: Ino, listing: Listing) -> bool:
        """Stored again after each change, since the cache weighs what it is given only then."""
        if len(listing) > MAX_LISTING or _weight(listing) > self._listings.maxsize:
            self._listings.pop(parent, None)
            return False
        self._listings[parent] = listing
        return True

    def _keep_inodes(self, page: Sequence[tuple[bytes, Inode]]) -> None:
        if not self._keeps_inodes:
            return
        key, group = -1, {}
        for _, inode in page:
            if inode.ino >> GROUP_BITS != key:
                key = inode.ino >> GROUP_BITS
                group = self._group(key)
            group[inode.ino] = inode


def _weight(listing: Listing) -> int:
    return len(listing) + 1
