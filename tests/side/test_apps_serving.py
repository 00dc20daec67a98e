"""Files of apps as answers to HTTP requests."""

from __future__ import annotations

import gzip

import brotli
import pytest
from app_builders import DRIVE, all_of
from failing_store import FailingStore

from cozyfs.errors import CorruptObject, NotFound
from cozyfs.side.apps import Request, serve
from cozyfs.side.apps.negotiation import accepts, has_etag


@pytest.fixture
async def drive(world):
    await world.install(world.tar())
    return world


def get(world, name, method="GET", **headers):
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    return serve(world.files, "drive", "1.2.3", name, Request(method, headers))


async def test_a_file_is_sent_with_its_length_and_type(drive):
    response = await get(drive, "index.html")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html"
    assert response.headers["Content-Length"] == "6000"
    assert "Content-Encoding" not in response.headers
    assert await all_of(response.body) == DRIVE["index.html"]


async def test_head_gets_the_same_without_a_body(drive):
    got = await get(drive, "index.html")
    await got.body.aclose()
    response = await get(drive, "index.html", "HEAD")
    assert (response.status, response.headers, response.body) == (200, got.headers, None)


async def test_who_takes_brotli_gets_what_is_stored(drive):
    response = await get(drive, "index.html", accept_encoding="gzip, deflate, br")
    body = await all_of(response.body)
    assert response.headers["Content-Encoding"] == "br"
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Vary"] == "Accept-Encoding"
    assert brotli.decompress(body) == DRIVE["index.html"]


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("br, gzip", "gzip"), ("br", None), ("", None)]
)
async def test_what_was_stored_with_gzip_is_sent_to_who_takes_that(drive, accepted, encoding):
    metadata = {"x-content-encoding": "gzip", "original-content-length": "3000"}
    packed = gzip.compress(b"abc" * 1000)
    drive.store.put(drive.bucket, "drive/1.2.3/old.js", packed, metadata=metadata)
    response = await get(drive, "old.js", accept_encoding=accepted)
    body = await all_of(response.body)
    assert response.headers.get("Content-Encoding") == encoding
    assert response.headers["Content-Length"] == str(len(body))
    assert body == (packed if encoding else b"abc" * 1000)


async def test_who_refuses_brotli_does_not_get_it(drive):
    response = await get(drive, "index.html", accept_encoding="gzip, br;q=0")
    assert "Content-Encoding" not in response.headers
    assert await all_of(response.body) == DRIVE["index.html"]


async def test_an_empty_file_has_no_length_as_on_the_cozy_server(drive):
    response = await get(drive, "assets/empty")
    assert "Content-Length" not in response.headers
    assert await all_of(response.body) == b""


async def test_the_etag_is_ten_characters_of_that_of_the_object(drive):
    info = drive.store.head(drive.bucket, "drive/1.2.3/index.html")
    response = await get(drive, "index.html", "HEAD")
    assert response.headers["Etag"] == f'"{info.etag[:10]}"'


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*", '"x",W/{}'])
async def test_who_has_the_file_already_is_told_so(drive, form):
    etag = (await get(drive, "index.html", "HEAD")).headers["Etag"]
    response = await get(drive, "index.html", if_none_match=form.format(etag))
    assert (response.status, response.body) == (304, None)
    assert response.headers["Etag"] == etag
    assert "Content-Length" not in response.headers


async def test_who_says_how_it_caches_gets_the_file(drive):
    response = await get(drive, "index.html", if_none_match="*", cache_control="no-cache")
    assert response.status == 200
    assert "Etag" not in response.headers
    await response.body.aclose()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("app.0123456789abcdef.js", True),
        ("js/app.0123456789.min.js", True),
        ("app.012345678.js", False),
        ("app.0123456789.d/index.js", False),
        ("0123456789.js", False),
        ("app.0123456789", False),
        ("app.0123456789xyz.js", False),
    ],
)
async def test_a_file_whose_name_has_a_checksum_may_be_kept_for_a_year(drive, name, kept):
    drive.store.put(drive.bucket, f"drive/1.2.3/{name}", b"x")
    response = await get(drive, name, "HEAD")
    expected = "max-age=31536000, immutable" if kept else None
    assert response.headers.get("Cache-Control") == expected


async def test_an_svg_that_was_taken_for_xml_is_an_svg(drive):
    drive.store.put(drive.bucket, "drive/1.2.3/a.svg", b"<svg/>", content_type="text/xml")
    assert (await get(drive, "a.svg", "HEAD")).headers["Content-Type"] == "image/svg+xml"


async def test_a_file_that_is_not_there_is_not_found(drive):
    with pytest.raises(NotFound):
        await get(drive, "../1.2.3/index.html")


async def test_a_file_of_more_than_50_mib_is_not_cut(drive):
    content = bytes(51 << 20)
    drive.store.put(
        drive.bucket,
        "drive/1.2.3/big",
        brotli.compress(content, quality=1),
        metadata={"x-content-encoding": "br", "original-content-length": str(len(content))},
    )
    response = await get(drive, "big")
    assert response.headers["Content-Length"] == str(51 << 20)
    assert len(await all_of(response.body)) == 51 << 20


async def test_a_stored_file_that_ends_early_is_an_error_also_to_who_takes_brotli(drive):
    failing = FailingStore(drive.store)
    response = await get(drive.with_store(failing), "index.html", accept_encoding="br")
    failing.cut("get", 3)
    with pytest.raises(CorruptObject):
        await all_of(response.body)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("br", True),
        ("BR", True),
        ("gzip", False),
        ("brotli", False),
        ("gzip, deflate, br", True),
        ("br;q=0", False),
        ("br;q=0.000", False),
        ("br; q=0.001", True),
        ("br;Q=1.000", True),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, br", True),
        ("*, br;q=0", False),
        ("identity", False),
        ("identity, br", True),
        ("identity, br;q=0.5", False),
        ("identity;q=0.5, br;q=0.5", True),
        ("identity;q=0, br", True),
        ("br;q=2", False),
        ("br;q=x", False),
        ("br;q=nan", False),
        ("br;q=-1", False),
        ("br;level=3;q=1", True),
        (" , ;q=1, br", True),
    ],
)
def test_accept_encoding_is_read_with_its_weights(header, accepted):
    assert accepts(header, "br") is accepted


@pytest.mark.parametrize(
    ("header", "found"),
    [('"a"', True), ('W/"a"', True), ("*", True), ("", False), ("a", False), ('"ab"', False)],
)
def test_entity_tags_are_compared_whole(header, found):
    assert has_etag(header, '"a"') is found
