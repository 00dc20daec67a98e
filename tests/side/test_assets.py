"""Dynamic assets over both stores: what is added is got, listed and removed, by clean names."""

from __future__ import annotations

import contextlib
import hashlib
import threading

import brotli
import pytest
from failing_store import FailingStore

from cozyfs.errors import NotStored, StoreUnavailable, TooLarge, UsageError, WrongContent
from cozyfs.side.assets import Assets
from cozyfs.store import FileBody

CONTEXT = "my-context"
DATA = b"body { color: red }"
SHASUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def assets(store, prefix):
    return Assets(store, prefix)


@pytest.fixture
def failing(local_store):
    return FailingStore(local_store)


def names(assets, *args):
    return [(asset.context, asset.name) for asset in assets.list(*args)]


# ---- scenarios 50 to 52 of the Cozy server


def test_an_asset_that_was_added_with_its_sum_is_custom_and_has_its_content(assets):
    added = assets.add(CONTEXT, "/theme.css", DATA, url="file:///theme.css", shasum=SHASUM)
    found = assets.get(CONTEXT, "/theme.css")

    assert (added.is_custom, added.shasum, added.url) == (True, SHASUM, "file:///theme.css")
    assert (found.is_custom, found.shasum, found.data) == (True, SHASUM, DATA)


def test_the_list_grows_by_one_and_shrinks_again(assets):
    assets.add(CONTEXT, "/first.css", DATA)
    before = names(assets)

    assets.add(CONTEXT, "/theme.css", DATA)
    assert names(assets) == [*before, (CONTEXT, "/theme.css")]

    assets.remove(CONTEXT, "/theme.css")
    assert names(assets) == before


def test_a_name_may_have_folders_and_a_slash_in_front_or_not(assets):
    assets.add(CONTEXT, "my-context/asset", DATA)

    assert assets.get(CONTEXT, "/my-context/asset").name == "/my-context/asset"
    assert assets.get(CONTEXT, "my-context/asset").data == DATA
    assets.remove(CONTEXT, "my-context/asset")
    with pytest.raises(NotStored):
        assets.get(CONTEXT, "/my-context/asset")


def test_two_contexts_with_three_assets_are_listed(assets):
    for context, name in (("bar", "/foo.js"), ("foo", "foo.js"), ("foo", "/bar.js")):
        assets.add(context, name, DATA)

    assert names(assets) == [("bar", "/foo.js"), ("foo", "/bar.js"), ("foo", "/foo.js")]
    assert names(assets, "foo") == [("foo", "/bar.js"), ("foo", "/foo.js")]


def test_the_status_is_the_time_of_an_answer(assets):
    assert assets.status() >= 0


def test_the_status_of_a_store_that_is_down_is_an_error(failing, prefix):
    failing.fail_always("check")

    with pytest.raises(StoreUnavailable):
        Assets(failing, prefix).status()


# ---- what is stored


def test_it_is_the_object_that_a_cozy_server_reads(assets, store, prefix):
    assets.add(CONTEXT, "/../images//logo.svg", DATA)

    (info,) = store.list(f"{prefix}-assets")
    info = store.head(f"{prefix}-assets", info.key)

    assert info.key == "my-context/images/logo.svg"
    assert (info.content_type, dict(info.metadata)) == ("application/octet-stream", {})
    assert store.get(f"{prefix}-assets", info.key) == DATA


def test_objects_that_are_no_assets_are_not_listed(assets, store, prefix):
    assets.add(CONTEXT, "/theme.css", DATA)
    store.put(f"{prefix}-assets", "stray", b"")

    assert names(assets) == [(CONTEXT, "/theme.css")]


def test_an_asset_tells_its_type_its_etag_and_a_name_to_keep_for_ever(assets):
    added = assets.add(CONTEXT, "/a/theme.min.css", DATA)

    assert added.mime == "text/css"
    assert added.etag == f'"{SHASUM[:10]}"'
    assert added.name_with_sum == f"/a/theme.{SHASUM[:10]}.min.css"
    assert brotli.decompress(added.compressed()) == DATA


# ---- nothing there, and a store without the bucket


def test_an_asset_that_is_not_there_is_named(assets):
    with pytest.raises(NotStored) as caught:
        assets.get(CONTEXT, "nothing.css")

    assert str(caught.value) == "there is no asset /nothing.css in the context my-context"


def test_a_store_without_the_bucket_has_no_assets(assets):
    assert names(assets) == []
    assets.remove(CONTEXT, "/theme.css")


def test_an_asset_comes_from_the_context_else_from_the_default(assets):
    assets.add("default", "/logo.svg", b"of all")
    assets.add("acme", "/theme.css", b"of acme")
    assets.add("default", "/theme.css", b"of all")

    assert assets.find("acme", "/theme.css").data == b"of acme"
    assert assets.find("acme", "/logo.svg").data == b"of all"
    assert assets.find("", "/theme.css").data == b"of all"
    with pytest.raises(NotStored):
        assets.find("acme", "/other")


# ---- what is refused


