"""Zip archives: names, what is in them, and that they are made while they are sent."""

from __future__ import annotations

import io
import stat
import zipfile
from contextlib import aclosing

import pytest
import trio
from world import check, make_tree, open_fs

from cozyfs.errors import IllegalName, NotFound, ObjectNotFound
from cozyfs.store import LocalStore
from cozyfs.values import ROOT_INO, AttributeChanges
from cozyfs.vfs.archive import archive, content_disposition
from cozyfs.vfs.paths import Paths

MIB = 1 << 20


@pytest.fixture
async def fs(tmp_path):
    store = LocalStore(tmp_path / "store", durable=False)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path) as fs:
            yield fs
            await check(fs)


@pytest.fixture
def paths(fs):
    return Paths(fs)


async def zipped(paths, *args, **kwargs):
    data = b"".join([chunk async for chunk in archive(paths, *args, **kwargs)])
    found = zipfile.ZipFile(io.BytesIO(data))
    assert found.testzip() is None
    return found


async def test_two_files_of_one_name_get_two_names(fs, paths):
    await make_tree(fs, {"a": {"x.jpg": b"1"}, "b": {"x.jpg": b"2"}, "x.jpg": b"3"})

    found = await zipped(paths, "z", files=["/a/x.jpg", "/b/x.jpg", "/x.jpg"])

    assert {name: found.read(name) for name in found.namelist()} == {
        "z/x.jpg": b"1",
        "z/x (2).jpg": b"2",
        "z/x (3).jpg": b"3",
    }


async def test_two_directories_of_one_name_get_two_names(fs, paths):
    await make_tree(fs, {"a": {"v1.2": {"f": b"1"}}, "b": {"v1.2": {"f": b"2"}}})

    found = await zipped(paths, "z", files=["/a/v1.2", "/b/v1.2"])

    assert found.namelist() == ["z/v1.2/", "z/v1.2/f", "z/v1.2 (2)/", "z/v1.2 (2)/f"]


async def test_what_is_asked_for_twice_is_there_once(fs, paths):
    await make_tree(fs, {"a": b"1"})

    found = await zipped(paths, "z", ids=[paths.resolve("/a").doc_id], files=["/a", "//a/"])

    assert found.namelist() == ["z/a"]


async def test_the_root_is_the_folder_itself(fs, paths):
    await make_tree(fs, {"a": b"1", "d": {"b": b"2"}})

    found = await zipped(paths, "z", files=["/"])

    assert found.namelist() == ["z/", "z/.cozy_trash/", "z/d/", "z/d/b", "z/a"]


async def test_names_are_unicode(fs, paths):
    await make_tree(fs, {"Été 🐧": {"ça": b"1"}})

    found = await zipped(paths, "é", files=["/Été 🐧"])

    assert found.namelist() == ["é/Été 🐧/", "é/Été 🐧/ça"]


async def test_permissions_and_times_are_kept(fs, paths):
    inode = await paths.write_file("/run.sh", b"#!/bin/sh", mode=0o750)
    changes = AttributeChanges(mtime_ns=1_700_000_000 * 10**9)
    await fs.set_attributes(inode.ino, changes, None, 0)

    info = (await zipped(paths, "z", files=["/run.sh"])).getinfo("z/run.sh")

    assert info.external_attr >> 16 == stat.S_IFREG | 0o750
    assert info.date_time == (2023, 11, 14, 22, 13, 20)


@pytest.mark.parametrize("seconds", [0, 1 << 33, -(1 << 40), 1 << 62])
async def test_times_that_the_format_does_not_have_are_its_first(fs, paths, seconds):
    inode = await paths.write_file("/file")
    changes = AttributeChanges(mtime_ns=min(seconds * 10**9, (1 << 63) - 1))
    changes = AttributeChanges(mtime_ns=max(changes.mtime_ns, -(1 << 63)))
    await fs.set_attributes(inode.ino, changes, None, 0)

    info = (await zipped(paths, "z", files=["/file"])).getinfo("z/file")

    assert info.date_time == (1980, 1, 1, 0, 0, 0)


async def test_symbolic_links_stay_links_and_fifos_are_left_out(fs, paths):
    directory = (await paths.mkdir("/d")).ino
    fs.symlink(directory, b"link", b"../target", 0, 0)
    await fs.make(directory, b"fifo", stat.S_IFIFO | 0o644, 0, 0)

    found = await zipped(paths, "z", files=["/d"])

    assert found.namelist() == ["z/d/", "z/d/link"]
    assert stat.S_ISLNK(found.getinfo("z/d/link").external_attr >> 16)
    assert found.read("z/d/link") == b"../target"


