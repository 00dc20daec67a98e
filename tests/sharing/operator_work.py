"""What operators and accidents do to the journal of an instance in its store, for tests."""

from __future__ import annotations

import contextlib
import re
import time

import trio
from mounting import DOMAIN

from cozyfs.config import parse_fs_url
from cozyfs.instances import find
from cozyfs.journal import JournalObjects, Snapshotter
from cozyfs.state import InstanceState
from cozyfs.store import open_store
from cozyfs.tree import open_for_writing

DAY_S = 86_400.0


class Bucket:
    """The bucket of the instance that the mounts of tests are of."""

    def __init__(self, url):
        self._url = url

    @contextlib.contextmanager
    def open(self):
        with contextlib.closing(open_store(parse_fs_url(self._url))) as store:
            prefix = re.search(r"bucket_prefix=(\w+)|$", self._url)[1] or "cozy"
            yield store, find(store, prefix, DOMAIN)

    def keys(self, part):
        """Of ``journal`` or ``snapshots``, in order."""
        with self.open() as (store, instance):
            prefix = f"{instance.db_prefix}/.cozyfs/{part}/"
            return sorted(info.key for info in store.list(instance.bucket, prefix))

    def everything(self):
        """Key and ETag of all objects but the lease."""
        with self.open() as (store, instance):
            found = store.list(instance.bucket, "")
            return {i.key: i.etag for i in found if not i.key.endswith(".cozyfs/lease")}

    def flip_byte(self, key):
        with self.open() as (store, instance):
            data = bytearray(store.get(instance.bucket, key))
            data[len(data) // 2] ^= 1
            store.put(instance.bucket, key, bytes(data))

    def truncate(self, key):
        with self.open() as (store, instance):
            data = store.get(instance.bucket, key)
            store.put(instance.bucket, key, data[: len(data) // 2])

    def delete(self, key):
        with self.open() as (store, instance):
            store.delete(instance.bucket, key)

    def snapshot(self, machine, *, prune=False):
        """As the writer of *machine*, which is not mounted, would do in time; *prune* as if the
        retention had passed since."""
        trio.run(self._snapshot, machine.folder, prune)

    async def _snapshot(self, folder, prune):
        with self.open() as (store, instance):
            state = InstanceState.open(folder / "state", instance.bucket, instance.db_prefix)
            state.hold(DOMAIN)
            async with trio.open_nursery() as nursery:
                tree = await open_for_writing(
                    instance,
                    store,
                    state,
                    folder,
                    nursery,
                    journal_interval_s=1.0,
                    retention_s=DAY_S,
                    force_lease=True,
                )
                await tree.snapshots.write()
                if prune:
                    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
                    later = Snapshotter(
                        state.index_path,
                        state.directory,
                        objects,
                        tree.lease,
                        clock=lambda: time.time() + 2 * DAY_S,
                    )
                    assert await later.prune() > 0
                await tree.close()
                tree.index.close()
                nursery.cancel_scope.cancel()
            state.unlock()
