"""A check of an instance that is not mounted here: opens its tree, and closes it in order.

Without a repair the tree is a replica, as that of a read-only mount, and nothing is written to the
store. A repair holds the lease, records its changes as a mount does, and is done when they are in
the store.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import LeaseLost
from cozyfs.journal import JournalObjects
from cozyfs.journal.lease import holder
from cozyfs.nurseries import background_tasks
from cozyfs.threads import Caller
from cozyfs.tree import WriterTree, open_for_reading, open_for_writing
from cozyfs.vfs.fsck import check
from cozyfs.vfs.fsck_repair import Bench
from cozyfs.vfs.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.index import Index
    from cozyfs.state import InstanceState
    from cozyfs.store.base import Store
    from cozyfs.values import Instance
    from cozyfs.vfs.fsck import Options, Progress, Summary
    from cozyfs.vfs.fsck_findings import Finding

TIMEOUT_S = 60.0
"""How long the store may be down before the check fails."""

FLUSH_TIMEOUT_S = 300.0


async def check_tree(
    instance: Instance,
    store: Store,
    state: InstanceState,
    options: Options,
    tell: Callable[[Finding], Awaitable[None]],
    progress: Progress,
) -> Summary:
    """`cozyfs.vfs.fsck.check` over the tree in *state*, which is held. Raises CozyError."""
    objects = Objects(store, Caller(timeout_s=TIMEOUT_S), instance.bucket, instance.db_prefix)
    if options.repair:
        return await _repair(instance, store, state, options, tell, progress, objects)
    tree = await open_for_reading(instance, store, state)
    try:
        bench = _bench(tree.index, objects)
        if await holder(bench.journal) is not None:
            options = replace(options, is_live=True)
        return await check(bench, options, tell, progress)
    finally:
        tree.index.close()


async def _repair(
    instance: Instance,
    store: Store,
    state: InstanceState,
    options: Options,
    tell: Callable[[Finding], Awaitable[None]],
    progress: Progress,
    objects: Objects,
) -> Summary:
    async with background_tasks() as keeper:
        tree = await open_for_writing(
            instance,
            store,
            state,
            state.directory,
            keeper,
            journal_interval_s=1.0,
            retention_s=options.retention_s,
            force_lease=False,
        )
        try:
            return await _repair_tree(tree, options, tell, progress, objects)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await tree.close()
            tree.index.close()


async def _repair_tree(
    tree: WriterTree,
    options: Options,
    tell: Callable[[Finding], Awaitable[None]],
    progress: Progress,
    objects: Objects,
) -> Summary:
    bench = _bench(tree.index, objects)
    bench.snapshot = partial(_snapshot, tree)
    bench.confirm = partial(tree.confirmed, TIMEOUT_S)
    summary: Summary | None = None
    async with background_tasks() as nursery:
        nursery.start_soon(tree.writer.run)
        nursery.start_soon(_end_when_lost, tree, nursery.cancel_scope)
        summary = await check(bench, options, tell, progress)
        await tree.flush(FLUSH_TIMEOUT_S)
    if not tree.writer.pending and summary is not None:
        return summary
    raise LeaseLost("the lease was lost: another machine writes this instance now")


async def _end_when_lost(tree: WriterTree, scope: trio.CancelScope) -> None:
    """Who lost the lease must not change anything any more."""
    await tree.lease.lost.wait()
    scope.cancel()


async def _snapshot(tree: WriterTree) -> None:
    await tree.flush(FLUSH_TIMEOUT_S)
    await tree.snapshots.write()


def _bench(index: Index, objects: Objects) -> Bench:
    journal = JournalObjects(
        objects.store, objects.bucket, objects.db_prefix, caller=objects.caller
    )
    return Bench(index, objects, journal)
