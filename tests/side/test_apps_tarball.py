"""A whole version as one archive, which is made once."""

from __future__ import annotations

import io
import tarfile

import pytest
from app_builders import DRIVE, all_of
from failing_store import FailingStore

from cozyfs.errors import CorruptObject, NoSpace, NotFound
from cozyfs.side.apps import Request, code_tarball, encoding

KEY = "drive/1.2.3.tgz"


@pytest.fixture
async def drive(world):
    await world.install(world.tar())
    return world


async def fetched(world, request=None):
    async with code_tarball(world.files, "drive", "1.2.3", request or Request()) as response:
        return response, None if response.body is None else await all_of(response.body)


def unpacked(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {entry.mode for entry in tar} == {0o640}
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


async def test_the_archive_has_all_files_decompressed(drive):
    response, data = await fetched(drive)
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/gzip"
    assert response.headers["Content-Length"] == str(len(data))
    assert unpacked(data) == DRIVE


async def test_the_archive_is_made_once(drive):
    _, first = await fetched(drive)
    failing = FailingStore(drive.store)
    _, second = await fetched(drive.with_store(failing))
    assert second == first == drive.store.get(drive.bucket, KEY)
    assert failing.calls["put"] == failing.calls["list"] == 0
    info = drive.store.head(drive.bucket, KEY)
    assert (info.content_type, dict(info.metadata)) == ("application/gzip", {})


async def test_the_archive_is_no_file_of_the_version(drive):
    await fetched(drive)
    listed = await drive.files.list("drive", "1.2.3")
    assert {file.name for file in listed} == set(DRIVE)


async def test_who_has_it_already_is_told_so(drive):
    response, _ = await fetched(drive)
    etag = {"If-None-Match": response.headers["Etag"]}
    response, data = await fetched(drive, Request(headers=etag))
    assert (response.status, data) == (304, None)


@pytest.mark.parametrize("kept", [True, False])
async def test_head_tells_the_length(drive, kept):
    failing = FailingStore(drive.store)
    if not kept:
        failing.fail_always("put")
    response, data = await fetched(drive.with_store(failing), Request("HEAD"))
    assert data is None
    assert int(response.headers["Content-Length"]) > 100


async def test_an_archive_that_cannot_be_kept_is_sent_all_the_same(drive, caplog):
    failing = FailingStore(drive.store)
    failing.fail_always("put")
    _, data = await fetched(drive.with_store(failing))
    assert unpacked(data) == DRIVE
    assert KEY not in drive.stored_keys()
    assert "not kept" in caplog.text


async def test_a_damaged_file_makes_no_archive(drive):
    drive.store.put(drive.bucket, "drive/1.2.3/icon", b"x", metadata={"x-content-encoding": "br"})
    with pytest.raises(CorruptObject):
        await fetched(drive)
    assert KEY not in drive.stored_keys()


async def test_a_half_done_install_has_no_archive(world):
    copier = world.copier()
    await copier.start()
    world.store.put(world.bucket, "drive/1.2.3/index.html", b"half")
    world.store.put(world.bucket, KEY, b"left over")
    with pytest.raises(NotFound):
        await fetched(world)


async def test_a_full_temporary_disk_is_an_error_and_keeps_nothing(drive, monkeypatch):
    def full(**_):
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(encoding, "TemporaryFile", full)
    with pytest.raises(NoSpace):
        await fetched(drive)
    assert KEY not in drive.stored_keys()
