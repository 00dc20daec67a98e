"""Versions as people use them: listed, read, restored, removed, imported, tagged; and over any
sequence of changes, what is listed can be read and is counted."""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vfs_world import USER, close, new_file, pattern, read_file, replace_file
from world import STORES, check, open_fs, store_named

from cozyfs.errors import (
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ReadOnly,
    StoreError,
    UploadFailed,
)
from cozyfs.values import ROOT_INO, VersionRules
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.documents import parse_time
from cozyfs.vfs.history import History, named

EVERY = VersionRules(20, 0)
SECOND_NS = 10**9
T0 = parse_time("2026-01-31T09:00:00Z")


class Clock:
    """Some tenths of a second later each time it is asked."""

    def __init__(self, step_ns=SECOND_NS):
        self.now_ns = T0
        self.step_ns = step_ns

    def __call__(self):
        self.now_ns += self.step_ns
        return self.now_ns


@pytest.fixture(params=STORES)
async def fs(request, tmp_path):
    with trio.fail_after(60):
        store = store_named(request.param, request)
        async with open_fs(store, tmp_path, version_rules=EVERY, clock=Clock()) as fs:
            yield fs
            await check(fs)


async def content(history, version):
    return b"".join([piece async for piece in history.read(version)])


async def contents(history, ino):
    return [await content(history, version) for _, version in history.of(ino)]


async def with_versions(fs, *data, name=b"f"):
    """A file that held each of *data*, the last one now."""
    ino = await new_file(fs, name, data[0])
    for each in data[1:]:
        await replace_file(fs, ino, each)
    return ino


async def test_versions_are_listed_by_the_time_of_their_content_and_read(fs):
    big = pattern(3_000_000)
    ino = await with_versions(fs, b"1", big, b"3")
    history = History(fs)
    names = [name for name, _ in history.of(ino)]
    assert names == sorted(names)
    assert all(parse_time(name) > T0 for name in names)
    assert await contents(history, ino) == [b"1", big]


async def test_of_one_second_the_later_ones_have_a_number(fs):
    ino = await with_versions(fs, b"1", b"2", b"3", b"4")
    version = fs.index.versions_of(fs.get(ino).doc_id)[0]
    found = named([version, version, version])
    first = found[0].name
    assert [name for name, _ in found] == [first, f"{first}~2", f"{first}~3"]


async def test_a_version_is_found_by_its_name_and_the_last_one_without(fs):
    history = History(fs)
    ino = await with_versions(fs, b"1", b"22", b"333")
    (first, one), (_, two) = history.of(ino)
    assert history.find(ino, first) == one
    assert history.find(ino, "") == two
    for name in ("2026", "2026-01-31T09:00:00Z~9"):
        with pytest.raises(NotFound):
            history.find(ino, name)


async def test_the_document_of_a_version_is_a_cozys(fs):
    ino = await with_versions(fs, b"1", b"22")
    history = History(fs)
    ((name, version),) = history.of(ino)
    document = history.document(version)
    doc_id = fs.get(ino).doc_id
    assert document["_id"] == f"{doc_id}/{version.internal_id}"
    assert document["size"] == "1"
    assert document["md5sum"] == "xMpCOKC5I4INzFCab3WEmw=="
    assert document["tags"] == []
    assert document["updated_at"].startswith(name[:-1])
    assert document["relationships"]["file"]["data"] == {"_id": doc_id, "_type": "io.cozy.files"}
    assert document["cozyMetadata"]["doctypeVersion"] == "1"


async def test_restoring_exchanges_content_and_version(fs):
    ino = await with_versions(fs, b"first", b"second one")
    history = History(fs)
    ((_, version),) = history.of(ino)
    objects = {each.key for each in fs.objects.store.list(fs.objects.bucket, "")}

    restored = await history.restore(ino, version)

    assert (restored.internal_id, restored.mtime_ns) == (version.internal_id, version.updated_ns)
    assert await read_file(fs, ino) == b"first"
    assert await contents(history, ino) == [b"second one"]
    assert {each.key for each in fs.objects.store.list(fs.objects.bucket, "")} == objects


