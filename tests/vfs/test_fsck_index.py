"""Every way in which a tree can be broken: reported, repaired where that is possible, clean after.

One test for each type of finding that is about the index alone."""

from __future__ import annotations

import json
from stat import S_IFDIR

import pytest
from fsck_world import ORPHANS, damage, fsck, is_found, is_repaired, record, types
from vfs_world import USER, new_file, read_file

from cozyfs.index import TrashItem, Version
from cozyfs.values import ROOT_INO, TRASH_INO, Ino

DIRECTORY = S_IFDIR | 0o755


@pytest.fixture
def world(world):
    record(world)
    return world


async def mkdir(fs, name, parent=ROOT_INO):
    return (await fs.make(parent, name, DIRECTORY, USER, USER)).ino


async def a_tree(fs):
    """/d/e/f and /g, with hard and symbolic links."""
    d = await mkdir(fs, b"d")
    e = await mkdir(fs, b"e", d)
    f = await new_file(fs, b"f", b"content", parent=e)
    g = await new_file(fs, b"g", b"other")
    fs.link(f, ROOT_INO, b"link")
    fs.symlink(d, b"symlink", b"e/f", USER, USER)
    return d, e, f, g


def names(fs, parent):
    return [name for name, _ in fs.index.children(parent, b"", 100)]


async def test_nothing_is_found_in_a_tree_in_use(world):
    async with world.mount() as fs:
        await a_tree(fs)
        fs.set_xattr(ROOT_INO, b"user.a", b"1")
        assert await fsck(fs) == []


async def test_a_missing_root_is_found_and_made_again(world):
    async with world.mount() as fs:
        _, _, f, _ = await a_tree(fs)
        damage(fs, "DELETE FROM inodes WHERE ino = 1")
        assert types(await fsck(fs)) == ["index_missing_root"]
        found = await fsck(fs, repair=True)
        assert [each["type"] for each in found] == ["index_missing_root"]
        assert await fsck(fs) == []
        assert fs.index.path_of(f) == b"/link"


async def test_a_missing_trash_is_found_and_made_again(world):
    async with world.mount() as fs:
        damage(fs, "DELETE FROM inodes WHERE ino = 2")
        damage(fs, "DELETE FROM entries WHERE ino = 2")
        damage(fs, "UPDATE inodes SET nlink = 2 WHERE ino = 1")
        await is_repaired(fs, "index_missing_trash")
        assert fs.lookup(ROOT_INO, b".cozy_trash").ino == TRASH_INO


async def test_a_trash_without_its_name_gets_it_back(world):
    async with world.mount() as fs:
        damage(fs, "DELETE FROM entries WHERE ino = 2")
        found = await fsck(fs)
        assert types(found)[0] == "index_missing_trash"
        await fsck(fs, repair=True)
        assert await fsck(fs) == []


async def test_a_file_without_a_name_comes_back_in_the_directory_of_orphans(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, "DELETE FROM entries WHERE ino = ?", (g,))
        (found,) = await is_repaired(fs, "index_orphan_tree")
        assert found["is_file"]
        assert found["file_doc"]["_id"] == fs.index.get(g).doc_id
        assert found["file_doc"]["is_orphan"]
        assert not found["file_doc"]["has_cycle"]
        assert await read_file(fs, g) == b"other"
        assert fs.index.path_of(g) == b"/.cozy_orphans/" + fs.index.get(g).doc_id.encode()


async def test_a_tree_whose_parent_is_gone_comes_back_as_one(world):
    async with world.mount() as fs:
        d, e, f, _ = await a_tree(fs)
        damage(fs, "UPDATE entries SET parent = 999 WHERE ino = ?", (d,))
        damage(fs, "UPDATE inodes SET nlink = 3 WHERE ino = 1")
        (found,) = await is_repaired(fs, "index_orphan_tree")
        assert found["dir_doc"]["name"] == "d"
        assert not found["is_file"]
        assert "path" not in found
        assert fs.index.path_of(e) == b"/.cozy_orphans/d/e"
        assert await read_file(fs, f) == b"content"


