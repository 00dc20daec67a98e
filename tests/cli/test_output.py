"""Files that commands write: there once they are whole."""

import contextlib
import os
import resource
import stat

import pytest

from cozyfs.cli.output import write_file, written


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out"


def test_a_file_is_written_and_nothing_else(target):
    write_file(target, b"new")

    assert os.listdir(target.parent) == ["out"]
    assert target.read_bytes() == b"new"


def test_a_file_that_is_there_is_replaced_and_keeps_its_mode(target):
    target.write_bytes(b"old")
    target.chmod(0o640)

    write_file(target, b"new")

    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_what_ends_halfway_leaves_what_was_there(target):
    target.write_bytes(b"old")

    with contextlib.suppress(ValueError), written(target) as file:
        file.write(b"ne")
        file.flush()
        raise ValueError

    assert os.listdir(target.parent) == ["out"]
    assert target.read_bytes() == b"old"


def test_a_disk_without_room_leaves_what_was_there(target):
    target.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_file(target, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert os.listdir(target.parent) == ["out"]
    assert target.read_bytes() == b"old"


def test_a_link_is_followed(target):
    target.symlink_to("other")

    write_file(target, b"new")

    assert target.is_symlink()
    assert (target.parent / "other").read_bytes() == b"new"


def test_a_device_stays_one(target):
    os.mkfifo(target)
    reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)

    write_file(target, b"new")

    assert os.read(reader, 100) == b"new"
    assert stat.S_ISFIFO(target.stat().st_mode)
    os.close(reader)


def test_a_folder_that_is_not_there_is_named_as_it_was_given(target):
    with pytest.raises(FileNotFoundError) as caught:
        write_file(target / "x" / "y", b"new")

    assert caught.value.filename == str(target / "x" / "y")
