"""Random programs on versions, the trash, the quota and failing uploads together, beside a model.

After each step all of it is looked at: every file, version and item of the trash reads as the
model says, the counted usage is what a scan counts, and each object of the store is held by the
tree, waits for its deletion, or is in use, and never two of these in the wrong combination. At the
end fsck finds nothing. One example is one ``trio.run``; a restart is as hard as a kill.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing
from fsck_world import fsck, record
from history_model import PASSING, TAG, Dir, Document, File, Model, Row, Saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vfs_world import BUCKET, PREFIX, USER, World, create, read_file

from cozyfs.errors import CozyError, InTrash, NotFound, QuotaExceeded, UploadFailed
from cozyfs.index.usage import SCAN_INODES, SCAN_TRASH, SCAN_VERSIONS, Usage
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges, VersionRules
from cozyfs.vfs.copying import copy_file
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.history import History
from cozyfs.vfs.trashcan import destroy, empty, restore

NAMES = [b"a", b"b", PASSING]
SLOTS = 2
SECOND = 10**9
T0 = 1_700_000_000 * SECOND
RECORD = f"{PREFIX}/.cozyfs/instance.json"

names = st.sampled_from(NAMES)
slots = st.integers(0, SLOTS - 1)
picks = st.integers(0, 30)
pids = st.integers(1, 2)
sizes = st.integers(1, 40)


def step(name, *arguments):
    return st.tuples(st.just(name), *arguments)


operations = st.one_of(
    step("create", picks, names, slots),
    step("save", picks, names, sizes),
    step("save", picks, names, sizes),
    step("open", picks, slots, st.booleans()),
    step("write", slots, picks, sizes),
    step("refuse", slots, sizes),
    step("redirect", picks, slots),
    step("flush", slots),
    step("fsync", slots),
    step("close", slots),
    step("overwrite", picks, sizes, st.booleans(), st.booleans()),
    step("overwrite", picks, sizes, st.booleans(), st.booleans()),
    step("write_again", picks),
    step("truncate", picks, st.integers(0, 20)),
    step("replace", picks, picks),
    step("rename", picks, picks, names),
    step("throw", picks),
    step("take_out", picks, picks, names),
    step("link", picks, picks, names),
    step("copy", picks, picks, names),
    step("unlink", picks, pids),
    step("unlink", picks, pids),
    step("mkdir"),
    step("rmdir", picks, pids),
    step("rm_r", picks, pids, st.booleans()),
    step("restore", picks),
    step("destroy", picks),
    step("restore_version", picks, picks),
    step("clear_versions", picks),
    step("tag", picks, picks),
    step("empty"),
    step("clean", picks),
    step("tick", st.sampled_from([1, 40, 60, 3600])),
    step("quota", st.sampled_from([0, 0, 60, 120, 300])),
    step("fail", st.sampled_from(["put", "copy"]), st.integers(1, 3), st.booleans()),
    step("retry"),
    step("delete"),
    step("restart"),
)


class Clock:
    """Each moment once, so that what is in order of time is in one order only."""

    def __init__(self):
        self.base = T0
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.base + self.calls


class Machine:
    def __init__(self, world, fs, clock, model):
        self.world, self.fs, self.clock, self.model = world, fs, clock, model
        self.open_files = {}  # slot -> (File, Handle)
        self.written = 0

    # ---- choosing

    def bytes(self, size):
        self.written += 1
        return (b"%05d." % self.written * 8)[:size]

    def pick(self, pick, files=None):
        files = sorted((self.model.files() if files is None else files).items())
        return files[pick % len(files)] if files else (None, None)

    def folders(self):
        below = self.model.root.children.items()
        found = {b"/" + name: node for name, node in below if isinstance(node, Dir)}
        return [(b"", self.model.root), *sorted(found.items())]

    def folder(self, pick):
        folders = self.folders()
        return folders[pick % len(folders)]

    def parent(self, path):
        directory, name = self.model.place(path)
        return directory, name

    def roots(self):
        return self.fs.children(TRASH_INO, b"", 1000)

    # ---- contents

    def settle(self, file, *, closing=False):
        """After an attempt to store *file*: whether it worked can be seen, that it had to fail
        cannot."""
        if file.draft is None or file.refused or not self.model.links(file):
            return
        if self.fs.files.state(file.ino) == "clean":
            self.model.commit(file, self.clock.base, closing=closing)
        else:
            assert self.may_fail(), "an upload failed by itself"
            file.kept = file.draft

    def may_fail(self):
        return bool(self.world.store._rules) or self.fs.quota.limit > 0

    @contextlib.contextmanager
    def refusable(self, file):
        try:
            yield
        except QuotaExceeded:
            assert self.fs.quota.limit > 0 or file.refused
        except UploadFailed:
            assert self.may_fail()
        else:
            assert not file.refused

    async def create(self, pick, name, slot):
        _, folder = self.folder(pick)
        if slot in self.open_files or name in folder.children:
            return
        inode, handle = create(self.fs, name, parent=folder.ino)
        file = folder.children[name] = File(inode.ino, Document(), draft=b"", is_new=True)
        self.opened(slot, file, handle)

    async def open(self, pick, slot, truncate):
        _, file = self.pick(pick)
        if slot in self.open_files or file is None:
            return
        flags = os.O_RDWR | (os.O_TRUNC if truncate else 0)
        handle = await self.fs.files.open(file.ino, flags, USER)
        self.opened(slot, file, handle)
        if truncate:
            self.cut(file, 0)

    def opened(self, slot, file, handle):
        file.handles += 1
        file.writers += 1
        self.open_files[slot] = (file, handle)

    def cut(self, file, size):
        if file.draft is None and size == len(file.stored) and self.has_object(file):
            return
        file.refused.clear()
        file.draft = file.data[:size]

    def has_object(self, file):
        return self.fs.index.get(file.ino).internal_id is not None

    async def write(self, slot, at, size):
        if slot not in self.open_files:
            return
        file, handle = self.open_files[slot]
        await self.put(file, handle, at % (len(file.data) + 1), self.bytes(size))

    async def refuse(self, slot, size):
        """A write for which there is no room; then there is again."""
        limit, self.fs.quota.limit = self.fs.quota.limit, 1
        await self.write(slot, 0, size)
        self.fs.quota.limit = limit

    async def redirect(self, pick, slot):
        """A shell's ``>``, the program still to come."""
        if slot not in self.open_files:
            await self.open(pick, slot, True)
            await self.flush(slot)

    async def put(self, file, handle, offset, data):
        try:
            await self.fs.files.write(handle.fh, offset, data)
        except QuotaExceeded:
            assert self.fs.quota.limit > 0
            file.refused.add(offset)
            return
        stop = offset + len(data)
        file.refused = {each for each in file.refused if not offset <= each < stop}
        file.draft = file.data[:offset] + data + file.data[stop:]

    async def flush(self, slot):
        if slot in self.open_files:
            file, handle = self.open_files[slot]
            if handle.wrote:
                with self.refusable(file):
                    await self.fs.files.flush(handle.fh)
                self.settle(file, closing=True)
            else:
                await self.fs.files.flush(handle.fh)

    async def fsync(self, slot):
        if slot in self.open_files:
            file, handle = self.open_files[slot]
            with self.refusable(file):
                await self.fs.files.fsync(handle.fh)
            self.settle(file)

    async def close(self, slot):
        await self.flush(slot)
        if slot in self.open_files:
            file, handle = self.open_files.pop(slot)
            await self.fs.files.release(handle.fh)
            if file.refused and file.writers == 1:
                self.model.give_up(file)
            file.before = None
            stays = bool(self.model.links(file))
            file.is_new = file.is_new and stays and not self.has_object(file)
            if file.kept is None:
                self.settle(file)
            file.writers -= 1
            file.handles -= 1
            if not file.writers and file.draft is None:
                file.replaced = False
            self.fs.released(file.ino)

    def free_slot(self):
        return next((slot for slot in range(9, 12) if slot not in self.open_files), None)

    async def overwrite(self, pick, size, truncate, duplicate):
        """As a shell does it: with *duplicate* the empty file is stored in between."""
        slot = self.free_slot()
        await self.open(pick, slot, truncate)
        if slot in self.open_files:
            if duplicate:
                await self.flush(slot)
            await self.write(slot, 0, size)
            await self.close(slot)

    async def write_again(self, pick):
        """What is there already."""
        _, file = self.pick(pick)
        slot = self.free_slot()
        if file is None or not file.data:
            return
        data = file.data
        await self.open(pick, slot, True)
        await self.put(file, self.open_files[slot][1], 0, data)
        await self.close(slot)

    async def save(self, pick, name, size):
        """A new file, renamed over the one that is there, as editors and rsync do."""
        path, folder = self.folder(pick)
        if b".new" in folder.children:
            return
        slot = self.free_slot()
        await self.create(pick, b".new", slot)
        await self.write(slot, 0, size)
        await self.close(slot)
        if b".new" in folder.children:
            await self.move(path + b"/.new", path + b"/" + name)

    async def truncate(self, pick, size):
        _, file = self.pick(pick)
        if file is None or size >= len(file.data):
            return
        self.cut(file, size)
        with self.refusable(file):
            await self.fs.set_attributes(file.ino, AttributeChanges(), size, USER)
        if not file.writers:
            self.settle(file)
            if file.draft is None:
                file.replaced = False
        for other, _ in self.open_files.values():
            assert other is not file or file.writers

    async def copy(self, pick, place, name):
        _, file = self.pick(pick)
        _, folder = self.folder(place)
        if file is None or name in folder.children:
            return
        try:
            made = await copy_file(self.fs, file.ino, folder.ino, name, clock=self.clock)
        except CozyError:
            assert self.may_fail() or file.refused
            self.settle(file)
        else:
            self.settle(file)
            copied = File(made.ino, Document(tagged=file.doc.tagged), file.stored)
            folder.children[name] = copied

    async def retry(self):
        failed = [each for each in self.model.all_files().values() if each.kept is not None]
        await self.fs.files.retry_failed()
        for file in dict.fromkeys(failed):
            self.settle(file)

    # ---- names

    async def replace(self, pick, other):
        path, _ = self.pick(pick)
        new_path, _ = self.pick(other)
        if path is not None:
            await self.move(path, new_path)

    async def rename(self, pick, place, name):
        path, _ = self.pick(pick)
        if path is not None:
            await self.move(path, self.folder(place)[0] + b"/" + name)

    async def move(self, path, new_path):
        model = self.model
        (directory, name), (target, new_name) = model.place(path), model.place(new_path)
        heir, former = directory.children[name], target.children.get(new_name)
        if isinstance(former, Dir) or isinstance(heir, Dir):
            return
        single = former is not None and model.links(heir) == model.links(former) == 1
        self.fs.rename(directory.ino, name, target.ino, new_name, 0)
        if former is heir:
            return
        from_trash = directory is model.trash
        if former is not None and single and not from_trash:
            same = not heir.writers and heir.draft is None and heir.stored == former.stored
            model.file_former(former.doc, former.stored, same, self.clock.base)
            moved, heir.doc = heir.doc, former.doc
            former.doc = Document()
            heir.doc.versions += moved.versions
            heir.doc.versions.sort(key=lambda each: each.number)
            heir.doc.tagged |= moved.tagged
            former = None
        del directory.children[name]
        if former is not None and model.links(former) == 1 and model.is_kept(new_name, former):
            self.trash(target, new_name, new_path)
        target.children[new_name] = heir
        if from_trash:
            self.forget_row(heir)

    def forget_row(self, file):
        if all(each is not file for each in self.model.trash.children.values()):
            self.model.rows.pop(file.ino, None)

    def trash(self, directory, name, path):
        """Of the model, after it happened; returns what lies in the trash now."""
        file = self.model.into_trash(directory, name, path.rpartition(b"/")[0] or b"/")
        if not file.ino:
            file.ino = self.new_root()
            self.model.rows[file.ino] = self.model.rows.pop(0)
        self.name_roots()
        return file

    def new_root(self):
        known = {node.ino for node in self.model.trash.children.values()}
        (found,) = {inode.ino for _, inode in self.roots()} - known
        return found

    def name_roots(self):
        """The system chooses names in the trash; that the nodes are the right ones is checked."""
        nodes = {node.ino: node for node in self.model.trash.children.values()}
        roots = [(name, inode.ino) for name, inode in self.roots()]
        expected = Counter(node.ino for node in self.model.trash.children.values())
        assert Counter(ino for _, ino in roots) == expected
        self.model.trash.children = {name: nodes[ino] for name, ino in roots}

    async def throw(self, pick):
        path, file = self.pick(pick)
        if file is None:
            return
        directory, name = self.model.place(path)
        self.fs.rename(directory.ino, name, TRASH_INO, name, 0)
        if name in self.model.trash.children and self.model.trash.children[name] is file:
            return  # two names of one file: rename(2) does nothing
        del directory.children[name]
        self.model.trash.children[b"new %d" % len(self.model.trash.children)] = file
        self.model.rows[file.ino] = Row(path.rpartition(b"/")[0] or b"/", name)
        self.name_roots()

    async def take_out(self, pick, place, name):
        files = {
            b"/.cozy_trash/" + name: node
            for name, node in self.model.trash.children.items()
            if isinstance(node, File)
        }
        path, _ = self.pick(pick, files)
        if path is not None:
            await self.move(path, self.folder(place)[0] + b"/" + name)

    async def link(self, pick, place, name):
        _, file = self.pick(pick)
        _, folder = self.folder(place)
        if file is not None and name not in folder.children:
            self.fs.link(file.ino, folder.ino, name)
            folder.children[name] = file
            with pytest.raises(InTrash):
                self.fs.link(file.ino, TRASH_INO, b"never")

    async def mkdir(self):
        if b"d" not in self.model.root.children:
            inode = await self.fs.make(ROOT_INO, b"d", stat.S_IFDIR | 0o755, 0, 0)
            self.model.root.children[b"d"] = Dir(inode.ino)

    async def unlink(self, pick, pid):
        path, _ = self.pick(pick)
        if path is not None:
            self.remove(path, pid)

    def remove(self, path, pid):
        model = self.model
        directory, name = model.place(path)
        file = directory.children[name]
        inos, saved = model.memory.setdefault((pid, directory), ([], []))
        last = model.links(file) == 1
        self.fs.unlink(directory.ino, name, pid)
        if last and model.is_kept(name, file):
            inos.append(self.trash(directory, name, path).ino)
            return
        if last and not file.handles:
            saved.append(Saved(name, file.stored, file.doc.tagged))
        del directory.children[name]

    async def rmdir(self, pick, pid):
        path, folder = self.folder(pick)
        if folder is not self.model.root and not folder.children:
            self.remove_folder(path, folder, pid)

    async def rm_r(self, pick, pid, delete):
        """With what is due deleted before the directory itself is removed."""
        path, folder = self.folder(pick)
        if folder is not self.model.root:
            for name in sorted(folder.children):
                self.remove(path + b"/" + name, pid)
            if delete:
                await self.delete()
            self.remove_folder(path, folder, pid)
            await trio.testing.wait_all_tasks_blocked()

    def remove_folder(self, path, folder, pid):
        model, index = self.model, self.fs.index
        self.fs.rmdir(ROOT_INO, path[1:], pid)
        del model.root.children[path[1:]]
        twin = Dir(0)
        inos, saved = model.memory.pop((pid, folder), ([], []))
        for ino in reversed(inos):
            row = model.rows.get(ino)
            names = [n for n, node in model.trash.children.items() if node.ino == ino]
            if names and row.directory == path and row.name not in twin.children:
                twin.children[row.name] = model.trash.children.pop(names[0])
                del model.rows[ino]
        twin.ino = self.new_root()
        model.trash.children[b"new"] = twin
        model.rows[twin.ino] = Row(b"/", path[1:])
        for each in reversed(saved):
            if each.name not in twin.children:
                with contextlib.suppress(NotFound):
                    ino = index.lookup(twin.ino, each.name).ino
                    twin.children[each.name] = File(ino, Document(tagged=each.tagged), each.stored)
                assert each.name in twin.children, "did not come along"
        self.name_roots()

    # ---- the trash

    async def restore(self, pick):
        if not (roots := self.roots()):
            return
        model = self.model
        name, inode = roots[pick % len(roots)]
        row = model.rows[inode.ino]
        path = restore(self.fs, b"/.cozy_trash/" + name)
        directory, new_name = path.rpartition(b"/")[::2]
        assert (directory or b"/", new_name.split(b" (")[0]) == (
            row.directory,
            row.name.split(b" (")[0],
        )
        if directory and directory[1:] not in model.root.children:
            ino = self.fs.index.resolve(directory).ino
            model.root.children[directory[1:]] = Dir(ino)
        target, new_name = model.place(path)
        assert new_name not in target.children
        node = target.children[new_name] = model.trash.children.pop(name)
        self.forget_row(node)

    async def destroy(self, pick):
        if roots := self.roots():
            name, _ = roots[pick % len(roots)]
            await destroy(self.fs, b"/.cozy_trash/" + name)
            self.forget_row(self.model.trash.children.pop(name))

    async def empty(self):
        await empty(self.fs)
        self.model.trash.children.clear()
        self.model.rows.clear()

    async def clean(self, pick):
        items = self.fs.index.trash_items(1 << 62, 1000)
        if not items:
            return
        before = items[pick % len(items)].trashed_ns
        gone = {item.ino for item in items if item.trashed_ns < before}
        await empty(self.fs, before)
        children = self.model.trash.children
        for name in [name for name, node in children.items() if node.ino in gone]:
            del children[name]
        for ino in gone:
            del self.model.rows[ino]

    # ---- versions

    async def restore_version(self, pick, which):
        _, file = self.pick(pick)
        if file is None or not file.doc.versions:
            return
        history = History(self.fs)
        named = history.of(file.ino)
        which %= len(named)
        try:
            await history.restore(file.ino, named[which].version)
        except (QuotaExceeded, UploadFailed):
            assert self.may_fail() or file.refused
            self.settle(file)
        except NotFound:  # storing what was written pushed it out
            version = file.doc.versions[which]
            self.settle(file)
            assert version not in file.doc.versions
        else:
            version = file.doc.versions[which]
            self.settle(file)
            self.model.restore_version(file, version, self.clock.base)

    async def clear_versions(self, pick):
        _, file = self.pick(pick)
        if file is not None:
            assert History(self.fs).clear(file.ino) == len(file.doc.versions)
            file.doc.versions.clear()

    async def tag(self, pick, which):
        _, file = self.pick(pick)
        if file is None or not file.doc.versions:
            return
        which %= len(file.doc.versions)
        history = History(self.fs)
        history.set_tags(history.of(file.ino)[which].version, TAG)
        old = file.doc.versions[which]
        file.doc.versions[which] = type(old)(old.data, True, old.number, old.made_ns)
        for each, _ in self.open_files.values():
            if each.before is not None and each.before[1] is old:
                each.before = (each.before[0], file.doc.versions[which])

    # ---- the world

    async def tick(self, seconds):
        self.clock.base += seconds * SECOND

    async def quota(self, limit):
        self.fs.quota.limit = limit

    async def fail(self, call, nth, applied):
        self.world.store.fail(call, nth=nth, applied=applied)

    async def delete(self):
        await delete_due(self.fs.index, self.fs.objects, 0.0, lambda: self.fs.objects_in_use)

    async def close_all(self):
        for slot in list(self.open_files):
            await self.close(slot)

    # ---- looking at all of it

    async def check(self):
        await trio.testing.wait_all_tasks_blocked()
        self.check_usage()
        self.check_objects()
        self.check_names(self.model.root)
        self.check_names(self.model.trash)
        history = History(self.fs)
        for path, file in self.model.all_files().items():
            inode = self.fs.get(file.ino)
            assert inode.nlink == self.model.links(file), path
            assert inode.size == len(file.data), path
            assert await read_file(self.fs, file.ino) == file.data, path
            found = [each.version for each in history.of(file.ino)]
            contents = [b"".join([data async for data in history.read(v)]) for v in found]
            assert contents == [old.data for old in file.doc.versions], path
            tagged = [bool(v.document.get("tags")) for v in found]
            assert tagged == [old.tagged for old in file.doc.versions], path
        rows = self.fs.index.trash_items(1 << 62, 1000)
        assert {item.ino: Row(item.restore_path, item.name) for item in rows} == self.model.rows
        kept = {f.ino for f in self.model.all_files().values() if f.kept is not None}
        named = {ino for ino, _ in self.fs.index.drafts() if self.fs.index.get(ino).nlink}
        assert named == kept

    def check_names(self, directory):
        shown = {
            name: inode.ino
            for name, inode in self.fs.children(directory.ino, b"", 1000)
            if inode.ino != TRASH_INO
        }
        assert shown == {name: node.ino for name, node in directory.children.items()}
        for node in directory.children.values():
            if isinstance(node, Dir):
                self.check_names(node)

    def check_usage(self):
        index = self.fs.index
        rows = [index.connection.execute(s).fetchone() for s in (SCAN_INODES, SCAN_VERSIONS)]
        trash = index.connection.execute(SCAN_TRASH).fetchone()
        assert index.usage == Usage(*rows[0], *rows[1], *trash)

    def check_objects(self):
        world, fs = self.world, self.fs
        keys, held, queued = world.keys() - {RECORD}, world.referenced(fs), world.queued(fs)
        assert held <= keys, "an object that the index promises is not in the store"
        assert not held & queued, "an object that is held waits for its deletion"
        assert keys <= held | queued | fs.objects_in_use, "nobody knows of an object"


