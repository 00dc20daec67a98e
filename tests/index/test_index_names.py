"""make, link, unlink, rmdir: what each does to the tree, and what it refuses.

PT012 is off where the statement that raises is a whole transaction.
"""

from __future__ import annotations

from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFREG, S_IFSOCK, S_ISDIR, S_ISLNK

import pytest
from index_builders import LATER, NOW, T0, fill, make_directory, make_file, make_symlink, names

from cozyfs.errors import (
    AlreadyExists,
    Busy,
    DirectoryNotEmpty,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotFound,
    NotPermitted,
    TooManyLinks,
)
from cozyfs.index import MAX_LINKS, Deletion, Index
from cozyfs.values import ROOT_DOC_ID, ROOT_INO, TRASH_DOC_ID, TRASH_INO, TRASH_NAME


@pytest.fixture
def full_of_links(index):
    """Sets an inode's link count to the limit while a test runs."""
    before = {}

    def fill_up(ino):
        before[ino] = index.get(ino).nlink
        index.connection.execute("UPDATE inodes SET nlink = ? WHERE ino = ?", (MAX_LINKS, ino))
        index.reload()

    yield fill_up
    for ino, nlink in before.items():
        index.connection.execute("UPDATE inodes SET nlink = ? WHERE ino = ?", (nlink, ino))
    index.reload()


class TestNewIndex:
    def test_root_is_a_directory_with_the_trash_as_its_only_child(self, index):
        root = index.get(ROOT_INO)
        assert S_ISDIR(root.mode)
        assert (root.mode & 0o7777, root.nlink, root.uid, root.gid) == (0o755, 3, 1000, 100)
        assert root.doc_id == ROOT_DOC_ID
        assert root.btime_ns == T0
        assert names(index, ROOT_INO) == [TRASH_NAME]

    def test_trash_is_an_empty_directory_with_its_known_document(self, index):
        trash = index.lookup(ROOT_INO, TRASH_NAME)
        assert (trash.ino, trash.doc_id, trash.nlink) == (TRASH_INO, TRASH_DOC_ID, 2)
        assert not index.has_children(TRASH_INO)


