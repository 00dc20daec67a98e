"""What may stand behind -o."""

import pytest

from cozyfs.cli import fstab
from cozyfs.errors import UsageError


def test_nothing_means_read_write_with_the_kernel_checking_modes():
    options = fstab.parse(())
    assert not options.read_only
    assert options.default_permissions
    assert options.fuse_options == frozenset()


def test_options_of_the_kernel_are_passed_on():
    options = fstab.parse(("allow_other,noatime", "nosuid,nodev,fsname=alice"))
    assert options.fuse_options == {"allow_other", "noatime", "nosuid", "nodev", "fsname=alice"}


def test_what_mount_itself_acts_on_is_accepted_without_effect():
    line = "defaults,rw,auto,noauto,user,nofail,_netdev,relatime,x-systemd.automount,X-a=b"
    assert fstab.parse((line, "subtype=cozyfs,comment=mine,strictatime")) == fstab.FstabOptions(
        read_only=False
    )


def test_owners_and_mask_are_numbers():
    options = fstab.parse(("uid=1000,gid=100,umask=022",))
    assert (options.uid, options.gid, options.umask) == (1000, 100, 0o022)


@pytest.mark.parametrize(
    "word",
    [
        "uid=alice", "uid=-1", "uid=4294967295", "uid", "uid=", "gid=x", "umask=8", "umask=1000",
        "umask=-1", "fs_url=", "fs_url", "fsname=", "fsname",
    ],
)  # fmt: skip
def test_bad_values_are_refused(word):
    with pytest.raises(UsageError, match="-o "):
        fstab.parse((word,))


@pytest.mark.parametrize(
    "word", ["bogus", "ro=1", "allow_other=yes", "cache=1", "foreground", "RO", "big_writes"]
)
def test_unknown_options_are_refused(word):
    with pytest.raises(UsageError, match=f"unknown mount option: {word}"):
        fstab.parse(("ro", word))


def test_the_later_option_wins():
    assert fstab.parse(("ro,rw",)).read_only is False
    assert fstab.parse(("ro", "rw,ro")).read_only is True
    assert fstab.parse(("nosuid,suid",)).fuse_options == {"suid"}
    assert fstab.parse(("suid,nosuid",)).fuse_options == {"nosuid"}
    assert fstab.parse(("fsname=a,fsname=b",)).fuse_options == {"fsname=b"}
    assert fstab.parse(("sync,async,noatime,atime",)).fuse_options == frozenset()
    assert not fstab.parse(("default_permissions,nodefault_permissions",)).default_permissions


def test_settings_are_kept_as_text_for_the_command_to_read():
    url = "fs_url=s3://h?access_key=a&secret_key=b"
    options = fstab.parse((f"{url},write_buffer=32M,create", "state_dir=/x"))
    assert options.settings == {
        "fs_url": "s3://h?access_key=a&secret_key=b",
        "write_buffer": "32M",
        "state_dir": "/x",
    }
    assert options.create


def test_empty_words_are_no_options():
    assert fstab.parse((",, ro ,",)).read_only


def test_allow_other_and_allow_root_exclude_each_other():
    with pytest.raises(UsageError, match="exclude"):
        fstab.parse(("allow_other,allow_root",))