def test_another_sum_than_the_given_one_is_refused_and_nothing_stored(assets):
    with pytest.raises(WrongContent) as caught:
        assets.add(CONTEXT, "/theme.css", DATA, shasum="0" * 64)

    assert str(caught.value) == f"the SHA-256 of /theme.css is {SHASUM}, not {'0' * 64}"
    assert names(assets) == []


def test_a_sum_in_capitals_is_the_same_sum(assets):
    assert assets.add(CONTEXT, "/theme.css", DATA, shasum=SHASUM.upper()).shasum == SHASUM


def test_a_sum_that_is_none_is_bad_input(assets):
    with pytest.raises(UsageError):
        assets.add(CONTEXT, "/theme.css", DATA, shasum="abc")


def test_no_sum_is_accepted_with_a_warning(assets, caplog):
    assets.add(CONTEXT, "/theme.css", DATA)

    assert "without a checksum" in caplog.text


@pytest.mark.parametrize("context", ["", "a/b", "..", ".", "a\nb"])
@pytest.mark.parametrize("call", ["add", "get", "remove", "list"])
def test_a_context_that_cannot_be_is_bad_input(local_store, prefix, call, context):
    assets = Assets(local_store, prefix)
    arguments = {"add": (context, "/a", DATA), "list": (context,)}.get(call, (context, "/a"))

    with pytest.raises(UsageError):
        list(getattr(assets, call)(*arguments) or ())


def test_another_context_cannot_be_reached_through_a_name(assets):
    assets.add("secret", "/theme.css", DATA)

    with pytest.raises(NotStored):
        assets.get(CONTEXT, "../secret/theme.css")
    assets.remove(CONTEXT, "/../../secret/theme.css")

    assert names(assets) == [("secret", "/theme.css")]


def test_an_object_of_more_than_50_mib_is_not_read(local_store, prefix, tmp_path):
    (tmp_path / "big").touch()
    with (tmp_path / "big").open("wb") as file:
        file.truncate((50 << 20) + 1)
    local_store.ensure_bucket(f"{prefix}-assets")
    local_store.put(f"{prefix}-assets", "my-context/big", FileBody(tmp_path / "big"))

    with pytest.raises(TooLarge):
        Assets(local_store, prefix).get(CONTEXT, "/big")


# ---- the cache


def test_an_asset_is_read_once(failing, prefix):
    assets = Assets(failing, prefix)
    assets.add(CONTEXT, "/theme.css", DATA)

    assert [assets.get(CONTEXT, name).data for name in ("/theme.css", "theme.css")] == [DATA] * 2
    assert failing.calls["get"] == 1


def test_adding_and_removing_count_at_once(assets):
    assets.add(CONTEXT, "/theme.css", DATA)
    assert assets.get(CONTEXT, "/theme.css").data == DATA

    assets.add(CONTEXT, "theme.css", b"new")
    assert assets.get(CONTEXT, "/theme.css").data == b"new"

    assets.remove(CONTEXT, "theme.css")
    with pytest.raises(NotStored):
        assets.get(CONTEXT, "/theme.css")


def test_what_was_not_there_is_looked_for_again(local_store, prefix):
    assets = Assets(local_store, prefix)
    with pytest.raises(NotStored):
        assets.get(CONTEXT, "/theme.css")

    Assets(local_store, prefix).add(CONTEXT, "/theme.css", DATA)  # another process

    assert assets.get(CONTEXT, "/theme.css").data == DATA


def test_what_was_read_before_a_change_is_not_kept_after_it(failing, prefix):
    """A reader that is slower than one who replaces the asset."""
    assets = Assets(failing, prefix)
    assets.add(CONTEXT, "/theme.css", b"old")
    gate = failing.gate("get")
    reader = threading.Thread(target=lambda: _quietly(assets.get, CONTEXT, "/theme.css"))
    reader.start()
    assert gate.reached.wait(10)

    assets.add(CONTEXT, "/theme.css", b"new")
    gate.open()
    reader.join(10)

    assert assets.get(CONTEXT, "/theme.css").data == b"new"


def _quietly(call, *args):
    with contextlib.suppress(StoreUnavailable):  # it may find out that it was overtaken
        call(*args)


def test_a_put_whose_answer_was_lost_does_not_leave_the_old_asset_in_the_cache(failing, prefix):
    assets = Assets(failing, prefix)
    assets.add(CONTEXT, "/theme.css", b"old")
    assets.get(CONTEXT, "/theme.css")
    failing.fail("put", applied=True)

    with pytest.raises(StoreUnavailable):
        assets.add(CONTEXT, "/theme.css", b"new")

    assert assets.get(CONTEXT, "/theme.css").data == b"new"


def test_the_cache_has_a_bound(failing, prefix, monkeypatch):
    monkeypatch.setattr("cozyfs.side.assets.CACHE_SIZE", 10_000)
    assets = Assets(failing, prefix)
    for name in ("a", "b", "c"):
        assets.add(CONTEXT, name, b"x" * 4_000)
    assets.add(CONTEXT, "huge", b"x" * 20_000)

    for name in ("a", "b", "c", "a", "huge", "huge"):
        assets.get(CONTEXT, name)

    assert failing.calls["get"] == 6
