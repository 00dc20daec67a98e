"""What the kernel tells of mount points."""

from pathlib import Path

import pytest

from cozyfs.cli import mountpoints

LINES = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 0:50 / /mnt/a\\040b rw,nosuid shared:2 - fuse.cozyfs cozyfs:alice rw,user_id=0
37 21 0:51 / /mnt/over rw - ext4 /dev/sdb rw
38 37 0:52 / /mnt/over rw - fuse.cozyfs cozyfs:bob rw
"""


@pytest.fixture(autouse=True)
def mountinfo(tmp_path, monkeypatch):
    path = tmp_path / "mountinfo"
    path.write_text(LINES)
    monkeypatch.setattr(mountpoints, "MOUNTINFO", path)


def test_a_mount_point_with_a_space_is_found():
    found = mountpoints.kernel_mount(Path("/mnt/a b"))
    assert found.is_cozyfs
    assert found.source == "cozyfs:alice"


def test_of_mounts_over_each_other_the_topmost_counts():
    assert mountpoints.kernel_mount(Path("/mnt/over")).source == "cozyfs:bob"


def test_a_folder_below_a_mount_is_no_mount_point():
    assert mountpoints.kernel_mount(Path("/mnt/over/x")) is None
    assert not mountpoints.kernel_mount(Path("/")).is_cozyfs


def test_a_folder_is_not_a_dead_mount(tmp_path):
    assert not mountpoints.is_dead(tmp_path)
    assert not mountpoints.is_dead(tmp_path / "missing")
