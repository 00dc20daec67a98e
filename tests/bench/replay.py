"""How long a tree takes to come back from a bucket: half from a snapshot, half from journal.

    python tests/bench/replay.py [FILES] [FOLDER] [SECONDS]

Writes into a store in a folder, then restores in a process of its own, whose time and memory are
what is printed: `restored N files in S s, M MiB at most, J bytes of journal a file`. Each GET of
the restore takes SECONDS longer, as from a distant store.
"""

from __future__ import annotations

import hashlib
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from typing import Any

import trio

from cozyfs.index import Index
from cozyfs.journal import JournalObjects, JournalWriter, Owner, Snapshotter, restore, take
from cozyfs.store import LocalStore
from cozyfs.store.keys import new_doc_id, new_internal_id
from cozyfs.values import Content

BUCKET = "bench-bucket"
DB_PREFIX = "bench"
IN_DIRECTORY = 1_000
PER_OBJECT = 1_000
"""Files made at a time: about what a busy writer makes in a second, its journal interval."""


def make_files(index: Index, first: int, count: int) -> None:
    """As copying makes them: a file, then its content, in directories of a thousand."""
    parent = 1
    for number in range(first, first + count):
        now = time.time_ns()
        if number % IN_DIRECTORY == 0 or parent == 1:
            name = b"directory %d" % number
            mode = S_IFDIR | 0o755
            parent = index.make(
                1, name, mode, uid=0, gid=0, doc_id=new_doc_id(now), now_ns=now
            ).ino
        name = b"IMG_%08d.jpg" % number
        mode = S_IFREG | 0o644
        inode = index.make(parent, name, mode, uid=0, gid=0, doc_id=new_doc_id(now), now_ns=now)
        md5 = hashlib.md5(secrets.token_bytes(8)).digest()
        content = Content(new_internal_id(), number, number, md5, md5.hex())
        index.set_content(inode.ino, content, mtime_ns=now, ctime_ns=now, now_ns=now)


async def write(folder: Path, files: int) -> None:
    objects = bench_objects(folder)
    with Index.create(folder / "index.db", uid=0, gid=0, now_ns=time.time_ns()) as index:
        index.connection.execute("PRAGMA synchronous = OFF")
        # The first half is in the snapshot only: nothing of it needs recording.
        make_files(index, 0, files // 2)
        index.start_recording()
        lease = await take(objects, Owner.here("bench", "/bench"), duration_s=1e6)
        snapshots = Snapshotter(folder / "index.db", folder, objects, lease)
        began = time.perf_counter()
        await snapshots.ensure_first()
        print(f"snapshot of {files // 2} files in {time.perf_counter() - began:.1f} s")
        writer = JournalWriter(index, objects, lease)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            for first in range(files // 2, files, PER_OBJECT):
                make_files(index, first, min(PER_OBJECT, files - first))
                await writer.flush()
            nursery.cancel_scope.cancel()
        print(
            f"journal: {writer.objects_stored} objects,"
            f" {writer.bytes_stored / (files - files // 2):.0f} bytes a file"
        )


class Distant:
    """A store whose answers to ``get`` take longer."""

    def __init__(self, store: LocalStore, delay_s: float) -> None:
        self._store = store
        self._delay_s = delay_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, *args: Any) -> bytes:
        time.sleep(self._delay_s)
        return self._store.get(*args)


async def read(folder: Path, delay_s: float) -> None:
    began = time.perf_counter()
    target = folder / "restored.db"
    objects = bench_objects(folder)
    objects.store = Distant(objects.store, delay_s)
    restored = await restore(objects, target)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert restored is not None
    assert restored.is_complete
    with Index.open(target) as index:
        print(
            f"restored {index.usage.files} files in {seconds:.1f} s, {peak:.0f} MiB at most,"
            f" {restored.applied} journal objects"
        )


def bench_objects(folder: Path) -> JournalObjects:
    store = LocalStore(folder / "store", durable=False)
    store.ensure_bucket(BUCKET)
    return JournalObjects(store, BUCKET, DB_PREFIX)


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        trio.run(read, Path(sys.argv[2]), float(sys.argv[3]))
        return
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    base = sys.argv[2] if len(sys.argv) > 2 else None
    delay_s = sys.argv[3] if len(sys.argv) > 3 else "0"
    with tempfile.TemporaryDirectory(dir=base) as folder:
        trio.run(write, Path(folder), files)
        reader = [sys.executable, __file__, "--read", folder, delay_s]
        subprocess.run(reader, check=True, env=os.environ)


if __name__ == "__main__":
    main()
