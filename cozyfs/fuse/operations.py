"""A protocol adapter only: each handler translates one kernel request into calls of the vfs.

Effects on the kernel's lookup counts: lookup, create, mkdir, mknod, symlink, link and each entry
that readdir hands over add one; forget subtracts. `remember` is called in the handlers that add.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pyfuse3

from cozyfs.errors import InvalidRequest, NotFound, NotSupported, StaleHandle
from cozyfs.fuse.directories import DirectoryHandle
from cozyfs.fuse.errors import answered
from cozyfs.fuse.invalidation import tell_kernel
from cozyfs.index import NO_CHANGES
from cozyfs.values import AttributeChanges, Fh, Ino
from cozyfs.vfs.acl import ACCESS, DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cozyfs.fuse.attributes import Presentation
    from cozyfs.values import Inode
    from cozyfs.vfs.filesystem import FileSystem

_RENAME_FLAGS = pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE

# The kernel asks for it before every write(2), so the answer has to be cheap.
_CAPABILITY = b"security.capability"
_NO_ATTRIBUTE = errno.ENODATA

_NAMESPACES = (b"user.", b"trusted.", b"security.")

_STATFS_BLOCK = 4096


class Operations(pyfuse3.Operations):
    """All requests that pyfuse3 knows, over one `FileSystem`."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # sizes and times are ours; two handles must see one draft
    enable_acl = True

    def __init__(self, fs: FileSystem, presentation: Presentation) -> None:
        super().__init__()
        self._fs = fs
        self._show = presentation
        self._directories: dict[int, DirectoryHandle] = {}
        self._next_directory = 1

    def _entry(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """The reply that hands *inode* to the kernel: lookup count + 1."""
        self._fs.remember(inode.ino)
        return self._shown(inode)

    def _shown(self, inode: Inode) -> pyfuse3.EntryAttributes:
        return self._show.entry(inode, fleeting=self._fs.files.is_mixed(inode.ino))

    # ---- names

    @answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            return self._entry(self._fs.lookup(Ino(parent_inode), name))
        except NotFound:
            return self._show.absent()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._fs.forget((Ino(ino), count) for ino, count in inode_list)

    @answered
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(
            await self._fs.make(Ino(parent_inode), name, mode, ctx.uid, ctx.gid, rdev)
        )

    @answered
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(await self._fs.make(Ino(parent_inode), name, mode, ctx.uid, ctx.gid))

    @answered
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.symlink(Ino(parent_inode), name, target, ctx.uid, ctx.gid))

    @answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.link(Ino(inode), Ino(new_parent_inode), new_name))

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._fs.unlink(Ino(parent_inode), name, ctx.pid)

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._fs.rmdir(Ino(parent_inode), name, ctx.pid)

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
        if flags & ~_RENAME_FLAGS:
            raise InvalidRequest("unknown rename flags")  # RENAME_WHITEOUT is for overlays
        self._fs.rename(Ino(parent_inode_old), name_old, Ino(parent_inode_new), name_new, flags)

    @answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._fs.readlink(Ino(inode))

    # ---- attributes

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._shown(self._fs.get(Ino(inode)))

    @answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        changes = AttributeChanges(
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        size = attr.st_size if fields.update_size else None
        return self._show.entry(await self._fs.set_attributes(Ino(inode), changes, size, ctx.uid))

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        space = self._fs.space()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _STATFS_BLOCK
        data.f_blocks = -(-space.total // _STATFS_BLOCK)
        data.f_bfree = data.f_bavail = max(space.total - space.used, 0) // _STATFS_BLOCK
        # There is no table of inodes to fill; tools want to see room.
        data.f_files = space.files + (1 << 30)
        data.f_ffree = data.f_favail = 1 << 30
        data.f_namemax = 255
        return data

    @answered
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True  # asked only without default_permissions: then everything is allowed

    # ---- extended attributes

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name == _CAPABILITY and not self._fs.has_capabilities:
            raise pyfuse3.FUSEError(_NO_ATTRIBUTE)
        return self._fs.get_xattr(Ino(inode), name)

    @answered
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        if not name.startswith(_NAMESPACES) and name not in (ACCESS, DEFAULT):
            raise NotSupported("unknown kind of extended attribute")
        self._fs.set_xattr(Ino(inode), name, value)

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return self._fs.list_xattrs(Ino(inode))

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._fs.remove_xattr(Ino(inode), name)

    # ---- files

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        files = self._fs.files
        handle = await files.open(Ino(inode), flags, ctx.uid)
        if handle.pinned is None:
            return pyfuse3.FileInfo(fh=handle.fh, keep_cache=True)
        # The kernel's pages are the inode's, whichever handle fills them: those of an older
        # content must not be taken for this one's.
        return pyfuse3.FileInfo(
            fh=handle.fh, keep_cache=False, direct_io=files.is_mixed(Ino(inode))
        )

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        inode, handle = self._fs.create(Ino(parent_inode), name, mode, flags, ctx.uid, ctx.gid)
        return pyfuse3.FileInfo(fh=handle.fh, keep_cache=True), self._entry(inode)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._fs.files.read(Fh(fh), off, size)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._fs.files.write(Fh(fh), off, buf)

    @answered
    async def flush(self, fh: int) -> None:
        await self._fs.files.flush(Fh(fh))

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.files.fsync(Fh(fh))
        await self._fs.sync_tree()

    @answered
    async def release(self, fh: int) -> None:
        ino = self._fs.files.handle(Fh(fh)).node.ino
        changes = await self._fs.files.release(Fh(fh))
        self._fs.released(ino)
        if changes != NO_CHANGES:
            # In a thread: the kernel may wait for a request that we have to answer.
            await self._fs.objects.caller.disk(tell_kernel, changes)

    # ---- directories

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        fh = self._next_directory
        self._next_directory += 1
        self._directories[fh] = DirectoryHandle(Ino(inode))
        return fh

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self._directories.get(fh)
        if handle is None:
            raise StaleHandle("the directory is not open")
        show, remember = self._shown, self._fs.remember
        for offset, name, inode in handle.entries(start_id, self._fs.children):
            if not pyfuse3.readdir_reply(token, name, show(inode), offset):
                return
            remember(inode.ino)

    @answered
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.sync_tree()
