"""What nothing refers to any more, removed from the store: replaced objects when their time has
come, and multipart uploads that a process left behind when it died."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cozyfs.errors import CozyError
from cozyfs.index import NO_OBJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from cozyfs.index import Index
    from cozyfs.store.base import PendingUpload
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

BATCH = 1000


def _nothing(doc_id: str) -> Iterable[str]:
    return ()


async def delete_due(
    index: Index,
    objects: Objects,
    retention_s: float,
    in_use: Callable[[], AbstractSet[str]],
    beside: Callable[[str], Iterable[str]] = _nothing,
) -> int:
    """Delete every queued object that has waited for *retention_s*; returns how many. An object
    is forgotten only after the store has confirmed: a crash in between deletes it again. One
    whose key is *in_use* (a draft goes on from it) starts to wait anew.

    With the objects of a document that is not in the tree any more goes what the store has
    *beside* it: the function gives the keys by the document's id."""
    deleted = 0
    before = time.time_ns() - int(retention_s * 1e9)
    while due := index.due_deletions(before, BATCH):
        used = in_use()
        keys = {objects.key(row.doc_id, row.internal_id): row for row in due}
        for key in keys.keys() & used:
            row = keys.pop(key)
            index.queue_deletion(row.doc_id, row.internal_id, max(time.time_ns(), before))
        if keys:
            documents = {row.doc_id for row in keys.values()}
            gone = documents - index.with_doc_ids(documents).keys()
            wanted = [key for key, row in keys.items() if row.internal_id != NO_OBJECT]
            wanted += [key for doc_id in sorted(gone) for key in beside(doc_id)]
            await objects.caller.store(objects.store.delete_many, objects.bucket, wanted)
        index.deletions_done(keys.values())
        deleted += len(keys)
    return deleted


async def unfinished_uploads(objects: Objects, in_use: AbstractSet[str]) -> list[PendingUpload]:
    """The multipart uploads of this instance that nobody will go on with, asked before this
    process begins any: all but those whose key is *in_use*. None when the store cannot say."""
    prefix = f"{objects.db_prefix}/"
    try:
        found = await objects.caller.store(_listed, objects, prefix)
    except CozyError as exc:
        log.warning("unfinished uploads could not be listed: %s", exc)
        return []
    return [upload for upload in found if upload.key not in in_use]


async def abort_uploads(objects: Objects, uploads: list[PendingUpload]) -> None:
    """Have the store drop the parts of *uploads*."""
    for upload in uploads:
        await objects.abort_upload(upload.key, upload.upload_id)


def _listed(objects: Objects, prefix: str) -> list[PendingUpload]:
    # Asked for the whole bucket: MinIO knows no other prefixes than whole keys.
    found = objects.store.list_multipart(objects.bucket, "")
    return [upload for upload in found if upload.key.startswith(prefix)]
