"""The lease: which one mount may write an instance, and how others find out that it is gone.

The object ``<db_prefix>/.cozyfs/lease`` names the holder. The holder renews it every third of its
duration. Nobody trusts another machine's clock: a lease counts as expired when its bytes have not
changed for its duration and a grace *as this machine has watched*. Each new holder has an epoch
above every one before, which is in the keys of what it writes (`cozyfs.journal.chain`).

The holder's side of the bargain: from the start of its last good renewal it counts the duration by
a clock that goes on while the process, or the machine, is stopped; after that :meth:`Lease.check`
refuses, and only a further renewal, which no other holder has come before, makes it valid again.
Others count from a later moment and for longer, so both never write at the same time.

Where the server honours conditional PUTs, taking and renewing are atomic. Where it does not, a
taker reads back after a pause; ``conditional`` says which.

One task of trio's loop; nothing here blocks.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import (
    LeaseHeld,
    LeaseLost,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.journal.objects import JournalObjects
    from cozyfs.threads import Caller

log = logging.getLogger(__name__)

DURATION_S = 30.0

GRACE_S = 5.0
"""For what a renewal takes on its way, and clocks that do not run equally fast."""

LOOK_PAUSE_S = 2.0
"""Between two looks at a lease that may have expired."""

SETTLE_S = 2.0
"""Where PUTs cannot be conditional: how long a taker waits for another one to show."""

STALE_S = 600.0
"""A lease that was renewed longer ago than this by its holder's clock is watched for one renewal
only: clocks of machines with a network differ by less."""

RETRY_S = 1.0

LONGEST_STEP_S = 5.0


def boottime() -> float:
    """Seconds of a clock that goes on while the machine sleeps, as time.monotonic does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks. *id* is the same for all mounts that share one state directory, one at a time:
    the lock of that directory keeps two of them apart."""

    id: str
    mountpoint: str
    host: str = ""
    pid: int = 0

    @classmethod
    def here(cls, id: str, mountpoint: str) -> Owner:
        return cls(id, mountpoint, socket.gethostname(), os.getpid())


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the object says. Times are RFC 3339, UTC, by the holder's clock."""

    owner: str
    host: str
    pid: int
    mountpoint: str
    epoch: int
    taken_at: str
    renewed_at: str
    duration_s: float
    released: bool = False

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> LeaseRecord | None:
        """None for what is no lease: it is treated as one that has to expire."""
        try:
            fields = json.loads(data)
            record = cls(**{name: fields[name] for name in cls.__dataclass_fields__})
            record = replace(record, epoch=int(record.epoch), duration_s=float(record.duration_s))
        except (ValueError, TypeError, KeyError):
            return None
        return record


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look. *etag* is None where the object is missing."""

    data: bytes
    etag: str | None
    record: LeaseRecord | None


class Lease:
    """A lease that is held. Build with :func:`take`, run :meth:`keep` from then on, and
    :meth:`release` at the end of the mount, which ends that."""

    def __init__(
        self,
        objects: JournalObjects,
        record: LeaseRecord,
        etag: str,
        *,
        conditional: bool,
        valid_until: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.record = record
        self.conditional = conditional
        self.lost = trio.Event()
        """Another holder was found: there is no way back."""
        self.renewal_failing_since: float | None = None  # by the wall clock
        self._objects = objects
        self._etag = etag
        self._valid_until = valid_until
        self._clock = clock
        self._wall_clock = wall_clock
        self._why_lost = ""
        self._renewed = trio.Event()
        self._putting = trio.Lock()  # by keep or by release

    @property
    def epoch(self) -> int:
        return self.record.epoch

    @property
    def state(self) -> str:
        """``held``; ``lapsed``: could not be renewed in time, but maybe will be; ``lost``."""
        if self.lost.is_set():
            return "lost"
        return "held" if self._clock() < self._valid_until else "lapsed"

    def check(self) -> None:
        """Raises LeaseLost unless this mount may write now. No checkpoint."""
        match self.state:
            case "lost":
                raise LeaseLost(self._why_lost)
            case "lapsed":
                raise LeaseLost(
                    "the lease could not be renewed in time: nothing is written until the store"
                    " answers and nobody else has taken it"
                )

    async def confirmed(self) -> None:
        """Returns while the lease is held; waits while it has lapsed. Raises LeaseLost."""
        await trio.lowlevel.checkpoint()
        while self.state == "lapsed":
            with trio.move_on_after(RETRY_S):
                await self._renewed.wait()
        self.check()

    async def keep(self) -> None:
        """Renew until the lease is lost; then return. Raises nothing."""
        period = self.record.duration_s / 3
        while not self.lost.is_set():
            async with self._putting:
                renewed = self.lost.is_set() or await self._try_to_renew()
            if renewed:
                await self._pause(period)
            else:
                await self._pause(min(RETRY_S, period / 4))

    async def release(self) -> None:
        """Tell others that they need not wait. A lease that was lost is left alone; whatever goes
        wrong is only logged, since the lease expires anyway."""
        async with self._putting:
            if self.lost.is_set():
                return
            self._lose("the lease was released")
            record = replace(self.record, renewed_at=self._now(), released=True)
            try:
                await _put(self._objects, record, self._etag, conditional=self.conditional)
            except StoreError as exc:
                log.info("the lease could not be released and will expire: %s", exc)

    async def renew(self) -> None:
        """One attempt. Raises LeaseLost, StoreError."""
        began = self._clock()
        record = replace(self.record, renewed_at=self._now())
        if not self.conditional:
            await self._look_for_others()
        try:
            etag = await _put(self._objects, record, self._etag, conditional=self.conditional)
        except PreconditionFailed:
            await self._look_for_others()
            # Ours: an answer was lost, or the object is. The next attempt is made on this one.
            etag = await _put(self._objects, record, self._etag, conditional=self.conditional)
        self.record, self._etag = record, etag
        self._valid_until = began + record.duration_s
        self._renewed.set()
        self._renewed = trio.Event()

    async def _look_for_others(self) -> None:
        seen = await _look(self._objects)
        found = seen.record
        if found is not None and (found.owner, found.epoch) == (self.record.owner, self.epoch):
            self._etag = seen.etag or ""
            return
        if found is not None and found.epoch < self.epoch and not self.conditional:
            return  # a late renewal of a former holder has overwritten ours
        if found is None:
            why = "the lease was removed from the store"
        else:
            why = f"the lease was taken by {found.host}:{found.mountpoint} at {found.taken_at}"
        self._lose(why)
        raise LeaseLost(why)

    async def _pause(self, seconds: float) -> None:
        """Or until the lease is lost. In short steps by our own clock: a machine that wakes up is
        to renew soon, not after the rest of a sleep that trio's clock did not count."""
        due = self._clock() + seconds
        while (left := due - self._clock()) > 0.01:  # less may be lost in rounding
            with trio.move_on_after(min(left, LONGEST_STEP_S)):
                await self.lost.wait()
                return

    async def _try_to_renew(self) -> bool:
        try:
            await self.renew()
        except LeaseLost as exc:
            log.error("%s: this mount is read-only now", exc)
        except StoreError as exc:
            if self.renewal_failing_since is None:
                self.renewal_failing_since = self._wall_clock()
                log.warning("the lease cannot be renewed: %s", exc)
            return False
        self.renewal_failing_since = None
        return True

    def _lose(self, why: str) -> None:
        self._why_lost = why
        self.lost.set()
        self._renewed.set()

    def _now(self) -> str:
        return _rfc3339(self._wall_clock())