async def test_restoring_keeps_the_current_content_whatever_the_rules(fs):
    ino = await with_versions(fs, b"first", b"second one")
    history = History(fs)
    fs.files.versions.rules = VersionRules(0)
    await history.restore(ino, history.find(ino, ""))
    assert await contents(history, ino) == [b"second one"]


async def test_restoring_brings_tags_metadata_and_origin_back(fs):
    ino = await with_versions(fs, b"first")
    cozy = {"createdByApp": "drive", "uploadedOn": "https://a/"}
    fs.index.set_document(
        ino, {"tags": ["old"], "metadata": {"k": 1}, "cozyMetadata": cozy, "kept": 1}
    )
    await replace_file(fs, ino, b"second")
    cozy = {"createdByApp": "drive", "uploadedOn": "https://b/"}
    fs.index.set_document(ino, {"tags": ["new"], "cozyMetadata": cozy, "kept": 2})
    history = History(fs)

    await history.restore(ino, history.find(ino, ""))

    fields = fs.index.document(ino)
    assert (fields["tags"], fields["metadata"], fields["kept"]) == (["old"], {"k": 1}, 2)
    assert fields["cozyMetadata"]["uploadedOn"] == "https://a/"
    assert fields["cozyMetadata"]["createdByApp"] == "drive"


async def test_what_is_not_stored_yet_is_stored_before_a_restore_and_becomes_a_version(fs):
    ino = await with_versions(fs, b"first", b"second")
    history = History(fs)
    first = history.find(ino, "")
    writer = await fs.files.open(ino, os.O_WRONLY, USER)
    await fs.files.write(writer.fh, 0, b"third and unstored")

    await history.restore(ino, first)

    assert await read_file(fs, ino) == b"first"
    assert await contents(history, ino) == [b"second", b"third and unstored"]
    await close(fs, writer)


async def test_who_writes_on_after_a_restore_does_not_lose_what_was_restored(fs):
    ino = await with_versions(fs, b"first", b"second")
    history = History(fs)
    writer = await fs.files.open(ino, os.O_WRONLY, USER)
    await fs.files.write(writer.fh, 0, b"third")
    await fs.files.fsync(writer.fh)
    await history.restore(ino, history.of(ino)[0].version)
    await fs.files.write(writer.fh, 0, b"F")
    await close(fs, writer)
    assert await read_file(fs, ino) == b"First"
    assert b"first" in await contents(history, ino)


async def test_a_version_of_a_document_that_was_taken_over_is_restored(fs):
    await with_versions(fs, b"first")
    ino = await new_file(fs, b"tmp", b"second")
    fs.rename(ROOT_INO, b"tmp", ROOT_INO, b"f", 0)
    history = History(fs)
    for expected in (b"first", b"second", b"first"):
        await history.restore(ino, history.find(ino, ""))
        assert await read_file(fs, ino) == expected


async def test_a_version_that_is_removed_is_let_go(fs):
    ino = await with_versions(fs, b"1", b"22")
    history = History(fs)
    version = history.find(ino, "")
    history.remove(version)
    assert history.of(ino) == []
    assert fs.index.is_queued(version.doc_id, version.internal_id)
    with pytest.raises(NotFound):
        history.remove(version)
    with pytest.raises(NotFound):
        await history.restore(ino, version)


async def test_clearing_removes_tagged_versions_too(fs):
    ino = await with_versions(fs, b"1", b"22", b"333")
    history = History(fs)
    history.set_tags(history.find(ino, ""), ["kept"])
    assert history.clear(ino) == 2
    assert fs.index.usage.disk_bytes == 3


async def test_a_version_with_tags_outlives_the_rules(fs):
    ino = await with_versions(fs, b"1", b"22")
    history = History(fs)
    tagged = history.set_tags(history.find(ino, ""), [" kept ", "kept", ""])
    assert tagged.document["tags"] == ["kept"]
    fs.files.versions.rules = VersionRules(2, 0)
    for size in (3, 4, 5):
        await replace_file(fs, ino, b"x" * size)
    assert tagged.internal_id in {version.internal_id for _, version in history.of(ino)}


