"""Names and the trash."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import AlreadyExists
from cozyfs.vfs.trash_names import PASSING, free_name, is_passing, without_suffix

MANUAL = Path(__file__).parents[2] / "man" / "cozyfs-semantics.7"


@pytest.mark.parametrize(
    "name",
    [
        *("report.odt~", ".notes.txt.swp", ".notes.txt.swx", ".notes.un~", ".#notes", "#notes#"),
        *("4913", ".~lock.report.odt#", "~$report.docx", ".goutputstream-A1B2C3", "a.tmp"),
        *("film.mkv.part", "film.crdownload", ".nfs000000000012", ".fuse_hidden0001"),
        *(".film.mkv.Xk3d9Z", "index.lock", "HEAD.lock", "tmp_obj_aBcDeF", "a.sqlite3-wal"),
    ],
)
def test_names_of_passing_files_are_known(name):
    assert is_passing(name.encode())


@pytest.mark.parametrize(
    "name",
    [
        *("report.odt", ".bashrc", "Cargo.lock", "poetry.lock", ".config.backup", "my-journal"),
        *("part", "tmp", "#1 hit", ".gitignore", "49130", "ünï.txt", "a~b"),
    ],
)
def test_other_names_are_kept(name):
    assert not is_passing(name.encode())


def test_a_free_name_stays_as_it_is():
    assert free_name(b"a.txt", lambda name: False) == b"a.txt"


def test_a_taken_name_gets_nine_digits_after_its_extension():
    assert free_name(b"a.txt", {b"a.txt"}.__contains__, lambda: 31415926) == (b"a.txt (031415926)")


def test_digits_are_tried_until_one_is_free():
    numbers = iter([1, 1, 2])
    taken = {b"a", b"a (000000001)"}.__contains__
    assert free_name(b"a", taken, lambda: next(numbers)) == b"a (000000002)"


def test_after_a_thousand_tries_there_is_no_name():
    with pytest.raises(AlreadyExists):
        free_name(b"a", lambda name: True, lambda: 1)


@given(st.text(min_size=60, max_size=255).map(str.encode).filter(lambda name: len(name) <= 255))
def test_a_name_with_digits_is_never_too_long_and_whole(name):
    found = free_name(name, {name}.__contains__)
    assert len(found) <= 255
    found.decode()


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("foo (123456789)", "foo"),
        ("a.txt (031415926)", "a.txt"),
        ("report (2024)", "report (2024)"),
        ("foo (2)", "foo (2)"),
        ("foo(123456789)", "foo(123456789)"),
        ("foo (123456789).txt", "foo (123456789).txt"),
        (" (123456789)", " (123456789)"),
        (". (123456789)", ". (123456789)"),
        ("é (123456789)", "é"),
    ],
)
def test_only_a_suffix_of_the_trash_is_stripped(name, stripped):
    assert without_suffix(name.encode()) == stripped.encode()


def test_the_manual_lists_all_patterns():
    text = MANUAL.read_text("utf-8").replace("\\-", "-").replace("\\&", "")
    listed = text.split("use in passing:")[1].split("\n.nf\n")[1].split("\n.fi\n")[0].split()
    assert set(PASSING) == set(listed[: len(PASSING)])
