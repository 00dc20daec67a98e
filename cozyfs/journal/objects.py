"""The journal's corner of a bucket: which journal objects and snapshots it has, and their bytes.

Everything of `cozyfs.journal` that touches the network goes through here, with threads of its own:
a mount that sends many large contents must not keep a lease from being renewed. What the objects
mean is in `cozyfs.index.journal` and in the modules beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.index.journal import journal_prefix, object_name, parse_name, snapshot_prefix
from cozyfs.threads import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
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

    async def contents(
        self, entries: Sequence[Entry], ahead: int = AHEAD
    ) -> AsyncGenerator[tuple[Entry, bytes | Exception], None]:
        """Each object's bytes, or the error of getting them, in order, *ahead* fetched early.
        To be used with `contextlib.aclosing`."""
        for start in range(0, len(entries), ahead):
            window = entries[start : start + ahead]
            got: dict[int, bytes | Exception] = {}
            async with trio.open_nursery() as nursery:
                for number, entry in enumerate(window):
                    nursery.start_soon(self._fetch, entry, number, got)
            for number, entry in enumerate(window):
                yield entry, got.pop(number)

    async def _fetch(self, entry: Entry, number: int, got: dict[int, bytes | Exception]) -> None:
        try:
            got[number] = await self.get(entry.key)
        except Exception as exc:
            # Told when its turn comes: what is before it can still be used.
            got[number] = exc


def _entry(info: ObjectInfo, prefix: str) -> Entry | None:
    place = parse_name(info.key.removeprefix(prefix))
    return None if place is None else Entry(*place, info.key, info.size, info.last_modified)
