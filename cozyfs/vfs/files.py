"""Open files: handles, reading and writing, drafts that wait.

How a draft becomes a content of the store is in `cozyfs.vfs.storing`, how one is read in
`cozyfs.vfs.contents`.

Concurrency: a node's lock is held for every change and for a flush as a whole, so writers of
one file wait while it is being stored; readers never do. Nodes of different files are
independent. On a read-only mount, whose tree changes behind the kernel's back, a handle goes on
reading the content it was opened on. Index calls are plain calls on the event loop; whatever
awaits looks its node and its inode up again afterwards where that matters (they may have been
unlinked meanwhile).
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import (
    CozyError,
    InvalidRequest,
    LeaseLost,
    NotFound,
    ObjectNotFound,
    QuotaExceeded,
    ReadOnly,
    StaleHandle,
    UploadFailed,
)
from cozyfs.index import NO_CHANGES, Changes
from cozyfs.store.keys import new_internal_id
from cozyfs.values import AttributeChanges, Fh, Ino, Inode, VersionRules
from cozyfs.vfs.cache import BlockCache
from cozyfs.vfs.contents import Contents
from cozyfs.vfs.draft import Draft, Target, Workshop
from cozyfs.vfs.kept import KeptDrafts
from cozyfs.vfs.nodes import Handle, Node
from cozyfs.vfs.pool import MemoryPool
from cozyfs.vfs.storing import Storing
from cozyfs.vfs.undoing import go_back, remove_names
from cozyfs.vfs.versions import Versions
from cozyfs.vfs.walkahead import WalkAhead

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from cozyfs.index import Index
    from cozyfs.vfs.objects import Objects
    from cozyfs.vfs.quota import Quota

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Bytes of a content that are read in one go, where all of it is wanted."""


async def _no_sync() -> None:
    """Where the index has no journal."""


