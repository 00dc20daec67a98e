"""``cozyfs fsck``: exit codes, what is printed, and damage to real instances, mounted or not."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys

import pytest

from cozyfs.cli import fsck
from cozyfs.config import parse_fs_url
from cozyfs.instances import find
from cozyfs.store import open_store
from cozyfs.store.keys import object_key
from cozyfs.vfs.fsck_findings import as_line

DOMAIN = "alice.example.com"
TIMEOUT_S = 60


def run(*args, **more):
    return subprocess.run(
        [sys.executable, "-m", "cozyfs", *map(str, args)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        **more,
    )


class Site:
    """An instance in a folder, its mount and its bucket."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.mountpoint = tmp_path / "alice"
        self.mountpoint.mkdir()
        self.store = open_store(parse_fs_url(os.environ["COZYFS_FS_URL"]))

    @contextlib.contextmanager
    def mounted(self, *options):
        done = run("mount", "--create", *options, DOMAIN, self.mountpoint)
        assert done.returncode == 0, done.stderr
        try:
            yield self.mountpoint
        finally:
            done = run("umount", self.mountpoint)
            assert done.returncode == 0, done.stderr

    @property
    def instance(self):
        return find(self.store, "cozy", DOMAIN)

    def contents(self):
        """Keys of the objects of files."""
        instance = self.instance
        own = f"{instance.db_prefix}/.cozyfs/"
        listed = self.store.list(instance.bucket, f"{instance.db_prefix}/")
        return [info.key for info in listed if not info.key.startswith(own)]

    def put(self, name, body=b"12345"):
        instance = self.instance
        self.store.put(instance.bucket, f"{instance.db_prefix}/{name}", body)

    def put_orphan(self):
        self.put(object_key("x", "d" * 32, "i" * 16).removeprefix("x/"))

    def delete(self, key):
        self.store.delete(self.instance.bucket, key)

    def index(self):
        (path,) = (self.tmp_path / "state").rglob("index.db")
        return path

    def damage(self, sql):
        with contextlib.closing(sqlite3.connect(self.index())) as connection, connection:
            connection.execute(sql)

    def fsck(self, *options):
        return run("fsck", *options, DOMAIN)

    def found(self, *options):
        done = self.fsck("--json", *options)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.store.close()


@pytest.fixture
def files(site):
    """An instance with three files in two folders, not mounted."""
    with site.mounted() as folder:
        (folder / "d").mkdir()
        for name in ("a", "b", "d/c"):
            (folder / name).write_text(f"content of {name}")
    return site


# ---- without a mount


def test_bad_usage_has_the_exit_code_of_fsck(cozyfs):
    for args in (["fsck"], ["fsck", "--nothing", DOMAIN], ["fsck", DOMAIN, "more"]):
        outcome = cozyfs(*args)
        assert outcome.code == 16
        assert outcome.err.count("\n") == 1


def test_a_bad_url_is_bad_usage(cozyfs):
    outcome = cozyfs("fsck", "--fs-url", "gopher://x", DOMAIN)
    assert outcome.code == 16
    assert outcome.err.count("\n") == 1


def test_an_instance_that_is_not_there_is_an_operational_error(cozyfs):
    cozyfs("instances", "add", "bob.example.com")
    outcome = cozyfs("fsck", DOMAIN)
    assert outcome.code == 8
    assert outcome.err == f"cozyfs: there is no instance {DOMAIN} in this storage\n"


def test_an_instance_that_was_never_mounted_has_nothing_to_check(cozyfs):
    cozyfs("instances", "add", DOMAIN)
    outcome = cozyfs("fsck", DOMAIN)
    assert outcome.code == 8
    assert "mount it for writing once" in outcome.err


def test_a_line_for_people_moves_no_cursor():
    line = as_line({"type": "t", "path": "/a\x1b[2Jé", "detail": "d", "repair": "r"})
    assert line == "t: /a\\x1b[2Jé: d; --repair: r"


@pytest.mark.mount
def test_nothing_found_is_exit_code_0(files):
    done = files.fsck()
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing found" in done.stderr


@pytest.mark.mount
@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_each_finding_is_a_line_of_json(files, deep):
    files.put_orphan()
    code, (found,) = files.found(*deep)
    assert code == 4
    assert found["type"] == "index_missing"
    assert found["is_file"] is True
    assert found["file_doc"]["size"] == "5"


