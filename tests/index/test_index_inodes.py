"""Attributes, contents, extended attributes, documents."""

from __future__ import annotations

from stat import S_IFREG

import pytest
from index_builders import LATER, NOW, T0, fill, make_directory, make_file

from cozyfs.errors import AlreadyExists, InvalidRequest, NoSuchAttribute, NotFound
from cozyfs.index import Deletion, Index, Usage
from cozyfs.values import ROOT_INO, AttributeChanges, Content


@pytest.fixture
def file(index):
    return make_file(index, ROOT_INO, b"file", doc_id="doc").ino


class TestAttributes:
    def test_only_what_is_asked_for_changes_and_ctime(self, index, file):
        before = index.get(file)
        after = index.set_attributes(file, AttributeChanges(uid=7, mtime_ns=5), LATER)
        assert after == before._replace(uid=7, mtime_ns=5, ctime_ns=LATER)
        assert index.get(file) == after

    def test_every_attribute_can_change(self, index, file):
        changes = AttributeChanges(mode=0o4711, uid=1, gid=2, atime_ns=3, mtime_ns=-4)
        after = index.set_attributes(file, changes, LATER)
        assert after.mode == S_IFREG | 0o4711
        assert (after.uid, after.gid, after.atime_ns, after.mtime_ns) == (1, 2, 3, -4)

    def test_the_type_of_a_file_never_changes(self, index, file):
        after = index.set_attributes(file, AttributeChanges(mode=0o040777), LATER)
        assert after.mode == S_IFREG | 0o777

    def test_missing_inode_is_not_found(self, index):
        with pytest.raises(NotFound):
            index.set_attributes(999, AttributeChanges(mode=0), NOW)


class TestContent:
    def test_every_field_of_a_content_arrives(self, index, file):
        content = Content("int", size=9, stored=4, md5=b"m" * 16, etag="e", extents=b"x")
        after = index.set_content(file, content, mtime_ns=1, ctime_ns=2, now_ns=3)
        assert (after.internal_id, after.size, after.stored) == ("int", 9, 4)
        assert (after.md5, after.etag, after.extents) == (b"m" * 16, "e", b"x")
        assert (after.mtime_ns, after.ctime_ns) == (1, 2)
        assert index.get(file) == after

    def test_former_object_is_queued_for_deletion(self, index, file):
        fill(index, file, "one")
        assert index.pending_deletions() == 0
        fill(index, file, "two", now_ns=LATER)
        assert index.due_deletions(LATER + 1, 9) == [Deletion("doc", "one", LATER)]

    def test_same_object_is_not_queued(self, index, file):
        fill(index, file, "one")
        fill(index, file, "one", size=5)
        assert index.pending_deletions() == 0

    def test_truncating_to_nothing_queues_the_object(self, index, file):
        fill(index, file, "one")
        fill(index, file, None, size=0)
        assert index.get(file).internal_id is None
        assert index.pending_deletions() == 1

    def test_removed_inode_that_is_kept_still_takes_a_content(self, index, file):
        index.unlink(ROOT_INO, b"file", NOW, keep=True)
        assert fill(index, file, "one").size == 10

    def test_inode_that_is_gone_is_not_found_and_nothing_is_queued(self, index, file):
        fill(index, file, "one")
        index.unlink(ROOT_INO, b"file", NOW, keep=True)
        index.drop(file, NOW)
        queued = index.due_deletions(LATER, 9)
        with pytest.raises(NotFound):
            fill(index, file, "two")
        assert index.due_deletions(LATER, 9) == queued

    def test_directories_have_no_content(self, index):
        with pytest.raises(InvalidRequest):
            fill(index, ROOT_INO, "one")


