"""Former contents: which become versions, and what renaming over a file does to its document."""

from __future__ import annotations

import json
import os
import random

import pytest
import trio
from vfs_world import USER, close, create, new_file, read_all, read_file, replace_file, write_all

from cozyfs.errors import UploadFailed
from cozyfs.index import Version
from cozyfs.values import ROOT_INO, TRASH_INO, VersionRules
from cozyfs.vfs.versions import Action, find_versions_to_clean

MINUTE_NS = 60 * 10**9
NOW = 10_000 * MINUTE_NS
EVERY = VersionRules(20, 0)
"""Whatever is replaced becomes a version."""


# ---- the rule


def version(name, age_minutes, *tags):
    created = NOW - age_minutes * MINUTE_NS
    fields = json.dumps({"tags": list(tags)})
    return Version("doc", name, created, 0, 1, 1, None, None, None, None, fields)


AGES = {"v0": 120, "v1": 100, "v2": 80, "v3": 60, "v4": 40, "v5": 20, "v6": 2}
V = {name: version(name, age) for name, age in AGES.items()}
CANDIDATE = version("candidate", 0)


def clean(candidate, olds, most, delay_minutes, **named):
    rules = VersionRules(most, delay_minutes * 60.0)
    action, cleaned = find_versions_to_clean(candidate, olds, rules, **named)
    return action, [each.internal_id for each in cleaned]


def olds(first, last):
    return [V[f"v{n}"] for n in range(first, last + 1)]


def shuffled(versions):
    return random.Random(7).sample(versions, len(versions))


def test_21_below_the_number_all_stay():
    assert clean(CANDIDATE, olds(0, 2), 20, 1) == (Action.KEEP, [])


def test_22_a_content_that_is_a_version_already_changes_nothing():
    assert clean(V["v1"], olds(0, 3), 20, 1) == (Action.NOTHING, [])


def test_23_too_soon_after_the_last_one_it_is_not_kept():
    assert clean(CANDIDATE, olds(0, 6), 20, 15) == (Action.CLEAN, [])


def test_24_too_soon_and_too_many():
    assert clean(CANDIDATE, olds(1, 5), 5, 30) == (Action.CLEAN, ["v1"])


def test_25_the_oldest_goes_where_one_comes():
    assert clean(CANDIDATE, olds(1, 4), 5, 15) == (Action.KEEP, ["v1"])


def test_26_the_order_of_the_versions_does_not_matter():
    found = clean(CANDIDATE, shuffled(olds(0, 6)), 5, 1)
    assert found == (Action.KEEP, ["v0", "v1", "v2", "v3"])


def test_27_the_same_with_a_longer_delay():
    assert clean(CANDIDATE, shuffled(olds(0, 6)), 5, 10) == (Action.CLEAN, ["v0", "v1", "v2"])


def test_28_what_has_tags_stays():
    tagged = [version("v0", 120, "x"), V["v1"], version("v2", 80, "y"), *olds(3, 6)]
    found = clean(version("candidate", 0, "z"), shuffled(tagged), 5, 10)
    assert found == (Action.KEEP, ["v1", "v3", "v4", "v5"])


def test_a_version_at_the_very_end_of_the_delay_is_kept():
    assert clean(CANDIDATE, [V["v5"]], 20, 20)[0] is Action.KEEP


@pytest.mark.parametrize("most", [0, 1])
def test_where_no_versions_are_wanted_those_with_tags_stay(most):
    tagged = [V["v0"], version("v1", 100, "x")]
    assert clean(CANDIDATE, tagged, most, 15) == (Action.CLEAN, ["v0"])
    assert clean(CANDIDATE, [], most, 15) == (Action.CLEAN, [])


def test_a_version_that_a_wrong_clock_made_in_the_future_hinders_no_other():
    assert clean(CANDIDATE, [version("future", -500_000)], 20, 15) == (Action.KEEP, [])


def test_the_same_content_again_pushes_no_version_out():
    assert clean(CANDIDATE, olds(1, 4), 5, 1, same_content=True) == (Action.CLEAN, [])


# ---- overwriting


def destroy(fs, name):
    """For good: in the trash."""
    fs.rename(ROOT_INO, name, TRASH_INO, name, 0)
    fs.unlink(TRASH_INO, name)


