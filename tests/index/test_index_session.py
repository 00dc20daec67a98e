"""The journal's ground: a session over the journaled tables carries a tree to another machine."""

from __future__ import annotations

import apsw
from index_builders import (
    LATER,
    NOW,
    T0,
    check,
    dump,
    fill,
    make_directory,
    make_file,
    make_symlink,
    rename,
)

from cozyfs.index import EXCHANGE, JOURNALED_TABLES, Index
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges


def plant(index):
    for name in (b"d", b"e"):
        directory = make_directory(index, ROOT_INO, name).ino
        for number in range(20):
            file = make_file(index, directory, b"%d" % number).ino
            fill(index, file, f"int{number}")
            index.set_xattr(file, b"user.a", b"1", now_ns=NOW)
            index.set_document(file, {"tags": [str(number)]})


def change(index):
    d, e = index.resolve(b"/d").ino, index.resolve(b"/e").ino
    index.unlink(d, b"0", LATER, keep=False)
    index.unlink(d, b"1", LATER, keep=True)
    rename(index, d, b"2", e, b"3")
    rename(index, d, b"4", e, b"5", flags=EXCHANGE)
    rename(index, ROOT_INO, b"d", TRASH_INO, b"d")
    rename(index, TRASH_INO, b"d", e, b"d")
    index.link(index.lookup(d, b"6").ino, e, b"link", LATER)
    make_symlink(index, d, b"symlink", b"target")
    make_directory(index, e, b"new")
    index.rmdir(e, b"new", LATER, keep=False)
    file = index.lookup(d, b"7").ino
    fill(index, file, "other", size=77, now_ns=LATER)
    index.set_attributes(file, AttributeChanges(mode=0o600, uid=5), LATER)
    index.set_xattr(file, b"user.a", b"2", now_ns=LATER)
    index.remove_xattr(index.lookup(d, b"8").ino, b"user.a", LATER)
    index.set_document(file, None)
    index.forget_deletions(index.due_deletions(LATER + 1, 1))
    index.save_draft(file, b"local")
    index.set_setting("local", "yes")
    for number in range(1_100):
        make_file(index, d, b"more%d" % number)


def copy(index, path):
    other = apsw.Connection(str(path))
    with other.backup("main", index.connection, "main") as backup:
        backup.step()
    other.close()
    return path


def conflict(reason, change):
    raise AssertionError(f"conflict {reason} on {change}")


def record(index, work):
    session = apsw.Session(index.connection, "main")
    for table in JOURNALED_TABLES:
        session.attach(table)
    work(index)
    changeset = session.changeset()
    session.close()
    return changeset


def test_changeset_applied_to_a_copy_gives_an_equal_tree(path, tmp_path):
    with Index.create(path, uid=0, gid=0, now_ns=T0) as index:
        plant(index)
        other_path = copy(index, tmp_path / "other.sqlite")
        changeset = record(index, change)
        with Index.open(other_path) as other:
            apsw.Changeset.apply(changeset, other.connection, conflict=conflict)
            other.reload()
            assert dump(other.connection) == dump(index.connection)
            assert other.usage == index.usage
            assert other.drafts() == []
            assert other.setting("local") is None
            check(other)


def test_inode_numbers_go_on_after_a_changeset_was_applied(path, tmp_path):
    with Index.create(path, uid=0, gid=0, now_ns=T0) as index:
        other_path = copy(index, tmp_path / "other.sqlite")
        changeset = record(index, plant)
        index.unlink(index.resolve(b"/d").ino, b"1", NOW, keep=False)
        with Index.open(other_path) as other:
            apsw.Changeset.apply(changeset, other.connection, conflict=conflict)
            other.reload()
            known = {row[0] for row in dump(other.connection)["inodes"]}
            assert make_file(other, ROOT_INO, b"new").ino > max(known)


def test_undone_transactions_leave_no_trace_in_a_changeset(path):
    def fail(index):
        try:
            with index.transaction():
                make_file(index, ROOT_INO, b"a")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    with Index.create(path, uid=0, gid=0, now_ns=T0) as index:
        assert record(index, fail) == b""