async def test_text_is_compressed_and_images_are_not(fs, paths):
    await make_tree(fs, {"a.txt": bytes(100_000), "a.jpg": bytes(100_000)})

    found = await zipped(paths, "z", files=["/a.txt", "/a.jpg"])

    assert found.getinfo("z/a.txt").compress_size < 1000
    assert found.getinfo("z/a.jpg").compress_size == 100_000


async def test_an_archive_of_nothing_is_an_archive(paths):
    assert (await zipped(paths, "z")).namelist() == []


async def test_what_is_absent_is_refused_before_the_first_byte(fs, paths):
    await make_tree(fs, {"a": b"1"})

    for absent in ({"files": ["/a", "/absent"]}, {"files": ["/a"], "ids": ["unknown"]}):
        with pytest.raises(NotFound):
            await anext(archive(paths, "z", **absent))


@pytest.mark.parametrize("name", ["", "..", "a/b"])
async def test_the_folder_has_a_legal_name(paths, name):
    with pytest.raises(IllegalName):
        await anext(archive(paths, name))


async def test_bytes_come_in_small_pieces_while_files_are_read(fs, paths):
    await make_tree(fs, {"a.jpg": bytes(20 * MIB), "b.jpg": b"2"})

    sizes = []
    async with aclosing(archive(paths, "z", files=["/a.jpg", "/b.jpg"])) as stream:
        async for chunk in stream:
            sizes.append(len(chunk))

    assert max(sizes) < 2 * MIB
    assert sum(sizes) > 20 * MIB


async def test_what_vanishes_on_the_way_is_left_out(fs, paths):
    await make_tree(fs, {"d": {"a.jpg": bytes(3 * MIB), "b": {"c": b"1"}, "d": b"2", "e": b"3"}})
    pieces = []

    async with aclosing(archive(paths, "z", files=["/d"])) as stream:
        async for chunk in stream:
            pieces.append(chunk)
            if paths.exists("/d/d") and len(pieces) == 3:
                paths.remove("/d/d")

    found = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert found.testzip() is None
    assert found.namelist() == ["z/d/", "z/d/b/", "z/d/b/c", "z/d/a.jpg", "z/d/e"]


async def test_a_file_that_grows_is_cut_at_the_size_it_had(fs, paths):
    inode = await paths.write_file("/a.jpg", bytes(3 * MIB))
    pieces = []

    async with aclosing(archive(paths, "z", files=["/a.jpg"])) as stream:
        async for chunk in stream:
            if not pieces:
                await fs.files.truncate(inode.ino, 5 * MIB, 0)
            pieces.append(chunk)

    found = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert found.testzip() is None
    assert found.getinfo("z/a.jpg").file_size == 3 * MIB


async def test_an_archive_that_nobody_wants_any_more_closes_its_file(fs, paths):
    await paths.write_file("/a.jpg", bytes(5 * MIB))

    async with aclosing(archive(paths, "z", files=["/a.jpg"])) as stream:
        await anext(stream)
        assert fs.files.open_files == 1

    assert fs.files.open_files == 0


async def test_an_archive_cut_short_by_an_error_is_no_archive(fs, paths):
    inode = await paths.write_file("/a.jpg", bytes(3 * MIB))
    key = fs.objects.key(inode.doc_id, inode.internal_id)
    content = fs.objects.store.get(fs.objects.bucket, key)
    fs.objects.store.delete(fs.objects.bucket, key)
    pieces = []

    async def receive():
        async for chunk in archive(paths, "z", files=["/a.jpg"]):
            pieces.append(chunk)

    with pytest.raises(ObjectNotFound):
        await receive()

    assert not zipfile.is_zipfile(io.BytesIO(b"".join(pieces)))
    fs.objects.store.put(fs.objects.bucket, key, content)


async def test_a_file_in_the_root_is_named_by_its_id(fs, paths):
    inode = await paths.write_file("/file", b"1")
    fs.link(inode.ino, ROOT_INO, b"other")

    found = await zipped(paths, "z", ids=[inode.doc_id])

    assert found.namelist() == ["z/file"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('a"b', "filename=\"ab\"; filename*=UTF-8''a%22b"),
        ("a;b", "filename=\"ab\"; filename*=UTF-8''a%3Bb"),
        ("100%.txt", "filename=\"100.txt\"; filename*=UTF-8''100%25.txt"),
        (
            "a\r\nSet-Cookie: x",
            "filename=\"aSet-Cookiex\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x",
        ),
        ("a'b*c", "filename=\"abc\"; filename*=UTF-8''a%27b%2Ac"),
    ],
)
def test_no_name_breaks_the_header(name, expected):
    assert content_disposition("attachment", name) == f"attachment; {expected}"
