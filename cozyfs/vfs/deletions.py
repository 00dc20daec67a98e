"""Objects that nothing refers to any more, removed from the store when their time has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cozyfs.index import Index
    from cozyfs.vfs.objects import Objects

BATCH = 1000


async def delete_due(index: Index, objects: Objects, retention_s: float) -> int:
    """Delete every queued object that has waited for *retention_s*; returns how many. An object
    is forgotten only after the store has confirmed: a crash in between deletes it again."""
    deleted = 0
    while True:
        before = time.time_ns() - int(retention_s * 1e9)
        due = index.due_deletions(before, BATCH)
        if not due:
            return deleted
        keys = [objects.key(row.doc_id, row.internal_id) for row in due]
        await objects.caller.store(objects.store.delete_many, objects.bucket, keys)
        index.forget_deletions(due)
        deleted += len(due)
