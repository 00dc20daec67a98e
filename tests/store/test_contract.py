"""The contract of cozyfs.store.base, the same for every store.

What a server is known not to do is named in tests/servers.py (``Server.lacks``); the tests then
ask for the answer that the contract gives for it, never for none.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from cozyfs.config import parse_fs_url
from cozyfs.errors import (
    BucketNotFound,
    ChecksumMismatch,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
)
from cozyfs.store import (
    MIN_PART_SIZE,
    BytesBody,
    FileBody,
    PiecesBody,
    Store,
    composite_etag,
    open_store,
)


class Under(NamedTuple):
    """A store under test, an empty bucket of it, and what its server lacks."""

    store: Store
    bucket: str
    lacks: frozenset[str]


@pytest.fixture(
    params=[
        "local",
        "s3",
        pytest.param("juicefs", marks=pytest.mark.compat),
        pytest.param("rclone", marks=pytest.mark.compat),
    ]
)
def under(request):
    if request.param == "local":
        store, lacks = request.getfixturevalue("local_store"), frozenset()
    else:
        if request.param == "s3":
            server = request.getfixturevalue("s3_server")
        else:
            server = request.getfixturevalue("compat_servers")(request.param)
        store, lacks = open_store(parse_fs_url(server.url())), server.lacks
    bucket = f"test-{secrets.token_hex(6)}"
    store.ensure_bucket(bucket)
    yield Under(store, bucket, lacks)
    store.close()


def md5(data):
    return hashlib.md5(data).digest()


def start_upload(under, key="upload", **kwargs):
    return under.store.create_multipart(
        under.bucket, key, content_type="application/octet-stream", **kwargs
    )


def keys(under, *args, **kwargs):
    found = under.store.list(under.bucket, *args, **kwargs)
    if "folder_free_listing" in under.lacks:
        return [info.key for info in found if not info.key.endswith("/")]
    return [info.key for info in found]


# ---- buckets


def test_check_passes_on_a_store_that_answers(under):
    under.store.check()


def test_ensuring_a_bucket_twice_is_fine(under):
    under.store.ensure_bucket(under.bucket)
    under.store.ensure_bucket(under.bucket)


def test_a_new_bucket_is_listed(under):
    assert under.bucket in under.store.list_buckets()


def test_several_threads_may_ensure_the_same_bucket(under):
    bucket, failures = f"race-{secrets.token_hex(6)}", []

    def ensure():
        try:
            under.store.ensure_bucket(bucket)
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


# ---- one object


def test_an_object_is_read_back_as_it_was_written(under):
    data = os.urandom(10_000)

    etag = under.store.put(under.bucket, "dir/object", data)

    assert etag == md5(data).hex()
    assert under.store.get(under.bucket, "dir/object") == data


def test_an_empty_object_is_an_object(under):
    under.store.put(under.bucket, "empty", b"")

    assert under.store.get(under.bucket, "empty") == b""
    assert under.store.head(under.bucket, "empty").size == 0


def test_head_tells_size_type_time_and_metadata(under):
    under.store.put(
        under.bucket,
        "photo",
        b"12345",
        content_type="image/jpeg",
        metadata={"file-md5": "0a1b", "mode": "493"},
    )

    info = under.store.head(under.bucket, "photo")

    assert (info.key, info.size, info.content_type) == ("photo", 5, "image/jpeg")
    assert info.metadata.items() >= {"file-md5": "0a1b", "mode": "493"}.items()
    assert info.etag == md5(b"12345").hex()
    assert abs(info.last_modified - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "text", ["chaîne ⚡️", " padded  twice ", "=?UTF-8?B?eA==?=", "a=b;c, d%20"]
)
def test_metadata_may_be_any_text(under, text):
    under.store.put(under.bucket, "object", b"", metadata={"name": text})

    assert under.store.head(under.bucket, "object").metadata["name"] == text


@pytest.mark.parametrize("name", ["", "With-Capitals", "with space", "with\nnewline"])
def test_a_metadata_name_that_would_not_come_back_is_refused(under, name):
    with pytest.raises(StoreError):
        under.store.put(under.bucket, "object", b"", metadata={name: "x"})


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (4, 7, b"456"),
        (4, None, b"456789"),
        (4, 99, b"456789"),
        (9, 10, b"9"),
        (10, 20, b""),
        (11, None, b""),
        (5, 5, b""),
    ],
)
def test_a_range_is_half_open_and_ends_with_the_object(under, start, stop, expected):
    under.store.put(under.bucket, "digits", b"0123456789")

    assert under.store.get(under.bucket, "digits", start, stop) == expected


def test_a_missing_object_is_not_found(under):
    for call in (under.store.get, under.store.head):
        with pytest.raises(ObjectNotFound):
            call(under.bucket, "missing/object")


def test_reading_from_a_missing_bucket_finds_no_object(under):
    for call in (under.store.get, under.store.head):
        with pytest.raises(ObjectNotFound):
            call("no-such-bucket-at-all", "object")


def test_writing_to_a_missing_bucket_is_refused(under):
    with pytest.raises(BucketNotFound):
        under.store.put("no-such-bucket-at-all", "object", b"x")


def test_a_later_put_replaces_content_type_and_metadata(under):
    under.store.put(under.bucket, "object", b"old", content_type="a/a", metadata={"x": "1"})
    under.store.put(under.bucket, "object", b"newer", content_type="b/b", metadata={"y": "2"})

    info = under.store.head(under.bucket, "object")

    assert under.store.get(under.bucket, "object") == b"newer"
    assert info.content_type == "b/b"
    assert "x" not in info.metadata


@pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
def test_a_body_is_sent_whole_from_memory_files_and_pieces(under, tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "staged").write_bytes(b"before" + data + b"after")
    half = size // 2
    bodies = [
        BytesBody(data),
        FileBody(tmp_path / "staged", 6, size),
        PiecesBody([data[:half], FileBody(tmp_path / "staged", 6 + half, size - half)]),
    ]

    for body in bodies:
        etag = under.store.put(under.bucket, "object", body, md5=md5(data))
        assert etag == md5(data).hex()
        assert under.store.get(under.bucket, "object") == data


def test_content_that_differs_from_its_md5_is_refused_and_the_old_object_stays(under):
    under.store.put(under.bucket, "object", b"old")

    with pytest.raises(ChecksumMismatch):
        under.store.put(under.bucket, "object", b"sent", md5=md5(b"meant"))

    # A server that does not compare is found out by its ETag, when it is too late.
    stays = b"sent" if "content_md5" in under.lacks else b"old"
    assert under.store.get(under.bucket, "object") == stays


def test_a_staged_file_that_became_shorter_is_not_sent(under, tmp_path):
    staged = tmp_path / "staged"
    staged.write_bytes(b"x" * 1_000_000)
    body = FileBody(staged)
    staged.write_bytes(b"x" * 400_000)

    with pytest.raises(StoreError):
        under.store.put(under.bucket, "object", body, md5=md5(b"x" * 1_000_000))

    with pytest.raises(ObjectNotFound):
        under.store.head(under.bucket, "object")


@pytest.mark.parametrize(
    "key",
    [
        "plain",
        "cozy0d88385e5e731af27c0f1c0a312135b9/abcdefghijklmnopqrstuv/wxyz0/12345/0123456789abcdef",
        "alice.example.com/.cozyfs/journal/0000000001-000000000002",
        "with space/and+plus/per%20cent",
        "quotes'\"<>&;=?#",
        "chaîne/⚡️",
        ".hidden/..twodots/...",
        "~tilde!$()*,:@[]{}|^`\\",
    ],
)
def test_a_key_is_taken_as_it_is(under, key):
    under.store.put(under.bucket, key, b"content")

    assert under.store.get(under.bucket, key) == b"content"
    assert keys(under) == [key]


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a/../b", "../outside", "a/./b", "a\0b", "k" * 1025]
)
def test_a_key_that_servers_would_resolve_or_refuse_is_refused_first(under, key):
    for call in (
        lambda: under.store.put(under.bucket, key, b""),
        lambda: under.store.get(under.bucket, key),
        lambda: under.store.delete(under.bucket, key),
    ):
        with pytest.raises(StoreError):
            call()


# ---- conditional puts


def test_if_absent_writes_only_where_nothing_is(under):
    if "conditions" in under.lacks:
        with pytest.raises(NotSupported):
            under.store.put(under.bucket, "lease", b"first", if_absent=True)
        return
    under.store.put(under.bucket, "lease", b"first", metadata={"by": "1"}, if_absent=True)

    with pytest.raises(PreconditionFailed):
        under.store.put(under.bucket, "lease", b"second", metadata={"by": "2"}, if_absent=True)

    assert under.store.get(under.bucket, "lease") == b"first"
    assert under.store.head(under.bucket, "lease").metadata["by"] == "1"


def test_if_match_replaces_only_the_object_it_names(under):
    if "conditions" in under.lacks:
        with pytest.raises(NotSupported):
            under.store.put(under.bucket, "lease", b"second", if_match="0" * 32)
        return
    first = under.store.put(under.bucket, "lease", b"first")
    second = under.store.put(under.bucket, "lease", b"second", if_match=first)

    with pytest.raises(PreconditionFailed):
        under.store.put(under.bucket, "lease", b"third", if_match=first)

    assert under.store.get(under.bucket, "lease") == b"second"
    assert under.store.head(under.bucket, "lease").etag == second


def test_if_match_on_a_missing_object_fails(under):
    refusal = NotSupported if "conditions" in under.lacks else PreconditionFailed
    with pytest.raises(refusal):
        under.store.put(under.bucket, "lease", b"x", if_match="0" * 32)


def test_of_many_creators_at_once_one_wins(under):
    outcomes = []

    def create(number):
        try:
            under.store.put(under.bucket, "lease", b"%d" % number, if_absent=True)
            outcomes.append(number)
        except (PreconditionFailed, NotSupported):
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    if "conditions" in under.lacks:
        assert outcomes == []
    else:
        [winner] = outcomes
        assert under.store.get(under.bucket, "lease") == b"%d" % winner


def test_nothing_is_left_of_finding_out_about_conditions(under):
    try:
        under.store.put(under.bucket, "lease", b"", if_absent=True)
    except NotSupported:
        under.store.put(under.bucket, "lease", b"")

    assert keys(under) == ["lease"]


# ---- multipart uploads


def test_parts_become_one_object(under):
    parts = [os.urandom(MIN_PART_SIZE), os.urandom(MIN_PART_SIZE), b"tail"]
    upload_id = under.store.create_multipart(
        under.bucket, "big", content_type="video/mp4", metadata={"name": "film"}
    )
    # In any order, as parallel uploads do.
    etags = {
        number: under.store.upload_part(under.bucket, "big", upload_id, number, parts[number - 1])
        for number in (2, 1, 3)
    }

    etag = under.store.complete_multipart(under.bucket, "big", upload_id, sorted(etags.items()))

    info = under.store.head(under.bucket, "big")
    assert etags[1] == md5(parts[0]).hex()
    assert etag == composite_etag([md5(part) for part in parts])
    assert info.etag == etag or "composite_etag" in under.lacks
    assert (info.size, info.content_type) == (2 * MIN_PART_SIZE + 4, "video/mp4")
    assert info.metadata["name"] == "film"
    assert under.store.get(under.bucket, "big") == b"".join(parts)


def test_nothing_is_seen_of_an_upload_before_it_is_complete(under):
    upload_id = start_upload(under)
    under.store.upload_part(under.bucket, "upload", upload_id, 1, b"part")

    with pytest.raises(ObjectNotFound):
        under.store.head(under.bucket, "upload")


def test_a_part_sent_again_replaces_the_first_attempt(under):
    upload_id = start_upload(under)
    under.store.upload_part(under.bucket, "upload", upload_id, 1, b"first attempt")
    if "parts_again" in under.lacks:
        with pytest.raises(StoreError):
            under.store.upload_part(under.bucket, "upload", upload_id, 1, b"second")
        return
    etag = under.store.upload_part(under.bucket, "upload", upload_id, 1, b"second")

    under.store.complete_multipart(under.bucket, "upload", upload_id, [(1, etag)])

    assert under.store.get(under.bucket, "upload") == b"second"


def test_completing_again_gives_the_same_answer(under):
    upload_id = start_upload(under)
    parts = [(1, under.store.upload_part(under.bucket, "upload", upload_id, 1, b"part"))]
    under.store.complete_multipart(under.bucket, "upload", upload_id, parts)

    etag = under.store.complete_multipart(under.bucket, "upload", upload_id, parts)

    assert etag == under.store.head(under.bucket, "upload").etag


def test_completing_an_unknown_upload_is_an_error(under):
    upload_id = start_upload(under)
    parts = [(1, under.store.upload_part(under.bucket, "upload", upload_id, 1, b"part"))]
    under.store.abort_multipart(under.bucket, "upload", upload_id)

    with pytest.raises(StoreError):
        under.store.complete_multipart(under.bucket, "upload", upload_id, parts)


def test_an_upload_can_be_aborted_twice(under):
    upload_id = start_upload(under)

    under.store.abort_multipart(under.bucket, "upload", upload_id)
    under.store.abort_multipart(under.bucket, "upload", upload_id)

    assert list(under.store.list_multipart(under.bucket, "")) == []


def test_unfinished_uploads_are_listed_by_prefix(under):
    ours = start_upload(under, "alice/file")
    start_upload(under, "bob/file")

    found = [
        (upload.key, upload.upload_id)
        for upload in under.store.list_multipart(under.bucket, "alice/")
    ]

    assert found == ([] if "list_multipart" in under.lacks else [("alice/file", ours)])


def test_unfinished_uploads_of_a_missing_bucket_are_none(under):
    assert list(under.store.list_multipart("no-such-bucket-at-all", "")) == []


@pytest.mark.parametrize("is_other", [False, True], ids=["same-bucket", "other-bucket"])
def test_a_range_of_another_object_becomes_a_part(under, is_other):
    source = os.urandom(MIN_PART_SIZE + 1000)
    bucket = f"other-{secrets.token_hex(6)}" if is_other else under.bucket
    under.store.ensure_bucket(bucket)
    under.store.put(bucket, "source", source)
    upload_id = start_upload(under)
    copy = (under.bucket, "upload", upload_id, 1, bucket, "source", 1000, 1000 + MIN_PART_SIZE)
    if "copy_part" in under.lacks:
        with pytest.raises(NotSupported):
            under.store.copy_part(*copy)
        return

    parts = [(1, under.store.copy_part(*copy))]
    parts.append((2, under.store.upload_part(under.bucket, "upload", upload_id, 2, b"tail")))
    under.store.complete_multipart(under.bucket, "upload", upload_id, parts)

    assert under.store.get(under.bucket, "upload") == source[1000:] + b"tail"


# ---- copies


def test_a_copy_has_the_content_type_and_metadata_of_its_source(under):
    other = f"other-{secrets.token_hex(6)}"
    under.store.ensure_bucket(other)
    under.store.put(
        under.bucket, "a b/é", b"content", content_type="text/plain", metadata={"x": "y"}
    )

    under.store.copy(under.bucket, "a b/é", other, "target")

    info = under.store.head(other, "target")
    assert under.store.get(other, "target") == b"content"
    assert info.content_type == "text/plain"
    assert info.metadata["x"] == "y"


def test_a_copy_of_a_missing_object_is_not_found(under):
    with pytest.raises(ObjectNotFound):
        under.store.copy(under.bucket, "missing", under.bucket, "target")


# ---- deleting


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(under):
    under.store.put(under.bucket, "dir/object", b"x")

    under.store.delete(under.bucket, "dir/object")
    under.store.delete(under.bucket, "dir/object")

    with pytest.raises(ObjectNotFound):
        under.store.head(under.bucket, "dir/object")


def test_three_objects_are_deleted_at_once_and_absent_ones_do_not_matter(under):
    for name in ("a", "b", "c", "stays"):
        under.store.put(under.bucket, f"dir/{name}", b"x")

    under.store.delete_many(under.bucket, ["dir/a", "dir/b", "dir/absent", "dir/c"])

    assert keys(under) == ["dir/stays"]


def test_deleting_no_objects_is_a_no_op(under):
    under.store.delete_many(under.bucket, [])


def test_deleting_a_prefix_leaves_everything_else(under):
    for key in ("pfx/one two sub/three", "pfx/é&<>", "pfx2/other", "outside"):
        under.store.put(under.bucket, key, b"x")

    count = under.store.delete_prefix(under.bucket, "pfx/")

    assert count == 2 or "folder_free_listing" in under.lacks
    assert keys(under) == ["outside", "pfx2/other"]


def test_deleting_a_prefix_of_a_missing_bucket_deletes_nothing(under):
    assert under.store.delete_prefix("no-such-bucket-at-all", "pfx/") == 0


# ---- listing


def test_a_listing_is_in_the_order_of_the_bytes_of_whole_keys(under):
    names = [
        "a-",
        "a/b",
        "a/b-c",
        "a/b.c/d",
        "a0",
        "a/é",
        "a/z",
        "Z",
        "a//x" if not under.lacks else "a/x",
    ]
    for name in names:
        under.store.put(under.bucket, name, b"x")

    found = keys(under)

    if "key_order" in under.lacks:
        found = sorted(found, key=str.encode)
    assert found == sorted(names, key=str.encode)


def test_a_listing_can_start_after_a_key_and_within_a_prefix(under):
    for name in ("a/1", "b/1", "b/2", "b/3", "c/1"):
        under.store.put(under.bucket, name, b"x")

    assert keys(under, "b/") == ["b/1", "b/2", "b/3"]
    assert keys(under, "b/", start_after="b/1") == ["b/2", "b/3"]
    assert keys(under, start_after="b/2x") == ["b/3", "c/1"]
    assert keys(under, "b/", start_after="c") == []


def test_a_listing_tells_size_and_etag(under):
    under.store.put(under.bucket, "object", b"12345")

    [info] = under.store.list(under.bucket)

    assert (info.size, info.etag) == (5, md5(b"12345").hex())


def test_a_missing_bucket_lists_as_empty(under):
    assert list(under.store.list("no-such-bucket-at-all")) == []
    assert list(under.store.list_prefixes("no-such-bucket-at-all")) == []


def test_prefixes_are_the_next_segments_only(under):
    for name in ("alice/x", "alice/y/z", "bob/x", "file", "bo"):
        under.store.put(under.bucket, name, b"x")

    assert sorted(under.store.list_prefixes(under.bucket)) == ["alice/", "bob/"]
    assert list(under.store.list_prefixes(under.bucket, "alice/")) == ["alice/y/"]
    assert list(under.store.list_prefixes(under.bucket, "bo")) == ["bob/"]


def test_more_than_a_page_of_objects_is_listed_and_deleted(under):
    count = 30 if "key_order" in under.lacks else 1003  # the gateways are slow at small objects
    for number in range(count):
        under.store.put(under.bucket, f"many/{number:04}", b"")

    assert sorted(keys(under, "many/")) == [f"many/{number:04}" for number in range(count)]
    assert under.store.delete_prefix(under.bucket, "many/") >= count
    assert keys(under) == []
