"""Icons and previews of files in a real mount, asked for by users, over both stores."""

from __future__ import annotations

import pytest
from mounting import run, sh
from pictures import BLUE, RED, corners, encoded, looks, opened, plain


@pytest.fixture
def mount(mounts):
    with mounts.mounted("-o", "nothumbs") as mount:
        yield mount


def save(mount, name, data, outside):
    source = outside / "source"
    source.write_bytes(data)
    sh('cp "$1" "$2"', source, mount / name)
    return mount / name


def test_the_icon_and_the_preview_of_a_pdf_file_are_written(mounts, mount, outside):
    letter = save(mount, "letter.pdf", encoded(corners((400, 200)), "PDF"), outside)

    for name, size in (("icon", (96, 48)), ("show", (1080, 540))):
        done = mounts.cozyfs("previews", name, letter, "-o", outside / "out.jpg").check()
        assert (done.out, done.err) == ("", "")
        picture = opened((outside / "out.jpg").read_bytes())
        assert (picture.format, picture.size) == ("JPEG", size)


def test_a_preview_is_of_what_the_file_has_now_and_goes_into_a_pipe(mounts, mount, outside):
    for colour in (RED, BLUE):
        cat = save(mount, "cat.png", plain(colour=colour), outside)
        mounts.cozyfs("previews", "show", cat, "-o", outside / "out.jpg").check()
        assert set(looks((outside / "out.jpg").read_bytes())) == {colour}
    done = mounts.cozyfs("previews", "show", cat).check()
    assert "JFIF" in done.out


def test_what_has_no_picture_is_one_line(mounts, mount, outside):
    text = save(mount, "notes.txt", b"text", outside)
    damaged = save(mount, "bad.pdf", b"garbage", outside)
    run("mkdir", mount / "folder").check()
    target = outside / "out.jpg"

    for path, code, message in (
        (text, 1, f"{text}: there is no icon of files of this type or size"),
        (damaged, 1, f"{damaged}: the file is damaged, or no image of a known format"),
        (mount / "folder", 1, f"{mount / 'folder'}: it is not a file"),
        (mount / "nothing", 1, f"{mount / 'nothing'}: No such file or directory"),
        (outside, 2, f"{outside} is not in a mount of cozyfs (with this --state-dir)"),
    ):
        done = mounts.cozyfs("previews", "icon", path, "-o", target)
        assert (done.code, done.out, done.err) == (code, "", f"cozyfs: {message}\n")
    assert not target.exists()


def test_a_mount_that_only_reads_shows_them(mounts, outside):
    with mounts.mounted() as mount:
        save(mount, "cat.png", plain(colour=BLUE), outside)
    with mounts.mounted("--read-only", create=False) as mount:
        mounts.cozyfs("previews", "show", mount / "cat.png", "-o", outside / "out.jpg").check()
        assert set(looks((outside / "out.jpg").read_bytes())) == {BLUE}
