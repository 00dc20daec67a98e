"""The writer of a journal: empties the outbox of an index into the bucket, in order.

One task (:meth:`JournalWriter.run`) takes what the outbox holds, makes one object of it, stores
it, and forgets it; then the next. It does so every ``interval_s`` and at once when somebody waits
in :meth:`JournalWriter.flush`; all who wait while an object is on its way share the next one.

Invariants: an object is sent again, the same bytes under the same key, until the store has it; no
later one is sent before. A key that is taken is never overwritten: by equal bytes it is success
(an answer was lost), by others somebody else writes under this epoch, and the lease is lost. What
is stored counts only while the lease is held: `flush` never returns on the strength of an object
that readers might ignore.

Belongs to the loop; compression and the network are in threads.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import (
    CozyError,
    InvalidRequest,
    LeaseLost,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from cozyfs.index import SCHEMA_VERSION, Batch, Index, grouped
from cozyfs.index.journal import Position, Record, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.journal.lease import Lease
    from cozyfs.journal.objects import JournalObjects

log = logging.getLogger(__name__)

INTERVAL_S = 1.0

LIMIT_BYTES = 4 << 20
"""Of changesets in one object: some ten thousand files, a quarter of it when compressed."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0


class JournalWriter:
    """*index* records, its position is the end of the journal, and *lease* is held with an epoch
    above the position's."""

    def __init__(
        self,
        index: Index,
        objects: JournalObjects,
        lease: Lease,
        *,
        interval_s: float = INTERVAL_S,
        limit_bytes: int = LIMIT_BYTES,
        on_stored: Callable[[int], None] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        position = index.position
        if position is None or not index.is_recording:
            raise InvalidRequest("this index records nothing for a journal")
        if lease.epoch <= position.epoch:
            raise InvalidRequest("the journal goes on under a new epoch only")
        self.position = position
        """The end of the journal as far as this mount has stored it."""
        self.failing_since: float | None = None
        """Seconds since 1970; None: the last attempt worked."""
        self.failure: str | None = None
        self.objects_stored = 0
        self.bytes_stored = 0
        self._index = index
        self._objects = objects
        self._lease = lease
        self._interval_s = interval_s
        self._limit_bytes = limit_bytes
        self._on_stored = on_stored
        self._clock_ns = clock_ns
        self._origin = index.origin
        self._ended: LeaseLost | None = None
        batch = index.take_outbox(1)
        self._stored_seq = index.last_seq if batch is None else batch.last_seq - 1
        self._wanted = trio.Event()
        self._progress = trio.Event()

    @property
    def pending(self) -> int:
        """Transactions that are not in the journal yet."""
        return self._index.last_seq - self._stored_seq

    async def run(self) -> None:
        """Until the lease is lost, which leaves the rest in the outbox. Raises CozyError when the
        local index fails."""
        try:
            while True:
                await self._wait()
                self._wanted = trio.Event()
                # Not what comes meanwhile: a burst of changes is one object an interval, not one
                # for each time that the store answers.
                target = self._index.last_seq
                while self._stored_seq < target:
                    await self._store_next()
        except LeaseLost as exc:
            self._ended = exc
            log.error("%s; %d changes stay on this machine", exc, self.pending)
        finally:
            self._tell()

    async def flush(self, timeout_s: float | None = None) -> None:
        """Returns when everything that was committed before the call is in the journal, and this
        mount still had the lease then. Raises LeaseLost, and StoreUnavailable when it has not
        succeeded within *timeout_s*: it goes on being tried."""
        target = self._index.last_seq
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s) as wait:
            await trio.lowlevel.checkpoint()
            while self._stored_seq < target:
                if self._ended is not None:
                    raise LeaseLost(str(self._ended)) from self._ended
                self._wanted.set()
                await self._progress.wait()
        if wait.cancelled_caught:
            raise StoreUnavailable(
                "the changes of the tree could not be stored in time; they are kept on this"
                " machine and tried again"
            )

    # ---- inside

    async def _wait(self) -> None:
        """Until it is time, or somebody waits, or the lease is lost (which raises)."""
        with trio.move_on_after(self._interval_s):
            await self._wanted.wait()
        if self._lease.lost.is_set():
            self._lease.check()

    async def _store_next(self) -> None:
        batch = self._index.take_outbox(self._limit_bytes)
        if batch is None:
            raise CozyError("the outbox has lost what it held")
        key, data = await self._objects.once.disk(self._encode, batch)
        await self._store(key, data)
        # From here to the end nothing awaits: position, outbox and counters change together.
        self.position = Position(self._lease.epoch, self.position.sequence + 1, data[-32:])
        self._index.forget_outbox(batch.last_seq, self.position)
        self._stored_seq = batch.last_seq
        self.objects_stored += 1
        self.bytes_stored += len(data)
        if self._on_stored is not None:
            self._on_stored(len(data))
        self._tell()

    def _encode(self, batch: Batch) -> tuple[str, bytes]:
        epoch, sequence = self._lease.epoch, self.position.sequence + 1
        record = Record(
            epoch=epoch,
            sequence=sequence,
            previous=self.position,
            created_ns=self._clock_ns(),
            schema_version=SCHEMA_VERSION,
            origin=self._origin,
            outbox_seq=batch.last_seq,
            transactions=len(batch.changesets),
            changeset=grouped(batch.changesets),
        )
        return self._objects.journal_key(epoch, sequence), encode(record)

    async def _store(self, key: str, data: bytes) -> None:
        """Until it is stored under a lease that is held. Raises LeaseLost."""
        pause = FIRST_PAUSE_S
        while True:
            await self._lease.confirmed()
            try:
                await self._put(key, data)
            except StoreError as exc:
                self._failed(exc)
                with trio.move_on_after(pause):
                    await self._lease.lost.wait()
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            # It may have lapsed meanwhile: then another could have overtaken this object.
            await self._lease.confirmed()
            if self.failing_since is not None:
                log.info("the journal is stored again")
            self.failing_since = self.failure = None
            return

    async def _put(self, key: str, data: bytes) -> None:
        objects = self._objects
        store, call = objects.store, objects.once.store
        try:
            await call(store.put, objects.bucket, key, data, if_absent=True)
        except NotSupported:
            if not await self._is_there(key, data):
                await call(store.put, objects.bucket, key, data)
        except PreconditionFailed:
            if not await self._is_there(key, data):
                raise StoreUnavailable("a journal object is there and is not") from None

    async def _is_there(self, key: str, data: bytes) -> bool:
        """Whether the object is there with these bytes. Raises LeaseLost for any others."""
        objects = self._objects
        try:
            found = await objects.once.store(objects.store.get, objects.bucket, key)
        except ObjectNotFound:
            return False
        if found != data:
            raise LeaseLost("another mount writes the journal under the epoch of this one")
        return True

    def _failed(self, exc: StoreError) -> None:
        self.failure = str(exc)
        if self.failing_since is None:
            self.failing_since = time.time()
            log.warning("the journal cannot be stored: %s; trying again", exc)

    def _tell(self) -> None:
        self._progress.set()
        self._progress = trio.Event()
