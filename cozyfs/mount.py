"""A mount: builds the parts, joins them, runs them until it is unmounted, and ends in order.

What is left to do after the last request is in `cozyfs.ending`, what is done beside requests in
`cozyfs.chores`.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from cozyfs.chores import Chores
from cozyfs.control import serve_control
from cozyfs.ending import Ending
from cozyfs.errors import CozyError
from cozyfs.fuse.attributes import FOLLOWED_S, FOREVER_S, Presentation
from cozyfs.fuse.errors import errors
from cozyfs.fuse.views import OperationsWithViews
from cozyfs.joined import thumbnail_requests
from cozyfs.joined.app_view import AppView
from cozyfs.joined.beside import Beside
from cozyfs.joined.preview_requests import answer_preview
from cozyfs.joined.thumbnail_view import ThumbnailView
from cozyfs.joined.thumbnailer import Thumbnailer
from cozyfs.nurseries import background_tasks, first_of
from cozyfs.requests import HANDLERS
from cozyfs.side.apps import KONNECTORS, WEBAPPS, AppFiles
from cozyfs.side.note_images import NoteImages
from cozyfs.side.previews import Previews
from cozyfs.side.render import Renderer
from cozyfs.side.thumbnails import Thumbnails
from cozyfs.store.buckets import DEFAULT_PREFIX
from cozyfs.threads import Caller
from cozyfs.tree import (
    PastTree,
    ReaderTree,
    WriterTree,
    open_for_reading,
    open_for_writing,
    open_past,
)
from cozyfs.tuning import raise_read_ahead, tame_memory
from cozyfs.vfs.deletions import abort_uploads, unfinished_uploads
from cozyfs.vfs.filesystem import FileSystem
from cozyfs.vfs.objects import Objects
from cozyfs.vfs.version_view import VersionView
from cozyfs.vfs.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cozyfs.control import Send
    from cozyfs.index import Index
    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.values import Instance, VersionRules
    from cozyfs.vfs.views import View

log = logging.getLogger(__name__)

PROGRESS_PAUSE_S = 0.5
"""Between signs of life while a client waits for a flush."""

IDLE_TASKS = 16
"""Tasks that wait for requests; fewer would be ended and started anew by every burst."""

MOST_TASKS = 10_000
"""Requests answered at once. Far above what threads carry: requests that wait for the store,
however many in an outage, must not keep those from an answer that need only the index."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Everything a mount needs to know."""

    mountpoint: Path
    instance: Instance
    store: Callable[[], Store]  # opened after the fork to the background
    store_description: str  # for people, no credentials
    state: InstanceState  # locked
    bucket_prefix: str = DEFAULT_PREFIX  # of the buckets with apps and previews
    read_only: bool = False
    at_ns: int | None = None  # the tree as it was then; read-only
    fuse_options: frozenset[str] = frozenset()  # passed on to FUSE
    uid: int | None = None  # shown instead of the real ones
    gid: int | None = None
    umask: int | None = None
    default_permissions: bool = True
    write_buffer: int = 64 << 20  # bytes
    cache_size: int = 96 << 20  # bytes
    timeout_s: float = 60.0
    parallel: int = 32
    retention_s: float = 86400.0
    use_trash: bool = True
    make_thumbnails: bool = True
    trash_age_s: float = 30 * 86400.0  # 0: nothing is removed from the trash by itself
    journal_interval_s: float = 1.0
    refresh_s: float = 2.0  # of a read-only mount
    force_lease: bool = False
    accept_loss: bool = False
    version_rules: VersionRules | None = None  # None: a Cozy's
    progress: Callable[[int, int], None] | None = None  # bytes restored, of how many
    notice: Callable[[str], None] = log.warning  # for people who wait for the mount


def run_mount(options: MountOptions, on_ready: Callable[[], None]) -> None:
    """Mount, and block until unmounted. Raises CozyError when the mount cannot start;
    *on_ready* is called once it answers requests."""
    tame_memory()
    store = options.store()
    try:
        trio.run(_Mount(options, store, on_ready).run)
    except BaseExceptionGroup as group:
        # A refusal leaves through the nursery, which wraps it.
        refusal = group.subgroup(CozyError)
        if refusal is None:
            raise
        raise first_of(refusal) from group
    finally:
        store.close()


