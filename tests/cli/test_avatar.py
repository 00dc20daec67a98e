"""``cozyfs avatar`` over both stores."""

import hashlib
import io
import os
import sys
from datetime import UTC, datetime

import pytest

from .conftest import is_one_line

ALICE = "alice.example.com"


@pytest.fixture(autouse=True)
def alice(cozyfs, both_stores):
    cozyfs("instances", "add", ALICE)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "me.png"
    path.write_bytes(b"a picture")
    return path


def test_an_avatar_that_was_set_is_got_again(cozyfs, picture, tmp_path):
    assert cozyfs("avatar", "set", ALICE, picture).code == 0

    outcome = cozyfs("avatar", "get", ALICE, "-o", tmp_path / "copy.png")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (tmp_path / "copy.png").read_bytes() == b"a picture"


def test_it_goes_to_the_standard_output_too(cozyfs, picture):
    cozyfs("avatar", "set", ALICE, picture)

    assert cozyfs("avatar", "get", ALICE, "-o", "-").out == "a picture"


def test_its_type_and_its_date_are_kept_and_told(cozyfs, tmp_path):
    (tmp_path / "me").write_bytes(b"a picture")
    before = datetime.now(UTC).replace(microsecond=0)
    cozyfs("avatar", "set", ALICE, tmp_path / "me", "--type", "image/webp")

    told = cozyfs("avatar", "get", ALICE, "-o", tmp_path / "copy", "--json").json()

    assert before <= datetime.fromisoformat(told.pop("created_at")) <= datetime.now(UTC)
    etag = f'"{hashlib.md5(b"a picture").hexdigest()}"'
    assert told == {"type": "image/webp", "etag": etag, "size": 9}


def test_the_picture_and_the_json_do_not_go_to_the_same_place(cozyfs):
    outcome = cozyfs("avatar", "get", ALICE, "-o", "-", "--json")

    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_it_comes_from_the_standard_input_too(cozyfs, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))

    assert cozyfs("avatar", "set", ALICE, "-", "--type", "image/png").code == 0

    assert cozyfs("avatar", "get", ALICE, "-o", "-").out == "piped"


def test_a_device_is_written_to_and_not_replaced(cozyfs, picture, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    cozyfs("avatar", "set", ALICE, picture)

    assert cozyfs("avatar", "get", ALICE, "-o", tmp_path / "pipe").code == 0

    assert os.read(reader, 100) == b"a picture"
    os.close(reader)


def test_an_avatar_that_is_not_there_is_one_line_and_leaves_no_file(cozyfs, tmp_path):
    outcome = cozyfs("avatar", "get", ALICE, "-o", tmp_path / "copy.png")

    assert outcome.code == 1
    assert outcome.err == f"cozyfs: there is no avatar of {ALICE}\n"
    assert not (tmp_path / "copy.png").exists()


def test_removing_it_twice_is_fine(cozyfs, picture):
    cozyfs("avatar", "set", ALICE, picture)

    assert cozyfs("avatar", "rm", ALICE).code == 0
    assert cozyfs("avatar", "rm", ALICE).code == 0
    assert cozyfs("avatar", "get", ALICE, "-o", "-").code == 1


def test_what_is_no_image_is_refused(cozyfs, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("dear")

    outcome = cozyfs("avatar", "set", ALICE, path)

    assert outcome.code == 2
    assert outcome.err == f"cozyfs: {path} is not an image: its type is text/plain\n"


def test_the_standard_input_needs_a_type(cozyfs):
    outcome = cozyfs("avatar", "set", ALICE, "-")

    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_a_picture_of_more_than_20_mb_is_refused(cozyfs, picture):
    os.truncate(picture, 20_000_001)

    outcome = cozyfs("avatar", "set", ALICE, picture)

    assert outcome.code == 1
    assert outcome.err == "cozyfs: an avatar can have at most 20000000 bytes, not 20000001\n"


@pytest.mark.parametrize(
    "args",
    [
        ["set", "bob.example.com", "PICTURE"],
        ["get", "bob.example.com", "-o", "-"],
        ["rm", "bob.example.com"],
        ["set", ALICE, "/does/not/exist.png"],
    ],
)
def test_what_is_not_there_is_one_line(cozyfs, picture, args):
    outcome = cozyfs("avatar", *[picture if arg == "PICTURE" else arg for arg in args])

    assert outcome.code == 1
    assert is_one_line(outcome.err)
