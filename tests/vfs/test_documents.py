"""Documents: which fields there are, dates, and what a patch may change."""

from __future__ import annotations

import os

import pytest
import trio
from world import check, open_fs

from cozyfs.errors import InvalidRequest, NotFound
from cozyfs.store import LocalStore
from cozyfs.values import ROOT_DOC_ID, ROOT_INO, TRASH_DOC_ID, TRASH_INO, AttributeChanges
from cozyfs.vfs.documents import Documents, format_time, parse_time
from cozyfs.vfs.paths import Paths

NOW = 1_700_000_000_250_000_000
NOW_TEXT = "2023-11-14T22:13:20.25Z"


@pytest.fixture
async def fs(tmp_path):
    store = LocalStore(tmp_path / "store", durable=False)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path, clock=lambda: NOW) as fs:
            yield fs
            await check(fs)


@pytest.fixture
def paths(fs):
    return Paths(fs)


@pytest.fixture
def documents(fs):
    return Documents(fs)


async def test_the_root_has_no_name_and_no_parent(documents):
    assert documents.get(ROOT_INO) == {
        "_id": ROOT_DOC_ID,
        "type": "directory",
        "path": "/",
        "created_at": NOW_TEXT,
        "updated_at": NOW_TEXT,
    }


async def test_the_trash_is_a_directory_of_the_root(documents):
    document = documents.get(TRASH_INO)

    assert document["_id"] == TRASH_DOC_ID
    assert (document["path"], document["dir_id"]) == ("/.cozy_trash", ROOT_DOC_ID)
    assert document["name"] == ".cozy_trash"


async def test_a_file_has_every_field_of_the_format(paths, documents):
    inode = await paths.write_file("/hello.txt", b"hello !", mode=0o755)

    assert documents.get(inode.ino) == {
        "_id": inode.doc_id,
        "type": "file",
        "name": "hello.txt",
        "dir_id": ROOT_DOC_ID,
        "created_at": NOW_TEXT,
        "updated_at": NOW_TEXT,
        "size": "7",
        "md5sum": "MHm6zuV/0aAEzvWpObXh4A==",
        "mime": "text/plain",
        "class": "text",
        "executable": True,
        "trashed": False,
        "encrypted": False,
        "internal_vfs_id": inode.internal_id,
    }


async def test_a_file_in_the_trash_is_trashed_at_any_depth(paths, documents):
    await paths.mkdir_all("/a/b")
    ino = (await paths.write_file("/a/b/file")).ino

    paths.rename("/a", "/.cozy_trash/a")
    assert documents.get(ino)["trashed"] is True

    paths.rename("/.cozy_trash/a", "/.cozy_trash2")
    assert documents.get(ino)["trashed"] is False


async def test_a_content_that_is_not_stored_yet_has_no_md5sum(fs, paths, documents):
    inode = await paths.write_file("/file", b"1")
    handle = await fs.files.open(inode.ino, os.O_WRONLY, 0)
    await fs.files.write(handle.fh, 1, b"23")

    document = documents.get(inode.ino)

    assert document["size"] == "3"
    assert "md5sum" not in document
    await fs.files.release(handle.fh)
    fs.released(inode.ino)
    assert "md5sum" in documents.get(inode.ino)


async def test_a_sparse_content_has_no_md5sum(fs, paths, documents):
    inode = await paths.write_file("/sparse", b"start")
    await fs.files.truncate(inode.ino, 64 << 20, 0)

    document = documents.get(inode.ino)

    assert document["size"] == str(64 << 20)
    assert "md5sum" not in document
    assert "internal_vfs_id" in document


async def test_a_file_was_never_created_after_it_was_updated(fs, paths, documents):
    inode = await paths.write_file("/old")
    await fs.set_attributes(inode.ino, AttributeChanges(mtime_ns=10**9), None, 0)

    document = documents.get(inode.ino)

    assert document["created_at"] == document["updated_at"] == "1970-01-01T00:00:01Z"


async def test_a_cozy_knows_no_symbolic_links(fs, documents):
    link = fs.symlink(ROOT_INO, b"link", b"target", 0, 0)

    with pytest.raises(InvalidRequest):
        documents.get(link.ino)


async def test_a_removed_file_has_no_document(paths, documents):
    inode = await paths.write_file("/file")
    paths.remove("/file")

    with pytest.raises(NotFound):
        documents.get(inode.ino)


# ---- patches


async def test_tags_are_trimmed_and_unique_in_their_order(paths, documents):
    ino = (await paths.write_file("/file")).ino

    documents.patch(ino, {"tags": [" b", "a", "", "b", " "]})

    assert documents.get(ino)["tags"] == ["b", "a"]


async def test_a_patch_leaves_other_fields_alone_and_removes_empty_ones(paths, documents):
    ino = (await paths.mkdir("/a")).ino
    documents.patch(ino, {"metadata": {"k": 1}, "tags": ["t"], "restore_path": "/x"})

    documents.patch(ino, {"metadata": {}, "tags": None})

    assert documents.get(ino)["restore_path"] == "/x"
    assert not {"metadata", "tags"} & documents.get(ino).keys()


@pytest.mark.parametrize("field", ["name", "size", "md5sum", "path", "trashed", "_id"])
async def test_what_the_tree_says_cannot_be_patched(paths, documents, field):
    ino = (await paths.write_file("/file")).ino

    with pytest.raises(InvalidRequest):
        documents.patch(ino, {field: "x", "tags": ["t"]})

    assert "tags" not in documents.get(ino)


async def test_documents_are_found_by_their_ids(paths, documents):
    await paths.mkdir_all("/a/b")
    inode = await paths.write_file("/a/b/file")

    found = documents.find([inode.doc_id, ROOT_DOC_ID, TRASH_DOC_ID, "unknown"])

    assert found == {inode.doc_id: inode.ino, ROOT_DOC_ID: ROOT_INO, TRASH_DOC_ID: TRASH_INO}


# ---- dates


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (100_000_000, "1970-01-01T00:00:00.1Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (NOW, NOW_TEXT),
        (253_402_300_799_999_999_999, "9999-12-31T23:59:59.999999999Z"),
        (-62_135_596_800_000_000_000, "0001-01-01T00:00:00Z"),
    ],
)
def test_dates_have_as_many_digits_as_they_need(time_ns, text):
    assert format_time(time_ns) == text
    assert parse_time(text) == time_ns


def test_a_date_may_have_any_offset():
    assert parse_time("1970-01-01T02:00:00.5+02:00") == 500_000_000


@pytest.mark.parametrize("text", ["", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00"])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_time(text)


def test_a_time_without_a_date_is_refused():
    with pytest.raises(InvalidRequest):
        format_time(1 << 100)
