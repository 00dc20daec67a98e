"""Every content read and hashed, several at a time: ``cozyfs fsck --deep``.

Memory is one range of an object for each that is being read. On the event loop; requests and
hashing run in threads.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import ObjectNotFound
from cozyfs.vfs.fsck_measure import measure, plain_md5
from cozyfs.vfs.fsck_store import Held, held, is_current, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cozyfs.index import Scan
    from cozyfs.vfs.fsck_findings import Finding
    from cozyfs.vfs.fsck_measure import Measured
    from cozyfs.vfs.fsck_repair import Bench

READERS = 8

BATCH = 256

LYING_ETAGS = 3
"""Contents that are right by the tree's MD5 and not by their ETag: then it is the server."""

_TOTAL = """
    SELECT coalesce(sum(size), 0) FROM temp.listed WHERE kind = 'content'
"""


class Reading:
    """Reads contents, and knows what was learnt about the server's ETags meanwhile."""

    def __init__(self, bench: Bench, on_bytes: Callable[[int], None]) -> None:
        self._bench = bench
        self._on_bytes = on_bytes
        self._lies = 0
        self.read = 0
        """Contents."""

    @property
    def etags_are_md5s(self) -> bool:
        return self._lies < LYING_ETAGS

    async def read_one(self, each: Held) -> Finding | None:
        """What is wrong with one content, if it is still one of the tree. Raises StoreError."""
        bench, row = self._bench, each.row
        assert row.internal_id is not None
        key = bench.objects.key(row.content_doc_id, row.internal_id)
        try:
            seen = await measure(bench.objects, key, self._on_bytes)
        except ObjectNotFound:
            return None  # told by those who look for that
        self.read += 1
        self._learn(each, seen)
        found = judge(each, seen, etags_are_md5s=self.etags_are_md5s)
        return found if is_current(bench, row) else None

    def _learn(self, each: Held, seen: Measured) -> None:
        md5 = plain_md5(seen.etag)
        if each.row.extents is None and each.row.md5 == seen.md5 and md5 not in (None, seen.md5):
            self._lies += 1

    async def read_all(
        self,
        contents: Iterator[Held],
        report: Callable[[Finding], Awaitable[None]],
    ) -> None:
        """:meth:`read_one` for each; *report* is called one at a time."""
        disk = self._bench.objects.caller.disk
        reporting = trio.Lock()
        send, receive = trio.open_memory_channel[Held](0)

        async def work(channel: trio.MemoryReceiveChannel[Held]) -> None:
            async with channel:
                async for each in channel:
                    found = await self.read_one(each)
                    if found is not None:
                        async with reporting:
                            await report(found)

        async with trio.open_nursery() as nursery, receive, send:
            for _ in range(READERS):
                nursery.start_soon(work, receive.clone())
            while batch := await disk(lambda: list(islice(contents, BATCH))):
                for each in batch:
                    await send.send(each)


def readable(scan: Scan, told: set[str]) -> Iterator[Held]:
    """Every content whose object is listed, and of which nothing was *told* yet."""
    return (each for each in held(scan) if each.name not in told)


def total_bytes(scan: Scan) -> int:
    """How much there is to read."""
    (count,) = scan.row(_TOTAL)
    return int(count)
