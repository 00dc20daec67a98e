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
from pathlib import Path
from typing import TYPE_CHECKING

import trio

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
    Owner,
    Snapshotter,
    restore,
    rollforward,
    take,
)
from cozyfs.journal.lease import DURATION_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.index import Changes
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

    def __init__(self, index: Index, follower: Follower) -> None:
        self.index = index
        self.follower = follower
        self.failing_since: float | None = None

    async def refresh(self) -> Changes | None:
        """What is new in the journal, applied; None when it could not be followed now."""
        try:
            changes = await self.follower.refresh()
        except CozyError as exc:
            if self.failing_since is None:
                self.failing_since = time.time()
                log.warning("the tree cannot be followed: %s", exc)
            return None
        self.failing_since = None
        return changes

    def status(self) -> dict[str, object]:
        return {
            "journal_position": str(self.follower.position),
            "journal_failing_since": self.failing_since,
        }


async def open_for_writing(
    instance: Instance,
    store: Store,
    state: InstanceState,
    mountpoint: Path,
    *,
    journal_interval_s: float,
    retention_s: float,
    force_lease: bool,
    progress: Progress | None = None,
    notice: Callable[[str], None] = log.warning,
) -> WriterTree:
    """The tree, up to date and ours. Raises LeaseHeld, JournalDamaged, JournalDiverged,
    InstanceError, StoreError."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    known_ns = await _ensure_tree(
        instance, store, state, objects, may_create=True, progress=progress
    )
    index = Index.open(state.index_path)
    lease: Lease | None = None
    try:
        owner = Owner.here(_owner_id(state), os.fspath(mountpoint))
        had_journal = index.position is not None
        lease = await take(
            objects,
            owner,
            above_epoch=max(_epoch(index), await objects.highest_epoch()),
            duration_s=_lease_duration(),
            force=force_lease,
            on_wait=lambda record, seconds: notice(
                f"waiting up to {seconds:.0f} s for the lease of {record.host} to expire"
            ),
        )
        ended = index.setting(_ENDED) is not None
        index.set_setting(_ENDED, None)
        if had_journal:
            follower = Follower(index, objects)
            try:
                await follower.refresh()
            except JournalDiverged as exc:
                raise JournalDiverged(
                    f"{exc}: mount with another --state-dir; they stay in {state.directory}"
                ) from exc
            if follower.applied:
                known_ns = follower.created_ns
        elif await objects.highest_epoch():
            raise JournalDamaged(
                f"{instance.domain} has a journal in the store that the tree in"
                f" {state.directory} knows nothing of"
            )
        index.start_recording()
        snapshots = Snapshotter(
            state.index_path, state.directory, objects, lease, retention_s=retention_s
        )
        await snapshots.ensure_first()
        if not ended or known_ns is not None:
            await _complete(index, objects, known_ns)
        writer = JournalWriter(
            index,
            objects,
            lease,
            interval_s=journal_interval_s,
            on_stored=snapshots.journal_grew,
        )
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
    """A replica of the tree as the journal has it now. Raises as :func:`open_for_writing`."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    await _ensure_tree(instance, store, state, objects, may_create=False, progress=progress)
    index = Index.open(state.index_path)
    try:
        if index.position is None:
            raise InstanceError(f"{instance.domain} has no journal yet: mount it for writing once")
        tree = ReaderTree(index, Follower(index, objects))
        await tree.refresh()  # as far as the journal leads: what is there is shown
    except BaseException:
        index.close()
        raise
    return tree


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
    await take(
        objects,
        Owner.here(_owner_id(state), ""),
        above_epoch=await objects.highest_epoch(),
        duration_s=_lease_duration(),
        force=force_lease,
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
    may_create: bool,
    progress: Progress | None,
) -> int | None:
    """See to it that there is an index; returns until when it knows the instance (nanoseconds),
    if it was restored."""
    path = state.index_path
    if path.exists():
        return None
    restored = await restore(objects, path, progress)
    if restored is not None:
        for problem in restored.problems:
            log.error("restoring %s: %s", instance.domain, problem)
        if may_create and not restored.is_complete:
            # A new epoch on top would make what cannot be read now void for ever.
            _remove_index(path)
            raise JournalDamaged(
                f"{restored.lost} journal objects of {instance.domain} cannot be applied"
                f" ({'; '.join(restored.problems)}): nothing was changed; mount it read-only to"
                " see what is there without them"
            )
        log.info("the tree of %s was restored from the store", instance.domain)
        return restored.created_ns
    if not may_create:
        raise InstanceError(f"{instance.domain} has no tree yet: mount it for writing once")
    _refuse_foreign_contents(instance, store, state)
    Index.create(path, uid=os.getuid(), gid=os.getgid(), now_ns=time.time_ns()).close()
    return None


def _remove_index(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


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


async def _complete(index: Index, objects: JournalObjects, known_ns: int | None) -> None:
    """Attach what was stored but is not in the tree, after any end that was not in order. Also
    where the tree is this machine's own: what an upload left that was killed before its commit
    must not come up in some later roll-forward, long after everybody has seen the file without."""
    now_ns = time.time_ns()
    complete = index.setting(_COMPLETE)
    if complete is not None:
        known_ns = min(int(complete), known_ns or now_ns)
    made = await rollforward.plan(index, objects, known_ns)
    if made:
        paths = rollforward.apply(index, made, uid=os.getuid(), gid=os.getgid(), now_ns=now_ns)
        if paths:
            log.warning("%d files that were stored last were put back into the tree", len(paths))
    index.set_setting(_COMPLETE, str(now_ns))


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