async def take(
    objects: JournalObjects,
    owner: Owner,
    *,
    above_epoch: int = 0,
    duration_s: float = DURATION_S,
    force: bool = False,
    on_wait: Callable[[LeaseRecord, float], None] | None = None,
    clock: Callable[[], float] = boottime,
    wall_clock: Callable[[], float] = time.time,
) -> Lease:
    """Become the holder, with an epoch above *above_epoch* and that of any holder before.

    At once when the lease is free, released, or left by an earlier mount of this *owner* (its
    process is dead: the state directory was locked), or with *force*. Otherwise it is watched,
    which takes its duration and a grace at most; *on_wait* is told of it once, with the seconds it
    may take. Raises LeaseHeld as soon as the holder shows, StoreError."""
    watch = _Watch(objects, owner, on_wait, clock, wall_clock)
    while True:
        seen = await _look(objects)
        if not force:
            seen = await watch.until_free(seen)
        epoch = max(above_epoch, seen.record.epoch if seen.record else 0) + 1
        began, now = clock(), _rfc3339(wall_clock())
        record = LeaseRecord(
            owner=owner.id,
            host=owner.host,
            pid=owner.pid,
            mountpoint=owner.mountpoint,
            epoch=epoch,
            taken_at=now,
            renewed_at=now,
            duration_s=duration_s,
        )
        conditional = True
        try:
            try:
                etag = await _put(
                    objects, record, seen.etag, conditional=True, caller=objects.caller
                )
            except NotSupported:
                conditional = False
                etag = await _put_and_read_back(objects, record, seen.etag)
        except PreconditionFailed:
            continue  # somebody was quicker, or an answer of ours was lost: look again
        return Lease(
            objects,
            record,
            etag,
            conditional=conditional,
            valid_until=began + duration_s,
            clock=clock,
            wall_clock=wall_clock,
        )


