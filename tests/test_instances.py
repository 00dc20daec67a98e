"""Instances: records in buckets that several instances, and several cozyfs, share."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import threading

import pytest
from failing_store import FailingStore

from cozyfs import instances
from cozyfs.config import parse_fs_url
from cozyfs.errors import (
    InstanceError,
    NotSupported,
    ObjectNotFound,
    StoreUnavailable,
    UsageError,
)
from cozyfs.store import LocalStore, open_store

PREFIX = "test"
ALICE = "alice.example.com"
ALICE_DB = "cozy0d88385e5e731af27c0f1c0a312135b9"


@pytest.fixture
def store(local_store):
    return local_store


def put(store, instance, *names):
    for name in names:
        store.put(instance.bucket, f"{instance.db_prefix}/{name}", b"x")


def domains(store, prefix=PREFIX):
    return [instance.domain for instance in instances.list_instances(store, prefix)]


# ---- domains


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("alice.example.com", "alice.example.com"),
        ("  Alice.Example.COM\t", "alice.example.com"),
        ("xn--caf-dma.example.com", "café.example.com"),
        ("XN--caf-dma.example.com", "café.example.com"),
        ("café.example.com", "café.example.com"),
        ("cozy.localhost:8080", "cozy.localhost:8080"),
    ],
)
def test_a_domain_is_kept_in_its_unicode_form(given, kept):
    assert instances.normalise_domain(given) == kept


@pytest.mark.parametrize(
    "domain",
    ["", "  ", ".example.com", *[f"a{char}b.example.com" for char in " /,;&?#@|='\"\t\r\n\0"]],
)
def test_a_domain_that_the_cozy_server_forbids_is_refused(domain):
    with pytest.raises(UsageError):
        instances.normalise_domain(domain)


# ---- creating and finding


def test_a_new_instance_has_the_cozy_servers_bucket_and_prefix(store):
    made = instances.create(store, PREFIX, "Alice.example.com", quota=5 * 10**9, context="beta")

    assert (made.domain, made.org, made.bucket) == (ALICE, "", "test-default")
    assert (made.db_prefix, made.quota, made.context) == (ALICE_DB, 5 * 10**9, "beta")
    record = json.loads(store.get("test-default", f"{ALICE_DB}/.cozyfs/instance.json"))
    assert record["domain"] == ALICE
    assert record["bucket"] == "test-default"


def test_an_instance_is_found_as_it_was_created(store):
    made = instances.create(store, PREFIX, ALICE, org="My_Org", db_prefix="own", quota=7)

    assert made.bucket == "test-my-org"
    assert instances.find(store, PREFIX, "ALICE.example.com ") == made
    assert instances.find(store, PREFIX, ALICE, org="My_Org", db_prefix="own") == made
    assert list(instances.list_instances(store, PREFIX)) == [made]


class Counting:
    """A store whose calls are counted."""

    def __init__(self, store):
        self._store = store
        self.calls = []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self._store, name)


def test_finding_an_ordinary_instance_takes_one_request(store):
    instances.create(store, PREFIX, ALICE)
    counting = Counting(store)

    instances.find(counting, PREFIX, ALICE)

    assert counting.calls == ["get"]


@pytest.mark.parametrize("wanted", [{"org": "other"}, {"db_prefix": "other"}])
def test_an_instance_elsewhere_is_not_the_one_asked_for(store, wanted):
    instances.create(store, PREFIX, ALICE)

    with pytest.raises(InstanceError, match="there is no instance"):
        instances.find(store, PREFIX, ALICE, **wanted)


def test_an_unknown_domain_is_an_error(store):
    with pytest.raises(InstanceError, match=r"there is no instance bob\.example\.com"):
        instances.find(store, PREFIX, "bob.example.com")


@pytest.mark.parametrize("again", [{}, {"org": "other"}, {"db_prefix": "other"}])
def test_a_domain_cannot_be_created_twice_wherever(store, again):
    instances.create(store, PREFIX, ALICE, db_prefix="first")

    with pytest.raises(InstanceError, match="exists already"):
        instances.create(store, PREFIX, ALICE, **again)

    assert domains(store) == [ALICE]


@pytest.mark.parametrize("org", ["", "other"])
def test_a_prefix_belongs_to_one_instance(store, org):
    instances.create(store, PREFIX, ALICE, db_prefix="shared")

    with pytest.raises(InstanceError, match="in use by the instance"):
        instances.create(store, PREFIX, "bob.example.com", org=org, db_prefix="shared")


def test_a_prefix_that_holds_foreign_objects_is_not_taken_over(store):
    store.ensure_bucket("test-default")
    store.put("test-default", f"{ALICE_DB}/some-file/some-content", b"x")

    with pytest.raises(InstanceError, match="objects under the prefix"):
        instances.create(store, PREFIX, ALICE)


@pytest.mark.parametrize(
    "wrong", [{"org": "assets"}, {"org": "!!!"}, {"db_prefix": "a/b"}, {"quota": -1}]
)
def test_bad_input_creates_nothing(store, wrong):
    with pytest.raises(UsageError):
        instances.create(store, PREFIX, ALICE, **wrong)

    assert store.list_buckets() == []


@pytest.mark.parametrize("prefixes", [["same"] * 4, ["a", "b", "c", "d"]])
def test_of_creators_at_once_at_most_one_succeeds(store, prefixes):
    outcomes = []

    def create(db_prefix):
        with contextlib.suppress(InstanceError):
            outcomes.append(instances.create(store, PREFIX, ALICE, db_prefix=db_prefix))

    threads = [threading.Thread(target=create, args=(prefix,)) for prefix in prefixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) <= 1
    assert list(instances.list_instances(store, PREFIX)) == outcomes


def test_an_instance_can_be_created_where_conditional_writes_are_ignored(store):
    class Unconditional:
        def __getattr__(self, name):
            return getattr(store, name)

        def put(self, *args, if_absent=False, **kwargs):
            if if_absent:
                raise NotSupported("not honoured")
            return store.put(*args, **kwargs)

    made = instances.create(Unconditional(), PREFIX, ALICE)

    assert instances.find(store, PREFIX, ALICE) == made


# ---- listing


def test_instances_of_all_organisations_are_listed(store):
    for domain, org in [("a.example", ""), ("b.example", "one"), ("c.example", "two")]:
        instances.create(store, PREFIX, domain, org=org)

    assert sorted(domains(store)) == ["a.example", "b.example", "c.example"]


def test_buckets_of_a_prefix_that_begins_alike_are_not_ours(store):
    instances.create(store, "test", "a.example")
    instances.create(store, "test-two", "b.example")
    instances.create(store, "test-two", "c.example", org="org")

    assert domains(store, "test") == ["a.example"]
    assert sorted(domains(store, "test-two")) == ["b.example", "c.example"]


def test_side_buckets_hold_no_instances(store):
    made = instances.create(store, PREFIX, ALICE)
    store.ensure_bucket("test-assets")
    record = store.get(made.bucket, instances.record_key(made.db_prefix))
    store.put("test-assets", instances.record_key(made.db_prefix), record)

    assert domains(store) == [ALICE]


def test_a_record_copied_to_another_bucket_is_no_instance(store):
    made = instances.create(store, PREFIX, ALICE)
    store.ensure_bucket("test-other")
    key = instances.record_key(made.db_prefix)
    store.put("test-other", key, store.get(made.bucket, key))

    assert [found.bucket for found in instances.list_instances(store, PREFIX)] == ["test-default"]


def test_a_damaged_record_is_told(store):
    made = instances.create(store, PREFIX, ALICE)
    store.put(made.bucket, instances.record_key(made.db_prefix), b"{}")

    with pytest.raises(InstanceError, match="damaged"):
        instances.find(store, PREFIX, ALICE)


# ---- changing


def test_a_change_leaves_alone_what_it_does_not_know(store):
    alice = instances.create(store, PREFIX, ALICE, context="one", quota=5)
    key = instances.record_key(ALICE_DB)
    record = json.loads(store.get(alice.bucket, key)) | {"of_tomorrow": 1}
    store.put(alice.bucket, key, json.dumps(record).encode())

    changed = instances.modify(store, alice, context="two")

    assert (changed.context, changed.quota) == ("two", 5)
    assert json.loads(store.get(alice.bucket, key)) == record | {"context": "two"}


def test_of_two_changes_at_once_none_is_lost(store):
    alice = instances.create(store, PREFIX, ALICE)
    failing = FailingStore(store)
    failing.before("put", lambda: instances.modify(store, alice, quota=7))

    instances.modify(failing, alice, context="two")

    changed = instances.find(store, PREFIX, ALICE)
    assert (changed.context, changed.quota) == ("two", 7)


# ---- destroying


def test_destroying_leaves_nothing_of_the_instance_and_all_of_the_others(store):
    alice = instances.create(store, PREFIX, ALICE, db_prefix="cozy1")
    bob = instances.create(store, PREFIX, "bob.example.com", db_prefix="cozy12")
    put(store, alice, "id/content", ".cozyfs/journal/1", "thumbs/x-small", "avatar")
    put(store, bob, "id/content", ".cozyfs/journal/1")
    before = [info.key for info in store.list(bob.bucket, "cozy12/")]

    count = instances.destroy(store, PREFIX, alice)

    assert count == 5
    assert [info.key for info in store.list(alice.bucket)] == before
    assert domains(store) == ["bob.example.com"]


def test_destroying_aborts_unfinished_uploads_of_this_instance_only(store):
    alice = instances.create(store, PREFIX, ALICE, db_prefix="cozy1")
    store.create_multipart(alice.bucket, "cozy1/id/content", content_type="a/b")
    store.create_multipart(alice.bucket, "cozy12/id/content", content_type="a/b")

    instances.destroy(store, PREFIX, alice)

    left = [upload.key for upload in store.list_multipart(alice.bucket, "")]
    assert left == ["cozy12/id/content"]


def test_an_interrupted_destroy_can_be_repeated(store):
    alice = instances.create(store, PREFIX, ALICE)
    put(store, alice, "a", "b")

    class Interrupted:
        def __getattr__(self, name):
            return getattr(store, name)

        def delete_many(self, bucket, keys):
            store.delete(bucket, next(iter(keys)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        instances.destroy(Interrupted(), PREFIX, alice)
    with pytest.raises(InstanceError, match="is being destroyed"):
        instances.find(store, PREFIX, ALICE)
    left = instances.find(store, PREFIX, ALICE, even_deleting=True)
    assert left.deleting

    instances.destroy(store, PREFIX, left)
    with pytest.raises(InstanceError):
        instances.find(store, PREFIX, ALICE)
    assert list(store.list(alice.bucket)) == []


NEIGHBOURS = [
    ("lice.example.com", "cozy12", ""),
    ("alice.example.com.au", "cozy", ""),
    ("alice.example", "cozy1-", ""),
    ("bob.example.com", "cozy11", "acme"),
]


def everywhere(store, bucket_prefix):
    return sorted(
        (bucket, info.key)
        for bucket in store.list_buckets()
        if bucket.startswith(bucket_prefix)
        for info in store.list(bucket)
    )


def uploads_everywhere(store, bucket_prefix):
    return sorted(
        (bucket, upload.key)
        for bucket in store.list_buckets()
        if bucket.startswith(bucket_prefix)
        for upload in store.list_multipart(bucket, "")
    )


@pytest.mark.parametrize("name", ["local", "s3"])
def test_destroying_touches_no_neighbour_in_any_bucket(name, request):
    store = request.getfixturevalue(f"{name}_store")
    bucket_prefix = f"t{secrets.token_hex(6)}"
    for kind in ("apps-web", "apps-konnectors", "assets", "previews", "exports"):
        store.ensure_bucket(f"{bucket_prefix}-{kind}")
        store.put(f"{bucket_prefix}-{kind}", "cozy1/something", b"x")

    def settle(domain, db_prefix, org):
        made = instances.create(store, bucket_prefix, domain, db_prefix=db_prefix, org=org)
        put(store, made, "id/content", "avatar", "thumbs/id-tiny", ".cozyfs/journal/1")
        store.create_multipart(made.bucket, f"{db_prefix}/id/big", content_type="a/b")
        exports = f"{bucket_prefix}-exports"
        store.put(exports, f"{domain}/first", b"archive")
        store.create_multipart(exports, f"{domain}/second", content_type="a/b")
        return made

    for neighbour in NEIGHBOURS:
        settle(*neighbour)
    before = everywhere(store, bucket_prefix), uploads_everywhere(store, bucket_prefix)
    alice = settle(ALICE, "cozy1", "")

    instances.destroy(store, bucket_prefix, alice)

    assert everywhere(store, bucket_prefix) == before[0]
    assert uploads_everywhere(store, bucket_prefix) == before[1]


@pytest.mark.parametrize("call", range(1, 6))
def test_destroying_that_is_cut_at_any_write_ends_the_same(store, call):
    alice = instances.create(store, PREFIX, ALICE)
    put(store, alice, "a", "b")
    store.ensure_bucket("test-exports")
    store.put("test-exports", f"{ALICE}/x", b"archive")
    store.create_multipart(alice.bucket, f"{ALICE_DB}/c", content_type="a/b")
    names = ["put", "abort_multipart", "delete_prefix", "delete_many", "delete"]
    failing = FailingStore(store)
    failing.fail(names[call - 1])

    with pytest.raises(StoreUnavailable):
        instances.destroy(failing, PREFIX, alice)
    instances.destroy(store, PREFIX, instances.find(store, PREFIX, ALICE, even_deleting=True))

    assert everywhere(store, PREFIX) == []
    assert uploads_everywhere(store, PREFIX) == []


def settled(store, bucket_prefix, domain, db_prefix):
    """An instance with one of everything."""
    made = instances.create(store, bucket_prefix, domain, db_prefix=db_prefix)
    doc_id = "0198a1b2-0000-7000-8000-000000000000"
    put(
        store,
        made,
        *(f"{doc_id}/AbCdEfGhIjKlMnO{letter}" for letter in "pqr"),
        *(f"thumbs/{doc_id}-{form}" for form in ("tiny", "small", "medium", "large")),
        *(f"thumbs/{doc_id}/uuid-{form}" for form in ("original", "thumb")),
        "avatar",
        ".cozyfs/lease",
        ".cozyfs/import.json",
        ".cozyfs/journal/0000000001-0000000001",
        ".cozyfs/snapshots/0000000001-0000000001",
        ".cozyfs/apps/drive.json",
        ".cozyfs/konnectors/edf.json",
    )
    store.create_multipart(made.bucket, f"{db_prefix}/{doc_id}/AbCdEfGhIjKlMnOs", content_type="")
    exports = f"{bucket_prefix}-exports"
    store.ensure_bucket(exports)
    store.put(exports, f"{domain}/first", b"archive")
    store.create_multipart(exports, f"{domain}/second", content_type="")
    return made


@pytest.mark.parametrize("applied", [False, True], ids=["refused", "answer lost"])
def test_destroying_cut_at_any_call_of_the_store_ends_the_same(store, applied, monkeypatch):
    monkeypatch.setattr(instances, "_DELETE_BATCH", 4)
    for kind in ("apps-web", "apps-konnectors", "assets", "previews"):
        store.ensure_bucket(f"{PREFIX}-{kind}")
        store.put(f"{PREFIX}-{kind}", f"{ALICE_DB}/something", b"x")
    settled(store, PREFIX, f"{ALICE}.au", f"{ALICE_DB}2")
    settled(store, PREFIX, ALICE[1:], ALICE_DB[:-1])
    before = everywhere(store, PREFIX), uploads_everywhere(store, PREFIX)

    watched = FailingStore(store)
    instances.destroy(watched, PREFIX, settled(store, PREFIX, ALICE, ALICE_DB))
    calls = dict(watched.calls)
    assert sum(calls.values()) > 10

    for name, count in calls.items():
        for nth in range(1, count + 1):
            alice = settled(store, PREFIX, ALICE, ALICE_DB)
            failing = FailingStore(store)
            failing.fail(name, nth=nth, applied=applied)
            # The last call may be done, and a list may be empty before it fails.
            with contextlib.suppress(StoreUnavailable):
                instances.destroy(failing, PREFIX, alice)
            with contextlib.suppress(InstanceError):  # its record, which goes last, was gone
                left = instances.find(store, PREFIX, ALICE, even_deleting=True)
                instances.destroy(store, PREFIX, left)
            assert everywhere(store, PREFIX) == before[0], (name, nth)
            assert uploads_everywhere(store, PREFIX) == before[1], (name, nth)


def test_a_destroyed_instance_can_be_created_again(store):
    instances.destroy(store, PREFIX, instances.create(store, PREFIX, ALICE))

    instances.create(store, PREFIX, ALICE)

    assert domains(store) == [ALICE]


# ---- on S3


def test_an_instance_lives_and_dies_on_s3(s3_url):
    url = parse_fs_url(s3_url)
    store = open_store(url)
    made = instances.create(store, url.bucket_prefix, ALICE, org="acme")
    put(store, made, "id/content")

    assert instances.find(store, url.bucket_prefix, ALICE) == made
    with pytest.raises(InstanceError):
        instances.create(store, url.bucket_prefix, ALICE)
    instances.destroy(store, url.bucket_prefix, made)
    with pytest.raises(ObjectNotFound):
        store.head(made.bucket, instances.record_key(made.db_prefix))
    store.close()


# ---- modifying


@pytest.fixture(params=["local_store", "s3_store"])
def any_store(request):
    return request.getfixturevalue(request.param)


def test_what_is_modified_is_found_by_all_and_the_rest_stays(any_store):
    made = instances.create(any_store, PREFIX, "modified.example.com", quota=5)

    changed = instances.modify(any_store, made, max_versions=3, version_delay_s=60.0)

    assert (changed.max_versions, changed.version_delay_s, changed.quota) == (3, 60.0, 5)
    assert instances.find(any_store, PREFIX, made.domain) == changed


def test_what_another_has_modified_meanwhile_is_kept(store):
    made = instances.create(store, PREFIX, ALICE)
    instances.modify(store, made, max_versions=3)

    assert instances.modify(store, made, version_delay_s=1.0).max_versions == 3


def test_an_instance_that_is_gone_cannot_be_modified(store):
    made = instances.create(store, PREFIX, ALICE)
    instances.destroy(store, PREFIX, made)

    with pytest.raises(InstanceError, match="no instance"):
        instances.modify(store, made, max_versions=3)


def test_a_new_quota_is_in_the_record_and_nothing_else_is_different(store):
    made = instances.create(store, PREFIX, ALICE, context="beta", quota=7)
    assert instances.modify(store, made, quota=9).quota == 9
    assert instances.find(store, PREFIX, ALICE) == dataclasses.replace(made, quota=9)
    assert instances.reread(store, made).quota == 9


def test_fields_of_a_newer_version_and_of_others_stay(store):
    made = instances.create(store, PREFIX, ALICE)
    key = instances.record_key(made.db_prefix)
    record = json.loads(store.get(made.bucket, key)) | {"colour": "blue", "context": "other"}
    store.put(made.bucket, key, json.dumps(record).encode())
    instances.modify(store, made, quota=9)
    assert json.loads(store.get(made.bucket, key)) == record | {"quota": 9}


def test_a_change_between_reading_and_writing_is_not_lost(tmp_path):
    store = FailingStore(LocalStore(tmp_path / "store", durable=False))
    made = instances.create(store, PREFIX, ALICE)
    key = instances.record_key(made.db_prefix)
    others = iter([{"context": "first"}, {"context": "second"}])

    def change(*_, **__):
        for fields in others:
            record = json.loads(store.inner.get(made.bucket, key)) | fields
            store.inner.put(made.bucket, key, json.dumps(record).encode())
            return

    store.before("put", change, times=2)
    changed = instances.modify(store, made, quota=9)
    assert (changed.context, changed.quota) == ("second", 9)


def test_the_quota_of_an_instance_that_is_gone_is_refused(store):
    made = instances.create(store, PREFIX, ALICE)
    instances.destroy(store, PREFIX, made)
    for call in (
        lambda: instances.modify(store, made, quota=9),
        lambda: instances.reread(store, made),
    ):
        with pytest.raises(InstanceError):
            call()
    assert list(store.list(made.bucket, "")) == []


def test_a_negative_quota_is_bad_input(store):
    made = instances.create(store, PREFIX, ALICE)
    with pytest.raises(UsageError):
        instances.modify(store, made, quota=-1)
