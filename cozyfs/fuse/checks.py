"""A check of the mounted instance asked for on the control socket, and its repairs shown to the
kernel. What is checked is said in `cozyfs.vfs.fsck`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from cozyfs.control import number_in
from cozyfs.errors import ReadOnly
from cozyfs.fuse.invalidation import tell_kernel
from cozyfs.nurseries import background_tasks
from cozyfs.vfs.fsck import Options, Progress, check
from cozyfs.vfs.fsck_repair import Bench

if TYPE_CHECKING:
    from cozyfs.control import Send
    from cozyfs.index import Changes
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.fsck_findings import Finding

PROGRESS_PAUSE_S = 0.5


async def answer_fsck(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Send each finding as ``{"finding": ...}``, now and then ``{"progress": ...}``, at the end
    ``{"done": ...}``. The request has ``deep``, ``fail_fast``, ``repair`` and ``retention_s``.
    Raises CozyError."""
    options = Options(
        deep=bool(request.get("deep")),
        fail_fast=bool(request.get("fail_fast")),
        repair=bool(request.get("repair")),
        retention_s=number_in(request, "retention_s"),
        is_live=True,
        has_mount=not fs.read_only,
    )
    if options.repair and fs.read_only:
        raise ReadOnly("this mount is read-only: repair where the instance is mounted for writing")
    sending = trio.Lock()

    async def tell(finding: Finding) -> None:
        async with sending:
            await send({"finding": finding.to_json()})

    async def show_progress() -> None:
        while True:
            await trio.sleep(PROGRESS_PAUSE_S)
            async with sending:
                await send({"progress": progress.to_json()})

    progress = Progress()
    bench = Bench.of_mount(fs, partial(_show_kernel, fs))
    async with background_tasks() as nursery:
        nursery.start_soon(show_progress)
        summary = await check(bench, options, tell, progress)
        if options.repair:
            await fs.sync_tree()
    await send({"done": summary.to_json()})


async def _show_kernel(fs: FileSystem, changes: Changes) -> None:
    # In a thread, since it may wait for a request that we have to answer.
    await fs.objects.caller.disk(tell_kernel, changes)
