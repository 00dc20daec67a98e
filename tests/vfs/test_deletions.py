"""Objects that nothing refers to any more."""

from __future__ import annotations

import os
import time

import pytest
from vfs_world import BUCKET, close, new_file, replace_file

from cozyfs.errors import StoreUnavailable
from cozyfs.index import NOTE_IMAGES
from cozyfs.values import ROOT_INO, TRASH_INO, VersionRules
from cozyfs.vfs import deletions
from cozyfs.vfs.deletions import abort_uploads, delete_due, unfinished_uploads


async def removed_files(fs, count):
    for i in range(count):
        await new_file(fs, b"%d" % i, b"data %d" % i)
        fs.unlink(ROOT_INO, b"%d" % i)


async def test_an_object_waits_for_its_time(world):
    async with world.mount() as fs:
        await removed_files(fs, 1)
        assert await delete_due(fs.index, fs.objects, 3600.0, set) == 0
        assert len(world.keys()) == 1
        assert await delete_due(fs.index, fs.objects, -1.0, set) == 1
        assert world.keys() == set()
        assert fs.index.pending_deletions() == 0


async def test_objects_are_deleted_in_batches(world, monkeypatch):
    monkeypatch.setattr(deletions, "BATCH", 2)
    async with world.mount() as fs:
        await removed_files(fs, 5)
        assert await delete_due(fs.index, fs.objects, -1.0, set) == 5
        assert world.store.calls["delete_many"] == 3
        assert world.keys() == set()


async def test_what_the_store_did_not_confirm_is_tried_again(world):
    async with world.mount() as fs:
        await removed_files(fs, 2)
        for applied in (False, True):
            world.store.fail("delete_many", applied=applied)
            with pytest.raises(StoreUnavailable):
                await delete_due(fs.index, fs.objects, -1.0, set)
            assert fs.index.pending_deletions() == 2
        assert await delete_due(fs.index, fs.objects, -1.0, set) == 2
        assert fs.index.pending_deletions() == 0


async def test_an_object_in_use_starts_to_wait_anew(world, monkeypatch):
    """Also when a whole batch of them is in use: the ones behind are deleted."""
    monkeypatch.setattr(deletions, "BATCH", 1)
    async with world.mount() as fs:
        await removed_files(fs, 3)
        used = set(sorted(world.keys())[:2])
        before = time.time_ns()
        assert await delete_due(fs.index, fs.objects, 0.0, lambda: used) == 1
        assert world.keys() == used
        waiting = fs.index.due_deletions(time.time_ns() + 1, 10)
        assert len(waiting) == 2
        assert all(row.queued_ns >= before for row in waiting)


async def test_nothing_to_delete_asks_the_store_nothing(world):
    async with world.mount() as fs:
        assert await delete_due(fs.index, fs.objects, -1.0, set) == 0
        assert world.store.calls["delete_many"] == 0


async def test_an_object_that_is_gone_already_is_forgotten(world):
    async with world.mount() as fs:
        await removed_files(fs, 1)
        world.store.inner.delete_many(BUCKET, world.keys())
        assert await delete_due(fs.index, fs.objects, -1.0, set) == 1
        assert fs.index.pending_deletions() == 0


async def test_uploads_that_a_dead_process_left_are_found_and_aborted(world):
    async with world.mount() as fs:
        key = fs.objects.key("d" * 32, "a" * 16)
        left = world.store.create_multipart(BUCKET, key, content_type="a/b")
        kept = world.store.create_multipart(BUCKET, key + "b", content_type="a/b")
        other = world.store.create_multipart(BUCKET, "another/key", content_type="a/b")
        found = await unfinished_uploads(fs.objects, {key + "b"})
        assert [upload.upload_id for upload in found] == [left]
        await abort_uploads(fs.objects, found)
        remaining = {upload.upload_id for upload in world.store.list_multipart(BUCKET, "")}
        assert remaining == {kept, other}
        for upload in list(world.store.list_multipart(BUCKET, "")):
            world.store.abort_multipart(BUCKET, upload.key, upload.upload_id)


async def test_a_store_that_cannot_list_uploads_does_not_prevent_the_mount(world):
    async with world.mount() as fs:
        world.store.fail_always("list_multipart")
        assert await unfinished_uploads(fs.objects, set()) == []
        world.store.mend()


# ---- what lies beside documents


async def beside(doc_id, is_note):
    return [f"beside/{doc_id}", *([f"images/{doc_id}"] if is_note else [])]


def put_beside(world, doc_id):
    world.store.put(BUCKET, f"beside/{doc_id}", b"picture")


async def test_what_lies_beside_a_document_goes_with_its_last_object(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"a", b"1")
        doc_id = fs.index.get(ino).doc_id
        put_beside(world, doc_id)
        await replace_file(fs, ino, b"2")
        await delete_due(fs.index, fs.objects, -1.0, set, beside)
        assert world.keys() >= {f"beside/{doc_id}"}, "the document is there"
        fs.unlink(ROOT_INO, b"a")
        await delete_due(fs.index, fs.objects, -1.0, set, beside)
        assert world.keys() == set()


async def test_also_when_the_content_came_from_another_document(world):
    """Saved by renaming over it, the file goes on as the former document."""
    async with world.mount(version_rules=VersionRules(20, 0.0)) as fs:
        doc_id = fs.index.get(await new_file(fs, b"a", b"1")).doc_id
        await new_file(fs, b"b", b"2")
        fs.rename(ROOT_INO, b"b", ROOT_INO, b"a", 0)
        inode = fs.index.lookup(ROOT_INO, b"a")
        assert (inode.doc_id, inode.object_doc_id is None) == (doc_id, False)
        for version in fs.index.versions_of(doc_id):
            fs.index.remove_version(version, time.time_ns())
        await delete_due(fs.index, fs.objects, -1.0, set, beside)
        put_beside(world, doc_id)
        fs.unlink(ROOT_INO, b"a")
        await delete_due(fs.index, fs.objects, -1.0, set, beside)
        assert world.keys() == set()
        assert fs.index.pending_deletions() == 0


