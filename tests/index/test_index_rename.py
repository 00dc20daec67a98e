"""rename(2) and its flags."""

from __future__ import annotations

import pytest
from index_builders import LATER, NOW, fill, make_directory, make_file, names, rename

from cozyfs.errors import (
    AlreadyExists,
    Busy,
    DirectoryNotEmpty,
    ForbiddenMove,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotFound,
    TooManyLinks,
)
from cozyfs.index import EXCHANGE, MAX_LINKS, NOREPLACE, Deletion
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME


@pytest.fixture
def tree(index):
    """``/d/sub/deep``, ``/e``, ``/a`` and ``/d/b``, as numbers by name."""
    d = make_directory(index, ROOT_INO, b"d").ino
    sub = make_directory(index, d, b"sub").ino
    return {
        "d": d,
        "sub": sub,
        "deep": make_directory(index, sub, b"deep").ino,
        "e": make_directory(index, ROOT_INO, b"e").ino,
        "a": make_file(index, ROOT_INO, b"a").ino,
        "b": make_file(index, d, b"b").ino,
    }


def test_file_moves_between_directories_with_all_times(index, tree):
    result = rename(index, ROOT_INO, b"a", tree["d"], b"new")
    assert (result.moved.ino, result.moved.ctime_ns, result.moved.mtime_ns) == (
        tree["a"],
        LATER,
        NOW,
    )
    assert result.replaced is None
    assert index.path_of(tree["a"]) == b"/d/new"
    for parent in (ROOT_INO, tree["d"]):
        assert (index.get(parent).mtime_ns, index.get(parent).ctime_ns) == (LATER, LATER)


def test_directory_moves_with_all_below_and_one_link_of_its_parents(index, tree):
    rename(index, tree["d"], b"sub", tree["e"], b"moved")
    assert index.path_of(tree["deep"]) == b"/e/moved/deep"
    assert (index.get(tree["d"]).nlink, index.get(tree["e"]).nlink) == (2, 3)
    assert index.parent_of(tree["sub"]) == tree["e"]


def test_within_one_directory_the_links_stay(index, tree):
    before = index.get(ROOT_INO).nlink
    rename(index, ROOT_INO, b"e", ROOT_INO, b"f")
    assert index.get(ROOT_INO).nlink == before
    assert names(index, ROOT_INO) == [TRASH_NAME, b"a", b"d", b"f"]


def test_replaced_file_goes_and_its_object_is_queued(index, tree):
    replaced = make_file(index, tree["d"], b"target", doc_id="doc").ino
    fill(index, replaced, "content")
    result = rename(index, ROOT_INO, b"a", tree["d"], b"target")
    assert (result.replaced.ino, result.replaced.nlink) == (replaced, 0)
    assert index.due_deletions(LATER + 1, 9) == [Deletion("doc", "content", LATER)]
    with pytest.raises(NotFound):
        index.get(replaced)


def test_replaced_file_that_is_open_is_kept(index, tree):
    rename(index, ROOT_INO, b"a", tree["d"], b"b", kept={tree["b"]})
    assert index.get(tree["b"]).nlink == 0


def test_keep_is_asked_only_about_the_last_name(index, tree):
    index.link(tree["b"], ROOT_INO, b"other", NOW)
    result = index.rename(ROOT_INO, b"a", tree["d"], b"b", LATER, keep=pytest.fail)
    assert result.replaced == index.get(tree["b"])
    assert (result.replaced.nlink, result.replaced.ctime_ns) == (1, LATER)


def test_directory_replaces_an_empty_directory(index, tree):
    result = rename(index, tree["d"], b"sub", ROOT_INO, b"e")
    assert (result.replaced.ino, result.replaced.nlink) == (tree["e"], 0)
    assert index.path_of(tree["deep"]) == b"/e/deep"
    assert (index.get(tree["d"]).nlink, index.get(ROOT_INO).nlink) == (2, 5)


def test_directory_replaces_its_sibling(index, tree):
    rename(index, ROOT_INO, b"d", ROOT_INO, b"e")
    assert index.get(ROOT_INO).nlink == 4
    assert index.path_of(tree["b"]) == b"/e/b"


def test_two_names_of_one_inode_stay_both(index, tree):
    index.link(tree["a"], ROOT_INO, b"other", NOW)
    result = rename(index, ROOT_INO, b"a", ROOT_INO, b"other")
    assert result.moved.nlink == 2
    assert index.lookup(ROOT_INO, b"a") == index.lookup(ROOT_INO, b"other")
    assert index.get(ROOT_INO).mtime_ns == NOW


def test_directory_moves_up_out_of_its_parent(index, tree):
    rename(index, tree["sub"], b"deep", ROOT_INO, b"deep")
    assert index.path_of(tree["deep"]) == b"/deep"


def test_anything_else_can_go_into_the_trash(index, tree):
    rename(index, ROOT_INO, b"d", TRASH_INO, b"d")
    assert index.path_of(tree["b"]) == b"/.cozy_trash/d/b"


