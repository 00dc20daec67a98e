"""The tree of a mount: where it comes from, who may change it, and how it reaches the bucket.

Joins the index on this machine with the journal in the bucket, for `cozyfs.mount`. A writer holds
the lease, brings its tree up to date, puts back what a lost machine stored but did not journal,
and then records every change; a reader follows. All on the event loop.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from cozyfs import moments
from cozyfs.catchup import begin_anew, catch_up, refusal, set_apart
from cozyfs.errors import (
    CozyError,
    InstanceError,
    JournalDamaged,
    JournalDiverged,
    StoreUnavailable,
)
from cozyfs.index import Index
from cozyfs.journal import (
    Follower,
    JournalObjects,
    JournalWriter,
    Lease,
    Loss,
    Owner,
    Past,
    Rejoiner,
    RestoredTo,
    Snapshotter,
    restore,
    rollforward,
    take,
)
from cozyfs.journal.lease import DURATION_S
from cozyfs.journal.loss import measured
from cozyfs.journal.restore import remove_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cozyfs.index import Changes
    from cozyfs.journal import RestoredAt
    from cozyfs.journal.restore import Progress
    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.values import Instance

log = logging.getLogger(__name__)

LEASE_VARIABLE = "COZYFS_LEASE_SECONDS"
"""Of the environment: how long a lease is good. For tests, which cannot wait for half a minute."""

SHORTEST_LEASE_S = 2.0

RELEASE_S = 10.0
"""For the last PUT of a mount that could not start."""

_ENDED = "ended"
"""Local setting while no writer has the tree and the last one ended in order."""
_COMPLETE = "complete_at"
"""Local setting: when every object in the store was last known to the tree; nanoseconds."""


class WriterTree:
    """The tree of the one mount that may change it."""

    def __init__(
        self, index: Index, lease: Lease, writer: JournalWriter, snapshots: Snapshotter
    ) -> None:
        self.index = index
        self.lease = lease
        self.writer = writer
        self.snapshots = snapshots

    async def flush(self, timeout_s: float) -> None:
        """Everything committed before the call is in the bucket when this returns."""
        await self.writer.flush(timeout_s)

    async def confirmed(self, timeout_s: float) -> None:
        """Returns while nobody else can have taken over. Raises LeaseLost; StoreUnavailable when
        the lease has lapsed and the store does not answer for *timeout_s*."""
        with trio.move_on_after(timeout_s) as wait:
            await self.lease.confirmed()
        if wait.cancelled_caught:
            raise StoreUnavailable("the lease cannot be renewed: the store does not answer")

    async def close(self) -> None:
        """The end of a mount that stored everything; others need not wait for the lease."""
        if not self.writer.pending:
            self.index.set_setting(_ENDED, "yes")
        await self.lease.release()

    def status(self) -> dict[str, object]:
        writer, lease = self.writer, self.lease
        return {
            "epoch": lease.epoch,
            "lease": lease.state,
            "lease_is_conditional": lease.conditional,
            "journal_pending": writer.pending,
            "journal_failing_since": writer.failing_since,
            "journal_objects": writer.objects_stored,
            "journal_bytes": writer.bytes_stored,
        }


class ReaderTree:
    """A replica that follows the journal."""

    def __init__(self, index: Index, follower: Follower, rejoiner: Rejoiner) -> None:
        self.index = index
        self.follower = follower
        self.rejoiner = rejoiner
        self.failing_since: float | None = None
        self.failure: str | None = None

    async def refresh(self) -> Changes:
        """Apply what is new, as far as the bucket leads now; returns what a kernel may have
        cached of it. Why it leads no further is in :meth:`status`."""
        try:
            await self._advance()
        except CozyError as exc:
            if self.failing_since is None:
                self.failing_since = time.time()
            if self.failure != str(exc):
                self.failure = str(exc)
                log.warning("the tree cannot be followed: %s", exc)
        else:
            self.failing_since = self.failure = None
        return self.follower.take_changes()

    async def _advance(self) -> None:
        try:
            await self.follower.advance()
        except JournalDamaged as damage:
            try:
                _, changes = await self.rejoiner.rejoin()
            except JournalDamaged as exc:
                raise JournalDamaged(f"{damage}; {exc}") from exc
            self.follower.note(changes)
            await self.follower.advance()  # that may have led a part of the way only

    def status(self) -> dict[str, object]:
        return {
            "journal_position": str(self.follower.position),
            "journal_failing_since": self.failing_since,
            "journal_failure": self.failure,
        }


class PastTree:
    """The tree as it was at a moment; nothing ever changes it."""

    def __init__(self, index: Index, at_ns: int, restored: RestoredAt) -> None:
        self.index = index
        self.at_ns = at_ns
        self.restored = restored

    def status(self) -> dict[str, object]:
        return {
            "at": moments.to_iso(self.at_ns),
            "changed_last": moments.to_iso(self.restored.moment_ns),
            "journal_position": str(self.restored.position),
        }


async def open_for_writing(
    instance: Instance,
    store: Store,
    state: InstanceState,
    mountpoint: Path,
    nursery: trio.Nursery,
    *,
    journal_interval_s: float,
    retention_s: float,
    force_lease: bool,
    accept_loss: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] = log.warning,
) -> WriterTree:
    """The tree, up to date and ours: *nursery* keeps the lease from the moment that it is taken.
    *accept_loss*: go on with what there is where the bucket is damaged. Raises LeaseHeld,
    LeaseLost, JournalDamaged, JournalDiverged, InstanceError, StoreError."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    known_ns, loss = await _ensure_tree(
        instance, store, state, objects, accept_loss=accept_loss, progress=progress
    )
    index = Index.open(state.index_path)
    lease: Lease | None = None
    try:
        had_journal = index.position is not None
        lease = await _take_lease(
            objects, state, os.fspath(mountpoint), _epoch(index), force=force_lease, notice=notice
        )
        nursery.start_soon(lease.keep)
        ended = index.setting(_ENDED) is not None
        index.set_setting(_ENDED, None)
        if had_journal:
            try:
                newest_ns, loss = await catch_up(
                    index, state.index_path, objects, accept_loss=accept_loss
                )
            except JournalDiverged as exc:
                raise JournalDiverged(
                    f"{exc}: mount with another --state-dir; they stay in {state.directory}"
                ) from exc
            known_ns = newest_ns or known_ns
        elif loss is None and await objects.highest_epoch():
            raise JournalDamaged(
                f"{instance.domain} has a journal in the store that the tree in"
                f" {state.directory} knows nothing of"
            )
        index.start_recording()
        snapshots = Snapshotter(
            state.index_path, state.directory, objects, lease, retention_s=retention_s
        )
        await snapshots.ensure_first()
        if loss:
            set_apart(index, loss)
        put_back = 0
        if not ended or known_ns is not None or loss:
            put_back = await _complete(index, objects, known_ns)
        writer = JournalWriter(
            index,
            objects,
            lease,
            interval_s=journal_interval_s,
            on_stored=snapshots.journal_grew,
        )
        if loss:
            await begin_anew(writer, snapshots)
            notice(f"lost: {loss}; {put_back} files that were stored then were put back")
        if lease.lost.is_set():
            lease.check()
    except BaseException:
        if lease is not None:  # nobody has to wait for one that is not used
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                await lease.release()
        index.close()
        raise
    return WriterTree(index, lease, writer, snapshots)


