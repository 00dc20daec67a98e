"""An export: the tree as the journal has it now, and the archive that is made of it.

The tree is restored into a work folder of the instance's state on this machine, from snapshot and
journal in the bucket alone: neither a lease nor the lock of a mount is needed, and whoever writes
meanwhile changes nothing of it. The folder stays until the archive is whole, so that an export
that was cut goes on with the very same tree::

    <state of the instance>/exports/<destination, hashed>/
        lock            held while this export runs
        tree.db         the tree
        side.jsonl      what is beside the tree, once its turn has come
        side.jsonl.gone   what of it was gone when it was to be fetched
        progress.json   how far the archive is safe
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cozyfs.errors import (
    ArchiveError,
    BucketNotFound,
    CorruptObject,
    InstanceError,
    ObjectNotFound,
)
from cozyfs.index import Index
from cozyfs.moving import archive, side
from cozyfs.moving.apps import Apps
from cozyfs.moving.source import (
    instance_item,
    restored_tree,
    tree_items,
)
from cozyfs.moving.targets import BucketTarget, FileTarget, Record, StreamTarget, Target
from cozyfs.store.buckets import side_bucket
from cozyfs.store.keys import new_doc_id
from cozyfs.vfs.objects import Objects

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from cozyfs.moving.archive import Piece
    from cozyfs.store.base import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

log = logging.getLogger(__name__)

FOLDER = "exports"

_LOST = (ObjectNotFound, BucketNotFound, CorruptObject, ArchiveError)
"""Something is gone: a content of the tree, or what was written of the archive."""

OLDEST_S = 20 * 3600.0
"""An unfinished export is gone on with only while the contents of its tree are sure to be kept:
less than the retention of deleted ones (a day, unless the mount was told otherwise)."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was made."""

    id: str
    files: int
    versions: int
    bytes: int  # of contents, versions among them
    resumed: bool


@dataclass(frozen=True, slots=True)
class Destination:
    """One of: *bucket* (the exports bucket), *path*, *stream*."""

    bucket: str = ""
    path: Path | None = None
    stream: BinaryIO | None = None

    def __str__(self) -> str:
        return os.fspath(self.path) if self.path is not None else "the exports of the store"


def exports_key(domain: str, export_id: str) -> str:
    return f"{domain}/{export_id}"


def to_bucket(bucket_prefix: str) -> Destination:
    return Destination(bucket=side_bucket(bucket_prefix, "exports"))


