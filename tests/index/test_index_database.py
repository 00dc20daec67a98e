"""The file under an index: opening, versions, damage, transactions, a full disk.

PT012 is off where the statement that raises is a whole transaction.
"""

from __future__ import annotations

import re
import resource
from contextlib import contextmanager
from stat import S_IFREG

import apsw
import pytest
from index_builders import NOW, T0, dump, fill, make_directory, make_file, names, traced

from cozyfs.errors import AlreadyExists, CozyError, InstanceError, NoSpace, NotFound, ReadOnly
from cozyfs.index import JOURNALED_TABLES, LOCAL_TABLES, SCHEMA_VERSION, Index
from cozyfs.index.database import MIGRATIONS, migrate, schema, translated
from cozyfs.values import ROOT_INO, TRASH_NAME, Inode


@pytest.fixture
def made(path):
    """An index with one file, closed."""
    with Index.create(path, uid=1000, gid=100, now_ns=T0) as index:
        make_file(index, ROOT_INO, b"a")
    return path


def columns(index, table):
    return index.connection.execute(f"PRAGMA table_xinfo({table})").fetchall()


class TestOpening:
    def test_what_was_made_is_there_after_reopening(self, made):
        with Index.open(made) as index:
            assert names(index, ROOT_INO) == [TRASH_NAME, b"a"]

    def test_nothing_but_the_index_is_left_after_closing(self, made):
        assert [file.name for file in made.parent.iterdir()] == [made.name]

    def test_closing_twice_is_harmless(self, made):
        index = Index.open(made)
        index.close()
        index.close()

    def test_an_existing_file_is_never_overwritten(self, made):
        with pytest.raises(InstanceError, match="exists already"):
            Index.create(made, uid=0, gid=0, now_ns=T0)

    def test_leftovers_of_an_interrupted_creation_do_not_matter(self, path):
        path.with_name(path.name + ".new").write_bytes(b"half of an index")
        Index.create(path, uid=0, gid=0, now_ns=T0).close()
        Index.open(path).close()

    def test_missing_file_is_named(self, path):
        with pytest.raises(InstanceError, match=re.escape(f"no index at {path}")):
            Index.open(path)

    def test_missing_directory_is_an_instance_error(self, tmp_path):
        with pytest.raises(InstanceError, match="cannot be opened"):
            Index.create(tmp_path / "none" / "index", uid=0, gid=0, now_ns=T0)

    def test_reading_only_refuses_changes(self, made):
        with Index.open(made, read_only=True) as index:
            with pytest.raises(ReadOnly):
                make_file(index, ROOT_INO, b"b")
            assert index.resolve(b"/a").nlink == 1

    def test_two_writers_at_once_are_an_error_not_a_wait_for_ever(self, made):
        with Index.open(made) as index, Index.open(made) as other:
            other.connection.set_busy_timeout(0)
            with index.transaction():
                make_file(index, ROOT_INO, b"b")
                with pytest.raises(InstanceError, match="in use"):
                    make_file(other, ROOT_INO, b"c")


