"""Objects that nothing refers to any more, removed from the store when their time has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from cozyfs.index import Index
    from cozyfs.vfs.objects import Objects

BATCH = 1000


async def delete_due(
    index: Index,
    objects: Objects,
    retention_s: float,
    in_use: Callable[[], AbstractSet[str]],
) -> int:
    """Delete every queued object that has waited for *retention_s*; returns how many. An object
    is forgotten only after the store has confirmed: a crash in between deletes it again. One
    whose key is *in_use* (a draft goes on from it) starts to wait anew."""
    deleted = 0
    before = time.time_ns() - int(retention_s * 1e9)
    while due := index.due_deletions(before, BATCH):
        used = in_use()
        keys = {objects.key(row.doc_id, row.internal_id): row for row in due}
        for key in keys.keys() & used:
            row = keys.pop(key)
            index.queue_deletion(row.doc_id, row.internal_id, max(time.time_ns(), before))
        if keys:
            await objects.caller.store(objects.store.delete_many, objects.bucket, list(keys))
        index.forget_deletions(keys.values())
        deleted += len(keys)
    return deleted