class Files:
    """All open files of one mount."""

    def __init__(
        self,
        index: Index,
        objects: Objects,
        nursery: trio.Nursery,
        quota: Quota,
        *,
        staging_dir: Path,
        describe: Callable[[Inode, str], Target],
        write_buffer: int,
        cache_size: int,
        read_only: bool = False,
        version_rules: VersionRules | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
        sync: Callable[[], Awaitable[None]] | None = None,
        tell: Callable[[Ino], None] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """*tell* is called with each file that has got another content."""
        self._index = index
        self._objects = objects
        self._nursery = nursery
        self._quota = quota
        self._describe = describe
        self._clock = clock
        self.read_only = read_only
        self.versions = Versions(index, version_rules or VersionRules())
        self.cache = BlockCache(objects, cache_size)
        self.pool = MemoryPool(write_buffer)
        self._shop = Workshop(
            objects,
            self.pool,
            staging_dir,
            nursery,
            self._new_target,
            self._superseded,
            sync or _no_sync,
        )
        self._kept = KeptDrafts(index, self._shop, clock, self._take_up)
        self._nodes: dict[Ino, Node] = {}
        self._handles: dict[Fh, Handle] = {}
        self._next_fh = 1
        self._walks = WalkAhead(index)
        self._contents = Contents(objects, self.cache, nursery)
        self.storing = Storing(
            self._nodes,
            index,
            objects,
            self.cache,
            quota,
            self.versions,
            current=self.current,
            describe=describe,
            confirm=confirm,
            tell=tell,
            clock=clock,
        )

    # ---- what others ask

    @property
    def open_files(self) -> int:
        return len(self._handles)

    @property
    def dirty_bytes(self) -> int:
        """Written and not yet in the store."""
        return sum(n.draft.held for n in self._waiting() if n.draft is not None)

    @property
    def pending(self) -> int:
        """Files with content that is not yet in the store."""
        return len(self._waiting())

    @property
    def failed(self) -> int:
        """Files whose last upload failed; they are retried."""
        return sum(1 for n in self._nodes.values() if n.failures)

    def being_written(self, ino: Ino) -> bool:
        """Whether the content that the index knows is, or may soon be, no longer the file's."""
        node = self._nodes.get(ino)
        return node is not None and (node.writers > 0 or node.draft is not None)

    def replaced(self, ino: Ino) -> None:
        """The file got another content, already in the store: it is a former one for whoever has
        the file open, a version when that one changes it, and what it goes back to."""
        if (node := self._nodes.get(ino)) is not None:
            node.replaced = False
            self.storing.settle_for(node)

    def is_open(self, ino: Ino) -> bool:
        node = self._nodes.get(ino)
        return node is not None and node.handles > 0

    def current(self, inode: Inode) -> Inode:
        """*inode* as its users see it: size and times of an unflushed draft included."""
        node = self._nodes.get(inode.ino)
        if node is None:
            return inode
        if node.pinned and node.draft is None:
            # The kernel knows one size of an inode, and reads no further, for whatever handle.
            return inode._replace(size=max(inode.size, *(each.size for each in node.pinned)))
        if node.draft is None:
            return inode
        draft = node.draft
        return inode._replace(
            size=draft.size,
            stored=draft.allocated,
            mtime_ns=draft.mtime_ns,
            ctime_ns=max(draft.ctime_ns, inode.ctime_ns),
        )

    def pinned(self, ino: Ino) -> Inode | None:
        """What an open handle still reads of an inode that is gone on the machine that writes."""
        node = self._nodes.get(ino)
        return node.pinned[-1]._replace(nlink=0) if node is not None and node.pinned else None

    def is_mixed(self, ino: Ino) -> bool:
        """Whether handles of the inode read another content than the tree has, so that what the
        kernel is told of it holds for a moment only."""
        node = self._nodes.get(ino)
        if node is None or not node.pinned:
            return False
        try:
            now = self._index.get(ino)
        except NotFound:
            return True
        return any(not _same_content(each, now) for each in node.pinned)

    def state(self, ino: Ino) -> str:
        """``clean`` (in the store), ``dirty`` (not yet), ``failed`` (kept and retried)."""
        node = self._nodes.get(ino)
        if node is None or node.draft is None or not node.draft.dirty:
            return "clean"
        return "failed" if node.failures else "dirty"

    def times_changed(self, inode: Inode, mtime_too: bool) -> None:
        """setattr set the times of *inode*: a later flush must not bring older ones back."""
        node = self._nodes.get(inode.ino)
        if node is not None and node.draft is not None:
            if mtime_too:
                node.draft.mtime_ns = inode.mtime_ns
            node.draft.ctime_ns = inode.ctime_ns

    # ---- handles

    async def open(self, ino: Ino, flags: int, uid: int) -> Handle:
        """A handle on a regular file; O_TRUNC empties the file."""
        writing = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if writing and self.read_only:
            raise ReadOnly("the mount is read-only")
        inode = self._index.get(ino)
        handle = self._add(ino, flags, uid)
        if self.read_only and handle.node.draft is None:
            handle.pinned = inode
            handle.node.pinned.append(inode)
        if flags & os.O_TRUNC:
            try:
                async with handle.node.lock:
                    await self._truncate(handle.node, 0, uid)
                handle.wrote = True
            except BaseException:
                self._forget(handle)
                raise
        elif handle.node.draft is None:
            for small in self._walks.opened(inode):
                self._contents.fetch_ahead(small)
        return handle

    def open_new(self, inode: Inode, flags: int, uid: int) -> Handle:
        """A handle on a file that was just created: even if nothing is written, closing it
        stores an (empty) object."""
        handle = self._add(inode.ino, flags, uid)
        draft = Draft(self._shop, inode)
        draft.dirty = True
        handle.node.draft = draft
        handle.node.is_new = True
        handle.wrote = True
        return handle

    def open_content(self, content: Inode, uid: int) -> Handle:
        """A handle that reads a content which is no inode's any more; *content* says where it
        is. Its object stays as long as the handle is open."""
        handle = Handle(Fh(self._next_fh), Node(content.ino), os.O_RDONLY, uid)
        self._next_fh += 1
        self._handles[handle.fh] = handle
        handle.pinned = content
        handle.node.pinned.append(content)
        handle.node.handles += 1
        return handle

    async def store_empty(self, inode: Inode) -> None:
        """Give a new file its (empty) object at once: for mknod, which nobody closes."""
        handle = self.open_new(inode, os.O_WRONLY, 0)
        await self.release(handle.fh)

    def handle(self, fh: Fh) -> Handle:
        try:
            return self._handles[fh]
        except KeyError:
            raise StaleHandle("the file is not open") from None

    async def release(self, fh: Fh) -> Changes:
        """The last reference to a handle is gone. Stores what a memory map wrote after close;
        errors cannot reach anyone any more, so they are logged and the draft is retried.

        Where the quota refused a write, and nobody is left who could make up for it, the draft is
        given up: returned is what of the tree is different from then on."""
        handle = self._handles.get(fh)
        if handle is None:
            return NO_CHANGES
        node = handle.node
        changes = NO_CHANGES
        if node.refused and handle.writable and node.writers == 1:
            changes = await self._give_up(node, writers=1)
        if handle.writable:  # how it left the file is how others find it
            self.storing.settle_for(node)
            node.is_new = node.is_new and not self._is_stored(node.ino)
        waits = node.draft is not None and node.draft.dirty and handle.writable
        if waits and not node.failures and not node.refused and not self.read_only:
            try:
                await self.storing.flush(node)
            except CozyError as exc:
                log.error("a file could not be stored, it is kept and retried: %s", exc)
        self._forget(handle)
        return changes

    # ---- data

    async def read(self, fh: Fh, offset: int, size: int) -> bytes:
        """Up to *size* bytes at *offset*; fewer only at the end of the file."""
        handle = self.handle(fh)
        if handle.pinned is not None:
            return await self._read_pinned(handle, handle.pinned, offset, size)
        while True:
            draft = handle.node.draft
            internal_id = self._index.get(handle.node.ino).internal_id
            try:
                return await self._read(handle, offset, size)
            except ObjectNotFound:
                # Replaced, and deleted, while we were reading? Then what is there now is right.
                now = self._index.get(handle.node.ino).internal_id
                if handle.node.draft is draft and now == internal_id:
                    raise

    async def pieces(self, fh: Fh) -> AsyncGenerator[bytes, None]:
        """All of an open file, from its start, in pieces of up to `PIECE`. Raises as
        :meth:`read`."""
        offset = 0
        while data := await self.read(fh, offset, PIECE):
            yield data
            offset += len(data)

    async def content(self, content: Inode) -> AsyncGenerator[bytes, None]:
        """The pieces of a content, whatever becomes of the file that has it, as
        :meth:`open_content`; close it (`contextlib.aclosing`) where it is not read to its
        end."""
        handle = self.open_content(content, 0)
        try:
            async for piece in self.pieces(handle.fh):
                yield piece
        finally:
            with trio.CancelScope(shield=True):
                await self.release(handle.fh)

    async def _read_pinned(self, handle: Handle, inode: Inode, offset: int, size: int) -> bytes:
        try:
            return await self._contents.read(handle, inode, offset, size)
        except ObjectNotFound as exc:
            raise ObjectNotFound(
                f"{self._path(inode.ino)}: the content that it had then is gone from the store:"
                " it was replaced or removed longer ago than the writer's --retention"
            ) from exc

    def _path(self, ino: Ino) -> str:
        with contextlib.suppress(NotFound):
            return self._index.path_of(ino).decode("utf-8", "replace")
        return "a removed file"

    async def _read(self, handle: Handle, offset: int, size: int) -> bytes:
        node = handle.node
        draft = node.draft
        if draft is not None:
            return await self._read_draft(node, draft, offset, offset + size)
        return await self._contents.read(handle, self._index.get(node.ino), offset, size)

    async def write(self, fh: Fh, offset: int, data: bytes) -> int:
        """All of *data* at *offset*, into the draft. Raises QuotaExceeded with nothing changed,
        but flush and fsync fail as well then, until a write at *offset* succeeds or the file is
        truncated."""
        handle = self.handle(fh)
        node = handle.node
        if self.read_only:  # since the lease was lost
            raise ReadOnly("the mount is read-only")
        async with node.lock:
            handle.wrote = True
            try:
                self._make_room(node, offset + len(data))
            except QuotaExceeded:
                node.refused.add(offset)
                raise
            draft = node.draft or self._begin(node)
            try:
                await draft.write(offset, data)
            except BaseException:
                self._quota.shorten(node.ino, draft.size)
                raise
            node.refused.mend(offset, offset + len(data))
            draft.mtime_ns = draft.ctime_ns = self._clock()
        if handle.uid:
            self._clear_set_ids(node.ino)
        return len(data)

    async def truncate(self, ino: Ino, size: int, uid: int) -> None:
        """Set the size. Where nobody has the file open for writing, and so nobody will flush
        it, the change is stored before this returns."""
        if self.read_only:
            raise ReadOnly("the mount is read-only")
        handle = self._add(ino, os.O_RDONLY, uid)
        try:
            async with handle.node.lock:
                await self._truncate(handle.node, size, uid)
            if not handle.node.writers:
                await self.storing.flush(handle.node)
            for other in self._handles.values():
                if other.node is handle.node and other.writable:
                    other.wrote = True  # so that its close(2) waits for the store
        finally:
            self._forget(handle)

    async def flush(self, fh: Fh) -> None:
        """One close(2) of the handle: store the draft if this handle may have changed it."""
        handle = self.handle(fh)
        if handle.wrote:
            await self.storing.flush(handle.node, closing=True)

    async def fsync(self, fh: Fh) -> None:
        """Store the draft, whoever wrote it."""
        await self.storing.flush(self.handle(fh).node)

    async def flush_all(self) -> None:
        """Store every draft; raises UploadFailed when some could not be, after trying all."""
        failed: list[CozyError] = []

        async def one(node: Node) -> None:
            try:
                await self.storing.flush(node)
            except CozyError as exc:
                failed.append(exc)

        async with trio.open_nursery() as nursery:
            for node in list(self._nodes.values()):
                if not node.refused:  # whoever writes it was told
                    nursery.start_soon(one, node)
        if failed:
            for exc in failed:
                if isinstance(exc, LeaseLost):
                    raise exc
            raise UploadFailed(f"{len(failed)} files could not be stored") from failed[0]

    async def give_up_refused(self) -> None:
        """The end of the mount: nobody makes up any more for a write that was refused."""
        if self.read_only:
            return
        for node in [n for n in self._nodes.values() if n.refused]:
            await self._give_up(node, writers=node.writers)

    def remove_names(self, ino: Ino) -> None:
        """As `cozyfs.vfs.undoing.remove_names`."""
        remove_names(self._index, ino, self._clock())

    async def forget_draft(self, node: Node) -> None:
        """What was written since the file was last stored goes, as if it had not been written.
        Under the node's lock."""
        draft, node.draft = node.draft, None
        self._quota.release(node.ino)
        if draft is not None:
            await draft.discard()

    async def keep_all(self) -> None:
        """Make every draft outlive the process, without the store: for an end that does not
        wait. Parts under way are waited for, since a record can only say where bytes are."""
        for node in self._waiting():
            async with node.lock:
                if node.draft is not None and node.draft.dirty:
                    await self.storing.keep(node, node.draft)

    def dropped(self, ino: Ino) -> None:
        """The inode is gone for good: so is what was written to it and not stored."""
        node = self._nodes.pop(ino, None)
        self._quota.release(ino)
        self._quota.release((ino, "before"))
        if node is not None and node.draft is not None:
            draft, node.draft = node.draft, None
            self._index.remove_draft(ino)
            self._nursery.start_soon(self._discard, node, draft)

    @property
    def objects_in_use(self) -> set[str]:
        """Keys of objects that drafts go on from, or handles read, whatever the deletion queue
        says: the former may be intermediate ones that no inode ever had."""
        drafts = [n.draft for n in self._nodes.values() if n.draft is not None]
        keys = {draft.base.key for draft in drafts if draft.base is not None} | self._kept.bases
        keys |= {draft.stream.key for draft in drafts if draft.stream is not None}
        held = [n.before for n in self._nodes.values() if n.before is not None]
        held += [each.pinned for each in self._handles.values() if each.pinned is not None]
        return keys | {ref.key for ref in map(self._objects.ref, held) if ref is not None}

    # ---- drafts that could not be stored

    def recover(self) -> None:
        """Take up the drafts that an earlier process had to keep."""
        self._kept.recover()

    def _take_up(self, ino: Ino, draft: Draft) -> None:
        node = self._nodes.setdefault(ino, Node(ino))
        node.draft = draft
        node.failures = 1
        shortened = draft.stream is None and not draft.held
        shortened = shortened and draft.size <= self._index.get(ino).size
        self._quota.restore(ino, draft.size, shortened=shortened)

    async def retry_failed(self) -> None:
        """Try once to store every draft whose upload failed."""
        if self.read_only:
            return
        for node in [n for n in self._nodes.values() if n.failures]:
            try:
                await self.storing.flush(node)
                if node.draft is None:
                    log.info("inode %d, kept since its upload failed, is stored now", node.ino)
            except CozyError as exc:
                log.warning("inode %d still cannot be stored: %s", node.ino, exc)

    # ---- inside

    def _waiting(self) -> list[Node]:
        nodes = (n for n in self._nodes.values() if n.draft is not None and n.draft.dirty)
        nodes = (n for n in nodes if n.failures or not n.refused)
        return [n for n in nodes if self._index.get(n.ino).nlink]

    def _add(self, ino: Ino, flags: int, uid: int) -> Handle:
        node = self._nodes.get(ino)
        if node is None:
            node = self._nodes[ino] = Node(ino)
        handle = Handle(Fh(self._next_fh), node, flags, uid)
        self._next_fh += 1
        self._handles[handle.fh] = handle
        node.handles += 1
        node.writers += handle.writable
        return handle

    def _forget(self, handle: Handle) -> None:
        del self._handles[handle.fh]
        node = handle.node
        if handle.pinned is not None:
            node.pinned.remove(handle.pinned)
        node.handles -= 1
        node.writers -= handle.writable
        if not node.writers and (node.draft is None or not node.draft.dirty):
            node.replaced = False
        if node.handles == 0 and (node.draft is None or not node.draft.dirty):
            self._nodes.pop(node.ino, None)
            self._quota.release(node.ino)
            if node.draft is not None:  # its first change failed
                draft, node.draft = node.draft, None
                self._nursery.start_soon(self._discard, node, draft)

    @staticmethod
    async def _discard(node: Node, draft: Draft) -> None:
        async with node.lock:  # an upload of it may be under way
            await draft.discard()

    def _begin(self, node: Node) -> Draft:
        draft = Draft.of(self._shop, self._index.get(node.ino))
        node.draft = draft
        return draft

    def _is_stored(self, ino: Ino) -> bool:
        try:
            return self._index.get(ino).internal_id is not None
        except NotFound:
            return False

    def _make_room(self, node: Node, size: int) -> None:
        """The draft is about to be changed, or begun, and to have at least *size* bytes. Raises
        QuotaExceeded."""
        draft = node.draft
        size = max(size, self._index.get(node.ino).size if draft is None else draft.size)
        try:
            self._quota.extend(node.ino, size)
        except QuotaExceeded:
            # Files without names take no room in the end, nobody stores them.
            for other in self._nodes.values():
                if other is not node and self._index.get(other.ino).nlink == 0:
                    self._quota.release(other.ino)
            self._quota.extend(node.ino, size)

    async def _give_up(self, node: Node, *, writers: int) -> Changes:
        """Undo what was written to a file of which a write was refused: it is as it was when it
        was last stored, or is not there if it never was. Not where it has more than so many
        *writers* by now."""
        async with node.lock:
            if node.writers > writers or not node.refused:
                return NO_CHANGES
            node.refused.clear()
            if node.failures:
                # Whoever wrote the first part of the draft was told that it is kept.
                return NO_CHANGES
            await self.forget_draft(node)
            before, now = node.before, self._clock()
            self.storing.settle_for(node)
            inode = self._index.get(node.ino)
            if not inode.nlink:  # its versions are with the file that has its place by now
                return NO_CHANGES
            if node.is_new and not self._index.versions_of(inode.doc_id):
                return remove_names(self._index, node.ino, now)
            if before is not None:
                go_back(self._index, before, now)
                self.storing.has_new_content(node.ino)
            return Changes(frozenset({node.ino}), frozenset())

    async def _truncate(self, node: Node, size: int, uid: int) -> None:
        inode = self._index.get(node.ino)
        if not stat.S_ISREG(inode.mode):
            raise InvalidRequest("not a regular file")
        if size > (inode.size if node.draft is None else node.draft.size):
            self._make_room(node, size)
        if uid:
            self._clear_set_ids(node.ino)
        now = self._clock()
        if node.draft is None and size == inode.size and inode.internal_id is not None:
            # Nothing to store; truncate(2) still sets the times.
            self._index.set_attributes(node.ino, AttributeChanges(mtime_ns=now), now)
            return
        draft = node.draft or self._begin(node)
        try:
            await draft.truncate(size)
        finally:
            self._quota.shorten(node.ino, draft.size)
        node.refused.clear()
        draft.mtime_ns = draft.ctime_ns = now

    def _clear_set_ids(self, ino: Ino) -> None:
        """A write or truncation by an ordinary user takes set-user-id and set-group-id away:
        the kernel leaves that to us (FUSE_HANDLE_KILLPRIV)."""
        inode = self._index.get(ino)
        mode = without_set_ids(inode.mode)
        if mode != inode.mode:
            self._index.set_attributes(
                ino, AttributeChanges(mode=stat.S_IMODE(mode)), self._clock()
            )

    async def _read_draft(self, node: Node, draft: Draft, start: int, stop: int) -> bytes:
        while draft.needs_rebase(start, stop):
            async with node.lock:
                if node.draft is draft and draft.needs_rebase(start, stop):
                    await draft.rebase()
            if node.draft is not draft:
                break
        if node.draft is not draft:  # stored meanwhile
            if node.draft is not None:
                return await self._read_draft(node, node.draft, start, stop)
            inode = self._index.get(node.ino)
            return await self._contents.read_range(inode, start, stop)
        return await draft.read(start, stop, self.cache)

    def _new_target(self, ino: int) -> Target:
        return self._describe(self._index.get(Ino(ino)), new_internal_id())

    def _superseded(self, doc_id: str, internal_id: str) -> None:
        self._index.queue_deletion(doc_id, internal_id, self._clock())


def _same_content(one: Inode, other: Inode) -> bool:
    return (one.internal_id, one.size) == (other.internal_id, other.size)


def without_set_ids(mode: int) -> int:
    """*mode* as a change of content or owner leaves it: no set-user-id, and no set-group-id
    unless the group may not execute (then the bit means mandatory locking)."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode
