"""Random programs of removals and restores: nothing that has content is lost, trees come into the
trash whole, rows and link counts fit, and the counted usage is what a scan counts, always."""

from __future__ import annotations

import contextlib
import os
import stat

import pytest
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_model import in_a_new_world
from vfs_world import USER, close, new_file

from cozyfs.errors import DirectoryNotEmpty, NotFound, TreeError
from cozyfs.values import TRASH_INO
from cozyfs.vfs import trash as trash_module
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.trashcan import empty, restore

NAMES = [b"a", b"b", b"c.tmp"]
PLACES = [b"/", b"/d", b"/d/e"]

names = st.sampled_from(NAMES)
places = st.sampled_from(PLACES)
pids = st.integers(1, 2)
picks = st.integers(0, 20)

operations = st.one_of(
    st.tuples(st.just("mkdir"), places, st.sampled_from([b"d", b"e"])),
    st.tuples(st.just("write"), places, names),
    st.tuples(st.just("write"), places, names),
    st.tuples(st.just("touch"), places, names),
    st.tuples(st.just("hold"), places, names),
    st.tuples(st.just("let_go")),
    st.tuples(st.just("link"), places, names, places, names),
    st.tuples(st.just("unlink"), places, names, pids),
    st.tuples(st.just("unlink"), places, names, pids),
    st.tuples(st.just("rmdir"), places, st.sampled_from([b"d", b"e"]), pids),
    st.tuples(st.just("rm_r"), places, st.sampled_from([b"d", b"e"]), pids),
    st.tuples(st.just("throw"), places, st.sampled_from([*NAMES, b"d", b"e"])),
    st.tuples(st.just("take_out"), picks, places, names),
    st.tuples(st.just("restore"), picks),
    st.tuples(st.just("destroy"), picks),
    st.tuples(st.just("clean"), picks),
)


class NotApplicable(Exception):
    """What the step is about is not there."""


@contextlib.contextmanager
def applicable():
    """Errors that say no more than that the step makes no sense now."""
    try:
        yield
    except TreeError as exc:
        raise NotApplicable from exc