class TestRefusals:
    def test_missing_source(self, index):
        with pytest.raises(NotFound):
            rename(index, ROOT_INO, b"none", ROOT_INO, b"x")

    def test_missing_or_removed_target_directory(self, index, tree):
        with pytest.raises(NotFound):
            rename(index, ROOT_INO, b"a", 999, b"x")
        index.rmdir(ROOT_INO, b"e", NOW, keep=True)
        with pytest.raises(NotFound):
            rename(index, ROOT_INO, b"a", tree["e"], b"x")

    def test_file_as_target_directory(self, index, tree):
        with pytest.raises(NotADirectory):
            rename(index, ROOT_INO, b"e", tree["a"], b"x")

    def test_file_over_directory(self, index):
        make_file(index, ROOT_INO, b"a")
        make_directory(index, ROOT_INO, b"d")
        with pytest.raises(IsADirectory):
            rename(index, ROOT_INO, b"a", ROOT_INO, b"d")

    def test_directory_over_file(self, index, tree):
        with pytest.raises(NotADirectory):
            rename(index, ROOT_INO, b"d", ROOT_INO, b"a")

    def test_directory_over_directory_with_children(self, index, tree):
        with pytest.raises(DirectoryNotEmpty):
            rename(index, ROOT_INO, b"e", ROOT_INO, b"d")

    def test_child_over_its_own_parent(self, index, tree):
        with pytest.raises(DirectoryNotEmpty):
            rename(index, tree["d"], b"sub", ROOT_INO, b"d")

    @pytest.mark.parametrize("target", ["d", "sub", "deep"])
    def test_directory_into_itself_or_below(self, index, tree, target):
        with pytest.raises(ForbiddenMove):
            rename(index, ROOT_INO, b"d", tree[target], b"x")

    def test_trash_does_not_move(self, index, tree):
        with pytest.raises(Busy):
            rename(index, ROOT_INO, TRASH_NAME, tree["e"], b"x")

    @pytest.mark.parametrize("flags", [0, EXCHANGE])
    def test_trash_is_not_replaced(self, index, tree, flags):
        with pytest.raises(Busy):
            rename(index, ROOT_INO, b"e", ROOT_INO, TRASH_NAME, flags=flags)

    def test_unknown_flags(self, index, tree):
        for flags in (NOREPLACE | EXCHANGE, 4):
            with pytest.raises(InvalidRequest):
                rename(index, ROOT_INO, b"a", ROOT_INO, b"x", flags=flags)

    def test_too_many_subdirectories_in_the_new_parent(self, index, tree):
        index.connection.execute(
            "UPDATE inodes SET nlink = ? WHERE ino = ?", (MAX_LINKS, tree["e"])
        )
        index.reload()
        with pytest.raises(TooManyLinks):
            rename(index, ROOT_INO, b"d", tree["e"], b"x")
        index.connection.execute("UPDATE inodes SET nlink = 2 WHERE ino = ?", (tree["e"],))
        index.reload()


class TestNoReplace:
    def test_free_name_is_taken(self, index, tree):
        rename(index, ROOT_INO, b"a", ROOT_INO, b"free", flags=NOREPLACE)
        assert index.path_of(tree["a"]) == b"/free"

    def test_taken_name_is_refused_even_if_it_is_the_same_inode(self, index, tree):
        for name in (b"e", b"a"):
            with pytest.raises(AlreadyExists):
                rename(index, ROOT_INO, b"a", ROOT_INO, name, flags=NOREPLACE)


class TestExchange:
    def test_file_and_directory_change_places_and_links_follow(self, index, tree):
        result = rename(index, ROOT_INO, b"a", tree["d"], b"sub", flags=EXCHANGE)
        assert index.path_of(tree["a"]) == b"/d/sub"
        assert index.path_of(tree["deep"]) == b"/a/deep"
        assert (result.moved.ino, result.exchanged.ino) == (tree["a"], tree["sub"])
        assert result.moved.ctime_ns == result.exchanged.ctime_ns == LATER
        assert (index.get(tree["d"]).nlink, index.get(ROOT_INO).nlink) == (2, 6)

    def test_two_directories_keep_their_children(self, index, tree):
        rename(index, ROOT_INO, b"e", tree["d"], b"sub", flags=EXCHANGE)
        assert index.path_of(tree["deep"]) == b"/e/deep"
        assert index.path_of(tree["e"]) == b"/d/sub"

    def test_siblings_change_places(self, index, tree):
        rename(index, ROOT_INO, b"a", ROOT_INO, b"d", flags=EXCHANGE)
        assert index.path_of(tree["b"]) == b"/a/b"
        assert index.path_of(tree["a"]) == b"/d"

    def test_missing_target(self, index, tree):
        with pytest.raises(NotFound):
            rename(index, ROOT_INO, b"a", ROOT_INO, b"none", flags=EXCHANGE)

    def test_directory_with_something_below_it_is_refused_both_ways(self, index, tree):
        with pytest.raises(ForbiddenMove):
            rename(index, ROOT_INO, b"d", tree["sub"], b"deep", flags=EXCHANGE)
        with pytest.raises(ForbiddenMove):
            rename(index, tree["sub"], b"deep", ROOT_INO, b"d", flags=EXCHANGE)
