"""Random programs on a FileSystem and on a dictionary: both have to show the same, always.

Sizes are small (fixture ``small``), so a few hundred KiB stream, spill, copy and leave holes out.
One example is one ``trio.run``; at its end every handle is closed, the instance is mounted again,
and everything is compared: bytes, memory, staging folder, objects, multipart uploads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vfs_world import KIB, USER, World, close, create, pattern, read_file

from cozyfs.errors import CozyError
from cozyfs.values import ROOT_INO, VersionRules
from cozyfs.vfs.deletions import delete_due

NAMES = [b"a", b"b", b"c"]
HANDLES = 5

names = st.sampled_from(NAMES)
handles = st.integers(0, HANDLES - 1)
offsets = st.one_of(
    st.integers(0, 100 * KIB),
    st.sampled_from([0, 8 * KIB, 16 * KIB, 64 * KIB, 300 * KIB]),
)
lengths = st.one_of(st.integers(1, 200), st.integers(1, 40 * KIB))

operations = st.one_of(
    st.tuples(st.just("create"), names, handles),
    st.tuples(st.just("open"), names, handles, st.sampled_from([0, os.O_TRUNC])),
    st.tuples(st.just("close"), handles),
    st.tuples(st.just("write"), handles, offsets, lengths),
    st.tuples(st.just("append"), handles, st.integers(1, 120 * KIB)),
    st.tuples(st.just("append"), handles, st.integers(1, 120 * KIB)),
    st.tuples(st.just("read"), handles, offsets, lengths),
    st.tuples(st.just("truncate"), names, offsets),
    st.tuples(st.just("ftruncate"), handles, offsets),
    st.tuples(st.just("fsync"), handles),
    st.tuples(st.just("unlink"), names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("link"), names, names),
    st.tuples(
        st.just("delete"),
    ),
)

failures = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "create_multipart", "upload_part", "copy_part", "complete_multipart", "get"]
        ),
        st.integers(1, 6),
        st.booleans(),
    ),
    max_size=6,
)


class Model:
    """Files are bytearrays that names and handles point at."""

    def __init__(self):
        self.names = {}
        self.open = {}  # slot -> (bytearray, Handle)


class Machine:
    def __init__(self, world, fs):
        self.world, self.fs = world, fs
        self.model = Model()
        self.seeds = itertools.count(1)

    async def run(self, operation):
        kind, *arguments = operation
        await getattr(self, kind)(*arguments)

    async def create(self, name, slot):
        if slot in self.model.open or name in self.model.names:
            return
        _, handle = create(self.fs, name)
        content = self.model.names[name] = bytearray()
        self.model.open[slot] = (content, handle)

    async def open(self, name, slot, truncate):
        if slot in self.model.open or name not in self.model.names:
            return
        ino = self.fs.lookup(ROOT_INO, name).ino
        handle = await self.fs.files.open(ino, os.O_RDWR | truncate, USER)
        content = self.model.names[name]
        if truncate:
            content.clear()
        self.model.open[slot] = (content, handle)

    async def close(self, slot):
        if slot in self.model.open:
            _, handle = self.model.open.pop(slot)
            await close(self.fs, handle)

    async def write(self, slot, offset, length):
        if slot not in self.model.open:
            return
        content, handle = self.model.open[slot]
        data = pattern(length, next(self.seeds))
        await self.fs.files.write(handle.fh, offset, data)
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + length] = data

    async def append(self, slot, length):
        if slot not in self.model.open:
            return
        content, _ = self.model.open[slot]
        for start in range(0, length, 16 * KIB):
            await self.write(slot, len(content), min(16 * KIB, length - start))

    async def read(self, slot, offset, length):
        if slot in self.model.open:
            content, handle = self.model.open[slot]
            found = await self.fs.files.read(handle.fh, offset, length)
            assert found == content[offset : offset + length]

    async def truncate(self, name, size):
        if name in self.model.names:
            ino = self.fs.lookup(ROOT_INO, name).ino
            await self.fs.files.truncate(ino, size, USER)
            cut(self.model.names[name], size)

    async def ftruncate(self, slot, size):
        if slot in self.model.open:
            content, handle = self.model.open[slot]
            await self.fs.files.truncate(handle.node.ino, size, USER)
            cut(content, size)

    async def fsync(self, slot):
        if slot in self.model.open:
            _, handle = self.model.open[slot]
            await self.fs.files.fsync(handle.fh)

    async def unlink(self, name):
        if self.model.names.pop(name, None) is not None:
            self.fs.unlink(ROOT_INO, name)

    async def rename(self, name, new_name):
        if name in self.model.names:
            self.fs.rename(ROOT_INO, name, ROOT_INO, new_name, 0)
            if self.model.names[name] is not self.model.names.get(new_name):
                self.model.names[new_name] = self.model.names.pop(name)

    async def link(self, name, new_name):
        if name in self.model.names and new_name not in self.model.names:
            self.fs.link(self.fs.lookup(ROOT_INO, name).ino, ROOT_INO, new_name)
            self.model.names[new_name] = self.model.names[name]

    async def delete(self):
        await delete_all(self.fs)

    # ---- looking at all of it

    async def compare(self):
        sizes = {n: self.fs.lookup(ROOT_INO, n).size for n in self.model.names}
        assert sizes == {n: len(c) for n, c in self.model.names.items()}
        for content, handle in self.model.open.values():
            assert await self.fs.files.read(handle.fh, 0, len(content) + 10) == content

    async def close_all(self):
        for slot in list(self.model.open):
            await self.close(slot)

    async def compare_files(self, fs):
        for name, content in self.model.names.items():
            ino = fs.lookup(ROOT_INO, name).ino
            assert fs.get(ino).size == len(content)
            assert await read_file(fs, ino, step=24 * KIB) == content
        assert len(fs.children(ROOT_INO, b"", 10)) == len(self.model.names) + 1


async def delete_all(fs):
    await delete_due(fs.index, fs.objects, 0.0, lambda: fs.files.objects_in_use)


def cut(content, size):
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def in_a_new_world(template, scenario):
    with tempfile.TemporaryDirectory() as folder:
        trio.run(scenario, World(Path(folder), template))


relaxed = settings(
    deadline=None,
    max_examples=int(os.environ.get("COZYFS_TEST_EXAMPLES", "60")),
    suppress_health_check=list(HealthCheck),
)


@relaxed
@given(
    st.lists(operations, min_size=5, max_size=40),
    st.sampled_from([4 * KIB, 48 * KIB, 1024 * KIB]),
    st.booleans(),
)
def test_files_hold_what_programs_wrote(small, index_template, program, write_buffer, copies):
    async def scenario(world):
        async with world.mount(
            write_buffer=write_buffer, cache_size=64 * KIB, version_rules=VersionRules(3, 0)
        ) as fs:
            fs.objects.can_copy = copies
            machine = Machine(world, fs)
            for operation in program:
                await machine.run(operation)
            await machine.compare()
            await machine.close_all()
            await world.settled()
            world.check(fs)
            await machine.delete()
        async with world.mount() as fs:
            await machine.compare_files(fs)
            world.check(fs)
            assert world.keys() == world.referenced(fs)

    in_a_new_world(index_template, scenario)


@relaxed
@given(
    st.lists(operations, min_size=5, max_size=30),
    failures,
    st.sampled_from([4 * KIB, 48 * KIB, 1024 * KIB]),
    st.booleans(),
)
def test_failing_requests_lose_nothing(
    small, index_template, program, failing, write_buffer, killed
):
    """Errors may reach any request; a write or truncation that was refused may have happened or
    not, so the program stops there. What it did before is stored in the end, also by another
    process after a kill."""

    async def scenario(world):
        async with world.mount(
            write_buffer=write_buffer, cache_size=64 * KIB, version_rules=VersionRules(3, 0)
        ) as fs:
            machine = Machine(world, fs)
            unclear = False
            for call, nth, applied in failing:
                world.store.fail(call, nth=nth, applied=applied)
            for operation in program:
                try:
                    await machine.run(operation)
                except CozyError:
                    if operation[0] not in ("close", "fsync", "read", "delete"):
                        unclear = True
                        break
            for slot in list(machine.model.open):
                with contextlib.suppress(CozyError):
                    await machine.close(slot)
            world.store.mend()
            if not killed:
                await fs.files.retry_failed()
        async with world.mount() as fs:
            await fs.files.retry_failed()
            if not unclear:
                await machine.compare_files(fs)
            world.check(fs, killed=True)
            await delete_all(fs)
            assert world.keys() == world.referenced(fs)

    in_a_new_world(index_template, scenario)
