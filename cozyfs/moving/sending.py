"""Contents of an import on their way into the bucket: sent, or copied by the server.

Objects only; what the tree says of them is `cozyfs.moving.importing`'s. Sent contents are checked
against the MD5 of their document before anything refers to them.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.errors import ArchiveError, NotSupported
from cozyfs.moving.items import StoredContent
from cozyfs.store.multipart import part_size_at
from cozyfs.vfs.multipart import upload_in_parts
from cozyfs.vfs.object_copy import copy_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cozyfs.moving.items import Content
    from cozyfs.vfs.multipart import PartJob
    from cozyfs.vfs.objects import Objects

ONE_PUT = 8 << 20
"""Bytes up to which a content is held in memory and sent as one."""


class Sent(NamedTuple):
    etag: str
    stored: int  # bytes of the object


@dataclass(frozen=True, slots=True)
class Sending:
    """One content, and what its object is to be."""

    content: Content
    key: str
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    md5: bytes | None = None  # of the content as it is in the archive
    trailer: bytes = b""  # follows it: where data of a sparse content belong
    name: str = ""  # for people


async def send(objects: Objects, wanted: Sending) -> Sent:
    """Returns when the object is there. Raises ArchiveError where the content is not what its
    document says, StoreError; nothing is left then."""
    content = wanted.content
    if isinstance(content, StoredContent) and content.objects.store is objects.store:
        with contextlib.suppress(NotSupported):  # too large for how this server copies
            etag = await copy_object(
                objects, content.key, wanted.key, content.stored, bucket=content.objects.bucket
            )
            return Sent(etag, content.stored)
    size = content.size + len(wanted.trailer)
    if size <= ONE_PUT:
        data = await content.read(0, content.size)
        _check(hashlib.md5(data, usedforsecurity=False).digest(), wanted)
        etag = await objects.caller.store(
            objects.store.put,
            objects.bucket,
            wanted.key,
            data + wanted.trailer,
            content_type=wanted.content_type,
            metadata=wanted.metadata,
        )
        return Sent(etag, size)
    etag = await upload_in_parts(
        objects,
        wanted.key,
        _parts(objects, wanted, size),
        content_type=wanted.content_type,
        metadata=wanted.metadata,
    )
    return Sent(etag, size)


def _parts(objects: Objects, wanted: Sending, size: int) -> list[PartJob]:
    """Read in order, one after the other; sent side by side."""
    content = wanted.content
    turn, digest = trio.Lock(), hashlib.md5(usedforsecurity=False)

    def part(start: int, stop: int) -> PartJob:
        async def job(upload_id: str, number: int) -> str:
            async with turn:  # first come, first served: in the order of the parts
                end = min(stop, content.size)
                data = await content.read(start, end) if start < end else b""
                await objects.caller.disk(digest.update, data)
                if stop == size:
                    data += wanted.trailer[max(start - content.size, 0) :]
                    _check(digest.digest(), wanted)
            return await objects.caller.store(
                objects.store.upload_part, objects.bucket, wanted.key, upload_id, number, data
            )

        return job

    jobs: list[PartJob] = []
    offset = 0
    while offset < size:
        # The trailer, a few KiB, goes with the last part of the data.
        stop = offset + part_size_at(offset)
        if stop >= content.size:
            stop = size
        jobs.append(part(offset, stop))
        offset = stop
    return jobs


def _check(md5: bytes, wanted: Sending) -> None:
    if wanted.md5 is not None and md5 != wanted.md5:
        raise ArchiveError(f"{wanted.name} is not what its checksum says")