async def test_a_cycle_is_told_as_one_and_comes_back(world):
    async with world.mount() as fs:
        d, e, _, _ = await a_tree(fs)
        damage(fs, "UPDATE entries SET parent = ? WHERE ino = ?", (e, d))
        damage(fs, "UPDATE inodes SET nlink = 3 WHERE ino IN (1, ?)", (e,))
        (found,) = await is_repaired(fs, "index_orphan_tree")
        assert found["dir_doc"]["has_cycle"]
        orphans = fs.lookup(ROOT_INO, ORPHANS).ino
        assert names(fs, orphans) in ([b"d"], [b"e"])


async def test_what_hangs_below_a_cycle_is_no_finding_of_its_own(world):
    async with world.mount() as fs:
        below = await mkdir(fs, b"below")  # has the lowest number
        d, e, _, _ = await a_tree(fs)
        damage(fs, "UPDATE entries SET parent = ? WHERE ino = ?", (e, d))
        damage(fs, "UPDATE entries SET parent = ? WHERE ino = ?", (e, below))
        damage(fs, "UPDATE inodes SET nlink = 4 WHERE ino = ?", (e,))
        damage(fs, "UPDATE inodes SET nlink = 3 WHERE ino = 1")
        (found,) = await is_repaired(fs, "index_orphan_tree")
        assert found["dir_doc"]["_id"] != fs.index.get(below).doc_id


async def test_children_of_a_file_come_back(world):
    async with world.mount() as fs:
        d = await mkdir(fs, b"d")
        g = await new_file(fs, b"g", b"other")
        damage(fs, "UPDATE entries SET parent = ? WHERE ino = ?", (g, d))
        damage(fs, "UPDATE inodes SET nlink = 3 WHERE ino = 1")
        await is_repaired(fs, "index_orphan_tree")
        assert fs.index.path_of(d) == b"/.cozy_orphans/d"


async def test_orphans_of_the_same_name_have_names_of_their_own(world):
    async with world.mount() as fs:
        one = await new_file(fs, b"a.txt", b"1")
        two = await new_file(fs, b"b.txt", b"2")
        damage(fs, "UPDATE entries SET parent = 998 WHERE ino = ?", (one,))
        damage(fs, "UPDATE entries SET parent = 999, name = x'612e747874' WHERE ino = ?", (two,))
        await is_repaired(fs, "index_orphan_tree", "index_orphan_tree")
        orphans = fs.lookup(ROOT_INO, ORPHANS).ino
        assert names(fs, orphans) == [b"a (2).txt", b"a.txt"]


async def test_a_name_that_leads_to_no_inode_goes(world):
    async with world.mount() as fs:
        damage(fs, "INSERT INTO entries VALUES (1, x'61', 777)")
        (found,) = await is_repaired(fs, "index_dangling_entry")
        assert found["path"] == "/a"
        assert found["before"] == {"parent": 1, "name": "a", "ino": 777}


async def test_a_second_name_in_nowhere_goes(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        fs.link(g, ROOT_INO, b"h")
        damage(fs, "UPDATE entries SET parent = 999 WHERE name = x'68'")
        await is_repaired(fs, "index_dangling_entry")
        assert fs.index.get(g).nlink == 1


async def test_a_directory_with_two_names_keeps_the_first(world):
    async with world.mount() as fs:
        d, _, _, _ = await a_tree(fs)
        damage(fs, "INSERT INTO entries VALUES (1, x'7a', ?)", (d,))
        damage(fs, "UPDATE inodes SET nlink = nlink + 1 WHERE ino = 1")
        (found,) = await is_repaired(fs, "index_directory_names")
        assert (found["path"], found["expected_fullpath"]) == ("/z", "/d")
        assert fs.index.path_of(d) == b"/d"


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        (b"a/b", b"a_b"),
        (b"a\nb", b"a_b"),
        (b"..", b"_.."),
        (b"\xff", "\ufffd".encode()),
        (b"n" * 300, b"n" * 200),
    ],
)
async def test_an_illegal_name_is_made_legal(world, name, legal):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, "UPDATE entries SET name = ? WHERE ino = ?", (name, g))
        await is_repaired(fs, "index_illegal_name")
        assert fs.index.path_of(g) == b"/" + legal


