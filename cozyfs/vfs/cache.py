"""The block cache: pieces of immutable objects in memory, fetched by ranged GETs.

Keyed by object key, and an object never changes, so nothing here can be stale and nothing is
ever invalidated. Used on the event loop; between two awaits no other task runs, which is what
keeps ``_flights`` (blocks on their way) and ``_blocks`` (blocks at hand) in step.

Invariants: a block is in at most one flight; a cached block is complete (BLOCK bytes, or up to
the object's end); bytes of flights started by read-ahead stay below half of the cache, so that
what is fetched ahead is not evicted before it is read.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import trio
from cachetools import LRUCache

from cozyfs.errors import CorruptObject, CozyError

if TYPE_CHECKING:
    from cozyfs.vfs.objects import ObjectRef, Objects

log = logging.getLogger(__name__)

BLOCK = 128 << 10
"""Bytes. What the kernel asks for at most without raised read-ahead; a random 4 KiB read costs
one such block, which on any network is latency, not bandwidth."""

WHOLE = 1 << 20
"""Bytes: objects up to this size are fetched by one GET, and their MD5 verified on arrival."""


class _Flight:
    """Blocks on their way; waiters read ``blocks`` or ``error`` after ``landed``."""

    __slots__ = ("blocks", "error", "landed")

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.blocks: dict[int, bytes] = {}
        self.error: CozyError | None = None


class BlockCache:
    """``limit`` bytes of blocks, least recently used out first."""

    def __init__(self, objects: Objects, limit: int) -> None:
        self._objects = objects
        self._blocks: LRUCache[tuple[str, int], bytes] = LRUCache(max(limit, BLOCK), getsizeof=len)
        self._flights: dict[tuple[str, int], _Flight] = {}
        self._ahead = 0
        self.hits = 0
        self.misses = 0

    @property
    def used(self) -> int:
        return int(self._blocks.currsize)

    @property
    def limit(self) -> int:
        return int(self._blocks.maxsize)

    async def read(self, ref: ObjectRef, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)`` of the object, cut at its end."""
        stop = min(stop, ref.size)
        if start >= stop:
            return b""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        if first == last:
            block = self._blocks.get((ref.key, first))
            if block is None:
                block = (await self._gather(ref, first, last))[first]
            else:
                self.hits += 1
            if stop - start == len(block):
                return block
            return block[start - first * BLOCK : stop - first * BLOCK]
        blocks = await self._gather(ref, first, last)
        pieces = [blocks[i] for i in range(first, last + 1)]
        pieces[-1] = pieces[-1][: stop - last * BLOCK]
        pieces[0] = pieces[0][start - first * BLOCK :]
        return b"".join(pieces)

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes of a whole object that was just stored."""
        for index in range((len(data) + BLOCK - 1) // BLOCK):
            self._keep(key, index, data[index * BLOCK : (index + 1) * BLOCK])

    def forget(self, key: str) -> None:
        """An object turned out to be another than it was: a check found so."""
        for block in [block for block in self._blocks if block[0] == key]:
            del self._blocks[block]

    def may_fetch_ahead(self, size: int) -> bool:
        """Whether read-ahead of *size* more bytes keeps within its share."""
        return self._ahead + size <= self.limit // 2

    def start_ahead(self, nursery: trio.Nursery, ref: ObjectRef, start: int, stop: int) -> bool:
        """Have :meth:`fetch_ahead` run in *nursery*, if its share has room. Room is taken at
        once, before the task has begun: many may be started by one request."""
        size = stop - start
        if not self.may_fetch_ahead(size):
            return False
        self._ahead += size

        async def run() -> None:
            try:
                await self.fetch_ahead(ref, start, stop)
            finally:
                self._ahead -= size

        nursery.start_soon(run)
        return True

    async def fetch_ahead(self, ref: ObjectRef, start: int, stop: int) -> None:
        """Bring blocks in for a read that is expected. Never raises: the read itself will."""
        index, last = start // BLOCK, (min(stop, ref.size) - 1) // BLOCK
        try:
            while index <= last:
                # Looked at anew before each GET: a reader may have asked for some in between.
                run = index
                while run <= last and self._absent(ref.key, run):
                    run += 1
                if run > index:
                    await self._fetch(ref, index, run - 1)
                index = run + 1
        except CozyError as exc:
            log.debug("reading ahead failed: %s", exc)

    def _absent(self, key: str, index: int) -> bool:
        return (key, index) not in self._blocks and (key, index) not in self._flights

    def _keep(self, key: str, index: int, block: bytes) -> None:
        if len(block) <= self._blocks.maxsize:
            self._blocks[key, index] = block

    async def _gather(self, ref: ObjectRef, first: int, last: int) -> dict[int, bytes]:
        """Blocks *first* to *last*, from the cache, from flights under way, or fetched."""
        if ref.size <= WHOLE:
            first, last = 0, (ref.size - 1) // BLOCK
        have: dict[int, bytes] = {}
        while True:
            missing: list[int] = []
            flight: _Flight | None = None
            for index in range(first, last + 1):
                if index in have:
                    continue
                block = self._blocks.get((ref.key, index))
                if block is not None:
                    have[index] = block
                elif (ref.key, index) in self._flights:
                    flight = self._flights[ref.key, index]
                else:
                    missing.append(index)
            if missing:
                self.misses += 1
                run = next(iter(_runs(missing)))
                have |= await self._fetch(ref, run.start, run.stop - 1)
            elif flight is not None:
                await flight.landed.wait()
                if flight.error is not None:
                    raise flight.error
                have |= {i: b for i, b in flight.blocks.items() if first <= i <= last}
            else:
                return have

    async def _fetch(self, ref: ObjectRef, first: int, last: int) -> dict[int, bytes]:
        flight = _Flight()
        keys = [(ref.key, index) for index in range(first, last + 1)]
        self._flights.update(dict.fromkeys(keys, flight))
        try:
            flight.blocks = await self._objects.caller.store(
                _get_blocks, self._objects, ref, first, last
            )
        except CozyError as exc:
            flight.error = exc
            raise
        finally:
            # Also when cancelled: whoever waits for these blocks finds none and fetches them.
            for key in keys:
                del self._flights[key]
            for index, block in flight.blocks.items():
                self._keep(ref.key, index, block)
            flight.landed.set()
        return flight.blocks


def _get_blocks(objects: Objects, ref: ObjectRef, first: int, last: int) -> dict[int, bytes]:
    """One ranged GET, split into blocks; in a thread."""
    start, stop = first * BLOCK, min((last + 1) * BLOCK, ref.size)
    data = objects.store.get(objects.bucket, ref.key, start, stop)
    if not _right(ref, start, stop, data):
        # Once more: bytes can also be damaged on their way.
        data = objects.store.get(objects.bucket, ref.key, start, stop)
        if not _right(ref, start, stop, data):
            raise CorruptObject("a file's content differs from what the index says of it")
    if first == last:
        return {first: data}
    return {
        index: data[(index - first) * BLOCK : (index - first + 1) * BLOCK]
        for index in range(first, last + 1)
    }


def _right(ref: ObjectRef, start: int, stop: int, data: bytes) -> bool:
    if len(data) != stop - start:
        return False
    if ref.md5 is None or stop - start != ref.size:
        return True
    return hashlib.md5(data).digest() == ref.md5


def _runs(indices: list[int]) -> list[range]:
    """Sorted *indices* as ranges without gaps."""
    runs: list[range] = []
    for index in indices:
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs
