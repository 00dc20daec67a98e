"""A stored picture as it is given to people: its facts first, then any range of its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cozyfs.side.objects import OCTET_STREAM, read_range

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cozyfs.store import ObjectInfo, Store
    from cozyfs.threads import Caller

_BLOCK = 4 << 20


class Served:
    """One object; *what* names it in messages. ``etag`` has its quotes, ``size`` is in bytes."""

    def __init__(
        self, store: Store, caller: Caller, bucket: str, info: ObjectInfo, what: str
    ) -> None:
        self.size = info.size
        self.etag = f'"{info.etag}"'
        self.content_type = info.content_type or OCTET_STREAM
        self._store = store
        self._caller = caller
        self._bucket = bucket
        self._info = info
        self._what = what

    async def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of ``[start, stop)``, cut at the end. Raises NotStored when it was removed,
        WrongContent when it was replaced since it was opened."""
        return await self._caller.store(
            read_range,
            self._store,
            self._bucket,
            self._info,
            start,
            self.size if stop is None else stop,
            self._what,
        )

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All of it, a few MiB at a time."""
        for start in range(0, self.size, _BLOCK):
            yield await self.read(start, start + _BLOCK)
