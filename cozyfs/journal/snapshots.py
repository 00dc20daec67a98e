"""Snapshots in the bucket: written when replay would get slow, and what they make superfluous.

A snapshot holds the tree at one position (`cozyfs.index.snapshot`); with the journal after it the
tree is rebuilt anywhere. Journal and snapshots are removed only when a snapshot covers them that
is itself older than the retention, and was read back and found good: so the tree can be rebuilt
as it was at any moment of the retention. The journal object that a snapshot was made after stays
with it, so that the end of the journal is always to be seen in it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import CozyError, JournalDamaged, NotSupported, PreconditionFailed
from cozyfs.index.snapshot import SnapshotInfo, read_snapshot, write_snapshot
from cozyfs.journal.chain import is_void
from cozyfs.store.body import FileBody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cozyfs.journal.lease import Lease
    from cozyfs.journal.objects import Entry, JournalObjects

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
"""Of journal since the last snapshot: about a million created files, ten seconds of replay."""

MAX_OBJECTS = 3_600
"""An hour of one object a second: a minute of requests one after the other to a distant store."""

RETENTION_S = 86_400.0

RETRY_S = 60.0
PRUNE_PAUSE_S = 3_600.0

FIRST_PRUNE_S = 20.0
"""After the start of a mount: many live for minutes a day."""

RANGE = 8 << 20
"""Bytes of a snapshot read at a time."""

DELETE_BATCH = 1_000


class Snapshotter:
    """Of a writer: *index_path* is its live index, *scratch* a directory for the file on its way.

    :meth:`ensure_first` before the first journal object, :meth:`run` beside the writer, whose
    ``on_stored`` is :meth:`journal_grew`."""

    def __init__(
        self,
        index_path: Path,
        scratch: Path,
        objects: JournalObjects,
        lease: Lease,
        *,
        max_bytes: int = MAX_BYTES,
        max_objects: int = MAX_OBJECTS,
        retention_s: float = RETENTION_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.failing_since: float | None = None  # seconds since 1970
        self.last_place: tuple[int, int] | None = None
        """Of the newest snapshot in the bucket."""
        self._index_path = index_path
        self._scratch = scratch
        self._objects = objects
        self._lease = lease
        self._max_bytes = max_bytes
        self._max_objects = max_objects
        self._retention_s = retention_s
        self._clock = clock
        self._bytes = self._count = 0
        self._due = trio.Event()
        self._writing = trio.Lock()

    async def ensure_first(self) -> None:
        """There is a snapshot to start from when this returns, and :meth:`run` knows how much
        journal there is since. Raises CozyError."""
        snapshots = await self._objects.snapshots()
        if not snapshots:
            await self.write()
            return
        self.last_place = snapshots[-1].place
        for entry in await self._objects.journal_after():
            if entry.place > self.last_place:
                self.journal_grew(entry.size)

    def journal_grew(self, size: int) -> None:
        """One more object of *size* bytes."""
        self._bytes += size
        self._count += 1
        if self._bytes >= self._max_bytes or self._count >= self._max_objects:
            self._due.set()

    async def run(self) -> None:
        """Until the lease is lost. What fails is tried again later."""
        next_prune = trio.current_time() + FIRST_PRUNE_S
        while not self._lease.lost.is_set():
            with trio.move_on_at(next_prune):
                await self._due.wait()
            try:
                self._lease.check()
                if self._due.is_set():
                    await self.write()
                if trio.current_time() >= next_prune:
                    next_prune = trio.current_time() + PRUNE_PAUSE_S
                    await self.prune()
                self.failing_since = None
            except CozyError as exc:
                if self.failing_since is None:
                    self.failing_since = self._clock()
                    log.warning("no snapshot of the tree could be written: %s", exc)
                await trio.sleep(RETRY_S)

    async def write(self) -> SnapshotInfo:
        """Write and store one now. Raises CozyError."""
        async with self._writing:  # each goes through the same file
            return await self._write()

    async def _write(self) -> SnapshotInfo:
        objects = self._objects
        size, count = self._bytes, self._count
        target = self._scratch / "snapshot.new"
        try:
            info = await objects.caller.disk(
                write_snapshot, self._index_path, target, created_ns=int(self._clock() * 1e9)
            )
            self._lease.check()
            body = FileBody(os.fspath(target), 0, target.stat().st_size)
            key = objects.snapshot_key(*info.position.place)
            call, put = objects.caller.store, objects.store.put
            try:
                await call(put, objects.bucket, key, body, if_absent=True)
            except NotSupported:
                await call(put, objects.bucket, key, body)
            except PreconditionFailed:
                # Of this very position: the same tree. A damaged one stays as evidence; the
                # next snapshot has another name.
                log.debug("there is a snapshot at %s already", info.position)
        finally:
            target.unlink(missing_ok=True)
        # Objects that came meanwhile are after it.
        self._bytes -= size
        self._count -= count
        self._due = trio.Event()
        self.last_place = info.position.place
        log.info("a snapshot of the tree at %s is stored", info.position)
        return info

    async def prune(self) -> int:
        """Remove what is older than the retention and covered; returns how many objects."""
        objects = self._objects
        snapshots = await objects.snapshots()
        journal = await objects.journal_after()
        covered: list[str] = []
        for base in reversed(snapshots):
            if not self._is_old(base) or is_void(*base.place, journal):
                continue
            covered = [entry.key for entry in snapshots if entry < base]
            # Not the last of it: who comes back from before it finds that there is something.
            covered += [entry.key for entry in journal if entry.place < base.place]
            if covered and not await self._is_good(base):
                covered = []
                continue
            break
        self._lease.check()
        # Journal last: should this be interrupted, no snapshot is without the journal after it.
        for start in range(0, len(covered), DELETE_BATCH):
            batch = covered[start : start + DELETE_BATCH]
            await objects.caller.store(objects.store.delete_many, objects.bucket, batch)
        return len(covered)

    async def _is_good(self, entry: Entry) -> bool:
        try:
            info = await verify(self._objects, entry)
        except JournalDamaged as exc:
            log.error("the snapshot %d-%d cannot be used: %s", *entry.place, exc)
            return False
        return info.position.place == entry.place

    def _is_old(self, entry: Entry) -> bool:
        if entry.last_modified is None:
            return False
        return entry.last_modified.timestamp() < self._clock() - self._retention_s


async def verify(objects: JournalObjects, entry: Entry) -> SnapshotInfo:
    """Read a snapshot to its end. Raises JournalDamaged, StoreError."""
    return await objects.caller.store(read_snapshot, _Chunks(objects, entry), None)


async def fetch(
    objects: JournalObjects,
    entry: Entry,
    target: Path,
    on_bytes: Callable[[int], None] | None = None,
) -> SnapshotInfo:
    """An index at *target*, made from a snapshot. *on_bytes* is called in a worker thread."""
    return await objects.caller.store(read_snapshot, _Chunks(objects, entry, on_bytes), target)


class _Chunks:
    """The bytes of a snapshot, range by range; each attempt begins anew."""

    def __init__(
        self,
        objects: JournalObjects,
        entry: Entry,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._objects = objects
        self._entry = entry
        self._on_bytes = on_bytes

    def __iter__(self) -> Iterator[bytes]:
        store, bucket = self._objects.store, self._objects.bucket
        for start in range(0, self._entry.size, RANGE):
            stop = min(start + RANGE, self._entry.size)
            yield store.get(bucket, self._entry.key, start, stop)
            if self._on_bytes is not None:
                self._on_bytes(stop)
