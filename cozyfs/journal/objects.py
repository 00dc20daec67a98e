"""The journal's corner of a bucket: which journal objects and snapshots it has, and their bytes.

Everything of `cozyfs.journal` that touches the network goes through here, with threads of its own:
a mount that sends many large contents must not keep a lease from being renewed. What the objects
mean is in `cozyfs.index.journal` and in the modules beside this one.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

import trio

from cozyfs.index.journal import journal_prefix, object_name, parse_name, snapshot_prefix
from cozyfs.nurseries import background_tasks
from cozyfs.threads import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from cozyfs.index.journal import Position
    from cozyfs.store.base import ObjectInfo, Store

PARALLEL = 8

AHEAD = 8
"""Journal objects fetched before they are needed; each has a few MiB at most."""


class Entry(NamedTuple):
    """One journal object or snapshot, as a listing shows it; sorts by place."""

    epoch: int
    sequence: int
    key: str
    size: int
    last_modified: datetime | None

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch, self.sequence)


class JournalObjects:
    """Of one instance. *caller* tries again for its ``timeout_s``; :attr:`once` never does."""

    def __init__(
        self,
        store: Store,
        bucket: str,
        db_prefix: str,
        *,
        caller: Caller | None = None,
        once: Caller | None = None,
    ) -> None:
        self.store = store
        self.bucket = bucket
        self.db_prefix = db_prefix
        self.caller = caller or Caller(parallel=PARALLEL)
        self.once = once or Caller(parallel=2, timeout_s=0.0)

    def journal_key(self, epoch: int, sequence: int) -> str:
        return journal_prefix(self.db_prefix) + object_name(epoch, sequence)

    def snapshot_key(self, epoch: int, sequence: int) -> str:
        return snapshot_prefix(self.db_prefix) + object_name(epoch, sequence)

    async def journal_after(self, position: Position | None = None) -> list[Entry]:
        """By place, all of them without *position*. Zombies are among them."""
        prefix = journal_prefix(self.db_prefix)
        after = "" if position is None else prefix + object_name(*position.place)
        return await self._list(prefix, after)

    async def snapshots(self) -> list[Entry]:
        """By place."""
        return await self._list(snapshot_prefix(self.db_prefix), "")

    async def highest_epoch(self) -> int:
        """That anybody has written under, also in vain; 0 where nothing was written. The next
        holder of the lease has one above it."""
        return max(
            (entry.epoch for entry in await self.journal_after() + await self.snapshots()),
            default=0,
        )

    async def get(self, key: str) -> bytes:
        return await self.caller.store(self.store.get, self.bucket, key)

    async def _list(self, prefix: str, after: str) -> list[Entry]:
        def read() -> list[Entry]:
            # Servers without an order of keys would be asked wrongly with `after`, so nothing
            # relies on it: it only makes the answer short.
            found = (_entry(info, prefix) for info in self.store.list(self.bucket, prefix, after))
            return sorted(entry for entry in found if entry is not None)

        return await self.caller.store(read)

    @asynccontextmanager
    async def contents(
        self, entries: Sequence[Entry], ahead: int = AHEAD
    ) -> AsyncIterator[Contents]:
        """The bytes of these objects, *ahead* of them fetched or under way while one is used."""
        async with background_tasks() as nursery:
            yield Contents(self, entries, ahead, nursery)


class Contents:
    """``async for entry, data in contents``, in order: *data* is what an object holds, or the
    error of getting it, told when its turn comes: what is before it can still be used."""

    def __init__(
        self,
        objects: JournalObjects,
        entries: Sequence[Entry],
        ahead: int,
        nursery: trio.Nursery,
    ) -> None:
        self._objects = objects
        self._nursery = nursery
        self._rest = iter(entries)
        self._under_way: deque[_Fetch] = deque()
        for entry in islice(self._rest, ahead):
            self._begin(entry)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Entry, bytes | Exception]:
        if not self._under_way:
            raise StopAsyncIteration
        fetch = self._under_way.popleft()
        await fetch.done.wait()
        for entry in islice(self._rest, 1):
            self._begin(entry)
        return fetch.entry, fetch.data

    def _begin(self, entry: Entry) -> None:
        fetch = _Fetch(entry)
        self._under_way.append(fetch)
        self._nursery.start_soon(fetch.run, self._objects)


class _Fetch:
    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.data: bytes | Exception = b""
        self.done = trio.Event()

    async def run(self, objects: JournalObjects) -> None:
        try:
            self.data = await objects.get(self.entry.key)
        except Exception as exc:
            self.data = exc
        self.done.set()


def _entry(info: ObjectInfo, prefix: str) -> Entry | None:
    place = parse_name(info.key.removeprefix(prefix))
    return None if place is None else Entry(*place, info.key, info.size, info.last_modified)
