"""Random requests to an index and to a model of plain dictionaries: both always agree."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from stat import S_IFDIR, S_IFLNK, S_IFREG

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from index_builders import all_pages, check
from index_model import Model

from cozyfs.errors import NotFound, TreeError
from cozyfs.index import EXCHANGE, NOREPLACE, Index, Usage
from cozyfs.values import ROOT_INO, TRASH_INO, Content

NAMES = st.sampled_from([b"a", b"b", b"c", b"d.cozy-note", b".cozy_trash"])
# An index into the numbers given out so far, from the newest: mostly there, sometimes gone.
INOS = st.integers(0, 12)
CACHE_SIZES = st.sampled_from([0, 16, 48, 100_000])
TIMES_NS = 1_700_000_000_000_000_000


class Undone(Exception):
    pass


class Tree(RuleBasedStateMachine):
    template: Path

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index.sqlite"
        shutil.copyfile(self.template, self.path)
        self.index = self.open(100_000)
        self.now = TIMES_NS
        self.model = Model(self.now)
        self.inos = [1, 2]
        self.open_transaction = None

    def open(self, cache_size):
        index = Index.open(self.path, cache_size=cache_size)
        index.connection.execute("PRAGMA synchronous = OFF")
        return index

    def teardown(self):
        self.end_transaction(undo=False)
        check(self.index)
        self.index.close()
        self.folder.cleanup()

    # ---- both at once

    def pick(self, which):
        return self.inos[-1 - which % len(self.inos)]

    def both(self, real, expected):
        """The same answer of both, or the same refusal."""
        outcomes: list[type[TreeError] | None] = []
        for call in (real, expected):
            try:
                call()
                outcomes.append(None)
            except TreeError as exc:
                outcomes.append(type(exc))
        assert outcomes[0] is outcomes[1]
        self.now += 1

    def make(self, which, name, mode, *, directory=False, target=None):
        parent, now, doc_id, made = self.pick(which), self.now, f"doc{self.now}", []

        def real():
            inode = self.index.make(
                parent, name, mode, uid=0, gid=0, target=target, doc_id=doc_id, now_ns=now
            )
            assert inode.ino not in self.inos
            made.append(inode.ino)
            self.inos.append(inode.ino)

        def expected():
            self.model.make(
                parent,
                name,
                now,
                take_ino=lambda: made[0],
                doc_id=doc_id,
                directory=directory,
                target=target,
            )

        self.both(real, expected)

    @rule(which=INOS, name=NAMES)
    def make_file(self, which, name):
        self.make(which, name, S_IFREG | 0o644)

    @rule(which=INOS, name=NAMES)
    def make_directory(self, which, name):
        self.make(which, name, S_IFDIR | 0o755, directory=True)

    @rule(which=INOS, name=NAMES, pointing_to=st.binary(max_size=9))
    def make_symlink(self, which, name, pointing_to):
        self.make(which, name, S_IFLNK | 0o777, target=pointing_to)

    @rule(which=INOS, where=INOS, name=NAMES)
    def link(self, which, where, name):
        ino, parent, now = self.pick(which), self.pick(where), self.now
        self.both(
            lambda: self.index.link(ino, parent, name, now),
            lambda: self.model.link(ino, parent, name, now),
        )

    @rule(which=INOS, name=NAMES, keep=st.booleans())
    def unlink(self, which, name, keep):
        parent, now = self.pick(which), self.now
        self.both(
            lambda: self.index.unlink(parent, name, now, keep=keep),
            lambda: self.model.unlink(parent, name, now, keep=keep),
        )

    @rule(which=INOS, name=NAMES, keep=st.booleans())
    def rmdir(self, which, name, keep):
        parent, now = self.pick(which), self.now
        self.both(
            lambda: self.index.rmdir(parent, name, now, keep=keep),
            lambda: self.model.rmdir(parent, name, now, keep=keep),
        )

    @rule(
        which=INOS,
        name=NAMES,
        where=INOS,
        new_name=NAMES,
        flags=st.sampled_from([0, 0, NOREPLACE, EXCHANGE]),
        keep=st.booleans(),
    )
    def rename(self, which, name, where, new_name, flags, keep):
        old, new, now = (self.pick(which), name), (self.pick(where), new_name), self.now
        self.both(
            lambda: self.index.rename(*old, *new, now, flags=flags, keep=lambda ino: keep),
            lambda: self.model.rename(*old, *new, now, flags=flags, keep=keep),
        )

    @rule(which=INOS)
    def drop(self, which):
        ino, now = self.pick(which), self.now
        self.both(lambda: self.index.drop(ino, now), lambda: self.model.drop(ino, now))

    @rule(which=INOS, internal_id=st.sampled_from(["x", "y", None]), size=st.integers(0, 99))
    def set_content(self, which, internal_id, size):
        ino, now = self.pick(which), self.now
        content = Content(internal_id, size=size, stored=size // 2, md5=None, etag=None)
        self.both(
            lambda: self.index.set_content(ino, content, mtime_ns=now, ctime_ns=now, now_ns=now),
            lambda: self.model.set_content(ino, internal_id, size, now),
        )

    @rule(which=INOS, value=st.binary(max_size=4), create=st.booleans(), replace=st.booleans())
    def set_xattr(self, which, value, create, replace):
        ino, now, flags = self.pick(which), self.now, {"create": create, "replace": replace}
        self.both(
            lambda: self.index.set_xattr(ino, b"user.a", value, now_ns=now, **flags),
            lambda: self.model.set_xattr(ino, b"user.a", value, now, **flags),
        )

    @rule(which=INOS)
    def remove_xattr(self, which):
        ino, now = self.pick(which), self.now
        self.both(
            lambda: self.index.remove_xattr(ino, b"user.a", now),
            lambda: self.model.remove_xattr(ino, b"user.a", now),
        )

    @rule(which=INOS, fields=st.dictionaries(st.sampled_from(["tags", "é"]), st.integers()))
    def set_document(self, which, fields):
        ino = self.pick(which)
        self.both(
            lambda: self.index.set_document(ino, fields),
            lambda: self.model.set_document(ino, fields),
        )

    # ---- life of the index

    @precondition(lambda self: self.open_transaction is None)
    @rule(cache_size=CACHE_SIZES)
    def close_and_open(self, cache_size):
        self.index.close()
        self.index = self.open(cache_size)

    @precondition(lambda self: self.open_transaction is None)
    @rule()
    def begin(self):
        self.open_transaction = self.index.transaction()
        self.before = copy.deepcopy(self.model), list(self.inos)
        self.open_transaction.__enter__()

    @precondition(lambda self: self.open_transaction is not None)
    @rule(undo=st.booleans())
    def end_transaction(self, undo):
        transaction, self.open_transaction = self.open_transaction, None
        if transaction is None:
            return
        if undo:
            self.model, self.inos = self.before
            exc = Undone()
            transaction.__exit__(Undone, exc, None)
        else:
            transaction.__exit__(None, None, None)

    # ---- they agree

    @invariant()
    def same_tree(self):
        nodes = self.model.nodes
        for ino, node in nodes.items():
            inode = self.index.get(ino)
            assert inode.nlink == self.model.nlink(ino)
            assert (inode.size, inode.internal_id) == (node.size, node.internal_id)
            assert (inode.mtime_ns, inode.ctime_ns) == (node.mtime, node.ctime)
            if ino != ROOT_INO:
                assert self.index.entries_of(ino) == self.model.entries(ino)
            if node.children is not None:
                pages = all_pages(self.index, ino, 2)
                assert [(name, child.ino) for name, child in pages] == sorted(
                    node.children.items()
                )
                assert all(child == self.index.get(child.ino) for _, child in pages)
        for ino in set(self.inos) - nodes.keys():
            with pytest.raises(NotFound):
                self.index.get(ino)
        assert [inode.ino for inode in self.index.orphans()] == sorted(
            ino for ino in nodes if self.model.nlink(ino) == 0
        )

    @invariant()
    def same_extras(self):
        for ino, node in self.model.nodes.items():
            assert self.index.list_xattrs(ino) == sorted(node.xattrs)
            assert {n: self.index.get_xattr(ino, n) for n in node.xattrs} == node.xattrs
            assert self.index.document(ino) == node.fields

    @invariant()
    def same_queue(self):
        rows = self.index.due_deletions(self.now, 1_000)
        assert {(row.doc_id, row.internal_id): row.queued_ns for row in rows} == (
            self.model.deletions
        )

    @invariant()
    def same_usage(self):
        files = [node for node in self.model.nodes.values() if node.regular]
        size = sum(node.size for node in files)
        stored = sum(node.size // 2 for node in files)
        trash = sum(node.size for node in self.trashed() if node.regular)
        assert self.index.usage == Usage(
            len(self.model.nodes), len(files), size, stored, trash_bytes=trash
        )

    def trashed(self):
        """The nodes that can be reached from the trash."""
        nodes, seen, stack = self.model.nodes, set(), [TRASH_INO]
        while stack:
            ino = stack.pop()
            if ino not in seen and ino in nodes:
                seen.add(ino)
                stack.extend((nodes[ino].children or {}).values())
        return [nodes[ino] for ino in seen]


def test_index_and_model_agree(tmp_path):
    Tree.template = tmp_path / "template.sqlite"
    Index.create(Tree.template, uid=0, gid=0, now_ns=TIMES_NS).close()
    run_state_machine_as_test(
        Tree,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
