"""The names of things in a bucket: object keys, ids, prefixes.

The formulas are those of the Cozy server's S3 layout (cozyfs-storage(5)): an object is
``<db_prefix>/<22>/<5>/<5>/<internal id>`` for a document id of 32 characters with an internal
id of 16, and ``<db_prefix>/<document id>/<internal id>`` for any other length. Pure functions;
only :func:`new_doc_id` keeps a little state, under a lock. Bucket names are in
:mod:`cozyfs.store.buckets`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import unicodedata
from typing import TYPE_CHECKING

from cozyfs.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INTERNAL_ID_LENGTH = 16
_METADATA_NAME = re.compile(r"[a-z0-9-]+")
_SPLIT_ID_LENGTH = 32
_SPLIT_NAME_LENGTH = 51  # 32 + 3 slashes + 16
_SLASHES = (22, 28, 34)

MAX_KEY_BYTES = 1024
"""S3's limit on the UTF-8 form of a key."""


def check_db_prefix(db_prefix: str) -> str:
    """*db_prefix* itself; UsageError where keys made from it would mix with another's."""
    if not db_prefix:
        raise UsageError("the database prefix of an instance cannot be empty")
    if "/" in db_prefix:
        raise UsageError("the database prefix of an instance cannot contain '/'")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in db_prefix):
        raise UsageError("the database prefix of an instance cannot contain control characters")
    if db_prefix in (".", ".."):
        raise UsageError(f"the database prefix of an instance cannot be '{db_prefix}'")
    return db_prefix


def check_key(key: str) -> str:
    """*key* itself; StoreError for what no store takes: nothing, over 1024 bytes, or a ``.`` or
    ``..`` between slashes, which HTTP clients and proxies resolve like a path."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError as exc:
        raise StoreError("an object key is not valid Unicode") from exc
    if not 0 < length <= MAX_KEY_BYTES:
        raise StoreError(f"an object key has {length} bytes: not between 1 and {MAX_KEY_BYTES}")
    if "\0" in key:
        raise StoreError("an object key contains a NUL character")
    if "." in key and not {".", ".."}.isdisjoint(key.split("/")):
        raise StoreError("an object key contains '.' or '..' as a path segment")
    return key


def check_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """*metadata* itself; StoreError for names that cannot be a part of an HTTP header's name, or
    that would come back in lower case."""
    for name in metadata:
        if not _METADATA_NAME.fullmatch(name):
            raise StoreError(f"'{name}' cannot be a metadata name")
    return metadata


def object_name(doc_id: str, internal_id: str) -> str:
    """The key of one content without the prefix of its instance."""
    if len(doc_id) == _SPLIT_ID_LENGTH and len(internal_id) == _INTERNAL_ID_LENGTH:
        return f"{doc_id[:22]}/{doc_id[22:27]}/{doc_id[27:]}/{internal_id}"
    return f"{doc_id}/{internal_id}"


def parse_object_name(name: str) -> tuple[str, str]:
    """(document id, internal id), the reverse of :func:`object_name` for ids without ``/``.

    A name of 51 characters is only taken as split when its slashes are where the split puts
    them; the Cozy server looks at the length alone, and so mangles ids of 34 characters. A name
    without a slash has an empty internal id.
    """
    if len(name) == _SPLIT_NAME_LENGTH and _slashes(name) == _SLASHES:
        return name[:22] + name[23:28] + name[29:34], name[35:]
    doc_id, _, internal_id = name.partition("/")
    return doc_id, internal_id


def _slashes(name: str) -> tuple[int, ...]:
    return tuple(place for place, char in enumerate(name) if char == "/")


def object_key(db_prefix: str, doc_id: str, internal_id: str) -> str:
    """The whole key. One ``/`` after the prefix, also where the prefix was given with it."""
    return f"{check_db_prefix(db_prefix.removesuffix('/'))}/{object_name(doc_id, internal_id)}"


def thumb_name(doc_id: str) -> str:
    """A document id as it stands in the keys of thumbnails."""
    if len(doc_id) == _SPLIT_ID_LENGTH:
        return f"{doc_id[:22]}/{doc_id[22:27]}/{doc_id[27:]}"
    return doc_id


class _DocIds:
    """UUIDs of version 7 that never go backwards within this process (RFC 9562, 6.2 method 2:
    the 74 random bits are a counter while the millisecond does not change)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = -1
        self._tail = 0

    def next(self, now_ns: int) -> str:
        with self._lock:
            now_ms = now_ns // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # The top bit stays clear, so that the counter has room to grow.
                self._tail = int.from_bytes(os.urandom(10), "big") >> 7
            else:
                # A step of random width, so that ids cannot be guessed from their neighbours.
                self._tail += 1 + int.from_bytes(os.urandom(4), "big")
            milliseconds, tail = self._last_ms, self._tail
        high = (milliseconds & (1 << 48) - 1) << 16 | 7 << 12 | tail >> 62 & 0xFFF
        low = 0b10 << 62 | tail & (1 << 62) - 1
        return f"{high << 64 | low:032x}"


_doc_ids = _DocIds()


def new_doc_id(now_ns: int) -> str:
    """A new document id: a UUID of version 7 as 32 hexadecimal digits, without dashes so that
    object keys are split. Later calls of this process give greater ids."""
    return _doc_ids.next(now_ns)


def new_internal_id() -> str:
    """16 letters, each of the 52 equally likely."""
    letters: list[str] = []
    while len(letters) < _INTERNAL_ID_LENGTH:
        # Bytes of 208 (4 x 52) and more would favour the first letters: they are thrown away.
        letters.extend(_LETTERS[byte % 52] for byte in os.urandom(24) if byte < 208)
    return "".join(letters[:_INTERNAL_ID_LENGTH])


def default_db_prefix(domain: str) -> str:
    """The prefix that a Cozy server gives to a new instance of *domain*."""
    return "cozy" + hashlib.sha256(domain.encode()).digest()[:16].hex()
