"""Installing on an instance: files, marker, document, in this order, and what is left when it ends
anywhere in between."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio
from app_builders import DRIVE, World, manifest, tar_bytes
from failing_store import FailingStore

from cozyfs import instances
from cozyfs.errors import (
    AppRefused,
    CorruptObject,
    NoSpace,
    NotFound,
    StoreUnavailable,
    UsageError,
)
from cozyfs.side.apps import KONNECTORS, WEBAPPS, encoding
from cozyfs.threads import Caller

PROJECT = Path(__file__).parents[2]


async def test_an_installed_app_has_its_files_and_its_document(world):
    tar = world.tar()
    done = await world.install(tar)

    assert (done.copied, done.files, done.size) == (True, 5, sum(map(len, DRIVE.values())))
    for name, content in DRIVE.items():
        assert await world.content(name) == content
    document = await world.documents.get("drive")
    assert document == done.document
    assert (document.slug, document.version, document.state) == ("drive", "1.2.3", "ready")
    assert (document.source, document.checksum, document.error) == (f"file://{tar}", "", "")
    assert document.created_at == document.updated_at


@pytest.mark.parametrize("kind", [WEBAPPS, KONNECTORS])
async def test_the_document_is_an_object_of_the_instance(world, kind):
    world.kind = kind
    await world.install(world.tar({kind.manifest: manifest()}))

    key = f"{world.alice.db_prefix}/.cozyfs/{kind.name}/drive.json"
    record = json.loads(world.store.get(world.alice.bucket, key))
    assert record["_id"] == f"{kind.doctype}/drive"
    assert set(record) == {
        *("_id", "slug", "source", "state", "version", "checksum"),
        *("created_at", "updated_at", "error"),
    }
    assert world.store.head(world.alice.bucket, key).content_type == "application/json"
    assert f"drive/1.2.3/{kind.manifest}" in world.stored_keys()


async def test_an_app_is_no_konnector(world):
    tar = world.tar()
    world.kind = KONNECTORS
    with pytest.raises(AppRefused, match=r"there is no manifest\.konnector in the archive"):
        await world.install(tar)


async def test_the_manifests_checksum_is_a_part_of_the_version(world):
    await world.install(world.tar({"manifest.webapp": manifest(checksum="ab12")}))
    document = await world.documents.get("drive")
    assert (document.version, document.checksum) == ("1.2.3", "ab12")
    assert await world.files.versions("drive") == ["1.2.3-ab12"]


async def test_another_instance_shares_the_files(world):
    bob = instances.create(world.store, world.prefix, "bob.example.com")
    tar = world.tar()
    await world.install(tar)
    failing = FailingStore(world.store)
    done = await world.with_store(failing).install(tar, instance=bob)
    assert done.copied is False
    assert failing.calls["put"] == 1  # the document


async def test_an_upgrade_keeps_the_day_of_the_install_and_the_old_version(world):
    first = (await world.install(world.tar())).document
    files = DRIVE | {"manifest.webapp": manifest("2.0.0")}
    second = (await world.install(world.tar(files))).document

    assert second.version == "2.0.0"
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert await world.files.versions("drive") == ["1.2.3", "2.0.0"]


async def test_an_upgrade_that_fails_leaves_the_app_as_it_was(world):
    before = (await world.install(world.tar())).document
    failing = FailingStore(world.store)
    failing.fail("put", nth=2, times=99)
    with pytest.raises(StoreUnavailable):
        await world.with_store(failing).install(world.tar({"manifest.webapp": manifest("2")}))

    assert await world.documents.get("drive") == before
    assert await world.files.versions("drive") == ["1.2.3"]
    assert world.stored_keys("drive/2") == []


@pytest.mark.parametrize("nth", range(1, 7))
async def test_an_install_that_fails_at_any_put_can_be_repeated(world, nth):
    failing = FailingStore(world.store)
    failing.fail("put", nth=nth, times=99)
    with pytest.raises(StoreUnavailable):
        await world.with_store(failing).install(world.tar())

    assert await world.documents.list() == []
    assert await world.files.versions("drive") == []
    assert world.stored_keys() == []
    assert (await world.install(world.tar())).copied is True
    assert await world.content("index.html") == DRIVE["index.html"]


async def test_an_install_whose_document_cannot_be_written_is_repeated_without_copying(world):
    failing = FailingStore(world.store)
    failing.fail("put", nth=7, times=99)
    with pytest.raises(StoreUnavailable):
        await world.with_store(failing).install(world.tar())

    assert await world.documents.list() == []
    assert (await world.install(world.tar())).copied is False
    assert [document.slug for document in await world.documents.list()] == ["drive"]


@pytest.mark.parametrize("ensure", ["ensure_bucket", "list", "head"])
async def test_a_store_that_is_down_is_an_error_and_no_install(world, ensure):
    failing = FailingStore(world.store)
    failing.fail_always(ensure)
    with pytest.raises(StoreUnavailable):
        await world.with_store(failing).install(world.tar())
    assert await world.documents.list() == []


async def test_a_full_temporary_disk_is_an_error_that_leaves_nothing(world, monkeypatch):
    class Full:
        def __init__(self, *args, **kwargs):
            self.file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115

        def __getattr__(self, name):
            return getattr(self.file, name)

    tar = world.tar()
    monkeypatch.setattr(encoding, "TemporaryFile", Full)
    with pytest.raises(NoSpace, match=r"No space left on device"):
        await world.install(tar)
    assert world.stored_keys() == []


async def test_a_source_that_is_refused_stores_nothing(world):
    tar = world.tar(DRIVE | {"../../other/1.0.0/index.html": b"evil"})
    failing = FailingStore(world.store)
    with pytest.raises(AppRefused, match="leads out of the app"):
        await world.with_store(failing).install(tar)
    assert failing.calls.total() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "manifest.webapp is not valid JSON"),
        (b"\xff", "manifest.webapp is not valid JSON"),
        (b"[" * 100_000, "manifest.webapp is not valid JSON"),
        (b"[]", "manifest.webapp has no version"),
        (b"{}", "manifest.webapp has no version"),
        (b'{"version": 1}', "manifest.webapp has no version"),
        (b'{"version": "../1"}', "'../1' cannot be the version of an app"),
        (b'{"version": "1", "checksum": 1}', "manifest.webapp has a checksum that is no text"),
        (b'{"version": "1", "checksum": "../x"}', "'../x' cannot be the checksum of an app"),
    ],
)
async def test_a_manifest_that_makes_no_sense_is_refused(world, content, message):
    with pytest.raises(AppRefused) as caught:
        await world.install(world.tar({"manifest.webapp": content}))
    assert str(caught.value) == message


async def test_who_cancels_does_not_wait_for_a_silent_server(world):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        async with trio.open_nursery() as nursery:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
            nursery.start_soon(world.install, url)
            connection, _ = await trio.to_thread.run_sync(server.accept)
            nursery.cancel_scope.cancel()
        with connection:  # open until now
            assert await world.documents.list() == []


async def test_a_slug_is_checked_before_anything_is_fetched(world):
    with pytest.raises(UsageError, match=r"'\.\./x' is not the slug of an app"):
        await world.install("http://127.0.0.1:1/nowhere", slug="../x")


async def test_a_folder_is_installed_as_a_new_version_each_time(world):
    (world.folder / "src").mkdir()
    (world.folder / "src" / "manifest.webapp").write_bytes(manifest())
    one = (await world.install(world.folder / "src")).document.version
    two = (await world.install(world.folder / "src")).document.version
    assert one != two
    assert one.startswith("1.2.3-")
    assert sorted(await world.files.versions("drive")) == sorted([one, two])


async def test_uninstalling_removes_the_document_only(world):
    await world.install(world.tar())
    await world.documents.remove("drive")

    assert await world.documents.list() == []
    assert await world.content("index.html") == DRIVE["index.html"]
    with pytest.raises(NotFound, match=r"drive is not installed on alice\.example\.com"):
        await world.documents.remove("drive")


async def test_documents_are_listed_by_slug_and_others_are_passed_over(world):
    for slug in ("notes", "drive"):
        await world.install(world.tar(), slug=slug)
    folder = f"{world.alice.db_prefix}/.cozyfs/apps/"
    world.store.put(world.alice.bucket, f"{folder}x.json/y.json", b"{}")
    world.store.put(world.alice.bucket, f"{folder}readme", b"")
    assert [document.slug for document in await world.documents.list()] == ["drive", "notes"]


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff"])
async def test_a_damaged_document_says_so_and_is_mended_by_installing(world, damage):
    await world.install(world.tar())
    key = f"{world.alice.db_prefix}/.cozyfs/apps/drive.json"
    world.store.put(world.alice.bucket, key, damage)
    with pytest.raises(CorruptObject, match=r"drive on .* is damaged; install it again"):
        await world.documents.get("drive")
    await world.install(world.tar())
    assert (await world.documents.get("drive")).version == "1.2.3"


async def test_a_document_that_says_more_and_less_is_read(world):
    key = f"{world.alice.db_prefix}/.cozyfs/apps/drive.json"
    body = json.dumps({"slug": "other", "state": "errored", "error": "boom", "routes": {}})
    world.store.put(world.alice.bucket, key, body.encode())
    document = await world.documents.get("drive")
    assert dataclasses.astuple(document) == ("drive", "", "errored", "", "", "", "", "boom")


KILLED = """
import os, signal, sys
import trio
from cozyfs import instances
from cozyfs.side.apps import WEBAPPS, install
from cozyfs.store import LocalStore
from cozyfs.threads import Caller