class _Mount:
    """One run. The nursery holds everything that goes on beside the requests."""

    def __init__(self, options: MountOptions, store: Store, on_ready: Callable[[], None]) -> None:
        self._options = options
        self._store = store
        self._on_ready = on_ready
        self._caller = Caller(parallel=options.parallel, timeout_s=options.timeout_s)
        self._started = time.time()
        self._writer: WriterTree | None = None
        self._reader: ReaderTree | None = None
        self._past: PastTree | None = None
        self._index: Index
        self._fs: FileSystem
        self._ending: Ending
        self._thumbnailer: Thumbnailer
        bucket, db_prefix = options.instance.bucket, options.instance.db_prefix
        renderer = Renderer(self._caller, options.state.directory)
        self._thumbnails = Thumbnails(store, self._caller, bucket, db_prefix, renderer)
        self._note_images = NoteImages(store, self._caller, bucket, db_prefix, renderer)
        self._previews = Previews(store, self._caller, options.bucket_prefix, renderer)

    async def run(self) -> None:
        options = self._options
        if options.read_only:
            await self._open_for_reading()
            try:
                await self._serve()
            finally:
                self._index.close()
            return
        async with trio.open_nursery() as keeper:  # of the lease, from before the start to the end
            self._writer = await open_for_writing(
                options.instance,
                self._store,
                options.state,
                options.mountpoint,
                keeper,
                journal_interval_s=options.journal_interval_s,
                retention_s=options.retention_s,
                force_lease=options.force_lease,
                accept_loss=options.accept_loss,
                progress=options.progress,
                notice=options.notice,
            )
            self._index = self._writer.index
            try:
                await self._serve()
            finally:
                keeper.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await self._writer.close()
                self._index.close()

    async def _open_for_reading(self) -> None:
        options = self._options
        instance, store, state = options.instance, self._store, options.state
        if options.at_ns is not None:
            self._past = await open_past(
                instance, store, state, options.at_ns, progress=options.progress
            )
            self._index = self._past.index
        else:
            self._reader = await open_for_reading(
                instance, store, state, progress=options.progress
            )
            self._index = self._reader.index

    async def _serve(self) -> None:
        options = self._options
        async with trio.open_nursery() as nursery:
            objects = Objects(
                self._store, self._caller, options.instance.bucket, options.instance.db_prefix
            )
            self._fs = fs = FileSystem(
                options.instance,
                self._index,
                objects,
                nursery,
                staging_dir=options.state.staging_dir,
                write_buffer=options.write_buffer,
                cache_size=options.cache_size,
                read_only=options.read_only,
                version_rules=options.version_rules,
                sync=self._sync_tree,
                confirm=self._confirm,
                use_trash=options.use_trash,
                snapshot=self._snapshot,
            )
            self._ending = ending = Ending(fs, self._writer)
            if self._writer is not None:
                nursery.start_soon(self._writer.writer.run)
                nursery.start_soon(self._writer.snapshots.run)
                nursery.start_soon(self._read_only_when_lost, self._writer)
            fs.start()
            if not options.read_only:
                left = await unfinished_uploads(objects, fs.objects_in_use)
                nursery.start_soon(abort_uploads, objects, left)
            remembered_s = FOLLOWED_S if self._reader is not None else FOREVER_S
            show = Presentation(options.uid, options.gid, options.umask, remembered_s)
            self._thumbnailer = Thumbnailer(fs, self._thumbnails, self._note_images, self._confirm)
            operations = OperationsWithViews(fs, show, Views(self._views()))
            # Where ACLs are on, the kernel checks permissions whatever else it was told.
            operations.enable_acl = options.default_permissions
            _init_fuse(operations, options)
            try:
                await nursery.start(
                    serve_control, options.state.control_path, self._answer_control
                )
                await nursery.start(ending.watch_signals)
                chores = Chores(fs, nursery, self._confirm)
                if self._writer is not None:
                    beside = Beside(self._thumbnails, self._note_images)
                    chores.of_writer(beside, options.retention_s, options.trash_age_s)
                    if options.make_thumbnails:
                        fs.on_new_content = self._thumbnailer.note
                        nursery.start_soon(self._thumbnailer.run)
                if self._reader is not None:
                    chores.of_reader(self._reader, options.refresh_s)
                nursery.start_soon(ending.end_on_signal)
                nursery.start_soon(self._tell_ready)
                await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MOST_TASKS)
            finally:
                # Unmounts if nobody has yet: without us every access would only fail.
                ending.unmounted = True
                pyfuse3.close(unmount=True)
            await fs.files.give_up_refused()
            await ending.store_everything()
            await ending.keep_the_rest()
            nursery.cancel_scope.cancel()

    def _views(self) -> list[View]:
        prefix = self._options.bucket_prefix
        apps, konnectors = (
            AppFiles(self._store, self._caller, prefix, kind) for kind in (WEBAPPS, KONNECTORS)
        )
        return [
            VersionView(self._fs),
            ThumbnailView(self._fs, self._thumbnails, self._note_images),
            AppView(b".cozy_apps", apps),
            AppView(b".cozy_konnectors", konnectors),
        ]

    async def _tell_ready(self) -> None:
        # The answer to a request of our own proves that the mount works, and that the kernel is
        # done with INIT, which would put its read-ahead back.
        await self._caller.disk(os.statvfs, self._options.mountpoint)
        raise_read_ahead(self._options.mountpoint)
        log.info("%s is mounted at %s", self._options.instance.domain, self._options.mountpoint)
        self._on_ready()

    async def _sync_tree(self) -> None:
        """fsync: the tree as it is now is in the bucket when this returns."""
        if self._writer is not None:
            await self._writer.flush(self._options.timeout_s)

    async def _confirm(self) -> None:
        if self._writer is not None:
            await self._writer.confirmed(self._options.timeout_s)

    async def _snapshot(self) -> None:
        """The journal is stored up to now, and after it a snapshot of the tree."""
        if self._writer is not None:
            await self._sync_tree()
            await self._writer.snapshots.write()

    async def _read_only_when_lost(self, tree: WriterTree) -> None:
        await tree.lease.lost.wait()
        if not self._ending.unmounted:
            self._fs.turn_read_only()

    # ---- the control socket

    async def _answer_control(self, request: dict[str, Any], send: Send) -> None:
        operation = str(request.get("op"))
        if operation == "status":
            await send(self._status())
        elif operation == "flush":
            await self._flush_with_progress(send)
        elif operation == "preview":
            await answer_preview(self._fs, self._previews, request, send)
        elif (answer := HANDLERS.get(operation)) is not None:
            await answer(self._fs, request, send)
        elif (answer_of_thumbnails := thumbnail_requests.HANDLERS.get(operation)) is not None:
            await answer_of_thumbnails(self._thumbnailer, request, send)
        else:
            raise CozyError("unknown request")

    def _status(self) -> dict[str, Any]:
        files, space = self._fs.files, self._fs.space()
        tree = self._writer or self._reader or self._past
        assert tree is not None
        return tree.status() | {
            "pid": os.getpid(),
            "instance": self._options.instance.domain,
            "store": self._options.store_description,
            "mountpoint": os.fspath(self._options.mountpoint),
            "read_only": self._options.read_only,
            "uptime_s": round(time.time() - self._started),
            "inodes": space.files,
            "used_bytes": space.used,
            "quota_bytes": self._fs.quota.limit or None,
            "quota_alert": self._fs.quota.alert,
            "open_files": files.open_files,
            "pending_files": files.pending,
            "failed_files": files.failed,
            "dirty_bytes": files.dirty_bytes,
            "uploads": files.storing.uploads,
            "write_buffer": {"used": files.pool.used, "limit": files.pool.limit},
            "cache": {
                "used": files.cache.used,
                "limit": files.cache.limit,
                "hits": files.cache.hits,
                "misses": files.cache.misses,
            },
            "thumbnails_to_make": self._thumbnailer.waiting,
            "objects_to_delete": self._index.pending_deletions(),
            "requests_retried": self._caller.retries,
            "errors": errors.total + files.storing.upload_errors,
        }

    async def _flush_with_progress(self, send: Send) -> None:
        async with background_tasks() as nursery:

            async def report() -> None:
                while True:
                    files = self._fs.files
                    await send({"pending": files.pending, "dirty_bytes": files.dirty_bytes})
                    await trio.sleep(PROGRESS_PAUSE_S)

            nursery.start_soon(report)
            await self._fs.files.flush_all()
            await self._sync_tree()
        await send({"done": True})


def _init_fuse(operations: OperationsWithViews, options: MountOptions) -> None:
    fuse_options = set(options.fuse_options)
    if not any(option.startswith("fsname=") for option in fuse_options):
        fuse_options.add(f"fsname=cozyfs:{options.instance.domain}")
    if not any(option.startswith("subtype=") for option in fuse_options):
        fuse_options.add("subtype=cozyfs")
    if options.default_permissions:
        fuse_options.add("default_permissions")
    if options.read_only:
        fuse_options.add("ro")
    try:
        pyfuse3.init(operations, os.fspath(options.mountpoint), fuse_options)
    except RuntimeError as exc:
        raise CozyError(
            f"{options.mountpoint} cannot be mounted: FUSE refused (see the lines above)"
        ) from exc
