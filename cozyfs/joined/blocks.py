"""Files of views, read block by block through one small cache of a view.

The kernel asks for pieces of some KiB, several at a time; the store is asked for a block once.
All readers of a view share the memory; what a reader had there goes when it is closed.

On the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import MutableMapping

BLOCK = 1 << 20
"""Bytes: most thumbnails are one block, and so one request."""

LIMIT = 16 << 20
"""Bytes that a view keeps in memory."""

Fetch = Callable[[int, int], Awaitable[bytes]]
"""Gives the bytes of ``[start, stop)``, all of them."""

Blocks = LRUCache[tuple[int, int], bytes]


def new_blocks(limit: int = LIMIT) -> Blocks:
    """The memory of a view, in bytes."""
    return LRUCache(limit, getsizeof=len)


class BlockReader:
    """One open file of *size* bytes; a `cozyfs.vfs.views.Reader`. *close* is called at its end."""

    def __init__(
        self,
        blocks: MutableMapping[tuple[int, int], bytes],
        size: int,
        fetch: Fetch,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._blocks = blocks
        self._size = size
        self._fetch = fetch
        self._close = close
        self._one = trio.Lock()  # two requests for one block are one request to the store

    async def read(self, offset: int, size: int) -> bytes:
        stop = min(offset + size, self._size)
        pieces = []
        while offset < stop:
            number, start = divmod(offset, BLOCK)
            block = await self._block(number)
            piece = block[start : start + stop - offset]
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        async with self._one:
            for number in range(-(-self._size // BLOCK)):
                self._blocks.pop((id(self), number), None)
            if self._close is not None:
                await self._close()

    async def _block(self, number: int) -> bytes:
        key = (id(self), number)
        async with self._one:
            block = self._blocks.get(key)
            if block is None:
                start = number * BLOCK
                block = await self._fetch(start, min(start + BLOCK, self._size))
                self._blocks[key] = block
            return block
