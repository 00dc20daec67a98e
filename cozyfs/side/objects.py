"""What all side storages do with objects: whole reads with a bound, puts that make the bucket.

Blocking functions, one attempt each.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cozyfs.errors import (
    BucketNotFound,
    NotStored,
    ObjectNotFound,
    StoreUnavailable,
    TooLarge,
    WrongContent,
)
from cozyfs.store.multipart import composite_etag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cozyfs.store import Body, ObjectInfo, Store

OCTET_STREAM = "application/octet-stream"
"""What a store says of an object that was put without a type."""


def head(store: Store, bucket: str, key: str, what: str) -> ObjectInfo:
    """NotStored, saying that there is no *what*, where the object or its bucket is missing."""
    try:
        return store.head(bucket, key)
    except ObjectNotFound as exc:
        raise NotStored(f"there is no {what}") from exc


def read_whole(
    store: Store, bucket: str, key: str, limit: int, what: str
) -> tuple[ObjectInfo, bytes]:
    """An object of at most *limit* bytes. Raises NotStored, TooLarge, and StoreUnavailable when
    it was replaced just now: type and metadata are always those of the bytes."""
    info = head(store, bucket, key, what)
    if info.size > limit:
        raise TooLarge(f"the {what} has {info.size} bytes, more than the {limit} that fit")
    try:
        return info, read_range(store, bucket, info, 0, info.size, what)
    except WrongContent as exc:  # the next attempt begins with the new one
        raise StoreUnavailable(str(exc)) from exc


def read_range(
    store: Store, bucket: str, info: ObjectInfo, start: int, stop: int, what: str
) -> bytes:
    """Bytes of the object that *info* describes, cut at its end. Raises NotStored when it was
    removed, WrongContent when it was replaced."""
    stop = min(stop, info.size)
    try:
        data = store.get(bucket, info.key, start, stop) if start < stop else b""
    except ObjectNotFound as exc:
        raise NotStored(f"there is no {what} any more") from exc
    known = start == 0 and len(data) == info.size and info.etag in _etags(data)
    # An ETag that is no MD5, as of an encrypted object, says the same by being still there.
    if not known and (
        len(data) != max(0, stop - start) or head(store, bucket, info.key, what).etag != info.etag
    ):
        raise WrongContent(f"the {what} was replaced while it was read")
    return data


def _etags(data: bytes) -> tuple[str, str]:
    """Of an object sent whole, and of one sent in one part, as the Cozy server's small ones."""
    md5 = hashlib.md5(data, usedforsecurity=False)
    return md5.hexdigest(), composite_etag([md5.digest()])


def put_making_bucket(
    store: Store,
    bucket: str,
    key: str,
    body: Body | bytes,
    *,
    content_type: str = OCTET_STREAM,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """A put; where the bucket is missing it is made, and the put tried again."""
    try:
        return store.put(bucket, key, body, content_type=content_type, metadata=metadata)
    except BucketNotFound:
        store.ensure_bucket(bucket)
        return store.put(bucket, key, body, content_type=content_type, metadata=metadata)
