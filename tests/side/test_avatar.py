"""The avatar of an instance, as a Cozy server keeps it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from failing_store import FailingStore

from cozyfs.errors import NotStored, StoreUnavailable, TooLarge, UsageError
from cozyfs.side import avatar
from cozyfs.store import FileBody

KEY = "cozy0d88385e5e731af27c0f1c0a312135b9/avatar"
WHEN = datetime(2026, 5, 13, 10, 20, 30, 999, tzinfo=timezone(timedelta(hours=2)))


def test_an_avatar_comes_back_with_its_type_its_date_and_a_quoted_etag(store, instance):
    avatar.put(store, instance, b"picture", "image/png", now=WHEN)

    found = avatar.get(store, instance)

    assert (found.data, found.content_type) == (b"picture", "image/png")
    assert found.etag == f'"{hashlib.md5(b"picture").hexdigest()}"'
    assert found.created_at == datetime(2026, 5, 13, 8, 20, 30, tzinfo=UTC)


def test_it_is_the_object_that_a_cozy_server_reads(store, instance):
    avatar.put(store, instance, b"picture", "image/png", now=WHEN)

    info = store.head(instance.bucket, KEY)

    assert info.content_type == "image/png"
    assert info.metadata == {"created-at": "2026-05-13T08:20:30Z"}


def test_a_second_avatar_replaces_the_first(store, instance):
    avatar.put(store, instance, b"one", "image/png")
    avatar.put(store, instance, b"second", "image/webp")

    found = avatar.get(store, instance)

    assert (found.data, found.content_type) == (b"second", "image/webp")


@pytest.mark.parametrize(
    "metadata", [{}, {"created-at": "yesterday"}, {"created-at": "2026-05-13T10:00:00"}]
)
def test_an_avatar_without_a_good_date_has_none(store, instance, metadata):
    store.put(instance.bucket, KEY, b"x", content_type="image/png", metadata=metadata)

    assert avatar.get(store, instance).created_at is None


def test_an_avatar_that_a_cozy_server_sent_in_one_part_is_read(store, instance):
    upload = store.create_multipart(instance.bucket, KEY, content_type="image/gif")
    etag = store.upload_part(instance.bucket, KEY, upload, 1, b"from a stream")
    store.complete_multipart(instance.bucket, KEY, upload, [(1, etag)])

    found = avatar.get(store, instance)

    assert (found.data, found.content_type) == (b"from a stream", "image/gif")


def test_an_instance_without_a_prefix_is_refused(store, instance):
    nobody = dataclasses.replace(instance, db_prefix="")

    for call in (avatar.get, avatar.delete):
        with pytest.raises(UsageError):
            call(store, nobody)
    with pytest.raises(UsageError):
        avatar.put(store, nobody, b"picture", "image/png")


def test_a_type_that_is_not_told_is_any(store, instance):
    avatar.put(store, instance, b"picture", "")

    assert avatar.get(store, instance).content_type == "application/octet-stream"


def test_there_may_be_none(store, instance):
    with pytest.raises(NotStored) as caught:
        avatar.get(store, instance)

    assert str(caught.value) == "there is no avatar of alice.example.com"


def test_a_removed_avatar_is_gone_and_may_be_removed_again(store, instance):
    avatar.put(store, instance, b"picture", "image/png")

    avatar.delete(store, instance)
    avatar.delete(store, instance)

    with pytest.raises(NotStored):
        avatar.get(store, instance)


def test_twenty_million_bytes_are_taken_and_one_more_is_not(store, instance, tmp_path):
    path = tmp_path / "picture"
    path.touch()
    os.truncate(path, 20_000_000)
    avatar.put(store, instance, FileBody(path), "image/bmp")
    os.truncate(path, 20_000_001)

    with pytest.raises(TooLarge) as caught:
        avatar.put(store, instance, FileBody(path), "image/bmp")

    assert str(caught.value) == "an avatar can have at most 20000000 bytes, not 20000001"
    assert len(avatar.get(store, instance).data) == 20_000_000


def test_an_avatar_that_is_larger_than_any_is_not_read(store, instance, tmp_path):
    path = tmp_path / "picture"
    path.touch()
    os.truncate(path, 20_000_001)
    store.put(instance.bucket, KEY, FileBody(path))

    with pytest.raises(TooLarge):
        avatar.get(store, instance)


def test_a_picture_that_is_replaced_while_read_is_never_mixed(local_store, instance_on_local):
    alice = instance_on_local
    avatar.put(local_store, alice, b"old picture", "image/png")
    store = FailingStore(local_store)
    store.before("get", lambda: avatar.put(local_store, alice, b"new picture", "image/gif"))

    with pytest.raises(StoreUnavailable):
        avatar.get(store, alice)

    assert avatar.get(store, alice).data == b"new picture"


def test_an_etag_that_is_no_md5_does_not_make_a_picture_unreadable(local_store, instance_on_local):
    """As that of an object which the server encrypts with a key of its own."""
    alice = instance_on_local
    avatar.put(local_store, alice, b"picture", "image/png")
    store = OtherEtag(local_store)

    assert avatar.get(store, alice).data == b"picture"


class OtherEtag:
    def __init__(self, inner):
        self.inner = inner
        self.get = inner.get

    def head(self, bucket, key):
        return dataclasses.replace(self.inner.head(bucket, key), etag="0" * 32)