class TestUsage:
    def test_new_index_holds_two_inodes_and_no_file(self, index):
        assert index.usage == Usage(inodes=2, files=0, file_bytes=0, stored_bytes=0)

    def test_files_count_with_their_sizes_and_directories_without(self, index, file):
        make_directory(index, ROOT_INO, b"d")
        content = Content("int", size=100, stored=60, md5=None, etag=None)
        index.set_content(file, content, mtime_ns=NOW, ctime_ns=NOW, now_ns=NOW)
        assert index.usage == Usage(inodes=4, files=1, file_bytes=100, stored_bytes=60)

    def test_a_file_with_two_names_counts_once(self, index, file):
        fill(index, file, "one", size=10)
        index.link(file, ROOT_INO, b"other", NOW)
        assert index.usage == Usage(inodes=3, files=1, file_bytes=10, stored_bytes=10)

    def test_a_removed_file_counts_until_it_is_dropped(self, index, file):
        fill(index, file, "one", size=10)
        index.unlink(ROOT_INO, b"file", NOW, keep=True)
        assert index.usage.file_bytes == 10
        index.drop(file, NOW)
        assert index.usage == Usage(inodes=2, files=0, file_bytes=0, stored_bytes=0)

    def test_reopening_counts_the_same(self, path):
        with Index.create(path, uid=0, gid=0, now_ns=T0) as index:
            fill(index, make_file(index, ROOT_INO, b"a").ino, "one", size=2**40)
            before = index.usage
        with Index.open(path) as index:
            assert index.usage == before


class TestXattrs:
    def test_values_come_back_and_names_are_sorted(self, index, file):
        index.set_xattr(file, b"user.b", b"\0\xff", now_ns=NOW)
        index.set_xattr(file, b"user.a", b"", now_ns=LATER)
        assert index.get_xattr(file, b"user.b") == b"\0\xff"
        assert index.get_xattr(file, b"user.a") == b""
        assert index.list_xattrs(file) == [b"user.a", b"user.b"]
        assert index.get(file).ctime_ns == LATER
        assert index.get(file).mtime_ns == NOW

    def test_create_refuses_an_existing_attribute(self, index, file):
        index.set_xattr(file, b"user.a", b"1", create=True, now_ns=NOW)
        with pytest.raises(AlreadyExists):
            index.set_xattr(file, b"user.a", b"2", create=True, now_ns=LATER)
        assert index.get_xattr(file, b"user.a") == b"1"
        assert index.get(file).ctime_ns == NOW

    def test_replace_refuses_a_missing_attribute(self, index, file):
        with pytest.raises(NoSuchAttribute):
            index.set_xattr(file, b"user.a", b"1", replace=True, now_ns=NOW)
        index.set_xattr(file, b"user.a", b"1", now_ns=NOW)
        index.set_xattr(file, b"user.a", b"2", replace=True, now_ns=NOW)
        assert index.get_xattr(file, b"user.a") == b"2"

    def test_removed_attribute_is_missing(self, index, file):
        index.set_xattr(file, b"user.a", b"1", now_ns=NOW)
        index.remove_xattr(file, b"user.a", LATER)
        assert index.get(file).ctime_ns == LATER
        assert index.list_xattrs(file) == []
        with pytest.raises(NoSuchAttribute):
            index.get_xattr(file, b"user.a")
        with pytest.raises(NoSuchAttribute):
            index.remove_xattr(file, b"user.a", LATER)

    def test_missing_inode_is_not_found(self, index):
        with pytest.raises(NotFound):
            index.get_xattr(999, b"user.a")
        with pytest.raises(NotFound):
            index.list_xattrs(999)
        with pytest.raises(NotFound):
            index.set_xattr(999, b"user.a", b"", now_ns=NOW)
        with pytest.raises(NotFound):
            index.remove_xattr(999, b"user.a", NOW)


FIELDS = {"tags": ["é", "b"], "metadata": {"n": 1.5, "flag": None}, "referenced_by": []}


class TestDocuments:
    def test_fields_come_back_as_they_were(self, index, file):
        assert index.document(file) == {}
        index.set_document(file, FIELDS)
        assert index.document(file) == FIELDS

    def test_fields_are_replaced_as_a_whole(self, index, file):
        index.set_document(file, FIELDS)
        index.set_document(file, {"tags": []})
        assert index.document(file) == {"tags": []}

    @pytest.mark.parametrize("nothing", [None, {}])
    def test_nothing_removes_the_row(self, index, file, nothing):
        index.set_document(file, FIELDS)
        index.set_document(file, nothing)
        assert index.document(file) == {}
        assert index.connection.execute("SELECT * FROM documents").fetchall() == []

    def test_missing_inode_is_not_found(self, index):
        with pytest.raises(NotFound):
            index.document(999)
        with pytest.raises(NotFound):
            index.set_document(999, FIELDS)
