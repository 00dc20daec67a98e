"""How long a check takes, and how much memory: N files with an object each, in a folder.

    python tests/bench/fsck.py [FILES] [FOLDER]

Makes the instance in a store in FOLDER, then runs ``cozyfs fsck`` in a process of its own, once as
it is and once with --deep: `N files checked in S s, M MiB at most`; and how long the usage takes.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from typing import TYPE_CHECKING

import trio

from cozyfs import instances, tree
from cozyfs.state import InstanceState
from cozyfs.store import LocalStore
from cozyfs.store.keys import new_doc_id, new_internal_id, object_key
from cozyfs.values import Content, Instance

if TYPE_CHECKING:
    from cozyfs.index import Index

DOMAIN = "bench.example.com"
IN_DIRECTORY = 1_000
CONTENT_SIZE = 100
OWNER = {"uid": 0, "gid": 0}


def make_files(index: Index, store: LocalStore, instance: Instance, count: int) -> None:
    parent = 1
    for number in range(count):
        now = time.time_ns()
        if number % IN_DIRECTORY == 0:
            name = b"directory %d" % number
            mode = S_IFDIR | 0o755
            parent = index.make(1, name, mode, **OWNER, doc_id=new_doc_id(now), now_ns=now).ino
        with index.transaction():
            doc_id, internal_id = new_doc_id(now), new_internal_id()
            name = b"IMG_%08d.jpg" % number
            inode = index.make(parent, name, S_IFREG | 0o644, **OWNER, doc_id=doc_id, now_ns=now)
            body = (b"%d " % number) * CONTENT_SIZE
            key = object_key(instance.db_prefix, doc_id, internal_id)
            etag = store.put(instance.bucket, key, body)
            md5 = hashlib.md5(body).digest()
            content = Content(internal_id, len(body), len(body), md5, etag, doc_id=doc_id)
            index.set_content(inode.ino, content, mtime_ns=now, ctime_ns=now, now_ns=now)


async def prepare(folder: Path, count: int) -> None:
    store = LocalStore(folder / "store", durable=False)
    instance = instances.create(store, "cozy", DOMAIN)
    state = InstanceState.open(folder / "state", instance.bucket, instance.db_prefix)
    async with trio.open_nursery() as nursery:
        opened = await tree.open_for_writing(
            instance,
            store,
            state,
            state.directory,
            nursery,
            journal_interval_s=1.0,
            retention_s=86_400.0,
            force_lease=False,
        )
        nursery.start_soon(opened.writer.run)
        make_files(opened.index, store, instance, count)
        await opened.flush(600)
        nursery.cancel_scope.cancel()
    began = time.perf_counter()
    usage = opened.index.usage
    took_us = (time.perf_counter() - began) * 1e6
    print(f"usage of {usage.files} files in {took_us:.0f} us", flush=True)
    await opened.close()
    opened.index.close()


def main() -> None:
    if sys.argv[1:2] == ["--check"]:
        from cozyfs.cli import run

        code = run(["fsck", DOMAIN, *sys.argv[2:]])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"exit code {code}, {peak} MiB at most", flush=True)
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        trio.run(prepare, folder, count)
        env = {
            **os.environ,
            "COZYFS_FS_URL": f"file://{folder}/store",
            "COZYFS_STATE_DIR": f"{folder}/state",
        }
        for options in ([], ["--deep"]):
            began = time.perf_counter()
            command = [sys.executable, os.path.abspath(__file__), "--check", *options]
            subprocess.run(command, env=env, check=True, timeout=3600)
            took = time.perf_counter() - began
            print(f"{count} files checked{' --deep' if options else ''} in {took:.1f} s")


if __name__ == "__main__":
    main()
