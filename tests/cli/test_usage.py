"""``cozyfs usage`` where nothing is mounted; of mounts: tests/fuse/test_quota.py."""

import pytest

from .conftest import is_one_line


@pytest.mark.parametrize(
    ("what", "code"),
    [("nobody.example.com", 1), ("/", 2), ("./nothing", 2), (".", 2)],
)
def test_what_is_no_instance_and_no_mount_is_one_line(cozyfs, what, code):
    done = cozyfs("usage", what)
    assert done.code == code
    assert is_one_line(done.err)


def test_an_instance_that_was_never_mounted_has_nothing_to_tell(cozyfs, tmp_path):
    cozyfs("instances", "add", "alice.example.com")
    done = cozyfs("usage", "alice.example.com")
    assert done.code == 1
    assert "mount it for writing once" in done.err
    assert list((tmp_path / "state").iterdir()) == []


def test_a_folder_that_is_called_like_an_instance_is_not_in_the_way(cozyfs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice.example.com").mkdir()
    cozyfs("instances", "add", "alice.example.com")
    assert "mount it for writing once" in cozyfs("usage", "alice.example.com").err