async def export(
    instance: Instance,
    store: Store,
    caller: Caller,
    state_directory: Path,
    destination: Destination,
    *,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Make the archive. An unfinished one to the same *destination* is gone on with, unless
    *restart*. *progress* hears of bytes of content done, and of how many there are.

    Raises InstanceError when another export of the instance runs here, or it has no tree;
    JournalDamaged, ArchiveError, StoreError, NoSpace; what was made stays to be gone on with."""
    root = state_directory / FOLDER
    work = root / hashlib.sha256(str(destination).encode()).hexdigest()[:16]
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in root.iterdir():
        if other != work:
            await _clear_away(instance, store, caller, other)
    with _locked(work, instance.domain):
        made = await _Export(instance, store, caller, work, destination).run(
            restart=restart, progress=progress
        )
        shutil.rmtree(work)
    return made


async def _clear_away(instance: Instance, store: Store, caller: Caller, work: Path) -> None:
    """What was left of an export that is too old to go on."""
    with contextlib.suppress(InstanceError), _locked(work, instance.domain):
        export = _Export(instance, store, caller, work, Destination())
        record = Record.load(work)
        if record is None or export.is_old(record):
            if record is not None:
                await export.give_up(record)
            shutil.rmtree(work)


@contextlib.contextmanager
def _locked(work: Path, domain: str) -> Iterator[None]:
    fd = os.open(work / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise InstanceError(
                f"{domain} is being exported by another process of this machine"
            ) from exc
        yield
    finally:
        os.close(fd)


class _Export:
    def __init__(
        self,
        instance: Instance,
        store: Store,
        caller: Caller,
        work: Path,
        destination: Destination,
    ) -> None:
        self._instance = instance
        self._store = store
        self._caller = caller
        self._work = work
        self._destination = destination
        self._objects = Objects(store, caller, instance.bucket, instance.db_prefix)

    async def run(self, *, restart: bool, progress: Callable[[int, int], None] | None) -> Exported:
        record = Record.load(self._work)
        if record is not None and (restart or not self._can_go_on(record)):
            await self.give_up(record)
            record = None
        if record is not None:
            try:
                return await self._make(record, progress)
            except _LOST as exc:
                log.info("what was exported before is of no use (%s): it begins anew", exc)
                await self.give_up(record)
        record = await self._begin()
        try:
            return await self._make(record, progress)
        except _LOST:
            # To go on would end the same: whatever mends it, the tree is another one then.
            await self.give_up(record)
            self._clear()
            raise

    async def _make(self, record: Record, progress: Callable[[int, int], None] | None) -> Exported:
        resumed = record.offset > 0
        with Index.open(self._work / "tree.db") as index:
            target = self._target(record, self._destination)
            try:
                await target.open()
                made = await self._write(index, record, target, progress)
                await target.finish()
            finally:
                await target.close()
        return Exported(record.id, *made, resumed)

    def is_old(self, record: Record) -> bool:
        """Contents of its tree may be gone by now."""
        age = time.time() - datetime.fromisoformat(record.created_at).timestamp()
        return not 0 <= age < OLDEST_S

    def _can_go_on(self, record: Record) -> bool:
        return (
            record.store == self._store.description
            and self._destination.stream is None
            and not self.is_old(record)
            and (self._work / "tree.db").exists()
        )

    async def give_up(self, record: Record) -> None:
        """Nobody goes on with it."""
        if record.upload_id and record.store != self._store.description:
            return  # of a store that is not at hand
        if record.upload_id or record.path:
            path = Path(record.path) if record.path else None
            await self._target(record, Destination(bucket=record.bucket, path=path)).discard()

    async def _begin(self) -> Record:
        self._clear()
        tree = self._work / "tree.db"
        await restored_tree(self._instance, self._store, tree)
        now = datetime.now(UTC)
        record = Record(
            id=new_doc_id(int(now.timestamp() * 1e9)),
            store=self._store.description,
            path=os.fspath(self._destination.path or ""),
            bucket=self._destination.bucket,
            created_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        await self._caller.disk(record.save, self._work)
        return record

    def _target(self, record: Record, destination: Destination) -> Target:
        if destination.stream is not None:
            return StreamTarget(destination.stream, self._caller)
        if destination.path is not None:
            return FileTarget(destination.path, self._caller, record, self._work)
        key = exports_key(self._instance.domain, record.id)
        return BucketTarget(self._store, self._caller, destination.bucket, key, record, self._work)

    async def _write(
        self,
        index: Index,
        record: Record,
        target: Target,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[int, int, int]:
        usage = index.usage
        done = 0

        def more(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(done, max(done, usage.disk_bytes))

        await archive.packed(
            self._pieces(index, record, record.offset),
            target.add,
            self._caller,
            skip=record.offset,
            progress=more,
        )
        return usage.files, usage.versions, usage.disk_bytes

    async def _pieces(
        self, index: Index, record: Record, safe: int
    ) -> AsyncGenerator[Piece, None]:
        """*safe*: bytes of tar that are written already."""
        at = 0
        first = instance_item(index, self._instance, record.id, record.created_at)
        for item in chain([first], tree_items(index, self._objects)):
            for piece in archive.pieces(item):
                at += archive.size(piece)
                yield piece
        path = self._work / "side.jsonl"
        if not path.exists():
            apps = Apps(self._store, self._caller, self._instance)
            await side.write_list(index, self._objects, apps, path)
        async with contextlib.aclosing(side.items(self._objects, path, at=at, safe=safe)) as items:
            async for item in items:
                for piece in archive.pieces(item):
                    yield piece
        yield archive.end()

    def _clear(self) -> None:
        for path in self._work.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