def versions(fs, ino):
    return fs.index.versions_of(fs.index.get(ino).doc_id)


def version_sizes(fs, ino):
    return [each.size for each in versions(fs, ino)]


async def test_overwriting_files_the_former_content(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"first")
        before = fs.index.get(ino)
        fs.index.set_document(
            ino,
            {
                "tags": ["a"],
                "metadata": {"k": 1},
                "cozyMetadata": {"uploadedOn": "https://alice/", "uploadedBy": {"slug": "drive"}},
            },
        )

        await replace_file(fs, ino, b"second one")

        (old,) = versions(fs, ino)
        assert (old.doc_id, old.internal_id) == (before.doc_id, before.internal_id)
        assert (old.size, old.md5, old.updated_ns) == (5, before.md5, before.mtime_ns)
        fields = old.document
        assert (fields["tags"], fields["metadata"]) == (["a"], {"k": 1})
        metadata = fields["cozyMetadata"]
        assert metadata["createdOn"] == metadata["uploadedOn"] == "https://alice/"
        assert metadata["uploadedBy"] == {"slug": "drive"}
        assert metadata["createdAt"] == metadata["updatedAt"]
        assert fs.index.usage.disk_bytes == 15
        world.check(fs)


async def test_an_empty_content_is_never_a_version(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"")
        await replace_file(fs, ino, b"1")
        assert versions(fs, ino) == []
        await replace_file(fs, ino, b"")
        await replace_file(fs, ino, b"2")
        assert version_sizes(fs, ino) == [1]
        world.check(fs)


async def test_the_same_content_again_is_no_version(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"same")
        await replace_file(fs, ino, b"same")
        assert versions(fs, ino) == []
        world.check(fs)


async def test_what_was_stored_within_one_opening_is_no_version(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"before")
        handle = await fs.files.open(ino, os.O_WRONLY, USER)
        for content in (b"1", b"22", b"333"):
            await fs.files.write(handle.fh, 0, content)
            await fs.files.fsync(handle.fh)
        await close(fs, handle)
        assert version_sizes(fs, ino) == [6]
        world.check(fs)


async def test_after_it_was_closed_the_next_change_files_it(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"1")
        for size in (2, 3, 4):
            await replace_file(fs, ino, b"x" * size)
        assert version_sizes(fs, ino) == [1, 2, 3]
        world.check(fs)


async def test_a_content_that_was_stored_again_unchanged_is_filed_by_the_change_after_it(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"before")
        handle = await fs.files.open(ino, os.O_WRONLY, USER)
        for content in (b"before", b"after!"):
            await fs.files.write(handle.fh, 0, content)
            await fs.files.fsync(handle.fh)
        await close(fs, handle)
        (old,) = versions(fs, ino)
        assert await content_of(fs, old) == b"before"
        world.check(fs)


async def test_an_upload_that_failed_files_the_former_content_once_it_succeeds(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"before")
        world.store.fail("put")
        handle = await fs.files.open(ino, os.O_WRONLY | os.O_TRUNC, USER)
        await fs.files.write(handle.fh, 0, b"after")
        with pytest.raises(UploadFailed):
            await close(fs, handle)
        assert versions(fs, ino) == []
        await fs.files.retry_failed()
        assert version_sizes(fs, ino) == [6]
        world.check(fs)


async def test_what_is_written_to_a_removed_file_files_nothing(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"before")
        handle = await fs.files.open(ino, os.O_WRONLY, USER)
        await fs.files.write(handle.fh, 0, b"1")
        destroy(fs, b"f")
        await close(fs, handle)
        await world.settled()
        assert fs.index.usage.versions == 0
        world.check(fs)


async def test_versions_go_with_their_file(world):
    async with world.mount(version_rules=EVERY) as fs:
        ino = await new_file(fs, b"f", b"1")
        await replace_file(fs, ino, b"22")
        destroy(fs, b"f")
        assert fs.index.usage.disk_bytes == 0
        world.check(fs)


# ---- saving by renaming over


async def content_of(fs, old):
    key = fs.objects.key(old.content_doc_id, old.internal_id)
    return await fs.objects.caller.store(fs.objects.store.get, fs.objects.bucket, key)


