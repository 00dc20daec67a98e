"""One multipart upload whose parts are all known before it begins, some of them under way at once.

What the parts are is the caller's: a job for each says where its bytes come from. An upload that
begins while the file is still being written is `cozyfs.vfs.stream`'s.

On the event loop; requests run in threads of `Caller`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import CozyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cozyfs.vfs.objects import Objects

PartJob = Callable[[str, int], Awaitable[str]]
"""Puts one part in the store, given the upload's id and the part's number; returns its ETag."""

PARTS_AT_ONCE = 4

CLEANUP_S = 10.0


async def upload_in_parts(
    objects: Objects,
    key: str,
    jobs: Sequence[PartJob],
    *,
    content_type: str,
    metadata: Mapping[str, str],
) -> str:
    """Make the object *key* of what *jobs* put in the store, in their order; returns its ETag.
    Raises what the first job that failed did, or StoreError; the upload is aborted then, and no
    further job is begun."""
    store, caller, bucket = objects.store, objects.caller, objects.bucket
    upload_id = await caller.store(
        store.create_multipart, bucket, key, content_type=content_type, metadata=metadata
    )
    etags: dict[int, str] = {}
    failed: list[CozyError | OSError] = []
    numbered = iter(enumerate(jobs, 1))

    async def work() -> None:
        for number, job in numbered:
            if failed:
                return
            try:
                etags[number] = await job(upload_id, number)
            except (CozyError, OSError) as exc:  # OSError: the disk under the staging file
                failed.append(exc)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(min(PARTS_AT_ONCE, len(jobs))):
                nursery.start_soon(work)
        if failed:
            raise failed[0]
        return await caller.store(
            store.complete_multipart, bucket, key, upload_id, sorted(etags.items())
        )
    except BaseException:
        with trio.move_on_after(CLEANUP_S, shield=True):
            await objects.abort_upload(key, upload_id)
        raise


def copied_part(
    objects: Objects, key: str, source: str, start: int, stop: int, bucket: str | None = None
) -> PartJob:
    """A part of *key* made by the server from bytes ``[start, stop)`` of *source*, in the same
    bucket or in *bucket*. The job raises NotSupported where the server cannot."""

    async def copy(upload_id: str, number: int) -> str:
        return await objects.caller.store(
            objects.store.copy_part,
            objects.bucket,
            key,
            upload_id,
            number,
            bucket or objects.bucket,
            source,
            start,
            stop,
        )

    return copy