async def test_two_forms_of_a_name_are_two_names(world):
    async with world.mount() as fs:
        await new_file(fs, "chaîne".encode(), b"1")
        await new_file(fs, "chai\u0302ne".encode(), b"2")
        assert await fsck(fs) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE inodes SET target = x'61' WHERE ino = ?",
        "UPDATE inodes SET mode = 0x4180, nlink = 2 WHERE ino = ?",
        "UPDATE inodes SET mode = 0x3180 WHERE ino = ?",
    ],
)
async def test_columns_that_do_not_fit_a_type_are_told(world, sql):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, sql, (g,))
        found = await fsck(fs)
        assert "type_mismatch" in types(found)
        assert all("repair" not in each for each in found if each["type"] == "type_mismatch")


@pytest.mark.parametrize("nlink", [0, 7])
async def test_a_wrong_link_count_of_a_file_is_put_right(world, nlink):
    async with world.mount() as fs:
        _, _, f, _ = await a_tree(fs)
        damage(fs, "UPDATE inodes SET nlink = ? WHERE ino = ?", (nlink, f))
        (found,) = await is_repaired(fs, "index_bad_links")
        assert found["before"]["nlink"] == nlink
        assert fs.index.get(f).nlink == 2


@pytest.mark.parametrize("ino", [1, 2])
async def test_a_wrong_count_of_subdirectories_is_put_right(world, ino):
    async with world.mount() as fs:
        await mkdir(fs, b"d")
        right = fs.index.get(Ino(ino)).nlink
        damage(fs, "UPDATE inodes SET nlink = 9 WHERE ino = ?", (ino,))
        await is_repaired(fs, "index_bad_links")
        assert fs.index.get(Ino(ino)).nlink == right


