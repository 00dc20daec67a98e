"""The tree by path: cleaning, walking, removing, whole contents."""

from __future__ import annotations

import stat

import pytest
import trio
import trio.testing
from world import check, make_tree, object_keys, open_fs, put_in_trash, read_tree

from cozyfs.errors import (
    AlreadyExists,
    Busy,
    DirectoryNotEmpty,
    IsADirectory,
    NameNotUtf8,
    NotAbsolute,
    NotADirectory,
    NotFound,
    StoreUnavailable,
    UploadFailed,
)
from cozyfs.store import LocalStore
from cozyfs.values import ROOT_INO
from cozyfs.vfs.paths import Paths, clean

MIB = 1 << 20


class Unreachable(LocalStore):
    """Takes no object while ``down``."""

    down = False

    def put(self, *args, **kwargs):
        if self.down:
            raise StoreUnavailable("down")
        return super().put(*args, **kwargs)


@pytest.fixture
async def fs(tmp_path):
    store = Unreachable(tmp_path / "store", durable=False)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path) as fs:
            yield fs
            store.down = False
            await check(fs)


@pytest.fixture
def paths(fs):
    return Paths(fs)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/a/", "/a"),
        ("//a//b", "/a/b"),
        ("/./a/.", "/a"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a/b/../..", "/"),
        ("/...", "/..."),
        ("/ a", "/ a"),
    ],
)
def test_paths_are_cleaned_lexically(path, expected):
    assert clean(path) == expected


@pytest.mark.parametrize("path", ["", "a", "./a", "../a", " /a"])
def test_a_path_that_is_not_absolute_is_refused(path):
    with pytest.raises(NotAbsolute):
        clean(path)


async def test_a_name_that_has_no_utf8_is_refused(paths):
    with pytest.raises(NameNotUtf8):
        await paths.mkdir("/\udcff")


async def test_resolve_says_which_part_is_wrong(fs, paths):
    await make_tree(fs, {"file": b""})

    with pytest.raises(NotADirectory):
        paths.resolve("/file/below")
    with pytest.raises(NotFound):
        paths.resolve("/absent/below")
    assert not paths.exists("/file/below")
    assert paths.exists("/file")


# ---- directories


async def test_mkdir_all_makes_what_is_missing(fs, paths):
    await paths.mkdir("/a")

    made = await paths.mkdir_all("/a/b/c")

    assert made.ino == paths.resolve("/a/b/c").ino
    assert (await paths.mkdir_all("/a/b/c")).ino == made.ino
    assert (await paths.mkdir_all("/")).ino == ROOT_INO


async def test_mkdir_all_by_several_at_once_makes_one_directory(paths):
    made = set()

    async def make():
        made.add((await paths.mkdir_all("/x/y/z")).ino)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(make)

    assert made == {paths.resolve("/x/y/z").ino}


async def test_mkdir_all_takes_a_directory_that_appears_meanwhile(fs, paths, monkeypatch):
    async def slower_than_the_other(parent, name, *args):
        monkeypatch.undo()
        await fs.make(parent, name, *args)
        return await fs.make(parent, name, *args)

    monkeypatch.setattr(fs, "make", slower_than_the_other)

    assert (await paths.mkdir_all("/raced")).ino == paths.resolve("/raced").ino


async def test_mkdir_all_does_not_go_through_a_file(paths):
    await paths.write_file("/file")

    with pytest.raises(NotADirectory):
        await paths.mkdir_all("/file/below")
    with pytest.raises(NotADirectory):
        await paths.mkdir_all("/file")


async def test_mkdir_of_what_is_there_is_refused(paths):
    await paths.mkdir("/a")

    with pytest.raises(AlreadyExists):
        await paths.mkdir("/a/")
    with pytest.raises(NotFound):
        await paths.mkdir("/absent/a")


# ---- removing


async def test_a_directory_with_entries_is_not_removed(fs, paths):
    await make_tree(fs, {"a": {"b": b"1"}})

    with pytest.raises(DirectoryNotEmpty):
        paths.remove("/a")

    assert await read_tree(fs) == {"a": {"b": b"1"}}


