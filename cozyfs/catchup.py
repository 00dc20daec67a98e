"""A writer's tree before its first change: brought up to date, or on with what there is.

Between taking the lease and recording. Where the bucket is damaged, a writer that simply went on
would make what cannot be read now void for ever, so it is refused; an operator who knows that
nothing better will come says so (``--accept-loss``), and :func:`begin_anew` starts a new epoch
that leads around the damage. Nothing is overwritten or deleted for it: the damaged objects stay
until pruning, which is after the retention.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import JournalDamaged
from cozyfs.journal import Follower, JournalObjects, JournalWriter, Loss, Rejoiner, Snapshotter
from cozyfs.journal.chain import is_void
from cozyfs.journal.loss import measured

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.index import Index

log = logging.getLogger(__name__)

NUMBERS_PER_OBJECT = 1 << 16
"""Inode numbers that one lost journal object may have given: more than its 4 MiB can name."""

STORE_S = 60.0
"""For the first journal object of a new epoch."""


async def catch_up(
    index: Index, path: Path, objects: JournalObjects, *, accept_loss: bool
) -> tuple[int | None, Loss | None]:
    """Bring *index* (at *path*, with a position) to where the bucket leads. Returns when the
    newest change that was applied was made (nanoseconds; None where none was), and what is lost
    when this tree goes on, which is only with *accept_loss*. Raises JournalDamaged,
    JournalDiverged, StoreError."""
    follower = Follower(index, objects)
    try:
        await follower.refresh()
    except JournalDamaged as exc:
        damage = exc
    else:
        return follower.created_ns or None, None
    known_ns = follower.created_ns or None
    try:
        restored, _ = await Rejoiner(index, path, objects).rejoin()
        known_ns = restored.created_ns
    except JournalDamaged as exc:
        log.warning("%s; %s", damage, exc)
    position = index.position
    assert position is not None
    journal = await objects.journal_after()
    if is_void(position.epoch, position.sequence, journal):
        raise JournalDamaged(
            f"{damage}; the tree on this machine is one that was overtaken: mount with another"
            " --state-dir"
        )
    loss = measured(position, await objects.snapshots(), journal)
    if loss and not accept_loss:
        raise JournalDamaged(refusal(loss, str(damage)))
    return known_ns, loss or None


def refusal(loss: Loss, why: str) -> str:
    """What a writer is told that would go on without what is lost."""
    return (
        f"{loss}, cannot be applied ({why}): nothing was changed; mount it read-only to see what"
        " is there without them, or with --accept-loss to go on without them for good"
    )


def set_apart(index: Index, loss: Loss) -> None:
    """Make sure that the tree, as it goes on, has nothing in common with what is lost: no inode
    number, and no object is deleted that the lost changes may have wanted after all, before
    the retention has passed once more. Recorded, so that there is a first change in any case."""
    now_ns = time.time_ns()
    with index.transaction():
        index.skip_numbers(max(loss.objects, 1) * NUMBERS_PER_OBJECT)
        for waiting in index.due_deletions(now_ns, index.pending_deletions()):
            index.queue_deletion(waiting.doc_id, waiting.internal_id, now_ns)


async def begin_anew(writer: JournalWriter, snapshots: Snapshotter) -> None:
    """Store what was recorded, which makes everything void that comes after its place
    (`cozyfs.journal.chain`), then a snapshot, so that nobody needs what is before it. Should this
    end in between, the next mount is refused again, or has the tree already. Raises CozyError."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await writer.flush(STORE_S)
        nursery.cancel_scope.cancel()
    await snapshots.write()
