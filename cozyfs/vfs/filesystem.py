"""A mounted instance: the tree of the index and the open files, joined.

What a request means is decided here: which names are legal, what a new inode inherits, when an
inode without names goes. Permissions are the kernel's (``default_permissions``). Every change of
the tree is one index transaction and one plain call on the event loop; only what touches contents
awaits.

An inode without names lives on while a handle is open or the kernel remembers it (its lookup
count), so that what is open stays readable and writable; `forget` and `release` end it.
"""

from __future__ import annotations

import logging
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from cozyfs.errors import (
    CozyError,
    InvalidRequest,
    NoSuchAttribute,
    NotFound,
    NotPermitted,
    ReadOnly,
    TreeError,
)
from cozyfs.store.keys import new_doc_id
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges, Ino, Inode
from cozyfs.vfs import acl
from cozyfs.vfs.draft import Target
from cozyfs.vfs.files import Files, without_set_ids
from cozyfs.vfs.names import check_name, decode, media_class, media_type
from cozyfs.vfs.news import News
from cozyfs.vfs.objects import content_metadata
from cozyfs.vfs.quota import Quota
from cozyfs.vfs.trash import Trash
from cozyfs.vfs.views import refuse_reserved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    import trio

    from cozyfs.index import Index
    from cozyfs.values import Instance, VersionRules
    from cozyfs.vfs.nodes import Handle
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

NO_QUOTA = 1 << 50
"""Bytes that `df` shows as free where the instance has no quota."""

CAPABILITY = b"security.capability"

_COZY = b"user.cozy."


class Space(NamedTuple):
    """What statfs tells. Bytes, and numbers of inodes."""

    total: int  # the quota
    used: int  # all that counts, which may be more
    files: int


