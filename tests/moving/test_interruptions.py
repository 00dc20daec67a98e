"""What is cut, by a crash or by a store that is gone, is run again and ends the same."""

from __future__ import annotations

import gzip
import os

import pytest
import trio
from failing_store import FailingStore
from moving_world import (
    caller,
    entries,
    export_file,
    fill,
    fsck,
    import_file,
    keys,
    referenced,
    writing,
)

from cozyfs import instances
from cozyfs.errors import ArchiveError, InstanceError, ObjectNotFound, StoreUnavailable
from cozyfs.moving import archive, exports, targets
from cozyfs.moving.exporting import export, to_bucket
from cozyfs.state import InstanceState


class Killed(Exception):
    """The process ends here."""


def kill(store, name, nth):
    """From the *nth* call of *name* on, nothing reaches the store any more."""
    failing = FailingStore(store)
    failing.fail(name, nth=nth, times=float("inf"), error=Killed())
    return failing


@pytest.fixture
def local(local_store):
    return local_store


@pytest.fixture
def small_pieces(monkeypatch):
    """A few KiB are many members and parts."""
    monkeypatch.setattr(archive, "MEMBER", 4096)
    monkeypatch.setattr(archive, "FETCH", 1024)
    monkeypatch.setattr(targets, "part_size_at", lambda _: 600)
    monkeypatch.setattr(targets, "SYNC_EVERY", 600)
    monkeypatch.setattr("cozyfs.store.local.MIN_PART_SIZE", 16)


async def export_to_bucket(store, instance, folder, prefix, **options):
    state = InstanceState.open(folder / "state", instance.bucket, instance.db_prefix)
    return await export(instance, store, caller(), state.directory, to_bucket(prefix), **options)


def fetched(store, prefix, instance, made, path):
    found = exports.find(store, prefix, instance.domain, made.id)
    with open(path, "wb") as file:
        exports.fetch(store, found, file, lambda *_: None)
    return path


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("nth", [1, 2, 3, 5])
async def test_an_export_that_was_cut_goes_on_after_its_last_part(
    local_store, prefix, alice_here, tmp_path, nth
):
    whole = tmp_path / "whole.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", whole)
        failing = kill(local_store, "upload_part", nth)
        with pytest.raises(Killed):
            await export_to_bucket(failing, alice_here, tmp_path / "a", prefix)
        # The instance goes on living; the export is of the moment when it began.
        await fill(local_store, alice_here, tmp_path / "a", one_more)
        watched = FailingStore(local_store)
        made = await export_to_bucket(watched, alice_here, tmp_path / "a", prefix)

    assert made.resumed == (nth > 1)
    path = fetched(local_store, prefix, alice_here, made, tmp_path / "made.tgz")
    assert entries(path) == entries(whole)
    assert [each.id for each in exports.exports_of(local_store, prefix, "alice.example.com")] == [
        made.id
    ]
    assert list(local_store.list_multipart(f"{prefix}-exports", "")) == []
    assert not list((tmp_path / "a").rglob("tree.db"))


def one_more(filler):
    filler.file(1, b"new", b"came later")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("applied", [False, True])
async def test_an_export_whose_last_step_failed_is_completed(
    local_store, prefix, alice_here, tmp_path, applied
):
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        failing = FailingStore(local_store)
        failing.fail("complete_multipart", error=Killed(), applied=applied)
        with pytest.raises(Killed):
            await export_to_bucket(failing, alice_here, tmp_path / "a", prefix)
        made = await export_to_bucket(local_store, alice_here, tmp_path / "a", prefix)

    path = fetched(local_store, prefix, alice_here, made, tmp_path / "made.tgz")
    assert len(entries(path)) > 10


@pytest.mark.usefixtures("small_pieces")
async def test_an_export_to_a_file_goes_on_too_and_the_file_appears_whole(
    local_store, alice_here, tmp_path
):
    whole, path = tmp_path / "whole.tgz", tmp_path / "cut.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", whole)
        gets = FailingStore(local_store)
        await export_file(gets, alice_here, tmp_path / "a", tmp_path / "counted.tgz")
        failing = kill(local_store, "get", gets.calls["get"] - 3)
        with pytest.raises(Killed):
            await export_file(failing, alice_here, tmp_path / "a", path)
        assert not path.exists()
        made = await export_file(local_store, alice_here, tmp_path / "a", path)

    assert made.resumed
    assert entries(path) == entries(whole)
    assert sorted(os.listdir(tmp_path)) == ["a", "counted.tgz", "cut.tgz", "store", "whole.tgz"]


