"""The scenarios that every file system of a Cozy must pass, over each kind of store.

Each test has the number and the name of its scenario in the notes on the Cozy storage format.
"""

from __future__ import annotations

import io
import os
import stat
import unicodedata
import zipfile

import pytest
import trio
from world import STORES, check, make_tree, object_keys, open_fs, read_tree, store_named

from cozyfs.errors import (
    AlreadyExists,
    FileTooLarge,
    ForbiddenMove,
    LengthMismatch,
    NotAbsolute,
    NotFound,
    QuotaExceeded,
)
from cozyfs.values import MAX_FILE_SIZE, ROOT_DOC_ID, ROOT_INO
from cozyfs.vfs.archive import archive, archive_headers, content_disposition
from cozyfs.vfs.copying import copy_file, free_copy_name
from cozyfs.vfs.documents import Documents
from cozyfs.vfs.names import conflict_name
from cozyfs.vfs.paths import Paths
from cozyfs.vfs.quota import check_available_space


@pytest.fixture(params=STORES)
async def fs(request, tmp_path):
    store = store_named(request.param, request)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path) as fs:
            yield fs
            await check(fs)
    store.close()


@pytest.fixture
def paths(fs):
    return Paths(fs)


@pytest.fixture
def documents(fs):
    return Documents(fs)


def nfc(text):
    return unicodedata.normalize("NFC", text)


def nfd(text):
    return unicodedata.normalize("NFD", text)


def below(paths, path):
    return [step.path for step in paths.walk(path)]


async def test_01_disk_usage_is_initially_zero(paths):
    assert paths.disk_usage() == 0


async def test_02_get_file_doc_from_path_at_root(paths, documents):
    await paths.write_file("/toto", b"hello !")

    document = documents.get(paths.resolve("/toto").ino)

    assert document["name"] == "toto"
    assert document["dir_id"] == ROOT_DOC_ID
    with pytest.raises(NotFound):
        paths.resolve("/noooo")


async def test_03_remove(paths):
    with pytest.raises(NotAbsolute):
        paths.remove("foo/bar")
    with pytest.raises(NotFound):
        paths.remove("/foo")
    await paths.mkdir("/removeme")

    paths.remove("/removeme")

    with pytest.raises(NotFound):
        paths.resolve("/removeme")


async def test_04_remove_all(fs, paths):
    tree = {"a": {"b": {"c": {}, "foo": None}, "d": {"bar": None}}, "e": {"baz": None}}
    await make_tree(fs, {"removemeall": tree})

    await paths.remove_all("/removemeall")

    for gone in ("/removemeall", "/removemeall/a/b/foo"):
        with pytest.raises(NotFound):
            paths.resolve(gone)
    assert await read_tree(fs) == {}


async def test_05_disk_usage(fs, paths):
    await paths.write_file("/toto", b"hello !")
    await make_tree(fs, {"directory": {"empty": None}})

    assert paths.disk_usage() == 7
    assert paths.size_of("/") == 7
    assert paths.size_of("/directory") == 0


async def test_06_get_file_doc_from_path(paths, documents):
    await paths.mkdir("/container")
    await paths.write_file("/container/toto", b"hello !")

    document = documents.get(paths.resolve("/container/toto").ino)

    assert document["dir_id"] == paths.resolve("/container").doc_id
    with pytest.raises(NotFound):
        paths.resolve("/container/noooo")


async def test_07_create_get_and_modify_file(fs, paths, documents):
    tree = {"createandget1": {"foo": {"quz": None}, "bar": {}, "baz": {"foof": None}}}
    await make_tree(fs, tree)
    before = await read_tree(fs, "/createandget1")

    paths.rename("/createandget1", "/createandget2")

    assert await read_tree(fs, "/createandget2") == before
    foof = paths.resolve("/createandget2/baz/foof").ino
    old = documents.get(foof)
    assert (old["class"], old["mime"]) == ("files", "application/octet-stream")
    paths.rename("/createandget2/baz/foof", "/createandget2/baz/foof.jpg")
    new = documents.get(foof)
    assert (new["class"], new["mime"]) == ("image", "image/jpeg")
    assert new["_id"] == old["_id"]


async def test_08_update_dir(fs, paths, documents):
    tree = {
        "dirchild1": {"food": {}, "bard": {}},
        "dirchild2": {"foof": None, "barf": None},
        "dirchild3": {"quz": {"deep": None}},
    }
    await make_tree(fs, {"update1": tree})

    paths.rename("/update1", "/update2")
    paths.rename("/update2/dirchild3", "/update2/dirchild2/dirchild3")

    assert await read_tree(fs) == {
        "update2": {
            "dirchild1": {"food": {}, "bard": {}},
            "dirchild2": {"foof": b"", "barf": b"", "dirchild3": {"quz": {"deep": b""}}},
        }
    }
    for step in paths.walk("/update2"):
        document = documents.get(step.inode.ino)
        if document["type"] == "directory":
            assert document["path"] == step.path
        else:
            assert "path" not in document


