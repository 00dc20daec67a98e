"""The objects of one instance: the store, its bucket, its prefix and the door to threads, joined.

Everything in the vfs that touches the network goes through here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from cozyfs.errors import CozyError
from cozyfs.store.keys import object_key

if TYPE_CHECKING:
    from cozyfs.store.base import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Inode

log = logging.getLogger(__name__)


class ObjectRef(NamedTuple):
    """One immutable object, as much of it as readers need."""

    key: str
    size: int  # bytes in the object
    md5: bytes | None  # of the object, when known


def content_metadata(
    doc_id: str, parent_id: str, name: str, mode: int, mtime_ns: int
) -> dict[str, str]:
    """What an object says of itself, so that it finds its place in a tree that was lost."""
    return {
        "cozyfs-id": doc_id,
        "cozyfs-parent": parent_id,
        "cozyfs-name": quote(name, safe=" "),
        "cozyfs-mode": f"{mode:o}",
        "cozyfs-mtime": str(mtime_ns),
    }


class Objects:
    """Where contents live. ``can_copy`` turns false when the server refuses server-side copies
    of ranges: found out once, by the first refusal."""

    def __init__(self, store: Store, caller: Caller, bucket: str, db_prefix: str) -> None:
        self.store = store
        self.caller = caller
        self.bucket = bucket
        self.db_prefix = db_prefix
        self.can_copy = True

    def key(self, doc_id: str, internal_id: str) -> str:
        return object_key(self.db_prefix, doc_id, internal_id)

    def ref(self, inode: Inode) -> ObjectRef | None:
        """The object behind *inode*, or None where all its bytes are zeros."""
        if inode.internal_id is None:
            return None
        # The MD5 in the index is that of the whole content; a sparse object is another string.
        md5 = inode.md5 if inode.extents is None else None
        return ObjectRef(self.key(inode.content_doc_id, inode.internal_id), inode.stored, md5)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Have the store drop the parts of a multipart upload under *key* that will not be
        completed. A failure is logged and no more: the next mount asks for what was left."""
        try:
            await self.caller.store(self.store.abort_multipart, self.bucket, key, upload_id)
        except CozyError as exc:
            log.warning("an unfinished upload could not be aborted: %s", exc)
