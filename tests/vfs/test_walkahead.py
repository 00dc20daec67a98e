"""Which small files are fetched ahead of a reader that walks a directory."""

import stat

import pytest

from cozyfs.index import Index
from cozyfs.values import ROOT_INO, Content
from cozyfs.vfs.walkahead import LONGEST_RUN, SMALL, WalkAhead


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "index.db", uid=0, gid=0, now_ns=1) as index:
        yield index


def make(index, name, size=100, mode=stat.S_IFREG | 0o644):
    inode = index.make(ROOT_INO, name, mode, uid=0, gid=0, doc_id=name.hex(), now_ns=1)
    if not stat.S_ISREG(mode):
        return inode
    content = Content("a" * 16, size, size, None, None)
    return index.set_content(inode.ino, content, mtime_ns=1, ctime_ns=1, now_ns=1)


def names(inodes):
    return [bytes.fromhex(inode.doc_id) for inode in inodes]


def numbered(index, count):
    return [make(index, b"f%03d" % i) for i in range(count)]


def test_the_first_open_of_a_directory_fetches_nothing_ahead(index):
    files = numbered(index, 5)
    assert WalkAhead(index).opened(files[0]) == []


def test_the_second_neighbour_starts_a_run_that_doubles(index):
    files = numbered(index, 40)
    walk = WalkAhead(index)
    walk.opened(files[0])
    assert names(walk.opened(files[1])) == [b"f002", b"f003"]
    assert names(walk.opened(files[2])) == [b"f004", b"f005", b"f006"]
    assert len(names(walk.opened(files[3]))) == 5


def test_no_file_is_asked_for_twice_and_none_is_missed(index):
    files = numbered(index, 200)
    walk = WalkAhead(index)
    asked = [name for inode in files for name in names(walk.opened(inode))]
    assert asked == [b"f%03d" % i for i in range(2, 200)]


def test_a_run_never_exceeds_its_limit(index):
    files = numbered(index, 300)
    walk = WalkAhead(index)
    assert max(len(walk.opened(inode)) for inode in files) <= LONGEST_RUN


def test_a_jump_ends_the_walk(index):
    files = numbered(index, 60)
    walk = WalkAhead(index)
    walk.opened(files[0])
    walk.opened(files[1])
    assert walk.opened(files[50]) == []


def test_walking_backwards_is_no_walk(index):
    files = numbered(index, 10)
    walk = WalkAhead(index)
    assert [walk.opened(inode) for inode in reversed(files)] == [[]] * 10


def test_directories_and_large_files_between_do_not_end_the_walk(index):
    first, second = make(index, b"a"), make(index, b"b")
    make(index, b"c", mode=stat.S_IFDIR | 0o755)
    make(index, b"d", size=SMALL + 1)
    last = make(index, b"e")
    make(index, b"f")
    walk = WalkAhead(index)
    walk.opened(first)
    assert names(walk.opened(second)) == []
    assert names(walk.opened(last)) == [b"f"]


def test_a_file_with_two_names_tells_nothing(index):
    files = numbered(index, 4)
    index.link(files[1].ino, ROOT_INO, b"other", 1)
    walk = WalkAhead(index)
    walk.opened(files[0])
    assert walk.opened(index.get(files[1].ino)) == []
