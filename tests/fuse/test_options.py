"""What ``-o`` changes: who sees what, and who may do what."""

from __future__ import annotations

import pytest
from mounting import root_only, run, sh

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def mounts(file_mounts):
    # The mount point has to be reachable for others.
    folder = file_mounts.folder
    while folder != folder.parent and str(folder).count("/") > 1:
        folder.chmod(folder.stat().st_mode | 0o055)
        folder = folder.parent
    return file_mounts


def as_nobody(script, mount):
    return run(*NOBODY, "bash", "-c", script, "sh", mount.path)


def test_uid_gid_and_umask_replace_what_is_shown(mounts):
    with mounts.mounted() as mount:
        sh('cd "$1"; touch f; mkdir d; ln -s f l; chmod 604 f', mount.path)
        before = sh('cd "$1"; stat -c "%n %u %g %a" f d l', mount.path)
    with mounts.mounted("-o", "uid=1234,gid=2345,umask=027") as mount:
        shown = sh('cd "$1"; stat -c "%n %u %g %a" f d l', mount.path)
        assert shown.splitlines() == ["f 1234 2345 750", "d 1234 2345 750", "l 1234 2345 777"]
    with mounts.mounted() as mount:
        assert sh('cd "$1"; stat -c "%n %u %g %a" f d l', mount.path) == before


@root_only
def test_other_users_are_kept_out(mounts):
    mount = mounts.start()
    sh('chmod 777 "$1"', mount.path)
    done = as_nobody('ls "$1"', mount)
    assert "Permission denied" in done.err


@root_only
def test_allow_other_lets_other_users_in_and_their_files_are_theirs(mounts):
    mount = mounts.start("-o", "allow_other")
    sh('chmod 1777 "$1"', mount.path)
    done = as_nobody('cd "$1"; echo text > f; mkdir d; stat -c "%u %g" f d', mount).check()
    assert done.out == "65534 65534\n65534 65534\n"


@root_only
def test_permissions_are_checked_for_other_users(mounts):
    mount = mounts.start("-o", "allow_other")
    sh('cd "$1"; chmod 1777 .; echo secret > f; chmod 600 f; mkdir d; chmod 755 d', mount.path)
    for change in ('cat "$1/f"', 'touch "$1/d/f"', 'rm -f "$1/f"', 'chmod 777 "$1/f"'):
        done = as_nobody(change, mount)
        assert done.code != 0, change
        assert "ermi" in done.err, change  # EACCES or EPERM
    sh('chmod 644 "$1/f"', mount.path)
    assert as_nobody('cat "$1/f"', mount).check().out == "secret\n"


@root_only
def test_an_acl_lets_a_single_user_in(mounts):
    mount = mounts.start("-o", "allow_other")
    sh('cd "$1"; echo secret > f; chmod 600 f; chmod 755 .', mount.path)
    assert as_nobody('cat "$1/f"', mount).code == 1
    # user::rw-, user:65534:r--, group::---, mask::r--, other::---
    entries = (
        "01000600ffffffff 02000400feff0000 04000000ffffffff 10000400ffffffff 20000000ffffffff"
    )
    acl = "0x02000000" + entries.replace(" ", "")
    sh('setfattr -n system.posix_acl_access -v "$2" "$1/f"', mount.path, acl)
    assert as_nobody('cat "$1/f"', mount).check().out == "secret\n"
    assert sh('stat -c %a "$1/f"', mount.path) == "640\n"


@root_only
def test_nodefault_permissions_allows_everything(mounts):
    mount = mounts.start("-o", "allow_other,nodefault_permissions")
    sh('cd "$1"; echo text > f; chmod 600 f; chmod 700 .', mount.path)
    assert as_nobody('cat "$1/f"', mount).check().out == "text\n"


@root_only
def test_a_write_by_an_ordinary_user_takes_the_set_id_bits(mounts):
    mount = mounts.start("-o", "allow_other")
    sh('cd "$1"; chmod 755 .; touch f; chmod 6777 f', mount.path)
    as_nobody('echo x >> "$1/f"', mount).check()
    assert sh('stat -c %a "$1/f"', mount.path) == "777\n"


@root_only
def test_new_files_have_the_group_of_a_set_group_id_folder(mounts):
    mount = mounts.start("-o", "allow_other")
    sh('cd "$1"; mkdir d; chown 0:1234 d; chmod 2777 d', mount.path)
    as_nobody('touch "$1/d/f"; mkdir "$1/d/e"', mount).check()
    assert sh('stat -c "%g %a" "$1/d/e"', mount.path).startswith("1234 2")
    assert sh('stat -c %g "$1/d/f"', mount.path) == "1234\n"


def test_the_mount_is_named_after_its_instance_in_proc_mounts(mounts):
    mount = mounts.start("-o", "noatime,nodev")
    words = run("grep", f" {mount.path} ", "/proc/mounts").check().out.split()
    assert words[0] == "cozyfs:alice.example.com"
    assert words[2] == "fuse.cozyfs"
    assert {"noatime", "nodev", "default_permissions"} <= set(words[3].split(","))


def test_an_unknown_option_is_refused_in_one_line(mounts):
    done = mounts.cozyfs("mount", "-o", "frobnicate", "a.example.com", mounts.new_path())
    assert done.code == 2
    assert done.err == "cozyfs: unknown mount option: frobnicate\n"