@pytest.mark.parametrize("path", ["/", "/.cozy_trash", "/.."])
async def test_root_and_trash_are_never_removed(fs, paths, path):
    await make_tree(fs, {"a": b"1"})
    await put_in_trash(fs, "old", b"2")

    with pytest.raises(Busy):
        await paths.remove_all(path)
    with pytest.raises((Busy, DirectoryNotEmpty)):
        paths.remove(path)

    assert await read_tree(fs) == {"a": b"1"}
    assert paths.exists("/.cozy_trash/old")


async def test_remove_all_of_what_is_absent_does_nothing(paths):
    await paths.remove_all("/absent")


async def test_remove_all_empties_directories_of_several_pages(fs, paths):
    directory = (await paths.mkdir("/many")).ino
    for number in range(600):
        fs.symlink(directory, b"%d" % number, b"target", 0, 0)

    await paths.remove_all("/many")

    assert await read_tree(fs) == {}
    assert fs.index.usage.inodes == 2


async def test_remove_all_survives_what_others_remove_and_add(fs, paths):
    await make_tree(fs, {"a": {"b": {"c": {}}, "d": {}}})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(paths.remove_all, "/a")
        nursery.start_soon(paths.remove_all, "/a")

    assert await read_tree(fs) == {}


async def test_a_rename_replaces_when_asked_to(fs, paths):
    await make_tree(fs, {"a": b"1", "b": b"2"})

    paths.rename("/a", "/b", replace=True)

    assert await read_tree(fs) == {"b": b"1"}


# ---- walking


async def test_a_walk_tells_directories_first_then_files_by_the_bytes_of_names(fs, paths):
    await make_tree(fs, {"b": b"", "Z": {"y": b"", "x": {}}, "é": {}, "a": b"", "c": {}})

    walked = [step.path for step in paths.walk("/")]

    assert walked == ["/", "/.cozy_trash", "/Z", "/Z/x", "/Z/y", "/c", "/é", "/a", "/b"]


async def test_a_walk_of_a_file_is_that_file(paths):
    await paths.write_file("/file", b"12")

    (step,) = paths.walk("/file")

    assert (step.path, step.inode.size) == ("/file", 2)


async def test_a_walk_of_what_is_absent_fails(paths):
    with pytest.raises(NotFound):
        list(paths.walk("/absent"))


async def test_a_walk_goes_deeper_than_pythons_stack(fs, paths):
    parent = (await paths.mkdir("/deep")).ino
    for _ in range(1500):
        parent = (await fs.make(parent, b"d", stat.S_IFDIR | 0o755, 0, 0)).ino

    assert sum(1 for _ in paths.walk("/deep")) == 1501
    await paths.remove_all("/deep")
    assert await read_tree(fs) == {}


async def test_a_walk_survives_entries_that_vanish(fs, paths):
    await make_tree(fs, {"a": {"b": {"c": {"d": b""}}}, "x": b"", "y": {"z": b""}})
    seen = []

    for step in paths.walk("/"):
        seen.append(step.path)
        if step.path == "/a/b":
            await paths.remove_all("/a")
            paths.remove("/x")

    assert seen == ["/", "/.cozy_trash", "/a", "/a/b", "/y", "/y/z"]


async def test_a_walk_sees_each_entry_of_a_directory_of_several_pages(fs, paths):
    directory = (await paths.mkdir("/many")).ino
    for number in range(700):
        fs.symlink(directory, b"%04d" % number, b"target", 0, 0)

    walked = [step.path for step in paths.walk("/many")]

    assert walked == ["/many"] + [f"/many/{number:04}" for number in range(700)]


async def test_a_file_with_two_names_counts_once(fs, paths):
    inode = await paths.write_file("/one", b"12345")
    fs.link(inode.ino, ROOT_INO, b"two")

    assert paths.size_of("/") == 5
    assert paths.disk_usage() == 5


