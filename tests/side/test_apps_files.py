"""Reading versions of apps: listing, opening, decompressing."""

from __future__ import annotations

import gzip
import os

import brotli
import pytest
from app_builders import DRIVE, all_of, manifest
from failing_store import FailingStore
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import CorruptObject, NotFound, StoreUnavailable
from cozyfs.side.apps.encoding import PIECE_SIZE, decoder


@pytest.fixture
async def drive(world):
    await world.install(world.tar())
    return world


def put(world, name, data, **metadata):
    metadata = {key.replace("_", "-"): value for key, value in metadata.items()}
    world.store.put(world.bucket, f"drive/1.2.3/{name}", data, metadata=metadata)


async def test_slugs_versions_and_files_are_listed(drive):
    await drive.install(drive.tar({"manifest.webapp": manifest("2.0.0")}), slug="notes")
    assert await drive.files.slugs() == ["drive", "notes"]
    assert await drive.files.versions("drive") == ["1.2.3"]
    listed = await drive.files.list("drive", "1.2.3")
    assert [file.name for file in listed] == sorted(DRIVE)


async def test_in_an_empty_store_there_are_no_apps(world):
    assert await world.files.slugs() == []
    assert await world.files.versions("drive") == []


async def test_the_size_of_a_file_is_known_before_it_is_read(drive):
    for name, content in DRIVE.items():
        file = await drive.files.open("drive", "1.2.3", name)
        assert file.size == len(content)
        assert await all_of(file.chunks()) == content


@pytest.mark.parametrize("name", ["/index.html", "//index.html", "./index.html"])
async def test_a_leading_slash_is_harmless(drive, name):
    assert await drive.content(name) == DRIVE["index.html"]


@pytest.mark.parametrize(
    "name",
    ["nothing", "", "/", "assets", "../1.2.3/index.html", "../1.2.3.tgz", "a\0b", "a" * 300],
)
async def test_a_file_that_is_not_there_is_not_found(drive, name):
    with pytest.raises(NotFound, match=r"the app drive 1\.2\.3 has no file '"):
        await drive.files.open("drive", "1.2.3", name)


@pytest.mark.parametrize(
    ("slug", "version"),
    [("drive", "9"), ("nothing", "1.2.3"), ("../drive", "1.2.3"), ("drive", "../drive"), ("", "")],
)
async def test_a_version_that_is_not_there_is_not_found(drive, slug, version):
    with pytest.raises(NotFound, match="there is no version"):
        await drive.files.list(slug, version)


async def test_a_half_done_install_is_not_found(world):
    copier = world.copier()
    await copier.start()
    world.store.put(world.bucket, "drive/1.2.3/index.html", b"half")
    with pytest.raises(NotFound, match=r"there is no version '1\.2\.3' of the app 'drive'"):
        await world.files.open("drive", "1.2.3", "index.html")


async def test_that_a_store_is_down_does_not_mean_that_a_file_is_not_there(drive):
    failing = FailingStore(drive.store)
    failing.fail_always("head")
    with pytest.raises(StoreUnavailable):
        await drive.with_store(failing).files.open("drive", "1.2.3", "index.html")


@pytest.mark.parametrize(
    ("encode", "encoding"),
    [(brotli.compress, "br"), (gzip.compress, "gzip"), (bytes, ""), (bytes, None)],
    ids=["br", "gzip", "empty", "none"],
)
async def test_a_file_is_decoded_as_its_metadata_says(drive, encode, encoding):
    content = os.urandom(1000) * 3000
    metadata = {} if encoding is None else {"x_content_encoding": encoding}
    put(drive, "x", encode(content), **metadata)
    assert await drive.content("x") == content


async def test_a_size_that_nobody_wrote_down_is_not_made_up(drive):
    put(drive, "x", brotli.compress(b"abc"), x_content_encoding="br")
    file = await drive.files.open("drive", "1.2.3", "x")
    assert file.size is None


@pytest.mark.parametrize("length", ["-1", "", "x", "²"])
async def test_a_size_that_makes_no_sense_is_none(drive, length):
    put(
        drive,
        "x",
        brotli.compress(b"abc"),
        x_content_encoding="br",
        original_content_length=length,
    )
    file = await drive.files.open("drive", "1.2.3", "x")
    assert file.size is None
    assert await all_of(file.chunks()) == b"abc"


@pytest.mark.parametrize(
    ("data", "encoding", "length", "message"),
    [
        (brotli.compress(bytes(9999))[:-2], "br", "9999", "ends too early"),
        (gzip.compress(bytes(9999), mtime=0)[:-2], "gzip", "9999", "ends too early"),
        (b"\xff no brotli \xff", "br", "9", "not brotli"),
        (b"no gzip", "gzip", "9", "not gzip"),
        (b"", "br", "0", "ends too early"),
        (brotli.compress(b"abc"), "br", "2", "longer than it should be"),
        (brotli.compress(b"abc"), "br", "4", "shorter than it should be"),
        (b"abc", "zstd", "3", "encoding that is not known"),
    ],
)
async def test_a_damaged_file_is_an_error_never_a_shorter_file(
    drive, data, encoding, length, message
):
    put(drive, "x", data, x_content_encoding=encoding, original_content_length=length)
    with pytest.raises(CorruptObject, match=message):
        await drive.content("x")


async def test_a_file_that_the_store_gives_only_half_of_is_an_error(drive):
    failing = FailingStore(drive.store)
    file = await drive.with_store(failing).files.open("drive", "1.2.3", "index.html")
    failing.cut("get", 5)
    with pytest.raises(CorruptObject, match=r"index\.html changed while it was read"):
        await all_of(file.chunks())


async def test_a_read_that_fails_once_is_tried_again(drive):
    failing = FailingStore(drive.store)
    failing.fail("get")
    assert await drive.with_store(failing).content("index.html") == DRIVE["index.html"]


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_what_unpacks_to_much_comes_in_small_pieces(encoding):
    content = bytes(64 << 20)
    data = brotli.compress(content, quality=1) if encoding == "br" else gzip.compress(content, 1)
    decode = decoder(encoding)
    sizes = [len(piece) for piece in decode.feed(data)]
    decode.finish()
    assert sum(sizes) == len(content)
    assert max(sizes) <= 4 * PIECE_SIZE


@given(st.binary(max_size=2000), st.integers(1, 500), st.sampled_from(["br", "gzip", "two"]))
def test_however_a_file_is_cut_it_is_decoded_to_the_same(content, size, encoding):
    if encoding == "br":
        data, encoding = brotli.compress(content), "br"
    elif encoding == "gzip":
        data = gzip.compress(content)
    else:  # a gzip file may have several members
        data, content, encoding = gzip.compress(content) * 2, content * 2, "gzip"
    decode = decoder(encoding)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(b"".join(decode.feed(piece)) for piece in pieces) == content
    decode.finish()
