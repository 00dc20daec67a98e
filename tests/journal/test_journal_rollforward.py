"""Contents that were stored but are not in the journal: found, and put where they belong."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from journal_world import DB_PREFIX, T0, make, make_directory, names

from cozyfs.journal import rollforward
from cozyfs.store.keys import object_key
from cozyfs.values import ROOT_DOC_ID, ROOT_INO


def store_object(site, doc_id, internal_id, name=b"f", parent=ROOT_DOC_ID, body=b"12345", **more):
    metadata = {
        "cozyfs-id": doc_id,
        "cozyfs-parent": parent,
        "cozyfs-name": quote(name, safe=" "),
        "cozyfs-mode": "100640",
        "cozyfs-mtime": str(T0 + 77),
    } | {key.replace("_", "-"): value for key, value in more.items()}
    key = object_key(DB_PREFIX, doc_id, internal_id)
    site.store.put(site.bucket, key, body, metadata=metadata)
    time.sleep(0.002)  # the folder's clock has to move between two objects


async def roll(site, index, since_ns=None):
    plan = await rollforward.plan(index, site.objects(), since_ns)
    return plan, rollforward.apply(index, plan, uid=3, gid=4, now_ns=T0 + 99)


async def test_an_unknown_document_becomes_a_file_where_it_was(site, autojump_clock):
    index = site.new_index()
    directory = make_directory(index, b"d")
    store_object(site, "new", "i1", "né %".encode(), "doc-1-d")
    _, paths = await roll(site, index)
    assert paths == ["/d/né %".encode()]
    inode = index.lookup(directory, "né %".encode())
    assert (inode.doc_id, inode.internal_id, inode.size) == ("new", "i1", 5)
    assert (inode.mode, inode.mtime_ns, inode.uid) == (0o100640, T0 + 77, 1)
    assert inode.md5 is not None


async def test_what_was_attached_is_not_found_again(site, autojump_clock):
    index = site.new_index()
    store_object(site, "new", "i1")
    await roll(site, index)
    plan, paths = await roll(site, index)
    assert not plan
    assert paths == []


async def test_a_known_document_gets_its_newer_content_and_keeps_the_former_as_a_version(
    site, autojump_clock
):
    index = site.new_index()
    store_object(site, "doc-1-f", "old")
    ino = make(index, b"f", internal_id="old")
    store_object(site, "doc-1-f", "new", body=b"longer content")
    _, paths = await roll(site, index)
    assert paths == [b"/f"]
    assert (index.get(ino).internal_id, index.get(ino).size) == ("new", 14)
    assert [version.internal_id for version in index.versions_of("doc-1-f")] == ["old"]
    assert not index.is_queued("doc-1-f", "old")


async def test_an_older_content_is_queued_for_deletion(site, autojump_clock):
    index = site.new_index()
    store_object(site, "doc-1-f", "older")
    store_object(site, "doc-1-f", "current")
    ino = make(index, b"f", internal_id="current")
    await roll(site, index)
    assert index.get(ino).internal_id == "current"
    assert index.is_queued("doc-1-f", "older")


async def test_of_several_the_newest_counts(site, autojump_clock):
    index = site.new_index()
    for number in range(3):
        store_object(site, "new", f"i{number}")
    _, paths = await roll(site, index)
    assert len(paths) == 1
    assert index.lookup(ROOT_INO, b"f").internal_id == "i2"
    assert index.is_queued("new", "i0")


@pytest.mark.parametrize("parent", ["gone", ""])
async def test_without_its_parent_it_becomes_an_orphan(site, autojump_clock, parent):
    index = site.new_index()
    store_object(site, "new", "i1", parent=parent)
    _, paths = await roll(site, index)
    assert paths == [b"/.cozy_orphans/f"]


async def test_a_taken_name_makes_orphans_with_names_of_their_own(site, autojump_clock):
    index = site.new_index()
    make(index, b"f")
    store_object(site, "new", "i1")
    store_object(site, "new2", "i2")
    _, paths = await roll(site, index)
    assert sorted(paths) == [b"/.cozy_orphans/f", b"/.cozy_orphans/f (2)"]
    assert index.lookup(ROOT_INO, b"f").internal_id is None


async def test_what_waits_for_deletion_stays_where_it_is(site, autojump_clock):
    index = site.new_index()
    store_object(site, "new", "i1")
    index.queue_deletion("new", "i1", T0)
    plan, _ = await roll(site, index)
    assert not plan


async def test_holes_come_back_where_they_were(site, autojump_clock):
    index = site.new_index()
    extents = json.dumps([[100, 5]]).encode()
    more = {"cozyfs_size": "1000", "cozyfs_trailer": str(len(extents))}
    store_object(site, "new", "i1", body=b"12345" + extents, **more)
    await roll(site, index)
    inode = index.lookup(ROOT_INO, b"f")
    assert (inode.size, inode.extents, inode.md5) == (1000, extents, None)


async def test_objects_that_say_nothing_are_left_alone_and_told(site, autojump_clock):
    index = site.new_index()
    key = object_key(DB_PREFIX, "foreign", "i1")
    site.store.put(site.bucket, key, b"x")
    plan, _ = await roll(site, index)
    assert plan.unknown == [key]
    assert names(index) == []


async def test_only_what_is_recent_is_looked_at(site, autojump_clock):
    index = site.new_index()
    store_object(site, "new", "i1")
    plan, _ = await roll(site, index, since_ns=time.time_ns() + 2 * 3600 * 10**9)
    assert not plan
    assert site.store.calls["head"] == 0
    plan, _ = await roll(site, index, since_ns=time.time_ns() + 1800 * 10**9)
    assert plan


async def test_thumbnails_and_avatars_are_no_contents(site, autojump_clock, monkeypatch):
    index = site.new_index()
    for name in ("thumbs/some-document-tiny", "thumbs/a-note/an-image-original", "avatar"):
        site.store.put(site.bucket, f"{DB_PREFIX}/{name}", b"picture")
    looked = []
    monkeypatch.setattr(rollforward, "identify", lambda *args: looked.append(args))
    plan, _ = await roll(site, index)
    assert (plan.unknown, looked) == ([], [])
