"""A mount: builds the parts, joins them, runs them until it is unmounted, and ends in order.

The order of the end is what makes it safe: first everything that was written goes into the
store while requests are still answered, then the kernel lets go, then what came in between is
stored too, then the index is closed. A signal starts that; a second one gives up waiting, and
the state directory keeps what is left for the next mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from cozyfs.control import serve_control
from cozyfs.errors import CozyError, LeaseLost, UploadFailed
from cozyfs.fuse.attributes import FOLLOWED_S, FOREVER_S, Presentation
from cozyfs.fuse.errors import errors
from cozyfs.fuse.invalidation import tell_kernel, tell_news
from cozyfs.fuse.views import OperationsWithViews
from cozyfs.index import NO_CHANGES
from cozyfs.joined import thumbnail_requests
from cozyfs.joined.app_view import AppView
from cozyfs.joined.preview_requests import answer_preview
from cozyfs.joined.thumbnail_view import ThumbnailView
from cozyfs.joined.thumbnailer import Thumbnailer
from cozyfs.nurseries import background_tasks, first_of
from cozyfs.requests import HANDLERS
from cozyfs.rereading import reread_now_and_then
from cozyfs.side.apps import KONNECTORS, WEBAPPS, AppFiles
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
from cozyfs.vfs.deletions import abort_uploads, delete_due, unfinished_uploads
from cozyfs.vfs.filesystem import FileSystem
from cozyfs.vfs.objects import Objects
from cozyfs.vfs.trashcan import empty
from cozyfs.vfs.version_view import VersionView
from cozyfs.vfs.views import Views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.control import Send
    from cozyfs.index import Index
    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.values import Instance, VersionRules
    from cozyfs.vfs.views import View

log = logging.getLogger(__name__)

RETRY_PAUSE_S = 5.0
"""Between attempts to store what could not be stored."""

DELETION_PAUSE_S = 60.0
"""Between looks at the deletion queue."""

CLEANING_PAUSE_S = 3600.0
"""Between looks for what has been in the trash for too long."""

NEWS_PAUSE_S = 0.05
"""Between two messages to the kernel of what changed by itself, each a trip to a thread: `rm -r`
would cost one for each file."""

PROGRESS_PAUSE_S = 0.5

IDLE_TASKS = 16
"""Tasks that wait for requests; fewer would be ended and started anew by every burst."""

MOST_TASKS = 10_000
"""Requests answered at once. Far above what threads carry: requests that wait for the store,
however many in an outage, must not keep those from an answer that need only the index."""

_M_ARENA_MAX = -8  # of mallopt(3)

READ_AHEAD_KIB = 1024
"""What the kernel asks for at once of a sequential reader, where we may set it."""


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
    _tame_memory()
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
        self._signals = 0
        self._first_signal = trio.Event()
        self._waits: set[trio.CancelScope] = set()  # cancelled when waiting is given up
        self._gave_up = False
        self._unmounted = False
        self._writer: WriterTree | None = None
        self._reader: ReaderTree | None = None
        self._past: PastTree | None = None
        self._index: Index
        self._fs: FileSystem
        self._thumbnailer: Thumbnailer
        renderer = Renderer(self._caller, options.state.directory)
        self._thumbnails = Thumbnails(
            store, self._caller, options.instance.bucket, options.instance.db_prefix, renderer
        )
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
            self._thumbnailer = Thumbnailer(fs, self._thumbnails, self._confirm)
            operations = OperationsWithViews(fs, show, Views(self._views()))
            # Where ACLs are on, the kernel checks permissions whatever else it was told.
            operations.enable_acl = options.default_permissions
            _init_fuse(operations, options)
            try:
                await nursery.start(
                    serve_control, options.state.control_path, self._answer_control
                )
                await nursery.start(self._watch_signals)
                if not options.read_only:
                    nursery.start_soon(self._again, RETRY_PAUSE_S, fs.files.retry_failed)
                    nursery.start_soon(self._again, self._deletion_pause, self._delete_due)
                    if options.make_thumbnails:
                        fs.on_new_content = self._thumbnailer.note
                        nursery.start_soon(self._thumbnailer.run)
                    fs.news.listen()
                    nursery.start_soon(self._again, NEWS_PAUSE_S, self._tell_news)
                    if options.trash_age_s:
                        pause_s = max(min(CLEANING_PAUSE_S, options.trash_age_s), 1.0)
                        nursery.start_soon(self._again, pause_s, self._clean_trash)
                if self._reader is not None:
                    nursery.start_soon(self._again, options.refresh_s, self._follow)
                nursery.start_soon(reread_now_and_then, fs)
                nursery.start_soon(self._end_on_signal)
                nursery.start_soon(self._tell_ready)
                await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MOST_TASKS)
            finally:
                # Unmounts if nobody has yet: without us every access would only fail.
                self._unmounted = True
                pyfuse3.close(unmount=True)
            await fs.files.give_up_refused()
            await self._store_everything()
            await self._keep_the_rest()
            nursery.cancel_scope.cancel()

    def _views(self) -> list[View]:
        prefix = self._options.bucket_prefix
        apps, konnectors = (
            AppFiles(self._store, self._caller, prefix, kind) for kind in (WEBAPPS, KONNECTORS)
        )
        return [
            VersionView(self._fs),
            ThumbnailView(self._fs, self._thumbnails),
            AppView(b".cozy_apps", apps),
            AppView(b".cozy_konnectors", konnectors),
        ]

    @property
    def _deletion_pause(self) -> float:
        return max(min(DELETION_PAUSE_S, self._options.retention_s), 1.0)

    async def _tell_ready(self) -> None:
        # The answer to a request of our own proves that the mount works, and that the kernel is
        # done with INIT, which would put its read-ahead back.
        await self._caller.disk(os.statvfs, self._options.mountpoint)
        _raise_read_ahead(self._options.mountpoint)
        log.info("%s is mounted at %s", self._options.instance.domain, self._options.mountpoint)
        self._on_ready()

    async def _again(self, pause_s: float, job: Callable[[], Awaitable[object]]) -> None:
        """Run *job* now and then; what goes wrong in one run must not end the mount."""
        while True:
            try:
                await job()
            except CozyError as exc:
                log.warning("background work failed: %s", exc)
            except Exception:
                log.exception("background work failed")
            await trio.sleep(pause_s)

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
        if not self._unmounted:
            self._fs.turn_read_only()

    async def _follow(self) -> None:
        assert self._reader is not None
        changes = await self._reader.refresh()
        if changes != NO_CHANGES:
            await trio.to_thread.run_sync(tell_kernel, changes)

    async def _delete_due(self) -> None:
        fs = self._fs
        await self._confirm()  # whoever lost the lease deletes nothing any more
        retention_s = self._options.retention_s
        await delete_due(
            self._index,
            fs.objects,
            retention_s,
            lambda: fs.objects_in_use,
            self._thumbnails.keys,
        )

    async def _tell_news(self) -> None:
        await self._fs.news.wait()
        await tell_news(self._fs)

    async def _clean_trash(self) -> None:
        await self._confirm()
        removed = await empty(self._fs, time.time_ns() - int(self._options.trash_age_s * 1e9))
        if removed:
            log.info("%d items were removed from the trash, by their age", removed)

    # ---- the end

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                self._signals += 1
                name = signal.Signals(number).name
                # The first asks for the end; where that is under way already, it is meant to
                # end the waiting.
                if self._signals > 1 or self._unmounted:
                    log.info("%s: no longer waiting for the store", name)
                    self._gave_up = True
                    for wait in self._waits:
                        wait.cancel()
                else:
                    log.info("%s: unmounting", name)
                    self._first_signal.set()

    async def _end_on_signal(self) -> None:
        await self._first_signal.wait()
        await self._store_everything()
        if not self._unmounted:
            pyfuse3.terminate()

    async def _store_everything(self) -> None:
        """Until it is done, or waiting is given up."""
        if self._options.read_only or self._gave_up:
            return
        with trio.CancelScope() as wait:
            self._waits.add(wait)
            while True:
                try:
                    await self._fs.files.flush_all()
                    if self._writer is not None:
                        await self._writer.writer.flush()
                    return
                except LeaseLost as exc:
                    log.error("%s", exc)
                    return
                except UploadFailed as exc:
                    log.error("%s; trying again (a signal gives up)", exc)
                    await trio.sleep(RETRY_PAUSE_S)

    async def _keep_the_rest(self) -> None:
        if self._pending:
            await self._fs.files.keep_all()
            log.error("%d files are not stored yet; the next mount stores them", self._pending)

    @property
    def _pending(self) -> int:
        return self._fs.files.pending

    # ---- the control socket

    async def _answer_control(self, request: dict[str, Any], send: Send) -> None:
        operation = request.get("op")
        if operation == "status":
            await send(self._status())
        elif operation == "flush":
            await self._flush_with_progress(send)
        elif isinstance(operation, str) and operation in HANDLERS:
            await HANDLERS[operation](self._fs, request, send)
        elif isinstance(operation, str) and operation in thumbnail_requests.HANDLERS:
            await thumbnail_requests.HANDLERS[operation](self._thumbnailer, request, send)
        elif operation == "preview":
            await answer_preview(self._fs, self._previews, request, send)
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
            "uploads": files.uploads,
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
            "errors": errors.total + files.upload_errors,
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


def _tame_memory() -> None:
    """What a long-lived process with many threads and large short-lived buffers wants of its
    allocators. Measured on a sequential read of 1 GiB: 240 MB at most without, 190 MB with."""
    # By default each thread gets an arena of its own, and freed buffers stay in all of them.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    # Nearly nothing here forms cycles, and each full collection would walk every cached inode.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


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


def _raise_read_ahead(mountpoint: Path) -> None:
    """Let the kernel read ahead further than its default of 128 KiB; needs root, and is only
    speed. The device number comes from mountinfo, since a stat would ask ourselves."""
    wanted = os.fspath(mountpoint)
    with contextlib.suppress(OSError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            if fields[4] == wanted:
                path = Path(f"/sys/class/bdi/{fields[2]}/read_ahead_kb")
                if int(path.read_text()) < READ_AHEAD_KIB:
                    path.write_text(f"{READ_AHEAD_KIB}\n")