async def test_08_no_directory_moves_into_itself(fs, paths):
    await make_tree(fs, {"a": {"b": {}}})

    for target in ("/a/a", "/a/b/a"):
        with pytest.raises(ForbiddenMove):
            paths.rename("/a", target)

    assert await read_tree(fs) == {"a": {"b": {}}}


async def test_08_a_rename_does_not_replace(fs, paths):
    await make_tree(fs, {"a": b"1", "b": b"2"})

    with pytest.raises(AlreadyExists):
        paths.rename("/a", "/b")
    paths.rename("/a", "/a")

    assert await read_tree(fs) == {"a": b"1", "b": b"2"}


async def test_09_encoding_of_dir_name(paths, documents):
    await paths.mkdir("/encoding")
    composed = f"/encoding/{nfc('chaîne')}"
    decomposed = f"/encoding/{nfd('chaîne')}"
    await paths.write_file(composed, b"nfc")
    await paths.write_file(decomposed, b"nfd")

    assert await paths.read_file(composed) == b"nfc"
    assert await paths.read_file(decomposed) == b"nfd"
    one, two = (documents.get(paths.resolve(path).ino) for path in (composed, decomposed))
    assert one["_id"] != two["_id"]
    assert (one["name"], two["name"]) == (nfc("chaîne"), nfd("chaîne"))


async def test_10_change_encoding_of_dir_name(fs, paths, documents):
    composed, decomposed = f"/{nfc('été')}", f"/{nfd('été')}"
    await make_tree(fs, {composed[1:]: {"foo": {}, "bar": b"x"}})

    for old, new in ((composed, decomposed), (decomposed, composed)):
        paths.rename(old, new)
        directory = paths.resolve(new)
        assert documents.get(directory.ino)["path"] == new
        assert await paths.read_file(f"{new}/bar") == b"x"
        with pytest.raises(NotFound):
            paths.resolve(old)


WALKED = {"walk": {"dirchild1": {"food": {}, "bard": {}}, "dirchild2": {"foof": None}, "x": None}}
EXPECTED = [
    "/walk",
    "/walk/dirchild1",
    "/walk/dirchild1/bard",
    "/walk/dirchild1/food",
    "/walk/dirchild2",
    "/walk/dirchild2/foof",
    "/walk/dirchild3",
    "/walk/dirchild3/y",
    "/walk/x",
]


async def test_11_walk(fs, paths, documents):
    await make_tree(fs, {"walk": {**WALKED["walk"], "dirchild3": {"y": None}}})

    assert below(paths, "/walk") == EXPECTED
    for step in paths.walk("/walk"):
        if stat.S_ISDIR(step.inode.mode):
            assert documents.get(step.inode.ino)["path"] == step.path


async def test_12_walk_already_locked(fs, paths):
    await make_tree(fs, WALKED)
    inode = paths.resolve("/walk/x")
    handle = await fs.files.open(inode.ino, 0, 0)

    # Everything that could be locked is: a file's node, and a transaction of the index.
    async with handle.node.lock:
        with fs.index.transaction():
            assert len(below(paths, "/walk")) == 7

    await fs.files.release(handle.fh)
    fs.released(inode.ino)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("foo.jpg", 'inline; filename="foo.jpg"'),
        ("foo bar.jpg", "inline; filename=\"foobar.jpg\"; filename*=UTF-8''foo%20bar.jpg"),
        ("héçà", "inline; filename=\"h\"; filename*=UTF-8''h%C3%A9%C3%A7%C3%A0"),
        ("tab\t", "inline; filename=\"tab\"; filename*=UTF-8''tab%09"),
        ("🐧", "inline; filename=\"download\"; filename*=UTF-8''%F0%9F%90%A7"),
    ],
)
def test_13_content_disposition(name, expected):
    assert content_disposition("inline", name) == expected