async def holder(objects: JournalObjects) -> LeaseRecord | None:
    """Who has the lease, or had it when it died; None where nobody may be writing. Raises
    StoreError."""
    seen = await _look(objects)
    return None if seen.record is None or seen.record.released else seen.record


class _Watch:
    """Waits for a lease to be free, by this machine's clock alone."""

    def __init__(
        self,
        objects: JournalObjects,
        owner: Owner,
        on_wait: Callable[[LeaseRecord, float], None] | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._owner = owner
        self._on_wait = on_wait
        self._clock = clock
        self._wall_clock = wall_clock

    async def until_free(self, seen: _Seen) -> _Seen:
        """The last look, whose object may be replaced."""
        if self._is_free(seen):
            return seen
        patience_s = self._patience(seen.record)
        if self._on_wait is not None and seen.record is not None:
            self._on_wait(seen.record, patience_s)
        began = self._clock()
        while self._clock() - began < patience_s:
            await trio.sleep(min(LOOK_PAUSE_S, patience_s / 5))
            now = await _look(self._objects)
            if self._is_free(now):
                return now
            if now.data != seen.data:
                raise LeaseHeld(self._who(now.record))
        return seen

    def _is_free(self, seen: _Seen) -> bool:
        if seen.etag is None:
            return True
        record = seen.record
        return record is not None and (
            record.released or (record.owner == self._owner.id and record.host == self._owner.host)
        )

    def _patience(self, record: LeaseRecord | None) -> float:
        if record is None:
            return DURATION_S + GRACE_S
        age = self._wall_clock() - _seconds(record.renewed_at)
        if age > record.duration_s + STALE_S:
            return record.duration_s / 3 + GRACE_S
        return record.duration_s + GRACE_S

    def _who(self, record: LeaseRecord | None) -> str:
        if record is None:
            return "the instance is in use by another cozyfs, whose lease this one cannot read"
        return (
            f"the instance is mounted for writing on {record.host} at {record.mountpoint}"
            f" (pid {record.pid}) since {record.taken_at}: unmount it there, mount it read-only"
            f" here, or take it over with --force-lease if that machine is gone for good"
        )


async def _look(objects: JournalObjects) -> _Seen:
    """Raises StoreError; tries again for the caller's time-out."""
    key = lease_key(objects)
    try:
        # The ETag first: if the object changes in between, a PUT on that ETag fails, as it must.
        info = await objects.caller.store(objects.store.head, objects.bucket, key)
        data = await objects.caller.store(objects.store.get, objects.bucket, key)
    except ObjectNotFound:
        return _Seen(b"", None, None)
    return _Seen(data, info.etag, LeaseRecord.decode(data))


async def _put(
    objects: JournalObjects,
    record: LeaseRecord,
    etag: str | None,
    *,
    conditional: bool,
    caller: Caller | None = None,
) -> str:
    """*etag* None: only where there is no object. One attempt, unless there is a *caller*."""
    call = (caller or objects.once).store
    key, data, kind = lease_key(objects), record.encode(), "application/json"
    put = objects.store.put
    if not conditional:
        return await call(put, objects.bucket, key, data, content_type=kind)
    if etag is None:
        return await call(put, objects.bucket, key, data, content_type=kind, if_absent=True)
    return await call(put, objects.bucket, key, data, content_type=kind, if_match=etag)


async def _put_and_read_back(
    objects: JournalObjects, record: LeaseRecord, before: str | None
) -> str:
    if (await _look(objects)).etag != before:
        raise PreconditionFailed("the lease changed")
    etag = await _put(objects, record, None, conditional=False, caller=objects.caller)
    await trio.sleep(SETTLE_S)
    if (await _look(objects)).data != record.encode():
        raise PreconditionFailed("the lease changed")
    return etag


def lease_key(objects: JournalObjects) -> str:
    return f"{objects.db_prefix}/.cozyfs/lease"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return math.inf  # the usual watch then
