"""Contents that are objects in the store, read through the cache: with read-ahead, holes, and the
checksum of what is read from its first byte to its last.

What is written and not stored yet is not here but in drafts (`cozyfs.vfs.draft`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cozyfs.errors import CorruptObject
from cozyfs.vfs import extents
from cozyfs.vfs.cache import WHOLE, BlockCache

if TYPE_CHECKING:
    import trio

    from cozyfs.values import Inode
    from cozyfs.vfs.nodes import Handle
    from cozyfs.vfs.objects import ObjectRef, Objects
    from cozyfs.vfs.readahead import SequentialHash

log = logging.getLogger(__name__)

HASH_BATCH = 4 << 20
"""Bytes of a sequential read that are hashed by one trip to a thread."""


class Contents:
    """Of the objects of one mount; *nursery* fetches ahead."""

    def __init__(self, objects: Objects, cache: BlockCache, nursery: trio.Nursery) -> None:
        self._objects = objects
        self._nursery = nursery
        self.cache = cache

    def fetch_ahead(self, inode: Inode) -> None:
        """All of a small content, which is read soon."""
        if (ref := self._objects.ref(inode)) is not None:
            self.cache.start_ahead(self._nursery, ref, 0, ref.size)

    async def read(self, handle: Handle, inode: Inode, offset: int, size: int) -> bytes:
        """Up to *size* bytes of the content of *inode*, for one who may go on reading there.
        Raises CorruptObject where they were the last ones that its checksum waited for,
        ObjectNotFound, StoreError."""
        stop = min(offset + size, inode.size)
        if offset >= stop:
            return b""
        ref = self._objects.ref(inode)
        if ref is None:
            return bytes(stop - offset)
        if inode.extents is not None:
            return await self._read_sparse(ref, inode, offset, stop)
        data = await self.cache.read(ref, offset, stop)
        for start, end in handle.ahead.advance(offset, stop, inode.size, self.cache.limit // 4):
            if not self.cache.start_ahead(self._nursery, ref, start, end):
                break
        if handle.checked is not None:
            await self._check(handle, inode, offset, data)
        return data

    async def read_range(self, inode: Inode, start: int, stop: int) -> bytes:
        """The bytes of ``[start, stop)``, as far as there are. Raises as :meth:`read`."""
        stop = min(stop, inode.size)
        ref = self._objects.ref(inode)
        if start >= stop:
            return b""
        if ref is None:
            return bytes(stop - start)
        return await self._read_sparse(ref, inode, start, stop)

    # ---- inside

    async def _read_sparse(self, ref: ObjectRef, inode: Inode, start: int, stop: int) -> bytes:
        pieces = []
        for begin, end, offset in extents.located(inode.extents, inode.size):
            first, last = max(begin, start), min(end, stop)
            if first >= last:
                continue
            if offset is None:
                pieces.append(bytes(last - first))
            else:
                at = offset + first - begin
                pieces.append(await self.cache.read(ref, at, at + last - first))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _check(self, handle: Handle, inode: Inode, offset: int, data: bytes) -> None:
        """Verify the MD5 of a content that is read from its first byte to its last."""
        checked = handle.checked
        assert checked is not None
        if handle.content is None:
            handle.content = inode.internal_id
        if (
            inode.md5 is None
            or inode.size <= WHOLE
            or handle.node.writers
            or inode.internal_id != handle.content
        ):
            # Small ones were verified when they arrived; ones being written, or replaced since
            # the first read, are not one content.
            handle.checked = None
            return
        checked.feed(offset, data)
        if not checked.alive:
            handle.checked = None
        elif checked.complete(inode.size):
            handle.checked = None
            if await self._hash(handle, checked) != inode.md5:
                log.error("inode %d: content differs from its checksum", inode.ino)
                raise CorruptObject("a file's content differs from its checksum")
        elif checked.pending_size >= HASH_BATCH:
            await self._hash(handle, checked)

    async def _hash(self, handle: Handle, checked: SequentialHash) -> bytes:
        async with handle.hashing:  # what is taken first has to be hashed first
            return await self._objects.caller.disk(checked.update, checked.take())