class Machine:
    def __init__(self, fs):
        self.fs = fs
        self.held = []
        self.written = 0

    async def run(self, operation):
        kind, *arguments = operation
        with contextlib.suppress(NotApplicable):
            await getattr(self, kind)(*arguments)

    def dir(self, path):
        with applicable():
            return self.fs.index.resolve(path + b"/").ino

    def look(self, place, name):
        parent = self.dir(place)
        with applicable():
            return parent, self.fs.lookup(parent, name)

    async def mkdir(self, place, name):
        with applicable():
            await self.fs.make(self.dir(place), name, stat.S_IFDIR | 0o755, 0, 0)

    async def write(self, place, name):
        self.written += 1
        with applicable():
            await new_file(self.fs, name, b"%d" % self.written, parent=self.dir(place))

    async def touch(self, place, name):
        with applicable():
            await new_file(self.fs, name, b"", parent=self.dir(place))

    async def hold(self, place, name):
        _, inode = self.look(place, name)
        if stat.S_ISREG(inode.mode):
            self.held.append(await self.fs.files.open(inode.ino, os.O_RDWR, USER))

    async def let_go(self):
        if self.held:
            await close(self.fs, self.held.pop(0))

    async def link(self, place, name, new_place, new_name):
        _, inode = self.look(place, name)
        with applicable():
            self.fs.link(inode.ino, self.dir(new_place), new_name)

    async def unlink(self, place, name, pid):
        parent, inode = self.look(place, name)
        if stat.S_ISDIR(inode.mode):
            return
        used = self.fs.index.usage.disk_bytes
        self.fs.unlink(parent, name, pid)
        with pytest.raises(NotFound):
            self.fs.lookup(parent, name)
        if inode.nlink == 1 and inode.size and name != b"c.tmp":
            assert inode.doc_id in self.trashed_documents()
            assert self.fs.index.usage.disk_bytes >= used

    async def rmdir(self, place, name, pid):
        parent, inode = self.look(place, name)
        if self.fs.children(inode.ino, b"", 1):
            with pytest.raises(DirectoryNotEmpty):
                self.fs.rmdir(parent, name, pid)
            return
        self.fs.rmdir(parent, name, pid)
        assert inode.doc_id in self.trashed_documents()
        await trio.testing.wait_all_tasks_blocked()

    async def rm_r(self, place, name, pid):
        parent, inode = self.look(place, name)
        before = self.names_below(inode.ino)
        self.remove(parent, name, inode, pid)
        await trio.testing.wait_all_tasks_blocked()
        (twin,) = (each for each in self.roots() if each[1].doc_id == inode.doc_id)
        after = self.names_below(twin[1].ino)
        # Hard links lose further names; what the process removed before comes along.
        single = {path: value for path, value in before.items() if value[1] == 1}
        assert single == {path: after.get(path) for path in single}

    def remove(self, parent, name, inode, pid):
        if stat.S_ISDIR(inode.mode):
            for below, each in self.fs.children(inode.ino, b"", 100):
                self.remove(inode.ino, below, each, pid)
            self.fs.rmdir(parent, name, pid)
        else:
            self.fs.unlink(parent, name, pid)

    def names_below(self, directory, at=b""):
        found = {}
        for name, inode in self.fs.children(directory, b"", 100):
            nlink = 1 if stat.S_ISDIR(inode.mode) else inode.nlink
            found[at + b"/" + name] = (inode.doc_id, nlink, inode.size)
            if stat.S_ISDIR(inode.mode):
                found |= self.names_below(inode.ino, at + b"/" + name)
        return found

    async def throw(self, place, name):
        parent, inode = self.look(place, name)
        with applicable():  # a directory replaces only an empty one
            self.fs.rename(parent, name, TRASH_INO, name, 0)
        assert inode.doc_id in self.trashed_documents()

    async def take_out(self, pick, place, name):
        if roots := self.roots():
            trashed, inode = roots[pick % len(roots)]
            with applicable():
                self.fs.rename(TRASH_INO, trashed, self.dir(place), name, 1)
            assert self.fs.index.trash_item(inode.ino) is None

    async def restore(self, pick):
        if roots := self.roots():
            name, inode = roots[pick % len(roots)]
            item = self.fs.index.trash_item(inode.ino)
            with applicable():  # a file is in the way
                path = restore(self.fs, b"/.cozy_trash/" + name)
            whole = item.restore_path.rstrip(b"/") + b"/" + item.name
            assert path == whole or path.startswith(whole + b" (")
            assert self.fs.index.resolve(path).ino == inode.ino

    async def destroy(self, pick):
        if roots := self.roots():
            name, inode = roots[pick % len(roots)]
            if not stat.S_ISDIR(inode.mode):
                self.fs.unlink(TRASH_INO, name, 1)

    async def clean(self, pick):
        times = sorted(self.fs.index.trash_item(i.ino).trashed_ns for _, i in self.roots())
        if times:
            before = times[pick % len(times)]
            await empty(self.fs, before)
            left = [self.fs.index.trash_item(i.ino).trashed_ns for _, i in self.roots()]
            assert sorted(left) == [each for each in times if each >= before]

    # ---- looking

    def roots(self):
        return self.fs.children(TRASH_INO, b"", 100)

    def trashed_documents(self):
        return {value[0] for value in self.names_below(TRASH_INO).values()}

    def check(self):
        index = self.fs.index
        connection = index.connection
        rows = {ino for (ino,) in connection.execute("SELECT ino FROM trash")}
        assert rows == {inode.ino for _, inode in self.roots()}
        counted = index.usage
        index.reload()
        assert index.usage == counted
        wrong_links = connection.execute(
            "SELECT i.ino FROM inodes i WHERE i.mode & 0xF000 != 0x4000"
            " AND i.nlink != (SELECT count(*) FROM entries e WHERE e.ino = i.ino)"
            " UNION SELECT i.ino FROM inodes i WHERE i.mode & 0xF000 = 0x4000 AND i.nlink > 0"
            " AND i.nlink != 2 + (SELECT count(*) FROM entries e JOIN inodes c ON c.ino = e.ino"
            "                     WHERE e.parent = i.ino AND c.mode & 0xF000 = 0x4000)"
        ).fetchall()
        assert wrong_links == []


@settings(
    deadline=None,
    max_examples=int(os.environ.get("COZYFS_TEST_EXAMPLES", "60")),
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(operations, min_size=5, max_size=40))
def test_nothing_is_lost_on_the_way_through_the_trash(index_template, program):
    async def scenario(world):
        async with world.mount(use_trash=True) as fs:
            machine = Machine(fs)
            for place, name in ((b"/", b"d"), (b"/d", b"e")):
                await machine.mkdir(place, name)
            for operation in program:
                await machine.run(operation)
                machine.check()
            while machine.held:
                await machine.let_go()
            await world.settled()
            machine.check()
            world.check(fs)
            await delete_due(fs.index, fs.objects, -1.0, set)
            world.check(fs)
        async with world.mount(use_trash=True) as fs:
            assert fs.index.orphans() == []
            assert world.keys() == world.referenced(fs)

    in_a_new_world(index_template, scenario)


def test_gathering_in_small_batches_comes_to_the_same(index_template, monkeypatch):
    monkeypatch.setattr(trash_module, "GATHER_AT_ONCE", 1)

    async def scenario(world):
        async with world.mount(use_trash=True) as fs:
            machine = Machine(fs)
            await machine.mkdir(b"/", b"d")
            for name in NAMES:
                await machine.write(b"/d", name)
            await machine.rm_r(b"/", b"d", 1)
            machine.check()

    in_a_new_world(index_template, scenario)
