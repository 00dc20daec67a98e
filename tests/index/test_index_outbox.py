"""The outbox: what transactions leave in it, and what its changesets do to another tree."""

from __future__ import annotations

import shutil

import pytest
from index_builders import (
    LATER,
    NOW,
    T0,
    check,
    dump,
    fill,
    make_directory,
    make_file,
    names,
    rename,
    traced,
)

from cozyfs.errors import JournalDamaged, NotFound
from cozyfs.index import Index, grouped
from cozyfs.index.journal import START, Position
from cozyfs.index.outbox import OutboxRecorder, changes_in
from cozyfs.values import ROOT_INO, TRASH_NAME, AttributeChanges

FIRST = Position(1, 1, b"1" * 32)
ALL = 1 << 30


@pytest.fixture
def replica(template, tmp_path):
    path = tmp_path / "replica.sqlite"
    shutil.copyfile(template, path)
    with Index.open(path) as index:
        yield index
        check(index)


@pytest.fixture
def recording(index):
    index.start_recording()
    return index


def changesets(index):
    batch = index.take_outbox(ALL)
    return [] if batch is None else list(batch.changesets)


class TestRecording:
    def test_nothing_is_recorded_unless_asked_for(self, index):
        make_file(index, ROOT_INO, b"a")
        assert changesets(index) == []
        assert index.last_seq == 0

    def test_each_transaction_that_changes_the_tree_leaves_one_row(self, recording):
        make_file(recording, ROOT_INO, b"a")
        with recording.transaction():
            make_file(recording, ROOT_INO, b"b")
            make_file(recording, ROOT_INO, b"c")
        assert len(changesets(recording)) == 2
        assert recording.last_seq == 2

    def test_local_tables_leave_none_and_cost_no_session(self, recording, monkeypatch):
        monkeypatch.setattr("apsw.Session", None)
        recording.save_draft(ROOT_INO, b"draft")
        recording.set_setting("a", "b")
        recording.remove_draft(ROOT_INO)
        assert changesets(recording) == []

    def test_a_transaction_that_changes_nothing_leaves_none(self, recording):
        recording.set_attributes(ROOT_INO, AttributeChanges(), T0)
        assert changesets(recording) == []

    def test_an_undone_transaction_leaves_none(self, recording):
        with pytest.raises(ZeroDivisionError), recording.transaction():  # noqa: PT012
            make_file(recording, ROOT_INO, b"a")
            _ = 1 // 0
        with pytest.raises(NotFound):
            recording.unlink(ROOT_INO, b"none", NOW, keep=False)
        assert changesets(recording) == []
        make_file(recording, ROOT_INO, b"a")
        assert recording.last_seq == 1

    def test_it_goes_on_after_the_file_was_opened_again(self, replica):
        replica.start_recording()
        make_file(replica, ROOT_INO, b"a")
        with Index.open(replica.connection.filename) as index:
            make_file(index, ROOT_INO, b"b")
            assert len(changesets(index)) == 2
            assert (index.last_seq, index.origin) == (2, replica.origin)
        replica.reload()

    def test_starting_twice_changes_nothing(self, recording):
        origin = recording.origin
        recording.start_recording()
        assert recording.origin == origin
        assert recording.position == START

    def test_every_statement_that_writes_is_understood(self, recording):
        make_directory(recording, ROOT_INO, b"d")
        file = make_file(recording, ROOT_INO, b"a").ino
        fill(recording, file, "one")
        fill(recording, file, "two")
        recording.set_xattr(file, b"user.a", b"1", now_ns=NOW)
        recording.remove_xattr(file, b"user.a", LATER)
        recording.set_document(file, {"a": 1})
        recording.set_document(file, None)
        recording.forget_deletions(recording.due_deletions(LATER, 9))
        rename(recording, ROOT_INO, b"a", ROOT_INO, b"b")
        recording.unlink(ROOT_INO, b"b", LATER, keep=True)
        recording.drop(file, LATER)
        recording.rmdir(ROOT_INO, b"d", LATER, keep=False)
        assert len(changesets(recording)) == 13


class TestTaking:
    def test_oldest_first_as_much_as_fits_at_least_one(self, recording):
        for name in (b"a", b"b", b"c"):
            make_file(recording, ROOT_INO, name)
        sizes = [len(changeset) for changeset in changesets(recording)]
        assert recording.take_outbox(1).last_seq == 1
        assert recording.take_outbox(sum(sizes[:2])).last_seq == 2
        assert recording.take_outbox(ALL).last_seq == 3

    def test_what_was_taken_stays_until_it_is_forgotten(self, recording):
        make_file(recording, ROOT_INO, b"a")
        make_file(recording, ROOT_INO, b"b")
        assert recording.take_outbox(1) == recording.take_outbox(1)
        recording.forget_outbox(1, FIRST)
        assert recording.take_outbox(1).last_seq == 2
        assert recording.position == FIRST
        recording.forget_outbox(2, FIRST)
        assert recording.take_outbox(1) is None

    def test_numbers_never_start_again_while_the_file_is_open(self, recording):
        make_file(recording, ROOT_INO, b"a")
        recording.forget_outbox(1, FIRST)
        make_file(recording, ROOT_INO, b"b")
        assert recording.last_seq == 2