class FileSystem:
    """One instance, readable and writable by one process at a time."""

    def __init__(
        self,
        instance: Instance,
        index: Index,
        objects: Objects,
        nursery: trio.Nursery,
        *,
        staging_dir: Path,
        write_buffer: int,
        cache_size: int,
        read_only: bool = False,
        version_rules: VersionRules | None = None,
        sync: Callable[[], Awaitable[None]] | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
        use_trash: bool = True,
        snapshot: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """*sync* makes the tree durable beyond this machine; *confirm* raises unless this process
        may still write: both are asked before anything is acknowledged that depends on them.
        Without *use_trash* what is removed is gone. *snapshot* stores a whole
        copy of the tree: the journal begins anew with it."""
        self.instance = instance
        self.index = index
        self.objects = objects
        self.read_only = read_only
        self.snapshot = snapshot
        self.confirm = confirm
        self._sync = sync
        self._clock = self.clock = clock
        self._lookups: dict[Ino, int] = {}
        self._capabilities = index.has_xattr(CAPABILITY)
        self.quota = Quota(instance.quota, lambda: index.disk_bytes)
        self.files = Files(
            index,
            objects,
            nursery,
            self.quota,
            staging_dir=staging_dir,
            describe=self._describe,
            write_buffer=write_buffer,
            cache_size=cache_size,
            read_only=read_only,
            version_rules=version_rules,
            confirm=confirm,
            sync=sync,
            tell=self.has_new_content,
            clock=clock,
        )
        self.on_new_content: Callable[[Ino], None] | None = None
        """Called with each file that has another content, or another name that may make
        something else of it; on the event loop, after the transaction. Raises nothing."""
        self.news = News(lambda ino: ino == ROOT_INO or ino in self._lookups)
        self.trash = Trash(
            index, self.files, nursery, self.news, clock, self._in_use, enabled=use_trash
        )

    def turn_read_only(self) -> None:
        """Another process may write now: nothing is changed here any more."""
        self.read_only = self.files.read_only = True

    def has_new_content(self, ino: Ino) -> None:
        """Whoever changes the content of a file in the index says so here, after it."""
        if self.on_new_content is not None:
            self.on_new_content(ino)

    def start(self) -> None:
        """Take up what an earlier process left: inodes that were removed while open, and drafts
        that could not be stored."""
        if self.read_only:
            return
        for inode in self.index.orphans():
            self.index.remove_draft(inode.ino)
            self.index.drop(inode.ino, self._clock())
        self.files.recover()

    # ---- looking

    def get(self, ino: Ino) -> Inode:
        try:
            inode = self.index.get(ino)
        except NotFound:
            # Removed by the machine that this mount follows, and still open here.
            if (pinned := self.files.pinned(ino)) is None:
                raise
            inode = pinned
        return self.files.current(inode)

    def lookup(self, parent: Ino, name: bytes) -> Inode:
        """Raises NotFound; `.` and `..` are the kernel's affair."""
        if len(name) > 255:
            check_name(name)
        return self.files.current(self.index.lookup(parent, name))

    def children(self, parent: Ino, after: bytes, limit: int) -> list[tuple[bytes, Inode]]:
        """Up to *limit* entries in the order of their names, from the first one after *after*."""
        current = self.files.current
        return [(name, current(i)) for name, i in self.index.children(parent, after, limit)]

    def readlink(self, ino: Ino) -> bytes:
        inode = self.index.get(ino)
        if inode.target is None:
            raise InvalidRequest("not a symbolic link")
        return inode.target

    def space(self) -> Space:
        used = self.index.disk_bytes
        return Space(self.quota.limit or used + NO_QUOTA, used, self.index.inode_count)

    # ---- the kernel's memory

    def remember(self, ino: Ino) -> None:
        """The kernel got one more reference to *ino* (lookup count + 1)."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def forget(self, forgotten: Iterable[tuple[Ino, int]]) -> None:
        """The kernel dropped so many references to each inode."""
        for ino, count in forgotten:
            left = self._lookups.get(ino, 0) - count
            if left > 0:
                self._lookups[ino] = left
            else:
                self._lookups.pop(ino, None)
                self._drop_if_gone(ino)

    # ---- changing the tree

    async def make(
        self, parent: Ino, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0
    ) -> Inode:
        """A new directory, file, fifo, socket or device. A regular file made this way, which
        nobody closes, has its (empty) object when this returns."""
        inode = self._make(parent, name, mode, uid, gid, rdev)
        if stat.S_ISREG(inode.mode):
            await self.files.store_empty(inode)
            inode = self.get(inode.ino)
        return inode

    def symlink(self, parent: Ino, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        return self._make(parent, name, stat.S_IFLNK | 0o777, uid, gid, target=target)

    def create(
        self, parent: Ino, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[Inode, Handle]:
        """A new regular file and a handle on it; its object comes when the handle is closed."""
        inode = self._make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), uid, gid)
        return inode, self.files.open_new(inode, flags, uid)

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Inode:
        self._check_writable()
        check_name(name)
        refuse_reserved(parent, name)
        self.trash.refuse_new_in(parent)
        return self.files.current(self.index.link(ino, parent, name, self._clock()))

    def unlink(self, parent: Ino, name: bytes, pid: int = 0) -> None:
        """Into the trash with the last name of a file or link; see `cozyfs.vfs.trash`. *pid* is
        the process that asks."""
        self._check_writable()
        left = self.trash.unlink(parent, name, pid)
        if left is not None:
            self._gone_unless_kept(left)

    def rmdir(self, parent: Ino, name: bytes, pid: int = 0) -> None:
        """Into the trash, with what *pid* has removed from it just before."""
        self._check_writable()
        self.trash.rmdir(parent, name, pid)

    def discard(self, parent: Ino, name: bytes) -> bool:
        """A directory into the trash with all that is in it, in one move; False where that
        cannot be: it lies in the trash, or there is none."""
        self._check_writable()
        if not self.trash.enabled or self.index.in_trash(parent):
            return False
        self.trash.move(parent, name)
        return True

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int
    ) -> None:
        """Atomic, also when it replaces; *flags* as in renameat2(2). A file that replaces a file
        goes on as its document, with its versions; the content that was there becomes one."""
        self._check_writable()
        check_name(new_name)
        refuse_reserved(new_parent, new_name)
        now = self._clock()
        with self.index.transaction():
            if not flags and not self._inherit(parent, name, new_parent, new_name, now):
                self.trash.before_rename(parent, name, new_parent, new_name)
            origins = self.trash.origins(parent, name, new_parent, new_name, flags)
            result = self.index.rename(
                parent, name, new_parent, new_name, now, flags=flags, keep=self._in_use
            )
            self.trash.renamed(parent, new_parent, result, origins)
        if result.replaced is not None:
            self._gone_unless_kept(result.replaced)
        for each in (result.moved, result.exchanged):
            if each is not None and stat.S_ISREG(each.mode):
                self.has_new_content(each.ino)

    async def set_attributes(
        self, ino: Ino, changes: AttributeChanges, size: int | None, uid: int
    ) -> Inode:
        """setattr: *size* last, since that may have to reach the store. *uid* is who asks."""
        self._check_writable()
        inode = self.index.get(ino)
        if changes.uid is not None or changes.gid is not None:
            changes = self._without_set_ids(inode, changes)
        if changes != AttributeChanges():
            with self.index.transaction():
                inode = self.index.set_attributes(ino, changes, self._clock())
                if changes.mode is not None:
                    self._chmod_acl(inode)
            if changes.mtime_ns is not None or changes.atime_ns is not None:
                self.files.times_changed(inode, changes.mtime_ns is not None)
        if size is not None:
            await self.files.truncate(ino, size, uid)
            if changes.mtime_ns is not None:  # as asked for, not when the size was set
                again = AttributeChanges(mtime_ns=changes.mtime_ns)
                self.files.times_changed(
                    self.index.set_attributes(ino, again, self._clock()), True
                )
        return self.get(ino)

    # ---- extended attributes

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        if name.startswith(_COZY):
            return self._cozy_xattr(self.get(ino), name[len(_COZY) :])
        return self.index.get_xattr(ino, name)

    def list_xattrs(self, ino: Ino) -> list[bytes]:
        """Without `user.cozy.*`: a copy that takes all attributes along must not take these."""
        return self.index.list_xattrs(ino)

    def set_xattr(
        self, ino: Ino, name: bytes, value: bytes, *, create: bool = False, replace: bool = False
    ) -> None:
        self._check_writable()
        if name.startswith(_COZY):
            raise NotPermitted("attributes of cozyfs cannot be set")
        if name == CAPABILITY:
            self._capabilities = True
        if name == acl.ACCESS:
            self._set_access_acl(ino, value)
        else:
            self.index.set_xattr(
                ino, name, value, create=create, replace=replace, now_ns=self._clock()
            )

    def remove_xattr(self, ino: Ino, name: bytes) -> None:
        self._check_writable()
        if name.startswith(_COZY):
            raise NotPermitted("attributes of cozyfs cannot be removed")
        self.index.remove_xattr(ino, name, self._clock())

    async def sync_tree(self) -> None:
        """The tree as it is now is durable when this returns: in the bucket where there is a
        journal, else on this machine's disk."""
        if self.read_only:
            return
        if self._sync is not None:
            await self._sync()
        else:
            await self.objects.caller.disk(self.index.sync)

    @property
    def has_capabilities(self) -> bool:
        """Whether any file of this mount may have the attribute security.capability."""
        return self._capabilities

    # ---- inside

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly("the mount is read-only")

    def _inherit(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, now_ns: int
    ) -> bool:
        """Before a rename: whether a file goes on as the one that it replaces. What goes into
        the trash, or comes out of it, is no new content of what it replaces there."""
        if self.index.in_trash(parent) or self.index.in_trash(new_parent):
            return False
        try:
            former = self.index.lookup(new_parent, new_name)
            heir = self.index.lookup(parent, name)
        except TreeError:
            return False  # nothing is replaced, or the rename itself will say what is wrong
        md5 = None if self.files.being_written(heir.ino) else heir.md5
        return self.files.versions.inherit(heir, former, md5, now_ns)

    def _make(
        self,
        parent: Ino,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> Inode:
        self._check_writable()
        check_name(name)
        refuse_reserved(parent, name)
        self.trash.refuse_new_in(parent)
        now = self._clock()
        above = self.index.get(parent)
        if above.mode & stat.S_ISGID:
            # inode(7): the group of the directory, and the bit itself for directories.
            gid = above.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        default = None
        if not stat.S_ISLNK(mode):
            default = self._default_acl(parent)
        if default is None:
            return self.index.make(
                parent,
                name,
                mode,
                uid=uid,
                gid=gid,
                rdev=rdev,
                target=target,
                doc_id=new_doc_id(now),
                now_ns=now,
            )
        entries, mode = acl.inherited(acl.parse(default), mode)
        with self.index.transaction():
            inode = self.index.make(
                parent, name, mode, uid=uid, gid=gid, rdev=rdev, doc_id=new_doc_id(now), now_ns=now
            )
            if not acl.is_minimal(entries):
                self.index.set_xattr(inode.ino, acl.ACCESS, acl.encode(entries), now_ns=now)
            if stat.S_ISDIR(mode):
                self.index.set_xattr(inode.ino, acl.DEFAULT, default, now_ns=now)
        return self.index.get(inode.ino)

    def _default_acl(self, parent: Ino) -> bytes | None:
        try:
            return self.index.get_xattr(parent, acl.DEFAULT)
        except NoSuchAttribute:
            return None

    def _set_access_acl(self, ino: Ino, value: bytes) -> None:
        entries = acl.parse(value)
        inode = self.index.get(ino)
        now = self._clock()
        with self.index.transaction():
            mode = stat.S_IMODE(acl.permissions(entries, inode.mode))
            self.index.set_attributes(ino, AttributeChanges(mode=mode), now)
            if not acl.is_minimal(entries):
                self.index.set_xattr(ino, acl.ACCESS, value, now_ns=now)
            elif acl.ACCESS in self.index.list_xattrs(ino):
                self.index.remove_xattr(ino, acl.ACCESS, now)

    def _chmod_acl(self, inode: Inode) -> None:
        try:
            value = self.index.get_xattr(inode.ino, acl.ACCESS)
        except NoSuchAttribute:
            return
        entries = acl.with_permissions(acl.parse(value), inode.mode)
        self.index.set_xattr(inode.ino, acl.ACCESS, acl.encode(entries), now_ns=self._clock())

    @staticmethod
    def _without_set_ids(inode: Inode, changes: AttributeChanges) -> AttributeChanges:
        """chown(2): a new owner or group takes the set-id bits of a file away."""
        if stat.S_ISDIR(inode.mode):
            return changes
        mode = stat.S_IMODE(inode.mode) if changes.mode is None else changes.mode
        cleared = without_set_ids(mode)
        if cleared == mode:
            return changes
        return AttributeChanges(
            cleared, changes.uid, changes.gid, changes.atime_ns, changes.mtime_ns
        )

    def _in_use(self, ino: Ino) -> bool:
        return ino in self._lookups or self.files.is_open(ino)

    def _gone_unless_kept(self, inode: Inode) -> None:
        if inode.nlink == 0 and not self._in_use(inode.ino):
            self.files.dropped(inode.ino)

    def is_in_use(self, ino: Ino) -> bool:
        """Whether a handle is open on it, or the kernel remembers it."""
        return self._in_use(ino)

    @property
    def objects_in_use(self) -> set[str]:
        """Keys of objects that are wanted, or may be, whatever the deletion queue says."""
        return self.files.objects_in_use | self.trash.objects_in_use(self.objects)

    def released(self, ino: Ino) -> None:
        """A handle of *ino* was closed for good."""
        self._drop_if_gone(ino)

    def _drop_if_gone(self, ino: Ino) -> None:
        if self.read_only or self._in_use(ino):
            return
        try:
            if self.index.get(ino).nlink == 0:
                self.index.drop(ino, self._clock())
                self.files.dropped(ino)
        except NotFound:
            pass
        except CozyError as exc:
            # Nobody waits for an answer, and an error would end the mount: a full disk, say. The
            # next start removes what has no names.
            log.error("inode %d, which has no names, could not be removed: %s", ino, exc)

    def _describe(self, inode: Inode, internal_id: str) -> Target:
        """The object that a content of *inode* is stored as, with the metadata that finds its
        place in the tree again if the index is lost."""
        names = self.index.entries_of(inode.ino)
        parent, name = names[0] if names else (TRASH_INO, b"")
        text = decode(name)
        metadata = content_metadata(
            inode.doc_id, self.index.get(parent).doc_id, text, inode.mode, inode.mtime_ns
        )
        key = self.objects.key(inode.doc_id, internal_id)
        return Target(inode.doc_id, internal_id, key, media_type(text), metadata)

    def _cozy_xattr(self, inode: Inode, name: bytes) -> bytes:
        if name == b"id":
            return inode.doc_id.encode()
        if stat.S_ISREG(inode.mode):
            if name == b"state":
                return self.files.state(inode.ino).encode()
            if name == b"md5sum" and inode.md5 is not None:
                return inode.md5.hex().encode()
            if name in (b"mime", b"class"):
                names = self.index.entries_of(inode.ino)
                mime = media_type(decode(names[0][1]) if names else "")
                return (mime if name == b"mime" else media_class(mime)).encode()
        if name == b"tags":
            tags = self.index.document(inode.ino).get("tags", [])
            return ",".join(tags).encode()
        raise NoSuchAttribute("no such attribute")
