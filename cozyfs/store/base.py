"""The contract of an object store: buckets with immutable-by-habit objects under string keys.

All calls block and are made in worker threads (see :mod:`cozyfs.threads`), several at once.
They make exactly one attempt; trying again is the caller's (`cozyfs.threads.Caller`), which
is why every body can be read from its start more than once. Foreign exceptions never leave a
store: each is translated to a class of :mod:`cozyfs.errors`, ``raise ... from exc``.

Byte ranges are half-open (``start``, ``stop``). ETags are opaque and carry no quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

MIN_PART_SIZE = 5 << 20
"""Bytes: every part of a multipart upload but the last is at least this long (S3)."""

MAX_PART_SIZE = 5 << 30
MAX_PUT_SIZE = 5 << 30
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What HEAD or a listing tells. Listings carry no content type and no metadata."""

    key: str
    size: int
    etag: str
    last_modified: datetime | None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(
        default_factory=dict
    )  # lower-case names without x-amz-meta-


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: datetime | None


class Body(Protocol):
    """Bytes to send, of a size known in advance; may be opened again for another attempt."""

    size: int

    def open(self) -> BinaryIO:
        """A fresh reader from the first byte; only ``read(n)`` and ``close()`` are used."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The same bytes in pieces of at most a few MiB, for hashing."""


class Store(Protocol):
    """S3 (`cozyfs.store.s3`) or a local folder (`cozyfs.store.local`)."""

    description: str
    """For people: kind and host or folder, no credentials."""

    def check(self) -> None:
        """One cheap call that proves the store answers and the credentials work."""

    def ensure_bucket(self, bucket: str) -> None:
        """Create *bucket* if it is not there; idempotent, also against a racing creator."""

    def list_buckets(self) -> list[str]: ...

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises ObjectNotFound (also when the bucket is missing)."""

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of ``[start, stop)``, cut at the object's end. Raises StoreUnavailable on a
        short answer: a cut connection is never mistaken for the end."""

    def put(
        self,
        bucket: str,
        key: str,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """One PUT with Content-MD5 (of *md5*, else computed first); returns the ETag, which was
        compared with the MD5 wherever the server's ETag is one. At most MAX_PUT_SIZE bytes.
        *if_absent* and *if_match* (an ETag) raise PreconditionFailed when they do not hold, and
        NotSupported where the server is known to ignore them."""

    def create_multipart(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Returns the upload id."""

    def upload_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: Body | bytes,
        *,
        md5: bytes | None = None,
    ) -> str:
        """Part *number* (from 1); returns its ETag, compared as by :meth:`put`."""

    def copy_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        source_bucket: str,
        source_key: str,
        start: int,
        stop: int,
    ) -> str:
        """A part made on the server from ``[start, stop)`` of another object of this server.
        Raises NotSupported where the server cannot."""

    def complete_multipart(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[tuple[int, str]]
    ) -> str:
        """Parts as (number, ETag) in order; returns the object's ETag. Safe to repeat: a reply
        that was lost is recognised by the object being there."""

    def abort_multipart(self, bucket: str, key: str, upload_id: str) -> None:
        """Absent is not an error."""

    def list_multipart(self, bucket: str, prefix: str) -> Iterator[PendingUpload]: ...

    def copy(self, bucket: str, source_key: str, target_bucket: str, target_key: str) -> str:
        """Server-side copy of a whole object with its type and metadata; returns the ETag."""

    def delete(self, bucket: str, key: str) -> None:
        """Absent is not an error."""

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        """In batches of the server's size. Absent is not an error; none is a no-op."""

    def delete_prefix(self, bucket: str, prefix: str) -> int:
        """Every object whose key starts with *prefix*; returns how many. A missing bucket is 0."""

    def list(self, bucket: str, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Recursively, in key order (bytes of UTF-8). A missing bucket is empty."""

    def list_prefixes(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """The distinct next path segments under *prefix*, each ending in ``/``."""

    def close(self) -> None: ...