rules = st.sampled_from([VersionRules(0), VersionRules(3, 0.0), VersionRules(4, 60.0)])


@settings(
    deadline=None,
    max_examples=int(os.environ.get("COZYFS_TEST_EXAMPLES", "100")),
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(operations, min_size=25, max_size=80), rules)
def test_history_is_what_programs_and_people_made_of_it(index_template, program, version_rules):
    async def scenario(world):
        record(world)
        clock = Clock()
        model = Model(version_rules.max_number, round(version_rules.min_delay_s * 1e9))
        left = list(program)
        while True:
            async with world.mount(version_rules=version_rules, clock=clock, use_trash=True) as fs:
                machine = Machine(world, fs, clock, model)
                machine.written = 1000 * len(left)
                await machine.check()
                while left and left[0] != ("restart",):
                    name, *arguments = left.pop(0)
                    await getattr(machine, name)(*arguments)
                    await machine.check()
                if not left:
                    world.store.mend()
                    fs.quota.limit = 0
                    await machine.close_all()
                    await machine.retry()
                    await world.settled()
                    await machine.check()
                    assert fs.quota.promised == 0
                    break
            left.pop(0)
            model.restart()
            world.store.mend()
        async with world.mount(version_rules=version_rules, clock=clock, use_trash=True) as fs:
            model.restart()
            machine = Machine(world, fs, clock, model)
            await machine.check()
            assert await fsck(fs, clock=clock) == []
            await delete_due(fs.index, fs.objects, 0.0, lambda: fs.objects_in_use)
            await machine.check()
            assert world.keys() == world.referenced(fs) | {RECORD}
            world.store.delete(BUCKET, RECORD)
            world.check(fs, killed=True)

    with tempfile.TemporaryDirectory() as folder:
        trio.run(scenario, World(Path(folder), index_template))