async def open_for_reading(
    instance: Instance, store: Store, state: InstanceState, *, progress: Progress | None = None
) -> ReaderTree:
    """A replica of the tree as the bucket has it now. Raises JournalDamaged, InstanceError,
    StoreError."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    path = state.index_path
    if not path.exists() and await _restore(instance, objects, path, progress) is None:
        raise InstanceError(f"{instance.domain} has no tree yet: mount it for writing once")
    index = Index.open(path)
    try:
        if index.position is None:
            raise InstanceError(f"{instance.domain} has no journal yet: mount it for writing once")
        tree = ReaderTree(index, Follower(index, objects), Rejoiner(index, path, objects))
        await tree.refresh()  # as far as the journal leads: what is there is shown
    except BaseException:
        index.close()
        raise
    return tree


async def open_past(
    instance: Instance,
    store: Store,
    state: InstanceState,
    at_ns: int,
    *,
    progress: Progress | None = None,
) -> PastTree:
    """The tree as it was at *at_ns*, in the empty *state*. Raises MomentGone, JournalDamaged,
    InstanceError, StoreError, NoSpace."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    past = await Past.look(objects)
    restored = await past.restore(at_ns, state.index_path, progress)
    return PastTree(Index.open(state.index_path), at_ns, restored)


async def seize(
    instance: Instance,
    store: Store,
    state: InstanceState,
    *,
    force_lease: bool,
    notice: Callable[[str], None] = log.warning,
) -> None:
    """Take the lease, for somebody who ends the instance: no mount writes from now on. Raises
    LeaseHeld, StoreError."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    await _take_lease(objects, state, "", 0, force=force_lease, notice=notice)


async def _take_lease(
    objects: JournalObjects,
    state: InstanceState,
    mountpoint: str,
    epoch: int,
    *,
    force: bool,
    notice: Callable[[str], None],
) -> Lease:
    """Above *epoch*, and above what the store has. Raises LeaseHeld, StoreError."""
    return await take(
        objects,
        Owner.here(_owner_id(state), mountpoint),
        above_epoch=max(epoch, await objects.highest_epoch()),
        duration_s=_lease_duration(),
        force=force,
        on_wait=lambda record, seconds: notice(
            f"waiting up to {seconds:.0f} s for the lease of {record.host} to expire"
        ),
    )


async def _ensure_tree(
    instance: Instance,
    store: Store,
    state: InstanceState,
    objects: JournalObjects,
    *,
    accept_loss: bool,
    progress: Progress | None,
) -> tuple[int | None, Loss | None]:
    """See to it that a writer has an index; returns until when it knows the instance
    (nanoseconds) if it was restored, and what is lost if that is the whole tree."""
    path = state.index_path
    if path.exists():
        return None, None
    loss: Loss | None = None
    try:
        restored = await _restore(instance, objects, path, progress)
    except JournalDamaged as exc:
        loss = measured(None, await objects.snapshots(), await objects.journal_after())
        if not accept_loss:
            raise JournalDamaged(refusal(loss, str(exc))) from exc
        restored = None
    else:
        if restored is None:
            _refuse_foreign_contents(instance, store, state)
    if restored is None:
        Index.create(path, uid=os.getuid(), gid=os.getgid(), now_ns=time.time_ns()).close()
        return None, loss
    if restored.loss and not accept_loss:
        # A new epoch on top would make what cannot be read now void for ever.
        remove_index(path)
        raise JournalDamaged(refusal(restored.loss, "; ".join(restored.problems)))
    log.info("the tree of %s was restored from the store", instance.domain)
    return restored.created_ns, None


async def _restore(
    instance: Instance, objects: JournalObjects, path: Path, progress: Progress | None
) -> RestoredTo | None:
    restored = await restore(objects, path, progress)
    for problem in restored.problems if restored is not None else ():
        log.error("restoring %s: %s", instance.domain, problem)
    return restored


def _refuse_foreign_contents(instance: Instance, store: Store, state: InstanceState) -> None:
    """An instance with contents but without any journal belongs to somebody else's tree."""
    prefix = f"{instance.db_prefix}/"
    own = f"{prefix}.cozyfs/"
    for found in store.list(instance.bucket, prefix):
        if not found.key.startswith(own):
            raise InstanceError(
                f"{instance.domain} has contents in the store, but no tree there nor in "
                f"{state.directory}: mount it with the --state-dir where it is"
            )