class TestDamage:
    @pytest.mark.parametrize("content", [b"", b"not a database at all\n" * 500])
    def test_foreign_file_is_refused(self, path, content):
        path.write_bytes(content)
        with pytest.raises(InstanceError, match=r"not a cozyfs index|damaged"):
            Index.open(path)

    def test_foreign_database_is_refused(self, path):
        apsw.Connection(str(path)).execute("CREATE TABLE t (x)").connection.close()
        with pytest.raises(InstanceError, match="not a cozyfs index"):
            Index.open(path)

    def test_overwritten_pages_are_an_instance_error(self, made):
        content = bytearray(made.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        made.write_bytes(content)
        with pytest.raises(InstanceError, match="damaged"):
            Index.open(made)

    def test_truncated_file_is_an_instance_error(self, made):
        made.write_bytes(made.read_bytes()[:5000])
        with pytest.raises(InstanceError, match="damaged"):
            Index.open(made)

    def test_every_error_of_sqlite_becomes_one_of_ours(self, path):
        errors = [cls for cls in vars(apsw).values() if isinstance(cls, type)]
        for cls in errors:
            if issubclass(cls, apsw.Error):
                assert isinstance(translated(cls("message"), path), CozyError)


class TestVersions:
    def test_every_older_version_can_be_migrated(self):
        assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))

    def test_newer_version_is_refused_and_says_what_to_do(self, made):
        with Index.open(made) as index:
            index.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(InstanceError, match="use a newer cozyfs"):
            Index.open(made)

    def test_migrations_run_in_order_in_one_transaction(self, made):
        connection = apsw.Connection(str(made))
        steps = {
            SCHEMA_VERSION: lambda c: c.execute(
                "ALTER TABLE facts ADD COLUMN extra INTEGER DEFAULT 5"
            ),
            SCHEMA_VERSION + 1: lambda c: c.execute("UPDATE facts SET extra = extra + 1"),
        }
        migrate(connection, made, version=SCHEMA_VERSION + 2, migrations=steps)
        assert connection.pragma("user_version") == SCHEMA_VERSION + 2
        assert connection.execute("SELECT extra FROM facts").fetchall() == [(6,)]
        connection.close()

    def test_version_1_gets_an_empty_outbox_and_keeps_its_tree(self, made):
        connection = apsw.Connection(str(made))
        connection.execute("DROP TABLE outbox; PRAGMA user_version = 1")
        connection.close()
        with Index.open(made) as index, Index.create(f"{made}-2", uid=0, gid=0, now_ns=T0) as new:
            assert names(index, ROOT_INO) == [TRASH_NAME, b"a"]
            assert index.take_outbox(1) is None
            assert columns(index, "outbox") == columns(new, "outbox")

    def test_failed_migration_changes_nothing(self, made):
        connection = apsw.Connection(str(made))
        steps = {
            SCHEMA_VERSION: lambda c: c.execute("ALTER TABLE facts ADD COLUMN extra INTEGER"),
            SCHEMA_VERSION + 1: lambda c: c.execute("UPDATE nonsense SET x = 1"),
        }
        with pytest.raises(apsw.SQLError):
            migrate(connection, made, version=SCHEMA_VERSION + 2, migrations=steps)
        assert connection.pragma("user_version") == SCHEMA_VERSION
        assert len(connection.execute("SELECT * FROM facts").fetchall()[0]) == 2
        connection.close()

    def test_reader_does_not_migrate(self, made):
        connection = apsw.Connection(str(made))
        with pytest.raises(InstanceError, match="mount it for writing"):
            migrate(connection, made, read_only=True, version=SCHEMA_VERSION + 1)
        connection.close()


class TestSchema:
    def test_inodes_has_the_columns_of_the_value(self, index):
        columns = index.connection.execute("SELECT name FROM pragma_table_info('inodes')")
        assert tuple(name for (name,) in columns) == Inode._fields

    def test_every_table_is_either_journaled_or_local(self, index):
        tables = index.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        assert {name for (name,) in tables} == {*JOURNALED_TABLES, *LOCAL_TABLES}

    def test_schema_says_which_tables_are_journaled(self):
        journaled, local = schema().split("-- local", 1)[0], schema().split("-- local", 1)[1]
        assert re.findall(r"CREATE TABLE (\w+)", journaled) == list(JOURNALED_TABLES)
        assert re.findall(r"CREATE TABLE (\w+)", local) == list(LOCAL_TABLES)

    @pytest.mark.parametrize("table", JOURNALED_TABLES)
    def test_journaled_tables_have_a_primary_key(self, index, table):
        keys = index.connection.execute(f"SELECT max(pk) FROM pragma_table_info('{table}')")
        assert keys.fetchone() > (0,)

    def test_there_are_no_triggers_and_no_autoincrement(self, index):
        rows = index.connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        assert not [row for row in rows if row[0] == "trigger" or "AUTOINCREMENT" in str(row[2])]


