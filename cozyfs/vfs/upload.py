"""Turning a draft into an object: which requests, in which order, and what the index will say.

Four ways, the first that fits:

1. a stream is running: send the rest, complete it;
2. large clean ranges of a base object: a multipart upload whose clean parts are copied on the
   server;
3. large holes: the data extents back to back, and their list as a trailer;
4. the whole as a single PUT, or as parts where it is larger than one PUT may be.

Runs under the node's lock: the table does not change but by what happens here. Nothing of the
index is touched. On any error the draft is as it was, and nothing that was made stays.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from cozyfs.errors import NotSupported
from cozyfs.store.base import MAX_PUT_SIZE
from cozyfs.store.body import PiecesBody, md5_of
from cozyfs.store.multipart import part_size_at
from cozyfs.values import Content
from cozyfs.vfs import parts
from cozyfs.vfs.layout import Layout
from cozyfs.vfs.multipart import copied_part, upload_in_parts
from cozyfs.vfs.pieces import Kind

if TYPE_CHECKING:
    from cozyfs.store.base import Body
    from cozyfs.vfs.cache import BlockCache
    from cozyfs.vfs.draft import Draft, Target
    from cozyfs.vfs.multipart import PartJob
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

INLINE = 256 << 10
"""Bytes up to which a body is joined and hashed at once: cheaper than going through pieces."""

KEEP_IN_CACHE = 1 << 20
"""Bytes up to which what was written is kept for readers; more is likely not to be read."""


async def upload(draft: Draft, target: Target, objects: Objects, cache: BlockCache) -> Content:
    """Store the draft; returns what the index is to say. The object is *target*, but for a
    running stream, which has its own. Raises StoreError, UploadFailed, NoSpace or OSError."""
    if (stream := draft.stream) is not None:
        if stream.ending is None or stream.ending.size == draft.size:
            etag, ending = await draft.finish_stream()
            size, md5 = ending.size, ending.md5
            return Content(stream.internal_id, size, size, md5, etag, doc_id=stream.doc_id)
        await draft.rebase()  # an attempt to end it sooner, whose outcome is not known
    layout = Layout.of(draft.table)
    # With a trailer, which is rare, that would need a part of its own.
    if objects.can_copy and draft.base is not None and not layout.trailer:
        planned = parts.plan(layout.slices)
        if planned is not None:
            content = await _copy_and_send(draft, target, objects, cache, planned)
            if content is not None:
                return content
    return await _send_all(draft, target, objects, cache, layout)


async def _send_all(
    draft: Draft, target: Target, objects: Objects, cache: BlockCache, layout: Layout
) -> Content:
    """Everything travels; clean bytes are fetched first."""
    if draft.base is not None:
        await draft.materialise(cache)
        layout = Layout.of(draft.table)  # the same ranges, whose bytes are here now
    if layout.trailer:
        described = {**target.metadata, "cozyfs-size": str(draft.size)}
        described["cozyfs-trailer"] = str(len(layout.trailer))
        target = target._replace(metadata=described)
    body = _body(draft, layout)
    md5: bytes | None = None
    if body.size > MAX_PUT_SIZE:
        etag = await _send_parts(draft, target, objects, layout, body.size)
    else:
        payload: Body | bytes = body
        if body.size <= INLINE:
            payload = b"".join(body.chunks())
            md5 = hashlib.md5(payload).digest()
        else:
            md5 = await objects.caller.disk(md5_of, body)
        etag = await objects.caller.store(
            objects.store.put,
            objects.bucket,
            target.key,
            payload,
            md5=md5,
            content_type=target.content_type,
            metadata=target.metadata,
        )
        if body.size <= KEEP_IN_CACHE:
            whole = payload if isinstance(payload, bytes) else b"".join(body.chunks())
            cache.put(target.key, whole)
    return Content(
        target.internal_id,
        draft.size,
        body.size,
        None if layout.trailer else md5,
        etag,
        layout.trailer or None,
        doc_id=target.doc_id,
    )


async def _send_parts(
    draft: Draft, target: Target, objects: Objects, layout: Layout, size: int
) -> str:
    """A body larger than one PUT may be: parts of it side by side."""
    jobs: list[PartJob] = []
    offset = 0
    while offset < size:
        length = min(part_size_at(offset), size - offset)
        jobs.append(_sender(objects, target.key, _body(draft, layout.window(offset, length))))
        offset += length
    return await upload_in_parts(
        objects, target.key, jobs, content_type=target.content_type, metadata=target.metadata
    )


async def _copy_and_send(
    draft: Draft,
    target: Target,
    objects: Objects,
    cache: BlockCache,
    planned: list[parts.Copy | parts.Send],
) -> Content | None:
    """Clean ranges by server-side copies; None when this server cannot."""
    base = draft.base
    assert base is not None
    jobs: list[PartJob] = []
    for part in planned:
        if isinstance(part, parts.Copy):
            jobs.append(copied_part(objects, target.key, base.key, part.start, part.stop))
        else:
            jobs.append(_fetcher(draft, objects, cache, target.key, part))
    try:
        etag = await upload_in_parts(
            objects, target.key, jobs, content_type=target.content_type, metadata=target.metadata
        )
    except NotSupported:
        log.info("this server cannot copy ranges of objects: changed files are sent whole")
        objects.can_copy = False
        return None
    return Content(target.internal_id, draft.size, draft.size, None, etag, doc_id=target.doc_id)


def _sender(objects: Objects, key: str, body: Body) -> PartJob:
    async def send(upload_id: str, number: int) -> str:
        md5 = await objects.caller.disk(md5_of, body)
        return await objects.caller.store(
            objects.store.upload_part, objects.bucket, key, upload_id, number, body, md5=md5
        )

    return send


def _fetcher(
    draft: Draft, objects: Objects, cache: BlockCache, key: str, part: parts.Send
) -> PartJob:
    async def send(upload_id: str, number: int) -> str:
        pieces: list[bytes | bytearray | memoryview | Body] = []
        for start, stop, segment in part.slices:
            if segment.kind is Kind.BASE:
                assert draft.base is not None
                offset = segment.offset + (start - segment.start)
                pieces.append(await cache.read(draft.base, offset, offset + stop - start))
            else:
                pieces.append(draft.body([(start, stop, segment)]))
        return await _sender(objects, key, PiecesBody(pieces))(upload_id, number)

    return send


def _body(draft: Draft, layout: Layout) -> Body:
    body = draft.body(layout.slices)
    return PiecesBody([body, layout.trailer]) if layout.trailer else body
