"""What the tests of fsck share: an instance with its record, checks of it, damage to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vfs_world import BUCKET, PREFIX

from cozyfs.store.keys import object_key
from cozyfs.vfs.fsck import Options, check
from cozyfs.vfs.fsck_repair import Bench

ORPHANS = b".cozy_orphans"


def record(world):
    """Without it no instance is compared with its bucket."""
    world.store.put(BUCKET, f"{PREFIX}/.cozyfs/instance.json", b"{}")


async def fsck(fs, *, shown=None, clock=None, **options):
    """What a check finds, as JSON."""
    found = []

    async def tell(finding):
        found.append(finding.to_json())

    async def show(changes):
        if shown is not None:
            shown.append(changes)

    bench = Bench.of_mount(fs, show)
    if clock is not None:
        bench.clock = clock
    summary = await check(bench, Options(has_mount=True, **options), tell)
    assert summary.findings == len(found)
    assert summary.repaired == sum(each.get("repaired") is True for each in found)
    return found


def types(found):
    return [each["type"] for each in found]


def rows(fs):
    """Every row of the tree."""
    return {
        table: sorted(fs.index.connection.execute(f"SELECT * FROM {table}"), key=repr)
        for table in ("inodes", "entries", "xattrs", "documents", "versions", "trash", "deletions")
    }


def damage(fs, sql, bindings=()):
    """Rows changed behind the index."""
    fs.index.connection.execute(sql, bindings)
    fs.index.reload()


async def is_found(fs, *expected, **options):
    """A check finds just that, twice the same, and changes nothing; returns the findings."""
    before = rows(fs)
    found = await fsck(fs, **options)
    assert types(found) == list(expected)
    assert rows(fs) == before
    return found


async def is_repaired(fs, *expected, **options):
    """A check finds just that and changes nothing; a repair puts all of it right, after which
    nothing is found. Returns what the repair said."""
    await is_found(fs, *expected, **options)
    repaired = await fsck(fs, repair=True, **options)
    assert [(each["type"], each["repaired"]) for each in repaired] == [
        (name, True) for name in expected
    ], repaired
    assert await fsck(fs, **options) == []
    return repaired


# ---- objects


def key_of(fs, ino):
    inode = fs.index.get(ino)
    return fs.objects.key(inode.content_doc_id, inode.internal_id)


def put(world, doc_id, internal_id, body=b"12345", metadata=None):
    world.store.put(BUCKET, object_key(PREFIX, doc_id, internal_id), body, metadata=metadata or {})


def file_of(world, key):
    """Where the local store keeps an object."""
    return Path(world.folder) / "store" / BUCKET / key


def rot(world, key, at=0):
    """A bit of the object flips on the disk: size, date and ETag stay."""
    path = file_of(world, key)
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_of(world, name):
    """The index file, for a look at it without its mount."""
    target = Path(world.folder) / name
    shutil.copyfile(world.path, target)
    return target