# ---- contents


async def chunks_of(content, size):
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("kind", ["bytes", "iterable", "async iterable"])
async def test_a_content_is_read_as_it_was_written(paths, kind):
    content = bytes(range(256)) * 12_000  # nearly 3 MiB
    forms = {
        "bytes": content,
        "iterable": [content[:100], b"", content[100:]],
        "async iterable": chunks_of(content, 70_000),
    }

    inode = await paths.write_file("/file", forms[kind])

    assert inode.size == len(content)
    assert inode.md5 is not None
    assert await paths.read_file("/file") == content


async def test_a_large_content_is_sent_while_it_is_written(fs, paths):
    chunk = bytes(MIB)

    inode = await paths.write_file("/large", (chunk for _ in range(40)))

    assert inode.size == 40 * MIB
    assert fs.files.pool.used == 0


async def test_overwriting_keeps_the_file_and_replaces_all_of_its_content(fs, paths):
    first = await paths.write_file("/file", b"a long content", mode=0o600)

    second = await paths.write_file("/file", b"short")

    assert (second.ino, second.doc_id, second.mode) == (first.ino, first.doc_id, first.mode)
    assert second.internal_id != first.internal_id
    assert await paths.read_file("/file") == b"short"
    (version,) = fs.index.versions_of(first.doc_id)
    assert version.internal_id == first.internal_id


async def test_overwriting_with_nothing_makes_an_empty_file(paths):
    await paths.write_file("/file", b"something")

    inode = await paths.write_file("/file", b"")

    assert inode.size == 0
    assert inode.internal_id is not None
    assert await paths.read_file("/file") == b""


class Broken(Exception):
    """What the source of a content may raise."""


def broken_after(content):
    yield content
    raise Broken


async def test_a_new_file_whose_content_breaks_off_is_not_there(fs, paths):
    with pytest.raises(Broken):
        await paths.write_file("/file", broken_after(b"half"))

    assert await read_tree(fs) == {}
    assert object_keys(fs) == set()


async def test_a_large_new_file_whose_content_breaks_off_leaves_nothing(fs, paths):
    with pytest.raises(Broken):
        await paths.write_file("/file", broken_after(bytes(24 * MIB)))

    assert await read_tree(fs) == {}
    assert object_keys(fs) == set()


async def test_a_file_keeps_its_content_when_a_new_one_breaks_off(paths):
    before = await paths.write_file("/file", b"before")

    with pytest.raises(Broken):
        await paths.write_file("/file", broken_after(b"half of what was to come"))

    assert await paths.read_file("/file") == b"before"
    assert paths.resolve("/file").internal_id == before.internal_id


async def test_a_cancelled_write_leaves_nothing(fs, paths):
    async def never_ends():
        yield b"half"
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(paths.write_file, "/file", never_ends())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await read_tree(fs) == {}


async def test_a_content_that_the_store_does_not_take_is_kept(fs, paths):
    fs.objects.caller.timeout_s = 0
    fs.objects.store.down = True

    with pytest.raises(UploadFailed):
        await paths.write_file("/file", b"kept")

    assert fs.files.failed == 1
    assert await paths.read_file("/file") == b"kept"
    fs.objects.store.down = False
    await fs.files.retry_failed()
    assert fs.files.failed == 0
    assert await paths.read_file("/file") == b"kept"


async def test_directories_have_no_content(paths):
    await paths.mkdir("/a")

    with pytest.raises(IsADirectory):
        await paths.write_file("/a", b"")
    with pytest.raises(IsADirectory):
        await paths.read_file("/a")
    with pytest.raises(NotFound):
        await paths.read_file("/absent")


async def test_a_stream_that_is_not_read_to_its_end_closes_its_file(fs, paths):
    await paths.write_file("/file", bytes(3 * MIB))

    stream = paths.stream_file("/file")
    assert len(await anext(stream)) == MIB
    assert fs.files.open_files == 1
    await stream.aclose()

    assert fs.files.open_files == 0
