"""Questions: by number, name, path, and page by page."""

from __future__ import annotations

import pytest
from index_builders import (
    NOW,
    T0,
    all_pages,
    make_directory,
    make_file,
    make_symlink,
    names,
    rename,
)

from cozyfs.errors import NotADirectory, NotFound
from cozyfs.index import Index
from cozyfs.index import cache as cache_module
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME


def test_missing_inode_is_not_found(index):
    for question in (index.get, index.entries_of, index.path_of, index.has_children):
        with pytest.raises(NotFound):
            question(999)


def test_lookup_tells_a_missing_name_from_a_parent_that_is_no_directory(index):
    file = make_file(index, ROOT_INO, b"a").ino
    with pytest.raises(NotFound):
        index.lookup(ROOT_INO, b"none")
    with pytest.raises(NotFound):
        index.lookup(999, b"none")
    with pytest.raises(NotADirectory):
        index.lookup(file, b"none")


def test_names_are_bytes_and_differ_by_case_and_normal_form(index):
    spellings = [b"a", b"A", "é".encode(), "e\u0301".encode(), b"\xff"]
    inos = [make_file(index, ROOT_INO, name, doc_id="x").ino for name in spellings]
    assert [index.lookup(ROOT_INO, name).ino for name in spellings] == inos


class TestChildren:
    def test_children_come_in_the_order_of_their_bytes(self, index):
        for name in (b"b", b"a", "é".encode(), b"B", b"a.b", b"a-b"):
            make_file(index, ROOT_INO, name)
        expected = [TRASH_NAME, b"B", b"a", b"a-b", b"a.b", b"b", "é".encode()]
        assert names(index, ROOT_INO) == expected
        assert names(index, ROOT_INO) == expected

    def test_pages_go_on_after_the_last_name_until_one_is_short(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        for number in range(7):
            make_file(index, directory, b"%d" % number)
        for _ in range(2):
            first = index.children(directory, b"", 3)
            second = index.children(directory, b"2", 3)
            last = index.children(directory, b"5", 3)
            pages = [[name for name, _ in page] for page in (first, second, last)]
            assert pages == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
            assert index.children(directory, b"6", 3) == []

    def test_a_page_goes_on_where_a_name_was_removed_meanwhile(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        for number in range(4):
            make_file(index, directory, b"%d" % number)
        index.children(directory, b"", 2)
        index.unlink(directory, b"1", NOW, keep=False)
        assert [name for name, _ in index.children(directory, b"1", 2)] == [b"2", b"3"]

    def test_a_listing_that_was_read_follows_every_change(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        for name in (b"b", b"d", b"f"):
            make_file(index, directory, name)
        all_pages(index, directory, 2)
        make_file(index, directory, b"a")
        make_file(index, directory, b"g")
        index.unlink(directory, b"d", NOW, keep=False)
        rename(index, directory, b"f", directory, b"c")
        rename(index, directory, b"a", ROOT_INO, b"away")
        assert names(index, directory) == [b"b", b"c", b"g"]

    def test_a_half_read_listing_follows_every_change(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        for name in (b"b", b"d", b"f", b"h"):
            make_file(index, directory, name)
        index.reload()
        index.children(directory, b"", 2)
        make_file(index, directory, b"a")
        make_file(index, directory, b"e")
        index.unlink(directory, b"d", NOW, keep=False)
        assert [name for name, _ in index.children(directory, b"b", 2)] == [b"e", b"f"]
        assert names(index, directory) == [b"a", b"b", b"e", b"f", b"h"]

    def test_a_new_name_behind_the_end_of_a_half_read_listing_hides_none_before_it(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        for name in (b"b", b"d", b"f"):
            make_file(index, directory, name)
        index.reload()
        index.children(directory, b"", 2)
        make_file(index, directory, b"z")
        assert [name for name, _ in index.children(directory, b"", 3)] == [b"b", b"d", b"f"]

    def test_children_carry_their_attributes_of_now(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        file = make_file(index, directory, b"a").ino
        names(index, directory)
        index.link(file, ROOT_INO, b"b", NOW)
        assert index.children(directory, b"", 9) == [(b"a", index.get(file))]

    def test_directory_too_large_for_the_cache_is_read_page_by_page(self, index, monkeypatch):
        monkeypatch.setattr(cache_module, "MAX_LISTING", 5)
        directory = make_directory(index, ROOT_INO, b"d").ino
        for number in range(9):
            make_file(index, directory, b"%d" % number)
        for _ in range(2):
            assert [name for name, _ in all_pages(index, directory, 2)] == [
                b"%d" % number for number in range(9)
            ]

    def test_only_directories_have_children(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        for question in (index.has_children, index.parent_of, lambda i: index.children(i, b"", 1)):
            with pytest.raises(NotADirectory):
                question(file)
        with pytest.raises(NotFound):
            index.children(999, b"", 1)


class TestPaths:
    def test_path_and_resolve_are_inverse(self, index):
        a = make_directory(index, ROOT_INO, b"a").ino
        b = make_directory(index, a, b"b").ino
        file = make_file(index, b, b"c").ino
        assert index.path_of(file) == b"/a/b/c"
        assert index.resolve(b"/a/b/c").ino == file
        assert index.resolve(b"a//b/").ino == b

    def test_root_is_its_own_parent_and_a_single_slash(self, index):
        assert index.path_of(ROOT_INO) == b"/"
        assert index.resolve(b"/").ino == ROOT_INO
        assert index.parent_of(ROOT_INO) == ROOT_INO
        assert index.parent_of(TRASH_INO) == ROOT_INO
        assert index.entries_of(ROOT_INO) == []

    def test_resolve_does_not_follow_symbolic_links(self, index):
        make_symlink(index, ROOT_INO, b"l", b"/.cozy_trash")
        with pytest.raises(NotADirectory):
            index.resolve(b"/l/x")
        with pytest.raises(NotADirectory):
            index.resolve(b"/l/")
        with pytest.raises(NotFound):
            index.resolve(b"/x")

    def test_removed_inode_has_no_path(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        index.unlink(ROOT_INO, b"a", NOW, keep=True)
        with pytest.raises(NotFound):
            index.path_of(file)

    def test_a_circle_in_a_damaged_tree_comes_to_an_end(self, path):
        with Index.create(path, uid=0, gid=0, now_ns=T0) as index:
            a = make_directory(index, ROOT_INO, b"a").ino
            b = make_directory(index, a, b"b").ino
            e = make_directory(index, ROOT_INO, b"e").ino
            index.connection.execute("UPDATE entries SET parent = ? WHERE ino = ?", (b, a))
            index.reload()
            with pytest.raises(NotFound):
                index.path_of(b)
            rename(index, ROOT_INO, b"e", b, b"e")
            assert index.parent_of(e) == b


def test_a_reader_sees_what_the_writer_commits(index, path):
    with Index.open(path, read_only=True) as reader:
        make_file(index, ROOT_INO, b"a")
        assert names(reader, ROOT_INO) == [TRASH_NAME, b"a"]
        index.unlink(ROOT_INO, b"a", NOW, keep=False)
        assert names(reader, ROOT_INO) == [TRASH_NAME]
        assert reader.usage == index.usage