class TestApplying:
    def test_a_grouped_changeset_makes_the_trees_equal(self, recording, replica):
        directory = make_directory(recording, ROOT_INO, b"d").ino
        for number in range(30):
            fill(recording, make_file(recording, directory, b"%d" % number).ino, f"i{number}")
        for number in range(20):
            recording.unlink(directory, b"%d" % number, LATER, keep=False)
            make_file(recording, directory, b"%d" % number, doc_id="again")
        replica.apply(grouped(changesets(recording)), FIRST)
        assert dump(replica.connection) == dump(recording.connection)
        assert replica.usage == recording.usage
        assert replica.position == FIRST

    def test_what_a_reader_remembers_is_forgotten(self, recording, replica):
        file = make_file(recording, ROOT_INO, b"a").ino
        replica.apply(grouped(changesets(recording)), FIRST)
        recording.forget_outbox(9, FIRST)
        assert names(replica, ROOT_INO) == [TRASH_NAME, b"a"]
        fill(recording, file, "content", size=5)
        rename(recording, ROOT_INO, b"a", ROOT_INO, b"b")
        replica.apply(grouped(changesets(recording)), FIRST)
        assert names(replica, ROOT_INO) == [TRASH_NAME, b"b"]
        assert replica.get(file).size == 5

    def test_it_tells_what_changed(self, recording, replica):
        file = make_file(recording, ROOT_INO, b"a").ino
        recording.set_xattr(file, b"user.a", b"1", now_ns=LATER)
        changes = replica.apply(grouped(changesets(recording)), FIRST)
        assert changes.inodes == {ROOT_INO, file}
        assert changes.entries == {(ROOT_INO, b"a")}

    def test_very_many_changes_at_once_are_counted_anew(self, recording, replica):
        with recording.transaction():
            for number in range(2_100):
                make_file(recording, ROOT_INO, b"%d" % number)
        replica.apply(grouped(changesets(recording)), FIRST)
        assert replica.usage == recording.usage

    def test_a_conflict_is_damage_and_changes_nothing(self, recording, replica):
        make_file(recording, ROOT_INO, b"b")
        make_file(replica, ROOT_INO, b"b")
        before = dump(replica.connection), replica.usage, replica.position
        with pytest.raises(JournalDamaged, match="UPDATE of inodes"):
            replica.apply(grouped(changesets(recording)), FIRST)
        assert (dump(replica.connection), replica.usage, replica.position) == before
        assert names(replica, ROOT_INO) == [TRASH_NAME, b"b"]

    def test_a_missing_row_is_damage(self, recording, replica):
        file = make_file(recording, ROOT_INO, b"a").ino
        recording.forget_outbox(1, FIRST)
        fill(recording, file, "content")
        with pytest.raises(JournalDamaged, match=rf"inodes \[{file}\]: .*NOTFOUND"):
            replica.apply(grouped(changesets(recording)), FIRST)

    def test_what_is_no_changeset_is_damage(self, replica):
        with pytest.raises(JournalDamaged):
            changes_in(b"Tnonsense")
        with pytest.raises(JournalDamaged):
            replica.apply_unseen(b"Tnonsense", FIRST)

    def test_taking_back_is_the_reverse(self, recording, replica):
        directory = make_directory(recording, ROOT_INO, b"d").ino
        make_file(recording, directory, b"a")
        before = dump(replica.connection)
        changeset = grouped(changesets(recording))
        replica.apply(changeset, FIRST)
        replica.take_back(changeset, START)
        assert dump(replica.connection) == before
        assert replica.position == START

    def test_what_is_applied_is_not_recorded(self, recording, replica):
        replica.start_recording()
        make_file(recording, ROOT_INO, b"a")
        replica.apply(grouped(changesets(recording)), FIRST)
        assert changesets(replica) == []


def test_undoing_the_outbox_leads_back_to_the_position(recording):
    make_file(recording, ROOT_INO, b"a")
    recording.forget_outbox(1, FIRST)
    before = dump(recording.connection)
    file = make_file(recording, ROOT_INO, b"b").ino
    fill(recording, file, "content")
    rename(recording, ROOT_INO, b"a", ROOT_INO, b"b")
    recording.undo_outbox()
    assert dump(recording.connection) == before
    assert changesets(recording) == []
    assert names(recording, ROOT_INO) == [TRASH_NAME, b"a"]


def test_a_failed_commit_is_not_counted(recording, monkeypatch):
    def fail(self):
        raise apsw_full()

    monkeypatch.setattr(OutboxRecorder, "about_to_commit", fail)
    with pytest.raises(Exception, match="no space"):
        make_file(recording, ROOT_INO, b"a")
    monkeypatch.undo()
    assert names(recording, ROOT_INO) == [TRASH_NAME]
    assert recording.last_seq == 0


def apsw_full():
    import apsw

    return apsw.FullError("full")


def test_statements_beside_writes_need_no_session(recording):
    make_file(recording, ROOT_INO, b"a")
    statements = traced(recording)
    recording.lookup(ROOT_INO, b"a")
    recording.connection.exec_trace = None
    assert not [sql for sql in statements if "outbox" in sql]
