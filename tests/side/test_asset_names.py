"""Names of assets: the vectors of the Cozy server, and what it does not say."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import UsageError
from cozyfs.side import asset_names
from cozyfs.side.asset_names import asset_key, normalised, parse_asset_key

SUM = "0123456789" + "a" * 54


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("foo", "/foo"),
        ("/foo", "/foo"),
        ("//foo", "/foo"),
        ("/../x", "/x"),
        ("../../x", "/x"),
        ("a/./b//c/", "/a/b/c"),
        ("a/../../b", "/b"),
        (".well-known/x", "/.well-known/x"),
        ("a..b", "/a..b"),
    ],
)
def test_a_name_is_absolute_and_clean(given, kept):
    assert normalised(given) == kept


@pytest.mark.parametrize("name", ["", "/", "..", "a/..", "a\0b", "a\nb", "\ud800"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError):
        normalised(name)


@given(st.text(st.sampled_from("ab./\\ "), max_size=12))
def test_no_name_leaves_its_context(name):
    try:
        key = asset_key("ctx", name)
    except UsageError:
        assert posixpath.normpath("/" + name.lstrip("/")) == "/"
    else:
        assert key.startswith("ctx/")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert parse_asset_key(key) == ("ctx", normalised(name))
        assert normalised(normalised(name)) == normalised(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/a/b.tar.gz", "/a/b.0123456789.tar.gz"),
        ("/b.js", "/b.0123456789.js"),
        ("/a.d/b.js", "/a.d/b.0123456789.js"),
        ("/a.d/LICENSE", "/a.d/LICENSE"),
    ],
)
def test_the_sum_stands_before_the_first_dot_of_the_base_name(name, expected):
    assert asset_names.name_with_sum(name, SUM) == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("/a.css", b"", "text/css"),
        ("/a.SVG", b"", "image/svg+xml"),
        ("/a", b"\x89PNG\r\n\x1a\n...", "image/png"),
        ("/a", b"RIFF....WEBPVP8 ", "image/webp"),
        ("/a", b"  <!DOCTYPE HTML><p>", "text/html; charset=utf-8"),
        ("/a", "né".encode(), "text/plain; charset=utf-8"),
        ("/a", "é".encode() * 300 + b".", "text/plain; charset=utf-8"),
        ("/a", b"\x00\x01\x02", "application/octet-stream"),
        ("/a", b"\xff\xfe\xfd", "application/octet-stream"),
        ("/a.unheardof", b"", "text/plain; charset=utf-8"),
    ],
)
def test_the_type_is_what_the_extension_says_else_what_the_content_looks_like(
    name, data, expected
):
    assert asset_names.media_type(name, data) == expected
