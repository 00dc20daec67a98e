"""Every way in which tree and store can disagree: reported, repaired where that is possible, clean
after, and nothing deleted that something could still need."""

from __future__ import annotations

import json
import time

import pytest
import trio
from fsck_world import (
    ORPHANS,
    damage,
    file_of,
    fsck,
    is_found,
    is_repaired,
    key_of,
    put,
    record,
    rot,
    types,
)
from vfs_world import (
    BUCKET,
    KIB,
    MIB,
    PREFIX,
    USER,
    close,
    create,
    new_file,
    pattern,
    read_file,
    replace_file,
    write_all,
)

from cozyfs.errors import InstanceError, LeaseLost, StoreUnavailable
from cozyfs.index import MARKERS, Version
from cozyfs.journal import rollforward
from cozyfs.store.keys import thumb_name
from cozyfs.values import ROOT_INO, VersionRules

DAY_NS = 86_400 * 10**9
LATER_NS = 30 * DAY_NS


@pytest.fixture
def world(world):
    record(world)
    return world


def later():
    return time.time_ns() + LATER_NS


def keep_version(fs, ino):
    """The current content of a file becomes a version when it is replaced next."""
    inode = fs.index.get(ino)
    version = Version(
        *(inode.doc_id, inode.internal_id, 1, inode.mtime_ns, inode.size, inode.stored),
        *(inode.md5, inode.etag, inode.extents, inode.object_doc_id, json.dumps({})),
    )
    fs.index.add_version(version)
    return version


# ---- objects that are not there


async def test_a_file_whose_object_is_gone_gets_its_newest_version(world):
    async with world.mount(version_rules=VersionRules()) as fs:
        ino = await new_file(fs, b"f", b"first")
        first = keep_version(fs, ino)
        await replace_file(fs, ino, b"second")
        lost = key_of(fs, ino)
        world.store.delete(BUCKET, lost)

        (found,) = await is_repaired(fs, "filesystem_missing")

        assert found["is_file"]
        assert found["file_doc"]["path"] == "/f"
        assert f"{PREFIX}/{found['object']}" == lost
        assert found["before"]["size"] == 6
        assert await read_file(fs, ino) == b"first"
        assert fs.index.get(ino).mtime_ns == first.updated_ns
        assert fs.index.versions_of(fs.index.get(ino).doc_id) == []
        assert world.queued(fs) == set()


async def test_a_version_whose_object_is_gone_too_is_passed_over(world):
    async with world.mount(version_rules=VersionRules()) as fs:
        ino = await new_file(fs, b"f", b"first")
        keep_version(fs, ino)
        await replace_file(fs, ino, b"second")
        newer = keep_version(fs, ino)._replace(created_ns=2)
        damage(fs, "UPDATE versions SET created_ns = 2 WHERE size = 6")
        await replace_file(fs, ino, b"third")
        world.store.delete(BUCKET, key_of(fs, ino))
        world.store.delete(BUCKET, fs.objects.key(newer.content_doc_id, newer.internal_id))

        await is_repaired(fs, "filesystem_missing", "filesystem_missing")

        assert await read_file(fs, ino) == b"first"


async def test_a_file_that_is_lost_is_empty_in_the_directory_of_orphans(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"lost")
        fs.link(ino, ROOT_INO, b"g")
        world.store.delete(BUCKET, key_of(fs, ino))

        (found,) = await is_repaired(fs, "filesystem_missing")

        assert found["before"]["md5sum"] is not None
        assert fs.index.get(ino).size == 0
        orphans = fs.lookup(ROOT_INO, ORPHANS).ino
        assert [name for name, _ in fs.index.children(orphans, b"", 9)] == [b"f", b"g"]
        assert world.queued(fs) == set(), "the object would be deleted, should it turn up again"


async def test_a_lost_object_that_turns_up_again_comes_back(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"lost")
        key = key_of(fs, ino)
        path = file_of(world, key)
        aside = path.with_name("aside")
        path.rename(aside)
        await fsck(fs, repair=True)
        aside.rename(path)

        (found,) = await is_repaired(fs, "index_missing")

        assert found["repaired"]
        copies = [
            inode.ino
            for _, inode in fs.index.children(fs.lookup(ROOT_INO, ORPHANS).ino, b"", 9)
            if inode.size
        ]
        assert await read_file(fs, copies[0]) == b"lost"


