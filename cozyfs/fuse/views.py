"""The views of a mount, joined with its tree: requests about numbers of views go to `Views`.

What a view shows can be asked for and read, and no more: every change is refused with EROFS, also
for root, whom permissions do not stop. The kernel remembers nothing of a view: it asks each time,
which costs little and is always right.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyfuse3

from cozyfs.errors import NoSuchAttribute, NotFound, ReadOnly, StaleHandle
from cozyfs.fuse.errors import answered
from cozyfs.fuse.operations import Operations
from cozyfs.values import Fh, Ino
from cozyfs.vfs.views import FIRST_VIEW_INO, is_of_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cozyfs.fuse.attributes import Presentation
    from cozyfs.values import Inode
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.views import Views


class _Listing:
    """One open directory of a view: as it was when it was read from its start."""

    def __init__(self, ino: Ino) -> None:
        self.ino = ino
        self.entries: list[tuple[bytes, Inode]] = []


class OperationsWithViews(Operations):
    """All requests, over one `FileSystem` and its views."""

    def __init__(self, fs: FileSystem, presentation: Presentation, views: Views) -> None:
        super().__init__(fs, presentation)
        self._views = views
        self._listings: dict[int, _Listing] = {}
        self._next_listing = FIRST_VIEW_INO

    def _fleeting(self, inode: Inode) -> pyfuse3.EntryAttributes:
        entry = self._show.entry(inode, fleeting=True)
        entry.entry_timeout = 0.0
        return entry

    def _refuse(self, inode: int, name: bytes | None = None) -> None:
        """A change of *inode* if it belongs to a view, or of *name* in it if that is a view.
        Raises ReadOnly."""
        if is_of_view(inode) or (name is not None and self._is_view(inode, name)):
            raise ReadOnly("views can only be read")

    def _is_view(self, parent: int, name: bytes) -> bool:
        """A view, and nothing of the tree that hides it."""
        if not self._views.has(parent, name):
            return False
        try:
            self._fs.lookup(Ino(parent), name)
        except NotFound:
            return True
        return False

    # ---- looking

    @answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if not is_of_view(parent_inode) and not self._is_view(parent_inode, name):
            return await super().lookup(parent_inode, name, ctx)
        inode = await self._views.lookup(Ino(parent_inode), name)
        self._views.remember(inode.ino)
        return self._fleeting(inode)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        await super().forget([each for each in inode_list if not is_of_view(each[0])])
        for ino, count in inode_list:
            if is_of_view(ino):
                self._views.forget(Ino(ino), count)

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if not is_of_view(inode):
            return await super().getattr(inode, ctx)
        return self._fleeting(await self._views.get(Ino(inode)))

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not is_of_view(inode):
            return await super().getxattr(inode, name, ctx)
        raise NoSuchAttribute("views have no attributes")

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return [] if is_of_view(inode) else await super().listxattr(inode, ctx)

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        if not is_of_view(inode):
            return await super().opendir(inode, ctx)
        fh = self._next_listing
        self._next_listing += 1
        self._listings[fh] = _Listing(Ino(inode))
        return fh

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if not is_of_view(fh):
            await super().readdir(fh, start_id, token)
            return
        listing = self._listings.get(fh)
        if listing is None:
            raise StaleHandle("the directory is not open")
        if start_id == 0:
            listing.entries = await self._views.children(listing.ino)
        for offset, (name, inode) in enumerate(listing.entries[start_id:], start_id + 1):
            child = self._views.child(listing.ino, name, inode)
            if not pyfuse3.readdir_reply(token, name, self._fleeting(child), offset):
                self._views.forget(child.ino)
                return
            self._views.remember(child.ino)

    @answered
    async def releasedir(self, fh: int) -> None:
        if is_of_view(fh):
            self._listings.pop(fh, None)
        else:
            await super().releasedir(fh)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        if not is_of_view(fh):
            await super().fsyncdir(fh, datasync)

    # ---- reading

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if not is_of_view(inode):
            return await super().open(inode, flags, ctx)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise ReadOnly("views can only be read")
        # Its name may stand for another content the next time: no page of it is kept.
        return pyfuse3.FileInfo(fh=await self._views.open(Ino(inode)), keep_cache=False)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        if is_of_view(fh):
            return await self._views.read(Fh(fh), off, size)
        return await super().read(fh, off, size)

    @answered
    async def flush(self, fh: int) -> None:
        if not is_of_view(fh):
            await super().flush(fh)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        if not is_of_view(fh):
            await super().fsync(fh, datasync)

    @answered
    async def release(self, fh: int) -> None:
        if is_of_view(fh):
            await self._views.release(Fh(fh))
        else:
            await super().release(fh)

    # ---- changes

    @answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._refuse(inode)
        return await super().setattr(inode, attr, fields, fh, ctx)

    @answered
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self._refuse(inode)
        await super().setxattr(inode, name, value, ctx)

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._refuse(inode)
        await super().removexattr(inode, name, ctx)

    @answered
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._refuse(parent_inode)
        return await super().mknod(parent_inode, name, mode, rdev, ctx)

    @answered
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._refuse(parent_inode)
        return await super().mkdir(parent_inode, name, mode, ctx)

    @answered
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._refuse(parent_inode)
        return await super().symlink(parent_inode, name, target, ctx)

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._refuse(parent_inode)
        return await super().create(parent_inode, name, mode, flags, ctx)

    @answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._refuse(inode)
        self._refuse(new_parent_inode)
        return await super().link(inode, new_parent_inode, new_name, ctx)

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._refuse(parent_inode, name)
        await super().unlink(parent_inode, name, ctx)

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._refuse(parent_inode, name)
        await super().rmdir(parent_inode, name, ctx)

    @answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self._refuse(parent_inode_old, name_old)
        self._refuse(parent_inode_new, name_new)
        await super().rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)
