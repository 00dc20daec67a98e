"""The views `/.cozy_apps` and `/.cozy_konnectors`, over both stores."""

from __future__ import annotations

import secrets
from stat import S_IMODE, S_ISDIR

import pytest
from app_builders import DRIVE, World, manifest
from failing_store import FailingStore

from cozyfs import instances
from cozyfs.errors import NotFound, StoreUnavailable
from cozyfs.joined.app_view import AppView
from cozyfs.threads import Caller

BIG = secrets.token_bytes(1000) + b"let a = 1\n" * 400_000


@pytest.fixture
async def world(store, tmp_path):
    """A store with two versions of one app."""
    prefix = f"t{secrets.token_hex(6)}"
    alice = instances.create(store, prefix, "alice.example.com")
    world = World(store, Caller(parallel=8, timeout_s=0.0), prefix, alice, tmp_path)
    await world.install(world.tar({**DRIVE, "assets/big.js": BIG}))
    await world.install(world.tar({"manifest.webapp": manifest("2.0.0")}))
    return world


@pytest.fixture
def view(world):
    return AppView(b".cozy_apps", world.files)


async def names(view, *path):
    return [name for name, _ in await view.children(path)]


TOP = (b"drive", b"1.2.3")


async def test_apps_versions_and_files_are_listed(view):
    assert await names(view) == [b"drive"]
    assert await names(view, b"drive") == [b"1.2.3", b"2.0.0"]
    assert await names(view, *TOP) == [b"assets", b"icon", b"index.html", b"manifest.webapp"]
    assert await names(view, *TOP, b"assets") == [b"a..b.js", b"big.js", b"empty"]


async def test_a_file_has_its_own_size_and_content_and_is_the_owners(view):
    for name, data in DRIVE.items():
        path = (*TOP, *name.encode().split(b"/"))
        inode = await view.look(path)
        assert (inode.size, S_IMODE(inode.mode)) == (len(data), 0o400)
        reader = await view.open(path)
        assert await reader.read(0, len(data) + 5) == data
        await reader.close()
    assert S_ISDIR((await view.look((*TOP, b"assets"))).mode)


async def test_a_content_can_be_read_in_any_order(view):
    reader = await view.open((*TOP, b"assets", b"big.js"))
    for offset in (3_000_000, 0, 2_500_000, 990, len(BIG) - 7, 1_048_570):
        assert await reader.read(offset, 1000) == BIG[offset : offset + 1000]
    await reader.close()


async def test_a_file_whose_size_the_store_was_not_told_is_counted(world, view):
    key = "drive/1.2.3/plain"
    world.store.put(world.bucket, key, b"as it is", metadata={"x-content-encoding": ""})
    inode = await view.look((*TOP, b"plain"))
    assert inode.size == 8


@pytest.mark.parametrize(
    "path",
    ["notes", "Not_A-slug", "drive/3.0.0", "drive/1.2.3/nothing", "drive/1.2.3/icon/x", "\udcff"],
)
async def test_what_there_is_not_is_not_found(view, path):
    with pytest.raises(NotFound):
        await view.look(tuple(path.encode("utf-8", "surrogateescape").split(b"/")))


async def test_a_version_that_is_not_whole_is_not_there(world, view):
    world.store.delete(world.bucket, "drive/2.0.0.cozy-installed")
    assert await names(view, b"drive") == [b"1.2.3"]
    with pytest.raises(NotFound):
        await view.look((b"drive", b"2.0.0"))


async def test_where_no_app_was_ever_installed_there_is_none(store):
    world = World(store, Caller(), f"t{secrets.token_hex(6)}", None, None)
    view = AppView(b".cozy_apps", world.files)
    assert await names(view) == []
    with pytest.raises(NotFound):
        await view.look((b"drive", b"1.2.3"))


async def test_a_store_that_does_not_answer_is_an_error(world):
    failing = FailingStore(world.store)
    view = AppView(b".cozy_apps", world.with_store(failing).files)
    await names(view, b"drive")
    failing.fail("head")
    with pytest.raises(StoreUnavailable):
        await view.children(TOP)
    assert len(await names(view, *TOP)) == 4