async def test_14_archive(fs, paths):
    tree = {
        "archive": {
            "foo.jpg": b"foo",
            "foobar.jpg": b"foobar",
            "hello.jpg": b"hello",
            "bar": {"baz": {"one.png": b"1", "two.png": b"2"}, "z.gif": b"z"},
            "qux": {"quux": b"no"},
        }
    }
    await make_tree(fs, tree)
    doc_id = paths.resolve("/archive/foobar.jpg").doc_id

    data = b"".join(
        [
            chunk
            async for chunk in archive(
                paths, "test", ids=[doc_id], files=["/archive/foo.jpg", "/archive/bar"]
            )
        ]
    )

    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        assert found.namelist() == [
            "test/foobar.jpg",
            "test/foo.jpg",
            "test/bar/",
            "test/bar/baz/",
            "test/bar/baz/one.png",
            "test/bar/baz/two.png",
            "test/bar/z.gif",
        ]
        assert found.read("test/foobar.jpg") == b"foobar"
        assert found.read("test/bar/z.gif") == b"z"
    assert archive_headers("test") == {
        "Content-Type": "application/zip",
        "Content-Disposition": 'attachment; filename="test.zip"',
    }
    await paths.remove_all("/archive")
    assert await read_tree(fs) == {}


async def test_15_create_file_too_big(fs, paths):
    fs.quota.limit = 1024
    with pytest.raises(QuotaExceeded):
        await paths.write_file("/too-big", bytes(1025), size=1025)
    with pytest.raises(LengthMismatch):
        await paths.write_file("/empty", b"", size=512)
    assert await read_tree(fs) == {}

    await paths.write_file("/half", bytes(512), size=512)
    assert paths.disk_usage() == 512

    inode, handle = fs.create(ROOT_INO, b"unknown", 0o644, os.O_WRONLY, 1000, 1000)
    with pytest.raises(QuotaExceeded):
        await fs.files.write(handle.fh, 0, bytes(513))
    with pytest.raises(QuotaExceeded):
        await fs.files.flush(handle.fh)
    await fs.files.release(handle.fh)
    fs.released(inode.ino)
    assert await read_tree(fs) == {"half": bytes(512)}


async def test_16_create_file_doc_copy(fs, paths, documents):
    await make_tree(fs, {"from": {"file": b"content"}, "to": {}})
    source = paths.resolve("/from/file")
    documents.patch(source.ino, {"referenced_by": [{"id": "x", "type": "io.cozy.albums"}]})

    copied = await copy_file(fs, source.ino, paths.resolve("/to").ino, b"copy.txt")

    old, new = documents.get(source.ino), documents.get(copied.ino)
    assert (new["name"], new["dir_id"]) == ("copy.txt", paths.resolve("/to").doc_id)
    assert (new["mime"], new["class"]) == ("text/plain", "text")
    assert (new["size"], new["md5sum"]) == (old["size"], old["md5sum"])
    for field in ("_id", "internal_vfs_id", "created_at"):
        assert new[field] != old[field]
    assert "referenced_by" not in new
    assert await paths.read_file("/to/copy.txt") == b"content"


async def test_16_a_copy_outlives_its_source(fs, paths):
    await paths.write_file("/file", b"content")
    await copy_file(fs, paths.resolve("/file").ino, ROOT_INO, b"copy")

    paths.remove("/file")

    assert await paths.read_file("/copy") == b"content"
    assert len(object_keys(fs)) == 2  # the source's waits for its deletion


async def test_17_conflict_name(fs, paths):
    names = ["existing", "existing (2)", "existing (3)", "existing (copy)"]
    await make_tree(fs, {"conflict": dict.fromkeys(names)})

    def taken(name):
        return paths.exists(f"/conflict/{name}")

    assert conflict_name("existing", True, taken) == "existing (4)"
    assert conflict_name("existing (3)", True, taken) == "existing (4)"
    assert conflict_name("existing (copy)", True, taken) == "existing (copy) (2)"
    directory, existing = paths.resolve("/conflict").ino, paths.resolve("/conflict/existing").ino
    assert free_copy_name(fs, existing, directory) == b"existing (copy) (2)"


def test_18_check_available_space():
    assert check_available_space(100, 0, 0).new_size == 100
    assert check_available_space(100, 100, 0) == (100, 100, 90)
    with pytest.raises(QuotaExceeded):
        check_available_space(101, 100, 0)
    with pytest.raises(FileTooLarge):
        check_available_space(MAX_FILE_SIZE + 1, 0, 0)


@pytest.mark.parametrize("kind", ["19_file", "20_dir"])
async def test_update_metadata_field(paths, documents, kind):
    make = paths.write_file if kind == "19_file" else paths.mkdir
    ino = (await make("/patched")).ino

    documents.patch_metadata(ino, {"k1": "v1", "k2": 2})
    assert documents.get(ino)["metadata"] == {"k1": "v1", "k2": 2}

    documents.patch_metadata(ino, {"only": True})
    assert documents.get(ino)["metadata"] == {"only": True}