async def test_a_content_that_is_read_stays_until_its_reader_is_done(fs):
    data = pattern(5_000_000)
    ino = await with_versions(fs, data, b"22")
    history = History(fs)
    reading = history.read(history.find(ino, ""))
    pieces = [await anext(reading)]
    history.clear(ino)
    await delete_due(fs.index, fs.objects, -1.0, lambda: fs.files.objects_in_use)
    pieces += [piece async for piece in reading]
    assert b"".join(pieces) == data


async def test_only_files_have_versions(fs):
    with pytest.raises(InvalidRequest):
        History(fs).of(ROOT_INO)


async def test_on_a_read_only_mount_versions_can_be_read_only(fs):
    ino = await with_versions(fs, b"1", b"22")
    history = History(fs)
    version = history.find(ino, "")
    fs.turn_read_only()
    assert await content(history, version) == b"1"
    with pytest.raises(ReadOnly):
        await history.restore(ino, version)
    with pytest.raises(ReadOnly):
        history.clear(ino)
    fs.read_only = fs.files.read_only = False


# ---- import


async def test_an_imported_version_has_the_content_and_the_date(fs, tmp_path):
    ino = await with_versions(fs, b"now")
    (tmp_path / "old").write_bytes(b"long ago")
    history = History(fs)

    version = await history.add(ino, tmp_path / "old", updated_ns=T0, tags=["imported"])

    assert history.find(ino, "2026-01-31T09:00:00Z") == version
    assert version.document["tags"] == ["imported"]
    assert await contents(history, ino) == [b"long ago"]
    key = fs.objects.key(version.content_doc_id, version.internal_id)
    info = fs.objects.store.head(fs.objects.bucket, key)
    assert not [name for name in info.metadata if name.startswith("cozyfs-")]
    await history.restore(ino, version)
    assert await read_file(fs, ino) == b"long ago"


async def test_importing_what_is_no_file_is_refused(fs, tmp_path):
    ino = await with_versions(fs, b"now")
    with pytest.raises(InvalidRequest):
        await History(fs).add(ino, tmp_path)
    with pytest.raises(FileNotFoundError):
        await History(fs).add(ino, tmp_path / "absent")


async def test_an_imported_version_has_to_fit_into_the_quota(fs, tmp_path):
    ino = await new_file(fs, b"f", b"now")
    (tmp_path / "old").write_bytes(bytes(8))
    fs.quota.limit = 10
    with pytest.raises(QuotaExceeded):
        await History(fs).add(ino, tmp_path / "old")
    assert History(fs).of(ino) == []
    fs.quota.limit = 11
    await History(fs).add(ino, tmp_path / "old")


async def test_an_import_that_fails_leaves_nothing(world, tmp_path):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"1")
        (tmp_path / "old").write_bytes(b"long ago")
        world.store.fail("put", applied=True)
        with pytest.raises(StoreError):
            await History(fs).add(ino, tmp_path / "old")
        assert History(fs).of(ino) == []
        assert world.queued(fs) == set()
        world.check(fs)


