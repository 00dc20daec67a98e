"""Read-only trees that are shown beside the instance's own, each below a name of the root.

A `View` answers by path: the names below its own, from its top. `Views` gives what the kernel
looks at a number, far above those of inodes, for as long as the kernel remembers it, and routes
requests to the view concerned. A view is found by its name and is in no listing of the root, so
that ``ls``, ``cp -r`` and ``rm -r`` never walk into it. Its name is reserved: nothing can be
created there; what an older tree has under that name stays and hides the view.

Another view is another implementation of `View`, a name in RESERVED, and an entry in the list that
a mount gives to `Views`.

On the event loop. Views may await (a thumbnail is asked for in the store); what they said before
may then no longer hold, which is why nothing is remembered of it but the path.
"""

from __future__ import annotations

from stat import S_ISDIR
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cozyfs.errors import NotFound, NotPermitted, StaleHandle
from cozyfs.values import ROOT_INO, Fh, Ino, Inode

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_VIEW_INO = 1 << 62
"""Numbers from here on are of views, for inodes and for handles; no index ever reaches it."""

RESERVED = frozenset({b".cozy_versions", b".thumbs", b".cozy_apps", b".cozy_konnectors"})
"""Names of views, in the root."""

Names = tuple[bytes, ...]
"""A path below the name of a view; empty: its top."""


class Reader(Protocol):
    """One open file of a view."""

    async def read(self, offset: int, size: int) -> bytes:
        """Up to *size* bytes at *offset*; fewer only at the end. Raises StoreError."""

    async def close(self) -> None: ...


class View(Protocol):
    """One tree. Inodes that it returns may have any number; everything else of them is shown."""

    @property
    def name(self) -> bytes:
        """In the root."""

    async def look(self, path: Names) -> Inode:
        """The file or directory at *path*. Raises NotFound."""

    async def children(self, path: Names) -> list[tuple[bytes, Inode]]:
        """What the directory at *path* lists. Raises NotFound."""

    async def open(self, path: Names) -> Reader:
        """The content of the file at *path*. Raises NotFound, StoreError."""


class _Place(NamedTuple):
    """What a number stands for. A file and a directory of one path, one after the other, are
    two things for the kernel."""

    view: View
    path: Names
    is_directory: bool


class Views:
    """All views of a mount."""

    def __init__(self, views: Iterable[View]) -> None:
        self._views = {view.name: view for view in views}
        self._places: dict[Ino, _Place] = {}
        self._numbers: dict[_Place, Ino] = {}
        self._lookups: dict[Ino, int] = {}
        self._next_ino = FIRST_VIEW_INO
        self._readers: dict[Fh, Reader] = {}
        self._next_fh = FIRST_VIEW_INO

    def has(self, parent: int, name: bytes) -> bool:
        """Whether *name* in the directory *parent* is the top of a view."""
        return parent == ROOT_INO and name in self._views

    # ---- looking

    async def lookup(self, parent: Ino, name: bytes) -> Inode:
        """In a view, or in the root. Raises NotFound, StaleHandle."""
        if parent == ROOT_INO:
            if name not in self._views:
                raise NotFound("there is no such view")
            view = self._views[name]
            return self._numbered(view, (), await view.look(()))
        above = self._place(parent)
        path = (*above.path, name)
        return self._numbered(above.view, path, await above.view.look(path))

    async def get(self, ino: Ino) -> Inode:
        """Raises NotFound when it is gone, StaleHandle."""
        place = self._place(ino)
        inode = await place.view.look(place.path)
        if S_ISDIR(inode.mode) != place.is_directory:
            raise NotFound("something else has taken its place")
        return inode._replace(ino=ino)

    async def children(self, ino: Ino) -> list[tuple[bytes, Inode]]:
        """Without numbers yet. Raises NotFound, StaleHandle."""
        place = self._place(ino)
        return await place.view.children(place.path)

    def child(self, ino: Ino, name: bytes, inode: Inode) -> Inode:
        """One of the children of *ino*, with its number. Who does not remember it after all has
        to forget it. Raises StaleHandle."""
        place = self._place(ino)
        return self._numbered(place.view, (*place.path, name), inode)

    # ---- the kernel's memory

    def remember(self, ino: Ino) -> None:
        """The kernel got one more reference to *ino* (lookup count + 1)."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def forget(self, ino: Ino, count: int = 0) -> None:
        """The kernel dropped *count* references to *ino*."""
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
            return
        self._lookups.pop(ino, None)
        place = self._places.pop(ino, None)
        if place is not None:
            del self._numbers[place]

    @property
    def remembered(self) -> int:
        """How many numbers stand for something."""
        return len(self._places)

    # ---- files

    async def open(self, ino: Ino) -> Fh:
        """For reading. Raises NotFound, StaleHandle, StoreError."""
        place = self._place(ino)
        reader = await place.view.open(place.path)
        fh = Fh(self._next_fh)
        self._next_fh += 1
        self._readers[fh] = reader
        return fh

    async def read(self, fh: Fh, offset: int, size: int) -> bytes:
        reader = self._readers.get(fh)
        if reader is None:
            raise StaleHandle("the file is not open")
        return await reader.read(offset, size)

    async def release(self, fh: Fh) -> None:
        reader = self._readers.pop(fh, None)
        if reader is not None:
            await reader.close()

    # ---- inside

    def _place(self, ino: Ino) -> _Place:
        place = self._places.get(ino)
        if place is None:
            raise StaleHandle("the kernel was never told of this inode")
        return place

    def _numbered(self, view: View, path: Names, inode: Inode) -> Inode:
        place = _Place(view, path, S_ISDIR(inode.mode))
        ino = self._numbers.get(place)
        if ino is None:
            ino = Ino(self._next_ino)
            self._next_ino += 1
            self._places[ino] = place
            self._numbers[place] = ino
        return inode._replace(ino=ino)


def is_of_view(number: int) -> bool:
    """Whether an inode number, or a handle, belongs to a view."""
    return number >= FIRST_VIEW_INO


def refuse_reserved(parent: Ino, name: bytes) -> None:
    """Nothing is created where a view is. Raises NotPermitted."""
    if parent == ROOT_INO and name in RESERVED:
        raise NotPermitted(f"{name.decode()} is the name of a view")