def _epoch(index: Index) -> int:
    """The highest one this tree knows of."""
    return index.position.epoch if index.position is not None else 0


async def _complete(index: Index, objects: JournalObjects, known_ns: int | None) -> int:
    """Attach what was stored but is not in the tree, after any end that was not in order; returns
    how many files. Also where the tree is this machine's own: what an upload left that was killed
    before its commit must not come up in some later roll-forward, long after everybody has seen
    the file without."""
    now_ns = time.time_ns()
    complete = index.setting(_COMPLETE)
    if complete is not None:
        known_ns = min(int(complete), known_ns or now_ns)
    made = await rollforward.plan(index, objects, known_ns)
    paths: list[bytes] = []
    if made:
        paths = rollforward.apply(index, made, uid=os.getuid(), gid=os.getgid(), now_ns=now_ns)
        if paths:
            log.warning("%d files that were stored last were put back into the tree", len(paths))
    index.set_setting(_COMPLETE, str(now_ns))
    return len(paths)


def _lease_duration() -> float:
    try:
        return max(SHORTEST_LEASE_S, float(os.environ[LEASE_VARIABLE]))
    except (KeyError, ValueError):
        return DURATION_S


def _owner_id(state: InstanceState) -> str:
    """Of this state directory, for the lease: whoever has its lock may take over from it."""
    path = state.directory / "owner"
    with suppress(FileNotFoundError):
        return path.read_text("ascii").strip()
    owner = secrets.token_hex(16)
    path.write_text(owner + "\n", "ascii")
    return owner