async def test_a_restore_of_what_cannot_be_stored_first_changes_nothing(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await with_versions(fs, b"first", b"second")
        history = History(fs)
        writer = await fs.files.open(ino, os.O_WRONLY, USER)
        await fs.files.write(writer.fh, 0, b"third and unstored")
        world.store.fail("put")
        with pytest.raises(UploadFailed):
            await history.restore(ino, history.find(ino, ""))
        assert await read_file(fs, ino) == b"third and unstored"
        await close(fs, writer)
        assert await contents(history, ino) == [b"first", b"second"]
        world.check(fs)


# ---- anything, in any order

NAMES = [b"a", b"b"]
names_drawn = st.sampled_from(NAMES)
picks = st.integers(0, 5)
operations = st.one_of(
    st.tuples(st.just("write"), names_drawn, st.integers(0, 40), st.booleans()),
    st.tuples(st.just("save"), names_drawn, st.integers(0, 40), st.booleans()),
    st.tuples(st.just("rename"), names_drawn, names_drawn, st.booleans()),
    st.tuples(st.just("restore"), names_drawn, picks, st.booleans()),
    st.tuples(st.just("remove"), names_drawn, picks, st.booleans()),
    st.tuples(st.just("clear"), names_drawn, st.just(0), st.booleans()),
    st.tuples(st.just("link"), names_drawn, names_drawn, st.booleans()),
)


class Machine:
    """A file system, and what every content that it was given should be, by its internal id."""

    def __init__(self, fs):
        self.fs = fs
        self.history = History(fs)
        self.expected = {}
        self.count = 0

    def find(self, name):
        try:
            return self.fs.lookup(ROOT_INO, name).ino
        except NotFound:
            return None

    async def put(self, name, size):
        """Write a content of its own to the file *name*, new or not."""
        self.count += 1
        data = (b"%d." % self.count) * size
        ino = self.find(name)
        if ino is None:
            ino = await new_file(self.fs, name, data)
        else:
            await replace_file(self.fs, ino, data)
        self.expected[self.fs.get(ino).internal_id] = data

    async def apply(self, op, name, argument, keep_open):
        ino = self.find(name)
        reader = None
        if keep_open and ino is not None:
            reader = await self.fs.files.open(ino, os.O_RDONLY, USER)
        if op == "write":
            await self.put(name, argument)
        elif op == "save":
            await self.put(b"tmp", argument)
            self.fs.rename(ROOT_INO, b"tmp", ROOT_INO, name, 0)
        elif ino is not None:
            await self.change(op, ino, name, argument)
        if reader is not None:
            await close(self.fs, reader)

    async def change(self, op, ino, name, argument):
        versions = self.history.of(ino)
        if op == "rename":
            self.fs.rename(ROOT_INO, name, ROOT_INO, argument, 0)
        elif op == "link" and self.find(argument) is None:
            self.fs.link(ino, ROOT_INO, argument)
        elif op == "clear":
            assert self.history.clear(ino) == len(versions)
        elif op == "restore" and versions:
            version = versions[argument % len(versions)].version
            await self.history.restore(ino, version)
            assert await read_file(self.fs, ino) == self.expected[version.internal_id]
        elif op == "remove" and versions:
            self.history.remove(versions[argument % len(versions)].version)

    async def compare(self):
        fs = self.fs
        for name in NAMES:
            ino = self.find(name)
            if ino is None:
                continue
            inode = fs.get(ino)
            assert await read_file(fs, ino) == self.expected[inode.internal_id]
            versions = self.history.of(ino)
            ids = {version.internal_id for _, version in versions}
            assert inode.internal_id not in ids
            assert len({name for name, _ in versions}) == len(versions)
            for _, version in versions:
                assert await content(self.history, version) == self.expected[version.internal_id]
        counted = fs.index.usage
        fs.index.reload()
        assert fs.index.usage == counted


@given(st.lists(operations, max_size=25), st.integers(0, 4), st.sampled_from([0.0, 5.0]))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_done_versions_can_be_read_and_are_counted(
    tmp_path_factory, drawn, most, delay_s
):
    async def run():
        folder = tmp_path_factory.mktemp("history")
        store = store_named("local", _Folder(folder))
        rules = VersionRules(most, delay_s)
        with trio.fail_after(60):
            async with open_fs(store, folder, version_rules=rules, clock=Clock()) as fs:
                machine = Machine(fs)
                for each in drawn:
                    await machine.apply(*each)
                    await machine.compare()
                    await delete_due(fs.index, fs.objects, -1e9, lambda: fs.files.objects_in_use)
                await check(fs)

    trio.run(run)


class _Folder:
    """What `store_named` asks a request for."""

    def __init__(self, folder):
        self.folder = folder

    def getfixturevalue(self, name):
        return self.folder