class Dying(LocalStore):
    left = int(sys.argv[3])
    def put(self, *args, **kwargs):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().put(*args, **kwargs)

store = Dying(sys.argv[1], durable=False)
alice = next(instances.list_instances(store, "t"))
trio.run(install, store, Caller(), "t", alice, WEBAPPS, "drive", sys.argv[2])
"""


@pytest.mark.parametrize("puts", range(7))
async def test_a_killed_install_is_seen_by_nobody_and_can_be_repeated(local_store, tmp_path, puts):
    alice = instances.create(local_store, "t", "alice.example.com")
    world = World(local_store, Caller(), "t", alice, tmp_path)
    tar = world.tar(DRIVE, prefix="package/")
    done = await trio.run_process(
        [sys.executable, "-c", KILLED, tmp_path / "store", tar, str(puts)],
        cwd=PROJECT,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert await world.documents.list() == []
    assert await world.files.versions("drive") == (["1.2.3"] if puts == 6 else [])

    newer = DRIVE | {"index.html": b"new"}
    del newer["icon"]
    tar.write_bytes(tar_bytes(newer))
    await world.install(tar)
    if puts < 6:
        listed = await world.files.list("drive", "1.2.3")
        assert {file.name for file in listed} == set(newer)
        assert await world.content("index.html") == b"new"