async def test_a_version_whose_object_is_gone_is_forgotten(world):
    async with world.mount(version_rules=VersionRules()) as fs:
        ino = await new_file(fs, b"f", b"first")
        version = keep_version(fs, ino)
        await replace_file(fs, ino, b"second")
        world.store.delete(BUCKET, fs.objects.key(version.doc_id, version.internal_id))

        (found,) = await is_repaired(fs, "filesystem_missing")

        assert found["is_version"]
        assert found["version_doc"]["_id"] == f"{version.doc_id}/{version.internal_id}"
        assert await read_file(fs, ino) == b"second"


async def test_a_file_that_is_being_written_is_left_alone(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"first")
        world.store.delete(BUCKET, key_of(fs, ino))
        handle = await fs.files.open(ino, 1, USER)
        await fs.files.write(handle.fh, 0, b"x")

        (found,) = await fsck(fs, repair=True)

        assert not found["repaired"]
        assert "being written" in found["problem"]


async def test_a_bucket_that_shows_nothing_loses_no_file(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        world.store.delete(BUCKET, f"{PREFIX}/.cozyfs/instance.json")
        with pytest.raises(InstanceError, match="does not show"):
            await fsck(fs, repair=True)
        assert fs.index.get(ino).size == 7


async def test_a_store_that_fails_ends_the_check_with_its_error(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        world.store.fail("list")
        with pytest.raises(StoreUnavailable):
            await fsck(fs, repair=True)
        world.store.delete(BUCKET, key_of(fs, ino))
        world.store.fail("head")
        with pytest.raises((StoreUnavailable, ExceptionGroup)):
            await fsck(fs, repair=True)
        assert fs.index.get(ino).size == 7


# ---- objects that differ


async def test_an_object_of_another_size_is_found_and_its_facts_are_taken(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"right")
        was = fs.index.get(ino)
        world.store.put(BUCKET, key_of(fs, ino), b"longer than it was")

        (found,) = await is_repaired(fs, "content_mismatch")

        assert found["content_mismatch"]["size_index"] == 5
        assert found["content_mismatch"]["size_file"] == 18
        assert found["content_mismatch"]["md5sum_index"] == found["before"]["md5sum"]
        assert found["before"]["etag"] == was.etag
        assert await read_file(fs, ino) == b"longer than it was"
        assert fs.index.get(ino).mtime_ns == was.mtime_ns


async def test_an_object_with_other_bytes_of_the_same_number_is_found(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"right")
        world.store.put(BUCKET, key_of(fs, ino), b"wrong")
        await is_repaired(fs, "content_mismatch")
        assert await read_file(fs, ino) == b"wrong"


async def test_a_version_that_differs_is_found_and_its_facts_are_taken(world):
    async with world.mount(version_rules=VersionRules()) as fs:
        ino = await new_file(fs, b"f", b"first")
        version = keep_version(fs, ino)
        await replace_file(fs, ino, b"second")
        world.store.put(BUCKET, fs.objects.key(version.doc_id, version.internal_id), b"other one")

        (found,) = await is_repaired(fs, "content_mismatch")

        assert found["is_version"]
        (now,) = fs.index.versions_of(version.doc_id)
        assert (now.size, now.created_ns) == (9, version.created_ns)
        assert world.queued(fs) == set()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE inodes SET stored = 9, size = 9 WHERE ino = ?",
        "UPDATE inodes SET etag = 'e' WHERE ino = ?",
        "UPDATE inodes SET md5 = x'00112233445566778899aabbccddeeff' WHERE ino = ?",
    ],
)
async def test_a_row_that_is_wrong_is_put_right(world, sql):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"right")
        was = fs.index.get(ino)
        damage(fs, sql, (ino,))
        await is_repaired(fs, "content_mismatch")
        now = fs.index.get(ino)
        assert (now.size, now.stored, now.md5, now.etag) == (5, 5, was.md5, was.etag)


async def test_bytes_that_differ_from_their_checksum_are_found_by_reading_and_left(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"right")
        rot(world, key_of(fs, ino))
        await is_found(fs)
        await is_found(fs, "content_mismatch", deep=True)

        (found,) = await fsck(fs, deep=True, repair=True)

        assert not found["repaired"]
        assert "checksum" in found["problem"]
        assert fs.index.get(ino).size == 5


async def a_stream(fs, name, size):
    """A file whose object is one of several parts."""
    inode, handle = create(fs, name)
    await write_all(fs, handle, pattern(size), step=MIB)
    await close(fs, handle)
    assert "-" in fs.index.get(inode.ino).etag
    return inode.ino


