"""The tree as it was at a moment: a snapshot from before it, and the journal up to it.

The moment of a journal object is that of its making, by its writer's clock; of a snapshot, that of
the journal object it was made after, or its own where that one is gone. Moments never go back
along the journal: where the clock of a later writer does, its objects count as made at the latest
moment before them. So the tree of a moment is that of the last journal object made until then.

How far back that leads: to the oldest snapshot that is left, and not to before the moment when the
last object was let go of those that are deleted by now (`Index.contents_since_ns`): from there on
every content is in the store as well. Pruning (`cozyfs.journal.snapshots`) and deletion
(`cozyfs.vfs.deletions`) both wait for the retention of the writer, so that this is never later
than the retention ago.

Nothing in the bucket is changed.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs import moments
from cozyfs.errors import InstanceError, JournalDamaged, MomentGone, ObjectNotFound
from cozyfs.index import journal as form
from cozyfs.index.changeset import rows_in
from cozyfs.index.deletions import CONTENTS_SINCE
from cozyfs.index.snapshot import START_SIZE, parse_start
from cozyfs.journal.chain import history, is_void
from cozyfs.journal.follow import check_follows
from cozyfs.journal.restore import open_unsynced, remove_index
from cozyfs.journal.snapshots import fetch, verify

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.index import Index
    from cozyfs.journal.objects import Entry, JournalObjects
    from cozyfs.journal.restore import Progress

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """A snapshot and its moment."""

    entry: Entry
    moment_ns: int


@dataclass(frozen=True, slots=True)
class RestoredAt:
    """The tree that was made."""

    moment_ns: int  # of the newest journal object (or the snapshot) in it
    position: form.Position
    snapshot: tuple[int, int]  # epoch and sequence of the one that was used
    applied: int  # journal objects after it


class Past:
    """What the bucket has of the past, as it was listed by :meth:`look`."""

    def __init__(
        self, objects: JournalObjects, snapshots: list[Known], journal: list[Entry]
    ) -> None:
        self.objects = objects
        self.snapshots = snapshots
        """Those that count, by place and so by moment; never empty."""
        self.journal = journal

    @classmethod
    async def look(cls, objects: JournalObjects) -> Past:
        """Raises InstanceError where there is no tree, JournalDamaged, StoreError."""
        snapshots, journal = await objects.snapshots(), await objects.journal_after()
        if not snapshots and not journal:
            raise InstanceError("the instance has no tree yet: mount it for writing once")
        known = await _with_moments(
            objects, [s for s in snapshots if not is_void(*s.place, journal)]
        )
        if not known:
            raise JournalDamaged("there is no snapshot of the tree that can be read")
        return cls(objects, known, history(journal))

    async def oldest_ns(self, scratch: Path) -> int:
        """The earliest moment whose tree is there with all contents. *scratch* is where a file
        may be. Reads a good deal of the bucket. Raises JournalDamaged, StoreError, NoSpace."""
        return max(await self._oldest_tree_ns(), await self._contents_since_ns(scratch))

    async def restore(
        self, at_ns: int, target: Path, progress: Progress | None = None
    ) -> RestoredAt:
        """Make the index *target* as the tree was at *at_ns*. Not synced to disk.

        Raises MomentGone, which names the oldest moment there is; JournalDamaged where what leads
        to the moment is damaged; StoreError, NoSpace. Nothing is left at *target* then, nor
        beside it."""
        scratch = target.with_name(target.name + ".newest")
        try:
            if at_ns < self.snapshots[0].moment_ns:
                raise MomentGone(_refusal(at_ns, await self.oldest_ns(scratch)))
            restored, since_ns = await self._restore(at_ns, target, scratch, progress)
            if at_ns < since_ns:
                oldest_ns = max(since_ns, await self._oldest_tree_ns())
                raise MomentGone(_refusal(at_ns, oldest_ns))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.objects.caller.disk(remove_index, target)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self.objects.caller.disk(remove_index, scratch)
        return restored

    async def fetch_first_good(
        self, candidates: list[Known], target: Path, progress: Progress | None = None
    ) -> Known:
        """An index at *target* made from the first of *candidates* that is whole."""
        problems: list[str] = []
        for known in candidates:
            entry = known.entry
            total = entry.size + sum(e.size for e in self.journal if e.place > entry.place)
            try:
                info = await fetch(
                    self.objects,
                    entry,
                    target,
                    None if progress is None else functools.partial(_report, progress, total),
                )
            except (JournalDamaged, ObjectNotFound) as exc:
                problems.append(f"snapshot {entry.epoch}-{entry.sequence}: {exc}")
                log.error("%s", problems[-1])
                continue
            if info.position.place == entry.place:
                return known
            problems.append(f"snapshot {entry.epoch}-{entry.sequence} has another's name")
            await self.objects.caller.disk(remove_index, target)
        raise JournalDamaged(
            "the tree of that moment cannot be restored: "
            + ("; ".join(problems) or "there is no snapshot from before it")
        )

    def after(self, known: Known) -> list[Entry]:
        """The journal after a snapshot."""
        return [entry for entry in self.journal if entry.place > known.entry.place]

    # ---- inside

    async def _restore(
        self, at_ns: int, target: Path, scratch: Path, progress: Progress | None
    ) -> tuple[RestoredAt, int]:
        """The tree, and since when contents are complete."""
        before = [known for known in self.snapshots if known.moment_ns <= at_ns]
        base = await self.fetch_first_good(before[::-1], target, progress)
        after = self.after(base)
        disk = self.objects.caller.disk
        index = await disk(open_unsynced, target)
        try:
            applied, moment_ns = await self._replay(index, after, base.moment_ns, at_ns)
            position, since_ns = index.position, index.contents_since_ns
            assert position is not None
        finally:
            await disk(index.close)
        if base == self.snapshots[-1]:
            since_ns = await self._since_in(after[applied:], since_ns)
        else:
            since_ns = await self._contents_since_ns(scratch)
        return RestoredAt(moment_ns, position, base.entry.place, applied), since_ns

    async def _replay(
        self, index: Index, entries: list[Entry], moment_ns: int, at_ns: int
    ) -> tuple[int, int]:
        """Apply what was made until *at_ns*: how many, and the moment of the last."""
        applied = 0
        async with self.objects.contents(entries) as contents:
            async for entry, data in contents:
                try:
                    if isinstance(data, Exception):
                        raise data
                    made_ns = await self.objects.caller.disk(
                        _apply_until, index, data, moment_ns, at_ns
                    )
                except (JournalDamaged, ObjectNotFound) as exc:
                    raise JournalDamaged(
                        f"journal object {entry.epoch}-{entry.sequence}: {exc}; what changed after"
                        f" {moments.to_iso(moment_ns)} is not known"
                    ) from exc
                if made_ns is None:
                    break
                moment_ns = made_ns
                applied += 1
        return applied, moment_ns

    async def _oldest_tree_ns(self) -> int:
        """The moment of the oldest snapshot that is whole."""
        for known in self.snapshots:
            try:
                await verify(self.objects, known.entry)
            except (JournalDamaged, ObjectNotFound) as exc:
                log.error("snapshot %d-%d: %s", *known.entry.place, exc)
            else:
                return known.moment_ns
        raise JournalDamaged("there is no snapshot of the tree that can be read")

    async def _contents_since_ns(self, scratch: Path) -> int:
        """As the tree has it that is the newest by now."""
        disk = self.objects.caller.disk
        try:
            newest = await self.fetch_first_good(self.snapshots[::-1], scratch)
            index = await disk(open_unsynced, scratch)
            since_ns = index.contents_since_ns
            await disk(index.close)
        finally:
            with trio.CancelScope(shield=True):
                await disk(remove_index, scratch)
        return await self._since_in(self.after(newest), since_ns)

    async def _since_in(self, entries: list[Entry], since_ns: int) -> int:
        """After these journal objects, of which what is damaged tells nothing."""
        async with self.objects.contents(entries) as contents:
            async for entry, data in contents:
                try:
                    if isinstance(data, Exception):
                        raise data
                    found = await self.objects.caller.disk(_since_of, data)
                except (JournalDamaged, ObjectNotFound) as exc:
                    log.error("journal object %d-%d: %s", *entry.place, exc)
                    continue
                since_ns = max(since_ns, found)
        return since_ns


async def _with_moments(objects: JournalObjects, entries: list[Entry]) -> list[Known]:
    made: dict[int, int] = {}

    async def read(number: int, entry: Entry) -> None:
        try:
            made[number] = await objects.caller.store(_made_ns, objects, entry)
        except (JournalDamaged, ObjectNotFound) as exc:
            log.error("snapshot %d-%d: %s", *entry.place, exc)

    async with trio.open_nursery() as nursery:
        for number, entry in enumerate(entries):
            nursery.start_soon(read, number, entry)
    known: list[Known] = []
    latest_ns = 0
    for number, entry in enumerate(entries):
        if number in made:
            latest_ns = max(latest_ns, made[number])
            known.append(Known(entry, latest_ns))
    return known


def _made_ns(objects: JournalObjects, entry: Entry) -> int:
    """Of a snapshot; in a thread."""
    store, bucket = objects.store, objects.bucket
    try:
        key = objects.journal_key(*entry.place)
        return form.created_ns(store.get(bucket, key, 0, form.START_SIZE))
    except (ObjectNotFound, JournalDamaged):
        return parse_start(store.get(bucket, entry.key, 0, START_SIZE)).created_ns


def _apply_until(index: Index, data: bytes, moment_ns: int, at_ns: int) -> int | None:
    """Apply the next journal object and return its moment; None: it was made after *at_ns*."""
    record, position = form.decode(data)
    current = index.position
    assert current is not None
    check_follows(record, current)  # also of one that is not wanted: is any missing before it?
    made_ns = max(moment_ns, record.created_ns)
    if made_ns > at_ns:
        return None
    index.apply_unseen(record.changeset, position)
    return made_ns


def _since_of(data: bytes) -> int:
    record, _ = form.decode(data)
    return max(
        (
            int(row.new["value"])
            for row in rows_in(record.changeset, ("facts",))
            if CONTENTS_SINCE in (row.new.get("name"), row.old.get("name")) and row.new
        ),
        default=0,
    )


def _report(progress: Progress, total: int, done: int) -> None:
    progress(done, total)


def _refusal(at_ns: int, oldest_ns: int) -> str:
    return (
        f"the tree of {moments.to_text(at_ns)} is not in the store; the oldest moment that can be"
        f" mounted is {moments.to_text(oldest_ns)}"
    )