@pytest.mark.usefixtures("small_pieces")
async def test_restart_begins_anew_and_leaves_nothing_of_the_old(
    local_store, prefix, alice_here, tmp_path
):
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        with pytest.raises(Killed):
            await export_to_bucket(
                kill(local_store, "upload_part", 3), alice_here, tmp_path / "a", prefix
            )
        await fill(local_store, alice_here, tmp_path / "a", one_more)
        made = await export_to_bucket(
            local_store, alice_here, tmp_path / "a", prefix, restart=True
        )

    assert not made.resumed
    path = fetched(local_store, prefix, alice_here, made, tmp_path / "made.tgz")
    assert "Files/new" in dict(entries(path))
    assert list(local_store.list_multipart(f"{prefix}-exports", "")) == []


@pytest.mark.usefixtures("small_pieces")
async def test_an_export_whose_parts_are_lost_begins_anew(
    local_store, prefix, alice_here, tmp_path
):
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        failing = kill(local_store, "upload_part", 3)
        with pytest.raises(Killed):
            await export_to_bucket(failing, alice_here, tmp_path / "a", prefix)
        FailingStore(local_store).lose_uploads(f"{prefix}-exports")
        made = await export_to_bucket(local_store, alice_here, tmp_path / "a", prefix)

    assert not made.resumed
    path = fetched(local_store, prefix, alice_here, made, tmp_path / "made.tgz")
    assert len(entries(path)) > 10


@pytest.mark.usefixtures("small_pieces")
async def test_an_export_to_a_file_that_somebody_removed_begins_anew(
    local_store, alice_here, tmp_path
):
    path = tmp_path / "cut.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        watched = FailingStore(local_store)
        await export_file(watched, alice_here, tmp_path / "a", tmp_path / "counted.tgz")
        failing = kill(local_store, "get", watched.calls["get"] - 3)
        with pytest.raises(Killed):
            await export_file(failing, alice_here, tmp_path / "a", path)
        (part,) = tmp_path.glob(".cut.tgz*")
        part.unlink()
        made = await export_file(local_store, alice_here, tmp_path / "a", path)

    assert not made.resumed
    assert entries(path) == entries(tmp_path / "counted.tgz")


async def test_an_export_of_what_was_mended_since_is_of_the_mended_tree(
    local_store, alice_here, tmp_path
):
    path = tmp_path / "x.tgz"

    def lose(filler):
        filler.everything()
        inode = filler.index.get(filler.file(1, b"lost", b"content"))
        local_store.delete(alice_here.bucket, filler.objects.key(inode.doc_id, inode.internal_id))

    def mend(filler):
        filler.index.unlink(1, b"lost", filler.tick(), keep=False)

    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a", lose)
        with pytest.raises(ObjectNotFound, match="content of /lost is not in the store"):
            await export_file(local_store, alice_here, tmp_path / "a", path)
        await fill(local_store, alice_here, tmp_path / "a", mend)
        await export_file(local_store, alice_here, tmp_path / "a", path)

    assert not any("lost" in name for name, _ in entries(path))


async def test_an_export_of_a_content_that_is_gone_says_which(local_store, alice_here, tmp_path):
    def lose(filler):
        ino = filler.file(1, b"lost", b"content")
        inode = filler.index.get(ino)
        key = filler.objects.key(inode.doc_id, inode.internal_id)
        local_store.delete(alice_here.bucket, key)

    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a", lose)
        with pytest.raises(Exception, match="content of /lost is not in the store"):
            await export_file(local_store, alice_here, tmp_path / "a", tmp_path / "x.tgz")


# ---- imports


def many(filler):
    """Enough for several batches."""
    filler.everything()
    folder = filler.directory(1, b"many")
    for number in range(20):
        filler.file(folder, f"{number:03}".encode(), os.urandom(100))


@pytest.mark.parametrize("same_machine", [True, False])
@pytest.mark.parametrize("call", ["put", "upload_part", "complete_multipart", "delete"])
async def test_an_import_killed_at_any_write_ends_the_same(
    local_store, other_store, prefix, alice_here, carol, tmp_path, monkeypatch, call, same_machine
):
    monkeypatch.setattr("cozyfs.moving.importing.BATCH_FILES", 4)
    monkeypatch.setattr("cozyfs.moving.sending.ONE_PUT", 64)
    monkeypatch.setattr("cozyfs.moving.sending.part_size_at", lambda _: 60)
    monkeypatch.setattr("cozyfs.store.local.MIN_PART_SIZE", 16)
    path = tmp_path / "a.tgz"
    with trio.fail_after(120):
        await fill(local_store, alice_here, tmp_path / "a", many)
        await export_file(local_store, alice_here, tmp_path / "a", path)
        nth, machine = 1, 0
        while True:  # each try gets a little further than the one before
            failing = kill(other_store, call, nth)
            try:
                await import_file(failing, carol, tmp_path / f"c{machine}", path, force_lease=True)
                break
            except (Killed, BaseExceptionGroup):
                pass
            except InstanceError:  # it was done; only the lease could not be given back
                break
            if nth > 8:  # before, there may be no tree yet
                assert await fsck(other_store, carol, tmp_path / f"c{machine}") == []
            nth += 7 if call == "put" else 3
            machine += not same_machine
        again = tmp_path / "again.tgz"
        await export_file(other_store, carol, tmp_path / f"c{machine}", again)
        async with writing(other_store, carol, tmp_path / f"c{machine}") as index:
            held, queued = referenced(other_store, carol, index)
        found = await fsck(other_store, carol, tmp_path / f"c{machine}")

    assert found == []
    assert entries(again) == entries(path)
    left = {key for key in keys(other_store, carol) if not key.startswith(("thumbs/", "avatar"))}
    assert held <= left <= held | queued


