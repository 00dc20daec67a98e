"""Object keys as paths below a bucket's folder, and back.

Each part of a key between slashes is one name, escaped where a file cannot have it. The escape
is ``%`` and two digits, so a key with a ``%`` is escaped too, and an empty part is ``%-``.
Names that begin with ``.cozyfs-`` at the top of a bucket are the store's own. Pure functions.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from cozyfs.errors import StoreError
from cozyfs.store.keys import check_key

OWN_PREFIX = b".cozyfs-"
_LONGEST_NAME = 255  # bytes, on every file system of Linux that matters
_EMPTY = b"%-"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_bucket_name(name: str) -> bool:
    """By S3's rules, which also keep it within the root folder."""
    return bool(_BUCKET.fullmatch(name)) and ".." not in name


def relative_path(key: str) -> bytes:
    """*key* as a path with no ``.``, ``..`` or empty part; StoreError where that is impossible."""
    parts = [_escaped(part.encode()) for part in check_key(key).split("/")]
    if parts[0].startswith(OWN_PREFIX):
        parts[0] = b"%2E" + parts[0][1:]
    if max(map(len, parts)) > _LONGEST_NAME:
        raise StoreError(f"a part of an object key is longer than {_LONGEST_NAME} bytes")
    return b"/".join(parts)


def _escaped(part: bytes) -> bytes:
    return part.replace(b"%", b"%25") or _EMPTY


def key_part(name: bytes) -> bytes:
    """One name of a folder as the part of a key that it stands for."""
    if b"%" not in name:
        return name
    return b"" if name == _EMPTY else unquote_to_bytes(name)
