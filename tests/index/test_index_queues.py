"""Deletions, drafts, local settings.

PT012 is off where the statement that raises is a whole transaction.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from stat import S_IFDIR, S_IFIFO

import pytest
from index_builders import NOW, T0, make_file, traced

from cozyfs.index import NOTE_IMAGES, Deletion, Index, is_note
from cozyfs.values import ROOT_INO


class TestDeletions:
    def test_due_objects_come_oldest_first_up_to_the_limit(self, index):
        for number in (30, 10, 20):
            index.queue_deletion(f"doc{number}", "int", number)
        assert index.pending_deletions() == 3
        assert [row.queued_ns for row in index.due_deletions(30, 9)] == [10, 20]
        assert [row.queued_ns for row in index.due_deletions(99, 2)] == [10, 20]

    def test_queueing_again_starts_the_wait_anew(self, index):
        index.queue_deletion("doc", "int", 10)
        index.queue_deletion("doc", "int", 20)
        assert index.due_deletions(99, 9) == [Deletion("doc", "int", 20)]

    def test_forgotten_rows_are_gone_for_good(self, index):
        index.queue_deletion("doc", "a", 10)
        index.queue_deletion("doc", "b", 11)
        index.forget_deletions(index.due_deletions(11, 9))
        assert index.due_deletions(99, 9) == [Deletion("doc", "b", 11)]
        index.forget_deletions([])
        assert index.pending_deletions() == 1

    def test_a_row_queued_anew_since_it_was_read_is_not_forgotten(self, index):
        index.queue_deletion("doc", "int", 10)
        due = index.due_deletions(99, 9)
        index.queue_deletion("doc", "int", 20)
        index.forget_deletions(due)
        assert index.pending_deletions() == 1


class TestNotes:
    """Their images wait from the moment on when their last name goes: later nobody knows it."""

    def waiting(self, index):
        return {row.doc_id for row in index.due_deletions(1 << 62, 99) if row[1] == NOTE_IMAGES}

    @pytest.mark.parametrize("keep", [False, True])
    def test_the_images_of_a_note_wait_with_its_last_name(self, index, keep):
        note = make_file(index, ROOT_INO, b"a.cozy-note")
        index.link(note.ino, ROOT_INO, b"b.cozy-note", NOW)
        index.unlink(ROOT_INO, b"a.cozy-note", NOW, keep=keep)
        assert self.waiting(index) == set()
        index.unlink(ROOT_INO, b"b.cozy-note", NOW, keep=keep)
        assert self.waiting(index) == {note.doc_id}

    def test_also_when_another_file_takes_the_name(self, index):
        note = make_file(index, ROOT_INO, b"a.cozy-note")
        make_file(index, ROOT_INO, b"b")
        index.rename(ROOT_INO, b"b", ROOT_INO, b"a.cozy-note", NOW, keep=lambda ino: False)
        assert self.waiting(index) == {note.doc_id}

    def test_but_not_when_that_goes_on_as_the_note(self, index):
        note, heir = make_file(index, ROOT_INO, b"a.cozy-note"), make_file(index, ROOT_INO, b"b")
        index.inherit(heir.ino, note.ino)
        index.rename(ROOT_INO, b"b", ROOT_INO, b"a.cozy-note", NOW, keep=lambda ino: True)
        assert self.waiting(index) == set()
        assert index.kept_documents([note.doc_id]) == set()
        index.unlink(ROOT_INO, b"a.cozy-note", NOW, keep=False)
        assert self.waiting(index) == {note.doc_id}
        assert index.kept_documents([note.doc_id]) == {note.doc_id}

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (b"a.cozy-note", True),
            (b"a.cozy-note (031415926)", True),
            (b"a\x7f.cozy-note", True),
            (b"a.COZY-NOTE", False),
            (b"a.cozy-note (2)", False),
            (b"a.cozy-note.txt", False),
            (b"cozy-note", False),
        ],
    )
    def test_a_note_is_known_by_its_name_also_in_the_trash(self, index, name, expected):
        make_file(index, ROOT_INO, name)
        index.unlink(ROOT_INO, name, NOW, keep=False)
        assert bool(self.waiting(index)) == is_note(name) == expected

    @pytest.mark.parametrize("mode", [S_IFDIR | 0o755, S_IFIFO | 0o644])
    def test_only_regular_files_are_notes(self, index, mode):
        name = b"a.cozy-note"
        index.make(ROOT_INO, name, mode, uid=0, gid=0, doc_id="d", now_ns=NOW)
        remove = index.rmdir if mode & S_IFDIR == S_IFDIR else index.unlink
        remove(ROOT_INO, name, NOW, keep=False)
        assert self.waiting(index) == set()

    def test_what_lies_beside_a_document_is_wanted_while_anything_of_it_is(self, index):
        note, heir = make_file(index, ROOT_INO, b"a.cozy-note"), make_file(index, ROOT_INO, b"b")
        assert index.is_wanted(note.doc_id)
        assert not index.is_wanted("nothing")
        index.unlink(ROOT_INO, b"a.cozy-note", NOW, keep=False)
        assert index.is_wanted(note.doc_id)
        index.deletions_done(index.due_deletions(1 << 62, 99))
        assert not index.is_wanted(note.doc_id)
        assert index.is_wanted(heir.doc_id)


class TestDrafts:
    def test_a_draft_is_replaced_listed_and_removed(self, index):
        index.save_draft(7, b"one")
        index.save_draft(5, b"five")
        index.save_draft(7, b"two")
        assert index.drafts() == [(5, b"five"), (7, b"two")]
        index.remove_draft(7)
        index.remove_draft(7)
        assert index.drafts() == [(5, b"five")]

    def test_a_draft_outlives_its_inode(self, index):
        file = make_file(index, ROOT_INO, b"a").ino
        index.save_draft(file, b"record")
        index.unlink(ROOT_INO, b"a", NOW, keep=False)
        assert index.drafts() == [(file, b"record")]

    def test_saving_a_draft_waits_for_the_disk_and_other_changes_do_not(self, index):
        statements = traced(index)
        make_file(index, ROOT_INO, b"a")
        assert not any("synchronous" in sql for sql in statements)
        statements.clear()
        index.save_draft(3, b"record")
        assert statements[0] == "PRAGMA synchronous = FULL"
        assert statements[-2:] == ["COMMIT", "PRAGMA synchronous = NORMAL"]
        index.connection.exec_trace = None

    def test_a_draft_joins_a_durable_transaction_and_no_other(self, index):
        with index.transaction(durable=True):
            file = make_file(index, ROOT_INO, b"a").ino
            index.save_draft(file, b"record")
        with pytest.raises(RuntimeError), index.transaction():  # noqa: PT012
            make_file(index, ROOT_INO, b"b")
            index.save_draft(file, b"other")
        assert index.drafts() == [(file, b"record")]

    def test_a_draft_survives_kill_9(self, path):
        Index.create(path, uid=0, gid=0, now_ns=T0).close()
        script = (
            "import os, signal, sys\n"
            "from cozyfs.index import Index\n"
            "index = Index.open(sys.argv[1])\n"
            "index.make(1, b'a', 0o100644, uid=0, gid=0, doc_id='doc', now_ns=1)\n"
            "index.save_draft(3, b'record')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", script, path], env=environment, timeout=30, check=False
        )
        assert done.returncode == -signal.SIGKILL
        with Index.open(path) as index:
            assert index.drafts() == [(3, b"record")]
            assert index.resolve(b"/a").ino == 3


def test_local_settings_are_kept_and_removed(index):
    assert index.setting("host") is None
    index.set_setting("host", "a")
    index.set_setting("host", "b")
    assert index.setting("host") == "b"
    index.set_setting("host", None)
    assert index.setting("host") is None


def test_it_is_known_since_when_no_object_was_deleted_that_the_tree_had(index):
    assert index.contents_since_ns == 0
    index.queue_deletion("d", "one", 5)
    index.queue_deletion("d", "two", 9)
    index.deletions_done(index.due_deletions(100, 10)[::-1])
    assert index.contents_since_ns == 9
    index.queue_deletion("d", "three", 7)
    index.deletions_done(index.due_deletions(100, 10))
    assert (index.contents_since_ns, index.pending_deletions()) == (9, 0)
    index.queue_deletion("d", "wanted", 11)
    index.keep_object("d", "wanted")
    index.deletions_done([])
    assert index.contents_since_ns == 9
