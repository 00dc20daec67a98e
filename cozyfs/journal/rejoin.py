"""Rejoining: a tree that cannot follow the journal from where it is goes around by a snapshot.

It may have slept until the journal was pruned under it, or stand before a damaged object that a
later snapshot makes unnecessary. The tree as the bucket has it is restored into a file beside the
index; what differs is then applied to the index in one transaction, as one change of the journal
would be. So whoever uses the index sees one step from the former tree to the new one, a crash
leaves one of both, and what kernels may have cached is known exactly.

Belongs to the loop; only the last step blocks it, as long as that many changes take.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cozyfs.errors import JournalDamaged, JournalDiverged
from cozyfs.index import Changes, Index, difference
from cozyfs.journal.chain import is_void
from cozyfs.journal.restore import RestoredTo, remove_index, restore

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.index.journal import Position
    from cozyfs.journal.objects import Entry, JournalObjects

log = logging.getLogger(__name__)


class Rejoiner:
    """Of the *index* at *path*, which has a position."""

    def __init__(self, index: Index, path: Path, objects: JournalObjects) -> None:
        self._index = index
        self._path = path
        self._objects = objects
        self._in_vain: tuple[Position, list[Entry], str] | None = None

    async def rejoin(self) -> tuple[RestoredTo, Changes]:
        """Bring the tree to where the bucket leads, complete or not; returns what a kernel may
        have cached of what is different now.

        Raises JournalDamaged when the bucket leads no further (without reading it all again, when
        nothing has come since the last time), JournalDiverged when it does and this machine has
        changes that were never stored, StoreError, NoSpace."""
        position = self._index.position
        assert position is not None
        snapshots = await self._objects.snapshots()
        if self._in_vain is not None and self._in_vain[:2] == (position, snapshots):
            raise JournalDamaged(self._in_vain[2])
        if not any(snapshot.place > position.place for snapshot in snapshots):
            journal = await self._objects.journal_after()
            if not is_void(position.epoch, position.sequence, journal):
                raise JournalDamaged(f"there is no snapshot after {position}")
        try:
            return await self._go_around(position)
        except JournalDamaged as exc:
            self._in_vain = (position, snapshots, str(exc))
            raise

    async def _go_around(self, position: Position) -> tuple[RestoredTo, Changes]:
        disk = self._objects.caller.disk
        beside = self._path.with_name(self._path.name + ".rejoin")
        await disk(remove_index, beside)
        try:
            restored = await restore(self._objects, beside)
            if restored is None or restored.position.place <= position.place:
                raise JournalDamaged("no snapshot that can be read leads further")
            self._refuse_own_changes()
            changeset = await disk(difference, self._path, beside)
        finally:
            await disk(remove_index, beside)
        changes = self._index.apply(changeset, restored.position)
        log.info("the tree went from %s to %s by a snapshot", position, restored.position)
        return restored, changes

    def _refuse_own_changes(self) -> None:
        count = self._index.outbox_size()
        if count:
            raise JournalDiverged(
                f"{count} changes made on this machine were never stored, and"
                " another machine has changed the tree since"
            )
