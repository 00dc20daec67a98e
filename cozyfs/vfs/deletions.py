"""What nothing refers to any more, removed from the store: replaced objects when their time has
come, and multipart uploads that a process left behind when it died."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cozyfs.errors import CozyError
from cozyfs.index import MARKERS, NOTE_IMAGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from collections.abc import Set as AbstractSet

    from cozyfs.index import Deletion, Index
    from cozyfs.store.base import PendingUpload
    from cozyfs.vfs.objects import Objects

    Beside = Callable[[str, bool], Awaitable[Iterable[str]]]

log = logging.getLogger(__name__)

BATCH = 1000


async def _nothing(doc_id: str, is_note: bool) -> Iterable[str]:
    return ()


async def delete_due(
    index: Index,
    objects: Objects,
    retention_s: float,
    in_use: Callable[[], AbstractSet[str]],
    beside: Beside = _nothing,
) -> int:
    """Delete every queued object that has waited for *retention_s*; returns how many. An object
    is forgotten only after the store has confirmed: a crash in between deletes it again. One
    whose key is *in_use* (a draft goes on from it) starts to wait anew.

    With the objects of a document that is not in the tree any more goes what the store has
    *beside* it: the function gives the keys, by the document's id and whether it was a note.
    The images of a note that somebody has open start to wait anew."""
    deleted = 0
    before = time.time_ns() - int(retention_s * 1e9)
    while due := index.due_deletions(before, BATCH):
        seen = _gone(index, due)
        lying = {doc_id: await beside(doc_id, is_note) for doc_id, is_note in seen.items()}
        # That took a while: what is not as it was has its turn later.
        still = {*due} & {*index.due_deletions(before, BATCH)}
        gone = _gone(index, still)
        due = [row for row in sorted(still) if gone.get(row.doc_id) == seen.get(row.doc_id)]
        going, anew, unwanted, wanted = _sorted(index, objects, due, in_use())
        for row in anew:
            index.queue_deletion(row.doc_id, row.internal_id, max(time.time_ns(), before))
        index.forget_deletions(unwanted)
        for doc_id in sorted({row.doc_id for row in going} & gone.keys()):
            wanted += lying[doc_id]
        if wanted:
            await objects.caller.store(objects.store.delete_many, objects.bucket, wanted)
        index.deletions_done(going)
        deleted += len(going)
    return deleted


def _gone(index: Index, due: Iterable[Deletion]) -> dict[str, bool]:
    """The documents of *due* that are not in the tree any more, and whether the images of a note
    go with them."""
    documents = {row.doc_id for row in due}
    notes = {row.doc_id for row in due if row.internal_id == NOTE_IMAGES}
    notes -= index.kept_documents(notes)
    gone = documents - index.with_doc_ids(documents).keys()
    return {doc_id: doc_id in notes for doc_id in sorted(gone)}


def _sorted(
    index: Index, objects: Objects, due: Collection[Deletion], used: AbstractSet[str]
) -> tuple[list[Deletion], list[Deletion], list[Deletion], list[str]]:
    """*due* as what goes now, what waits anew and what need not go after all; the keys of the
    objects among the first."""
    notes = {row.doc_id for row in due if row.internal_id == NOTE_IMAGES}
    there, kept = index.with_doc_ids(notes), index.kept_documents(notes)
    going, anew, unwanted, keys = [], [], [], []
    for row in due:
        key = objects.key(row.doc_id, row.internal_id)
        if row.internal_id == NOTE_IMAGES and row.doc_id in there:
            unwanted.append(row)
        elif key in used or (row.internal_id == NOTE_IMAGES and row.doc_id in kept):
            anew.append(row)
        else:
            going.append(row)
            keys += [key] if row.internal_id not in MARKERS else []
    return going, anew, unwanted, keys


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
