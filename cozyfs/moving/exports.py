"""The archives in the exports bucket: listed, found, fetched, removed. Blocking.

An instance's are under ``<domain>/``. One that is being made, or was cut, is a multipart upload
until it is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cozyfs.errors import ArchiveError, ObjectNotFound
from cozyfs.store.buckets import side_bucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cozyfs.store.base import Store

FETCH = 8 << 20


class StoredExport(NamedTuple):
    """One archive."""

    id: str
    size: int  # bytes
    made_at: datetime | None
    bucket: str
    key: str


def exports_of(store: Store, bucket_prefix: str, domain: str) -> list[StoredExport]:
    """The oldest first."""
    bucket, prefix = side_bucket(bucket_prefix, "exports"), f"{domain}/"
    return [
        StoredExport(
            info.key.removeprefix(prefix), info.size, info.last_modified, bucket, info.key
        )
        for info in store.list(bucket, prefix)
    ]


def find(store: Store, bucket_prefix: str, domain: str, name: str) -> StoredExport:
    """``ID`` of *domain*, or ``DOMAIN/ID``. Raises ArchiveError."""
    owner, _, export_id = name.rpartition("/")
    bucket, key = side_bucket(bucket_prefix, "exports"), f"{owner or domain}/{export_id}"
    try:
        info = store.head(bucket, key)
    except ObjectNotFound as exc:
        raise ArchiveError(f"{name} is neither a file nor an export in the store") from exc
    return StoredExport(export_id, info.size, info.last_modified, bucket, key)


def fetch(
    store: Store, found: StoredExport, target: BinaryIO, progress: Callable[[int, int], None]
) -> None:
    """Write the archive to *target*. Raises StoreError, OSError."""
    for start in range(0, found.size, FETCH):
        stop = min(start + FETCH, found.size)
        target.write(store.get(found.bucket, found.key, start, stop))
        progress(stop, found.size)


def remove(store: Store, found: StoredExport) -> None:
    store.delete(found.bucket, found.key)


def remove_all(store: Store, bucket_prefix: str, domain: str) -> int:
    """Every archive of *domain*, whole or not; returns how many were."""
    bucket, prefix = side_bucket(bucket_prefix, "exports"), f"{domain}/"
    # Asked for the whole bucket: MinIO knows no other prefixes than whole keys.
    for upload in list(store.list_multipart(bucket, "")):
        if upload.key.startswith(prefix):
            store.abort_multipart(bucket, upload.key, upload.upload_id)
    return store.delete_prefix(bucket, prefix)
