"""The arithmetic of multipart uploads: how long each part is, and what ETag comes out.

Pure functions; the calls themselves are the stores'.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_PART_SIZE = 8 << 20
_STEP = 1 << 20
_GROWTH = 1300
"""A part is 1/1300 of what precedes it: 8 MiB for the first 10 GiB, then growing by itself.
1300 is as large (so parts as small) as 5 TiB in 10,000 parts allows with some room left."""


def part_size_at(offset: int) -> int:
    """Bytes of the part that starts at *offset*, unless it is the last: a whole number of MiB.

    Parts laid one after the other from 0 reach 5 TiB within 10,000 of them, and each is between
    5 MiB and 5 GiB long. The size depends on nothing but the offset, so that a writer that does
    not know how much will come, and a repetition of the upload, cut at the same places.
    """
    if offset < 0:
        raise ValueError(offset)
    return max(FIRST_PART_SIZE, offset // _GROWTH // _STEP * _STEP)


def composite_etag(md5s: Sequence[bytes]) -> str:
    """The ETag that S3 gives to an object of parts with these MD5s (16 raw bytes each)."""
    return f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}"
