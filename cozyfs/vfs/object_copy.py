"""One object copied by the store under another key, whatever its size.

A copy in one request is bounded by S3 (5 GiB) and by the time that we wait for an answer, so a
large one is made from parts, some at a time. On the event loop; requests run in threads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cozyfs.errors import CorruptObject, NotSupported
from cozyfs.store.base import MAX_PARTS
from cozyfs.vfs.multipart import copied_part, upload_in_parts

if TYPE_CHECKING:
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

WHOLE_UP_TO = 256 << 20
"""Bytes: even a server that copies 5 MB a second then answers within the store's time-out. Also
the size of parts, unless there would be too many."""


async def copy_object(
    objects: Objects, source: str, target: str, size: int, *, bucket: str | None = None
) -> str:
    """Copy the *size* bytes under the key *source*, of *bucket* if that is another one, with type
    and metadata; returns the ETag. Raises StoreError; a multipart upload that failed is
    aborted."""
    caller, store = objects.caller, objects.store
    bucket = bucket or objects.bucket
    if size > WHOLE_UP_TO and objects.can_copy:
        try:
            return await _in_parts(objects, bucket, source, target, size)
        except NotSupported:
            log.info("this server cannot copy ranges of objects: large ones are copied whole")
            objects.can_copy = False
    return await caller.store(store.copy, bucket, source, objects.bucket, target)


async def _in_parts(objects: Objects, bucket: str, source: str, target: str, size: int) -> str:
    info = await objects.caller.store(objects.store.head, bucket, source)
    if info.size != size:
        raise CorruptObject("an object has not the size that the index knows of it")
    part_size = max(WHOLE_UP_TO, -(-size // MAX_PARTS))
    return await upload_in_parts(
        objects,
        target,
        [
            copied_part(objects, target, source, start, min(start + part_size, size), bucket)
            for start in range(0, size, part_size)
        ],
        content_type=info.content_type or "application/octet-stream",
        metadata=info.metadata,
    )