@pytest.mark.parametrize("call", ["put", "delete"])
async def test_an_import_into_s3_that_was_killed_ends_the_same(
    local_store, s3_store, prefix, alice_here, tmp_path, monkeypatch, call
):
    monkeypatch.setattr("cozyfs.moving.importing.BATCH_FILES", 8)
    dave = instances.create(s3_store, prefix, "dave.example.com")
    path, again = tmp_path / "a.tgz", tmp_path / "again.tgz"
    with trio.fail_after(120):
        await fill(local_store, alice_here, tmp_path / "a", many)
        await export_file(local_store, alice_here, tmp_path / "a", path)
        for nth in (1, 12, 25) if call == "put" else (1,):
            failing = kill(s3_store, call, nth)
            with pytest.raises((Killed, BaseExceptionGroup)):
                await import_file(failing, dave, tmp_path / "d", path, force_lease=True)
        await import_file(s3_store, dave, tmp_path / "d", path, force_lease=True)
        await export_file(s3_store, dave, tmp_path / "d", again)
        found = await fsck(s3_store, dave, tmp_path / "d")

    assert found == []
    assert entries(again) == entries(path)


async def test_an_import_goes_on_without_sending_again(
    local_store, other_store, alice_here, carol, tmp_path
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        with pytest.raises((Killed, BaseExceptionGroup)):
            # The note is deleted last.
            await import_file(kill(other_store, "delete", 1), carol, tmp_path / "c", path)
        report = await import_file(other_store, carol, tmp_path / "c", path)

    # But for the sparse one, which has no checksum, and two that have no content to be sent.
    assert report.skipped == report.files + report.versions - 3


async def test_a_store_that_is_away_ends_an_import_with_its_error(
    local_store, other_store, alice_here, carol, tmp_path
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        failing = FailingStore(other_store)
        for name in ("put",):
            failing.fail(name, nth=8, times=3000, error=StoreUnavailable("away"))
        with pytest.raises(StoreUnavailable):
            await import_file(failing, carol, tmp_path / "c", path)


async def test_another_archive_cannot_be_poured_over_a_cut_import(
    local_store, other_store, alice_here, carol, tmp_path
):
    first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", first)
        await export_file(local_store, alice_here, tmp_path / "a", second)
        with pytest.raises((Killed, BaseExceptionGroup)):
            await import_file(kill(other_store, "delete", 1), carol, tmp_path / "c", first)
        with pytest.raises(InstanceError, match="whose import was cut"):
            await import_file(other_store, carol, tmp_path / "c", second)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
async def test_an_archive_that_ends_too_early_is_told_and_the_whole_one_completes_it(
    local_store, other_store, alice_here, carol, tmp_path, share
):
    path, cut, again = (tmp_path / name for name in ("a.tgz", "cut.tgz", "again.tgz"))
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        data = path.read_bytes()
        cut.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ArchiveError, match="damaged or cut short"):
            await import_file(other_store, carol, tmp_path / "c", cut)
        await import_file(other_store, carol, tmp_path / "c", path)
        await export_file(other_store, carol, tmp_path / "c", again)

    assert entries(again) == entries(path)


@pytest.mark.usefixtures("small_pieces")
async def test_an_archive_cut_between_two_members_is_not_taken_for_whole(
    local_store, other_store, alice_here, carol, tmp_path
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        data = path.read_bytes()
        while b"end.json" in gzip.decompress(data):
            data = data[: data.rindex(b"\x1f\x8b\x08")]
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match="damaged or cut short"):
            await import_file(other_store, carol, tmp_path / "c", path)


@pytest.fixture
def alice_here(local_store, prefix):
    return instances.create(local_store, prefix, "alice.example.com")
