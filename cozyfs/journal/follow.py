"""Following a journal: a tree on this machine is brought to the journal's end, again and again.

For read-only mounts, which do this every few seconds, and for a writer between taking the lease
and its first change. Where it has applied what an overtaken writer sent (`cozyfs.journal.chain`),
that is taken back first, object by object.

Belongs to the loop. The index changes only here while a refresh goes on, so a writer refreshes
before it answers requests.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cozyfs.errors import JournalDamaged, JournalDiverged, JournalNewer, ObjectNotFound
from cozyfs.index import NO_CHANGES, SCHEMA_VERSION, Changes, Index, grouped
from cozyfs.index.journal import Position, Record, decode
from cozyfs.journal.chain import history, leads_elsewhere

if TYPE_CHECKING:
    from cozyfs.journal.objects import JournalObjects

log = logging.getLogger(__name__)

ALL = 1 << 62


class Follower:
    """*index* has a position (it came from `cozyfs.journal.restore`, or has recorded)."""

    def __init__(self, index: Index, objects: JournalObjects) -> None:
        self._index = index
        self._objects = objects
        self.applied = 0
        """Journal objects, since the start."""
        self.created_ns = 0
        """When the newest of them was made, by its writer's clock."""
        self._changes = NO_CHANGES

    @property
    def position(self) -> Position:
        position = self._index.position
        if position is None:
            raise JournalDamaged("this tree does not know where in the journal it is")
        return position

    async def refresh(self) -> Changes:
        """:meth:`advance`, and what a kernel may have cached of what is different now."""
        await self.advance()
        return self.take_changes()

    async def advance(self) -> None:
        """Apply what is new.

        Raises StoreError; JournalDamaged when the journal cannot be followed from here (an object
        is missing or damaged, or was pruned since): the tree is as far as it could be, and only
        `cozyfs.journal.rejoin` may lead further; JournalDiverged when this machine has changes
        of its own that another writer has not seen."""
        newer = await self._objects.journal_after(self.position)
        while leads_elsewhere(self.position, newer):
            self.note(await self._step_back())
            newer = await self._objects.journal_after(self.position)
        entries = history(newer)
        async with self._objects.contents(entries) as contents:
            async for _, data in contents:
                if isinstance(data, ObjectNotFound):
                    raise JournalDamaged("a journal object is missing") from data
                if isinstance(data, Exception):
                    raise data
                self.note(self._advance(*decode(data)))

    def note(self, changes: Changes) -> None:
        """To be taken with :meth:`take_changes`."""
        self._changes = self._changes.merged(changes)

    def take_changes(self) -> Changes:
        """What was applied since the last time, also by an attempt that failed in the end."""
        changes, self._changes = self._changes, NO_CHANGES
        return changes

    def _advance(self, record: Record, position: Position) -> Changes:
        check_follows(record, self.position)
        if self._index.last_seq and self._index.take_outbox(1) is not None:
            return self._advance_over_own(record, position)
        changes = self._index.apply(record.changeset, position)
        self._count(record)
        return changes

    def _advance_over_own(self, record: Record, position: Position) -> Changes:
        """The outbox is not empty: *record* can only be what this machine stored itself, before
        it could note that it had."""
        batch = self._index.take_outbox(ALL)
        assert batch is not None
        first = batch.last_seq - len(batch.changesets) + 1
        if record.origin != self._index.origin or record.outbox_seq < first:
            raise JournalDiverged(
                f"{len(batch.changesets)} changes made on this machine were never stored, and"
                " another machine has changed the tree since"
            )
        self._count(record)
        if batch.last_seq < record.outbox_seq:
            # A power cut took the end of what was recorded here; the journal has it.
            self._index.undo_outbox()
            return self._index.apply(record.changeset, position)
        stored = batch.changesets[: record.outbox_seq - first + 1]
        if grouped(stored) != record.changeset:
            raise JournalDiverged("this machine's state is a copy of another's that went on")
        self._index.forget_outbox(record.outbox_seq, position)
        return NO_CHANGES

    async def _step_back(self) -> Changes:
        """Take back the object at the position, which an overtaken writer has sent."""
        position = self.position
        if self._index.last_seq and self._index.take_outbox(1) is not None:
            raise JournalDiverged(
                "another machine has taken over and changed the tree; changes made on this one"
                " are not part of it"
            )
        try:
            data = await self._objects.get(self._objects.journal_key(*position.place))
        except ObjectNotFound as exc:
            raise JournalDamaged(f"the journal leads elsewhere from {position}") from exc
        record, found = decode(data)
        if found != position:
            raise JournalDamaged(f"journal object {position} is not the one applied here")
        log.info("journal object %s was overtaken and is taken back", position)
        return self._index.take_back(record.changeset, record.previous)

    def _count(self, record: Record) -> None:
        self.applied += 1
        self.created_ns = record.created_ns


def check_follows(record: Record, position: Position) -> None:
    """Raises JournalDamaged unless *record* is the next one after *position*, JournalNewer unless
    it is of a form that this version can apply."""
    if record.sequence != position.sequence + 1:
        raise JournalDamaged(
            f"the journal has a gap: {position.sequence + 1} is missing, the next is"
            f" {record.epoch}-{record.sequence}"
        )
    if record.previous != position:
        raise JournalDamaged(
            f"journal object {record.epoch}-{record.sequence} follows another"
            f" {record.previous} than the one that is known"
        )
    if record.schema_version > SCHEMA_VERSION:
        raise JournalNewer(
            f"journal object {record.epoch}-{record.sequence} was written by a newer cozyfs:"
            " use that one here too"
        )
