"""What happened to a file, or to a directory and its entries, as far back as the journal goes.

The oldest snapshot that is left is made a tree again, and the journal applied to it, object by
object: so every path is the one of its time, and files are found that are gone by now, by the name
they had. The price is that of a restore, whatever is asked for; memory does not depend on it.

Followed are the file that is asked for by its number, from the start, and each file that has the
path at some moment, from then on and wherever it moves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.errors import JournalDamaged, NotADirectory, NotFound, ObjectNotFound
from cozyfs.index.journal import decode
from cozyfs.journal.follow import check_follows
from cozyfs.journal.happened import Event, events_of, state_of, touched_by
from cozyfs.journal.past import Past
from cozyfs.journal.restore import open_unsynced, remove_index

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.index import Index
    from cozyfs.journal.happened import Touched
    from cozyfs.journal.objects import Entry, JournalObjects
    from cozyfs.values import Ino


class Logged(NamedTuple):
    """What one journal object did to what is followed, in no order but that of the inodes."""

    moment_ns: int  # by the writer's clock
    place: tuple[int, int]  # epoch and sequence
    events: tuple[Event, ...]


Tell = Callable[[Logged | int], Awaitable[None]]


async def log_of(
    objects: JournalObjects, path: bytes, ino: Ino | None, scratch: Path, tell: Tell
) -> None:
    """Tell of the journal objects that concern *path* (from the root of the instance) or the file
    *ino*, the oldest first; before them, once, the moment (nanoseconds) that the log begins with.
    *scratch* is where a tree may be meanwhile. Raises InstanceError, JournalDamaged (what came
    before it was told), StoreError, NoSpace."""
    past = await Past.look(objects)
    disk = objects.caller.disk
    await disk(remove_index, scratch)
    try:
        base = await past.fetch_first_good(past.snapshots, scratch)
        await tell(base.moment_ns)
        index = await disk(open_unsynced, scratch)
        try:
            followed = await disk(_Followed, index, path, ino)
            await _read(objects, past.after(base), followed, tell)
        finally:
            with trio.CancelScope(shield=True):
                await disk(index.close)
    finally:
        with trio.CancelScope(shield=True):
            await disk(remove_index, scratch)


async def _read(
    objects: JournalObjects, entries: list[Entry], followed: _Followed, tell: Tell
) -> None:
    async with objects.contents(entries) as contents:
        async for entry, data in contents:
            try:
                if isinstance(data, Exception):
                    raise data
                logged = await objects.caller.disk(followed.apply, data)
            except (JournalDamaged, ObjectNotFound) as exc:
                raise JournalDamaged(
                    f"journal object {entry.epoch}-{entry.sequence}: {exc}; what it and those"
                    " after it say is not known"
                ) from exc
            if logged.events:
                await tell(logged)


class _Followed:
    """*index* is at the start; used in one thread at a time."""

    def __init__(self, index: Index, path: bytes, ino: Ino | None) -> None:
        self._index = index
        self._path = path
        self._name = path.rstrip(b"/").rpartition(b"/")[2]
        self._inos: set[Ino] = set() if ino is None else {ino}
        self._resolve()

    def apply(self, data: bytes) -> Logged:
        record, position = decode(data)
        index = self._index
        current = index.position
        assert current is not None
        check_follows(record, current)
        touched = touched_by(record.changeset)
        concerned = self._concerned(touched)
        before = {ino: state_of(index, ino, touched) for ino in concerned}
        index.apply_unseen(record.changeset, position)
        if touched.by_name:
            self._resolve()
        events: list[Event] = []
        for ino in sorted(concerned):
            after = state_of(index, ino, touched)
            if self._is_followed(ino, before[ino].names | after.names):
                events += events_of(index, ino, before[ino], after, touched)
        return Logged(record.created_ns, (record.epoch, record.sequence), tuple(events))

    def _resolve(self) -> None:
        with contextlib.suppress(NotFound, NotADirectory):
            self._inos.add(self._index.resolve(self._path).ino)

    def _concerned(self, touched: Touched) -> set[Ino]:
        """Who may be followed, before the change tells who is."""
        concerned = touched.inos & self._inos
        for (parent, name), inos in touched.by_name.items():
            if name == self._name or parent in self._inos:
                concerned |= inos
        # The number of a version's file is not in its row.
        documents = [
            row.new.get("doc_id") or row.old["doc_id"]
            for row in touched.versions
            if row.op != "UPDATE"
        ]
        if documents:
            found = self._index.with_doc_ids(documents).values()
            concerned |= {inode.ino for inode in found if inode.ino in self._inos}
        for ino in touched.inos - concerned:
            with contextlib.suppress(NotFound):
                if any(parent in self._inos for parent, _ in self._index.entries_of(ino)):
                    concerned.add(ino)
        return concerned

    def _is_followed(self, ino: Ino, names: frozenset[tuple[Ino, bytes]]) -> bool:
        return ino in self._inos or any(parent in self._inos for parent, _ in names)
