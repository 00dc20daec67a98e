"""The zip files of a Cozy server's export, made here as that server makes them."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import zipfile

import pytest
import trio
from moving_world import caller, fsck, import_source, writing

from cozyfs.errors import ArchiveError, InstanceError
from cozyfs.moving.zip_reader import ZipReader
from cozyfs.values import TRASH_INO
from cozyfs.vfs.documents import parse_time

ROOT, TRASH = "io.cozy.files.root-dir", "io.cozy.files.trash-dir"
AT = "2024-05-06T07:08:09.25+02:00"
NOTES = "0123456789abcdef0123456789abcdef"


class Parts:
    """What such a server writes, part by part."""

    def __init__(self, folder):
        self._folder = folder
        self.paths = []

    def begin(self):
        number = len(self.paths)
        name = f"My Cozy - part{number:03}.zip" if number else "My Cozy.zip"
        self.paths.append(self._folder / name)
        self._zip = zipfile.ZipFile(self.paths[-1], "w", zipfile.ZIP_DEFLATED)
        if number == 0:
            self.add("Data/instance.json", json.dumps({"domain": "alice.example.com"}))
            self.add("Data/io.cozy.apps/io.cozy.apps/drive.json", "{}")
            self.directory(ROOT, "", None, "/")
            self.directory(TRASH, ".cozy_trash", ROOT, "/.cozy_trash")
        return self

    def end(self):
        self._zip.close()

    def add(self, name, data):
        self._zip.writestr(f"My Cozy/{name}", data)

    def document(self, doctype, document):
        self.add(f"Data/{doctype}/{document['_id']}.json", json.dumps(document))

    def directory(self, doc_id, name, parent, path, **more):
        document = {"_id": doc_id, "_rev": "1-a", "type": "directory", "path": path}
        document |= {"created_at": AT, "updated_at": AT, **more}
        if parent:
            document |= {"name": name, "dir_id": parent}
        self.document("io.cozy.files", document)

    def file(self, doc_id, name, parent, path, data, *, content=True, md5=None, **more):
        document = {"_id": doc_id, "_rev": "3-b", "type": "file", "name": name, "dir_id": parent}
        document |= {"created_at": AT, "updated_at": AT, "size": str(len(data))}
        document |= {"executable": False, "trashed": False, "encrypted": False}
        document |= {"internal_vfs_id": "AbCdEfGhIjKlMnOp", "mime": "text/plain", "class": "text"}
        document["md5sum"] = base64.b64encode(md5 or hashlib.md5(data).digest()).decode()
        self.document("io.cozy.files", document | more)
        if content:
            self.add(f"Files{path}", data)

    def version(self, doc_id, internal_id, data):
        document = {"_id": f"{doc_id}/{internal_id}", "_rev": "1-c", "updated_at": AT}
        document |= {"size": str(len(data)), "tags": None}
        document["md5sum"] = base64.b64encode(hashlib.md5(data).digest()).decode()
        document["cozyMetadata"] = {"createdAt": "2024-06-01T00:00:00Z"}
        document["relationships"] = {"file": {"data": {"_id": doc_id, "_type": "io.cozy.files"}}}
        self.document("io.cozy.files.versions", document)
        self.add(f"Files/{doc_id}/{internal_id}", data)


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path).begin()


async def bring_in(store, instance, folder, parts):
    with trio.fail_after(60):
        return await import_source(store, instance, folder, ZipReader(parts.paths, caller()))


def read(store, instance, inode):
    key = f"{instance.db_prefix}/{inode.doc_id}/{inode.internal_id}"
    if len(inode.doc_id) == 32:
        doc_id = inode.doc_id
        name = f"{doc_id[:22]}/{doc_id[22:27]}/{doc_id[27:]}/{inode.internal_id}"
        key = f"{instance.db_prefix}/{name}"
    return store.get(instance.bucket, key)


async def test_all_parts_become_the_instance(store, bob, tmp_path, parts):
    parts.directory("dir1", "Été", ROOT, "/Été", tags=["a"])
    certified = {"carbonCopy": True, "electronicSafe": True, "width": 4}
    parts.file(NOTES, "a.txt", "dir1", "/Été/a.txt", b"hello !", metadata=certified)
    parts.end()
    parts.begin()
    parts.file("exe", "run", ROOT, "/run", b"#!", executable=True)
    parts.version(NOTES, "3-0123", b"before")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert report.problems == []
    assert (report.files, report.versions) == (2, 1)
    with trio.fail_after(20):
        async with writing(store, bob, tmp_path / "b") as index:
            inode = index.resolve("/Été/a.txt".encode())
            assert inode.doc_id == NOTES
            assert inode.internal_id != "AbCdEfGhIjKlMnOp"
            assert (inode.mtime_ns, inode.btime_ns) == (parse_time(AT),) * 2
            assert read(store, bob, inode) == b"hello !"
            assert index.document(inode.ino) == {"metadata": {"width": 4}}
            (version,) = index.versions_of(NOTES)
            assert (version.internal_id, version.size) == ("3-0123", 6)
            assert version.created_ns == parse_time("2024-06-01T00:00:00Z")
            assert stat.S_IMODE(index.resolve(b"/run").mode) == 0o755
            assert index.document(index.resolve("/Été".encode()).ino) == {"tags": ["a"]}


async def test_documents_of_other_types_are_counted(store, bob, tmp_path, parts):
    for number in range(3):
        parts.add(f"Data/io.cozy.contacts/{number}.json", "{}")
    parts.add("Data/io.cozy.notes.images/note/uuid.json", "{}")
    parts.add("Data/io.cozy.notes.steps/note/0001.json", "{}")
    parts.add("Data/com.bitwarden%2Fciphers/a.json", "not even JSON")
    parts.file("one", "one", ROOT, "/one", b"1")
    parts.add("Data/io.cozy.sharings/one.json", "{}")
    parts.end()
    parts.begin()
    parts.add("Data/io.cozy.contacts/in the second part.json", "{}")
    parts.file("two", "two", ROOT, "/two", b"2")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert (report.files, report.problems) == (2, [])
    assert report.left_out == {
        "com.bitwarden/ciphers": 1,
        "io.cozy.apps": 1,
        "io.cozy.contacts": 4,
        "io.cozy.notes.images": 1,
        "io.cozy.notes.steps": 1,
        "io.cozy.sharings": 1,
    }


async def test_what_a_cozy_has_comes_in_sound(store, bob, tmp_path, parts):
    """Also what the server does not keep in order: no former place in the trash, no content in
    an empty file, a version of what has none."""
    parts.file("one", "one", TRASH, "/.cozy_trash/one", b"1", trashed=True)
    parts.directory("gone", "gone", TRASH, "/.cozy_trash/gone")
    parts.file("two", "two", "gone", "/.cozy_trash/gone/two", b"", trashed=True)
    parts.version("two", "AbCdEfGhIjKlMnOq", b"before")
    parts.version("one", "AbCdEfGhIjKlMnOr", b"")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert (report.files, report.versions, report.problems) == (2, 2, [])
    with trio.fail_after(20):
        assert await fsck(store, bob, tmp_path / "b") == []
        async with writing(store, bob, tmp_path / "b") as index:
            item = index.trash_item(index.lookup(TRASH_INO, b"one").ino)
            assert (item.restore_path, item.name) == (b"/", b"one")


async def test_what_was_in_the_trash_can_be_restored(store, bob, tmp_path, parts):
    trashed = {"trashed": True, "restore_path": "/Work"}
    name = "a.txt (012345678)"
    parts.file("one", name, TRASH, f"/.cozy_trash/{name}", b"x", **trashed)
    parts.end()

    await bring_in(store, bob, tmp_path / "b", parts)

    with trio.fail_after(20):
        async with writing(store, bob, tmp_path / "b") as index:
            inode = index.lookup(TRASH_INO, name.encode())
            item = index.trash_item(inode.ino)
            assert (item.restore_path, item.name) == (b"/Work", b"a.txt")
            assert item.trashed_ns == parse_time(AT)
            assert index.document(inode.ino) == {}


async def test_a_content_that_the_server_skipped_takes_no_other_ones(store, bob, tmp_path, parts):
    parts.file("one", "one", ROOT, "/one", b"first", content=False)
    parts.file("two", "two", ROOT, "/two", b"second")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert report.problems == ["/one: its content is not in the archive"]
    with trio.fail_after(20):
        async with writing(store, bob, tmp_path / "b") as index:
            assert read(store, bob, index.resolve(b"/two")) == b"second"
            assert index.with_doc_ids(["one"]) == {}


async def test_a_content_with_another_checksum_stays_out(store, bob, tmp_path, parts):
    parts.file("one", "one", ROOT, "/one", b"first", md5=bytes(16))
    parts.version("one", "AbCdEfGhIjKlMnOq", b"before")
    parts.file("two", "two", ROOT, "/two", b"second")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert report.files == 1
    assert "/one is not what its checksum says" in report.problems
    assert report.versions == 0


async def test_two_of_a_name_both_come_in(store, bob, tmp_path, parts):
    parts.file("one", "a.txt", ROOT, "/a.txt", b"1")
    with pytest.warns(UserWarning, match="Duplicate name"):
        parts.file("two", "a.txt", ROOT, "/a.txt", b"2")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert report.problems == []
    with trio.fail_after(20):
        async with writing(store, bob, tmp_path / "b") as index:
            assert read(store, bob, index.resolve(b"/a.txt")) == b"1"
            assert read(store, bob, index.resolve(b"/a (2).txt")) == b"2"


@pytest.mark.parametrize("name", ["..", "a/b", "", "x" * 300, "new\nline"])
async def test_a_name_that_no_file_may_have_stays_out(store, bob, tmp_path, parts, name):
    parts.file("one", name, ROOT, "/one", b"1")
    parts.file("two", "two", ROOT, "/two", b"2")
    parts.end()

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert (len(report.problems), report.files) == (1, 1)


@pytest.mark.parametrize("doc_id", ["..", ".cozyfs", "thumbs", "avatar", "", "_design"])
async def test_an_id_that_would_make_other_keys_stays_out(store, bob, tmp_path, parts, doc_id):
    parts.file(doc_id, "one", ROOT, "/one", b"1")
    parts.end()
    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert (len(report.problems), report.files) == (1, 0)


@pytest.mark.parametrize("entry", ["Files/../../etc/passwd", "Files/./x"])
async def test_an_entry_that_leads_out_refuses_the_archive(store, bob, tmp_path, parts, entry):
    parts.add(entry, b"x")
    parts.end()

    with pytest.raises(ArchiveError, match="not safe"):
        await bring_in(store, bob, tmp_path / "b", parts)


async def test_parts_without_the_first_are_refused(store, bob, tmp_path, parts):
    parts.end()
    parts.begin()
    parts.file("one", "one", ROOT, "/one", b"1")
    parts.end()
    parts.paths.pop(0)

    with pytest.raises(ArchiveError, match="not the first part"):
        await bring_in(store, bob, tmp_path / "b", parts)


async def test_parts_that_do_not_fit_the_quota_change_nothing(store, prefix, tmp_path, parts):
    from cozyfs import instances

    small = instances.create(store, prefix, "small.example.com", quota=10)
    parts.file("one", "one", ROOT, "/one", b"1" * 11)
    parts.end()

    with pytest.raises(InstanceError, match="may hold 10 bytes"):
        await bring_in(store, small, tmp_path / "b", parts)

    found = [info.key for info in store.list(small.bucket, f"{small.db_prefix}/")]
    assert found == [f"{small.db_prefix}/.cozyfs/instance.json"]


async def test_a_damaged_content_of_a_zip_stays_out_and_the_rest_comes_in(
    store, bob, tmp_path, parts
):
    parts.file("one", "one", ROOT, "/one", b"0123456789" * 100)
    parts.file("two", "two", ROOT, "/two", b"second")
    parts.end()
    (path,) = parts.paths
    with zipfile.ZipFile(path) as opened:
        at = opened.getinfo("My Cozy/Files/one").header_offset
    data = bytearray(path.read_bytes())
    data[at + 30 + len("My Cozy/Files/one") + 5] ^= 0xFF
    path.write_bytes(data)

    report = await bring_in(store, bob, tmp_path / "b", parts)

    assert (len(report.problems), report.files) == (1, 1)
