"""What moves with the tree: thumbnails, images of notes, apps, settings."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from failing_store import FailingStore
from moving_world import (
    caller,
    entries,
    export_file,
    fill,
    import_file,
    import_source,
    keys,
    rewritten,
)

from cozyfs import instances
from cozyfs.errors import QuotaExceeded
from cozyfs.moving import archive, side
from cozyfs.moving.apps import Apps
from cozyfs.moving.into import InstanceSource


@pytest.fixture
def alice_here(local_store, prefix):
    return instances.create(local_store, prefix, "alice.example.com")


def thumbs(store, instance, ending):
    (name,) = (key for key in keys(store, instance) if key.endswith(ending))
    return f"{instance.db_prefix}/{name}"


def objects_in(path):
    return [name for name, _ in entries(path) if name.startswith("Objects/")]


@pytest.fixture
def once_listed(monkeypatch):
    """Has something happen when thumbnails were listed, before they are read."""
    write_list = side.write_list

    def arrange(change):
        async def write(*args):
            await write_list(*args)
            change()

        monkeypatch.setattr(side, "write_list", write)

    return arrange


@pytest.mark.parametrize("size", [0, 1, 5000])
async def test_a_thumbnail_that_is_replaced_during_an_export_is_left_out(
    local_store, alice_here, tmp_path, once_listed, size
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        key = thumbs(local_store, alice_here, "-large")
        once_listed(lambda: local_store.put(alice_here.bucket, key, b"x" * size))
        await export_file(local_store, alice_here, tmp_path / "a", path)

    left = {name.rpartition("-")[2] for name in objects_in(path)}
    assert left == {"Objects/avatar", "original", "small", "tiny"}


async def test_a_thumbnail_that_goes_during_an_export_or_a_copy_is_left_out(
    store, alice, bob, tmp_path, once_listed
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a")
        tiny, large = (thumbs(store, alice, form) for form in ("-tiny", "-large"))
        once_listed(lambda: store.delete(alice.bucket, tiny))
        await export_file(store, alice, tmp_path / "a", path)
        once_listed(lambda: store.delete(alice.bucket, large))
        source = InstanceSource(alice, store, caller(), tmp_path)
        report = await import_source(store, bob, tmp_path / "b", source)

    assert not any(name.endswith("-tiny") for name in objects_in(path))
    assert report.problems == []
    copied = {key.rpartition("-")[2] for key in keys(store, bob) if key.startswith("thumbs/")}
    assert copied == {"small", "original"}


class Killed(Exception):
    pass


@pytest.mark.parametrize("cut_at", range(1, 7))
async def test_an_export_cut_among_thumbnails_goes_on_without_those_that_went(
    local_store, alice_here, tmp_path, monkeypatch, cut_at
):
    """Wherever it was cut: the archive is whole, and says no more than it has."""
    monkeypatch.setattr(archive, "MEMBER", 512)
    monkeypatch.setattr("cozyfs.moving.targets.SYNC_EVERY", 1)
    monkeypatch.setattr(side, "AHEAD", 1)
    path, again = tmp_path / "a.tgz", tmp_path / "again.tgz"

    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a", few)
        watched = FailingStore(local_store)
        await export_file(watched, alice_here, tmp_path / "a", again)
        failing = FailingStore(local_store)
        number = watched.calls["get"] - 6 + cut_at
        failing.fail("get", nth=number, times=float("inf"), error=Killed())
        try:
            await export_file(failing, alice_here, tmp_path / "a", path)
        except Killed:
            for form in ("-tiny", "-large"):
                local_store.delete(alice_here.bucket, thumbs(local_store, alice_here, form))
            await export_file(local_store, alice_here, tmp_path / "a", path)

    found = dict(entries(path))
    whole = dict(entries(again))
    assert "end.json" in found
    assert all(whole[name] == data for name, data in found.items())
    listed = {name for name in found if name.startswith("cozyfs.objects/")}
    assert len(listed) == len(objects_in(path))


def few(filler):
    filler.side(filler.file(1, b"photo.jpg", b"a photo"))


async def test_thumbnails_that_wait_for_their_deletion_stay_behind(
    local_store, other_store, alice_here, carol, tmp_path
):
    def orphan(filler):
        few(filler)
        key = f"{alice_here.db_prefix}/thumbs/0198a1b2-0000-7000-8000-00000000dead-tiny"
        local_store.put(alice_here.bucket, key, b"of a removed file")

    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a", orphan)
        await export_file(local_store, alice_here, tmp_path / "a", path)
    assert not any("dead" in name for name in objects_in(path))
    assert len(objects_in(path)) == 5


async def test_apps_move_and_those_without_files_in_the_store_are_known(
    local_store, other_store, prefix, alice_here, carol, tmp_path
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        await import_file(other_store, carol, tmp_path / "c", path)
        apps = Apps(other_store, caller(), carol)
        assert await apps.documents() == await Apps(local_store, caller(), alice_here).documents()
        ((kind, app),) = await apps.missing(prefix)
        assert (kind.name, app.slug, app.source) == ("apps", "drive", "registry://drive")
        other_store.ensure_bucket(f"{prefix}-apps-web")
        other_store.put(f"{prefix}-apps-web", "drive/1.2.3.cozy-installed", b"")
        assert await apps.missing(prefix) == []


@pytest.mark.parametrize("doc_id", ["io.cozy.apps/../x", "io.cozy.apps/", "io.cozy.else/a"])
async def test_what_is_no_app_stays_out(
    local_store, other_store, alice_here, carol, tmp_path, doc_id
):
    path, changed = tmp_path / "a.tgz", tmp_path / "changed.tgz"

    def change(found):
        return [
            (name, data.replace(b"io.cozy.apps/drive", doc_id.encode()))
            if name.startswith("io.cozy.apps/")
            else (name, data)
            for name, data in found
        ]

    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        rewritten(path, changed, change)
        report = await import_file(other_store, carol, tmp_path / "c", changed)
        assert await Apps(other_store, caller(), carol).documents() == []
    assert len(report.problems) == 1


async def test_settings_of_versions_and_trash_move_where_the_target_has_none(
    local_store, other_store, prefix, alice_here, tmp_path
):
    alice = instances.modify(
        local_store, alice_here, max_versions=100, version_delay_s=0.5, trash_age_s=0
    )
    carol = instances.create(other_store, prefix, "carol.example.com", trash_age_s=60)
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, alice, tmp_path / "a")
        await export_file(local_store, alice, tmp_path / "a", path)
        await import_file(other_store, carol, tmp_path / "c", path)

    wanted = dataclasses.replace(carol, max_versions=100, version_delay_s=0.5)
    assert instances.reread(other_store, carol) == wanted


async def test_an_archive_that_holds_more_than_it_says_does_not_pass_the_quota(
    local_store, other_store, prefix, alice_here, tmp_path
):
    path, changed = tmp_path / "a.tgz", tmp_path / "changed.tgz"
    small = instances.create(other_store, prefix, "small.example.com", quota=1000)

    def lie(found):
        return [
            (name, b'{"format":1,"id":"x","totals":{"bytes":1}}')
            if name == "instance.json"
            else (name, data)
            for name, data in found
        ]

    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a")
        await export_file(local_store, alice_here, tmp_path / "a", path)
        rewritten(path, changed, lie)
        with pytest.raises(QuotaExceeded, match="of the quota of 1000"):
            await import_file(other_store, small, tmp_path / "c", changed)
    found = other_store.list(small.bucket, f"{small.db_prefix}/")
    assert sum(info.size for info in found if ".cozyfs" not in info.key) <= 1000


async def test_an_instance_that_fills_its_quota_moves_into_one_as_large(
    local_store, other_store, prefix, alice_here, tmp_path
):
    path = tmp_path / "a.tgz"

    def fill_up(filler):
        ino = filler.file(1, b"a", b"x" * 600)
        filler.write(ino, b"y" * 400, keep=True)

    exact = instances.create(other_store, prefix, "exact.example.com", quota=1000)
    with trio.fail_after(60):
        await fill(local_store, alice_here, tmp_path / "a", fill_up)
        await export_file(local_store, alice_here, tmp_path / "a", path)
        report = await import_file(other_store, exact, tmp_path / "c", path)
    assert (report.files, report.versions, report.problems) == (1, 1, [])
