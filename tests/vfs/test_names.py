"""Names: the vectors of the Cozy file system."""

from __future__ import annotations

import errno

import pytest

from cozyfs.errors import IllegalName, NameNotUtf8, NameTooLong
from cozyfs.vfs.names import (
    check_name,
    conflict_name,
    copy_name,
    decode,
    media_class,
    media_type,
    split_extension,
)


@pytest.mark.parametrize(
    ("name", "error", "number"),
    [
        (b"", IllegalName, errno.EINVAL),
        (b".", IllegalName, errno.EINVAL),
        (b"..", IllegalName, errno.EINVAL),
        (b"a/b", IllegalName, errno.EINVAL),
        (b"a\0b", IllegalName, errno.EINVAL),
        (b"a\nb", IllegalName, errno.EINVAL),
        (b"a\rb", IllegalName, errno.EINVAL),
        (b"\xff", NameNotUtf8, errno.EILSEQ),
        (b"caf\xe9", NameNotUtf8, errno.EILSEQ),
        (b"\xed\xa0\x80", NameNotUtf8, errno.EILSEQ),  # half of a surrogate pair
        (b"\xc0\xaf", NameNotUtf8, errno.EILSEQ),  # an overlong slash
        (b"x" * 256, NameTooLong, errno.ENAMETOOLONG),
        ("é".encode() * 128, NameTooLong, errno.ENAMETOOLONG),
    ],
)
def test_a_name_that_no_file_may_get_is_refused(name, error, number):
    with pytest.raises(error) as raised:
        check_name(name)
    assert raised.value.errno == number


@pytest.mark.parametrize(
    "name",
    [
        b"...",
        b".hidden",
        b" ",
        b"a\tb",
        b'\\:*?"<>|',
        b"x" * 255,
        "é".encode() * 127,
        "e\u0301".encode(),
        "日本 🦊".encode(),
    ],
)
def test_any_other_name_is_legal(name):
    check_name(name)


def test_a_name_is_text_as_it_was_given():
    assert decode("é".encode()) == "é"
    assert decode("e\u0301".encode()) == "e\u0301"


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("existing", [], "existing (2)"),
        ("existing", ["existing (2)"], "existing (3)"),
        ("existing (3)", [], "existing (4)"),
        ("existing (copy)", [], "existing (copy) (2)"),
        ("a.tar.gz", [], "a.tar (2).gz"),
        (".bashrc", [], " (2).bashrc"),
        ("a (2).txt", ["a (3).txt"], "a (4).txt"),
        ("(1)", [], "(1) (2)"),
        (" (1)", [], " (1) (2)"),
        ("a (-3)", [], "a (-2)"),
        ("a (x) (9)", [], "a (x) (10)"),
    ],
)
def test_a_copy_gets_the_next_free_number(name, taken, expected):
    assert conflict_name(name, True, taken.__contains__) == expected


def test_a_directory_has_no_extension():
    assert conflict_name("v1.2", False, lambda _: False) == "v1.2 (2)"
    assert copy_name("v1.2", False) == "v1.2 (copy)"


def test_the_search_for_a_free_number_ends():
    tried = []
    assert conflict_name("a", True, lambda name: not tried.append(name)) == tried[-1]
    assert len(tried) == 1000


def test_a_copy_is_called_copy():
    assert copy_name("a.txt") == "a (copy).txt"
    assert copy_name(".bashrc") == " (copy).bashrc"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ("a", "")),
        ("a.txt", ("a", ".txt")),
        (".jpg", ("", ".jpg")),
        ("a.", ("a", ".")),
        ("a.b.c", ("a.b", ".c")),
    ],
)
def test_the_extension_starts_at_the_last_dot(name, parts):
    assert split_extension(name) == parts


@pytest.mark.parametrize(
    ("name", "mime", "kind"),
    [
        ("a.txt", "text/plain", "text"),
        ("a.jpg", "image/jpeg", "image"),
        (".jpg", "image/jpeg", "image"),
        ("A.JPG", "image/jpeg", "image"),
        ("a.png", "image/png", "image"),
        ("a.pdf", "application/pdf", "pdf"),
        ("a.html", "text/html", "code"),
        ("a.css", "text/css", "code"),
        ("a.py", "text/x-python", "code"),
        ("a.zip", "application/zip", "zip"),
        ("a.tar.gz", "application/gzip", "zip"),
        ("a.tar", "application/x-tar", "zip"),
        ("a.mp4", "video/mp4", "video"),
        ("a.mp3", "audio/mpeg", "audio"),
        ("a.doc", "application/msword", "text"),
        ("a.xls", "application/vnd.ms-excel", "spreadsheet"),
        ("a.ppt", "application/vnd.ms-powerpoint", "slide"),
        ("a.url", "application/internet-shortcut", "shortcut"),
        ("a.URL", "application/octet-stream", "files"),
        ("a.cozy-note", "text/vnd.cozy.note+markdown", "text"),
        ("noextension", "application/octet-stream", "files"),
        ("a.unknown-thing", "application/octet-stream", "files"),
        ("a.", "application/octet-stream", "files"),
    ],
)
def test_a_name_implies_a_media_type_and_that_a_class(name, mime, kind):
    assert media_type(name) == mime
    assert media_class(mime) == kind


def test_a_type_without_a_slash_is_its_own_class():
    assert media_class("weird") == "weird"
