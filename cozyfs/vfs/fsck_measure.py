"""Reading an object from its first byte to its last, to know what is in it.

An ETag of a single PUT is the MD5 of the bytes. That of a multipart upload is the MD5 of the
parts' MD5s and their number, so it can be computed again by who knows how long the parts were:
several clients' habits are tried at once, in the one pass over the bytes. Blocking but for
:func:`measure`; memory is one range of an object.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cozyfs.errors import CorruptObject
from cozyfs.store.base import MAX_PARTS
from cozyfs.store.multipart import composite_etag, part_size_at
from cozyfs.vfs import object_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.store.base import ObjectInfo
    from cozyfs.vfs.objects import Objects

RANGE = 8 << 20
"""Bytes of an object read at a time."""

TAIL = 256 << 10
"""Bytes kept of its end: the trailer of a content with holes is shorter."""

MIB = 1 << 20
FIXED_SIZES = tuple(size * MIB for size in (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512))
"""Parts of one length: 5 MiB is the Cozy server's, 16 MiB of its client library, 8 MiB that of
most command lines, the others what people set."""

_PLAIN = re.compile(r"[0-9a-f]{32}")
_COMPOSITE = re.compile(r"[0-9a-f]{32}-([0-9]{1,5})")


def plain_md5(etag: str) -> bytes | None:
    """The MD5 that an ETag looks like; None for any other, such as one of parts."""
    return bytes.fromhex(etag) if _PLAIN.fullmatch(etag) else None


@dataclass(frozen=True, slots=True)
class Measured:
    """What an object was found to be."""

    size: int
    etag: str
    md5: bytes  # of all bytes
    recomputed: bool  # parts of some usual length give the ETag; else their lengths are not known
    tail: bytes

    @property
    def proves_itself(self) -> bool:
        """The bytes are those that were sent, by the object's own ETag."""
        return plain_md5(self.etag) == self.md5 or self.recomputed


async def measure(
    objects: Objects, key: str, on_bytes: Callable[[int], None] | None = None
) -> Measured:
    """Read the object. *on_bytes* is called on the loop with the length of what was read. Raises
    ObjectNotFound, StoreError."""
    caller, store, bucket = objects.caller, objects.store, objects.bucket
    info: ObjectInfo = await caller.store(store.head, bucket, key)
    hasher = _Hasher(info.size, info.etag)
    for start in range(0, info.size, RANGE):
        stop = min(start + RANGE, info.size)
        data = await caller.store(store.get, bucket, key, start, stop)
        if len(data) != stop - start:
            raise CorruptObject("an object is shorter than it says")
        await caller.disk(hasher.feed, data)
        if on_bytes is not None:
            on_bytes(len(data))
    return hasher.result()


class _Hasher:
    def __init__(self, size: int, etag: str) -> None:
        self._size, self._etag = size, etag
        self._whole = hashlib.md5(usedforsecurity=False)
        match = _COMPOSITE.fullmatch(etag)
        self._parts = _layouts(size, int(match[1])) if match else []
        self._tail = b""

    def feed(self, data: bytes) -> None:
        self._whole.update(data)
        for layout in self._parts:
            layout.feed(data)
        self._tail = (self._tail + data)[-TAIL:]

    def result(self) -> Measured:
        recomputed = any(each.etag() == self._etag for each in self._parts)
        return Measured(self._size, self._etag, self._whole.digest(), recomputed, self._tail)


class _Layout:
    """The MD5s of parts that end at *cuts*."""

    def __init__(self, cuts: list[int]) -> None:
        self._cuts = cuts
        self._at = self._next = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._md5s: list[bytes] = []

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            room = self._cuts[self._next] - self._at
            piece, view = view[:room], view[room:]
            self._digest.update(piece)
            self._at += len(piece)
            if self._at == self._cuts[self._next]:
                self._md5s.append(self._digest.digest())
                self._digest = hashlib.md5(usedforsecurity=False)
                self._next += 1

    def etag(self) -> str:
        return composite_etag(self._md5s)


def _layouts(size: int, count: int) -> list[_Layout]:
    """The ways to cut *size* bytes into *count* parts."""
    if size == 0:
        empty = _Layout([])
        empty._md5s = [hashlib.md5(usedforsecurity=False).digest()] * count
        return [empty] if count == 1 else []
    found: dict[tuple[int, ...], None] = {}
    lengths: list[Callable[[int], int]] = [part_size_at]
    # Those of `cozyfs cp`, and the least whole number of MiB that makes so few parts.
    copied = max(object_copy.WHOLE_UP_TO, _share(size, MAX_PARTS))
    least = _share(_share(size, count), MIB) * MIB
    for fixed in dict.fromkeys((*FIXED_SIZES, copied, least)):
        lengths.append(lambda offset, fixed=fixed: fixed)  # type: ignore[misc]
    for length in lengths:
        cuts = _cuts(size, count, length)
        if cuts is not None:
            found[tuple(cuts)] = None
    return [_Layout(list(cuts)) for cuts in found]


def _share(whole: int, count: int) -> int:
    """Rounded up."""
    return (whole + count - 1) // count


def _cuts(size: int, count: int, length: Callable[[int], int]) -> list[int] | None:
    """Where parts end; None when they are not *count*."""
    cuts: list[int] = []
    offset = 0
    while offset < size:
        if len(cuts) == count:
            return None
        offset = min(offset + length(offset), size)
        cuts.append(offset)
    return cuts if len(cuts) == count else None