async def save(fs, name, data, temporary=b"tmp"):
    """As editors and rsync do."""
    ino = await new_file(fs, temporary, data)
    fs.rename(ROOT_INO, temporary, ROOT_INO, name, 0)
    return ino


async def test_saving_by_renaming_over_keeps_the_document_and_files_the_former(world):
    async with world.mount(version_rules=EVERY) as fs:
        doc_id = fs.index.get(await new_file(fs, b"f", b"1")).doc_id
        for size in (2, 3):
            ino = await save(fs, b"f", b"x" * size)
            assert fs.index.get(ino).doc_id == doc_id
        assert version_sizes(fs, ino) == [1, 2]
        assert await read_file(fs, ino) == b"xxx"
        assert [await content_of(fs, old) for old in versions(fs, ino)] == [b"1", b"xx"]
        assert fs.index.usage.disk_bytes == 6
        await replace_file(fs, ino, b"in place")
        assert version_sizes(fs, ino) == [1, 2, 3]
        world.check(fs)


async def test_saving_the_same_content_that_way_files_nothing(world):
    async with world.mount(version_rules=EVERY) as fs:
        doc_id = fs.index.get(await new_file(fs, b"f", b"same")).doc_id
        ino = await save(fs, b"f", b"same")
        assert fs.index.get(ino).doc_id == doc_id
        assert versions(fs, ino) == []
        world.check(fs)


async def test_a_reader_of_the_replaced_file_reads_on(world):
    async with world.mount(version_rules=EVERY) as fs:
        old = await new_file(fs, b"f", b"former")
        reader = await fs.files.open(old, os.O_RDONLY, USER)
        ino = await save(fs, b"f", b"new")
        assert await read_all(fs, reader) == b"former"
        await close(fs, reader)
        assert version_sizes(fs, ino) == [6]
        world.check(fs)


async def test_unstored_writes_to_the_replaced_file_go_but_its_stored_content_is_filed(world):
    async with world.mount(version_rules=EVERY) as fs:
        old = await new_file(fs, b"f", b"stored")
        writer = await fs.files.open(old, os.O_RDWR, USER)
        await fs.files.write(writer.fh, 0, b"unstored")
        ino = await save(fs, b"f", b"new")
        assert await read_all(fs, writer) == b"unstored"
        await close(fs, writer)
        await world.settled()
        (kept,) = versions(fs, ino)
        assert await content_of(fs, kept) == b"stored"
        world.check(fs)


async def test_a_file_that_is_still_being_written_takes_the_document_over(world):
    async with world.mount(version_rules=EVERY) as fs:
        doc_id = fs.index.get(await new_file(fs, b"f", b"former")).doc_id
        inode, handle = create(fs, b"tmp")
        await fs.files.write(handle.fh, 0, b"half")
        await fs.files.fsync(handle.fh)
        await fs.files.write(handle.fh, 4, b" of it")
        fs.rename(ROOT_INO, b"tmp", ROOT_INO, b"f", 0)
        await fs.files.write(handle.fh, 10, b" and the rest")
        await close(fs, handle)
        assert fs.index.get(inode.ino).doc_id == doc_id
        assert await read_file(fs, inode.ino) == b"half of it and the rest"
        assert version_sizes(fs, inode.ino) == [6]
        world.check(fs)


async def test_an_upload_that_began_before_the_rename_ends_under_its_own_key(world, small):
    async with world.mount(version_rules=EVERY) as fs:
        doc_id = fs.index.get(await new_file(fs, b"f", b"former")).doc_id
        inode, handle = create(fs, b"tmp")
        data = os.urandom(300_000)
        await write_all(fs, handle, data[:200_000])
        assert handle.node.draft.stream is not None
        fs.rename(ROOT_INO, b"tmp", ROOT_INO, b"f", 0)
        await write_all(fs, handle, data[200_000:], offset=200_000)
        await close(fs, handle)
        after = fs.index.get(inode.ino)
        assert (after.doc_id, after.object_doc_id) == (doc_id, inode.doc_id)
        assert await read_file(fs, inode.ino) == data
        await replace_file(fs, inode.ino, b"later")
        assert fs.index.get(inode.ino).object_doc_id is None
        assert version_sizes(fs, inode.ino) == [6, 300_000]
        world.check(fs)