async def test_it_is_tried_again_with_what_the_store_did_not_confirm(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"a", b"1")
        put_beside(world, fs.index.get(ino).doc_id)
        fs.unlink(ROOT_INO, b"a")
        world.store.fail("delete_many", applied=False)
        with pytest.raises(StoreUnavailable):
            await delete_due(fs.index, fs.objects, -1.0, set, beside)
        await delete_due(fs.index, fs.objects, -1.0, set, beside)
        assert world.keys() == set()


# ---- images of notes


NOTE = b"a.cozy-note"


async def new_note(world, fs, name=NOTE):
    """With an image; returns its number and the key of that."""
    ino = await new_file(fs, name, b"text")
    key = f"images/{fs.index.get(ino).doc_id}"
    world.store.put(BUCKET, key, b"picture")
    return ino, key


async def delete_all(fs):
    await delete_due(fs.index, fs.objects, -1.0, set, beside)


async def test_the_images_of_a_note_go_with_it(world):
    async with world.mount() as fs:
        _, image = await new_note(world, fs)
        fs.unlink(ROOT_INO, NOTE)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        await delete_all(fs)
        assert world.keys() == set()
        assert fs.index.pending_deletions() == 0


async def test_they_stay_until_the_retention_has_passed(world):
    async with world.mount() as fs:
        _, image = await new_note(world, fs)
        fs.unlink(ROOT_INO, NOTE)
        assert await delete_due(fs.index, fs.objects, 3600.0, set, beside) == 0
        assert image in world.keys()  # noqa: SIM118  no dictionary
        await delete_all(fs)


async def test_another_name_of_a_note_keeps_its_images(world):
    async with world.mount() as fs:
        ino, image = await new_note(world, fs)
        fs.link(ino, ROOT_INO, b"b.cozy-note")
        fs.unlink(ROOT_INO, NOTE)
        await delete_all(fs)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        fs.unlink(ROOT_INO, b"b.cozy-note")
        await delete_all(fs)
        assert world.keys() == set()


async def test_a_note_keeps_its_images_while_somebody_has_it_open(world):
    async with world.mount() as fs:
        ino, image = await new_note(world, fs)
        handle = await fs.files.open(ino, os.O_RDONLY, 0)
        fs.unlink(ROOT_INO, NOTE)
        await delete_all(fs)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        await close(fs, handle)
        await delete_all(fs)
        assert world.keys() == set()


async def test_a_note_that_is_saved_by_renaming_over_it_keeps_its_images(world):
    async with world.mount(version_rules=VersionRules(20, 0.0)) as fs:
        ino, image = await new_note(world, fs)
        handle = await fs.files.open(ino, os.O_RDONLY, 0)
        await new_file(fs, b".a.tmp", b"new text")
        fs.rename(ROOT_INO, b".a.tmp", ROOT_INO, NOTE, 0)
        await delete_all(fs)
        await close(fs, handle)
        await delete_all(fs)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        fs.unlink(ROOT_INO, NOTE)
        await delete_all(fs)
        assert world.keys() == set()


async def test_a_note_in_the_trash_has_its_images_until_it_is_removed_there(world):
    """Under whatever name, since the trash may give it a number."""
    async with world.mount() as fs:
        _, image = await new_note(world, fs)
        name = NOTE + b" (031415926)"
        fs.rename(ROOT_INO, NOTE, TRASH_INO, name, 0)
        await delete_all(fs)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        fs.unlink(TRASH_INO, name)
        await delete_all(fs)
        assert world.keys() == set()


async def test_a_row_for_the_images_of_a_note_that_is_there_is_forgotten(world):
    async with world.mount() as fs:
        ino, image = await new_note(world, fs)
        fs.index.queue_deletion(fs.index.get(ino).doc_id, NOTE_IMAGES, 1)
        await delete_all(fs)
        assert fs.index.pending_deletions() == 0
        assert image in world.keys()  # noqa: SIM118  no dictionary
        fs.unlink(ROOT_INO, NOTE)
        await delete_all(fs)


async def test_what_is_wanted_again_while_the_store_is_asked_stays(world):
    async with world.mount() as fs:
        ino, image = await new_note(world, fs)
        former = fs.index.get(ino)
        fs.unlink(ROOT_INO, NOTE)

        async def slow(doc_id, is_note):
            if not fs.index.has(ROOT_INO, NOTE):
                fs.index.remake(former, ROOT_INO, NOTE, 1)
            return await beside(doc_id, is_note)

        await delete_due(fs.index, fs.objects, -1.0, set, slow)
        assert image in world.keys()  # noqa: SIM118  no dictionary
        assert fs.index.pending_deletions() == 0
        fs.unlink(ROOT_INO, NOTE)
        await delete_all(fs)
        assert world.keys() == set()


async def test_a_store_that_cannot_list_images_loses_none_of_the_rows(world):
    async with world.mount() as fs:
        await new_note(world, fs)
        fs.unlink(ROOT_INO, NOTE)
        waiting = fs.index.pending_deletions()

        async def refused(doc_id, is_note):
            raise StoreUnavailable("no")

        with pytest.raises(StoreUnavailable):
            await delete_due(fs.index, fs.objects, -1.0, set, refused)
        assert fs.index.pending_deletions() == waiting == 2
        await delete_all(fs)
        assert world.keys() == set()