class TestTransactions:
    def test_several_calls_are_one(self, index, path):
        with index.transaction():
            file = make_file(index, ROOT_INO, b"a").ino
            index.set_xattr(file, b"user.a", b"1", now_ns=NOW)
            with Index.open(path, read_only=True) as other:
                assert names(other, ROOT_INO) == [TRASH_NAME]
            assert names(index, ROOT_INO) == [TRASH_NAME, b"a"]
        with Index.open(path, read_only=True) as other:
            assert other.get_xattr(file, b"user.a") == b"1"

    def test_an_exception_undoes_all_of_them_also_in_memory(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        file = make_file(index, directory, b"a").ino
        fill(index, file, "one")
        names(index, directory)
        before, usage = dump(index.connection), index.usage
        with pytest.raises(ZeroDivisionError), index.transaction():  # noqa: PT012
            make_file(index, directory, b"b")
            fill(index, file, "two", size=99)
            index.unlink(directory, b"a", NOW, keep=False)
            assert names(index, directory) == [b"b"]
            _ = 1 // 0
        assert dump(index.connection) == before
        assert index.usage == usage
        assert names(index, directory) == [b"a"]
        assert index.get(file).size == 10

    def test_a_refusal_that_is_caught_does_not_harm_the_others(self, index):
        with index.transaction():
            make_file(index, ROOT_INO, b"a")
            with pytest.raises(AlreadyExists):
                make_file(index, ROOT_INO, b"a")
            make_file(index, ROOT_INO, b"b")
        assert names(index, ROOT_INO) == [TRASH_NAME, b"a", b"b"]

    def test_a_half_done_inner_transaction_undoes_the_outer_one(self, index):
        with pytest.raises(CozyError), index.transaction():  # noqa: PT012
            make_file(index, ROOT_INO, b"a")
            with pytest.raises(ZeroDivisionError), index.transaction():  # noqa: PT012
                make_file(index, ROOT_INO, b"b")
                _ = 1 // 0
            assert names(index, ROOT_INO) == [TRASH_NAME]
            with pytest.raises(CozyError):
                make_file(index, ROOT_INO, b"c")
        assert names(index, ROOT_INO) == [TRASH_NAME]
        make_file(index, ROOT_INO, b"d")

    def test_a_refused_request_does_not_begin_one(self, index):
        statements = traced(index)
        with pytest.raises(NotFound):
            index.unlink(ROOT_INO, b"none", NOW, keep=False)
        index.connection.exec_trace = None
        assert not [sql for sql in statements if not sql.lstrip().startswith("SELECT")]


@contextmanager
def full_disk(index):
    """The index may not grow any more."""
    (pages,) = index.connection.execute("PRAGMA page_count").fetchone()
    index.connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    index.connection.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def failing_writes():
    """write(2) fails for any file beyond its first 4 KiB (EFBIG; Python ignores SIGXFSZ)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def make_until_it_fails(index, parent):
    for number in range(1_000):
        before = dump(index.connection), index.usage, names(index, parent)
        try:
            make_file(index, parent, b"%d" % number, doc_id="d" * 500)
        except CozyError as exc:
            return exc, before
    raise AssertionError("nothing failed")


class TestFailingDisk:
    def test_full_disk_is_no_space_and_changes_nothing(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        with full_disk(index):
            error, before = make_until_it_fails(index, directory)
            assert isinstance(error, NoSpace)
            assert (dump(index.connection), index.usage, names(index, directory)) == before

    def test_full_disk_still_answers_and_lets_files_be_removed(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        with full_disk(index):
            make_until_it_fails(index, directory)
            assert index.lookup(directory, b"0").mode & S_IFREG
            index.unlink(directory, b"0", NOW, keep=False)
        make_file(index, directory, b"again")

    def test_full_disk_within_a_transaction_undoes_it_even_if_caught(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        with full_disk(index), pytest.raises(CozyError), index.transaction():  # noqa: PT012
            make_until_it_fails(index, directory)
            assert names(index, directory) == []
        assert names(index, directory) == []

    def test_failing_write_is_an_instance_error_and_changes_nothing(self, index):
        directory = make_directory(index, ROOT_INO, b"d").ino
        before = dump(index.connection), index.usage
        with failing_writes(), pytest.raises(InstanceError, match="disk failed"):
            make_file(index, directory, b"a")
        assert (dump(index.connection), index.usage) == before
        assert names(index, directory) == []
        make_file(index, directory, b"a")
        assert names(index, directory) == [b"a"]
