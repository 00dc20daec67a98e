"""The instances of a storage: made, found, listed, changed and destroyed through their records.

A record is the object ``<db_prefix>/.cozyfs/instance.json`` in the bucket of the instance's
organisation. Everything is read from the store each time, so any machine sees what another one
did. Synchronous functions of a Store: they block, and are called by commands, or in a thread.
What is inside an instance is none of this module's business, except to delete it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from cozyfs.errors import (
    AccessDenied,
    InstanceError,
    NotSupported,
    ObjectNotFound,
    PreconditionFailed,
    UsageError,
)
from cozyfs.moving import exports
from cozyfs.store.buckets import SIDE_BUCKETS, bucket_name, org_bucket, side_bucket
from cozyfs.store.keys import check_db_prefix, default_db_prefix
from cozyfs.values import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cozyfs.store.base import Store

T = TypeVar("T")

RECORD_NAME = ".cozyfs/instance.json"
RECORD_FORMAT = 1
_DELETE_BATCH = 1000
_UPDATE_ATTEMPTS = 10
_FORBIDDEN = frozenset(" /,;&?#@|='\"\t\r\n\0")


def record_key(db_prefix: str) -> str:
    return f"{check_db_prefix(db_prefix)}/{RECORD_NAME}"


def normalise_domain(domain: str) -> str:
    """*domain* as it is kept: IDNA decoded, trimmed, lower-case. UsageError for others than the
    Cozy server takes."""
    name = ".".join(_decoded_label(label) for label in domain.strip().split(".")).strip().lower()
    if not name:
        raise UsageError("the domain is empty")
    if name.startswith(".") or not _FORBIDDEN.isdisjoint(name):
        raise UsageError(f"{name!r} is not a domain")
    return name


def _decoded_label(label: str) -> str:
    if not label.lower().startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError as exc:
        raise UsageError(f"{label!r} is not a part of a domain") from exc


def create(
    store: Store,
    bucket_prefix: str,
    domain: str,
    *,
    org: str = "",
    db_prefix: str | None = None,
    quota: int = 0,
    context: str = "",
    trash_age_s: int | None = None,
) -> Instance:
    """Makes the bucket and the record of a new, empty instance; *quota* in bytes, 0 for none;
    *trash_age_s*: when the trash is cleaned, 0 for never, None for the default.

    InstanceError when the domain exists already, wherever, or the prefix is in use. Of two
    creators at once at most one succeeds, where the store honours conditional writes; on other
    stores two of the same instant could both be told so, and share the instance.
    """
    domain = normalise_domain(domain)
    if quota < 0:
        raise UsageError("a quota cannot be negative")
    instance = Instance(
        domain=domain,
        org=org,
        db_prefix=check_db_prefix(db_prefix or default_db_prefix(domain)),
        bucket=org_bucket(bucket_prefix, org),
        context=context,
        quota=quota,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        trash_age_s=trash_age_s,
    )
    _refuse_if_taken(list_instances(store, bucket_prefix), instance)
    store.ensure_bucket(instance.bucket)
    if next(iter(store.list(instance.bucket, f"{instance.db_prefix}/")), None) is not None:
        raise InstanceError(f"there are objects under the prefix {instance.db_prefix} already")
    try:
        _write(store, instance)
    except PreconditionFailed as exc:
        raise InstanceError(f"the instance {instance.domain} was just created by another") from exc
    try:
        # The condition above guards one key; the same domain may have got another just now.
        others = (other for other in list_instances(store, bucket_prefix) if other != instance)
        _refuse_if_taken(others, instance)
    except InstanceError:
        store.delete(instance.bucket, record_key(instance.db_prefix))
        raise
    return instance


def _refuse_if_taken(existing: Iterator[Instance], wanted: Instance) -> None:
    for instance in existing:
        if instance.domain == wanted.domain:
            raise InstanceError(f"the instance {wanted.domain} exists already")
        if instance.db_prefix == wanted.db_prefix:
            raise InstanceError(
                f"the prefix {wanted.db_prefix} is in use by the instance {instance.domain}"
            )


def _write(store: Store, instance: Instance) -> None:
    """Where there is no record. Raises PreconditionFailed, on stores that know conditions."""
    body = _encode({"format": RECORD_FORMAT, **asdict(instance)})
    bucket, key, kind = instance.bucket, record_key(instance.db_prefix), "application/json"
    try:
        store.put(bucket, key, body, content_type=kind, if_absent=True)
    except NotSupported:
        store.put(bucket, key, body, content_type=kind)


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, indent=2).encode() + b"\n"


def find(
    store: Store,
    bucket_prefix: str,
    domain: str,
    *,
    org: str | None = None,
    db_prefix: str | None = None,
    even_deleting: bool = False,
) -> Instance:
    """The instance of *domain*; InstanceError when there is none, or more than one, or when its
    destruction has begun, unless *even_deleting*.

    One request where the prefix is the default one and *org* is right (or not given, and the
    instance has none); else all records are read, of all organisations unless *org* is given.
    """
    instance = _find(store, bucket_prefix, normalise_domain(domain), org, db_prefix)
    if instance is None:
        raise InstanceError(f"there is no instance {normalise_domain(domain)} in this storage")
    if instance.deleting and not even_deleting:
        raise InstanceError(f"{instance.domain} is being destroyed: finish that first")
    return instance


def _find(
    store: Store, bucket_prefix: str, domain: str, org: str | None, db_prefix: str | None
) -> Instance | None:
    bucket = org_bucket(bucket_prefix, org or "")
    likely = _read(store, bucket_prefix, bucket, db_prefix or default_db_prefix(domain))
    if likely is not None and likely.domain == domain:
        return likely
    try:
        buckets = _org_buckets(store, bucket_prefix) if org is None else [bucket]
    except AccessDenied:  # these keys may not list buckets: what they can see is this one
        buckets = [bucket]
    found = [
        instance
        for name in buckets
        for instance in _in_bucket(store, bucket_prefix, name)
        if instance.domain == domain and db_prefix in (None, instance.db_prefix)
    ]
    if len(found) > 1:
        raise InstanceError(f"there are {len(found)} instances {domain}; name the db_prefix too")
    return found[0] if found else None


def list_instances(store: Store, bucket_prefix: str) -> Iterator[Instance]:
    """All instances of the storage, bucket by bucket. Where the keys may not list buckets, those
    without an organisation."""
    try:
        buckets = _org_buckets(store, bucket_prefix)
    except AccessDenied:
        buckets = [org_bucket(bucket_prefix, "")]
    for bucket in buckets:
        yield from _in_bucket(store, bucket_prefix, bucket)


def _org_buckets(store: Store, bucket_prefix: str) -> list[str]:
    side = {side_bucket(bucket_prefix, kind) for kind in SIDE_BUCKETS}
    return [
        name
        for name in sorted(store.list_buckets())
        if name.startswith(f"{bucket_prefix}-") and name not in side
    ]


def _in_bucket(store: Store, bucket_prefix: str, bucket: str) -> Iterator[Instance]:
    for prefix in store.list_prefixes(bucket):
        db_prefix = prefix.removesuffix("/")
        with suppress(UsageError):  # a prefix that no instance can have
            instance = _read(store, bucket_prefix, bucket, check_db_prefix(db_prefix))
            if instance is not None:
                yield instance


def _read(store: Store, bucket_prefix: str, bucket: str, db_prefix: str) -> Instance | None:
    """The record of a prefix, or None.

    The bucket of another bucket prefix may begin alike (``cozy`` and ``cozy-test``): the record
    must belong to the bucket it is in, and the bucket to its organisation.
    """
    try:
        body = store.get(bucket, record_key(db_prefix))
    except ObjectNotFound:
        return None
    instance = _parse(body, db_prefix)
    if instance.bucket != bucket or bucket_name(bucket_prefix, instance.org) != bucket:
        return None
    return instance


def _parse(body: bytes, db_prefix: str) -> Instance:
    try:
        record = json.loads(body)
        if record["format"] != RECORD_FORMAT:
            raise InstanceError(
                f"the record of the instance with prefix {db_prefix} has format "
                f"{record['format']}; this version of cozyfs knows {RECORD_FORMAT}"
            )
        return Instance(
            domain=str(record["domain"]),
            org=str(record["org"]),
            db_prefix=db_prefix,
            bucket=str(record["bucket"]),
            context=str(record["context"]),
            quota=int(record["quota"]),
            created_at=str(record["created_at"]),
            max_versions=_optional(record, "max_versions", int),
            version_delay_s=_optional(record, "version_delay_s", float),
            trash_age_s=_optional(record, "trash_age_s", int),
            deleting=bool(record.get("deleting", False)),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise InstanceError(
            f"the record of the instance with prefix {db_prefix} is damaged"
        ) from exc


def _optional(record: dict[str, Any], field: str, kind: Callable[[Any], T]) -> T | None:
    """What older records do not have."""
    value = record.get(field)
    return None if value is None else kind(value)


def modify(store: Store, instance: Instance, **changes: Any) -> Instance:
    """Gives fields of *instance*'s record other values and returns it as it is after. Other fields
    stay, also those that somebody changes at the same moment and those that this version does not
    know (on a store without conditional writes the moment between reading and writing is not
    guarded). Mounts of this machine are to be told ("reread" on their control socket). Raises
    InstanceError when the record is gone."""
    if changes.get("quota", 0) < 0:
        raise UsageError("a quota cannot be negative")
    key = record_key(instance.db_prefix)
    for _ in range(_UPDATE_ATTEMPTS):
        try:
            etag = store.head(instance.bucket, key).etag
            body = store.get(instance.bucket, key)  # if newer than the ETag, the PUT is refused
        except ObjectNotFound as exc:
            raise InstanceError(f"there is no instance {instance.domain} any more") from exc
        _parse(body, instance.db_prefix)
        changed = _encode(json.loads(body) | changes)
        try:
            store.put(
                instance.bucket, key, changed, content_type="application/json", if_match=etag
            )
        except PreconditionFailed:
            continue
        except NotSupported:
            store.put(instance.bucket, key, changed, content_type="application/json")
        return _parse(changed, instance.db_prefix)
    raise InstanceError(f"the record of {instance.domain} changes all the time; try again")


def reread(store: Store, instance: Instance) -> Instance:
    """*instance* as its record is now. Raises InstanceError when the record is gone."""
    try:
        body = store.get(instance.bucket, record_key(instance.db_prefix))
    except ObjectNotFound as exc:
        raise InstanceError(f"there is no instance {instance.domain} any more") from exc
    return _parse(body, instance.db_prefix)


def destroy(store: Store, bucket_prefix: str, instance: Instance) -> int:
    """Deletes all that *instance* has, in every bucket: objects and unfinished uploads under its
    prefix, and the exports of its domain. Its record says so first and goes last, so that nobody
    uses what is half gone, and an interrupted call can be repeated. Returns how many objects
    there were. Buckets stay: other instances may be in them."""
    prefix = f"{check_db_prefix(instance.db_prefix)}/"
    record = record_key(instance.db_prefix)
    modify(store, instance, deleting=True)
    # Asked for the whole bucket: MinIO knows no other prefixes than whole keys.
    for upload in list(store.list_multipart(instance.bucket, "")):
        if upload.key.startswith(prefix):
            store.abort_multipart(instance.bucket, upload.key, upload.upload_id)
    count = exports.remove_all(store, bucket_prefix, instance.domain)
    objects = store.list(instance.bucket, prefix)
    while batch := list(islice(objects, _DELETE_BATCH)):
        keys = [info.key for info in batch if info.key != record]
        store.delete_many(instance.bucket, keys)
        count += len(keys)
    store.delete(instance.bucket, record)
    return count + 1
