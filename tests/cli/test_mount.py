"""What ``cozyfs mount`` makes of its arguments, and what it refuses before it mounts."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from cozyfs.cli import background
from cozyfs.cli import mount as mount_module
from cozyfs.state import InstanceState
from cozyfs.values import Instance

from .conftest import is_one_line

HELPER = Path(__file__).parents[2] / "packaging" / "mount.cozyfs"


@pytest.fixture
def request_of(cozyfs, mountpoint, monkeypatch):
    """A function: the parsed request of ``cozyfs mount ARGS alice MOUNTPOINT``, not mounted."""
    seen = []
    monkeypatch.setattr(mount_module, "run_request", lambda request, ready: seen.append(request))
    monkeypatch.setattr(background, "run_in_background", lambda work: work(lambda: None))

    def parse(*args):
        outcome = cozyfs("mount", *args, "alice.example.com", mountpoint)
        assert (outcome.code, outcome.err) == (0, "")
        return seen[-1]

    return parse


def test_defaults(request_of, mountpoint, tmp_path):
    request = request_of()
    assert request.mountpoint == mountpoint
    assert request.state_dir == tmp_path / "state"
    assert request.settings.url.path == f"{tmp_path}/store"
    assert (request.write_buffer, request.cache_size) == (64 << 20, 96 << 20)
    assert (request.timeout_s, request.parallel, request.retention_s) == (60, 32, 86400)
    assert (request.read_only, request.create, request.foreground) == (False, False, False)


def test_options_have_units(request_of):
    request = request_of(
        "--write-buffer", "32M", "--cache-size", "1GB", "--timeout", "2m", "--retention", "1w"
    )
    assert (request.write_buffer, request.cache_size) == (32 << 20, 10**9)
    assert (request.timeout_s, request.retention_s) == (120, 604800)


def test_fstab_can_carry_every_setting(request_of, tmp_path):
    request = request_of(
        "-o",
        f"ro,create,fs_url=file://{tmp_path}/b,state_dir={tmp_path}/s,write_buffer=16M,"
        "cache_size=1M,timeout=5,parallel=4,retention=1h,org=acme,db_prefix=p,log_level=debug,"
        f"log_file={tmp_path}/log",
        "-o",
        "allow_other,uid=1000",
    )
    assert request.read_only
    assert request.create
    assert request.settings.url.path == f"{tmp_path}/b"
    assert request.state_dir == tmp_path / "s"
    assert (request.write_buffer, request.cache_size) == (16 << 20, 1 << 20)
    assert (request.timeout_s, request.parallel, request.retention_s) == (5, 4, 3600)
    assert (request.org, request.db_prefix, request.log_level) == ("acme", "p", "debug")
    assert request.log_file == tmp_path / "log"
    assert request.fstab.fuse_options == {"allow_other"}
    assert request.fstab.uid == 1000


@pytest.mark.parametrize(
    ("asked", "of_instance", "configured", "age"),
    [
        (None, None, None, 30 * 86400),
        (None, None, "2W", 14 * 86400),
        (None, 3600, "2W", 3600),
        ("0", 3600, "2W", 0),
    ],
)
def test_the_age_of_the_trash_is_the_mounts_the_instances_the_contexts(
    request_of, tmp_path, asked, of_instance, configured, age
):
    config = tmp_path / "cozy.yaml"
    ages = f"\n  auto_clean_trashed_after: {{beta: {configured}}}" if configured else ""
    config.write_text(f"fs:\n  url: file://{tmp_path}/store{ages}\n")
    instance = Instance("a.example.com", "", "p", "b", context="beta", trash_age_s=of_instance)
    option = ["-o", f"trash_age={asked}"] if asked else []

    request = request_of("--config", config, *option)

    assert mount_module.trash_age(request, instance) == age


def test_the_trash_can_be_done_without(request_of):
    assert request_of().fstab.trash
    assert not request_of("-o", "notrash").fstab.trash
    assert request_of("-o", "notrash,trash").fstab.trash


def test_thumbnails_can_be_done_without(request_of):
    assert request_of().fstab.thumbs
    assert not request_of("-o", "nothumbs").fstab.thumbs
    assert request_of("-o", "nothumbs,thumbs").fstab.thumbs


def test_the_command_line_wins_over_o_and_o_over_the_environment(request_of, tmp_path):
    other = f"fs_url=file://{tmp_path}/o,timeout=5"
    assert request_of("-o", other).settings.url.path == f"{tmp_path}/o"
    request = request_of("-o", other, "--fs-url", f"file://{tmp_path}/c", "--timeout", "7")
    assert request.settings.url.path == f"{tmp_path}/c"
    assert request.timeout_s == 7


def test_ro_and_read_only_are_the_same(request_of):
    assert request_of("-o", "ro").read_only
    assert request_of("--read-only").read_only


def test_paths_are_absolute_since_the_background_has_another_folder(
    request_of, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    request = request_of("--state-dir", "s", "--log-file", "l")
    assert request.state_dir == tmp_path / "s"
    assert request.log_file == tmp_path / "l"


@pytest.mark.parametrize(
    "args",
    [
        ["-o", "bogus"],
        ["-o", "uid=alice"],
        ["-o", "timeout=soon"],
        ["-o", "parallel=0"],
        ["-o", "log_level=loud"],
        ["-o", "fs_url=ftp://x"],
        ["--write-buffer", "1M"],
        ["--parallel", "0"],
        ["--timeout", "soon"],
        ["--db-prefix", ""],
        ["--fs-url", "s3://host?use_tls=1"],
        ["--fs-url", "s3://host?bucket_prefix=___"],
        ["--config", "/does/not/exist.yaml"],
        ["--org", "assets", "--create", "--foreground"],
    ],
    ids=" ".join,
)
def test_bad_input_is_exit_code_2(cozyfs, mountpoint, args):
    outcome = cozyfs("mount", *args, "alice.example.com", mountpoint)
    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_an_unknown_instance_is_an_error_without_create(cozyfs, mountpoint):
    outcome = cozyfs("mount", "nobody.example.com", mountpoint)
    assert outcome.code == 1
    assert is_one_line(outcome.err)


def test_a_server_that_is_not_there_is_one_line(cozyfs, mountpoint):
    url = "s3://127.0.0.1:1?access_key=t0psecret&secret_key=t0psecret&use_ssl=false"
    outcome = cozyfs("mount", "--fs-url", url, "alice.example.com", mountpoint)
    assert outcome.code == 1
    assert is_one_line(outcome.err)
    assert "t0psecret" not in outcome.err


def test_a_folder_that_is_not_a_store_is_one_line(cozyfs, mountpoint, tmp_path):
    (tmp_path / "cozy-server").mkdir()
    (tmp_path / "cozy-server" / "alice.example.com").mkdir()
    url = f"file://{tmp_path}/cozy-server"
    outcome = cozyfs("mount", "--create", "--fs-url", url, "alice.example.com", mountpoint)
    assert outcome.code in {1, 2}
    assert is_one_line(outcome.err)


def test_the_mount_point_must_be_a_folder(cozyfs, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        outcome = cozyfs("mount", "--create", "alice.example.com", tmp_path / name)
        assert outcome.code == 1
        assert is_one_line(outcome.err)
        assert str(tmp_path / name) in outcome.err


def test_an_instance_that_is_mounted_is_refused_with_its_mount_point(cozyfs, mountpoint, tmp_path):
    added = cozyfs("instances", "add", "alice.example.com", "--json").json()
    state = InstanceState.open(tmp_path / "state", added["bucket"], added["db_prefix"])
    state.lock(tmp_path / "elsewhere", instance="alice.example.com", store="s")
    outcome = cozyfs("mount", "alice.example.com", mountpoint)
    state.unlock()
    assert outcome.code == 1
    assert is_one_line(outcome.err)
    assert f"{tmp_path}/elsewhere (pid {os.getpid()})" in outcome.err


def test_a_machine_without_fuse_is_told_so(cozyfs, mountpoint, monkeypatch):
    def missing(path, flags, *rest):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(mount_module, "open_fuse", lambda: missing("/dev/fuse", 0))
    outcome = cozyfs("mount", "--create", "alice.example.com", mountpoint)
    assert outcome.code == 1
    assert "/dev/fuse is missing" in outcome.err


@pytest.fixture
def helper(tmp_path):
    """A function: what ``mount.cozyfs ARGS`` runs, (the arguments of cozyfs, exit code)."""
    tool = tmp_path / "bin" / "cozyfs"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor arg; do echo "$arg"; done\n')
    tool.chmod(0o755)

    def call(*args):
        done = subprocess.run(
            ["sh", HELPER, *args],
            env={"PATH": f"{tool.parent}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout.splitlines(), done.returncode

    return call


def test_the_helper_of_mount_hands_over_instance_folder_and_options(helper):
    called, code = helper("alice", "/mnt/a b", "-n", "-o", "rw,allow_other", "-v")
    options = ["-o", "fsname=alice", "-o", "rw,allow_other"]
    assert called == ["mount", *options, "--", "alice", "/mnt/a b"]
    assert code == 0


def test_the_helper_of_mount_names_the_instance_as_source_as_fstab_does(helper):
    assert helper("alice", "/mnt") == (["mount", "-o", "fsname=alice", "--", "alice", "/mnt"], 0)


def test_the_helper_of_mount_does_nothing_when_asked_to_fake(helper):
    assert helper("alice", "/mnt", "-f", "-o", "rw") == ([], 0)


def test_the_helper_of_mount_refuses_what_it_does_not_know(helper):
    assert helper("alice")[1] == 2
    assert helper("alice", "/mnt", "-q")[1] == 2


@pytest.mark.parametrize("ago", ["90m", "1h30m ago", "5400s ago", "5400 ago"])
def test_a_moment_may_be_so_long_ago(request_of, ago):
    request = request_of("--at", ago)
    assert abs(time.time_ns() - 5400 * 10**9 - request.at_ns) < 60 * 10**9
    assert request.read_only


def test_a_moment_behind_o(request_of):
    assert request_of("-o", "at=2026-01-01T00:00Z").at_ns == 1_767_225_600 * 10**9
    assert request_of().at_ns is None


@pytest.mark.parametrize(
    "args",
    [
        ("--at", "2999-01-01 00:00"),
        ("--at", "yesterday"),
        ("--at", "1h", "--create"),
        ("--at", "1h", "--force-lease"),
    ],
)
def test_a_moment_that_makes_no_sense_is_refused(cozyfs, mountpoint, args):
    outcome = cozyfs("mount", *args, "alice.example.com", mountpoint)
    assert outcome.code == 2
    assert is_one_line(outcome.err)
