"""Versions of apps are written whole or not at all."""

from __future__ import annotations

import threading

import brotli
import pytest
import trio
from app_builders import file_of
from failing_store import FailingStore

from cozyfs.errors import (
    AppRefused,
    CozyError,
    InvalidRequest,
    NotFound,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from cozyfs.side.apps import SourceFile


async def copied(world, files, **kwargs):
    copier = world.copier(**kwargs)
    assert await copier.start() is False
    for name, content in files.items():
        await copier.copy(file_of(name, content))
    return copier


async def test_a_version_is_there_once_it_is_committed(world):
    copier = await copied(world, {"index.html": b"<html>"})
    assert await copier.exist() is False
    await copier.commit()

    assert world.stored_keys() == ["drive/1.2.3.cozy-installed", "drive/1.2.3/index.html"]
    assert await world.copier().exist() is True
    assert await world.copier().start() is True


async def test_the_shasum_is_a_part_of_the_keys(world):
    await (await copied(world, {"a": b"1"}, shasum="abc123")).commit()

    assert world.stored_keys() == ["drive/1.2.3-abc123.cozy-installed", "drive/1.2.3-abc123/a"]
    assert await world.copier().exist() is False


async def test_a_file_is_stored_as_a_cozy_server_stores_it(world):
    content = b"let a = 1\n" * 1000
    await copied(world, {"js/a..b.js": content})

    info = world.store.head(world.bucket, "drive/1.2.3/js/a..b.js")
    assert info.content_type == "text/javascript"
    assert info.metadata == {"x-content-encoding": "br", "original-content-length": "10000"}
    assert brotli.decompress(world.store.get(world.bucket, info.key)) == content


async def test_the_marker_is_an_empty_text(world):
    await (await copied(world, {"a": b"1"})).commit()

    info = world.store.head(world.bucket, "drive/1.2.3.cozy-installed")
    assert (info.size, info.content_type, dict(info.metadata)) == (0, "text/plain", {})


@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("index.html", b"", "text/html"),
        ("a.min.css", b"", "text/css"),
        ("app.js.map", b"{}", "application/json"),
        ("Logo.SVG", b"<svg>", "image/svg+xml"),
        ("font.woff2", b"", "font/woff2"),
        ("icon", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("photo.unknown", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("manifest.webapp", b"{}", "application/octet-stream"),
        ("empty", b"", "application/octet-stream"),
        ("dir.js/empty", b"", "application/octet-stream"),
    ],
)
async def test_the_type_comes_from_the_extension_or_else_from_the_content(
    world, name, content, content_type
):
    await copied(world, {name: content})
    assert world.store.head(world.bucket, f"drive/1.2.3/{name}").content_type == content_type


@pytest.mark.parametrize(
    ("given", "stored"), [("./a", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("..a/b..", "..a/b..")]
)
async def test_names_are_stored_in_their_shortest_form(world, given, stored):
    await copied(world, {given: b"1"})
    assert world.stored_keys() == [f"drive/1.2.3/{stored}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../other/1.0.0/index.html", "leads out of the app"),
        ("a/../../b", "leads out of the app"),
        ("..", "leads out of the app"),
        ("/etc/passwd", "is absolute"),
        (".", "is empty"),
        ("", "is empty"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
        ("a\udcffb", "not UTF-8"),
        ("a" * 256, "too long"),
        ("a/" * 600 + "b", "too long"),
    ],
)
async def test_names_that_no_file_can_have_are_refused_and_store_nothing(world, name, message):
    copier = world.copier()
    await copier.start()
    with pytest.raises(AppRefused, match=message):
        await copier.copy(file_of(name, b"x"))
    assert world.stored_keys() == []


@pytest.mark.parametrize("version", ["", "..", "1/2", "1.0.cozy-installed", "1.tgz", "a b", ".1"])
async def test_a_version_that_cannot_be_in_a_key_is_refused(world, version):
    with pytest.raises(AppRefused, match="cannot be the version"):
        world.copier(version=version)


@pytest.mark.parametrize("slug", ["", "Drive", "a/b", "..", "a.b", "é", "a" * 129])
async def test_a_slug_has_only_small_letters_digits_and_dashes(world, slug):
    with pytest.raises(UsageError, match="slug"):
        world.copier(slug=slug)


async def test_copying_before_the_start_is_an_error(world):
    with pytest.raises(InvalidRequest):
        await world.copier().copy(file_of("a", b"1"))
    with pytest.raises(InvalidRequest):
        await world.copier().commit()


@pytest.mark.parametrize("size", [2, 4])
async def test_a_file_that_is_not_as_long_as_it_says_is_refused(world, size):
    copier = world.copier()
    await copier.start()
    with pytest.raises(AppRefused, match=f"has 3 bytes, not {size}"):
        await copier.copy(SourceFile("a", size, file_of("a", b"123").reader))


async def test_abort_leaves_nothing(world):
    copier = await copied(world, {"a": b"1", "b/c": b"2"})
    await copier.abort()
    assert world.stored_keys() == []


async def test_abort_removes_a_file_whose_answer_was_lost(world):
    failing = FailingStore(world.store)
    copier = await copied(world.with_store(failing), {"a": b"1"})
    failing.fail("put", times=99, applied=True)
    with pytest.raises(StoreUnavailable):
        await copier.copy(file_of("b", b"2"))
    failing.mend()
    await copier.abort()
    assert world.stored_keys() == []


async def test_abort_of_a_loser_leaves_what_another_completed(world):
    loser = await copied(world, {"a": b"1"})
    await (await copied(world, {"a": b"1"})).commit()
    await loser.abort()
    assert await world.content("a") == b"1"


async def test_an_abort_that_fails_leaves_files_that_nobody_sees(world, caplog):
    failing = FailingStore(world.store)
    copier = await copied(world.with_store(failing), {"a": b"1"})
    failing.fail_always("delete_prefix")
    await copier.abort()
    assert "failed install of drive/1.2.3" in caplog.text
    with pytest.raises(NotFound):
        await world.files.list("drive", "1.2.3")


async def test_what_a_killed_install_left_is_replaced_or_removed(world):
    await copied(world, {"a": b"old", "gone/deep": b"old"})  # and then it was killed
    world.store.put(world.bucket, "drive/1.2.3.tgz", b"old")
    await (await copied(world, {"a": b"new"})).commit()

    assert world.stored_keys() == ["drive/1.2.3.cozy-installed", "drive/1.2.3/a"]
    assert await world.content("a") == b"new"


async def test_leftovers_in_the_way_of_a_file_are_gone_at_the_second_try(world):
    await copied(world, {"a/b": b"old"})  # and then it was killed
    copier = world.copier()
    await copier.start()
    try:
        await copier.copy(file_of("a", b"new"))
    except StoreError:  # in a local folder, "a" is a folder now
        await copier.abort()
        await copied(world, {"a": b"new"})
    copier = await copied(world, {"a": b"new"})
    await copier.commit()
    assert [file.name for file in await world.files.list("drive", "1.2.3")] == ["a"]


async def test_two_that_install_the_same_at_once_both_succeed(world):
    one = await copied(world, {"a": b"1", "b": b"2"})
    two = await copied(world, {"b": b"2", "a": b"1"})
    await one.commit()
    await two.commit()
    assert await world.content("a") == b"1"


async def test_of_two_that_disagree_the_first_is_not_completed_with_the_others_files(world):
    one = await copied(world, {"a": b"1"})
    two = await copied(world, {"a": b"longer"})
    with pytest.raises(CozyError, match="installed by another"):
        await one.commit()
    await two.commit()
    assert await world.content("a") == b"longer"


async def test_leftovers_of_other_versions_are_left_alone(world):
    await (await copied(world, {"a": b"1"}, version="1.2.30")).commit()
    await (await copied(world, {"a": b"2"}, version="1.2.3")).commit()
    assert await world.content("a", "1.2.30") == b"1"


async def test_an_install_whose_files_another_has_removed_is_not_completed(world):
    first = await copied(world, {"a": b"1", "b": b"2"})
    await (await copied(world, {"a": b"1"})).abort()
    with pytest.raises(CozyError, match="installed by another at the same time"):
        await first.commit()
    assert await world.copier().exist() is False


async def test_a_marker_is_taken_back_when_files_vanish_as_it_is_put(world):
    failing = FailingStore(world.store)
    copier = await copied(world.with_store(failing), {"a": b"1"})
    failing.before("put", lambda: world.store.delete(world.bucket, "drive/1.2.3/a"))
    with pytest.raises(CozyError, match="installed by another"):
        await copier.commit()
    with pytest.raises(ObjectNotFound):
        world.store.head(world.bucket, "drive/1.2.3.cozy-installed")


async def test_a_server_that_fails_once_is_asked_again(world):
    failing = FailingStore(world.store)
    for name in ("head", "put", "list", "delete_many"):
        failing.fail(name)
    copier = await copied(world.with_store(failing), {"a": b"1"})
    await copier.commit()
    assert await world.content("a") == b"1"


async def test_a_store_that_is_down_at_the_start_is_not_taken_for_an_absent_version(world):
    failing = FailingStore(world.store)
    failing.fail_always("head")
    with pytest.raises(StoreUnavailable):
        await world.with_store(failing).copier().start()


async def test_many_files_go_at_once_and_none_is_lost(world):
    files = {f"f{number}": b"%d" % number for number in range(40)}
    copier = world.copier()
    await copier.start()
    await copier.copy_all(file_of(name, content) for name, content in files.items())
    await copier.commit()
    listed = await world.files.list("drive", "1.2.3")
    assert {file.name for file in listed} == set(files)


async def test_one_file_that_fails_ends_the_copy_with_its_own_error(world):
    failing = FailingStore(world.store)
    copier = world.with_store(failing).copier()
    await copier.start()
    failing.fail_always("put")
    with pytest.raises(StoreUnavailable):
        await copier.copy_all(file_of(f"f{number}", b"x") for number in range(20))


async def test_who_cancels_does_not_wait_until_a_large_file_is_compressed(world):
    class Large:
        begun = threading.Event()
        reads = 0

        def read(self, size):
            self.begun.set()
            self.reads += 1
            assert self.reads < 4000, "nobody has stopped it"
            return bytes(size)

    copier = world.copier()
    await copier.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copier.copy, SourceFile("large", 1 << 40, Large()))
        await trio.to_thread.run_sync(Large.begun.wait)
        nursery.cancel_scope.cancel()
    await copier.abort()
    assert world.stored_keys() == []


async def test_a_cancelled_copy_can_be_aborted(world):
    failing = FailingStore(world.store)
    copier = world.with_store(failing).copier()
    await copier.start()
    gate = failing.gate("put", nth=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copier.copy_all, (file_of(f"f{number}", b"x") for number in range(20)))
        await trio.to_thread.run_sync(gate.reached.wait)
        nursery.cancel_scope.cancel()
        gate.open()
    await copier.abort()
    assert world.stored_keys() == []
