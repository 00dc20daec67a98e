"""One object copied by the store under another key of its bucket, whatever its size.

A copy in one request is bounded by S3 (5 GiB) and by the time that we wait for an answer, so a
large one is made from parts, some at a time. On the event loop; requests run in threads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import CorruptObject, CozyError, NotSupported
from cozyfs.store.base import MAX_PARTS

if TYPE_CHECKING:
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

WHOLE_UP_TO = 256 << 20
"""Bytes: even a server that copies 5 MB a second then answers within the store's time-out. Also
the size of parts, unless there would be too many."""

PARTS_AT_ONCE = 4

CLEANUP_S = 10.0


async def copy_object(objects: Objects, source: str, target: str, size: int) -> str:
    """Copy the *size* bytes under the key *source*, with type and metadata; returns the ETag.
    Raises StoreError; a multipart upload that failed is aborted."""
    caller, store = objects.caller, objects.store
    if size > WHOLE_UP_TO and objects.can_copy:
        try:
            return await _in_parts(objects, source, target, size)
        except NotSupported:
            log.info("this server cannot copy ranges of objects: large ones are copied whole")
            objects.can_copy = False
    return await caller.store(store.copy, objects.bucket, source, objects.bucket, target)


async def _in_parts(objects: Objects, source: str, target: str, size: int) -> str:
    caller, store, bucket = objects.caller, objects.store, objects.bucket
    info = await caller.store(store.head, bucket, source)
    if info.size != size:
        raise CorruptObject("an object has not the size that the index knows of it")
    upload_id = await caller.store(
        store.create_multipart,
        bucket,
        target,
        content_type=info.content_type or "application/octet-stream",
        metadata=info.metadata,
    )
    part_size = max(WHOLE_UP_TO, -(-size // MAX_PARTS))
    waiting = iter(enumerate(range(0, size, part_size), 1))
    etags: dict[int, str] = {}
    failed: list[CozyError] = []

    async def work() -> None:
        for number, start in waiting:
            if failed:
                return
            stop = min(start + part_size, size)
            try:
                etags[number] = await caller.store(
                    store.copy_part, bucket, target, upload_id, number, source, start, stop
                )
            except CozyError as exc:
                failed.append(exc)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(PARTS_AT_ONCE):
                nursery.start_soon(work)
        if failed:
            raise failed[0]
        return await caller.store(
            store.complete_multipart, bucket, target, upload_id, sorted(etags.items())
        )
    except BaseException:
        with trio.move_on_after(CLEANUP_S, shield=True):
            await objects.abort_upload(target, upload_id)
        raise