async def test_a_content_of_parts_is_compared_as_well(world):
    async with world.mount() as fs:
        ino = await a_stream(fs, b"f", 20 * MIB)
        assert await fsck(fs, deep=True) == []
        rot(world, key_of(fs, ino), at=12 * MIB)
        await is_found(fs)
        (found,) = await is_found(fs, "content_mismatch", deep=True)
        assert found["content_mismatch"]["etag_file"].endswith("-3")


async def test_a_content_of_parts_of_another_size_is_found_without_reading(world):
    async with world.mount() as fs:
        ino = await a_stream(fs, b"f", 20 * MIB)
        damage(fs, "UPDATE inodes SET stored = stored + 1 WHERE ino = ?", (ino,))
        await is_found(fs, "content_mismatch")


async def test_an_etag_of_parts_is_computed_again_where_no_md5_is_known(world):
    async with world.mount() as fs:
        ino = await a_stream(fs, b"f", 20 * MIB)
        damage(fs, "UPDATE inodes SET md5 = NULL, etag = 'other-3' WHERE ino = ?", (ino,))
        await is_repaired(fs, "content_mismatch")
        assert fs.index.get(ino).md5 is not None


async def test_etags_that_are_no_md5_of_a_server_that_encrypts_are_no_mismatch(world):
    class Encrypting:
        """Its ETags look like an MD5, and are none."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def head(self, bucket, key):
            return self._changed(self._inner.head(bucket, key))

        def list(self, bucket, prefix="", start_after=""):
            return map(self._changed, self._inner.list(bucket, prefix, start_after))

        def _changed(self, info):
            import dataclasses

            return dataclasses.replace(info, etag=info.etag[::-1])

    async with world.mount() as fs:
        for number in range(5):
            await new_file(fs, b"f%d" % number, b"content %d" % number)
        for ino, etag in fs.index.connection.execute(
            "SELECT ino, etag FROM inodes WHERE etag NOT NULL"
        ).fetchall():
            damage(fs, "UPDATE inodes SET etag = ? WHERE ino = ?", (etag[::-1], ino))
        fs.objects.store = Encrypting(world.store)
        assert await fsck(fs) == []
        assert await fsck(fs, deep=True) == []


async def test_a_content_with_holes_is_compared_by_its_trailer(world, small):
    async with world.mount() as fs:
        inode, handle = create(fs, b"sparse")
        await fs.files.write(handle.fh, 0, b"start")
        await fs.files.write(handle.fh, 8 * MIB, b"end")
        await close(fs, handle)
        now = fs.index.get(inode.ino)
        assert now.extents is not None
        assert now.stored < now.size
        assert await fsck(fs, deep=True) == []
        damage(fs, "UPDATE inodes SET stored = stored + 1 WHERE ino = ?", (inode.ino,))
        await is_repaired(fs, "content_mismatch")
        assert fs.index.get(inode.ino) == now._replace(ctime_ns=fs.index.get(inode.ino).ctime_ns)


# ---- objects that nothing leads to


async def test_an_object_without_a_row_is_a_file_again_where_it_was(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f.txt", b"content")
        was = fs.index.get(ino)
        damage(fs, "DELETE FROM inodes WHERE ino = ?", (ino,))
        damage(fs, "DELETE FROM entries WHERE ino = ?", (ino,))

        (found,) = await is_repaired(fs, "index_missing")

        assert found["file_doc"]["name"] == "f.txt"
        assert found["file_doc"]["mime"] == "text/plain"
        back = fs.lookup(ROOT_INO, b"f.txt")
        assert (back.doc_id, back.md5, back.mtime_ns) == (was.doc_id, was.md5, was.mtime_ns)


async def test_an_object_that_says_nothing_of_itself_comes_back_under_its_id(world):
    async with world.mount() as fs:
        put(world, "d" * 32, "i" * 16)
        await is_repaired(fs, "index_missing")
        ino = fs.index.resolve(b"/.cozy_orphans/" + b"d" * 32).ino
        assert await read_file(fs, ino) == b"12345"


async def test_a_second_content_of_a_file_comes_back_beside_it(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        doc_id = fs.index.get(ino).doc_id
        put(world, doc_id, "i" * 16, b"another")

        await is_repaired(fs, "index_missing")

        assert await read_file(fs, ino) == b"content"
        back = fs.index.resolve(b"/.cozy_orphans/" + doc_id.encode())
        assert await read_file(fs, back.ino) == b"another"
        assert back.doc_id != doc_id


async def test_what_waits_for_its_deletion_is_no_finding(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"first")
        await replace_file(fs, ino, b"second")
        assert len(world.queued(fs)) == 1
        assert await fsck(fs) == []


async def test_what_should_have_been_deleted_long_ago_goes(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"first")
        old = key_of(fs, ino)
        await replace_file(fs, ino, b"second")
        await is_repaired(fs, "deletion_leftover", clock=later)
        assert old not in world.keys()  # noqa: SIM118  no dictionary
        assert await fsck(fs, clock=later, retention_s=60 * 86_400.0) == []


async def test_an_object_that_a_draft_goes_on_from_is_no_finding(world, small):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, pattern(300 * KIB), step=16 * KIB)
        await fs.files.write(handle.fh, 0, b"x")  # the stream ends as an intermediate object
        assert inode.ino
        assert await fsck(fs, clock=later) == []
        assert await fsck(fs, clock=later, repair=True) == []
        await close(fs, handle)
        assert await fsck(fs) == []


async def test_a_young_object_of_an_instance_in_use_is_no_finding(world):
    async with world.mount() as fs:
        put(world, "d" * 32, "i" * 16)
        assert await fsck(fs, is_live=True) == []
        assert types(await fsck(fs)) == ["index_missing"]


async def test_a_row_that_comes_while_we_look_is_no_finding(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        inode = fs.index.get(ino)
        damage(fs, "UPDATE inodes SET internal_id = NULL WHERE ino = ?", (ino,))
        gate = world.store.gate("head")

        async def commit():
            await fs.objects.caller.disk(gate.reached.wait)
            damage(fs, "UPDATE inodes SET internal_id = ? WHERE ino = ?", (inode.internal_id, ino))
            gate.open()

        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            found = await fsck(fs)
        assert found == []


async def test_who_lost_the_lease_repairs_nothing(world):
    async def refuse():
        raise LeaseLost("another one writes")

    async with world.mount() as fs:
        damage(fs, "UPDATE inodes SET nlink = 7 WHERE ino = 1")
        fs.confirm = refuse
        with pytest.raises(LeaseLost):
            await fsck(fs, repair=True)
        assert fs.index.get(ROOT_INO).nlink == 7


# ---- thumbnails, uploads, what else is there


@pytest.mark.parametrize("doc_id", ["d" * 32, "019d35b1-9dc3-78ec-994d-f5443367f1b6"])
@pytest.mark.parametrize("kind", ["tiny", "small", "medium", "large"])
async def test_a_thumbnail_without_a_file_goes(world, doc_id, kind):
    async with world.mount() as fs:
        key = f"{PREFIX}/thumbs/{thumb_name(doc_id)}-{kind}"
        world.store.put(BUCKET, key, b"jpeg")
        (found,) = await is_repaired(fs, "thumbnail_with_no_file")
        assert found["file_doc"]["_id"] == doc_id
        assert found["file_doc"]["name"].startswith("thumbs/")
        assert key not in world.keys()  # noqa: SIM118  no dictionary


async def test_a_thumbnail_of_a_file_stays(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f.jpg", b"image")
        doc_id = fs.index.get(ino).doc_id
        assert len(doc_id) == 32  # split in keys: the Cozy server tells a false finding of each
        world.store.put(BUCKET, f"{PREFIX}/thumbs/{thumb_name(doc_id)}-large", b"jpeg")
        assert await fsck(fs, repair=True) == []


async def test_an_image_of_a_note_that_is_gone_is_told_and_stays(world):
    async with world.mount() as fs:
        key = f"{PREFIX}/thumbs/{'n' * 32}/019d35b1-9dc3-78ec-994d-f5443367f1b6-original"
        world.store.put(BUCKET, key, b"image")
        (found,) = await fsck(fs, repair=True)
        assert (found["type"], found["repaired"]) == ("thumbnail_with_no_file", False)
        assert found["file_doc"]["_id"] == "n" * 32
        assert key in world.keys()  # noqa: SIM118  no dictionary


async def test_an_image_of_a_note_and_the_avatar_are_no_findings(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"a.cozy-note", b"note")
        image = f"thumbs/{fs.index.get(ino).doc_id}/019d35b1-9dc3-78ec-994d-f5443367f1b6-thumb"
        for name in (image, "avatar"):
            world.store.put(BUCKET, f"{PREFIX}/{name}", b"image")
        assert await fsck(fs) == []


@pytest.mark.parametrize("name", [b"a.cozy-note", b"a.jpg"])
async def test_what_lies_beside_a_document_that_waits_is_no_finding(world, name):
    async with world.mount() as fs:
        doc_id = fs.index.get(await new_file(fs, name, b"content")).doc_id
        image = f"{PREFIX}/thumbs/{doc_id}/019d35b1-9dc3-78ec-994d-f5443367f1b6-original"
        small = f"{PREFIX}/thumbs/{thumb_name(doc_id)}-tiny"
        for key in (image, small):
            world.store.put(BUCKET, key, b"image")
        fs.unlink(ROOT_INO, name)
        assert await fsck(fs, repair=True) == []
        assert {image, small} <= world.keys()
        fs.index.forget_deletions(fs.index.due_deletions(1 << 62, 100))
        world.store.delete(BUCKET, image)
        assert "thumbnail_with_no_file" in types(await fsck(fs))


async def test_thumbnails_of_a_file_that_took_the_place_of_another_are_no_finding(world):
    async with world.mount(version_rules=VersionRules(20, 0.0)) as fs:
        await new_file(fs, b"a.jpg", b"1")
        doc_id = fs.index.get(await new_file(fs, b"b.jpg", b"2")).doc_id
        world.store.put(BUCKET, f"{PREFIX}/thumbs/{thumb_name(doc_id)}-tiny", b"image")
        fs.rename(ROOT_INO, b"b.jpg", ROOT_INO, b"a.jpg", 0)
        assert await fsck(fs) == []


@pytest.mark.parametrize("marker", MARKERS)
async def test_what_marks_things_beside_a_document_is_taken_for_no_object(world, marker):
    async with world.mount() as fs:
        fs.index.queue_deletion("d" * 32, marker, 1)
        assert await fsck(fs, clock=later) == []
        key = f"{PREFIX}/{'d' * 32}/{marker}"
        world.store.put(BUCKET, key, b"?")
        (found,) = await fsck(fs, clock=later, repair=True)
        assert (found["type"], found["repaired"]) == ("unknown_object", False)
        assert await rollforward.find(fs.index, fs.objects, None) == ([], [])
        assert key in world.keys()  # noqa: SIM118  no dictionary
        damage(fs, "UPDATE inodes SET internal_id = ? WHERE ino = 2", (marker,))
        assert "queued_but_used" not in types(await fsck(fs))


@pytest.mark.parametrize(
    "name",
    [
        "alone",
        f"{'d' * 32}/{'i' * 16}",
        "a/b/c",
        "thumbs/nothing",
        "thumbs/x-huge",
        ".cozyfs/other",
        ".cozyfs/journal/x",
    ],
)
async def test_what_cozyfs_does_not_know_is_told_and_stays(world, name):
    async with world.mount() as fs:
        world.store.put(BUCKET, f"{PREFIX}/{name}", b"?")
        (found,) = await fsck(fs, repair=True)
        assert (found["type"], found["object"], found["repaired"]) == (
            *("unknown_object", name, False),
        )
        assert f"{PREFIX}/{name}" in world.keys()  # noqa: SIM118  no dictionary


async def test_an_upload_that_was_never_finished_goes_when_it_is_old(world):
    async with world.mount() as fs:
        world.store.create_multipart(BUCKET, f"{PREFIX}/a/b", content_type="text/plain")
        world.store.create_multipart(BUCKET, "other/a/b", content_type="text/plain")
        assert await fsck(fs) == []
        (found,) = await is_repaired(fs, "unfinished_upload", clock=later)
        assert found["object"] == "a/b"
        assert [upload.key for upload in world.uploads()] == ["other/a/b"]


async def test_an_upload_under_way_stays(world, small):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        await write_all(fs, handle, pattern(300 * KIB), step=16 * KIB)
        for _ in range(1000):  # begun by a task of its own
            if world.uploads():
                break
            await trio.sleep(0.01)
        assert world.uploads()
        assert await fsck(fs, clock=later, repair=True) == []
        await close(fs, handle)


# ---- how it runs


async def test_fail_fast_stops_at_the_first_finding(world):
    async with world.mount() as fs:
        await new_file(fs, b"f", b"content")
        damage(fs, "UPDATE inodes SET nlink = 7")
        put(world, "d" * 32, "i" * 16)
        calls = world.store.calls["list"]
        assert types(await fsck(fs, fail_fast=True)) == ["index_bad_links"]
        assert world.store.calls["list"] == calls, "the store was looked at"


async def test_no_finding_names_the_bucket_or_the_prefix(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        gone = await new_file(fs, b"g", b"content")
        world.store.put(BUCKET, key_of(fs, ino), b"other")
        world.store.delete(BUCKET, key_of(fs, gone))
        put(world, "d" * 32, "i" * 16)
        world.store.put(BUCKET, f"{PREFIX}/thumbs/x-tiny", b"")
        found = await fsck(fs)
        assert len(found) == 4
        assert PREFIX not in json.dumps(found)
        assert BUCKET not in json.dumps(found)