async def test_what_was_removed_while_open_and_is_not_open_goes(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        key = fs.objects.key(fs.index.get(g).doc_id, fs.index.get(g).internal_id)
        damage(fs, "DELETE FROM entries WHERE ino = ?", (g,))
        damage(fs, "UPDATE inodes SET nlink = 0 WHERE ino = ?", (g,))
        await is_repaired(fs, "index_removed_leftover")
        assert world.queued(fs) == {key}


async def test_what_was_removed_and_is_still_open_is_no_finding(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        await fs.files.open(g, 0, USER)
        fs.unlink(ROOT_INO, b"g")
        assert fs.index.get(g).nlink == 0
        assert await fsck(fs) == []


async def test_a_trash_row_of_what_is_not_in_the_trash_is_forgotten(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        fs.index.remember_trashed(TrashItem(g, 1, b"/d", b"g"))
        (found,) = await is_repaired(fs, "trashed_not_in_trash")
        assert found["path"] == "/g"
        assert fs.index.trash_item(g) is None


async def test_what_lies_in_the_trash_without_a_row_gets_one(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        fs.index.rename(ROOT_INO, b"g", TRASH_INO, b"g (2)", 1, flags=0, keep=lambda ino: False)
        fs.index.forget_trashed(g)
        (found,) = await is_repaired(fs, "not_trashed_in_trash")
        assert found["file_doc"]["trashed"]
        item = fs.index.trash_item(g)
        assert (item.restore_path, item.name) == (b"/", b"g (2)")


async def test_a_kept_path_of_a_file_goes(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        fs.index.set_document(g, {"path": "/g", "tags": ["a"]})
        (found,) = await is_repaired(fs, "index_file_with_path")
        assert found["before"] == {"path": "/g"}
        assert fs.index.document(g) == {"tags": ["a"]}


async def test_a_kept_path_of_a_directory_that_is_another_goes(world):
    async with world.mount() as fs:
        d = await mkdir(fs, b"d")
        fs.index.set_document(d, {"path": "/elsewhere"})
        (found,) = await is_repaired(fs, "index_bad_fullpath")
        assert found["expected_fullpath"] == "/d"


async def test_fields_that_are_no_json_are_told(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, "INSERT INTO documents VALUES (?, '{')", (g,))
        await is_found(fs, "index_bad_document")


def version(doc_id, internal_id, created_ns, size=5):
    return Version(
        doc_id, internal_id, created_ns, 7, size, size, None, None, None, None, json.dumps({})
    )


async def test_versions_without_a_file_become_one(world):
    async with world.mount() as fs:
        for number, body in ((1, b"older"), (2, b"newer")):
            world.store.put(*_place(fs, "lost", f"i{number}"), body)
            fs.index.add_version(version("lost", f"i{number}", number))
        found = await is_repaired(fs, "file_missing", "file_missing")
        assert [each["version_doc"]["_id"] for each in found] == ["lost/i2", "lost/i1"]
        assert all(each["is_version"] for each in found)
        ino = fs.index.resolve(b"/.cozy_orphans/lost").ino
        assert await read_file(fs, ino) == b"newer"
        assert [each.internal_id for each in fs.index.versions_of("lost")] == ["i1"]
        assert world.queued(fs) == set()


def _place(fs, doc_id, internal_id):
    return fs.objects.bucket, fs.objects.key(doc_id, internal_id)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO xattrs VALUES (777, x'61', x'62')",
        "INSERT INTO documents VALUES (777, '{}')",
        "INSERT INTO trash VALUES (777, 1, x'2f', x'61')",
    ],
)
async def test_a_row_of_an_inode_that_is_not_there_goes(world, sql):
    async with world.mount() as fs:
        damage(fs, sql)
        await is_repaired(fs, "index_stray_row")


async def test_an_object_in_use_is_taken_off_the_deletion_queue(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        inode = fs.index.get(g)
        fs.index.queue_deletion(inode.doc_id, inode.internal_id, 1)
        await is_repaired(fs, "queued_but_used")
        assert world.queued(fs) == set()


async def test_an_object_of_a_version_is_taken_off_the_deletion_queue(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        doc_id = fs.index.get(g).doc_id
        world.store.put(*_place(fs, doc_id, "i1"), b"older")
        fs.index.add_version(version(doc_id, "i1", 1))
        fs.index.queue_deletion(doc_id, "i1", 1)
        await is_repaired(fs, "queued_but_used")


async def test_numbers_of_inodes_are_not_given_out_twice(world):
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, "UPDATE facts SET value = 3")
        await is_repaired(fs, "index_bad_counter")
        assert await new_file(fs, b"h", b"") > g


async def test_a_wrong_counter_is_counted_again(world):
    async with world.mount() as fs:
        await new_file(fs, b"g", b"other")
        fs.index.connection.execute("UPDATE inodes SET size = 6, stored = 6 WHERE size = 5")
        found = await fsck(fs)
        assert types(found)[0] == "index_bad_counter"
        fs.index.connection.execute("UPDATE inodes SET size = 5, stored = 5 WHERE size = 6")
        assert await fsck(fs) == []


async def test_a_damaged_file_of_sqlite_is_told(world):
    async with world.mount() as fs:
        await new_file(fs, b"g", b"other")
        fs.index.connection.execute("PRAGMA writable_schema = ON")
        # The index on entries is now one of other rows.
        fs.index.connection.execute(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema"
            " WHERE name = 'inodes_by_document') WHERE name = 'deletions_by_time'"
        )
        fs.index.connection.execute("PRAGMA writable_schema = RESET")
        found = await fsck(fs)
        assert "index_damaged" in types(found)


async def test_findings_of_a_repair_reach_the_kernel(world):
    shown = []
    async with world.mount() as fs:
        g = await new_file(fs, b"g", b"other")
        damage(fs, "UPDATE entries SET parent = 999 WHERE ino = ?", (g,))
        await fsck(fs, repair=True, shown=shown)
        orphans = fs.lookup(ROOT_INO, ORPHANS).ino
        (changes,) = shown
        assert {(ROOT_INO, ORPHANS), (orphans, b"g")} <= changes.entries
        assert {g, ROOT_INO, orphans} <= changes.inodes