class TestMake:
    def test_new_file_has_one_link_no_content_and_the_time_of_its_making(self, index):
        inode = make_file(index, ROOT_INO, b"a")
        assert (inode.nlink, inode.size, inode.stored, inode.internal_id) == (1, 0, 0, None)
        assert {inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.btime_ns} == {NOW}
        assert index.get(inode.ino) == index.lookup(ROOT_INO, b"a") == inode

    def test_new_directory_has_two_links_and_adds_one_to_its_parent(self, index):
        inode = make_directory(index, ROOT_INO, b"d")
        assert inode.nlink == 2
        assert index.get(ROOT_INO).nlink == 4

    def test_parents_mtime_and_ctime_follow(self, index):
        make_file(index, ROOT_INO, b"a", now_ns=LATER)
        root = index.get(ROOT_INO)
        assert (root.mtime_ns, root.ctime_ns, root.atime_ns) == (LATER, LATER, T0)

    def test_size_of_a_symbolic_link_is_the_length_of_its_target(self, index):
        inode = make_symlink(index, ROOT_INO, b"l", "où/ça".encode())
        assert S_ISLNK(inode.mode)
        assert inode.size == 7
        assert index.get(inode.ino).target == "où/ça".encode()

    @pytest.mark.parametrize("kind", [S_IFIFO, S_IFSOCK])
    def test_fifos_and_sockets_have_no_device_number(self, index, kind):
        mode = kind | 0o600
        inode = index.make(ROOT_INO, b"x", mode, uid=0, gid=0, rdev=9, doc_id="x", now_ns=NOW)
        assert (inode.mode, inode.rdev) == (mode, 0)

    @pytest.mark.parametrize("kind", [S_IFCHR, S_IFBLK])
    def test_devices_keep_their_number(self, index, kind):
        inode = index.make(
            ROOT_INO, b"x", kind | 0o600, uid=0, gid=0, rdev=0x501, doc_id="x", now_ns=NOW
        )
        assert index.get(inode.ino).rdev == 0x501

    @pytest.mark.parametrize("mode", [0o644, 0o170000])
    def test_unknown_type_is_an_invalid_request(self, index, mode):
        with pytest.raises(InvalidRequest):
            index.make(ROOT_INO, b"x", mode, uid=0, gid=0, doc_id="x", now_ns=NOW)

    def test_only_symbolic_links_have_a_target(self, index):
        with pytest.raises(InvalidRequest):
            index.make(ROOT_INO, b"x", S_IFREG, uid=0, gid=0, target=b"t", doc_id="x", now_ns=NOW)

    def test_existing_name_is_refused(self, index):
        make_file(index, ROOT_INO, b"a")
        with pytest.raises(AlreadyExists):
            make_directory(index, ROOT_INO, b"a")

    def test_missing_parent_is_not_found(self, index):
        with pytest.raises(NotFound):
            make_file(index, 999, b"a")

    def test_removed_but_kept_parent_is_not_found(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        index.rmdir(ROOT_INO, b"d", NOW, keep=True)
        with pytest.raises(NotFound):
            make_file(index, directory, b"a")

    def test_file_as_parent_is_not_a_directory(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        with pytest.raises(NotADirectory):
            make_file(index, file, b"b")

    def test_directory_with_too_many_subdirectories_takes_files_only(self, index, full_of_links):
        directory = make_directory(index, ROOT_INO, b"d").ino
        full_of_links(directory)
        make_file(index, directory, b"file")
        with pytest.raises(TooManyLinks):
            make_directory(index, directory, b"sub")


class TestInodeNumbers:
    def test_numbers_are_not_reused_after_the_highest_was_removed(self, index):
        first = make_file(index, ROOT_INO, b"a").ino
        index.unlink(ROOT_INO, b"a", NOW, keep=False)
        assert make_file(index, ROOT_INO, b"a").ino > first

    def test_numbers_are_not_reused_after_reopening(self, path):
        seen = []
        Index.create(path, uid=0, gid=0, now_ns=T0).close()
        for _ in range(3):
            with Index.open(path) as index:
                seen.append(make_file(index, ROOT_INO, b"a").ino)
                index.unlink(ROOT_INO, b"a", NOW, keep=False)
        assert seen == sorted(set(seen))

    def test_numbers_go_on_beyond_a_reserved_block(self, path):
        with Index.create(path, uid=0, gid=0, now_ns=T0) as index, index.transaction():
            inos = [make_file(index, ROOT_INO, b"%d" % n).ino for n in range(2_100)]
        assert inos == list(range(3, 2_103))

    def test_numbers_of_an_undone_block_are_reserved_again(self, index):
        with pytest.raises(ZeroDivisionError), index.transaction():  # noqa: PT012
            make_file(index, ROOT_INO, b"undone")
            _ = 1 // 0
        ino = make_file(index, ROOT_INO, b"a").ino
        (limit,) = index.connection.execute("SELECT value FROM facts").fetchone()
        assert ino < limit


class TestLink:
    def test_another_name_shows_the_same_inode_with_one_link_more(self, index):
        file = make_file(index, ROOT_INO, b"a")
        directory = make_directory(index, ROOT_INO, b"d").ino
        linked = index.link(file.ino, directory, b"b", LATER)
        assert (linked.ino, linked.nlink, linked.ctime_ns) == (file.ino, 2, LATER)
        assert linked.mtime_ns == NOW
        assert index.lookup(ROOT_INO, b"a") == index.lookup(directory, b"b") == linked
        assert index.get(directory).mtime_ns == LATER
        assert index.entries_of(file.ino) == [(ROOT_INO, b"a"), (directory, b"b")]

    def test_directories_have_one_name_only(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        with pytest.raises(NotPermitted):
            index.link(directory, ROOT_INO, b"e", NOW)

    def test_removed_inode_gets_no_new_name(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        index.unlink(ROOT_INO, b"a", NOW, keep=True)
        with pytest.raises(NotFound):
            index.link(file, ROOT_INO, b"b", NOW)

    def test_existing_name_is_refused(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        with pytest.raises(AlreadyExists):
            index.link(file, ROOT_INO, b"a", NOW)

    def test_parent_has_to_be_a_directory(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        with pytest.raises(NotADirectory):
            index.link(file, file, b"b", NOW)

    def test_links_are_limited(self, index, full_of_links):
        file = make_file(index, ROOT_INO, b"a").ino
        full_of_links(file)
        with pytest.raises(TooManyLinks):
            index.link(file, ROOT_INO, b"b", NOW)


class TestUnlink:
    def test_one_of_two_names_leaves_the_inode(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        index.link(file, ROOT_INO, b"b", NOW)
        after = index.unlink(ROOT_INO, b"a", LATER, keep=False)
        assert (after.nlink, after.ctime_ns) == (1, LATER)
        assert index.lookup(ROOT_INO, b"b") == after
        assert index.get(ROOT_INO).mtime_ns == LATER

    def test_last_name_takes_row_attributes_and_document_and_queues_the_object(self, index):
        file = make_file(index, ROOT_INO, b"a", doc_id="doc").ino
        fill(index, file, "content")
        index.set_xattr(file, b"user.x", b"1", now_ns=NOW)
        index.set_document(file, {"tags": ["t"]})
        after = index.unlink(ROOT_INO, b"a", LATER, keep=False)
        assert after.nlink == 0
        with pytest.raises(NotFound):
            index.get(file)
        for table in ("xattrs", "documents"):
            assert index.connection.execute(f"SELECT * FROM {table}").fetchall() == []
        assert index.due_deletions(LATER + 1, 9) == [Deletion("doc", "content", LATER)]

    def test_kept_inode_stays_readable_until_it_is_dropped(self, index):
        file = make_file(index, ROOT_INO, b"a", doc_id="doc").ino
        fill(index, file, "content")
        after = index.unlink(ROOT_INO, b"a", NOW, keep=True)
        assert index.get(file) == after
        assert index.orphans() == [after]
        assert index.pending_deletions() == 0
        index.drop(file, LATER)
        assert index.orphans() == []
        assert index.due_deletions(LATER + 1, 9) == [Deletion("doc", "content", LATER)]
        with pytest.raises(NotFound):
            index.get(file)

    def test_kept_inode_is_an_orphan_after_a_crash(self, index, path):
        file = make_file(index, ROOT_INO, b"a").ino
        index.unlink(ROOT_INO, b"a", NOW, keep=True)
        with Index.open(path, read_only=True) as other:
            assert [orphan.ino for orphan in other.orphans()] == [file]

    def test_directory_is_refused(self, index):
        make_directory(index, ROOT_INO, b"d")
        with pytest.raises(IsADirectory):
            index.unlink(ROOT_INO, b"d", NOW, keep=False)

    def test_missing_name_is_not_found(self, index):
        with pytest.raises(NotFound):
            index.unlink(ROOT_INO, b"a", NOW, keep=False)

    def test_dropping_what_still_has_a_name_is_refused(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        with pytest.raises(InvalidRequest):
            index.drop(file, NOW)

    def test_dropping_twice_is_not_found(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        index.unlink(ROOT_INO, b"a", NOW, keep=True)
        index.drop(file, NOW)
        with pytest.raises(NotFound):
            index.drop(file, NOW)


class TestRmdir:
    def test_empty_directory_goes_and_its_parent_loses_a_link(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        after = index.rmdir(ROOT_INO, b"d", LATER, keep=False)
        assert after.nlink == 0
        root = index.get(ROOT_INO)
        assert (root.nlink, root.mtime_ns, root.ctime_ns) == (3, LATER, LATER)
        with pytest.raises(NotFound):
            index.get(directory)

    def test_kept_directory_is_empty_and_has_no_parent(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        index.rmdir(ROOT_INO, b"d", NOW, keep=True)
        assert index.children(directory, b"", 9) == []
        with pytest.raises(NotFound):
            index.parent_of(directory)
        index.drop(directory, NOW)

    def test_directory_with_children_is_refused(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        make_file(index, directory, b"a")
        with pytest.raises(DirectoryNotEmpty):
            index.rmdir(ROOT_INO, b"d", NOW, keep=False)

    def test_file_is_refused(self, index):
        make_file(index, ROOT_INO, b"a")
        with pytest.raises(NotADirectory):
            index.rmdir(ROOT_INO, b"a", NOW, keep=False)

    def test_trash_is_busy(self, index):
        with pytest.raises(Busy):
            index.rmdir(ROOT_INO, TRASH_NAME, NOW, keep=False)