def rename_during_put(world, fs):
    def rename():
        trio.from_thread.run_sync(fs.rename, ROOT_INO, b"tmp", ROOT_INO, b"f", 0)

    world.store.before("put", rename)


async def test_a_put_that_is_under_way_during_the_rename_ends_under_its_own_key(world):
    async with world.mount(version_rules=EVERY) as fs:
        doc_id = fs.index.get(await new_file(fs, b"f", b"former")).doc_id
        inode, handle = create(fs, b"tmp")
        await fs.files.write(handle.fh, 0, b"new")
        rename_during_put(world, fs)
        await close(fs, handle)
        after = fs.index.get(inode.ino)
        assert (after.doc_id, after.object_doc_id) == (doc_id, inode.doc_id)
        assert await read_file(fs, inode.ino) == b"new"
        assert version_sizes(fs, inode.ino) == [6]
        world.check(fs)


async def test_the_replaced_file_may_be_uploading_at_that_moment(world):
    async with world.mount(version_rules=EVERY) as fs:
        old = await new_file(fs, b"f", b"stored")
        await new_file(fs, b"tmp", b"new")
        writer = await fs.files.open(old, os.O_WRONLY, USER)
        await fs.files.write(writer.fh, 0, b"too late")
        rename_during_put(world, fs)
        await close(fs, writer)
        await world.settled()
        ino = fs.index.lookup(ROOT_INO, b"f").ino
        assert await read_file(fs, ino) == b"new"
        (kept,) = versions(fs, ino)
        assert await content_of(fs, kept) == b"stored"
        world.check(fs)


async def test_of_several_links_none_takes_a_document_over(world):
    async with world.mount(version_rules=EVERY) as fs:
        old = fs.index.get(await new_file(fs, b"f", b"1"))
        fs.link(old.ino, ROOT_INO, b"g")
        ino = await save(fs, b"f", b"22")
        assert fs.index.get(ino).doc_id != old.doc_id
        assert await read_file(fs, old.ino) == b"1"
        assert fs.index.usage.versions == 0
        world.check(fs)


async def test_a_symbolic_link_that_replaces_a_file_is_no_new_content_of_it(world):
    async with world.mount(version_rules=EVERY) as fs:
        await new_file(fs, b"f", b"1")
        fs.symlink(ROOT_INO, b"tmp", b"/", USER, USER)
        fs.rename(ROOT_INO, b"tmp", ROOT_INO, b"f", 0)
        assert fs.index.usage.disk_bytes == 0
        world.check(fs)


@pytest.mark.parametrize("into", [True, False], ids=["into the trash", "out of it"])
async def test_in_the_trash_nothing_is_inherited(world, into):
    async with world.mount(version_rules=EVERY) as fs:
        places = [ROOT_INO, TRASH_INO] if into else [TRASH_INO, ROOT_INO]
        moved = await new_file(fs, b"f", b"1")
        doc_id = fs.index.get(moved).doc_id
        await new_file(fs, b"g", b"22")
        trashed = b"g" if into else b"f"
        fs.rename(ROOT_INO, trashed, TRASH_INO, trashed, 0)
        fs.rename(places[0], b"f", places[1], b"g", 0)
        assert fs.index.get(moved).doc_id == doc_id
        assert fs.index.usage.versions == 0
        world.check(fs)


async def test_a_rename_that_fails_files_nothing(world):
    async with world.mount(version_rules=EVERY) as fs:
        await new_file(fs, b"f", b"1")
        ino = await new_file(fs, b"g", b"22")
        fs.index.connection.execute(
            "CREATE TEMP TRIGGER no BEFORE UPDATE ON entries BEGIN SELECT raise(ABORT, 'no'); END"
        )
        with pytest.raises(Exception, match="no"):
            fs.rename(ROOT_INO, b"f", ROOT_INO, b"g", 0)
        fs.index.connection.execute("DROP TRIGGER no")
        assert versions(fs, ino) == []
        assert fs.index.usage.disk_bytes == 3
        assert await read_file(fs, fs.lookup(ROOT_INO, b"g").ino) == b"22"
        world.check(fs)
