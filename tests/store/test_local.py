"""What is the local store's alone: whose folder it is, what is on the disk, crashes, processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import AccessDenied, StoreError, StoreFull, UsageError
from cozyfs.store import MIN_PART_SIZE, LocalStore
from cozyfs.store.keys import check_key
from cozyfs.store.local_files import copy_range, translated
from cozyfs.store.local_names import key_part, relative_path

BUCKET = "test-default"


@pytest.fixture
def store(local_store):
    local_store.ensure_bucket(BUCKET)
    return local_store


@pytest.fixture
def folder(store, tmp_path):
    return tmp_path / "store" / BUCKET


# ---- whose folder


def test_a_missing_or_empty_folder_becomes_a_store(tmp_path):
    (tmp_path / "empty").mkdir()

    for path in (tmp_path / "missing" / "deep", tmp_path / "empty"):
        LocalStore(path).check()
        LocalStore(path).check()  # and stays one


def test_a_disks_own_folder_does_not_count(tmp_path):
    (tmp_path / "lost+found").mkdir()

    LocalStore(tmp_path)


def test_a_folder_with_anything_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "alice.example.com").mkdir()  # a Cozy server's own local storage

    with pytest.raises(UsageError, match="not a store of cozyfs"):
        LocalStore(tmp_path)

    assert os.listdir(tmp_path) == ["alice.example.com"]


@pytest.mark.parametrize("marker", ["", "[]", '{"format": 99}'])
def test_a_marker_that_is_not_understood_is_refused(tmp_path, marker):
    (tmp_path / ".cozyfs-store").write_text(marker)

    with pytest.raises(UsageError):
        LocalStore(tmp_path)


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError):
        LocalStore(tmp_path / "file")


# ---- names


def test_an_object_is_a_file_under_the_path_of_its_key(store, folder):
    store.put(BUCKET, "alice/.cozyfs/lease", b"content")

    assert (folder / "alice/.cozyfs/lease").read_bytes() == b"content"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_every_key_is_a_path_within_the_bucket_and_comes_back(key):
    try:
        path = relative_path(check_key(key))
    except StoreError:
        return

    parts = path.split(b"/")
    assert not {b"", b".", b".."} & set(parts)
    assert not parts[0].startswith(b".cozyfs-")
    assert b"/".join(map(key_part, parts)).decode() == key


@pytest.mark.parametrize(
    "key", [".cozyfs-meta/x", ".cozyfs-tmp", "a//b", "a/", "/a", "100%", "%2E"]
)
def test_names_that_files_cannot_have_are_escaped(store, key):
    store.put(BUCKET, key, b"content")

    assert store.get(BUCKET, key) == b"content"
    assert [info.key for info in store.list(BUCKET)] == [key]
    store.delete(BUCKET, key)
    assert list(store.list(BUCKET)) == []


def test_a_part_that_is_too_long_for_a_file_name_is_refused(store):
    store.put(BUCKET, "a/" + "x" * 255, b"")

    with pytest.raises(StoreError, match="255 bytes"):
        store.put(BUCKET, "a/" + "x" * 256, b"")


@pytest.mark.parametrize("bucket", ["..", "a/b", ".cozyfs-store", "", "UPPER", "../outside"])
def test_a_bucket_cannot_be_outside_of_the_store(store, bucket):
    with pytest.raises(StoreError):
        store.ensure_bucket(bucket)
    with pytest.raises(StoreError):
        store.put(bucket, "key", b"")


def test_a_key_cannot_be_an_object_and_a_folder_of_others(store):
    store.put(BUCKET, "a", b"object")

    with pytest.raises(StoreError, match="both"):
        store.put(BUCKET, "a/b", b"below")

    assert store.get(BUCKET, "a") == b"object"
    assert [info.key for info in store.list(BUCKET)] == ["a"]


def test_a_symbolic_link_is_not_followed(store, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(StoreError):
        store.get(BUCKET, "link")
    assert list(store.list(BUCKET)) == []


# ---- what is beside an object


def test_an_object_without_its_facts_has_defaults_and_a_computed_etag(store, folder):
    (folder / "dir").mkdir()
    (folder / "dir/dropped-in").write_bytes(b"content")

    info = store.head(BUCKET, "dir/dropped-in")

    assert info.etag == hashlib.md5(b"content").hexdigest()
    assert (info.content_type, dict(info.metadata)) == ("application/octet-stream", {})


def test_facts_of_other_content_do_not_count(store, folder):
    store.put(BUCKET, "object", b"first", content_type="a/a", metadata={"x": "y"})
    (folder / "object").write_bytes(b"other")

    info = store.head(BUCKET, "object")

    assert info.etag == hashlib.md5(b"other").hexdigest()
    assert (info.content_type, dict(info.metadata)) == ("application/octet-stream", {})


def test_damaged_facts_do_not_count(store, folder):
    store.put(BUCKET, "object", b"content", content_type="a/a")
    (folder / ".cozyfs-meta/object").write_text("{")

    assert store.head(BUCKET, "object").content_type == "application/octet-stream"


def test_deleting_leaves_no_empty_folders_and_no_facts(store, folder):
    store.put(BUCKET, "a/b/c/object", b"x")

    store.delete(BUCKET, "a/b/c/object")

    assert sorted(os.listdir(folder)) == [
        ".cozyfs-locks",
        ".cozyfs-meta",
        ".cozyfs-tmp",
        ".cozyfs-uploads",
    ]
    assert os.listdir(folder / ".cozyfs-meta") == []


def test_a_folder_left_over_by_a_crash_is_no_prefix(store, folder):
    (folder / "left/over").mkdir(parents=True)
    store.put(BUCKET, "real/object", b"x")

    assert list(store.list_prefixes(BUCKET)) == ["real/"]


def test_nothing_is_left_of_a_write_that_failed(store, folder):
    with pytest.raises(StoreError):
        store.put(BUCKET, "object", b"sent", md5=hashlib.md5(b"meant").digest())

    assert os.listdir(folder / ".cozyfs-tmp") == []


def test_nothing_is_left_of_a_completed_upload(store, folder):
    upload_id = store.create_multipart(BUCKET, "big", content_type="a/b")
    parts = [
        (number, store.upload_part(BUCKET, "big", upload_id, number, data))
        for number, data in enumerate([bytes(MIN_PART_SIZE), b"tail"], 1)
    ]
    store.complete_multipart(BUCKET, "big", upload_id, parts)

    assert os.listdir(folder / ".cozyfs-uploads") == []
    assert os.listdir(folder / ".cozyfs-tmp") == []


def test_small_parts_are_refused_as_s3_does(store):
    upload_id = store.create_multipart(BUCKET, "big", content_type="a/b")
    parts = [
        (number, store.upload_part(BUCKET, "big", upload_id, number, b"small"))
        for number in (1, 2)
    ]

    with pytest.raises(StoreError, match="5 MiB"):
        store.complete_multipart(BUCKET, "big", upload_id, parts)


@pytest.mark.parametrize(
    "parts", [[], [(2, "a" * 32), (1, "a" * 32)], [(1, "a" * 32)], [(1, "../../x")]]
)
def test_a_list_of_parts_that_no_upload_has_is_refused(store, parts):
    upload_id = store.create_multipart(BUCKET, "big", content_type="a/b")

    with pytest.raises(StoreError):
        store.complete_multipart(BUCKET, "big", upload_id, parts)


def test_a_durable_store_does_the_same(tmp_path):
    store = LocalStore(tmp_path / "durable")
    store.ensure_bucket(BUCKET)

    store.put(BUCKET, "a/b/object", b"content", metadata={"x": "y"})

    assert store.get(BUCKET, "a/b/object") == b"content"
    assert store.head(BUCKET, "a/b/object").metadata == {"x": "y"}


# ---- listing


keys = st.lists(st.text("a-./0é", min_size=1, max_size=6), min_size=1, max_size=8, unique=True)


@given(keys, st.text("a-./0é", max_size=3), st.text("a-./0é", max_size=4))
def test_any_listing_is_a_sorted_list_of_the_keys_that_were_put(
    tmp_path_factory, names, prefix, start_after
):
    store = LocalStore(tmp_path_factory.mktemp("listing") / "store", durable=False)
    store.ensure_bucket(BUCKET)
    there = []
    for name in names:
        try:
            store.put(BUCKET, name, b"")
            there.append(name)
        except StoreError:  # dots, or below another object
            pass

    wanted = [name for name in there if name.startswith(prefix) and name > start_after]
    found = [info.key for info in store.list(BUCKET, prefix, start_after)]
    assert found == sorted(wanted, key=str.encode)
    cuts = {name[: name.find("/", len(prefix)) + 1] for name in there if name.startswith(prefix)}
    prefixes = list(store.list_prefixes(BUCKET, prefix))
    assert prefixes == sorted(cuts - {""}, key=str.encode)


# ---- errors of the disk


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.EIO, StoreError),
    ],
)
def test_errors_of_the_disk_are_the_stores_without_a_path(number, expected):
    with pytest.raises(StoreError) as caught, translated():
        raise OSError(number, os.strerror(number), "/secret/path")

    assert type(caught.value) is expected
    assert "secret" not in str(caught.value)


def test_a_disk_that_is_full_is_told_as_such(store):
    """/dev/full stands in for the disk: every write to it fails with ENOSPC."""
    source, target = os.open(__file__, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StoreFull), translated():
            copy_range(source, 0, 100, target)
    finally:
        os.close(source)
        os.close(target)


# ---- several processes


def test_of_several_processes_one_creates_and_each_replacement_is_counted(tmp_path):
    """Each of four processes adds 1 to a number 25 times, with if_match; none gets lost."""
    LocalStore(tmp_path / "store", durable=False).ensure_bucket(BUCKET)
    script = textwrap.dedent(f"""
        from cozyfs.errors import PreconditionFailed
        from cozyfs.store import LocalStore
        store = LocalStore({str(tmp_path / "store")!r}, durable=False)
        try:
            store.put({BUCKET!r}, "number", b"0", if_absent=True)
            print("created")
        except PreconditionFailed:
            pass
        done = 0
        while done < 25:
            etag = store.head({BUCKET!r}, "number").etag
            number = int(store.get({BUCKET!r}, "number"))
            try:
                store.put({BUCKET!r}, "number", b"%d" % (number + 1), if_match=etag)
                done += 1
            except PreconditionFailed:
                pass
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]

    assert [child.returncode for child in children] == [0] * 4
    assert "".join(outputs).count("created") == 1
    store = LocalStore(tmp_path / "store")
    assert store.get(BUCKET, "number") == b"100"


def test_the_marker_names_the_format(tmp_path):
    LocalStore(tmp_path / "store")

    assert json.loads((tmp_path / "store/.cozyfs-store").read_text()) == {"format": 1}
