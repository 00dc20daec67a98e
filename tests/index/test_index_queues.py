"""Deletions, drafts, local settings.

PT012 is off where the statement that raises is a whole transaction.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from index_builders import NOW, T0, make_file, traced

from cozyfs.index import Deletion, Index
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