@pytest.mark.mount
def test_what_is_repaired_is_exit_code_1_and_then_0(files):
    files.put_orphan()
    files.damage("UPDATE inodes SET nlink = 7 WHERE ino = 1")
    assert files.fsck().returncode == 4
    done = files.fsck("--repair")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "2 found, 2 repaired, 0 left" in done.stderr
    assert files.fsck("--deep").returncode == 0
    with files.mounted() as folder:
        assert (folder / ".cozy_orphans" / ("d" * 32)).read_text() == "12345"
        assert (folder / "d/c").read_text() == "content of d/c"


@pytest.mark.mount
def test_some_repaired_and_some_left_is_both(files):
    files.put_orphan()
    files.put("nobody-knows")
    assert files.fsck("--repair").returncode == 1 | 4


@pytest.mark.mount
def test_fail_fast_prints_one_line(files):
    for key in files.contents():
        files.delete(key)
    done = files.fsck("--fail-fast")
    assert done.returncode == 4
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.mount
def test_a_replica_elsewhere_can_be_checked(files, monkeypatch, tmp_path):
    monkeypatch.setenv("COZYFS_STATE_DIR", str(tmp_path / "elsewhere"))
    files.delete(files.contents()[0])
    code, (found,) = files.found()
    assert (code, found["type"]) == (4, "filesystem_missing")


@pytest.mark.mount
def test_the_tree_of_another_store_is_not_compared_with_this_one(files):
    (store,) = (files.tmp_path / "state").rglob("store")
    store.write_text("the store of somebody else\n")
    done = files.fsck("--repair")
    assert done.returncode == 8
    assert "belongs to" in done.stderr


@pytest.mark.mount
def test_a_damaged_index_is_an_operational_error(files):
    index = files.index()
    index.write_bytes(b"no database" * 1000)
    done = files.fsck()
    assert done.returncode == 8
    assert done.stderr.count("\n") == 1


def test_ctrl_c_is_exit_code_32(cozyfs, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    cozyfs("instances", "add", DOMAIN)
    monkeypatch.setattr(fsck, "check_unmounted", interrupt)
    outcome = cozyfs("fsck", DOMAIN)
    assert (outcome.code, outcome.out, outcome.err) == (32, "", "")


# ---- on a mount


@pytest.mark.mount
def test_a_mount_in_use_is_clean_and_goes_on(site):
    with site.mounted() as folder:
        (folder / "a").write_text("1")
        with (folder / "b").open("w") as file:
            file.write("not stored yet")
            file.flush()
            (folder / "a").unlink()
            assert site.found() == (0, [])
            assert site.found("--deep", "--repair") == (0, [])
        assert (folder / "b").read_text() == "not stored yet"


@pytest.mark.mount
def test_a_repair_on_a_mount_is_seen_at_once(site):
    with site.mounted() as folder:
        (folder / "lost").write_text("gone")
        (folder / "kept").write_text("content")
        assert not (folder / ".cozy_orphans").exists()  # the kernel remembers that
        lost = next(
            key for key in site.contents() if site.store.get(site.instance.bucket, key) == b"gone"
        )
        site.delete(lost)

        code, (found,) = site.found()
        assert (code, found["type"], found["path"]) == (4, "filesystem_missing", "/lost")
        assert site.fsck("--repair").returncode == 1

        assert sorted(os.listdir(folder)) == [".cozy_orphans", ".cozy_trash", "kept"]
        assert (folder / ".cozy_orphans" / "lost").read_bytes() == b""
        assert (folder / "kept").read_text() == "content"
        assert site.found("--deep") == (0, [])
    assert site.found() == (0, [])


@pytest.mark.mount
def test_a_journal_gap_is_closed_on_a_mount(site):
    with site.mounted() as folder:
        for number in range(3):
            (folder / f"d{number}").mkdir()
            assert run("flush", folder).returncode == 0
        prefix = f"{site.instance.db_prefix}/.cozyfs/journal/"
        journal = [info.key for info in site.store.list(site.instance.bucket, prefix)]
        site.delete(journal[0])
        code, (found,) = site.found()
        assert (code, found["type"]) == (4, "journal_gap")
        assert site.fsck("--repair").returncode == 1
        assert site.found() == (0, [])


@pytest.mark.mount
def test_a_read_only_mount_checks_and_does_not_repair(files):
    with files.mounted("--read-only"):
        assert files.found("--deep") == (0, [])
        done = files.fsck("--repair")
        assert done.returncode == 8
        assert "mounted for writing" in done.stderr
