"""Getting a tree back from the bucket alone: the newest good snapshot, then the journal after it.

Nothing in the bucket is ever changed here. What is damaged or missing is told, never glossed
over: a snapshot that is not good gives way to an older one with more journal, the journal is
applied up to the first object that is missing or damaged, and the report says what is beyond.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cozyfs.durable import sync
from cozyfs.errors import InstanceError, JournalDamaged, ObjectNotFound
from cozyfs.index import Index
from cozyfs.index.journal import Position, Record, decode
from cozyfs.journal.chain import history, is_void
from cozyfs.journal.follow import check_follows
from cozyfs.journal.loss import Loss, measured
from cozyfs.journal.snapshots import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.index.snapshot import SnapshotInfo
    from cozyfs.journal.objects import Entry, JournalObjects

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Bytes read so far, and of how many; may be called in a worker thread."""


@dataclass(frozen=True, slots=True)
class RestoredTo:
    """What was got back, and what was not."""

    position: Position
    created_ns: int  # of the last snapshot or journal object in it, by its writer's clock
    snapshot: tuple[int, int]  # epoch and sequence of the one that was used
    applied: int  # journal objects after it
    problems: tuple[str, ...]  # for people, in the order they were met
    loss: Loss  # what was stored after that and cannot be applied

    @property
    def is_complete(self) -> bool:
        """Everything that was ever stored is in it, whatever had to be gone around."""
        return not self.loss


async def restore(
    objects: JournalObjects, target: Path, progress: Progress | None = None
) -> RestoredTo | None:
    """Make the index *target* as the bucket has it; None where the bucket has no journal and no
    snapshot. *target* appears only when all is done, synced to disk.

    Raises InstanceError when *target* exists, JournalDamaged when no snapshot is good (nothing is
    made then), JournalNewer, StoreError, NoSpace."""
    if await objects.caller.disk(target.exists):
        raise InstanceError(f"{target} exists already")
    snapshots, journal = await objects.snapshots(), await objects.journal_after()
    if not snapshots and not journal:
        return None
    work = target.with_name(target.name + ".restoring")
    remove_index(work)
    try:
        result = await _Restore(objects, work, snapshots, journal, progress).run()
        await objects.caller.disk(_move_into_place, work, target)
    finally:
        remove_index(work)
    return result


class _Restore:
    def __init__(
        self,
        objects: JournalObjects,
        work: Path,
        snapshots: list[Entry],
        journal: list[Entry],
        progress: Progress | None,
    ) -> None:
        self._objects = objects
        self._work = work
        self._snapshots = [s for s in snapshots if not is_void(s.epoch, s.sequence, journal)]
        self._listed = (snapshots, journal)
        self._journal = history(journal)
        self._progress = progress
        self._problems: list[str] = []
        self._done = self._total = 0

    async def run(self) -> RestoredTo:
        entry, info = await self._newest_good()
        after = [e for e in self._journal if e.place > entry.place]
        index = await self._objects.caller.disk(open_unsynced, self._work)
        try:
            applied, created_ns = await self._replay(index, after)
            position = index.position
            assert position is not None
        finally:
            await self._objects.caller.disk(index.close)
        return RestoredTo(
            position,
            created_ns or info.created_ns,
            entry.place,
            applied,
            tuple(self._problems),
            measured(position, *self._listed),
        )

    async def _newest_good(self) -> tuple[Entry, SnapshotInfo]:
        for entry in reversed(self._snapshots):
            after = sum(e.size for e in self._journal if e.place > entry.place)
            self._total = self._done + entry.size + after
            begun = self._done
            try:
                info = await fetch(
                    self._objects,
                    entry,
                    self._work,
                    lambda at, begun=begun: self._read(begun + at),  # type: ignore[misc]
                )
            except (JournalDamaged, ObjectNotFound) as exc:
                self._problem(f"snapshot {entry.epoch}-{entry.sequence}: {exc}")
                continue
            if info.position.place != entry.place:
                self._problem(f"snapshot {entry.epoch}-{entry.sequence} has another's name")
                remove_index(self._work)
                continue
            return entry, info
        raise JournalDamaged(
            "the tree cannot be restored: "
            + ("; ".join(self._problems) or "there is no snapshot, only journal")
        )

    async def _replay(self, index: Index, entries: list[Entry]) -> tuple[int, int]:
        """How many were applied, and when the last of them was made."""
        applied = created_ns = 0
        async with self._objects.contents(entries) as contents:
            async for entry, data in contents:
                try:
                    if isinstance(data, Exception):
                        raise data
                    record = await self._objects.caller.disk(apply_next, index, data)
                except (JournalDamaged, ObjectNotFound) as exc:
                    self._problem(
                        f"journal object {entry.epoch}-{entry.sequence}: {exc}; it and"
                        f" {len(entries) - applied - 1} after it cannot be restored"
                    )
                    break
                created_ns = record.created_ns
                applied += 1
                self._read(self._done + entry.size)
        return applied, created_ns

    def _read(self, done: int) -> None:
        self._done = done
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)

    def _problem(self, text: str) -> None:
        log.error("%s", text)
        self._problems.append(text)


def open_unsynced(path: Path) -> Index:
    """An index that nobody reads yet. Blocks."""
    index = Index.open(path, cache_size=0)
    # Where it has to last it is synced as a whole at the end.
    index.connection.execute("PRAGMA synchronous = OFF")
    return index


def apply_next(index: Index, data: bytes) -> Record:
    """Apply a journal object, which has to be the next one. Raises JournalDamaged. Blocks."""
    record, position = decode(data)
    current = index.position
    assert current is not None
    check_follows(record, current)
    index.apply_unseen(record.changeset, position)
    return record


def _move_into_place(work: Path, target: Path) -> None:
    sync(work)
    if target.exists():
        raise InstanceError(f"{target} exists already")
    work.rename(target)
    sync(target.parent)


def remove_index(path: Path) -> None:
    """An index, or what is there of one. Blocks."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
