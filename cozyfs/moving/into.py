"""An import or a copy as a whole: whether it may be, the tree it goes into, how it ends.

The target has to be empty, or to have a note in its bucket that an import of the very same archive
was cut there. The note is written before anything else and deleted last.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from cozyfs import tree
from cozyfs.errors import ArchiveError, InstanceError, ObjectNotFound
from cozyfs.index import Index
from cozyfs.instances import modify
from cozyfs.moving import side
from cozyfs.moving.apps import Apps
from cozyfs.moving.importing import Importer, Report
from cozyfs.moving.source import (
    SETTINGS,
    instance_item,
    restored_tree,
    tree_items,
)
from cozyfs.nurseries import background_tasks, first_of
from cozyfs.values import ROOT_INO, TRASH_INO
from cozyfs.vfs.deletions import abort_uploads, unfinished_uploads
from cozyfs.vfs.objects import Objects

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from cozyfs.moving.items import Item
    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.threads import Caller
    from cozyfs.tree import WriterTree
    from cozyfs.values import Instance

NOTE = ".cozyfs/import.json"

INTERVAL_S = 2.0
RETENTION_S = 86400.0
FLUSH_S = 300.0
CONFIRM_S = 60.0


class Source(Protocol):
    """An archive, or another instance."""

    certified: bool

    def items(self) -> AsyncGenerator[Item, None]: ...


async def import_into(
    instance: Instance,
    store: Store,
    caller: Caller,
    state: InstanceState,
    source: Source,
    *,
    force_lease: bool = False,
    notice: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Bring *source* into *instance*, whose *state* this process has locked. *progress* hears of
    bytes of content done, and of how many there are.

    Raises ArchiveError, InstanceError for a target that is not empty or whose quota is too small
    (both before anything is changed), QuotaExceeded when the archive holds more than it says,
    LeaseHeld, LeaseLost, StoreError, NoSpace."""
    async with contextlib.aclosing(source.items()) as items:
        first = await anext(items)
        identity, total = _identity(first), _total(first)
        if instance.quota and total > instance.quota:
            raise InstanceError(
                f"{instance.domain} may hold {instance.quota} bytes, the archive has {total}"
            )
        async with _writing(instance, store, state, force_lease, notice) as opened:
            objects = Objects(store, caller, instance.bucket, instance.db_prefix)
            await _begin(instance, objects, opened.index, identity)
            if settings := _settings(first, instance):
                await caller.store(partial(modify, store, instance, **settings))
            done = 0

            def more(size: int) -> None:
                nonlocal done
                done += size
                if progress is not None:
                    progress(done, max(done, total))

            importer = Importer(
                opened.index,
                objects,
                lambda: opened.flush(FLUSH_S),
                lambda: opened.confirmed(CONFIRM_S),
                Apps(store, caller, instance).put,
                keep_certified=source.certified,
                quota=instance.quota,
                progress=more,
            )
            report = await importer.run(items)
            report.left_out = dict(first.document.get("left_out") or {})
            await opened.flush(FLUSH_S)
            if not report.problems:
                await caller.store(store.delete, instance.bucket, _note_key(objects))
    return report


def _identity(first: Item) -> str:
    return str(first.document.get("id"))


def _total(first: Item) -> int:
    try:
        return int(first.document["totals"]["bytes"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ArchiveError("the archive does not say how much is in it") from exc


def _settings(first: Item, instance: Instance) -> dict[str, int | float]:
    """What the target takes over of the settings of the source: those that it has not its own.
    By the defaults of another machine, the trash and versions that come in might be cleaned."""
    found = {name: first.document.get(name) for name in SETTINGS}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float)
        and 0 <= value < 2**53
        and getattr(instance, name) is None
    }


@contextlib.asynccontextmanager
async def _writing(
    instance: Instance,
    store: Store,
    state: InstanceState,
    force_lease: bool,
    notice: Callable[[str], None],
) -> AsyncIterator[WriterTree]:
    try:
        async with background_tasks() as keeping:
            opened = await tree.open_for_writing(
                instance,
                store,
                state,
                Path("/import"),  # where others are told that the lease is
                keeping,
                journal_interval_s=INTERVAL_S,
                retention_s=RETENTION_S,
                force_lease=force_lease,
                notice=notice,
            )
            try:
                async with background_tasks() as nursery:
                    nursery.start_soon(opened.writer.run)
                    nursery.start_soon(opened.snapshots.run)
                    yield opened
            finally:
                keeping.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await opened.close()
                opened.index.close()
    except BaseExceptionGroup as group:
        raise first_of(group) from None


def _note_key(objects: Objects) -> str:
    return f"{objects.db_prefix}/{NOTE}"


async def _begin(instance: Instance, objects: Objects, index: Index, identity: str) -> None:
    """The target is ours to fill. Raises InstanceError."""
    store, caller, key = objects.store, objects.caller, _note_key(objects)
    try:
        note = json.loads(await caller.store(store.get, objects.bucket, key))
    except (ObjectNotFound, ValueError):
        note = {}
    if note.get("archive") != identity:
        if not _is_empty(index):
            raise InstanceError(
                f"{instance.domain} is not empty: import into a new instance"
                + (", or the archive whose import was cut there" if note else "")
            )
        note = {"archive": identity, "began_at": datetime.now(UTC).isoformat(timespec="seconds")}
        body = json.dumps(note).encode()
        await caller.store(store.put, objects.bucket, key, body, content_type="application/json")
    await abort_uploads(objects, await unfinished_uploads(objects, frozenset()))


def _is_empty(index: Index) -> bool:
    names = [inode.ino for _, inode in index.children(ROOT_INO, b"", 2)]
    return names == [TRASH_INO] and not index.has_children(TRASH_INO)


class InstanceSource:
    """Another instance, as its journal has it when :meth:`items` begins. Its tree is restored
    into a folder below *scratch*, which goes at the end."""

    certified = True

    def __init__(self, instance: Instance, store: Store, caller: Caller, scratch: Path) -> None:
        self._instance = instance
        self._store = store
        self._caller = caller
        self._scratch = scratch

    async def items(self) -> AsyncGenerator[Item, None]:
        """Raises InstanceError, JournalDamaged, StoreError."""
        instance = self._instance
        objects = Objects(self._store, self._caller, instance.bucket, instance.db_prefix)
        folder = Path(tempfile.mkdtemp(prefix="copy-", dir=self._scratch))
        try:
            path = folder / "tree.db"
            await restored_tree(instance, self._store, path)
            with Index.open(path) as index:
                identity = f"{self._store.description} {instance.bucket}/{instance.db_prefix}"
                yield instance_item(index, instance, identity, "")
                for item in tree_items(index, objects):
                    yield item
                listed = folder / "side.jsonl"
                apps = Apps(self._store, self._caller, instance)
                await side.write_list(index, objects, apps, listed)
                for item in side.listed(objects, listed):
                    yield item
        finally:
            shutil.rmtree(folder, ignore_errors=True)
